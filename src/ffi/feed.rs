//! Activation and product of a feed-forward part on the CPU in float32 (`feed.cpp`).
use std::ffi::c_int;

use tch::Tensor;
use torch_sys::C_tensor;

use super::{check, pointer};
use crate::error::Result;

unsafe extern "C" {
    fn collimate_feeds(like: *const C_tensor) -> c_int;
    fn collimate_activated(
        x: *const C_tensor,
        gate: *const C_tensor,
        activation: c_int,
        out: *mut *mut C_tensor,
    ) -> c_int;
    fn collimate_feed(
        x: *const C_tensor,
        gate: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        in_out: c_int,
        activation: c_int,
        out: *mut *mut C_tensor,
    ) -> c_int;
}

/// The activation of a feed-forward part; numbers as in the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// GELU in the tanh approximation (`gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`).
    GeluTanh = 0,
    /// SiLU, also called swish.
    Silu = 1,
    /// Exact GELU.
    Gelu = 2,
    /// ReLU.
    Relu = 3,
}

/// Whether [`activated`] and [`feed`] serve tensors like this one: float32, in order, on the CPU.
pub fn feeds(like: &Tensor) -> bool {
    // SAFETY: a valid handle, only read.
    unsafe { collimate_feeds(like.as_ptr()) != 0 }
}

/// act(x), times a gate of its shape where there is one; without gradient.
///
/// # Errors
/// [`crate::Error::Shim`] for what [`feeds`] says no to.
pub fn activated(x: &Tensor, gate: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: valid handles that outlive the call; on success one new handle.
    check(unsafe { collimate_activated(x.as_ptr(), pointer(gate), activation as c_int, &mut out) })?;
    // SAFETY: as above.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// [`activated`] `[N, F]` times a weight, `[F, D]` where `in_out` says so and else `[D, F]`, plus a bias `[D]`. The backward
/// pass makes the activation's values again, so that they are not kept.
///
/// # Errors
/// [`crate::Error::Shim`] for what [`feeds`] says no to, or what does not fit.
pub fn feed(
    x: &Tensor,
    gate: Option<&Tensor>,
    (weight, bias): (&Tensor, Option<&Tensor>),
    in_out: bool,
    activation: Activation,
) -> Result<Tensor> {
    let (weight, bias, gate) = (weight.as_ptr(), pointer(bias), pointer(gate));
    let mut out = std::ptr::null_mut();
    // SAFETY: valid handles that outlive the call; on success one new handle.
    check(unsafe { collimate_feed(x.as_ptr(), gate, weight, bias, in_out.into(), activation as c_int, &mut out) })?;
    // SAFETY: as above.
    Ok(unsafe { Tensor::from_ptr(out) })
}
