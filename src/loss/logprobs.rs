//! Log-probabilities of tokens and of sequences. Imports `ffi` and `error` only.
use crate::error::Result;
use crate::ffi::{self, HeadPass};
use tch::{Kind, Tensor};

pub use crate::ffi::HeadFigures;

/// Bytes of float32 logits that are kept from forward to backward; beyond it they are made twice, in chunks.
const BUDGET: u64 = 256 << 20;

/// A language-model head: hidden states to logits.
#[derive(Debug, Clone, Copy)]
pub struct Projection<'a> {
    /// `[V, D]`, a leaf.
    pub weight: &'a Tensor,
    /// The kind of its products.
    pub compute: Kind,
}

/// log pi(target), nats, of `targets [M]` (int64) after hidden states `[M, D]`, logits divided by `temperature`; `figures`:
/// with entropy and correctness. All `[M]` float32; the softmax runs in float32 whatever the products' kind.
///
/// # Errors
/// [`crate::Error::Shim`] where shapes do not fit or memory is short.
pub fn of_targets(
    hidden: &Tensor,
    head: Projection,
    targets: &Tensor,
    temperature: f64,
    figures: bool,
) -> Result<HeadFigures> {
    let pass = HeadPass { scale: 1.0 / temperature, budget: BUDGET, compute: head.compute, figures };
    ffi::head(hidden, head.weight, targets, pass)
}

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
    let (kind, device) = (values.kind(), values.device());
    if !device.is_cuda() {
        // One value after the other: a sum does not depend on what else is in the batch, not even by rounding.
        return Ok(Tensor::f_zeros([sequences], (kind, device))?.f_index_add(0, sequence, values)?);
    }
    // On CUDA `index_add` adds in whatever order its threads come, and a resumed run would not end the same. By a mask
    // [S, M]; `where` and no product: minus infinity belongs to its own sequence alone.
    let mine = Tensor::f_arange(sequences, (Kind::Int64, device))?.f_unsqueeze(1)?.f_eq_tensor(sequence)?;
    let spread = values.f_where_self(&mine, &Tensor::f_zeros([], (kind, device))?)?;
    Ok(spread.f_sum_dim_intlist([1_i64].as_slice(), false, kind)?)
}
