//! Rewards from a program of the user's. Owns the form of its lines; the process stands in `program`.
//!
//! A row goes in as `{"prompt": "...", "completion": "..."}`; a number comes back, or an object with `reward` (or `score`).
use super::program::{Names, Program};
use super::scorer::Scorer;
use crate::data::{Located, Row};
use crate::error::Result;
use serde_json::{Value, json};
use std::time::Duration;

/// Scores rows by asking a running program.
pub struct CommandScorer(Program);

impl CommandScorer {
    /// Starts the program; `timeout` is for the rows of one call. `keys`: what names the program and its time limit in the
    /// configuration.
    ///
    /// # Errors
    /// A program that cannot be started.
    pub fn start(command: &[String], timeout: Duration, keys: (&'static str, &'static str)) -> Result<Self> {
        let names = Names {
            key: keys.0,
            timeout_key: keys.1,
            answers: "rewards",
            line: "one line a row: a finite number, or an object with \"reward\"",
            question: "{\"prompt\", \"completion\"}",
        };
        Program::start(command, timeout, names).map(Self)
    }

    /// Kills the program that runs then, with its children, whenever it is called.
    pub fn killer(&self) -> impl Fn() + Send + use<> {
        self.0.killer()
    }
}

impl Scorer for CommandScorer {
    fn score_rows(&mut self, rows: &[Located], check: &dyn Fn() -> Result<()>) -> Result<Vec<f64>> {
        let mut text = Vec::new();
        for located in rows {
            let Row::PromptCompletion { prompt, completion } = &located.row else { continue };
            let line = json!({ "prompt": prompt, "completion": completion });
            serde_json::to_writer(&mut text, &line).expect("strings serialise");
            text.push(b'\n');
        }
        self.0.ask(&text, rows.len(), number, check)
    }
}

/// A finite number, or an object that holds one.
fn number(value: &Value) -> Result<f64, &'static str> {
    let number = match value {
        Value::Object(fields) => fields.get("reward").or_else(|| fields.get("score")).and_then(Value::as_f64),
        other => other.as_f64(),
    };
    number.filter(|n| n.is_finite()).ok_or("a line without a number")
}
