//! JSON lines -> typed rows. Owns column names and types; must not know tokens.
//!
//! One JSON object a line, UTF-8; a BOM, CRLF and blank lines are accepted. Columns that are not asked for are ignored,
//! as TRL does; a column that is asked for and has the wrong type is an error that names it. `null` is an absent column.
use super::OnBadRow;
use super::rows::{BadRow, DataReport, Located, Row, RowId, refuse_empty};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::sync::Arc;

/// Which columns a stage needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// `prompt` and `completion`, or `text`.
    Lm,
    /// `prompt` (with or without more), or `text` taken as the prompt.
    Prompts,
    /// `chosen` and `rejected`, with `prompt`, `preference` and `margin` where they are there.
    Preference,
}

impl Wanted {
    fn expected(self) -> &'static str {
        match self {
            Wanted::Lm => "\"text\", or \"prompt\" and \"completion\"",
            Wanted::Prompts => "\"prompt\" (or \"text\")",
            Wanted::Preference => {
                "\"chosen\" and \"rejected\" (and where there are such \"prompt\", \"preference\", \"margin\")"
            }
        }
    }
}

/// The column names of a file's first row, by which a command tells what kind of rows it holds.
///
/// # Errors
/// An unreadable or empty file, a first line that is no JSON object.
pub fn columns(path: &Path) -> Result<Vec<String>> {
    let mut reader = open(path)?;
    let mut bytes = Vec::new();
    let mut line = 0;
    loop {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(Error::io(path, "read"))? == 0 {
            return Err(Error::file(path, "has no rows", "give a file with one JSON object a line"));
        }
        line += 1;
        let content = if line == 1 { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes) } else { &bytes };
        if content.trim_ascii().is_empty() {
            continue;
        }
        let object: Map<String, Value> = serde_json::from_slice(content).map_err(|error| {
            Error::row(path, line, format!("not a JSON object: {error}"), "write one JSON object a line")
        })?;
        return Ok(object.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name).collect());
    }
}

/// Reads the rows of a JSONL file. `report` counts rows and skipped rows.
///
/// # Errors
/// An unreadable file, Parquet, conversational columns, no usable row; with [`OnBadRow::Error`] the first bad row.
pub fn read_rows(path: &Path, wanted: Wanted, on_bad: OnBadRow, report: &mut DataReport) -> Result<Vec<Located>> {
    let mut reader = open(path)?;
    let file: Arc<Path> = path.into();
    let mut rows = Vec::new();
    let mut bytes = Vec::new();
    let mut line = 0;
    loop {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(Error::io(path, "read"))? == 0 {
            break;
        }
        line += 1;
        let content = if line == 1 { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes) } else { &bytes };
        if content.trim_ascii().is_empty() {
            continue;
        }
        report.rows += 1;
        let id = RowId { file: file.clone(), line };
        match read_row(content, wanted) {
            Ok(row) => rows.push(Located { row, id }),
            // Rows that a later version will read are no bad rows: skipping them all would say the wrong thing.
            Err(bad) if bad.reason == CONVERSATIONAL => return Err(Error::row(path, line, bad.message, bad.remedy)),
            Err(bad) => bad.handle(&id, on_bad, report)?,
        }
    }
    refuse_empty(path, rows.len(), report)?;
    Ok(rows)
}

const CONVERSATIONAL: &str = "conversational";

fn open(path: &Path) -> Result<BufReader<File>> {
    let jsonl = "give a JSONL file: one JSON object a line";
    let metadata = match std::fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::file(path, "there is no such file", "check the path"));
        }
        other => other.map_err(Error::io(path, "read"))?,
    };
    if metadata.is_dir() {
        return Err(Error::file(path, "is a directory", jsonl));
    }
    let mut reader = BufReader::with_capacity(1 << 18, File::open(path).map_err(Error::io(path, "read"))?);
    let start = reader.fill_buf().map_err(Error::io(path, "read"))?;
    if start.starts_with(b"PAR1") {
        return Err(Error::file(
            path,
            "is Parquet, which is not read yet",
            "convert it: python -c 'import pandas, sys; pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], orient=\"records\", lines=True)' IN.parquet OUT.jsonl",
        ));
    }
    if start.starts_with(b"\x1f\x8b") || start.starts_with(b"\x28\xb5\x2f\xfd") {
        return Err(Error::file(path, "is compressed", "unpack it first (gunzip, zstd -d)"));
    }
    if start.trim_ascii_start().starts_with(b"[") {
        return Err(Error::file(path, "is a JSON array", "write one object a line: jq -c '.[]' IN.json > OUT.jsonl"));
    }
    Ok(reader)
}

