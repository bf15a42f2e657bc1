//! How `[train]` speaks of memory: rows of a micro-batch or `"auto"`, and sizes with a unit.
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// `train.micro_batch_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MicroBatch {
    /// So many rows, or pairs.
    Rows(usize),
    /// As many tokens as fit the memory, found out before the first step.
    Auto,
}

impl From<usize> for MicroBatch {
    fn from(rows: usize) -> Self {
        MicroBatch::Rows(rows)
    }
}

impl Serialize for MicroBatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            MicroBatch::Rows(rows) => rows.serialize(serializer),
            MicroBatch::Auto => serializer.serialize_str("auto"),
        }
    }
}

impl<'de> Deserialize<'de> for MicroBatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = MicroBatch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of rows or \"auto\"")
            }

            fn visit_i64<E: Error>(self, rows: i64) -> Result<MicroBatch, E> {
                let fits = usize::try_from(rows).map_err(|_| E::invalid_value(Unexpected::Signed(rows), &self));
                Ok(MicroBatch::Rows(fits?))
            }

            fn visit_u64<E: Error>(self, rows: u64) -> Result<MicroBatch, E> {
                Ok(MicroBatch::Rows(rows as usize))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<MicroBatch, E> {
                match text {
                    "auto" => Ok(MicroBatch::Auto),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// A size such as `"6GB"` (10^9 bytes) or `"512MB"` (10^6), kept as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct ByteSize {
    text: String,
    bytes: u64,
}

impl ByteSize {
    /// In bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size with its unit, \"6GB\" (10^9 bytes) or \"512MB\" (10^6)")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
                let bytes = bytes_of(text.trim()).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))?;
                Ok(ByteSize { text: text.to_owned(), bytes })
            }
        }
        deserializer.deserialize_any(Read)
    }
}

fn bytes_of(text: &str) -> Option<u64> {
    let (number, unit) = match text.strip_suffix("GB") {
        Some(number) => (number, 1e9),
        None => (text.strip_suffix("MB")?, 1e6),
    };
    let number = number.trim_end();
    // Digits and a point: no sign, no exponent, no "inf".
    if !number.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let bytes = number.parse::<f64>().ok()? * unit;
    (1.0..1e18).contains(&bytes).then_some(bytes as u64)
}
