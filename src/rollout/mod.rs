//! Rollouts: sampling from a policy, scoring, and what samples are worth. Imports model, loss, data and tokenizer; never
//! `train` or `stages`.
pub mod assess;
pub mod command;
pub mod episode;
pub mod forward;
pub mod generate;
pub mod sampling;
pub mod scorer;

pub use generate::{GenerateOptions, generate};
pub use sampling::Sampling;
pub use scorer::Scorer;
