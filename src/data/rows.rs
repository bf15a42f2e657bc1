//! What a row is, where it came from, and what became of the rows of a file. Imports nothing of ours but `error`.
use crate::error::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// What the rows of a file are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Lines of text (of the unpacked text, where the file is packed).
    Line,
    /// Rows of a file that has no lines: Parquet, a JSON array.
    Row,
}

/// Where a row stands; shows itself as `file:line`, or as `file: row N` where the file has no lines.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RowId {
    /// The data file.
    pub file: Arc<Path>,
    /// Line or row, from 1.
    pub number: usize,
    /// Which of the two.
    pub unit: Unit,
}

impl RowId {
    /// A line of a file, from 1.
    pub fn line(file: impl Into<Arc<Path>>, number: usize) -> Self {
        Self { file: file.into(), number, unit: Unit::Line }
    }

    /// A row of a file that has no lines, from 1.
    pub fn row(file: impl Into<Arc<Path>>, number: usize) -> Self {
        Self { file: file.into(), number, unit: Unit::Row }
    }

    /// An error that names the row, what is wrong with it, and the remedy.
    pub fn error(&self, message: impl fmt::Display, remedy: impl Into<String>) -> Error {
        match self.unit {
            Unit::Line => Error::row(&self.file, self.number, message.to_string(), remedy),
            Unit::Row => Error::file(&self.file, format!("row {}: {message}", self.number), remedy),
        }
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Line => write!(f, "{}:{}", self.file.display(), self.number),
            Unit::Row => write!(f, "{}: row {}", self.file.display(), self.number),
        }
    }
}

/// One turn of a conversation, as it stands in the row: `role`, `content` and what else there is.
pub type Message = Map<String, Value>;

/// What a column of text holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// A string.
    Text(String),
    /// A conversation; a chat template makes text of it.
    Messages(Vec<Message>),
}

impl Content {
    /// The string, where it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Content::Text(text) => Some(text),
            Content::Messages(_) => None,
        }
    }

    /// The messages, where it is a conversation.
    pub fn messages(&self) -> Option<&[Message]> {
        match self {
            Content::Text(_) => None,
            Content::Messages(messages) => Some(messages),
        }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Content::Text(text.to_owned())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Content::Text(text)
    }
}

/// One row, in TRL's columns. The contents of a row are all strings or all conversations.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// `text`.
    Text(String),
    /// `messages`: a whole conversation, of at least one message.
    Messages(Vec<Message>),
    /// `prompt`, `completion`.
    PromptCompletion {
        /// What is given.
        prompt: Content,
        /// What is learnt or scored.
        completion: Content,
    },
    /// `prompt` alone.
    Prompt(Content),
    /// `[prompt,] chosen, rejected[, preference][, margin]`.
    Preference {
        /// What is given. None: what the strings `chosen` and `rejected` begin with alike; of conversations, that they
        /// have no first message in common.
        prompt: Option<Content>,
        /// The better completion.
        chosen: Content,
        /// The worse completion.
        rejected: Content,
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
    /// Tokens that are targets.
    pub targets: usize,
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
    /// Says in one line what became of `path`'s rows; warns where rows were skipped or, of rows that are `learnt`, no
    /// target is EOS.
    pub fn announce(&self, path: &Path, learnt: bool) {
        let name = path.display();
        tracing::info!("{name}: {self}");
        if self.skipped_rows() > 0 {
            tracing::warn!("{name}: {} of {} rows were skipped (data.on_bad_row)", self.skipped_rows(), self.rows);
        }
        if let Some(example) = &self.boundary_example {
            tracing::debug!("{name}: tokens across the prompt's end, for example {example}");
        }
        if learnt && self.with_eos_target == 0 {
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// What is counted where bad rows are skipped.
    pub reason: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl BadRow {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>, remedy: &'static str) -> Self {
        Self { reason, message: message.into(), remedy }
    }

    /// An error that names the row.
    pub fn error(self, id: &RowId) -> Error {
        id.error(self.message, self.remedy)
    }

    /// An error that names the row, or a count where bad rows are skipped.
    pub(crate) fn handle(self, id: &RowId, on_bad: super::OnBadRow, report: &mut DataReport) -> Result<()> {
        match on_bad {
            super::OnBadRow::Error => Err(self.error(id)),
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
        return Err(Error::file(file, "holds no rows", "give a file with rows"));
    }
    let reasons: Vec<String> = report.skipped.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    Err(Error::file(
        file,
        format!("none of its {} rows can be used ({})", report.rows, reasons.join(", ")),
        "set data.on_bad_row=error to see the first one",
    ))
}
