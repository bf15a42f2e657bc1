//! `[data]`: rows and how they become tokens.
use super::{DataFiles, Problems};
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
    /// Training rows: files (JSON lines, plain or packed, or Parquet) or data sets of the hub, with weights.
    pub train: DataFiles,
    /// Evaluation rows; none: no evaluation.
    pub eval: Option<DataFiles>,
    /// Most tokens of a sequence, prompt and completion together.
    pub max_length: usize,
    /// Stop at a bad row or skip it.
    pub on_bad_row: OnBadRow,
    /// How prompt and completion meet.
    pub boundary: Boundary,
    /// SFT: only completion tokens are targets (of rows that have a prompt).
    pub completion_only: bool,
    /// SFT: only what the assistant says in a conversation is a target.
    pub assistant_only: bool,
    /// A chat template (a Jinja file) in place of the tokenizer's own; it is saved with the model.
    pub chat_template: Option<String>,
    /// Encoded rows lie on disk (in `TMPDIR`), not in memory, where each then takes 8 to 16 bytes. The files are read
    /// once before the first step, as without it; order, metrics and resume are the same.
    pub streaming: bool,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            train: DataFiles::default(),
            eval: None,
            max_length: 512,
            on_bad_row: OnBadRow::default(),
            boundary: Boundary::default(),
            completion_only: true,
            assistant_only: false,
            chat_template: None,
            streaming: false,
        }
    }
}

impl DataConfig {
    /// What can be said without opening the files.
    pub fn check(&self, problems: &mut Problems) {
        problems.require(!self.train.is_empty(), "data.train", "missing; name a file of training rows");
        self.train.check("data.train", true, problems);
        if let Some(eval) = &self.eval {
            problems.require(!eval.is_empty(), "data.eval", "is empty; name a file of evaluation rows, or remove it");
            eval.check("data.eval", false, problems);
        }
        problems.require(self.max_length >= 2, "data.max_length", "must be at least 2: a context token and a target");
    }

    /// For stages on pairs, whose targets are always the completions.
    pub fn check_pairs(&self, problems: &mut Problems) {
        problems.require(self.completion_only, "data.completion_only", "only read by sft; remove it");
        problems.require(!self.assistant_only, "data.assistant_only", "only read by sft; remove it");
    }
}
