//! Rollouts: sampling from a policy. Owns decoding; must not import `train` or `stages`.
pub mod generate;
pub mod sampling;
