//! The pairs to judge: rows of a file -> two sides and a prompt, and the whole row for the export. Owns which columns
//! are read and what is dropped; must not know votes.
//!
//! Rows are unjudged, `{"prompt", "a", "b"}`, or judged before, `{"prompt", "chosen", "rejected"}` (side a is the
//! chosen one). Prompt and sides are strings or lists of `{role, content}`; every other column is kept for the export.
use crate::data::columns::{EQUAL_SIDES, pair};
use crate::data::rows::{BadRow, Content, Row, RowId};
use crate::data::source;
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// One pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Its line, or row where the file has no lines, from 1: what votes call it by.
    pub number: usize,
    /// What both sides answer.
    pub prompt: Option<Content>,
    /// One side.
    pub a: Content,
    /// The other.
    pub b: Content,
    /// The row as it stands in the file.
    pub row: Map<String, Value>,
    /// Whether the sides stand in `chosen` and `rejected`.
    pub judged: bool,
}

impl Pair {
    /// The columns that hold side a and side b.
    pub fn columns(&self) -> [&'static str; 2] {
        if self.judged { ["chosen", "rejected"] } else { ["a", "b"] }
    }
}

/// The pairs of a file, in its order.
#[derive(Debug)]
pub struct Pairs {
    /// The file.
    pub path: PathBuf,
    /// The pairs.
    pub list: Vec<Pair>,
    /// SHA-256 over numbers, prompts and sides: what a log of votes belongs to.
    pub fingerprint: String,
    places: HashMap<usize, usize>,
}

impl Pairs {
    /// Reads a file of pairs. Pairs of two equal sides are left out with a warning: there is nothing to judge.
    ///
    /// # Errors
    /// A file that cannot be read or has no usable pair; a bad row, unless `skip_bad` leaves these out.
    pub fn read(path: &Path, skip_bad: bool) -> Result<Self> {
        let (mut list, mut equal, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for raw in source::open(path)? {
            let raw = raw?;
            match raw.object.and_then(|object| typed(raw.id.number, object)) {
                Ok(pair) => list.push(pair),
                Err(bad) if bad.reason == EQUAL_SIDES => equal.push(raw.id),
                Err(bad) if skip_bad => {
                    tracing::debug!("{}: {}", raw.id, bad.message);
                    skipped.push(raw.id);
                }
                Err(bad) => {
                    let remedy = format!("{}; --skip-bad-rows leaves such rows out", bad.remedy);
                    return Err(raw.id.error(bad.message, remedy));
                }
            }
        }
        warn_of(&equal, "rows with two equal sides");
        warn_of(&skipped, "rows that cannot be used (--skip-bad-rows)");
        if list.is_empty() {
            let message = if equal.is_empty() && skipped.is_empty() { "holds no rows" } else { "holds no usable pair" };
            return Err(Error::file(
                path,
                message,
                "give rows {\"prompt\", \"a\", \"b\"}, as collimate collect writes",
            ));
        }
        let places = list.iter().enumerate().map(|(at, pair)| (pair.number, at)).collect();
        Ok(Self { path: path.to_owned(), fingerprint: fingerprint(&list), list, places })
    }

    /// The place in the list of the pair that votes call `number`.
    pub fn place(&self, number: usize) -> Option<usize> {
        self.places.get(&number).copied()
    }
}

fn typed(number: usize, object: Map<String, Value>) -> Result<Pair, BadRow> {
    let has = |name: &str| object.get(name).is_some_and(|value| !value.is_null());
    let judged = !has("a") && !has("b");
    if !judged && (has("chosen") || has("rejected")) {
        let message = "has both \"a\" or \"b\" and \"chosen\" or \"rejected\"";
        return Err(BadRow::new("two pairs in a row", message, "leave one pair of columns in each row"));
    }
    let expected = "expected the columns \"a\" and \"b\", or \"chosen\" and \"rejected\"";
    let sides = if judged { ["chosen", "rejected"] } else { ["a", "b"] };
    if let Some(absent) = sides.iter().find(|side| !has(side)) {
        let found: Vec<String> = object.keys().map(|key| format!("{key:?}")).collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        let message = format!("has no {absent:?}: {expected}; found {found}");
        return Err(BadRow::new("missing column", message, "rename or add the columns"));
    }
    match pair(object.clone(), sides)? {
        Row::Preference { prompt, chosen, rejected, .. } => {
            Ok(Pair { number, prompt, a: chosen, b: rejected, row: object, judged })
        }
        _ => unreachable!("a pair is read as a preference row"),
    }
}

fn warn_of(rows: &[RowId], what: &str) {
    if let Some(first) = rows.first() {
        tracing::warn!("left out: {what}, {} in all, first {first}", rows.len());
    }
}

fn fingerprint(list: &[Pair]) -> String {
    let mut hash = Sha256::new();
    for pair in list {
        let text = serde_json::to_vec(&(pair.number, &pair.prompt, &pair.a, &pair.b)).expect("JSON values serialise");
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
