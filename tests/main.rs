//! x
mod tokenizer;
