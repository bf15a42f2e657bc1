//! Layer normalisation and root-mean-square normalisation, in float32. Owns nothing else.
use tch::{Kind, Tensor};

use super::linear::cast;
use super::params::{Builder, Init};
use crate::error::Result;

/// A normalisation over the last dimension; statistics in float32, the result in `output`.
#[derive(Debug)]
pub struct Norm {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    width: i64,
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
    /// Takes `name.weight` `[width]`, and `name.bias` for a layer norm; `output` is the kind that the next product wants.
    ///
    /// # Errors
    /// As [`Builder::take`].
    pub fn take(
        builder: &mut Builder,
        name: &str,
        kind: NormKind,
        (width, eps): (i64, f64),
        output: Kind,
    ) -> Result<Self> {
        let weight = Some(builder.take(&format!("{name}.weight"), &[width], Init::Ones)?);
        let bias = match kind {
            NormKind::Layer => Some(builder.take(&format!("{name}.bias"), &[width], Init::Zeros)?),
            NormKind::RootMeanSquare => None,
        };
        Ok(Norm { weight, bias, width, kind, eps, output })
    }

    /// A layer norm without weight and bias.
    pub fn plain(width: i64, eps: f64, output: Kind) -> Self {
        Norm { weight: None, bias: None, width, kind: NormKind::Layer, eps, output }
    }

    /// `x [..., D]` to the same shape.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] when memory is short.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (shape, x) = ([self.width], cast(x, Kind::Float)?);
        let y = match self.kind {
            NormKind::Layer => x.f_layer_norm(shape, self.weight.as_ref(), self.bias.as_ref(), self.eps, false)?,
            NormKind::RootMeanSquare => x.f_rms_norm(shape, self.weight.as_ref(), self.eps)?,
        };
        cast(&y, self.output)
    }
}
