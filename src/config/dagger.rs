//! `collimate dagger`.
use super::ppo::words;
use super::{Boundary, DataConfig, Document, Problems, Shared, StageConfig, table_of};
use serde::{Deserialize, Serialize};

/// Each round rolls out, trains and is judged: more than anybody would wait for.
const MOST_ROUNDS: usize = 10_000;

/// A schedule of beta by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BetaName {
    /// 1 in the first round, then 0.
    Indicator,
    /// From 1 in the first round to 0 in the last.
    Linear,
    /// `beta_decay`^(n - 1) in round n.
    Exponential,
}

/// The probability that the expert acts, round by round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"indicator\", \"linear\", \"exponential\" or a list of numbers, one a round")]
pub enum BetaSchedule {
    /// By name.
    Named(BetaName),
    /// One number a round.
    List(Vec<f64>),
}

/// What the expert says of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Labels {
    /// Its most probable action; it acts so too.
    #[default]
    Greedy,
    /// An action drawn from its distribution, the one it takes where it acts.
    Sample,
    /// Its whole distribution, or the `top_k` most probable actions of it.
    Distribution,
}

/// What is minimised over the expert's labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImitationLoss {
    /// -log of the probability of the expert's action.
    CrossEntropy,
    /// KL(expert || student).
    ForwardKl,
    /// KL(student || expert).
    ReverseKl,
    /// The generalised Jensen-Shannon divergence.
    JensenShannon,
}

/// `[dagger]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaggerSection {
    /// Directory or hub id of the expert, a causal language model with the student's vocabulary; either this or
    /// `expert_command`.
    pub teacher: Option<String>,
    /// Program and arguments that say the expert's actions, JSON lines in and out, kept running: a list, or one line that is
    /// split at spaces (no shell reads it).
    #[serde(deserialize_with = "words")]
    pub expert_command: Option<Vec<String>>,
    /// Seconds that the command may take for what it is asked at once.
    pub expert_timeout: f64,
    /// Rounds of rolling out, labelling and training.
    pub rounds: usize,
    /// Prompts that are rolled out a round; default: all of them once over the rounds.
    pub rollouts: Option<usize>,
    /// The probability that the expert acts, for each token on its own.
    pub beta: BetaSchedule,
    /// The base of the exponential schedule.
    pub beta_decay: f64,
    /// `greedy`, `sample` or `distribution`.
    pub labels: Labels,
    /// `cross_entropy` (the default of single labels), `forward_kl` (of distributions), `reverse_kl` or `jensen_shannon`.
    pub loss: Option<ImitationLoss>,
    /// The expert's weight in the mixture that `jensen_shannon` compares with.
    pub js_weight: f64,
    /// How many of the expert's actions are kept of a distribution; 0: all.
    pub top_k: usize,
    /// What the student's logits are divided by when it acts and when it is judged; 0: it takes its most probable action. The
    /// expert's too, where it draws.
    pub temperature: f64,
    /// A rollout ends after so many tokens at the latest.
    pub max_new_tokens: usize,
    /// Rollouts that are decoded at once.
    pub rollout_batch_size: usize,
    /// Each round trains from the first round's weights, with a new optimizer; else from the last round's.
    pub restart: bool,
}

impl Default for DaggerSection {
    fn default() -> Self {
        Self {
            teacher: None,
            expert_command: None,
            expert_timeout: 60.0,
            rounds: 5,
            rollouts: None,
            beta: BetaSchedule::Named(BetaName::Indicator),
            beta_decay: 0.5,
            labels: Labels::default(),
            loss: None,
            js_weight: 0.5,
            top_k: 0,
            temperature: 1.0,
            max_new_tokens: 64,
            rollout_batch_size: 32,
            restart: false,
        }
    }
}

