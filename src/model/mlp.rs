//! Activations of the feed-forward part. Owns no weights.
use tch::Tensor;

use super::hf_config::Activation;
use crate::error::Result;

/// Applies the activation, with libtorch's fused kernels.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::GeluTanh => x.f_gelu("tanh")?,
        Activation::Gelu => x.f_gelu("none")?,
        Activation::Silu => x.f_silu()?,
        Activation::Relu => x.f_relu()?,
    })
}
