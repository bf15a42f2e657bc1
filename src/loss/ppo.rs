//! Proximal policy optimization: rewards with a per-token KL penalty, the clipped losses, the adaptive coefficient. Pure;
//! imports nothing of ours but `error`.
//!
//! Shape legend: M completion tokens of a batch, T of one episode.
use crate::error::Result;
use tch::{Kind, Tensor};

/// Rewards of an episode's tokens [T]: `-coef (log pi - log ref)` each (k1), and `score` more at the last real token.
///
/// Ziegler et al. 2019, eq. 2, a token at a time; Ouyang et al. 2022. Log-probs in nats, at sampling time.
pub fn kl_rewards(logprobs: &[f64], reference: &[f64], score: f64, coef: f64) -> Vec<f64> {
    let mut rewards: Vec<f64> = logprobs.iter().zip(reference).map(|(p, q)| -coef * (p - q)).collect();
    if let Some(last) = rewards.last_mut() {
        *last += score;
    }
    rewards
}

/// The coefficient after an iteration: `coef (1 + clip(kl / target - 1, -0.2, 0.2) episodes / horizon)`.
///
/// `kl` is summed over a sequence's tokens and averaged over episodes, nats. Ziegler et al. 2019, section 2.2.
pub fn adapted_coef(coef: f64, kl: f64, target: f64, horizon: f64, episodes: f64) -> f64 {
    coef * (1.0 + (kl / target - 1.0).clamp(-0.2, 0.2) * episodes / horizon)
}

/// A loss over tokens and how often its clip was active; both detached but for `losses`.
pub struct Clipped {
    /// Loss of each token [M].
    pub losses: Tensor,
    /// Whether the clipped term decided, 0 or 1 each [M].
    pub clipped: Tensor,
}

/// The clipped surrogate, negated: `max(-A rho, -A clip(rho, 1 - c, 1 + c))` with rho = exp(log pi - log pi_old).
///
/// All [M] float32; `old` and `advantages` without gradient. Schulman et al. 2017, eq. 7.
pub fn policy_losses(logprobs: &Tensor, old: &Tensor, advantages: &Tensor, clip_range: f64) -> Result<Clipped> {
    let ratio = logprobs.f_sub(old)?.f_exp()?;
    let gain = advantages.f_neg()?;
    let free = gain.f_mul(&ratio)?;
    let held = gain.f_mul(&ratio.f_clamp(1.0 - clip_range, 1.0 + clip_range)?)?;
    larger(&free, &held)
}

/// Half the squared error of values that may move by `clip_range` only:
/// `1/2 max((v - R)^2, (clip(v, v_old - c, v_old + c) - R)^2)`.
///
/// All [M] float32; `old` and `returns` without gradient. As in Schulman et al.'s own implementation (openai/baselines).
pub fn value_losses(values: &Tensor, old: &Tensor, returns: &Tensor, clip_range: f64) -> Result<Clipped> {
    let held = values.f_clamp_tensor(Some(old.f_sub_scalar(clip_range)?), Some(old.f_add_scalar(clip_range)?))?;
    let half_square = |v: &Tensor| -> Result<Tensor> { Ok(v.f_sub(returns)?.f_square()?.f_mul_scalar(0.5)?) };
    larger(&half_square(values)?, &half_square(&held)?)
}

/// Half the squared log-ratio of each token [M], without gradient; its mean estimates KL(pi_old || pi).
pub fn approx_kls(logprobs: &Tensor, old: &Tensor) -> Result<Tensor> {
    Ok(logprobs.detach().f_sub(old)?.f_square()?.f_mul_scalar(0.5)?)
}

fn larger(free: &Tensor, held: &Tensor) -> Result<Clipped> {
    let clipped = held.f_gt_tensor(free)?.f_to_kind(Kind::Float)?;
    Ok(Clipped { losses: free.f_maximum(held)?, clipped })
}
