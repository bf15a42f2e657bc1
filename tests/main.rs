//! x
mod data;
mod hub;
mod tokenizer;
