//! x
mod data;
mod tokenizer;
