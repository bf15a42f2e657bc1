//! The heads that stand on a backbone: token logits and scalar scores. Owns their forward only; runs on the rows that
//! are asked for, never on prompts or padding.
use tch::{Kind, Tensor};

use super::linear::{Layout, Linear, cast};
use crate::error::Result;

/// The language-model head, `[V, D]`, tied to the embedding or not.
#[derive(Debug)]
pub struct LmHead {
    weight: Tensor,
    linear: Linear,
}

impl LmHead {
    /// `weight` is `[V, D]`.
    pub fn new(weight: Tensor, compute: Kind) -> Self {
        let linear = Linear::new(weight.shallow_clone(), None, Layout::OutIn, compute);
        LmHead { weight, linear }
    }

    /// `hidden [M, D]` to logits `[M, V]` in float32.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        cast(&self.linear.forward(hidden)?, Kind::Float)
    }

    /// `[V, D]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}

/// A scalar head without bias, `[1, D]`; always float32.
#[derive(Debug)]
pub struct ScoreHead(Tensor);

impl ScoreHead {
    /// `weight` is `[1, D]`.
    pub fn new(weight: Tensor) -> Self {
        ScoreHead(weight)
    }

    /// `hidden [M, D]` to scores `[M]` in float32.
    pub fn scores(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(cast(hidden, Kind::Float)?.f_linear(&self.0, None::<&Tensor>)?.f_squeeze_dim(-1)?)
    }
}
