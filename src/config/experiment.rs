//! `collimate experiment sentiment`: one file for all parts. Every part's section holds a stage's configuration as it
//! would stand in a file of its own (`[dpo.train]`, `[dpo.dpo]`); the experiment fills in where models and rows are.
use super::{Document, DpoConfig, PpoConfig, Problems, RewardConfig, SftConfig, StageConfig};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `[experiment]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExperimentSection {
    /// Directory of all parts and of the report.
    pub output: String,
    /// Seed of every part.
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`, for every part.
    pub device: String,
    /// An SFT model to start from; none: one is trained as `[sft]` says.
    pub sft: Option<String>,
    /// A gold judge to use; none: one is trained as `[judge]` says.
    pub judge: Option<String>,
    /// DPO's betas, a run each.
    pub betas: Vec<f64>,
    /// PPO's KL coefficients, a run each.
    pub kl_coefs: Vec<f64>,
    /// Completions of a prompt, out of which pairs are made.
    pub samples: usize,
    /// Pairs of a prompt, drawn at random.
    pub pairs: usize,
    /// A pair is a tie where sigma(difference of the judge's rewards) lies within 0.5 +- this.
    pub tie: f64,
    /// A completion ends after so many tokens at the latest.
    pub max_new_tokens: usize,
    /// Completions of a held-out prompt, on which a point is measured.
    pub eval_samples: usize,
    /// Sequences decoded or judged at once.
    pub batch_size: usize,
}

impl Default for ExperimentSection {
    fn default() -> Self {
        Self {
            output: String::new(),
            seed: 0,
            device: "auto".into(),
            sft: None,
            judge: None,
            betas: vec![0.1, 0.3, 1.0],
            kl_coefs: vec![0.05, 0.1, 0.3],
            samples: 4,
            pairs: 2,
            tie: 0.05,
            max_new_tokens: 64,
            eval_samples: 2,
            batch_size: 32,
        }
    }
}

impl ExperimentSection {
    fn check(&self, problems: &mut Problems) {
        problems.require(!self.output.is_empty(), "experiment.output", "missing; name a directory");
        let positive = |values: &[f64]| values.iter().all(|v| v.is_finite() && *v > 0.0);
        let beta = "must be greater than 0, and at least one";
        problems.require(positive(&self.betas) && !self.betas.is_empty(), "experiment.betas", beta);
        let not_negative = self.kl_coefs.iter().all(|v| v.is_finite() && *v >= 0.0) && !self.kl_coefs.is_empty();
        problems.require(not_negative, "experiment.kl_coefs", "must be 0 or greater, and at least one");
        for (key, values) in [("experiment.betas", &self.betas), ("experiment.kl_coefs", &self.kl_coefs)] {
            let twice = values.iter().enumerate().any(|(at, value)| values[..at].contains(value));
            problems.require(!twice, key, "names a value twice; each has a directory of its own");
        }
        problems.require(self.samples >= 2, "experiment.samples", "must be at least 2: a pair needs two completions");
        problems.require(self.pairs > 0, "experiment.pairs", "must be greater than 0");
        problems.require((0.0..0.5).contains(&self.tie), "experiment.tie", "must lie in [0, 0.5)");
        for (key, value) in [
            ("experiment.max_new_tokens", self.max_new_tokens),
            ("experiment.eval_samples", self.eval_samples),
            ("experiment.batch_size", self.batch_size),
        ] {
            problems.require(value > 0, key, "must be greater than 0");
        }
    }
}

/// `[data]` of the experiment: files of rows, disjoint from each other.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SentimentData {
    /// Pairs that the gold judge learns from.
    pub judge: String,
    /// Pairs that tell how good it is.
    pub judge_eval: String,
    /// Texts for SFT.
    pub sft: String,
    /// Texts that tell how good that is; may be left out.
    pub sft_eval: Option<String>,
    /// Prompts whose completions become pairs, and that PPO samples from.
    pub prompts: String,
    /// Prompts that nothing is trained on: every point is measured on them.
    pub eval_prompts: String,
}

impl SentimentData {
    fn check(&self, experiment: &ExperimentSection, problems: &mut Problems) {
        let needs_judge = experiment.judge.is_none();
        for (key, value, wanted) in [
            ("data.judge", &self.judge, needs_judge),
            ("data.judge_eval", &self.judge_eval, needs_judge),
            ("data.sft", &self.sft, experiment.sft.is_none()),
            ("data.prompts", &self.prompts, true),
            ("data.eval_prompts", &self.eval_prompts, true),
        ] {
            problems.require(!wanted || !value.is_empty(), key, "missing; name a JSONL file");
        }
    }
}

