//! The choice of the next token. Owns temperature, top-k, top-p and the seeds of draws; knows no model.
//!
//! Shapes: B rows, V tokens.
use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::loss::draw::{Drawn, draw};
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
    Ok(choose(logits, sampling, uniforms)?.tokens)
}

/// [`sample`] with the log-probability of each token under the distribution that it was drawn from: 0 in greedy decoding.
///
/// # Errors
/// As [`sample`].
pub fn choose(logits: &Tensor, sampling: &Sampling, uniforms: &[f64]) -> Result<Drawn> {
    let _guard = tch::no_grad_guard();
    if sampling.greedy {
        let tokens: Vec<i64> = Vec::try_from(logits.f_argmax(-1, false)?)?;
        return Ok(Drawn { logprobs: vec![0.0; tokens.len()], tokens });
    }
    sampling.validate()?;
    match truncated(logits, sampling)? {
        None => draw(logits, sampling.temperature, uniforms),
        Some(scaled) => draw(&scaled, 1.0, uniforms),
    }
}

/// The distribution `[B, V]` that [`sample`] draws from (not for greedy decoding).
///
/// # Errors
/// [`Error::Torch`] when memory is short.
pub fn probabilities(logits: &Tensor, sampling: &Sampling) -> Result<Tensor> {
    let scaled = match truncated(logits, sampling)? {
        None => logits.f_div_scalar(sampling.temperature)?,
        Some(scaled) => scaled,
    };
    Ok(scaled.f_softmax(-1, Kind::Float)?)
}

/// Logits divided by the temperature, minus infinity where top-k or top-p rule a token out; none where neither does.
fn truncated(logits: &Tensor, sampling: &Sampling) -> Result<Option<Tensor>> {
    let vocab = logits.size2()?.1;
    let top_k = i64::try_from(sampling.top_k).unwrap_or(vocab);
    let few = (1..vocab).contains(&top_k);
    if !few && sampling.top_p >= 1.0 {
        return Ok(None);
    }
    let mut scaled = logits.f_div_scalar(sampling.temperature)?;
    if few {
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
    Ok(Some(scaled))
}

/// The uniform number of one draw, from (seed, prompt, place in the completion): 53 bits in `[0, 1)`.
pub fn uniform(seed: u64, prompt: u64, place: u64) -> f64 {
    (seed::derive(seed, "sample", &[prompt, place]) >> 11) as f64 / (1_u64 << 53) as f64
}
