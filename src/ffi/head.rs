//! The language-model head without logits of all rows (`head.cpp`), and the lookup of embeddings (`embedding.cpp`).
use std::ffi::c_int;

use tch::{Kind, Tensor};
use torch_sys::C_tensor;

use super::{check, scalar_type};
use crate::error::{Error, Result};

unsafe extern "C" {
    fn collimate_head(
        hidden: *const C_tensor,
        weight: *const C_tensor,
        targets: *const C_tensor,
        scale: f64,
        budget: i64,
        compute: c_int,
        figures: c_int,
        sum: c_int,
        out: *mut *mut C_tensor,
    ) -> c_int;
    fn collimate_embedding(table: *const C_tensor, ids: *const C_tensor, out: *mut *mut C_tensor) -> c_int;
}

/// How a head's pass goes.
#[derive(Debug, Clone, Copy)]
pub struct HeadPass {
    /// What logits are multiplied by: 1 / temperature.
    pub scale: f64,
    /// Bytes of float32 logits that may be there at once; at least one row is.
    pub budget: u64,
    /// The kind of the matrix products.
    pub compute: Kind,
    /// Whether entropy and correctness are wanted; they cost a little. Else they are zeros.
    pub figures: bool,
}

/// What a head says of targets.
#[derive(Debug)]
pub struct HeadFigures {
    /// log pi(target), nats; with a gradient.
    pub logprobs: Tensor,
    /// Entropy of the distribution, nats; without a gradient.
    pub entropy: Tensor,
    /// 1 where the target is the most likely token, else 0.
    pub correct: Tensor,
    /// The largest magnitude among the scaled logits: what float32 rounding goes by.
    pub size: Tensor,
}

/// Log-probs of `targets [M]` under softmax(scale · hidden weightᵀ), `hidden [M, D]`, `weight [V, D]`: all `[M]` float32.
///
/// Logits are made in chunks within the budget; where they are not kept they are made again for the gradient. The weight's
/// gradient is added to what it has already.
///
/// # Errors
/// [`Error::Shim`] where shapes do not fit or memory is short.
pub fn head(hidden: &Tensor, weight: &Tensor, targets: &Tensor, pass: HeadPass) -> Result<HeadFigures> {
    run(hidden, weight, targets, pass, false)
}

/// The sums of what [`head`] gives (of `size` the largest), scalars; the gradient is made together with the sum, so that logits are made once.
///
/// # Errors
/// As [`head`].
pub fn head_sum(hidden: &Tensor, weight: &Tensor, targets: &Tensor, pass: HeadPass) -> Result<HeadFigures> {
    run(hidden, weight, targets, pass, true)
}

fn run(hidden: &Tensor, weight: &Tensor, targets: &Tensor, pass: HeadPass, sum: bool) -> Result<HeadFigures> {
    let mut out = [std::ptr::null_mut(); 4];
    let compute = scalar_type(pass.compute).ok_or_else(|| Error::Shim(format!("head: {:?}", pass.compute)))?;
    // SAFETY: valid handles that outlive the call; on success four new handles, which the Tensors then own.
    let code = unsafe {
        collimate_head(
            hidden.as_ptr(),
            weight.as_ptr(),
            targets.as_ptr(),
            pass.scale,
            i64::try_from(pass.budget).unwrap_or(i64::MAX),
            compute,
            pass.figures.into(),
            sum.into(),
            out.as_mut_ptr(),
        )
    };
    check(code)?;
    let [logprobs, entropy, correct, size] = out.map(|handle| unsafe { Tensor::from_ptr(handle) });
    Ok(HeadFigures { logprobs, entropy, correct, size })
}

/// Rows `ids [N]` of a leaf `table [V, D]`, `[N, D]`; the gradient is added to what the table has already.
///
/// # Errors
/// [`Error::Shim`] for an id outside the table.
pub fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: valid handles that outlive the call; on success one new handle, which the Tensor then owns.
    check(unsafe { collimate_embedding(table.as_ptr(), ids.as_ptr(), &mut out) })?;
    Ok(unsafe { Tensor::from_ptr(out) })
}
