//! `collimate collect`: whose completions make pairs, and who judges them.
use super::{Document, Dtype, Problems};
use crate::error::Result;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::Path;

/// Completions of a prompt by all models: their pairs grow with the square.
const MOST_COMPLETIONS: usize = 10_000;

/// Who says which completion of a pair is better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"none\", the directory of a reward model, or a program [\"program\", \"argument\", ...]"
)]
pub enum Judge {
    /// `"none"`, or the directory or hub id of a reward model.
    Named(String),
    /// Program and arguments that score rows, JSON lines in and out; no shell reads them.
    Program(Vec<String>),
}

impl Judge {
    /// Whether pairs are left for somebody else to judge.
    pub fn is_none(&self) -> bool {
        *self == Judge::Named("none".to_owned())
    }
}

/// How a judge's rewards become labels; p is the Bradley-Terry probability sigma(reward a - reward b).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JudgeLabels {
    /// The higher reward wins; a tie where p lies within 0.5 +- `tie`.
    #[default]
    Hard,
    /// a wins with probability p.
    Sampled,
    /// The higher reward is `chosen`, and p stands in `preference`.
    Mu,
}

/// `[collect]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CollectSection {
    /// Directories or hub ids of the models that answer: one, or a list.
    #[serde(deserialize_with = "one_or_more")]
    pub models: Vec<String>,
    /// A file or data set of prompts.
    pub prompts: String,
    /// What makes a prompt of a row's columns (minijinja: `"{{ article }}\n\nTL;DR:"`); none: the column `prompt` is it.
    pub template: Option<String>,
    /// A chat template for models that have none of their own.
    pub chat_template: Option<String>,
    /// Only so many prompts, the file's first.
    pub limit: Option<usize>,
    /// The JSONL file that is written; it must not be there.
    pub output: String,
    /// Completions of a prompt by each model.
    pub samples: usize,
    /// Pairs of a prompt, drawn among all that its completions make; none: all.
    pub pairs: Option<usize>,
    /// Only pairs whose sides come from different models.
    pub between_models: bool,
    /// Only completions that ended by themselves.
    pub finished_only: bool,
    /// A completion ends after so many tokens at the latest.
    pub max_new_tokens: usize,
    /// Logits are divided by it.
    pub temperature: f64,
    /// Only the k most probable tokens; 0: all.
    pub top_k: usize,
    /// Only the most probable tokens that together have this probability.
    pub top_p: f64,
    /// `"none"`, a reward model, or a program as a list of words.
    pub judge: Judge,
    /// Seconds that a program may take for the rows that it is asked about at once.
    pub judge_timeout: f64,
    /// `hard`, `sampled` or `mu`.
    pub labels: JudgeLabels,
    /// Hard labels only: a pair is a tie where p lies within 0.5 +- this; equal rewards always are.
    pub tie: f64,
    /// Sequences decoded or judged at once.
    pub batch_size: usize,
    /// Seed of all draws: tokens, pairs, sides, labels.
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Precision of matrix products.
    pub dtype: Dtype,
}

impl Default for CollectSection {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            prompts: String::new(),
            template: None,
            chat_template: None,
            limit: None,
            output: String::new(),
            samples: 2,
            pairs: None,
            between_models: false,
            finished_only: false,
            max_new_tokens: 64,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            judge: Judge::Named("none".into()),
            judge_timeout: 60.0,
            labels: JudgeLabels::default(),
            tie: 0.0,
            batch_size: 16,
            seed: 0,
            device: "auto".into(),
            dtype: Dtype::default(),
        }
    }
}

/// A string, or a list of them.
fn one_or_more<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a model, or a list of models")]
    enum Given {
        One(String),
        List(Vec<String>),
    }
    Ok(match Given::deserialize(value)? {
        Given::One(one) => vec![one],
        Given::List(list) => list,
    })
}

impl CollectSection {
    fn check(&self, problems: &mut Problems) {
        let named = !self.models.is_empty() && self.models.iter().all(|model| !model.is_empty());
        problems.require(named, "collect.models", "missing; name the directory or hub id of a language model");
        problems.require(!self.prompts.is_empty(), "collect.prompts", "missing; name a file of rows with a prompt");
        problems.require(!self.output.is_empty(), "collect.output", "missing; name the JSONL file to write");
        let counts = [
            ("collect.samples", self.samples),
            ("collect.pairs", self.pairs.unwrap_or(1)),
            ("collect.limit", self.limit.unwrap_or(1)),
            ("collect.max_new_tokens", self.max_new_tokens),
            ("collect.batch_size", self.batch_size),
        ];
        for (key, count) in counts {
            problems.require(count > 0, key, "must be at least 1");
        }
        let completions = self.samples.saturating_mul(self.models.len().max(1));
        let message = format!("{completions} completions of a prompt; at most {MOST_COMPLETIONS} by all models");
        problems.require(completions <= MOST_COMPLETIONS, "collect.samples", message);
        if self.between_models {
            let message = "needs two models at least in collect.models";
            problems.require(self.models.len() > 1, "collect.between_models", message);
        } else if named {
            let message = "must be at least 2: one completion of one model makes no pair";
            problems.require(self.samples * self.models.len() > 1, "collect.samples", message);
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        problems.require(positive(self.temperature), "collect.temperature", "must be greater than 0");
        problems.require(self.top_p > 0.0 && self.top_p <= 1.0, "collect.top_p", "must lie in (0, 1]");
        self.check_judge(problems);
    }

    fn check_judge(&self, problems: &mut Problems) {
        let usable = match &self.judge {
            Judge::Named(name) => !name.is_empty(),
            Judge::Program(words) => words.first().is_some_and(|word| !word.is_empty()),
        };
        problems.require(usable, "collect.judge", "is empty; say \"none\", a reward model, or a program");
        let waits = self.judge_timeout.is_finite() && self.judge_timeout > 0.0 && self.judge_timeout <= 1e6;
        problems.require(waits, "collect.judge_timeout", "must lie in (0, 1000000] seconds");
        problems.require((0.0..0.5).contains(&self.tie), "collect.tie", "must lie in [0, 0.5)");
        if self.tie > 0.0 && self.labels != JudgeLabels::Hard {
            problems.at("collect.tie", "only hard labels have ties; remove it, or set collect.labels = \"hard\"");
        }
        if self.judge.is_none() && self.labels != JudgeLabels::Hard {
            problems.at("collect.labels", "nobody labels with collect.judge = \"none\"; name a judge");
        }
    }
}

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectConfig {
    /// `[collect]`.
    pub collect: CollectSection,
}

impl CollectConfig {
    /// Reads, overrides and validates a file; all problems are reported at once.
    ///
    /// # Errors
    /// As [`super::load`].
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::read(Document::open(path, overrides)?)
    }

    fn read(mut document: Document) -> Result<Self> {
        let collect: CollectSection = document.section("collect");
        collect.check(document.problems());
        document.only_known_sections("collect");
        document.finish()?;
        Ok(Self { collect })
    }
}
