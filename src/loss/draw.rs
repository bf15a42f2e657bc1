//! A token a row from its distribution, by inverse transform. Imports `ffi` and `error` only.
//!
//! Shapes: B rows, V tokens.
use crate::error::{Error, Result};
use crate::ffi;
use tch::{Kind, Tensor};

/// Tokens that were drawn, one a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// Ids.
    pub tokens: Vec<i64>,
    /// log p(token), nats.
    pub logprobs: Vec<f64>,
}

/// Row r's token is the first at which the running sum of softmax(logits / temperature) passes `uniforms[r]`, in `[0, 1)`:
/// it depends on that row alone. `logits [B, V]` float32; minus infinity rules a token out.
///
/// # Errors
/// [`Error::Usage`] for a wrong number of uniforms; [`Error::Shim`] for logits that are no numbers.
pub fn draw(logits: &Tensor, temperature: f64, uniforms: &[f64]) -> Result<Drawn> {
    if uniforms.len() as i64 != logits.size2()?.0 {
        return Err(Error::usage(
            "one uniform number a row is needed",
            "this is a fault of the program; please report it",
        ));
    }
    if !ffi::decodes(logits) {
        return draw_by_tensors(logits, temperature, uniforms);
    }
    let (tokens, logprobs) = ffi::draw(logits, temperature.recip(), uniforms)?;
    Ok(Drawn { tokens, logprobs: logprobs.into_iter().map(f64::from).collect() })
}

/// [`draw`] in libtorch's operators, for every device; it makes [B, V] float64 numbers.
///
/// # Errors
/// As [`draw`].
pub fn draw_by_tensors(logits: &Tensor, temperature: f64, uniforms: &[f64]) -> Result<Drawn> {
    let logprobs = logits.f_div_scalar(temperature)?.f_log_softmax(-1, Kind::Float)?;
    let uniforms = Tensor::f_from_slice(uniforms)?.f_to_device(logits.device())?.f_unsqueeze(1)?;
    // Summed in float64: over 50,000 tokens float32 sums would shift probabilities by about 1e-6.
    let cumulative = logprobs.f_exp()?.f_cumsum(-1, Kind::Double)?;
    let total = cumulative.f_narrow(-1, -1, 1)?;
    let drawn = uniforms.f_mul(&total)?.f_searchsorted(&cumulative, false, true, "right", None::<&Tensor>)?;
    // Rounding may carry the product up to the total: then the last token that has any probability is meant.
    let last = total.f_contiguous()?.f_searchsorted(&cumulative, false, false, "left", None::<&Tensor>)?;
    // A place after the last one is what NaN gets.
    let drawn = drawn.f_minimum(&last)?.f_clamp_max(logprobs.size2()?.1 - 1)?;
    let logprobs: Vec<f32> = Vec::try_from(logprobs.f_gather(-1, &drawn, false)?.f_squeeze_dim(1)?)?;
    if !logprobs.iter().all(|p| p.is_finite()) {
        return Err(Error::Shim("draw: the logits of a row are no numbers".into()));
    }
    let tokens = Vec::try_from(drawn.f_squeeze_dim(1)?)?;
    Ok(Drawn { tokens, logprobs: logprobs.into_iter().map(f64::from).collect() })
}
