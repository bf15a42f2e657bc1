//! Decoding on the CPU in float32 (`decode.cpp`, `kernels.cpp`): products of few rows, attention of one query a row, the draw
//! of a token. What is not served here gives none, and the caller goes libtorch's way.
use std::ffi::c_int;

use tch::Tensor;
use torch_sys::C_tensor;

use super::{Heads, check, pointer, pointers};
use crate::error::Result;

unsafe extern "C" {
    fn collimate_decodes(like: *const C_tensor) -> c_int;
    fn collimate_product(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        in_out: c_int,
        out: *mut *mut C_tensor,
    ) -> c_int;
    fn collimate_attend(
        qkv: *const *const C_tensor,
        cache: *const *const C_tensor,
        slot: *const C_tensor,
        at: *const C_tensor,
        scale: f64,
        window: i64,
        out: *mut *mut C_tensor,
    ) -> c_int;
    fn collimate_draw(
        logits: *const C_tensor,
        inverse_temperature: f64,
        uniforms: *const f64,
        tokens: *mut i64,
        logprobs: *mut f32,
    ) -> c_int;
}

/// Whether [`attend`] and [`draw`] serve tensors like this one: float32, on the CPU, without gradient, on a processor with
/// AVX2 or AVX-512.
pub fn decodes(like: &Tensor) -> bool {
    // SAFETY: a valid handle, only read.
    unsafe { collimate_decodes(like.as_ptr()) != 0 }
}

/// `x [M, in]` times a weight, `[in, out]` where `in_out` says so and else `[out, in]`, plus a bias `[out]`; none where that
/// is not for us: more rows than a weight is read once for, another kind or device, a gradient is wanted.
///
/// A row's result depends on that row alone, bit by bit.
///
/// # Errors
/// [`crate::Error::Shim`] where shapes do not fit.
pub fn small_product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, in_out: bool) -> Result<Option<Tensor>> {
    let mut out = std::ptr::null_mut();
    // SAFETY: valid handles that outlive the call; on success one new handle or none.
    check(unsafe { collimate_product(x.as_ptr(), weight.as_ptr(), pointer(bias), in_out.into(), &mut out) })?;
    // SAFETY: a handle that is not null is a new one, which the Tensor then owns.
    Ok(if out.is_null() { None } else { Some(unsafe { Tensor::from_ptr(out) }) })
}

/// Stores keys and values `[R, K, d]` of one token a row at place `at [R]` of row `slot [R]` of a cache of keys and values
/// `[S, capacity, K, d]`, and attends with queries `[R, H, d]` to what stands there up to that place. Gives `[R, H * d]`.
///
/// # Errors
/// [`crate::Error::Shim`] where shapes or places do not fit, or [`decodes`] says no.
pub fn attend(
    [q, k, v]: [&Tensor; 3],
    cache: [&Tensor; 2],
    (slot, at): (&Tensor, &Tensor),
    heads: Heads,
) -> Result<Tensor> {
    let (qkv, cache) = (pointers(&[q, k, v]), pointers(&cache));
    let (scale, window) = (heads.scale, heads.window.unwrap_or(0));
    let mut out = std::ptr::null_mut();
    // SAFETY: valid handles that outlive the call, three and two as the shim reads them; on success one new handle.
    let code =
        unsafe { collimate_attend(qkv.as_ptr(), cache.as_ptr(), slot.as_ptr(), at.as_ptr(), scale, window, &mut out) };
    check(code)?;
    // SAFETY: as above.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// A token a row from `softmax(logits [B, V] * inverse_temperature)` by inverse transform with `uniforms`, B numbers in
/// `[0, 1)`, and the log-probabilities of the tokens.
///
/// # Errors
/// [`crate::Error::Shim`] where logits are not finite, the numbers are not B, or [`decodes`] says no.
pub fn draw(logits: &Tensor, inverse_temperature: f64, uniforms: &[f64]) -> Result<(Vec<i64>, Vec<f32>)> {
    if logits.size().first() != Some(&(uniforms.len() as i64)) {
        return Err(crate::Error::Shim("draw: one uniform number a row is needed".into()));
    }
    let (mut tokens, mut logprobs) = (vec![0; uniforms.len()], vec![0.0; uniforms.len()]);
    // SAFETY: a valid handle; three arrays of one number a row, which was checked.
    let code = unsafe {
        collimate_draw(
            logits.as_ptr(),
            inverse_temperature,
            uniforms.as_ptr(),
            tokens.as_mut_ptr(),
            logprobs.as_mut_ptr(),
        )
    };
    check(code)?;
    Ok((tokens, logprobs))
}
