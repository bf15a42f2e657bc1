//! The one integration binary: libtorch links once.
mod data;
mod golden_losses;
mod golden_tokenizer;
mod hub;
mod support;
mod tokenizer;
