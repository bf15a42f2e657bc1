//! The PPO loss of a minibatch: clipped surrogate plus value loss, summed over completion tokens.
use crate::config::PpoSection;
use crate::data::LmBatch;
use crate::error::{Error, Result};
use crate::loss::ppo;
use crate::model::{CausalLm, Critic};
use crate::rollout::forward::{Judged, judge};
use crate::stages::floats;
use crate::train::{Batch, LossOutput, Metric, Objective, UpdateSum};
use tch::{Kind, Tensor};

/// Mean |log ratio| that rounding may cause before the first update, by the kind of matrix products.
const FLOAT32_ROUNDING: f64 = 1e-5;
const BFLOAT16_ROUNDING: f64 = 2e-2;

/// Episodes of a minibatch with what was computed when they were sampled; flat over their M completion tokens.
pub struct PpoBatch {
    /// Prompts and completions.
    pub rows: LmBatch,
    /// log pi at sampling [M].
    pub logprobs: Vec<f64>,
    /// Values at sampling [M].
    pub values: Vec<f64>,
    /// Whitened advantages [M].
    pub advantages: Vec<f64>,
    /// What the values should have been [M].
    pub returns: Vec<f64>,
    /// The iteration, where this is its first pass: only then do its tokens count as new.
    pub new_in: Option<u64>,
    /// Updates since sampling; before the first one every ratio must be 1.
    pub update: u64,
}

impl Batch for PpoBatch {
    fn targets(&self) -> f64 {
        self.rows.targets.len() as f64
    }

    fn tokens(&self) -> u64 {
        if self.new_in.is_some() { self.rows.flat.row_tokens() as u64 } else { 0 }
    }

    fn rows(&self) -> Vec<String> {
        self.rows.ids.iter().map(ToString::to_string).collect()
    }
}

/// Policy and critic under the clipped losses.
pub struct PpoObjective<'a> {
    /// The model that is trained.
    pub policy: &'a CausalLm,
    /// Trained with it.
    pub critic: &'a Critic,
    /// `[ppo]`.
    pub settings: &'a PpoSection,
}

impl Objective for PpoObjective<'_> {
    type Batch = PpoBatch;

    fn loss(&self, batch: &PpoBatch) -> Result<LossOutput> {
        let device = self.policy.device();
        let now = judge(self.policy, self.critic, &batch.rows, self.settings.temperature)?;
        let old = floats(&batch.logprobs, device)?;
        if batch.update == 0 {
            self.check_ratio(batch, &now, &old)?;
        }
        let advantages = floats(&batch.advantages, device)?;
        let policy = ppo::policy_losses(&now.tokens.logprobs, &old, &advantages, self.settings.clip_range)?;
        let (values, returns) = (floats(&batch.values, device)?, floats(&batch.returns, device)?);
        let value = ppo::value_losses(&now.values, &values, &returns, self.settings.value_clip_range)?;
        let (policy_sum, value_sum) = (policy.losses.f_sum(Kind::Float)?, value.losses.f_sum(Kind::Float)?);
        let sum = policy_sum.f_add(&value_sum.f_mul_scalar(self.settings.vf_coef)?)?;

        let tokens = batch.targets();
        let mean = |sum: Tensor| Metric::Mean { sum, weight: tokens };
        let ratio = now.tokens.logprobs.detach().f_sub(&old)?.f_exp()?.f_sum(Kind::Float)?;
        let approx_kl = ppo::approx_kls(&now.tokens.logprobs, &old)?.f_sum(Kind::Float)?;
        let metrics = vec![
            ("policy/approxkl_avg", mean(approx_kl)),
            ("policy/clipfrac_avg", mean(policy.clipped.f_sum(Kind::Float)?)),
            ("policy/entropy_avg", mean(now.tokens.entropy.f_sum(Kind::Float)?)),
            ("loss/policy_avg", mean(policy_sum.detach())),
            ("loss/value_avg", mean(value_sum.detach())),
            ("val/clipfrac_avg", mean(value.clipped.f_sum(Kind::Float)?)),
            ("val/ratio", mean(ratio.shallow_clone())),
            ("val/ratio_var", Metric::Variance(vec![UpdateSum { update: batch.update, sum: ratio, weight: tokens }])),
        ];
        Ok(LossOutput { sum, metrics })
    }
}

impl PpoObjective<'_> {
    /// Before any update the policy is the one that sampled: anything else (dropout, another temperature, foreign
    /// weights) would make every later ratio wrong without a sign. In float32 a logit of size L is rounded by about
    /// L times 1e-7, differently in batches of different make-up.
    fn check_ratio(&self, batch: &PpoBatch, now: &Judged, old: &Tensor) -> Result<()> {
        let off = now.tokens.logprobs.detach().f_sub(old)?.f_abs()?;
        let (difference, largest) = (f64::try_from(off.f_mean(Kind::Float)?)?, f64::try_from(off.f_max()?)?);
        let allowed = if self.policy.compute() == Kind::Float {
            let size = f64::try_from(now.tokens.size.f_max()?)?;
            FLOAT32_ROUNDING.max(4.0 * f64::from(f32::EPSILON) * size)
        } else {
            BFLOAT16_ROUNDING
        };
        if difference <= allowed && largest <= 100.0 * allowed {
            return Ok(());
        }
        Err(Error::Ratio { step: batch.new_in.map_or(0, |iteration| iteration + 1), difference, largest, allowed })
    }
}
