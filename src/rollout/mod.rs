//! Sampling completions from a model. Owns decoding; must not import `train` or `stages`.
mod generate;
pub mod sampling;

pub use generate::{GenerateOptions, generate};
pub use sampling::Sampling;
