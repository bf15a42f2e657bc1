//! The choice of the next token. Owns temperature, top-k, top-p and the inverse transform; knows no model.
//!
//! Shapes: B rows, V tokens.
use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::seed;

/// How a token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; above 0.
    pub temperature: f64,
    /// Only the k most probable tokens; 0 is off. Tokens that tie with the k-th stay, as in transformers.
    pub top_k: usize,
    /// Only the most probable tokens whose probabilities first sum to at least p (Holtzman et al. 2020); 1 is off.
    pub top_p: f64,
    /// The most probable token, always; the rest is then ignored.
    pub greedy: bool,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Self {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, greedy: false }
    }
}

impl Sampling {
    /// The most probable token, always.
    pub fn greedy() -> Self {
        Sampling { greedy: true, ..Sampling::default() }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the value.
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            let message = format!("temperature {} is not above 0", self.temperature);
            return Err(Error::usage(message, "use greedy decoding for the limit 0"));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::usage(format!("top-p {} is not in (0, 1]", self.top_p), "1 switches it off"));
        }
        Ok(())
    }
}

/// One token a row from `logits [B, V]` (float32): by inverse transform with `uniforms` (B numbers in `[0, 1)`), so that a
/// row's token depends on its own logits and number only.
///
/// # Errors
/// [`Error::Usage`] for values out of range or a wrong number of uniforms.
pub fn sample(logits: &Tensor, sampling: &Sampling, uniforms: &[f64]) -> Result<Vec<i64>> {
    let _guard = tch::no_grad_guard();
    if sampling.greedy {
        return Ok(Vec::try_from(logits.f_argmax(-1, false)?)?);
    }
    sampling.validate()?;
    let (rows, _) = logits.size2()?;
    if uniforms.len() as i64 != rows {
        return Err(Error::usage(
            "one uniform number a row is needed",
            "this is a fault of the program; please report it",
        ));
    }
    let uniforms = Tensor::f_from_slice(uniforms)?.f_to_device(logits.device())?.f_unsqueeze(1)?;
    // Summed in float64: over 50,000 tokens float32 sums would shift probabilities by about 1e-6.
    let cumulative = probabilities(logits, sampling)?.f_cumsum(-1, Kind::Double)?;
    let total = cumulative.f_narrow(-1, -1, 1)?;
    let drawn = uniforms.f_mul(&total)?.f_searchsorted(&cumulative, false, true, "right", None::<&Tensor>)?;
    // Rounding may carry the product up to the total: then the last token that has any probability is meant.
    let last = total.f_contiguous()?.f_searchsorted(&cumulative, false, false, "left", None::<&Tensor>)?;
    Ok(Vec::try_from(drawn.f_minimum(&last)?.f_squeeze_dim(1)?)?)
}

/// The distribution `[B, V]` that [`sample`] draws from (not for greedy decoding).
///
/// # Errors
/// [`Error::Torch`] when memory is short.
pub fn probabilities(logits: &Tensor, sampling: &Sampling) -> Result<Tensor> {
    let vocab = logits.size2()?.1;
    let mut scaled =
        if sampling.temperature == 1.0 { logits.shallow_clone() } else { logits.f_div_scalar(sampling.temperature)? };
    let top_k = i64::try_from(sampling.top_k).unwrap_or(vocab);
    if (1..vocab).contains(&top_k) {
        let kth = scaled.f_topk(top_k, -1, true, true)?.0.f_narrow(-1, -1, 1)?;
        scaled = scaled.f_masked_fill(&scaled.f_lt_tensor(&kth)?, f64::NEG_INFINITY)?;
    }
    if sampling.top_p < 1.0 {
        let (sorted, order) = scaled.f_softmax(-1, Kind::Float)?.f_sort(-1, true)?;
        // A token stays when what is more probable than it sums to less than p: the first one always does.
        let before = sorted.f_cumsum(-1, Kind::Double)?.f_sub(&sorted)?;
        let drop = before.f_ge(sampling.top_p)?;
        let drop = drop.f_scatter(-1, &order, &drop)?;
        scaled = scaled.f_masked_fill(&drop, f64::NEG_INFINITY)?;
    }
    Ok(scaled.f_softmax(-1, Kind::Float)?)
}

/// The uniform number of one draw, from (seed, prompt, place in the completion): 53 bits in `[0, 1)`.
pub fn uniform(seed: u64, prompt: u64, place: u64) -> f64 {
    (seed::derive(seed, "sample", &[prompt, place]) >> 11) as f64 / (1_u64 << 53) as f64
}
