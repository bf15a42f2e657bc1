//! `checkpoint-N/`: a Hugging Face model directory with moments and state, written whole, ordered by step.
use super::objective::Artifact;
use super::optimizer::AdamW;
use super::state::TrainerState;
use crate::durable;
use crate::error::{Error, Result};
use crate::tensors;
use std::path::{Path, PathBuf};
use tch::Device;

/// The moments' file.
const OPTIMIZER_FILE: &str = "optimizer.safetensors";

/// Saves `checkpoint-N` for `state.step` and removes all but the newest `keep` and the one at `best`.
pub fn save(run: &Path, artifact: &dyn Artifact, optimizer: &AdamW, state: &TrainerState, keep: Keep) -> Result<()> {
    let target = path_of(run, state.step);
    durable::remove_dir(&target)?;
    durable::write_dir(&target, |dir| {
        artifact.save(dir, true)?;
        let moments = optimizer.state()?;
        let named = moments.iter().map(|(name, tensor)| (name.as_str(), tensor));
        tensors::write(&dir.join(OPTIMIZER_FILE), named, None, tensors::pt_metadata())?;
        state.write(dir)
    })?;
    prune(run, keep)
}

/// Which checkpoints stay.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// The newest so many.
    pub newest: usize,
    /// And this step's, if any.
    pub best: Option<u64>,
}

/// Steps of the checkpoints in a run directory, newest first.
pub fn list(run: &Path) -> Result<Vec<u64>> {
    let mut steps = Vec::new();
    if !run.is_dir() {
        return Ok(steps);
    }
    for entry in std::fs::read_dir(run).map_err(Error::io(run, "list"))? {
        let name = entry.map_err(Error::io(run, "list"))?.file_name();
        if let Some(step) = name.to_str().and_then(|n| n.strip_prefix("checkpoint-")).and_then(|n| n.parse().ok()) {
            steps.push(step);
        }
    }
    steps.sort_unstable_by(|a, b| b.cmp(a));
    Ok(steps)
}

/// The newest checkpoint whose every file agrees with its manifest; a broken one is named and passed over.
pub fn newest_whole(run: &Path) -> Result<Option<PathBuf>> {
    for step in list(run)? {
        let path = path_of(run, step);
        match durable::verify(&path) {
            Ok(()) => return Ok(Some(path)),
            Err(error) => tracing::warn!("passing over a broken checkpoint: {error}"),
        }
    }
    Ok(None)
}

/// Removes checkpoints of later steps than `step`: broken ones that were passed over. Left there they would count as the
/// newest, and whole ones would be pruned for them.
pub fn remove_after(run: &Path, step: u64) -> Result<()> {
    for later in list(run)?.into_iter().filter(|later| *later > step) {
        let path = path_of(run, later);
        tracing::warn!("removing {}, which is broken", path.display());
        durable::remove_dir(&path)?;
    }
    Ok(())
}

/// Reads the moments of a checkpoint into `optimizer`.
pub fn restore_optimizer(checkpoint: &Path, optimizer: &mut AdamW) -> Result<()> {
    let path = checkpoint.join(OPTIMIZER_FILE);
    let (moments, _) = tensors::read(&path, Device::Cpu)?;
    optimizer.restore(moments, &path)
}

/// `RUN/checkpoint-N`.
pub fn path_of(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoint-{step}"))
}

fn prune(run: &Path, keep: Keep) -> Result<()> {
    for step in list(run)?.into_iter().skip(keep.newest) {
        if keep.best != Some(step) {
            durable::remove_dir(&path_of(run, step))?;
        }
    }
    Ok(())
}
