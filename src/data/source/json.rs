//! The bytes of one row -> an object, and what is said where they are none.
use super::MAX_ROW;
use crate::data::columns::kind;
use crate::data::rows::BadRow;
use serde_json::{Map, Value};

/// The object that a row's bytes hold. `line`: they are a line of their own, which may end too early.
pub fn object(bytes: &[u8], line: bool) -> Result<Map<String, Value>, BadRow> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        BadRow::new("not UTF-8", format!("byte {} is not UTF-8", e.valid_up_to() + 1), "save the file as UTF-8")
    })?;
    match serde_json::from_str(text.trim()).map_err(|e| broken(&e, line))? {
        Value::Object(object) => Ok(object),
        other => {
            let message = format!("is {}, not a JSON object", kind(&other));
            let remedy = if line { "write one JSON object a line" } else { "write a list of JSON objects" };
            Err(BadRow::new("not an object", message, remedy))
        }
    }
}

/// A row of which only so much is known.
pub fn too_long() -> BadRow {
    let message = format!("is longer than {} MiB", MAX_ROW >> 20);
    BadRow::new("too long", message, "split it into several rows or delete it")
}

fn broken(e: &serde_json::Error, line: bool) -> BadRow {
    if e.is_eof() && line {
        let message = "the line ends in the middle of its JSON (half a line)";
        return BadRow::new("half a line", message, "write the line whole or delete it");
    }
    let text = e.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    if line {
        let message = format!("not JSON at column {}: {what}", e.column());
        return BadRow::new("not JSON", message, "correct the line; one JSON object a line, strings escaped");
    }
    let message = format!("not JSON at line {}, column {} of the row: {what}", e.line(), e.column());
    BadRow::new("not JSON", message, "correct the row; strings escaped")
}
