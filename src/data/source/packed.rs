//! A file of text, unpacked while it is read: plain, gzip (all its members), zstd (all its frames). Owns what is said
//! of packed data that is cut short or damaged; must not know rows.
use crate::error::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

/// Bytes read at a time.
const BUFFER: usize = 1 << 18;

/// Windows above this many bytes, as a power of two, are refused: they are memory that a file asks for.
const ZSTD_WINDOW: u32 = 27;

/// Text, and how it was packed.
pub struct Text {
    file: Arc<Path>,
    packing: Option<&'static str>,
    reader: Box<dyn BufRead>,
}

impl Text {
    /// Opens a file at its start.
    pub fn open(path: Arc<Path>, file: File) -> Result<Self> {
        let mut reader = BufReader::with_capacity(BUFFER, file);
        let start = reader.fill_buf().map_err(Error::io(&path, "read"))?;
        let (packing, reader): (_, Box<dyn BufRead>) = if start.starts_with(b"\x1f\x8b") {
            (Some("gzip"), buffered(MultiGzDecoder::new(reader)))
        } else if is_zstd(start) {
            let mut decoder = zstd::Decoder::with_buffer(reader).map_err(Error::io(&path, "read"))?;
            decoder.window_log_max(ZSTD_WINDOW).map_err(Error::io(&path, "read"))?;
            (Some("zstd"), buffered(decoder))
        } else {
            (None, Box::new(reader))
        };
        let mut text = Self { file: path, packing, reader };
        text.refuse_other_formats()?;
        if text.peek()?.starts_with(b"\xef\xbb\xbf") {
            text.reader.consume(3);
        }
        Ok(text)
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What is read next, some bytes of it; none at the end.
    pub fn peek(&mut self) -> Result<&[u8]> {
        self.ready("before the first row")?;
        self.reader.fill_buf().map_err(Error::io(&self.file, "read"))
    }

    /// The unpacked text, to read from; errors go to [`Text::fail`].
    pub fn reader(&mut self) -> &mut dyn BufRead {
        &mut *self.reader
    }

    /// The first byte that is no white space, as far as it is among the bytes that are read next.
    pub fn first_byte(&mut self) -> Result<Option<u8>> {
        Ok(self.peek()?.trim_ascii_start().first().copied())
    }

    /// What is said of an error in reading. `place`: "after line 12".
    pub fn fail(&self, error: std::io::Error, place: &str) -> Error {
        let Some(packing) = self.packing else {
            return Error::io(&self.file, "read")(error);
        };
        let again = "the file is damaged or cut short; copy or download it again";
        let text = error.to_string();
        match error.kind() {
            ErrorKind::UnexpectedEof => {
                Error::file(&self.file, format!("the {packing} data ends in the middle, {place}"), again)
            }
            _ if text.contains("too much memory") => Error::file(
                &self.file,
                format!("the {packing} data asks for a window of more than {} MiB", 1 << (ZSTD_WINDOW - 20)),
                "pack it again without --long",
            ),
            // The system's own errors (a disk that fails) have numbers, those of the decoders have not.
            _ if error.raw_os_error().is_some() => Error::io(&self.file, "read")(error),
            _ => Error::file(&self.file, format!("the {packing} data is damaged {place} ({text})"), again),
        }
    }

    /// Reads ahead, so that what is wrong is known before bytes are borrowed.
    fn ready(&mut self, place: &str) -> Result<()> {
        match self.reader.fill_buf() {
            Ok(_) => Ok(()),
            Err(error) => Err(self.fail(error, place)),
        }
    }

    fn refuse_other_formats(&mut self) -> Result<()> {
        let packing = self.packing;
        let Some((what, remedy)) = foreign(self.peek()?) else { return Ok(()) };
        let inside = packing.map(|packing| format!(" inside {packing}")).unwrap_or_default();
        Err(Error::file(&self.file, format!("is {what}{inside}"), remedy))
    }
}

fn buffered(reader: impl Read + 'static) -> Box<dyn BufRead> {
    Box::new(BufReader::with_capacity(BUFFER, reader))
}

/// A frame, or a frame to be skipped, with which some tools begin.
fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(b"\x28\xb5\x2f\xfd")
        || (start.len() >= 4 && (0x50..0x60).contains(&start[0]) && start[1..4] == *b"\x2a\x4d\x18")
}

/// Files that people give by mistake, told by their first bytes: what it is, what to do.
fn foreign(start: &[u8]) -> Option<(&'static str, &'static str)> {
    let known: [(&[u8], _, _); 9] = [
        (b"PAR1", "Parquet", "unpack it first; Parquet is read as it is"),
        (b"\x1f\x8b", "packed once more", "unpack it first (gunzip)"),
        (b"\x28\xb5\x2f\xfd", "packed once more", "unpack it first (zstd -d)"),
        (b"PK\x03\x04", "a zip archive", "unpack it first (unzip)"),
        (b"BZh", "packed with bzip2", "unpack it first (bunzip2); gzip and zstd are read as they are"),
        (b"\xfd7zXZ\0", "packed with xz", "unpack it first (unxz); gzip and zstd are read as they are"),
        (b"ARROW1", "an Arrow file", "write it as Parquet: datasets.load_from_disk(DIR).to_parquet(FILE)"),
        (b"\xff\xff\xff\xff", "an Arrow stream", "write it as Parquet: datasets.load_from_disk(DIR).to_parquet(FILE)"),
        (b"version https://git-lfs", "a Git LFS pointer, not the data", "fetch the data: git lfs pull"),
    ];
    let found = known.into_iter().find(|(magic, ..)| start.starts_with(magic)).map(|(_, what, remedy)| (what, remedy));
    let tar = start.get(257..262) == Some(b"ustar");
    found.or_else(|| tar.then_some(("a tar archive", "unpack it first (tar -xf)")))
}