/// A part of the experiment that is a stage's run.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Supervised fine-tuning.
    Sft(Box<SftConfig>),
    /// The gold judge, or the reward model that policies are trained with.
    Reward(Box<RewardConfig>),
    /// DPO at one beta.
    Dpo(Box<DpoConfig>),
    /// PPO at one KL coefficient.
    Ppo(Box<PpoConfig>),
}

impl Part {
    /// The stage's name on the command line.
    pub fn stage(&self) -> &'static str {
        match self {
            Part::Sft(_) => SftConfig::STAGE,
            Part::Reward(_) => RewardConfig::STAGE,
            Part::Dpo(_) => DpoConfig::STAGE,
            Part::Ppo(_) => PpoConfig::STAGE,
        }
    }

    /// The resolved configuration.
    pub fn table(&self) -> toml::Table {
        match self {
            Part::Sft(config) => config.to_table(),
            Part::Reward(config) => config.to_table(),
            Part::Dpo(config) => config.to_table(),
            Part::Ppo(config) => config.to_table(),
        }
    }
}

/// The whole experiment, every part's configuration resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct SentimentConfig {
    /// `[experiment]`.
    pub experiment: ExperimentSection,
    /// `[data]`.
    pub data: SentimentData,
    /// The SFT run, where one is wanted.
    pub sft: Option<Part>,
    /// The gold judge's run, where one is wanted.
    pub judge: Option<Part>,
    /// The reward model's run.
    pub reward: Part,
    /// DPO's runs with their betas.
    pub dpo: Vec<(f64, Part)>,
    /// PPO's runs with their coefficients.
    pub ppo: Vec<(f64, Part)>,
}

impl SentimentConfig {
    /// Reads, overrides and validates a file; every part's problems are reported at once.
    ///
    /// # Errors
    /// As [`super::load`].
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        let mut document = Document::open(path, overrides)?;
        let experiment: ExperimentSection = document.section("experiment");
        experiment.check(document.problems());
        let data: SentimentData = document.section("data");
        data.check(&experiment, document.problems());
        let mut parts = Parts { document: &mut document, experiment: &experiment, data: &data };
        let sft = parts.sft();
        let judge = parts.judge();
        let reward = parts.reward();
        let (dpo, ppo) = (parts.dpo(), parts.ppo());
        document.only_known_sections("experiment");
        document.finish()?;
        Ok(Self { experiment, data, sft, judge, reward, dpo, ppo })
    }

    /// A path below the experiment's directory.
    pub fn path(&self, name: &str) -> String {
        below(&self.experiment.output, name)
    }

    /// The SFT model: given, or made.
    pub fn sft_path(&self) -> String {
        sft_path(&self.experiment)
    }

    /// The gold judge: given, or made.
    pub fn judge_path(&self) -> String {
        self.experiment.judge.clone().unwrap_or_else(|| self.path("judge"))
    }
}

/// The directory of a run with a setting, as `dpo-beta-0.1`.
pub fn run_name(method: &str, setting: &str, value: f64) -> String {
    format!("{method}-{setting}-{value}")
}

fn below(output: &str, name: &str) -> String {
    format!("{}/{name}", output.trim_end_matches('/'))
}

fn sft_path(experiment: &ExperimentSection) -> String {
    experiment.sft.clone().unwrap_or_else(|| below(&experiment.output, "sft"))
}

/// Makes parts out of their sections.
struct Parts<'a> {
    document: &'a mut Document,
    experiment: &'a ExperimentSection,
    data: &'a SentimentData,
}

/// What the experiment decides in a part: section, key, value.
type Decided = Vec<(&'static str, &'static str, toml::Value)>;

/// Gold and proxy rewards are compared in standard deviations.
fn normalised() -> (&'static str, &'static str, toml::Value) {
    ("reward", "normalize", true.into())
}

