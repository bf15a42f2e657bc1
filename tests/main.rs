//! The one integration binary: libtorch links once.
mod architecture;
mod cli;
mod config;
mod data;

mod experiment;
mod ffi;
mod golden_curves;
mod golden_encoding;
mod golden_losses;
mod golden_models;
mod golden_optimizer;
mod golden_ppo;
mod golden_sampling;
mod golden_tokenizer;
mod hub;
mod model;
mod model_files;
mod optimum;
mod ppo;
mod report;
mod rollout;
mod stages;
mod support;
mod tiny;
mod tokenizer;
mod train;
