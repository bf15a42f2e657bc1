//! Behavioural cloning: cross-entropy sums and what is logged beside them. Pure; imports `loss` only.
use super::logprobs::token_logprobs;
use crate::error::Result;
use tch::{Kind, Tensor};

/// Rows of logits whose entropy is taken at once: bounds the float32 temporaries.
const ENTROPY_ROWS: i64 = 128;

/// Sum over targets of -log pi(y_t | x, y_<t), in nats: `logits` [M, V], `targets` [M] -> scalar.
pub fn cross_entropy_sum(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    Ok(token_logprobs(logits, targets)?.f_sum(Kind::Float)?.f_neg()?)
}

/// Sum over rows of the entropy of softmax(logits), in nats, without gradient: `logits` [M, V] -> scalar.
pub fn entropy_sum(logits: &Tensor) -> Result<Tensor> {
    let logits = logits.detach();
    let mut total = Tensor::f_zeros([], (Kind::Float, logits.device()))?;
    for chunk in logits.f_split(ENTROPY_ROWS, 0)? {
        let logprobs = chunk.f_log_softmax(-1, Kind::Float)?;
        total = total.f_sub(&logprobs.f_exp()?.f_mul(&logprobs)?.f_sum(Kind::Float)?)?;
    }
    Ok(total)
}

/// Number of rows whose largest logit is the target: `logits` [M, V], `targets` [M] -> scalar float32.
pub fn correct_count(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    Ok(logits.detach().f_argmax(-1, false)?.f_eq_tensor(targets)?.f_sum(Kind::Float)?)
}
