//! `collimate ppo`.
use super::{Boundary, DataConfig, Document, Problems, Shared, StageConfig, table_of};
use serde::{Deserialize, Deserializer, Serialize};

/// `[ppo]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PpoSection {
    /// Directory or hub id of the reward model; either this or `reward_command`.
    pub reward_model: Option<String>,
    /// Program and arguments that score rows, JSON lines in and out, kept running: a list, or one line that is split at
    /// spaces (no shell reads it).
    #[serde(deserialize_with = "words")]
    pub reward_command: Option<Vec<String>>,
    /// Seconds that the command may take for one iteration's rows.
    pub reward_timeout: f64,
    /// A completion ends after so many tokens at the latest.
    pub max_new_tokens: usize,
    /// Logits are divided by it, in the policy, the reference and the update.
    pub temperature: f64,
    /// Must stay 0: the sampler has to be the policy. Here to be refused with the reason.
    pub top_k: u64,
    /// Must stay 1, as `top_k`.
    pub top_p: f64,
    /// Passes over an iteration's episodes.
    pub epochs: u64,
    /// Updates a pass.
    pub minibatches: usize,
    /// Weight of the per-token KL in the reward; the starting value where `target_kl` adapts it.
    pub kl_coef: f64,
    /// KL of a sequence, nats, that the coefficient is adapted to; none: it is fixed.
    pub target_kl: Option<f64>,
    /// Episodes over which the coefficient adapts; default 10,000.
    pub kl_horizon: Option<f64>,
    /// Discount.
    pub gamma: f64,
    /// Bias against variance of the advantages (Schulman et al. 2016).
    pub gae_lambda: f64,
    /// Ratios beyond 1 +- this earn nothing.
    pub clip_range: f64,
    /// Values move by so much at most.
    pub value_clip_range: f64,
    /// Weight of the value loss.
    pub vf_coef: f64,
    /// Scale rewards to unit variance, their mean kept.
    pub whiten_rewards: bool,
    /// Taken from the score of a completion that did not end by itself.
    pub missing_eos_penalty: Option<f64>,
    /// The score of a completion that did not end by itself, instead of its own.
    pub missing_eos_score: Option<f64>,
    /// A network for the values (a reward model or language model); none: a head on the policy's backbone.
    pub value_model: Option<String>,
}

impl Default for PpoSection {
    fn default() -> Self {
        Self {
            reward_model: None,
            reward_command: None,
            reward_timeout: 60.0,
            max_new_tokens: 64,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            epochs: 4,
            minibatches: 1,
            kl_coef: 0.05,
            target_kl: None,
            kl_horizon: None,
            gamma: 1.0,
            gae_lambda: 0.95,
            clip_range: 0.2,
            value_clip_range: 0.2,
            vf_coef: 0.1,
            whiten_rewards: false,
            missing_eos_penalty: None,
            missing_eos_score: None,
            value_model: None,
        }
    }
}

impl PpoSection {
    /// Episodes over which the coefficient adapts (Ziegler et al. 2019's default where none is given).
    pub fn horizon(&self) -> f64 {
        self.kl_horizon.unwrap_or(10_000.0)
    }

