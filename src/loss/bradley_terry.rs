//! The Bradley-Terry loss of a reward model. Pure; imports nothing of ours but `error`.
use crate::error::Result;
use tch::Tensor;

/// Loss of each pair, in nats: with z = r_chosen - r_rejected - margin,
/// `-[mu log sigma(z) + (1 - mu) log sigma(-z)] + centering (r_chosen + r_rejected)^2`.
///
/// All tensors [P] float32; `preference` is mu, the probability that `chosen` is better (1 certain, 0.5 a tie).
/// Bradley and Terry 1952; Christiano et al. 2017 (eq. 1, mu); Touvron et al. 2023 (eq. 2, margin); Eisenstein et
/// al. 2023 (centring).
pub fn pair_losses(
    chosen: &Tensor,
    rejected: &Tensor,
    preference: &Tensor,
    margin: &Tensor,
    centering: f64,
) -> Result<Tensor> {
    let z = chosen.f_sub(rejected)?.f_sub(margin)?;
    let losses = mixed(&z.f_log_sigmoid()?.f_neg()?, &z.f_neg()?.f_log_sigmoid()?.f_neg()?, preference)?;
    if centering == 0.0 {
        return Ok(losses);
    }
    let square = chosen.f_add(rejected)?.f_square()?;
    Ok(losses.f_add(&square.f_mul_scalar(centering)?)?)
}

/// `mu a + (1 - mu) b`, elementwise: a loss under uncertain preference.
pub(super) fn mixed(a: &Tensor, b: &Tensor, mu: &Tensor) -> Result<Tensor> {
    let other = mu.f_neg()?.f_add_scalar(1.0)?;
    Ok(mu.f_mul(a)?.f_add(&other.f_mul(b)?)?)
}

/// The probability that the first of two wins, by the difference of their rewards: 1 / (1 + e^-difference).
pub fn probability(difference: f64) -> f64 {
    1.0 / (1.0 + (-difference).exp())
}
