//! A linear layer's product on the CPU in float32 (`product.cpp`): on the processor's matrix unit where it has one.
use std::ffi::c_int;

use tch::Tensor;
use torch_sys::C_tensor;

use super::{check, pointer};
use crate::error::Result;

unsafe extern "C" {
    fn collimate_splits() -> c_int;
    fn collimate_linear(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        in_out: c_int,
        out: *mut *mut C_tensor,
    ) -> c_int;
}

/// Whether large products in float32 run on this processor's matrix unit for bfloat16, each value in three pieces (AMX). Not
/// where the variable `COLLIMATE_PRODUCTS` is `libtorch`, nor where `ATEN_CPU_CAPABILITY` names less than AVX-512.
pub fn splits() -> bool {
    // SAFETY: no arguments.
    unsafe { collimate_splits() != 0 }
}

/// `x [M, in]` times a weight, `[in, out]` where `in_out` says so and else `[out, in]`, plus a bias `[out]`.
///
/// # Errors
/// [`crate::Error::Shim`] for what does not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, in_out: bool) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: valid handles that outlive the call; on success one new handle.
    check(unsafe { collimate_linear(x.as_ptr(), weight.as_ptr(), pointer(bias), in_out.into(), &mut out) })?;
    // SAFETY: as above.
    Ok(unsafe { Tensor::from_ptr(out) })
}
