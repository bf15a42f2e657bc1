//! PPO's evaluation: the policy's own samples of held-out prompts, their scores and their exact KL.
use super::source::{mean, rollout_options, shown};
use crate::config::{PpoSection, TrainConfig};
use crate::data::{Prompt, Set};
use crate::error::Result;
use crate::rollout::Scorer;
use crate::rollout::assess::mean_and_error;
use crate::rollout::episode::{Episode, Players, RolloutOptions};
use crate::seed;
use crate::train::{Evaluation, Evaluator, signals};
use std::borrow::Cow;
use std::cell::RefCell;

/// Samples that are shown of an evaluation.
const SHOWN: usize = 8;

/// Samples every held-out prompt once, always with the same draws, so that evaluations differ by the policy alone.
pub struct RolloutEvaluator<'a> {
    /// Who samples and judges.
    pub players: Players<'a>,
    /// What scores.
    pub scorer: &'a RefCell<Box<dyn Scorer>>,
    /// Held-out prompts; at least one.
    pub prompts: &'a Set<Prompt>,
    /// `[ppo]`.
    pub settings: &'a PpoSection,
    /// `[train]`.
    pub train: &'a TrainConfig,
}

impl Evaluator for RolloutEvaluator<'_> {
    fn evaluate(&self, step: u64) -> Result<Evaluation> {
        let seed = seed::derive(self.train.seed, "evaluation", &[]);
        let options = RolloutOptions { seed, exact_kl: true, ..rollout_options(self.settings, self.train, 0) };
        let mut episodes = Vec::with_capacity(self.prompts.len());
        for numbers in (0..self.prompts.len()).collect::<Vec<_>>().chunks(self.train.batch_size) {
            let prompts: Vec<Prompt> = self.prompts.take(numbers)?.into_iter().map(Cow::into_owned).collect();
            // Draws are numbered within a rollout: with one seed every chunk would repeat the first one's.
            let seed = seed::derive(seed, "chunk", &[episodes.len() as u64]);
            let options = RolloutOptions { seed, ..options };
            let mut scorer = self.scorer.borrow_mut();
            let check = || signals::check_overdue(step);
            episodes.extend(self.players.roll_out(&prompts, scorer.as_mut(), &options, &check)?);
        }
        for episode in &mut episodes {
            episode.score = self.settings.score(episode);
        }
        let of = |value: fn(&Episode) -> f64| mean_and_error(&episodes.iter().map(value).collect::<Vec<_>>(), 1);
        let (score, score_se) = of(|e| e.score);
        let (kl, kl_se) = of(|e| e.exact_kl.unwrap_or_else(|| e.kl()));
        let figures = [
            ("eval_objective/scores", score),
            ("eval_objective/scores_se", score_se),
            ("eval_objective/kl", kl),
            ("eval_objective/kl_se", kl_se),
            ("eval_objective/rlhf_reward", score - self.settings.kl_coef * kl),
            ("eval_val/num_eos_tokens", episodes.iter().filter(|e| e.finished).count() as f64),
            ("eval_completions/mean_length", mean(&episodes, |e| e.logprobs.len() as f64)),
        ];
        let figures = figures.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let samples = episodes.iter().take(SHOWN).map(shown).collect();
        Ok(Evaluation { figures, cost: -(score - self.settings.kl_coef * kl), samples })
    }
}
