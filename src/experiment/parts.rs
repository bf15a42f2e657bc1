//! Running the parts of an experiment: what was done, from which inputs, in how many seconds. Owns `.parts/`.
//!
//! The inputs of a part are its configuration and the contents of every file and model that the configuration names.
use crate::config::Part;
use crate::durable::{self, hex};
use crate::error::{Error, Result};
use crate::model::fingerprint::fingerprint;
use crate::train::run;
use crate::{ffi, hub, stages};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What is kept of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    /// SHA-256 of its inputs.
    inputs: String,
    /// Seconds it took, over all attempts.
    seconds: f64,
    finished: bool,
}

/// A part that is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// Its name, which is its directory's.
    pub name: String,
    /// Seconds it took when it ran.
    pub seconds: f64,
    /// Whether it was found done.
    pub reused: bool,
    /// How it would be run alone.
    pub command: String,
    /// Its settings as TOML.
    pub settings: String,
}

/// Runs parts one after the other.
pub struct Runner {
    output: PathBuf,
    count: usize,
    total: usize,
    /// The parts so far.
    pub done: Vec<Done>,
    /// Nobody else may remove or write parts meanwhile.
    _lock: File,
}

impl Runner {
    /// For an experiment of `total` parts in `output`, which belongs to this process from now on.
    ///
    /// # Errors
    /// Another process holds it.
    pub fn new(output: &str, total: usize) -> Result<Self> {
        let lock = run::lock(Path::new(output))?;
        Ok(Self { output: output.into(), count: 0, total, done: Vec::new(), _lock: lock })
    }

    /// A stage's run. A directory of other inputs is removed first, if the experiment made it.
    pub fn stage(&mut self, name: &str, what: &str, part: &Part) -> Result<()> {
        let table = part.table();
        let mut inputs = Inputs::new(&table);
        for (section, key) in [("data", "train"), ("data", "eval")] {
            inputs.file(table.get(section).and_then(|s| s.get(key)).and_then(toml::Value::as_str))?;
        }
        for (section, key) in [
            ("model", "path"),
            ("model", "tokenizer"),
            ("model", "reference"),
            ("ppo", "reward_model"),
            ("ppo", "value_model"),
        ] {
            inputs.model(table.get(section).and_then(|s| s.get(key)).and_then(toml::Value::as_str))?;
        }
        let dir = self.output.join(name);
        let command = format!("collimate {} {}/config.toml train.output=runs/again", part.stage(), dir.display());
        let settings = toml::to_string_pretty(&table).expect("a TOML table serialises");
        self.run(name, what, &inputs.finish(), (command, settings), || match part {
            Part::Sft(config) => stages::run_config(config.as_ref()),
            Part::Reward(config) => stages::run_config(config.as_ref()),
            Part::Dpo(config) => stages::run_config(config.as_ref()),
            Part::Ppo(config) => stages::run_config(config.as_ref()),
        })
    }

    /// Any part: `work` makes what stands in the directory `name`, and goes on where it was stopped if it can.
    pub fn run(
        &mut self,
        name: &str,
        what: &str,
        inputs: &str,
        (command, settings): (String, String),
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.count += 1;
        let (dir, path) = (self.output.join(name), self.output.join(".parts").join(format!("{name}.json")));
        let record = self.record(&path, &dir, inputs)?;
        let title = format!("{}/{} {name}: {what}", self.count, self.total);
        let (seconds, reused) = match record {
            Some(record) if record.finished => {
                tracing::info!("== {title} (done before, inputs unchanged)");
                (record.seconds, true)
            }
            earlier => {
                tracing::info!("== {title}");
                let before = earlier.map_or(0.0, |record| record.seconds);
                let mut record = Record { inputs: inputs.to_owned(), seconds: before, finished: false };
                write(&path, &record)?;
                let begun = Instant::now();
                let result = work();
                record.seconds += begun.elapsed().as_secs_f64();
                record.finished = result.is_ok();
                write(&path, &record)?;
                if matches!(result, Err(Error::Interrupted { .. })) {
                    tracing::info!("the same command goes on with the experiment");
                }
                result?;
                (record.seconds, false)
            }
        };
        self.done.push(Done { name: name.to_owned(), seconds, reused, command, settings });
        Ok(())
    }

    /// Seconds that a part took when it ran.
    pub fn seconds(&self, name: &str) -> f64 {
        self.done.iter().find(|part| part.name == name).map_or(0.0, |part| part.seconds)
    }

    /// What is known of the part; a directory made from other inputs is removed.
    fn record(&self, path: &Path, dir: &Path, inputs: &str) -> Result<Option<Record>> {
        let read: Option<Record> = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match read {
            Some(record) if record.inputs == inputs && dir.exists() => Ok(Some(record)),
            Some(_) => {
                if dir.exists() {
                    tracing::info!("{}: its inputs have changed; making it anew", dir.display());
                    durable::remove_dir(dir)?;
                }
                Ok(None)
            }
            None if dir.exists() => {
                let remedy = "name another experiment.output, or remove that directory";
                Err(Error::file(dir, "is there already, and no experiment made it", remedy))
            }
            None => Ok(None),
        }
    }
}

fn write(path: &Path, record: &Record) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(Error::io(dir, "create"))?;
    durable::write_file(path, &serde_json::to_vec_pretty(record).expect("plain data serialises"))
}

/// Gathers what goes into a part.
pub struct Inputs(Sha256);

impl Inputs {
    /// Begins with the settings; the keys that change nothing are left out.
    pub fn new(settings: &toml::Table) -> Self {
        let mut settings = settings.clone();
        if let Some(toml::Value::Table(train)) = settings.get_mut("train") {
            for key in ["resume", "output", "keep", "save_every"] {
                train.remove(key);
            }
        }
        let mut hash = Sha256::new();
        hash.update(env!("CARGO_PKG_VERSION"));
        hash.update(toml::to_string(&settings).expect("a TOML table serialises"));
        Self(hash)
    }

    /// The contents of a data file, where one is named.
    pub fn file(&mut self, path: Option<&str>) -> Result<()> {
        if let Some(path) = path {
            let bytes = ffi::map_file(&hub::resolve_dataset_file(path)?)?;
            self.0.update((bytes.len() as u64).to_le_bytes());
            self.0.update(&bytes);
        }
        Ok(())
    }

    /// The contents of a model directory, where one is named: weights, configuration, tokenizer.
    pub fn model(&mut self, path: Option<&str>) -> Result<()> {
        if let Some(path) = path {
            self.0.update(fingerprint(&hub::resolve_model(path)?)?);
        }
        Ok(())
    }

    /// The sum.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}
