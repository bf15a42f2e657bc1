//! Direct preference optimization and its variants. Pure; imports `loss` only.
//!
//! h = (log pi(y_w|x) - log ref(y_w|x)) - (log pi(y_l|x) - log ref(y_l|x)) and z = beta h throughout.
use super::bradley_terry::mixed;
use crate::error::Result;
use tch::Tensor;

/// A preference loss l(z) by name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Variant {
    /// l(z) = -log sigma(z). Rafailov et al. 2023, eq. 7; with label smoothing Mitchell 2023 (cDPO).
    Sigmoid,
    /// l(z) = max(0, 1 - z). Zhao et al. 2023 (SLiC), Liu et al. 2023 (RSO).
    Hinge,
    /// l = (h - 1 / (2 beta))^2. Azar et al. 2023, eq. 17.
    Ipo,
    /// l(z) = [(1 - e) s(z) - e s(-z)] / (1 - 2e), s the sigmoid loss. Chowdhury et al. 2024, eq. 12.
    Robust,
}

/// Settings of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DpoSettings {
    /// Which l.
    pub variant: Variant,
    /// Strength of the KL constraint, > 0.
    pub beta: f64,
    /// Probability e that a label is wrong, in [0, 0.5).
    pub label_smoothing: f64,
}

/// Loss of each pair: `mu l(z) + (1 - mu) l(-z)`.
///
/// `log_ratio_margin` is h, [P] float32 (for length-normalised IPO the caller passes means over tokens); `preference` is
/// mu [P]. Label smoothing turns mu into mu (1 - e) + (1 - mu) e; `Robust` has e in its own l instead.
pub fn pair_losses(log_ratio_margin: &Tensor, preference: &Tensor, settings: &DpoSettings) -> Result<Tensor> {
    let smoothing = settings.label_smoothing;
    let forward = one_sided(log_ratio_margin, settings)?;
    let backward = one_sided(&log_ratio_margin.f_neg()?, settings)?;
    if smoothing == 0.0 || settings.variant == Variant::Robust {
        return mixed(&forward, &backward, preference);
    }
    let mu = preference.f_mul_scalar(1.0 - 2.0 * smoothing)?.f_add_scalar(smoothing)?;
    mixed(&forward, &backward, &mu)
}

/// l for margin h; the preference's other side is l of -h.
fn one_sided(h: &Tensor, settings: &DpoSettings) -> Result<Tensor> {
    let z = h.f_mul_scalar(settings.beta)?;
    let sigmoid = |z: &Tensor| -> Result<Tensor> { Ok(z.f_log_sigmoid()?.f_neg()?) };
    match settings.variant {
        Variant::Sigmoid => sigmoid(&z),
        Variant::Hinge => Ok(z.f_neg()?.f_add_scalar(1.0)?.f_relu()?),
        Variant::Ipo => Ok(h.f_sub_scalar(1.0 / (2.0 * settings.beta))?.f_square()?),
        Variant::Robust => {
            let e = settings.label_smoothing;
            let kept = sigmoid(&z)?.f_mul_scalar(1.0 - e)?;
            let flipped = sigmoid(&z.f_neg()?)?.f_mul_scalar(e)?;
            Ok(kept.f_sub(&flipped)?.f_div_scalar(1.0 - 2.0 * e)?)
        }
    }
}
