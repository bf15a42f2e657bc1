//! Encoded rows, in memory or on disk: the same rows in the same order either way. Owns the layout on disk; must not
//! know what a row means.
//!
//! On disk they lie one after the other in a file without a name, which the system removes with the process. Memory
//! then holds 8 bytes a row: where each begins.
use super::fingerprint::Encoded;
use super::rows::{RowId, Unit};
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are kept before they are written.
const BUFFER: usize = 1 << 20;

/// Encoded rows, by number from 0.
pub struct Rows<E> {
    held: Held<E>,
}

enum Held<E> {
    Memory(Vec<E>),
    Disk(Disk, PhantomData<E>),
}

impl<E: Encoded> Rows<E> {
    /// No rows yet; they will be held in memory.
    pub fn in_memory() -> Self {
        Self { held: Held::Memory(Vec::new()) }
    }

    /// No rows yet; they will be written to a file without a name in the directory for temporary files (`TMPDIR`).
    ///
    /// # Errors
    /// No file can be made there.
    pub fn on_disk() -> Result<Self> {
        let dir = std::env::temp_dir();
        let made = tempfile::tempfile_in(&dir).map_err(|error| {
            let message = format!("no temporary file can be made here ({error})");
            Error::file(&dir, message, "set TMPDIR to a directory that can be written to")
        });
        Ok(Self::on_file(made?, &dir))
    }

    /// As [`Rows::on_disk`], in an empty file that is open for reading and writing. `place` is what errors name.
    pub fn on_file(file: File, place: &Path) -> Self {
        let disk =
            Disk { file, place: place.into(), buffer: Vec::new(), written: 0, starts: Vec::new(), files: vec![] };
        Self { held: Held::Disk(disk, PhantomData) }
    }

    /// Adds a row behind the others.
    ///
    /// # Errors
    /// The disk is full, or writing fails otherwise.
    pub fn push(&mut self, row: E) -> Result<()> {
        match &mut self.held {
            Held::Memory(rows) => rows.push(row),
            Held::Disk(disk, _) => disk.push(&row)?,
        }
        Ok(())
    }

    /// After the last row: writes what is left, gives back what memory is not needed.
    ///
    /// # Errors
    /// As [`Rows::push`].
    pub fn finish(&mut self) -> Result<()> {
        match &mut self.held {
            Held::Memory(rows) => rows.shrink_to_fit(),
            Held::Disk(disk, _) => {
                disk.flush()?;
                disk.buffer = Vec::new();
                disk.starts.shrink_to_fit();
            }
        }
        Ok(())
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        match &self.held {
            Held::Memory(rows) => rows.len(),
            Held::Disk(disk, _) => disk.starts.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row `index`.
    ///
    /// # Errors
    /// It cannot be read back.
    ///
    /// # Panics
    /// There is no such row.
    pub fn get(&self, index: usize) -> Result<Cow<'_, E>> {
        match &self.held {
            Held::Memory(rows) => Ok(Cow::Borrowed(&rows[index])),
            Held::Disk(disk, _) => disk.get(index).map(Cow::Owned),
        }
    }

    /// All rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Cow<'_, E>>> {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl<E> From<Vec<E>> for Rows<E> {
    fn from(rows: Vec<E>) -> Self {
        Self { held: Held::Memory(rows) }
    }
}

struct Disk {
    file: File,
    /// The directory it lies in.
    place: PathBuf,
    /// What follows the `written` bytes of the file.
    buffer: Vec<u8>,
    written: u64,
    /// Where each row begins.
    starts: Vec<u64>,
    /// The data files that rows came from.
    files: Vec<Arc<Path>>,
}

impl Disk {
    fn push<E: Encoded>(&mut self, row: &E) -> Result<()> {
        self.starts.push(self.end());
        let id = row.id();
        // Rows of a file come one after the other: it is nearly always the last one.
        let known = self.files.iter().rposition(|file| *file == id.file);
        let file = known.unwrap_or_else(|| {
            self.files.push(id.file.clone());
            self.files.len() - 1
        });
        put_number(&mut self.buffer, file as u64);
        put_number(&mut self.buffer, id.number as u64);
        self.buffer.push(u8::from(id.unit == Unit::Row));
        row.write(&mut self.buffer);
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all(&self.buffer).map_err(|error| match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                let so_far = self.end().div_ceil(1 << 20);
                let rows = self.starts.len();
                let message = format!("is full: {rows} encoded rows take {so_far} MiB here, and more are to come");
                Error::file(&self.place, message, "free space, or set TMPDIR to a directory on a larger disk")
            }
            _ => Error::io(&self.place, "write a temporary file in")(error),
        })?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn get<E: Encoded>(&self, index: usize) -> Result<E> {
        let start = self.starts[index];
        let end = self.starts.get(index + 1).copied().unwrap_or_else(|| self.end());
        let mut own = Vec::new();
        let bytes = if start >= self.written {
            &self.buffer[(start - self.written) as usize..(end - self.written) as usize]
        } else {
            own.resize((end - start) as usize, 0);
            self.file.read_exact_at(&mut own, start).map_err(Error::io(&self.place, "read a temporary file in"))?;
            &own
        };
        self.decode(bytes).ok_or_else(|| {
            let message = format!("the temporary file holds other bytes for row {index} than were written to it");
            Error::file(&self.place, message, "check the disk, or set data.streaming=false")
        })
    }

    fn decode<E: Encoded>(&self, bytes: &[u8]) -> Option<E> {
        let mut bytes = Bytes(bytes);
        let file = self.files.get(bytes.size()?)?.clone();
        let number = bytes.size()?;
        let unit = if bytes.byte()? == 1 { Unit::Row } else { Unit::Line };
        let row = E::read(&mut bytes, RowId { file, number, unit })?;
        bytes.0.is_empty().then_some(row)
    }
}

/// Bytes of a row that are still to be read.
pub struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    /// A number: seven bits a byte, the lowest first.
    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// A number that counts things in memory.
    pub fn size(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    /// Token ids.
    pub fn ids(&mut self) -> Option<Vec<i64>> {
        let count = self.size()?;
        // An id takes a byte at least.
        let mut ids = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            ids.push(self.number()?.cast_signed());
        }
        Some(ids)
    }

    /// A string.
    pub fn text(&mut self) -> Option<String> {
        let length = self.size()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    /// A float64, bit by bit.
    pub fn float(&mut self) -> Option<f64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(f64::from_le_bytes(*number))
    }

    /// A byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }
}

/// Appends what [`Bytes::number`] reads.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends what [`Bytes::ids`] reads: for the vocabularies in use two or three bytes an id.
pub fn put_ids(out: &mut Vec<u8>, ids: &[i64]) {
    put_number(out, ids.len() as u64);
    ids.iter().for_each(|id| put_number(out, id.cast_unsigned()));
}

/// Appends what [`Bytes::text`] reads.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}
