//! TensorBoard event files: length-delimited, CRC-masked protobuf records of scalars and texts. Owns that format.
//!
//! Format: tensorflow/core/lib/io/record_writer (length, masked CRC-32C, data, masked CRC-32C) around `Event` messages
//! (tensorflow/core/util/event.proto: wall_time = 1, step = 2, file_version = 3, summary = 5). A text is a string tensor
//! (tensor.proto: dtype = 1, tensor_shape = 2, string_val = 8) of the plugin "text".
use super::objective::SampleRecord;
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes `events.out.tfevents.collimate` of a run.
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts the file anew.
    pub fn create(run: &Path) -> Result<Self> {
        let path = run.join("events.out.tfevents.collimate");
        let file = File::create(&path).map_err(Error::io(&path, "create"))?;
        let mut writer = Self { path, file };
        let mut event = Vec::new();
        field_double(&mut event, 1, wall_time());
        field_bytes(&mut event, 3, b"brain.Event:2");
        writer.append(&event)?;
        Ok(writer)
    }

    /// Writes every number of a metrics record as a scalar at the record's step.
    pub fn record(&mut self, record: &Map<String, Value>) -> Result<()> {
        let step = record.get("step").and_then(Value::as_u64).unwrap_or_default();
        let mut summary = Vec::new();
        for (name, value) in record.iter().filter(|(name, _)| *name != "step") {
            let Some(value) = value.as_f64() else { continue };
            let mut entry = Vec::new();
            field_bytes(&mut entry, 1, name.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend((value as f32).to_le_bytes());
            field_bytes(&mut summary, 1, &entry);
        }
        self.append(&event(step, &summary))
    }

    /// Writes samples of one step and split as one text, a Markdown table.
    pub fn texts(&mut self, records: &[SampleRecord]) -> Result<()> {
        let Some(first) = records.first() else { return Ok(()) };
        let step = first.get("step").and_then(Value::as_u64).unwrap_or_default();
        let split = first.get("split").and_then(Value::as_str).unwrap_or("samples");
        let mut tensor = vec![1 << 3, 7];
        field_bytes(&mut tensor, 2, &[]);
        field_bytes(&mut tensor, 8, markdown(records).as_bytes());
        let mut plugin = Vec::new();
        field_bytes(&mut plugin, 1, b"text");
        let mut metadata = Vec::new();
        field_bytes(&mut metadata, 1, &plugin);
        let mut entry = Vec::new();
        field_bytes(&mut entry, 1, format!("samples/{split}").as_bytes());
        field_bytes(&mut entry, 8, &tensor);
        field_bytes(&mut entry, 9, &metadata);
        let mut summary = Vec::new();
        field_bytes(&mut summary, 1, &entry);
        self.append(&event(step, &summary))
    }

    /// fsyncs the file.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_all().map_err(Error::io(&self.path, "fsync"))
    }

    fn append(&mut self, event: &[u8]) -> Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(event);
        record.extend(masked_crc(event).to_le_bytes());
        self.file.write_all(&record).map_err(Error::io(&self.path, "append to"))
    }
}

/// An `Event` with a summary.
fn event(step: u64, summary: &[u8]) -> Vec<u8> {
    let mut event = Vec::new();
    field_double(&mut event, 1, wall_time());
    event.push(2 << 3);
    varint(&mut event, step);
    field_bytes(&mut event, 5, summary);
    event
}

/// A table of the records' fields, but for the step and split that the text stands at.
fn markdown(records: &[SampleRecord]) -> String {
    let names: Vec<&String> = records[0].keys().filter(|name| !["step", "split"].contains(&name.as_str())).collect();
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut table = row(names.iter().map(|name| (*name).clone()).collect());
    table += &row(names.iter().map(|_| "---".to_owned()).collect());
    for record in records {
        table += &row(names.iter().map(|name| cell(record.get(*name))).collect());
    }
    table
}

fn cell(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.replace('|', "\\|").replace(['\n', '\r'], " "),
        Some(Value::Number(number)) => number.as_f64().map_or_else(String::new, |v| format!("{v:.3}")),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field_double(out: &mut Vec<u8>, field: u8, value: f64) {
    out.push(field << 3 | 1);
    out.extend(value.to_le_bytes());
}

fn field_bytes(out: &mut Vec<u8>, field: u8, data: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, data.len() as u64);
    out.extend(data);
}
