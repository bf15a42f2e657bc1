//! Synthetic rows: random token ids in the lengths that were asked for, and a tokenizer that gives ids back as they were.
//! Owns no model; sees sizes only.
use super::args::Plan;
use crate::data::{Pair, Prompt, RowId, Sequence};
use crate::error::{Error, Result};
use crate::seed;
use crate::tokenizer::Tokenizer;
use rand::RngExt;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Makes rows as a plan has them, of ids below `vocab`.
pub struct Synthetic<'a> {
    plan: &'a Plan,
    vocab: i64,
}

impl<'a> Synthetic<'a> {
    /// Rows for `plan`.
    pub fn new(plan: &'a Plan, vocab: i64) -> Self {
        Synthetic { plan, vocab }
    }

    /// A sequence for each row of each step.
    pub fn sequences(&self) -> Vec<Sequence> {
        let Plan { length, prompt, .. } = *self.plan;
        self.rows(|at, id| Sequence::new(self.ids("sequence", at, length), prompt, id))
    }

    /// A pair for each row of each step; both completions are as long as the length allows.
    pub fn pairs(&self) -> Vec<Pair> {
        let Plan { length, prompt, .. } = *self.plan;
        self.rows(|at, id| Pair {
            prompt: self.ids("prompt", at, prompt),
            chosen: self.ids("chosen", at, length - prompt),
            rejected: self.ids("rejected", at, length - prompt),
            preference: 1.0,
            margin: None,
            id,
        })
    }

    /// A prompt for each row of each step, its text as [`Synthetic::tokenizer`] writes it.
    pub fn prompts(&self) -> Vec<Prompt> {
        self.rows(|at, id| {
            let tokens = self.ids("prompt", at, self.plan.prompt);
            // Ends with a space: what follows it starts a token of its own.
            let text = tokens.iter().map(|id| format!("{id} ")).collect();
            Prompt { tokens, text, messages: None, id }
        })
    }

    /// A tokenizer whose tokens are the ids written out, with a space between two: text of any ids becomes the same ids
    /// again, so that lengths are what was asked for. It has no EOS: no completion ends early. Its file is written to
    /// `dir`, which holds no other.
    pub fn tokenizer(&self, dir: &Path) -> Result<Tokenizer> {
        let vocab: Map<String, Value> = (0..self.vocab).map(|id| (id.to_string(), json!(id))).collect();
        let file = json!({
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": { "type": "WhitespaceSplit" },
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "0" },
        });
        let path = dir.join("tokenizer.json");
        std::fs::write(&path, file.to_string()).map_err(Error::io(&path, "write"))?;
        Tokenizer::from_dir(dir)
    }

    fn rows<E>(&self, row: impl Fn(usize, RowId) -> E) -> Vec<E> {
        let count = self.plan.batch * self.plan.all_steps();
        (0..count).map(|at| row(at, RowId::row(Path::new("synthetic rows"), at + 1))).collect()
    }

    fn ids(&self, purpose: &str, at: usize, count: usize) -> Vec<i64> {
        let mut rng = seed::rng(self.plan.seed, &format!("bench:{purpose}"), &[at as u64]);
        (0..count).map(|_| rng.random_range(0..self.vocab)).collect()
    }
}
