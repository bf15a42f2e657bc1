//! The second half of the feed-forward part: activation, gate, the product that follows. Owns no weights.
use tch::Tensor;

use super::linear::Linear;
use crate::error::Result;
use crate::ffi;

pub use crate::ffi::Activation;

impl Activation {
    /// What messages say of the names.
    pub const NAMES: &'static str = "gelu_new, gelu, silu and relu are";

    /// By transformers' name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            "gelu" => Activation::Gelu,
            "silu" | "swish" => Activation::Silu,
            "relu" => Activation::Relu,
            _ => return None,
        })
    }
}

/// `act(x [N, F])`, times the gate `[N, F]` where there is one, through `down`: `[N, D]`. On the CPU in float32 what lies
/// between is made again in the backward pass instead of being kept.
///
/// # Errors
/// [`crate::Error::Torch`] or [`crate::Error::Shim`] when memory is short.
pub fn feed_forward(x: &Tensor, gate: Option<&Tensor>, activation: Activation, down: &Linear) -> Result<Tensor> {
    if !ffi::feeds(x) || !down.is_full_precision() {
        let inner = activate(x, activation)?;
        return match gate {
            Some(gate) => down.forward(&inner.f_mul(gate)?),
            None => down.forward(&inner),
        };
    }
    if down.decodes() {
        return down.forward(&ffi::activated(x, gate, activation)?);
    }
    let (weight, bias, in_out) = down.parts();
    ffi::feed(x, gate, (weight, bias), in_out, activation)
}

fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::GeluTanh => x.f_gelu("tanh")?,
        Activation::Gelu => x.f_gelu("none")?,
        Activation::Silu => x.f_silu()?,
        Activation::Relu => x.f_relu()?,
    })
}
