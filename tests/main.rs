//! x
mod data;
mod golden_losses;
mod golden_tokenizer;
mod support;
mod tokenizer;