impl DaggerSection {
    /// The probability that the expert acts in round `round`, from 1.
    pub fn beta_of(&self, round: usize) -> f64 {
        let before = round.saturating_sub(1);
        match &self.beta {
            BetaSchedule::List(list) => list.get(before).copied().unwrap_or(0.0),
            BetaSchedule::Named(BetaName::Indicator) => f64::from(u8::from(before == 0)),
            BetaSchedule::Named(BetaName::Linear) => 1.0 - before as f64 / self.rounds.saturating_sub(1).max(1) as f64,
            BetaSchedule::Named(BetaName::Exponential) => {
                self.beta_decay.powi(i32::try_from(before).unwrap_or(i32::MAX))
            }
        }
    }

    /// The loss, as configured or as the labels have it.
    pub fn loss(&self) -> ImitationLoss {
        self.loss.unwrap_or(match self.labels {
            Labels::Distribution => ImitationLoss::ForwardKl,
            Labels::Greedy | Labels::Sample => ImitationLoss::CrossEntropy,
        })
    }

    fn check_expert(&self, problems: &mut Problems) {
        match (&self.teacher, &self.expert_command) {
            (None, None) => {
                problems.at("dagger.teacher", "missing; name a model, or a program in dagger.expert_command");
            }
            (Some(_), Some(_)) => problems.at("dagger.expert_command", "one expert only; remove one of the two"),
            _ => {}
        }
    }

    fn check(&self, problems: &mut Problems) {
        let positive = "must be greater than 0";
        let empty = self.expert_command.as_ref().is_some_and(|command| command.first().is_none_or(String::is_empty));
        problems.require(!empty, "dagger.expert_command", "names no program; write [\"program\", \"argument\", ...]");
        let day = "must be greater than 0 and at most 86400 seconds, a day";
        let timeout = self.expert_timeout;
        problems.require(timeout > 0.0 && timeout <= 86_400.0, "dagger.expert_timeout", day);
        let rounds = (1..=MOST_ROUNDS).contains(&self.rounds);
        problems.require(rounds, "dagger.rounds", format!("must lie in 1 to {MOST_ROUNDS}"));
        problems.require(self.rollouts != Some(0), "dagger.rollouts", positive);
        problems.require(self.max_new_tokens > 0, "dagger.max_new_tokens", positive);
        problems.require(self.rollout_batch_size > 0, "dagger.rollout_batch_size", positive);
        self.check_beta(problems);
        self.check_labels(problems);
    }

    fn check_beta(&self, problems: &mut Problems) {
        if let BetaSchedule::List(list) = &self.beta {
            let (rounds, numbers) = (self.rounds, list.len());
            let message = format!("has {numbers} numbers for {rounds} rounds; one a round is needed");
            problems.require(numbers == rounds, "dagger.beta", message);
            let valid = list.iter().all(|beta| (0.0..=1.0).contains(beta));
            problems.require(valid, "dagger.beta", "must lie in [0, 1]: they are probabilities");
        }
        let default = DaggerSection::default().beta_decay;
        let read = self.beta == BetaSchedule::Named(BetaName::Exponential) || self.beta_decay == default;
        problems.require(read, "dagger.beta_decay", "only read with dagger.beta = \"exponential\"; remove it");
        problems.require((0.0..1.0).contains(&self.beta_decay), "dagger.beta_decay", "must lie in [0, 1)");
    }

