//! Log-probabilities of tokens and of sequences. Pure; imports nothing of ours but `error`.
use crate::error::Result;
use tch::{Kind, Tensor};

/// log pi(target) for each row of logits: `logits` [M, V] float, `targets` [M] int64 -> [M] float32, in nats.
///
/// The softmax runs in float32 whatever the logits' kind.
pub fn token_logprobs(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let logits = logits.f_to_kind(Kind::Float)?;
    let none: Option<&Tensor> = None;
    let losses = logits.f_cross_entropy_loss(targets, none, tch::Reduction::None, -100, 0.0)?;
    Ok(losses.f_neg()?)
}

/// Sums of `values` [M] by sequence: `sequence` [M] int64 in 0..S -> [S].
pub fn sum_by_sequence(values: &Tensor, sequence: &Tensor, sequences: i64) -> Result<Tensor> {
    Ok(Tensor::f_zeros([sequences], (values.kind(), values.device()))?.f_index_add(0, sequence, values)?)
}
