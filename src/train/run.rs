//! A run directory: who may write to it, what it already holds, and its configuration.
use super::state::{STATE_FILE, TrainerState};
use super::{checkpoint, metrics::METRICS_FILE};
use crate::durable;
use crate::error::{Error, Result};
use crate::lock::{self, Lock};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The resolved configuration's name in a run directory.
pub const CONFIG_FILE: &str = "config.toml";
const LOCK_FILE: &str = ".lock";

/// Keys that a resumed run may change: they decide what is kept, where it stands and runs, not what is computed.
const FREE_KEYS: &[&str] = &[
    "train.resume",
    "train.keep",
    "train.keep_best",
    "train.save_every",
    "train.output",
    "train.gradient_checkpointing",
    "model.device",
];

/// What a run directory holds.
#[derive(Debug, PartialEq)]
pub enum RunState {
    /// Nothing yet, or a run that never reached a checkpoint.
    Fresh,
    /// A run to go on with, from this checkpoint.
    Resume(PathBuf),
    /// A finished run, after so many steps.
    Finished(u64),
}

/// A run directory that was looked at but not written to.
#[derive(Clone)]
pub struct RunDir {
    /// Its path.
    pub path: PathBuf,
    /// What was there when it was looked at.
    seen: Trace,
}

/// Which of a run's files are there: enough to see that another process ran in between.
#[derive(Debug, Clone, PartialEq)]
struct Trace {
    started: bool,
    finished: bool,
    checkpoints: Vec<u64>,
}

impl Trace {
    fn of(path: &Path) -> Result<Self> {
        let has = |name: &str| path.join(name).exists();
        Ok(Self {
            started: has(CONFIG_FILE) || has(METRICS_FILE),
            finished: has(durable::MANIFEST) && has(STATE_FILE),
            checkpoints: checkpoint::list(path)?,
        })
    }
}

/// A run directory that belongs to this process until it ends.
pub struct ClaimedRun {
    /// Its path.
    pub path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Looks at `output` without writing: what is there, and may `config` go on with it?
    ///
    /// # Errors
    /// A run is there and `resume` is false; another process holds it; the saved configuration differs.
    pub fn inspect(output: &str, resume: bool, config: &toml::Table) -> Result<(Self, RunState)> {
        let path = PathBuf::from(output);
        check_writable(&path)?;
        let run = Self { seen: Trace::of(&path)?, path };
        if let Some(owner) = lock::holder(&run.path.join(LOCK_FILE))? {
            return Err(held_by(&run.path, &owner));
        }
        if !run.seen.started {
            return Ok((run, RunState::Fresh));
        }
        if !resume {
            let remedy = "train.resume=true goes on with it; else name another train.output or remove that directory";
            return Err(Error::file(&run.path, "already holds a run", remedy));
        }
        run.compare_config(config)?;
        let state = run.state()?;
        Ok((run, state))
    }

    fn state(&self) -> Result<RunState> {
        if self.seen.finished {
            let state = TrainerState::read(&self.path)?;
            if state.finished {
                return Ok(RunState::Finished(state.step));
            }
        }
        Ok(checkpoint::newest_whole(&self.path)?.map_or(RunState::Fresh, RunState::Resume))
    }

    fn compare_config(&self, config: &toml::Table) -> Result<()> {
        let path = self.path.join(CONFIG_FILE);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let saved: toml::Table =
            text.parse().map_err(|_| Error::file(&path, "is not TOML any more", "start a new run"))?;
        let (old, new) = (flatten(&saved), flatten(config));
        let mut changed = Vec::new();
        for key in old.keys().chain(new.keys().filter(|k| !old.contains_key(*k))) {
            if !FREE_KEYS.contains(&key.as_str()) && old.get(key) != new.get(key) {
                let show = |v: Option<&String>| v.cloned().unwrap_or_else(|| "(unset)".into());
                changed.push(format!("{key} was {}, is now {}", show(old.get(key)), show(new.get(key))));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        let message = format!("the run there has another configuration: {}", changed.join("; "));
        Err(Error::file(&self.path, message, "set these back, or start a new run with another train.output"))
    }

    /// Makes the directory, takes the lock, saves the resolved configuration.
    pub fn claim(self, config: &toml::Table) -> Result<ClaimedRun> {
        let lock = lock(&self.path)?;
        if Trace::of(&self.path)? != self.seen {
            let message = "another process ran there while this one was starting";
            return Err(Error::file(&self.path, message, "run the command again"));
        }
        self.clean_leftovers()?;
        let path = self.path.join(CONFIG_FILE);
        let text = toml::to_string_pretty(config).expect("a TOML table serialises");
        durable::write_file(&path, text.as_bytes())?;
        Ok(ClaimedRun { path: self.path, _lock: lock })
    }

    /// Removes what a killed process left half written, by name.
    fn clean_leftovers(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.path).map_err(Error::io(&self.path, "list"))? {
            let entry = entry.map_err(Error::io(&self.path, "list"))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') && name.ends_with(".tmp") {
                tracing::info!("removing {}, left half written by an earlier process", entry.path().display());
                let removed = if entry.path().is_dir() {
                    std::fs::remove_dir_all(entry.path())
                } else {
                    std::fs::remove_file(entry.path())
                };
                removed.map_err(Error::io(entry.path(), "remove"))?;
            }
        }
        Ok(())
    }
}

/// Makes the directory `path` and holds it for this process until the file is dropped.
///
/// # Errors
/// Another process holds it; it is named by its number and host.
pub fn lock(path: &Path) -> Result<File> {
    std::fs::create_dir_all(path).map_err(Error::io(path, "create"))?;
    match lock::take(&path.join(LOCK_FILE))? {
        Lock::Ours(file) => Ok(file),
        Lock::Theirs(owner) => Err(held_by(path, &owner)),
    }
}

/// The nearest existing ancestor must be a directory that we may write to.
fn check_writable(path: &Path) -> Result<()> {
    let mut at = path;
    while !at.exists() {
        at = match at.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
    }
    if !at.is_dir() {
        return Err(Error::file(at, "is a file, a run needs a directory", "name another train.output"));
    }
    let probe = tempfile::Builder::new().prefix(".collimate-probe").tempfile_in(at);
    probe.map(drop).map_err(|e| Error::file(at, format!("cannot be written to: {e}"), "name another train.output"))
}

fn held_by(path: &Path, owner: &str) -> Error {
    Error::file(path, format!("{owner} is running there"), "wait for it, stop it, or name another train.output")
}

fn flatten(table: &toml::Table) -> std::collections::BTreeMap<String, String> {
    let mut flat = std::collections::BTreeMap::new();
    for (section, value) in table {
        match value {
            toml::Value::Table(inner) => {
                flat.extend(inner.iter().map(|(key, value)| (format!("{section}.{key}"), value.to_string())));
            }
            other => {
                flat.insert(section.clone(), other.to_string());
            }
        }
    }
    flat
}
