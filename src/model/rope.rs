//! Rotary position embedding (Su et al. 2021), in the half-split layout that transformers uses. Owns nothing else.
use tch::{Device, Kind, Tensor};

use super::linear::cast;
use crate::error::Result;

/// The inverse frequencies `theta^(-2i/d)`, `[d/2]`.
#[derive(Debug)]
pub struct Rope {
    inverse_frequencies: Tensor,
}

/// Cosines and sines of one forward's positions, `[N, 1, d/2]` each, shared by all layers.
#[derive(Debug)]
pub struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// `head_dim` must be even.
    pub fn new(theta: f64, head_dim: i64, device: Device) -> Result<Self> {
        // In float32 and in this order, as transformers computes them: at position 8,000 a last-bit difference shows.
        let exponents = Tensor::f_arange_start_step(0, head_dim, 2, (Kind::Float, device))?.f_div_scalar(head_dim)?;
        let inverse_frequencies = Tensor::f_pow_scalar(theta, &exponents)?.f_reciprocal()?;
        Ok(Rope { inverse_frequencies })
    }

    /// `positions [N]` to the angles' cosines and sines.
    pub fn rotation(&self, positions: &Tensor) -> Result<Rotation> {
        let angles = positions.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?.f_mul(&self.inverse_frequencies)?;
        let angles = angles.f_unsqueeze(1)?;
        Ok(Rotation { cos: angles.f_cos()?, sin: angles.f_sin()? })
    }
}

impl Rotation {
    /// Rotates `x [N, heads, d]`: pairs `(x_i, x_{i+d/2})` turn by the token's angle i. The result has `x`'s kind.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let kind = x.kind();
        let halves = cast(x, Kind::Float)?.f_chunk(2, -1)?;
        let (a, b) = (&halves[0], &halves[1]);
        let first = a.f_mul(&self.cos)?.f_sub(&b.f_mul(&self.sin)?)?;
        let second = b.f_mul(&self.cos)?.f_add(&a.f_mul(&self.sin)?)?;
        cast(&Tensor::f_cat(&[first, second], -1)?, kind)
    }
}
