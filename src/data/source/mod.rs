//! Files -> raw rows: objects of columns, one after the other, never the whole file. Owns file formats; must not know
//! which columns mean what.
//!
//! A file is opened by what it holds, whatever its name: JSON lines or a JSON array, plain or packed with gzip or zstd,
//! or Parquet. What is wrong with a row is part of the row; what is wrong with the file ends the reading.
mod array;
mod json;
mod lines;
mod packed;
mod parquet;

use super::rows::{BadRow, Located, RowId, Unit};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::path::Path;
use std::sync::Arc;

/// Most bytes of a row; a longer one is a bad row, whose bytes are not kept.
pub const MAX_ROW: usize = 64 << 20;

/// A row before its columns are looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct RawRow {
    /// Where it stands.
    pub id: RowId,
    /// Its columns in the order of the file, or why they cannot be read.
    pub object: Result<Map<String, Value>, BadRow>,
}

/// The rows of a file, in order. After an error there are no more.
pub struct RawRows {
    file: Arc<Path>,
    format: Format,
    failed: bool,
}

enum Format {
    Lines(lines::Lines),
    Array(array::Array),
    Parquet(Box<parquet::Rows>),
}

/// What a reader of one format yields: the row's number and its columns.
type Numbered = (usize, Result<Map<String, Value>, BadRow>);

/// The rows of a file with all their columns.
///
/// # Errors
/// A file that is not there or cannot be read, a format that is not read, damaged metadata.
pub fn open(path: &Path) -> Result<RawRows> {
    open_columns(path, None)
}

/// The columns of `rows`, which were read from `path`, as they stand there: all of each one's, in the order of `rows`.
///
/// # Errors
/// A file that changed meanwhile.
pub fn whole(path: &Path, rows: &[Located]) -> Result<Vec<Map<String, Value>>> {
    let mut all = open(path)?;
    let mut next = |located: &Located| {
        while let Some(raw) = all.next().transpose()? {
            if let (true, Ok(object)) = (raw.id.number == located.id.number, raw.object) {
                return Ok(object);
            }
        }
        Err(located.id.error("changed while it was read", "run the command again"))
    };
    rows.iter().map(&mut next).collect()
}

/// As [`open`]; of a Parquet file only the columns in `keep` are read, the others of it are null. None: all.
///
/// # Errors
/// As [`open`].
pub fn open_columns(path: &Path, keep: Option<&[&str]>) -> Result<RawRows> {
    let metadata = match std::fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::file(path, "there is no such file", "check the path"));
        }
        other => other.map_err(Error::io(path, "read"))?,
    };
    if metadata.is_dir() {
        return Err(Error::file(path, "is a directory", "give a data file: JSON lines or Parquet"));
    }
    let mut file = File::open(path).map_err(Error::io(path, "read"))?;
    let file_path: Arc<Path> = path.into();
    if metadata.is_file() && starts_with(&mut file, b"PAR1").map_err(Error::io(path, "read"))? {
        let rows = parquet::Rows::open(file_path.clone(), file, keep)?;
        return Ok(RawRows { file: file_path, format: Format::Parquet(Box::new(rows)), failed: false });
    }
    let mut text = packed::Text::open(file_path.clone(), file)?;
    let format = match text.first_byte()? {
        Some(b'[') => Format::Array(array::Array::new(text)),
        _ => Format::Lines(lines::Lines::new(text)),
    };
    Ok(RawRows { file: file_path, format, failed: false })
}

/// The names of the columns of a file's first row that are not null: by them a command tells what kind of rows it holds.
///
/// # Errors
/// As [`open`]; a file without rows, a first row that is no JSON object.
pub fn columns(path: &Path) -> Result<Vec<String>> {
    let Some(first) = open(path)?.next().transpose()? else {
        return Err(Error::file(path, "has no rows", "give a file with rows"));
    };
    let object = first.object.map_err(|bad| first.id.error(bad.message, bad.remedy))?;
    Ok(object.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name).collect())
}

impl Iterator for RawRows {
    type Item = Result<RawRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = match &mut self.format {
            Format::Lines(lines) => lines.next_row(),
            Format::Array(array) => array.next_row(),
            Format::Parquet(rows) => rows.next_row(),
        };
        let unit = match &self.format {
            Format::Lines(_) => Unit::Line,
            Format::Array(_) | Format::Parquet(_) => Unit::Row,
        };
        self.failed = next.is_err();
        let row = |(number, object)| RawRow { id: RowId { file: self.file.clone(), number, unit }, object };
        next.map(|numbered| numbered.map(row)).transpose()
    }
}

/// Looks at the first bytes and goes back to the start.
fn starts_with(file: &mut File, magic: &[u8]) -> std::io::Result<bool> {
    let mut start = Vec::with_capacity(magic.len());
    file.take(magic.len() as u64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start == magic)
}
