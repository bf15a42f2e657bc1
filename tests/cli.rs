//! The command line: the whole way on the tiny model, and what is said when the input is bad.
mod bad_input;
mod bad_models;
mod bad_weights;
mod bench;
mod whole;
