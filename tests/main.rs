//! The one integration binary: libtorch links once.
mod data;
mod ffi;
mod golden_losses;
mod golden_tokenizer;
mod hub;
mod model;
mod model_files;
mod rollout;
mod support;
mod tiny;
mod tokenizer;
