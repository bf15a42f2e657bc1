//! Losses and their helpers: pure functions on tensors and scalars. Imports tch and nothing of ours but `error`.
//!
//! Shape legend: M target positions, V vocabulary, S sequences, P pairs.
pub mod bradley_terry;
pub mod cross_entropy;
pub mod distill;
pub mod dpo;
pub mod draw;
pub mod gae;
pub mod kl;
pub mod logprobs;
pub mod ppo;
