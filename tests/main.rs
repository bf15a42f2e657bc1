//! The one integration binary: libtorch links once.
mod data;
mod ffi;
mod golden_curves;
mod golden_encoding;
mod golden_losses;
mod golden_models;
mod golden_optimizer;
mod golden_sampling;
mod golden_tokenizer;
mod hub;
mod model;
mod model_files;
mod rollout;
mod support;
mod tiny;
mod tokenizer;
