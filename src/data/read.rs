//! Files -> typed rows, in chunks or all at once. Wiring between `source` and `columns`; must not know tokens.
use super::OnBadRow;
use super::columns::{COLUMNS, Wanted, typed};
use super::rows::{DataReport, Located, refuse_empty};
use super::source;
use crate::error::Result;
use std::path::{Path, PathBuf};

/// Rows that are in memory at a time.
pub const CHUNK: usize = 512;

/// Hands the rows of files on, in order, at most [`CHUNK`] at a time and never of two files together. `report` counts
/// rows and skipped rows; `limit` is the most rows that are handed on, all where there is none.
///
/// # Errors
/// A file that cannot be read, no usable row in any of them, an error of `f`; with [`OnBadRow::Error`] the first bad
/// row.
pub fn for_each_chunk(
    files: &[PathBuf],
    wanted: Wanted,
    on_bad: OnBadRow,
    report: &mut DataReport,
    limit: Option<usize>,
    mut f: impl FnMut(&[Located], &mut DataReport) -> Result<()>,
) -> Result<()> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut handed = 0;
    let mut chunk = Vec::with_capacity(CHUNK.min(limit));
    for file in files {
        for_each_row(file, wanted, on_bad, report, limit - handed, |row, report| {
            chunk.push(row);
            handed += 1;
            if chunk.len() == CHUNK {
                f(&chunk, report)?;
                chunk.clear();
            }
            Ok(())
        })?;
        if !chunk.is_empty() {
            f(&chunk, report)?;
            chunk.clear();
        }
    }
    match files.first() {
        Some(first) if limit > 0 => refuse_empty(first, handed, report),
        _ => Ok(()),
    }
}

/// The rows of one file, all of them in memory. `report` counts rows and skipped rows.
///
/// # Errors
/// As [`for_each_chunk`].
pub fn read_rows(path: &Path, wanted: Wanted, on_bad: OnBadRow, report: &mut DataReport) -> Result<Vec<Located>> {
    let mut rows = Vec::new();
    for_each_row(path, wanted, on_bad, report, usize::MAX, |row, _| {
        rows.push(row);
        Ok(())
    })?;
    refuse_empty(path, rows.len(), report)?;
    Ok(rows)
}

/// Hands on the first `limit` rows of a file that can be used.
fn for_each_row(
    path: &Path,
    wanted: Wanted,
    on_bad: OnBadRow,
    report: &mut DataReport,
    limit: usize,
    mut f: impl FnMut(Located, &mut DataReport) -> Result<()>,
) -> Result<()> {
    let mut rows = source::open_columns(path, Some(&COLUMNS))?;
    let mut left = limit;
    while left > 0 {
        let Some(raw) = rows.next().transpose()? else { break };
        report.rows += 1;
        match raw.object.and_then(|object| typed(object, wanted)) {
            Ok(row) => {
                f(Located { row, id: raw.id }, report)?;
                left -= 1;
            }
            Err(bad) => bad.handle(&raw.id, on_bad, report)?,
        }
    }
    Ok(())
}
