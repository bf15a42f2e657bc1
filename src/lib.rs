//! collimate aligns small language models: supervised fine-tuning, reward models, PPO and DPO on libtorch.
//!
//! The way of the data, one direction:
//!
//! ```text
//! config -> dataset rows -> token sequences -> flat batch -> backbone -> hidden states -> head -> objective (a sum)
//!                                  ^                                                                 |
//!               rollout <- policy -+                  trainer: accumulate, clip, AdamW, log, checkpoint <+
//! ```
//!
//! `config`, `ffi`, `hub` and `loss` import nothing of ours; `tests/architecture.rs` holds the rest of the rule.
#[macro_use]
mod part;

pub mod annotate;
pub mod bench;
pub mod chart;
pub mod collect;
pub mod commands;
pub mod config;
pub mod data;
pub mod durable;
pub mod error;
pub mod experiment;
pub mod ffi;
pub mod hub;
pub mod lock;
pub mod loss;
pub mod model;
pub mod rank;
pub mod rollout;
pub mod seed;
pub mod stages;
pub mod tensors;
pub mod tokenizer;
pub mod train;

pub use error::{Error, Result};
