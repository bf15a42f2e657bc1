//! The one integration binary: libtorch links once.
mod architecture;
mod cli;
mod config;
mod data;
mod dpo_optimum;
mod ffi;
mod golden_losses;
mod golden_tokenizer;
mod hub;
mod model;
mod model_files;
mod rollout;
mod stages;
mod support;
mod tiny;
mod tokenizer;
mod train;
