//! Rollouts: sampling from a policy, scoring, and what samples are worth. Imports model, loss, data and tokenizer; never
//! `train` or `stages`.
pub mod assess;
pub mod command;
mod decoder;
pub mod disagreement;
pub mod episode;
pub mod expert;
pub mod expert_command;
pub mod forward;
pub mod generate;
pub mod mixture;
pub mod program;
pub mod sampling;
pub mod scorer;

pub use generate::{GenerateOptions, generate};
pub use sampling::Sampling;
pub use scorer::Scorer;
