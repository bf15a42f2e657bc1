//! Layer normalisation and root-mean-square normalisation, in float32. Owns nothing else.
use tch::{Kind, Tensor};

use super::linear::cast;
use crate::error::Result;

/// A normalisation over the last dimension; statistics in float32, the result in `output`.
#[derive(Debug)]
pub struct Norm {
    weight: Tensor,
    bias: Option<Tensor>,
    kind: NormKind,
    eps: f64,
    output: Kind,
}

/// Which normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Ba, Kiros and Hinton 2016: mean and variance.
    Layer,
    /// Zhang and Sennrich 2019: root mean square, no mean.
    RootMeanSquare,
}

impl Norm {
    /// `weight` and `bias` are `[D]`; `output` is the kind that the next product wants.
    pub fn new(kind: NormKind, weight: Tensor, bias: Option<Tensor>, eps: f64, output: Kind) -> Self {
        Norm { weight, bias, kind, eps, output }
    }

    /// `x [N, D]` float32 to `[N, D]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shape = self.weight.size();
        let y = match self.kind {
            NormKind::Layer => x.f_layer_norm(shape, Some(&self.weight), self.bias.as_ref(), self.eps, false)?,
            NormKind::RootMeanSquare => x.f_rms_norm(shape, Some(&self.weight), self.eps)?,
        };
        cast(&y, self.output)
    }
}
