//! `[data]`: rows and how they become tokens.
use super::Problems;
use serde::{Deserialize, Serialize};

/// How the boundary between prompt and completion is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boundary {
    /// Prompt and completion are tokenised together; the boundary is the longest common prefix with the prompt's ids.
    #[default]
    Joint,
    /// The completion is tokenised alone.
    Separate,
}

/// What to do with a row that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadRow {
    /// Stop and name it.
    #[default]
    Error,
    /// Leave it out, count it and report the count.
    Skip,
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataConfig {
    /// Training rows: a JSONL file.
    pub train: String,
    /// Evaluation rows; none: no evaluation.
    pub eval: Option<String>,
    /// Most tokens of a sequence, prompt and completion together.
    pub max_length: usize,
    /// Stop at a bad row or skip it.
    pub on_bad_row: OnBadRow,
    /// How prompt and completion meet.
    pub boundary: Boundary,
    /// SFT: only completion tokens are targets (of rows that have a prompt).
    pub completion_only: bool,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            train: String::new(),
            eval: None,
            max_length: 512,
            on_bad_row: OnBadRow::default(),
            boundary: Boundary::default(),
            completion_only: true,
        }
    }
}

impl DataConfig {
    /// What can be said without opening the files.
    pub fn check(&self, problems: &mut Problems) {
        problems.require(!self.train.is_empty(), "data.train", "missing; name a JSONL file of training rows");
        problems.require(self.max_length >= 2, "data.max_length", "must be at least 2: a context token and a target");
    }

    /// For stages on pairs, whose targets are always the completions.
    pub fn check_pairs(&self, problems: &mut Problems) {
        problems.require(self.completion_only, "data.completion_only", "only read by sft; remove it");
    }
}
