//! Figures of a run: gathered on the device, averaged on the host at log steps, written to metrics.jsonl and TensorBoard;
//! sampled texts beside them in samples.jsonl.
//!
//! Scalars leave the device when a window closes or a checkpoint is taken, and are then reduced in f64 in the order
//! they came, so that a resumed run writes the same bytes.
use super::objective::{Metric, SampleRecord, UpdateSum};
use super::tensorboard::EventWriter;
use crate::error::{Error, Result};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// The log's name in a run directory.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// Sampled texts of a run, where its stage samples.
pub const SAMPLES_FILE: &str = "samples.jsonl";

/// Fields that tell time or machine, outside the byte-for-byte promise of resume.
pub const TIMING_FIELDS: &[&str] =
    &["step_seconds", "tokens_per_second", "peak_memory_mb", "train_runtime", "eval_runtime"];

/// What only the last line of a run has: the seconds from the first row encoded to the last update.
pub const CLOSING_FIELD: &str = "train_runtime";

/// One step's figures, combined over its updates and their micro-batches; still on the device.
#[derive(Default)]
pub struct StepFigures(IndexMap<&'static str, Metric>);

impl StepFigures {
    /// Takes in a micro-batch's figures.
    pub fn add(&mut self, metrics: Vec<(&'static str, Metric)>) -> Result<()> {
        for (name, new) in metrics {
            // In place: the order of names must not depend on the number of micro-batches.
            let Some(old) = self.0.get_mut(name) else {
                self.0.insert(name, new);
                continue;
            };
            match (old, new) {
                (Metric::Mean { sum, weight }, Metric::Mean { sum: more, weight: added }) => {
                    *sum = sum.f_add(&more)?;
                    *weight += added;
                }
                (Metric::Min(old), Metric::Min(new)) => *old = old.f_minimum(&new)?,
                (Metric::Max(old), Metric::Max(new)) => *old = old.f_maximum(&new)?,
                (Metric::Variance(old), Metric::Variance(new)) => old.extend(new),
                _ => panic!("metric {name} changed its kind within a step"),
            }
        }
        Ok(())
    }

    /// The step's figures as device scalars.
    pub fn finish(self) -> Result<Vec<(&'static str, Tensor)>> {
        let mut values = Vec::with_capacity(self.0.len());
        for (name, metric) in self.0 {
            let value = match metric {
                // A mean over nothing (a batch of ties has no right answer) is not logged.
                Metric::Mean { weight: 0.0, .. } => continue,
                Metric::Mean { sum, weight } => sum.f_div_scalar(weight)?,
                Metric::Min(value) | Metric::Max(value) => value,
                Metric::Variance(parts) => variance(&parts)?,
            };
            values.push((name, value));
        }
        Ok(values)
    }
}

/// Between updates; an update's micro-batches, which follow each other, are added up first.
fn variance(parts: &[UpdateSum]) -> Result<Tensor> {
    let mut means = Vec::new();
    for update in parts.chunk_by(|a, b| a.update == b.update) {
        let weight: f64 = update.iter().map(|part| part.weight).sum();
        let sums: Vec<&Tensor> = update.iter().map(|part| &part.sum).collect();
        means.push(Tensor::f_stack(&sums, 0)?.f_sum(tch::Kind::Float)?.f_div_scalar(weight)?);
    }
    if means.len() < 2 { Ok(Tensor::from(0.0)) } else { Ok(Tensor::f_stack(&means, 0)?.f_var(true)?) }
}

/// Figures of the steps since the last logged line: on the host in f64 once collected, on the device before.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Window {
    collected: IndexMap<String, Vec<f64>>,
    #[serde(skip)]
    pending: Vec<(&'static str, Tensor)>,
}

impl Clone for Window {
    fn clone(&self) -> Self {
        assert!(self.pending.is_empty(), "a window is collected before it is copied");
        Self { collected: self.collected.clone(), pending: Vec::new() }
    }
}

impl Window {
    /// Adds one step's figures without leaving the device.
    pub fn push(&mut self, values: Vec<(&'static str, Tensor)>) {
        self.pending.extend(values);
    }

    /// Brings what is pending to the host.
    pub fn collect(&mut self) -> Result<()> {
        for (name, value) in self.pending.drain(..) {
            self.collected.entry(name.to_owned()).or_default().push(f64::try_from(&value)?);
        }
        Ok(())
    }

    /// Means over the window's steps; the window is empty afterwards.
    pub fn close(&mut self) -> Result<Vec<(String, f64)>> {
        self.collect()?;
        let means = self.collected.drain(..);
        Ok(means.map(|(name, values)| (name, values.iter().sum::<f64>() / values.len() as f64)).collect())
    }
}

/// Writes metrics.jsonl and the TensorBoard events of one run.
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    samples: PathBuf,
    events: EventWriter,
}

impl MetricsLog {
    /// Opens the log of `run`, keeping only lines up to `step` (0: a new log) and no closing line, and writes the events
    /// file anew from the kept lines, so that neither has a missing or doubled line after a resume.
    pub fn open(run: &Path, step: u64) -> Result<Self> {
        let path = run.join(METRICS_FILE);
        let kept = if step == 0 { Vec::new() } else { kept_lines(&path, step)? };
        crate::durable::write_file(&path, lines(&kept).as_bytes())?;
        let mut events = EventWriter::create(run)?;
        for record in kept.iter().filter_map(|line| parsed(line)) {
            events.record(&record)?;
        }
        let samples = run.join(SAMPLES_FILE);
        if samples.exists() {
            let kept = if step == 0 { Vec::new() } else { kept_lines(&samples, step)? };
            crate::durable::write_file(&samples, lines(&kept).as_bytes())?;
            let records: Vec<Map<String, Value>> = kept.iter().filter_map(|line| parsed(line)).collect();
            // Records of one step and split were written together and are one text.
            for together in records.chunk_by(|a, b| a["step"] == b["step"] && a["split"] == b["split"]) {
                events.texts(together)?;
            }
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path, "open"))?;
        Ok(Self { path, file, samples, events })
    }

    /// Appends sampled texts of one step; `split` says what they are samples of ("train", "eval").
    pub fn write_samples(&mut self, step: u64, split: &str, samples: Vec<SampleRecord>) -> Result<()> {
        if samples.is_empty() {
            return Ok(());
        }
        let mut records = Vec::with_capacity(samples.len());
        let mut text = String::new();
        for sample in samples {
            let mut record = Map::from_iter([("step".to_owned(), step.into()), ("split".to_owned(), split.into())]);
            record.extend(sample);
            text += &(serde_json::to_string(&record).expect("JSON values serialise") + "\n");
            records.push(record);
        }
        let path = &self.samples;
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io(path, "open"))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::io(path, "append to"))?;
        self.events.texts(&records)
    }

    /// Appends one line; `step` first.
    pub fn write(&mut self, step: u64, fields: &[(String, f64)]) -> Result<()> {
        let mut record = Map::new();
        record.insert("step".into(), step.into());
        for (name, value) in fields {
            record.insert(name.clone(), number(*value));
        }
        let mut line = serde_json::to_string(&record).expect("numbers serialise");
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(Error::io(&self.path, "append to"))?;
        self.events.record(&record)
    }

    /// fsyncs both files; done before a checkpoint appears.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_all().map_err(Error::io(&self.path, "fsync"))?;
        self.events.sync()
    }
}

/// Whole numbers without a fraction; what JSON cannot hold becomes null.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Value::from(value as i64);
    }
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn parsed(line: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(line).ok()
}

fn lines(kept: &[String]) -> String {
    kept.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

fn kept_lines(path: &Path, step: u64) -> Result<Vec<String>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(path, "read")(error)),
    };
    let belongs = |line: &&str| {
        let record: Option<Value> = serde_json::from_str(line).ok();
        // A process killed between its closing line and the final model left one: this run will write its own.
        record.is_some_and(|r| r["step"].as_u64().is_some_and(|s| s <= step) && r.get(CLOSING_FIELD).is_none())
    };
    Ok(text.lines().filter(belongs).map(str::to_owned).collect())
}
