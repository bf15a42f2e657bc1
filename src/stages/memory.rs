//! `[train]` with `micro_batch_size = "auto"` replaced by a number: measured for a new run, kept in its directory for when it
//! is resumed. Wiring between rows, objectives and `train::memory`.
use super::Session;
use crate::config::{MicroBatch, TrainConfig};
use crate::data::Set;
use crate::data::fingerprint::Encoded;
use crate::durable;
use crate::error::{Error, Result};
use crate::train::memory::{self, Ladder};
use crate::train::run::ClaimedRun;
use crate::train::{AdamW, Objective, RunDir};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::path::Path;

/// What a run with `"auto"` keeps: a resumed one takes the same number, however much memory is free by then.
const FILE: &str = "micro_batch.json";
const KEY: &str = "micro_batch_tokens";

/// `[train]` as the run takes it.
pub(crate) struct Fitted {
    /// Without `"auto"`.
    pub train: TrainConfig,
    tokens: Option<usize>,
}

impl Fitted {
    /// Claims the run directory and leaves there what was found out.
    ///
    /// # Errors
    /// As [`RunDir::claim`].
    pub fn claim(&self, run: RunDir, table: &toml::Table) -> Result<ClaimedRun> {
        let run = run.claim(table)?;
        if let Some(tokens) = self.tokens {
            durable::write_file(&run.path.join(FILE), json!({ KEY: tokens }).to_string().as_bytes())?;
        }
        Ok(run)
    }
}

impl Session {
    /// Tries what `[train]` says of memory, where it says something, before anything is written. `optimizer`: a new one over
    /// what will be trained; `ladder`: the rows that need the most memory.
    ///
    /// # Errors
    /// As [`memory::fit`]; a run to be resumed whose number cannot be read.
    pub(crate) fn fit<'a, O: Objective>(
        &self,
        train: &TrainConfig,
        objective: &O,
        optimizer: AdamW,
        ladder: impl FnOnce() -> Result<Ladder<'a, O::Batch>>,
    ) -> Result<Fitted> {
        let mut fitted = Fitted { train: train.clone(), tokens: None };
        let kept = if train.auto() && train.resume { kept(&self.run.path.join(FILE))? } else { None };
        let asked = train.auto() || train.memory_limit.is_some() || train.check_memory;
        if kept.is_none() && asked {
            let found = memory::fit(train, self.options.device, objective, optimizer, &ladder()?);
            fitted.tokens = found.map_err(memory::explained)?;
        } else {
            fitted.tokens = kept;
        }
        if train.auto() {
            fitted.train.micro_batch_size = Some(MicroBatch::Rows(train.batch_size));
            fitted.train.micro_batch_tokens = fitted.tokens;
        }
        Ok(fitted)
    }
}

/// The longest rows of `rows`, as many as an update has, as micro-batches.
///
/// # Errors
/// Rows on disk that cannot be read back.
pub(crate) fn longest<'a, E: Encoded, B>(
    rows: &'a Set<E>,
    train: &TrainConfig,
    collate: impl Fn(&[&E]) -> B + 'a,
) -> Result<Ladder<'a, B>> {
    let mut longest = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        longest.push((Reverse(row?.tokens()), number));
    }
    longest.sort_unstable();
    longest.truncate(train.batch_size);
    let lengths = longest.iter().map(|(tokens, _)| tokens.0).collect();
    let numbers: Vec<usize> = longest.into_iter().map(|(_, number)| number).collect();
    let batch = move |count: usize| {
        let taken = rows.take(&numbers[..count])?;
        Ok(collate(&taken.iter().map(AsRef::as_ref).collect::<Vec<_>>()))
    };
    Ok(Ladder { lengths, batch: Box::new(batch) })
}

fn kept(path: &Path) -> Result<Option<usize>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(Error::io(path, "read"))?,
    };
    let number = serde_json::from_str::<Value>(&text).ok().and_then(|value| value.get(KEY)?.as_u64());
    match number.filter(|&tokens| tokens > 0) {
        Some(tokens) => Ok(Some(tokens as usize)),
        None => {
            let message = format!("does not say {KEY}, the number that the run began with");
            Err(Error::file(path, message, "start a new run with another train.output"))
        }
    }
}