impl Parts<'_> {
    fn sft(&mut self) -> Option<Part> {
        let mut section = self.document.part("sft");
        if self.experiment.sft.is_some() {
            self.unread(&section, "sft");
            return None;
        }
        let mut decided = vec![("data", "train", self.data.sft.clone().into())];
        decided.extend(self.data.sft_eval.clone().map(|file| ("data", "eval", file.into())));
        let config = self.read::<SftConfig>(&mut section, "sft", decided);
        self.document.absorb(section);
        Some(Part::Sft(Box::new(config)))
    }

    /// Without a `[judge.model]` the judge starts from the SFT model.
    fn judge(&mut self) -> Option<Part> {
        let mut section = self.document.part("judge");
        if self.experiment.judge.is_some() {
            self.unread(&section, "judge");
            return None;
        }
        let mut decided: Decided = vec![
            ("data", "train", self.data.judge.clone().into()),
            ("data", "eval", self.data.judge_eval.clone().into()),
        ];
        if section.value("model", "path").is_none() {
            decided.push(("model", "path", sft_path(self.experiment).into()));
        }
        decided.push(normalised());
        let config = self.read::<RewardConfig>(&mut section, "judge", decided);
        self.document.absorb(section);
        Some(Part::Reward(Box::new(config)))
    }

    fn reward(&mut self) -> Part {
        let mut section = self.document.part("reward");
        let mut decided = self.on_pairs();
        decided.push(normalised());
        let config = self.read::<RewardConfig>(&mut section, "reward", decided);
        self.document.absorb(section);
        Part::Reward(Box::new(config))
    }

    fn dpo(&mut self) -> Vec<(f64, Part)> {
        let section = self.document.part("dpo");
        let mut runs = Vec::new();
        for &beta in &self.experiment.betas {
            let mut own = section.clone();
            let mut decided = self.on_pairs();
            decided.push(("dpo", "beta", beta.into()));
            let config = self.read::<DpoConfig>(&mut own, &run_name("dpo", "beta", beta), decided);
            if runs.is_empty() {
                self.document.absorb(own);
            }
            runs.push((beta, Part::Dpo(Box::new(config))));
        }
        runs
    }

    fn ppo(&mut self) -> Vec<(f64, Part)> {
        let section = self.document.part("ppo");
        let mut runs = Vec::new();
        for &coef in &self.experiment.kl_coefs {
            let mut own = section.clone();
            let tokens = i64::try_from(self.experiment.max_new_tokens).unwrap_or(i64::MAX);
            let decided: Decided = vec![
                ("model", "path", sft_path(self.experiment).into()),
                ("data", "train", self.data.prompts.clone().into()),
                ("data", "eval", self.data.eval_prompts.clone().into()),
                ("ppo", "kl_coef", coef.into()),
                ("ppo", "reward_model", below(&self.experiment.output, "reward").into()),
                ("ppo", "max_new_tokens", tokens.into()),
            ];
            let config = self.read::<PpoConfig>(&mut own, &run_name("ppo", "coef", coef), decided);
            if runs.is_empty() {
                self.document.absorb(own);
            }
            runs.push((coef, Part::Ppo(Box::new(config))));
        }
        runs
    }

    /// A section that nothing reads, since the model is given.
    fn unread(&mut self, section: &Document, name: &str) {
        let message = format!("only read without experiment.{name}; remove one of the two");
        self.document.problems().require(section.is_empty(), name, message);
    }

    /// What stages on the sampled pairs share.
    fn on_pairs(&self) -> Decided {
        vec![
            ("model", "path", sft_path(self.experiment).into()),
            ("data", "train", below(&self.experiment.output, "pairs/pairs.jsonl").into()),
            ("data", "eval", below(&self.experiment.output, "pairs/pairs_eval.jsonl").into()),
        ]
    }

    /// A part's configuration: what its section says and what is decided here, which the section must not say.
    fn read<C: StageConfig>(&self, section: &mut Document, name: &str, mut decided: Decided) -> C {
        let seed = i64::try_from(self.experiment.seed).unwrap_or(i64::MAX);
        decided.extend([
            ("model", "device", self.experiment.device.clone().into()),
            ("train", "output", below(&self.experiment.output, name).into()),
            ("train", "seed", seed.into()),
            ("train", "resume", true.into()),
        ]);
        for (table, key, value) in decided {
            if section.value(table, key).is_some() {
                section.problems().at(&format!("{table}.{key}"), "the experiment decides this; remove it");
            }
            section.decide(table, key, value);
        }
        super::read::<C>(section)
    }
}