fn read_row(bytes: &[u8], wanted: Wanted) -> Result<Row, BadRow> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        BadRow::new("not UTF-8", format!("byte {} is not UTF-8", e.valid_up_to() + 1), "save the file as UTF-8")
    })?;
    let value: Value = serde_json::from_str(text.trim()).map_err(|e| broken_json(&e))?;
    let Value::Object(object) = value else {
        let message = format!("is {}, not a JSON object", kind(&value));
        return Err(BadRow::new("not an object", message, "write one JSON object a line"));
    };
    let row = Columns { object, wanted };
    match wanted {
        Wanted::Lm => row.lm(),
        Wanted::Prompts => row.prompts(),
        Wanted::Preference => row.preference(),
    }
}

fn broken_json(e: &serde_json::Error) -> BadRow {
    if e.is_eof() {
        let message = "the line ends in the middle of its JSON (half a line)";
        return BadRow::new("half a line", message, "write the line whole or delete it");
    }
    let text = e.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    let message = format!("not JSON at column {}: {what}", e.column());
    BadRow::new("not JSON", message, "correct the line; one JSON object a line, strings escaped")
}

/// The columns of one row.
struct Columns {
    object: Map<String, Value>,
    wanted: Wanted,
}

impl Columns {
    fn lm(mut self) -> Result<Row, BadRow> {
        if self.has("prompt") && self.has("completion") {
            let (prompt, completion) = (self.string("prompt")?, self.completion("completion")?);
            return Ok(Row::PromptCompletion { prompt, completion });
        }
        if !self.has("text") {
            return Err(self.missing());
        }
        Ok(Row::Text(self.completion("text")?))
    }

    fn prompts(mut self) -> Result<Row, BadRow> {
        if !self.has("prompt") {
            return if self.has("text") { Ok(Row::Prompt(self.string("text")?)) } else { Err(self.missing()) };
        }
        let prompt = self.string("prompt")?;
        if self.has("completion") {
            let completion = self.string("completion")?;
            if !completion.is_empty() {
                return Ok(Row::PromptCompletion { prompt, completion });
            }
        }
        Ok(Row::Prompt(prompt))
    }

    fn preference(mut self) -> Result<Row, BadRow> {
        if !self.has("chosen") || !self.has("rejected") {
            return Err(self.missing());
        }
        let prompt = if self.has("prompt") { Some(self.string("prompt")?) } else { None };
        let (chosen, rejected) = (self.completion("chosen")?, self.completion("rejected")?);
        if chosen == rejected {
            return Err(BadRow::new(
                "chosen equal to rejected",
                "\"chosen\" and \"rejected\" are the same text",
                "delete the row, or correct one of them",
            ));
        }
        let preference = self.number("preference")?.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&preference) {
            return Err(BadRow::new(
                "preference out of range",
                format!("\"preference\" is {preference}, outside [0, 1]"),
                "give the probability that \"chosen\" is better: 1 certain, 0.5 a tie",
            ));
        }
        let margin = self.number("margin")?;
        Ok(Row::Preference { prompt, chosen, rejected, preference, margin })
    }

    fn has(&self, column: &str) -> bool {
        self.object.get(column).is_some_and(|value| !value.is_null())
    }

    fn string(&mut self, column: &'static str) -> Result<String, BadRow> {
        match self.object.remove(column) {
            Some(Value::String(text)) => Ok(text),
            Some(value) if is_conversation(&value) => Err(conversational(column)),
            other => Err(wrong_type(column, "a string", other.as_ref().unwrap_or(&Value::Null))),
        }
    }

    /// A string that is learnt from, so it must hold something.
    fn completion(&mut self, column: &'static str) -> Result<String, BadRow> {
        let text = self.string(column)?;
        if !text.is_empty() {
            return Ok(text);
        }
        let reason = if column == "text" { "empty text" } else { "empty completion" };
        Err(BadRow::new(reason, format!("{column:?} is empty"), "fill it or delete the row"))
    }

    fn number(&self, column: &'static str) -> Result<Option<f64>, BadRow> {
        match self.object.get(column) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| wrong_type(column, "a number", value)),
        }
    }

    fn missing(&self) -> BadRow {
        if let Some(column) =
            ["messages", "conversations"].into_iter().find(|c| self.object.get(*c).is_some_and(Value::is_array))
        {
            return conversational(column);
        }
        let found: Vec<String> = self.object.keys().map(|key| format!("{key:?}")).collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        BadRow::new(
            "missing column",
            format!("expected the columns {}; found {found}", self.wanted.expected()),
            "rename or add the columns",
        )
    }
}

fn is_conversation(value: &Value) -> bool {
    let first = value.as_array().and_then(|turns| turns.first());
    first.is_some_and(|turn| turn.get("role").is_some() || turn.get("from").is_some())
}

fn conversational(column: &str) -> BadRow {
    BadRow::new(
        CONVERSATIONAL,
        format!("{column:?} is a conversation (a list of turns), which is not read yet"),
        "render it with the tokenizer's chat template into strings",
    )
}

fn wrong_type(column: &'static str, expected: &str, value: &Value) -> BadRow {
    let message = format!("{column:?} must be {expected}, found {}", kind(value));
    BadRow::new("wrong type", message, "correct the value")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