    fn check_labels(&self, problems: &mut Problems) {
        let whole = self.labels == Labels::Distribution;
        let single = self.loss() == ImitationLoss::CrossEntropy;
        let loss = if whole {
            "distributions have \"forward_kl\", \"reverse_kl\" or \"jensen_shannon\""
        } else {
            "single labels have \"cross_entropy\" alone; set dagger.labels = \"distribution\" for divergences"
        };
        problems.require(whole != single, "dagger.loss", loss);
        let command = self.expert_command.is_none() || self.labels == Labels::Greedy;
        problems.require(command, "dagger.labels", "a program says one action a state; use \"greedy\"");
        let only = "only read with dagger.labels = \"distribution\"; remove it";
        problems.require(whole || self.top_k == 0, "dagger.top_k", only);
        let endless = "must be 0 with \"reverse_kl\": it is infinite where the kept actions end";
        problems.require(self.top_k == 0 || self.loss() != ImitationLoss::ReverseKl, "dagger.top_k", endless);
        let weighed =
            self.loss() == ImitationLoss::JensenShannon || self.js_weight == DaggerSection::default().js_weight;
        problems.require(weighed, "dagger.js_weight", "only read with dagger.loss = \"jensen_shannon\"; remove it");
        problems.require(self.js_weight > 0.0 && self.js_weight < 1.0, "dagger.js_weight", "must lie in (0, 1)");
        let warm = self.temperature.is_finite() && self.temperature >= 0.0;
        problems.require(warm, "dagger.temperature", "must be 0 (the most probable action) or greater");
        let drawn = self.labels == Labels::Greedy || self.temperature > 0.0;
        problems.require(drawn, "dagger.temperature", "must be greater than 0: the expert's labels are drawn with it");
    }

    /// Of the rows only prompts are read, and some must be held out to judge the rounds by.
    fn check_data(&self, data: &DataConfig, problems: &mut Problems) {
        let only = "dagger reads prompts only; remove it";
        problems.require(data.boundary == Boundary::default(), "data.boundary", only);
        problems.require(data.completion_only, "data.completion_only", only);
        problems.require(!data.assistant_only, "data.assistant_only", only);
        let held_out = "missing; name prompts that are not trained on: the best round is found on them";
        problems.require(data.eval.is_some(), "data.eval", held_out);
        problems.require(
            data.max_length > self.max_new_tokens,
            "data.max_length",
            format!("must exceed dagger.max_new_tokens ({}): prompts get what is left", self.max_new_tokens),
        );
    }
}

/// Configuration of DAgger.
#[derive(Debug, Clone, PartialEq)]
pub struct DaggerConfig {
    shared: Shared,
    /// `[dagger]`.
    pub dagger: DaggerSection,
}

impl std::ops::Deref for DaggerConfig {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl StageConfig for DaggerConfig {
    const STAGE: &'static str = "dagger";

    fn read(shared: Shared, document: &mut Document) -> Self {
        let config = Self::read_rest(shared, document);
        config.dagger.check_expert(document.problems());
        config
    }

    fn own(&self) -> Option<toml::Value> {
        Some(table_of(&self.dagger))
    }
}

impl DaggerConfig {
    /// For whoever brings an expert: a configuration that names none.
    pub(super) fn with_own_expert(shared: Shared, document: &mut Document) -> Self {
        let config = Self::read_rest(shared, document);
        let DaggerSection { teacher, expert_command, .. } = &config.dagger;
        let problems = document.problems();
        problems.require(teacher.is_none(), "dagger.teacher", "the task has an expert of its own; remove it");
        problems.require(expert_command.is_none(), "dagger.expert_command", "the task has its own expert; remove it");
        config
    }

    fn read_rest(shared: Shared, document: &mut Document) -> Self {
        let dagger: DaggerSection = document.section("dagger");
        let problems = document.problems();
        shared.model.check_no_dropout(problems);
        shared.model.check_no_reference(problems);
        dagger.check(problems);
        dagger.check_data(&shared.data, problems);
        let rounds = "must be left out: dagger judges its policy at the end of each round";
        problems.require(shared.train.eval_every.is_none(), "train.eval_every", rounds);
        problems.require(
            !shared.train.keep_best,
            "train.keep_best",
            "must be left out: the best round's model is kept",
        );
        let enough = shared.train.steps.is_none_or(|steps| steps >= dagger.rounds as u64);
        let message = format!("must be at least dagger.rounds ({}): every round trains", dagger.rounds);
        problems.require(enough, "train.steps", message);
        Self { shared, dagger }
    }
}