    fn check(&self, problems: &mut Problems) {
        let positive = "must be greater than 0";
        let finite = |value: f64| value.is_finite();
        match (&self.reward_model, &self.reward_command) {
            (None, None) => {
                problems.at("ppo.reward_model", "missing; name a reward model, or a program in ppo.reward_command");
            }
            (Some(_), Some(_)) => {
                problems.at("ppo.reward_command", "one source of rewards only; remove one of the two")
            }
            _ => {}
        }
        let empty = self.reward_command.as_ref().is_some_and(|command| command.first().is_none_or(String::is_empty));
        problems.require(!empty, "ppo.reward_command", "names no program; write [\"program\", \"argument\", ...]");
        let timeout = self.reward_timeout;
        let day = "must be greater than 0 and at most 86400 seconds, a day";
        problems.require(timeout > 0.0 && timeout <= 86_400.0, "ppo.reward_timeout", day);
        problems.require(self.max_new_tokens > 0, "ppo.max_new_tokens", positive);
        problems.require(finite(self.temperature) && self.temperature > 0.0, "ppo.temperature", positive);
        let biased = "must stay off: tokens would not be drawn from the policy, and the KL would be wrong; remove it";
        problems.require(self.top_k == 0, "ppo.top_k", biased);
        problems.require(self.top_p == 1.0, "ppo.top_p", biased);
        problems.require(self.epochs > 0, "ppo.epochs", positive);
        problems.require(self.minibatches > 0, "ppo.minibatches", positive);
        problems.require(finite(self.kl_coef) && self.kl_coef >= 0.0, "ppo.kl_coef", "must be 0 or greater");
        if let Some(target) = self.target_kl {
            problems.require(finite(target) && target > 0.0, "ppo.target_kl", positive);
            let grows = "must be greater than 0 to be adapted: a coefficient of 0 stays 0";
            problems.require(self.kl_coef > 0.0, "ppo.kl_coef", grows);
        }
        let adapted = self.kl_horizon.is_none() || self.target_kl.is_some();
        problems.require(adapted, "ppo.kl_horizon", "only read with ppo.target_kl; set it or remove this");
        problems.require(finite(self.horizon()) && self.horizon() > 0.0, "ppo.kl_horizon", positive);
        problems.require((0.0..=1.0).contains(&self.gamma), "ppo.gamma", "must lie in [0, 1]");
        problems.require((0.0..=1.0).contains(&self.gae_lambda), "ppo.gae_lambda", "must lie in [0, 1]");
        problems.require(finite(self.clip_range) && self.clip_range > 0.0, "ppo.clip_range", positive);
        let value_clip = self.value_clip_range;
        problems.require(finite(value_clip) && value_clip > 0.0, "ppo.value_clip_range", positive);
        problems.require(finite(self.vf_coef) && self.vf_coef >= 0.0, "ppo.vf_coef", "must be 0 or greater");
        let penalty = self.missing_eos_penalty.is_none_or(|p| finite(p) && p >= 0.0);
        problems.require(penalty, "ppo.missing_eos_penalty", "must be 0 or greater: it is subtracted");
        problems.require(self.missing_eos_score.is_none_or(finite), "ppo.missing_eos_score", "must be a finite number");
        let both = self.missing_eos_penalty.is_some() && self.missing_eos_score.is_some();
        problems.require(!both, "ppo.missing_eos_score", "replaces what missing_eos_penalty is taken from; remove one");
    }

    /// Of the rows only prompts are read.
    fn check_data(&self, data: &DataConfig, problems: &mut Problems) {
        let only = "ppo reads prompts only; remove it";
        problems.require(data.boundary == Boundary::default(), "data.boundary", only);
        problems.require(data.completion_only, "data.completion_only", only);
        problems.require(!data.assistant_only, "data.assistant_only", only);
        problems.require(
            data.max_length > self.max_new_tokens,
            "data.max_length",
            format!("must exceed ppo.max_new_tokens ({}): prompts get what is left", self.max_new_tokens),
        );
    }
}

/// A list of words, or a line of them.
pub(super) fn words<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected [\"program\", \"argument\", ...] or a line \"program argument ...\"")]
    enum Given {
        List(Vec<String>),
        Line(String),
    }
    let words = |given| match given {
        Given::List(list) => list,
        Given::Line(line) => line.split_whitespace().map(str::to_owned).collect(),
    };
    Ok(Option::<Given>::deserialize(value)?.map(words))
}

/// Configuration of proximal policy optimization.
#[derive(Debug, Clone, PartialEq)]
pub struct PpoConfig {
    shared: Shared,
    /// `[ppo]`.
    pub ppo: PpoSection,
}

impl std::ops::Deref for PpoConfig {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl StageConfig for PpoConfig {
    const STAGE: &'static str = "ppo";
    const TRAIN_DEFAULTS: &'static [(&'static str, f64)] = &[("adam_epsilon", 1e-5)];

    fn read(shared: Shared, document: &mut Document) -> Self {
        let ppo: PpoSection = document.section("ppo");
        let problems = document.problems();
        shared.model.check_pretrained(Self::STAGE, problems);
        shared.model.check_no_dropout(problems);
        ppo.check(problems);
        ppo.check_data(&shared.data, problems);
        let (minibatches, episodes) = (ppo.minibatches, shared.train.batch_size);
        let message = format!("must not exceed train.batch_size ({episodes}), the episodes of an iteration");
        problems.require(minibatches <= episodes, "ppo.minibatches", message);
        Self { shared, ppo }
    }

    fn own(&self) -> Option<toml::Value> {
        Some(table_of(&self.ppo))
    }
}
