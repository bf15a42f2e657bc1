//! Activations of the feed-forward part. Owns no weights.
use tch::Tensor;

use crate::error::Result;

/// The activation of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// GELU in the tanh approximation (`gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`).
    GeluTanh,
    /// Exact GELU.
    Gelu,
    /// SiLU, also called swish.
    Silu,
    /// ReLU.
    Relu,
}

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

/// Applies the activation, with libtorch's fused kernels.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::GeluTanh => x.f_gelu("tanh")?,
        Activation::Gelu => x.f_gelu("none")?,
        Activation::Silu => x.f_silu()?,
        Activation::Relu => x.f_relu()?,
    })
}
