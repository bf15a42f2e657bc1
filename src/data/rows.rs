//! What a row is, where it came from, and what became of the rows of a file. Imports nothing of ours but `error`.
use crate::error::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a row stands; shows itself as `file:line`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RowId {
    /// The data file.
    pub file: Arc<Path>,
    /// Line, from 1.
    pub line: usize,
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One row, in TRL's columns.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// `text`.
    Text(String),
    /// `prompt`, `completion`.
    PromptCompletion {
        /// What is given.
        prompt: String,
        /// What is learnt or scored.
        completion: String,
    },
    /// `prompt` alone.
    Prompt(String),
    /// `[prompt,] chosen, rejected[, preference][, margin]`.
    Preference {
        /// What is given; none: what `chosen` and `rejected` begin with alike.
        prompt: Option<String>,
        /// The better completion.
        chosen: String,
        /// The worse completion.
        rejected: String,
        /// The probability in [0, 1] that `chosen` is better; 0.5 is a tie.
        preference: f64,
        /// By how much `chosen` should win, in units of reward.
        margin: Option<f64>,
    },
}

/// A row and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// The row.
    pub row: Row,
    /// Where it stands.
    pub id: RowId,
}

/// What became of the rows of one data set, over reading and encoding.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DataReport {
    /// Rows seen in the file, skipped ones included.
    pub rows: usize,
    /// Skipped rows by reason.
    pub skipped: BTreeMap<&'static str, usize>,
    /// Rows that lost tokens to `max_length`.
    pub truncated: usize,
    /// Rows whose prompt's last tokens merged with the completion's first, so that the boundary moved back.
    pub boundary_moved: usize,
    /// One of them, in words.
    pub boundary_example: Option<String>,
    /// Rows with EOS among their targets (for pairs: in either completion).
    pub with_eos_target: usize,
    /// Tokens of all sequences (a pair's prompt counts once).
    pub tokens: usize,
}

impl DataReport {
    /// Rows that were left out.
    pub fn skipped_rows(&self) -> usize {
        self.skipped.values().sum()
    }

    /// Rows that can be used.
    pub fn usable(&self) -> usize {
        self.rows.saturating_sub(self.skipped_rows())
    }
}

impl DataReport {
    /// Says in one line what became of `path`'s rows; warns where rows were skipped or no target is EOS.
    pub fn announce(&self, path: &Path) {
        let name = path.display();
        tracing::info!("{name}: {self}");
        if self.skipped_rows() > 0 {
            tracing::warn!("{name}: {} of {} rows were skipped (data.on_bad_row)", self.skipped_rows(), self.rows);
        }
        if let Some(example) = &self.boundary_example {
            tracing::debug!("{name}: tokens across the prompt's end, for example {example}");
        }
        if self.with_eos_target == 0 {
            tracing::warn!("{name}: no target is EOS; a model trained on this does not learn to stop");
        }
    }
}

impl fmt::Display for DataReport {
    /// One line: "2000 rows, 3 skipped (2 empty completion, 1 not JSON), 12 truncated, 151234 tokens".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows", self.rows)?;
        if !self.skipped.is_empty() {
            let reasons: Vec<String> = self.skipped.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
            write!(f, ", {} skipped ({})", self.skipped_rows(), reasons.join(", "))?;
        }
        if self.truncated > 0 {
            write!(f, ", {} truncated", self.truncated)?;
        }
        if self.boundary_moved > 0 {
            write!(f, ", {} with tokens across the boundary", self.boundary_moved)?;
        }
        write!(f, ", {} tokens", self.tokens)
    }
}

/// Why a row cannot be used: a reason to count by, and what is said of it.
#[derive(Debug)]
pub(crate) struct BadRow {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) remedy: &'static str,
}

impl BadRow {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>, remedy: &'static str) -> Self {
        Self { reason, message: message.into(), remedy }
    }

    /// An error that names the row, or a count where bad rows are skipped.
    pub(crate) fn handle(self, id: &RowId, on_bad: super::OnBadRow, report: &mut DataReport) -> Result<()> {
        match on_bad {
            super::OnBadRow::Error => Err(Error::row(&id.file, id.line, self.message, self.remedy)),
            super::OnBadRow::Skip => {
                tracing::debug!(row = %id, "skipped: {}", self.message);
                *report.skipped.entry(self.reason).or_default() += 1;
                Ok(())
            }
        }
    }
}

/// Refuses a data set of which nothing is left.
pub(crate) fn refuse_empty(file: &Path, left: usize, report: &DataReport) -> Result<()> {
    if left > 0 {
        return Ok(());
    }
    if report.rows == 0 {
        return Err(Error::file(file, "holds no rows", "give a file with one JSON object a line"));
    }
    let reasons: Vec<String> = report.skipped.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    Err(Error::file(
        file,
        format!("none of its {} rows can be used ({})", report.rows, reasons.join(", ")),
        "set data.on_bad_row=error to see the first one",
    ))
}
