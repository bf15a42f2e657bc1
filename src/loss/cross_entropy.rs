//! Behavioural cloning: the sum of cross-entropies and what is logged beside it. Imports `ffi` and `loss` only.
use super::logprobs::{HeadFigures, Projection};
use crate::error::Result;
use crate::ffi::{self, HeadPass};
use tch::Tensor;

/// Bytes of float32 logits that are there at once.
const BUDGET: u64 = 128 << 20;

/// Sums over targets; scalars.
pub struct CrossEntropy {
    /// Sum of -log pi(y_t | x, y_<t), nats; with a gradient.
    pub sum: Tensor,
    /// Sum of the entropies of pi(. | x, y_<t), nats.
    pub entropy: Tensor,
    /// Number of targets that are the most likely token (the first of several).
    pub correct: Tensor,
}

/// Of `targets [M]` (int64) after hidden states `[M, D]`. The gradient is made with each chunk of logits, so that logits are
/// computed once and never there all together.
///
/// # Errors
/// [`crate::Error::Shim`] where shapes do not fit or memory is short.
pub fn cross_entropy(hidden: &Tensor, head: Projection, targets: &Tensor) -> Result<CrossEntropy> {
    let pass = HeadPass { scale: 1.0, budget: BUDGET, compute: head.compute, figures: true };
    let HeadFigures { logprobs, entropy, correct, .. } = ffi::head_sum(hidden, head.weight, targets, pass)?;
    Ok(CrossEntropy { sum: logprobs.f_neg()?, entropy, correct })
}
