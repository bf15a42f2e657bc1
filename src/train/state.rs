//! `trainer_state.json`: where the loop stands. Plain data.
use super::metrics::Window;
use super::objective::{SampleRecord, SourceState};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file's name in checkpoints and finished runs.
pub const STATE_FILE: &str = "trainer_state.json";

/// What resume needs besides weights and moments.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TrainerState {
    /// Finished steps.
    pub step: u64,
    /// Steps the run was planned for.
    pub total_steps: u64,
    /// Where the source of batches stands.
    pub source: SourceState,
    /// Real tokens seen.
    pub num_tokens: u64,
    /// Figures since the last logged line.
    pub window: Window,
    /// Sampled texts that the next logged line brings.
    #[serde(default)]
    pub samples: Vec<SampleRecord>,
    /// The evaluation with the least cost so far.
    pub best: Option<Best>,
    /// Seconds trained so far, from the first row encoded (a timing field).
    pub train_runtime: f64,
    /// Sum over updates of the loss, for the last line's `train_loss`.
    pub loss_sum: f64,
    /// Finished optimizer updates; a step may have several.
    pub updates: u64,
    /// The step's evaluation was stopped by a signal and is the first thing to do.
    #[serde(default)]
    pub evaluation_due: bool,
    /// What the stage handed over: the reference's path and fingerprint, for example.
    pub facts: serde_json::Value,
    /// The model at the run's top is final.
    pub finished: bool,
}

/// The best evaluation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its step.
    pub step: u64,
    /// What an evaluation has least of at the best model: `eval_loss`, or the negative reward.
    pub cost: f64,
}

impl TrainerState {
    /// Reads it from a checkpoint or run directory.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(STATE_FILE);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        serde_json::from_str(&text)
            .map_err(|e| Error::file(&path, format!("not a trainer state: {e}"), "delete this checkpoint"))
    }

    /// Writes it into `dir`; the caller makes that durable.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(STATE_FILE);
        let text = serde_json::to_string_pretty(self).expect("plain data serialises");
        std::fs::write(&path, text).map_err(Error::io(&path, "write"))
    }
}
