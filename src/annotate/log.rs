//! The log of votes: JSON lines, appended and fsynced one by one. Owns the file, its lock and its repair; must not know
//! the page or who sees what.
//!
//! A line without its newline was never acknowledged: the write was cut. It is moved to a file beside the log, with a
//! warning. Anything else that cannot be read is an error that names its line.
use super::files;
use super::pairs::Pairs;
use super::votes::{Begin, Book, Record};
use crate::durable;
use crate::error::{Error, Result};
use crate::lock::{self, Lock};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;

/// A log that this process alone writes.
pub struct Log {
    path: PathBuf,
    file: File,
    length: u64,
    /// Why nothing more is written: after a failed fsync nobody knows what the disk holds.
    broken: Option<String>,
    _lock: File,
}

/// What a log says: its beginning, and the votes that stand.
pub struct Contents {
    /// Its first record.
    pub begin: Begin,
    /// Its votes.
    pub book: Book,
}

impl Log {
    /// Opens the log, or begins one with what `begin` makes of none; the half line of a killed process is set aside.
    ///
    /// # Errors
    /// Another process has it; it belongs to other pairs; a line that cannot be read; the file system.
    pub fn open(
        path: &Path,
        pairs: &Pairs,
        begin: impl FnOnce(Option<&Begin>) -> Result<Begin>,
    ) -> Result<(Self, Contents)> {
        if path.is_dir() {
            return Err(Error::file(path, "is a directory", "give --votes a file"));
        }
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let mut file = options.open(path).map_err(Error::io(path, "create"))?;
        // What is no log of these pairs gets no lock beside it either.
        check_first(path, &bytes_of(path, &mut file)?, pairs)?;
        // One log may be reached by several paths.
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let lock = match lock::take(&beside(&real, ".lock", true))? {
            Lock::Ours(file) => file,
            Lock::Theirs(owner) => {
                let remedy = "open the link that it printed, stop it, or name another log with --votes";
                return Err(Error::file(path, format!("{owner} is collecting votes there"), remedy));
            }
        };
        // Read once more: until now another process may have written. Nothing is changed before all of it fits.
        let bytes = bytes_of(path, &mut file)?;
        let (contents, whole) = read(path, &bytes, pairs)?;
        let wanted = begin(contents.as_ref().map(|contents| &contents.begin))?;
        if whole < bytes.len() {
            set_aside(path, &bytes[whole..])?;
            file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(Error::io(path, "write"))?;
        }
        let mut log = Self { path: path.to_owned(), file, length: whole as u64, broken: None, _lock: lock };
        log.file.seek(SeekFrom::Start(log.length)).map_err(Error::io(path, "read"))?;
        let contents = match contents {
            Some(contents) => contents,
            None => {
                log.append(&Record::Begin(wanted.clone()))?;
                sync_parent(path)?;
                Contents { begin: wanted, book: Book::default() }
            }
        };
        Ok((log, contents))
    }

    /// Appends a record and waits until the disk has it, in the file that others find at the log's path.
    ///
    /// # Errors
    /// It could not be written, and is not in the log; or nobody knows, and the log takes no more.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        if let Some(reason) = &self.broken {
            return Err(Error::file(&self.path, reason.clone(), "start the program again; it reads what is there"));
        }
        self.check_place()?;
        let mut line = serde_json::to_vec(record).expect("records serialise");
        line.push(b'\n');
        if let Err(source) = self.file.write_all(&line) {
            self.take_back();
            return Err(Error::io(&self.path, "write")(source));
        }
        if let Err(source) = self.file.sync_data() {
            self.broken = Some(format!("fsync failed: {source}"));
            return Err(Error::io(&self.path, "fsync")(source));
        }
        // Only now is it certain that what was written is where it will be looked for.
        if let Err(error) = self.check_place() {
            self.take_back();
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// What was written after the last whole record must not stand before the next one.
    fn take_back(&mut self) {
        let undone = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
        if let Err(undone) = undone {
            self.broken = Some(format!("a line that was not acknowledged could not be taken back: {undone}"));
        }
    }

    /// Votes in a file that was removed, moved or replaced would be lost with this process.
    fn check_place(&self) -> Result<()> {
        if files::is_at(&self.file, &self.path) {
            return Ok(());
        }
        let message = "is no longer the file that votes are written to: it was removed, moved or replaced";
        Err(Error::file(&self.path, message, "nothing was logged; put the file back, or start the program again"))
    }
}

/// What the log of these pairs says, without writing anything; a half line at its end is left out with a warning.
///
/// # Errors
/// There is none; as [`Log::open`] otherwise.
pub fn look(path: &Path, pairs: &Pairs) -> Result<Contents> {
    let nothing = || Error::file(path, "holds no votes", "judge pairs first, or name the log with --votes");
    if !path.exists() {
        return Err(nothing());
    }
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let (contents, whole) = read(path, &bytes, pairs)?;
    if whole < bytes.len() {
        tracing::warn!("{}: half a line at its end is left out: it was never acknowledged", path.display());
    }
    contents.ok_or_else(nothing)
}

fn bytes_of(path: &Path, file: &mut File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(Error::io(path, "read"))?;
    Ok(bytes)
}

/// How many bytes stand in lines that have their newline.
fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1)
}

/// What the whole lines say, and how many bytes these are. Of an empty file, or one that holds only a beginning of these
/// pairs that was cut, nothing.
fn read(path: &Path, bytes: &[u8], pairs: &Pairs) -> Result<(Option<Contents>, usize)> {
    let whole = whole_lines(bytes);
    let Some((begin, first)) = check_first(path, bytes, pairs)? else { return Ok((None, whole)) };
    let mut book = Book::default();
    for (at, line) in bytes[first..whole].split_inclusive(|&byte| byte == b'\n').enumerate() {
        let bad = |message: String| {
            let remedy = "correct or delete the line; votes are one JSON object a line";
            Error::row(path, at + 2, message, remedy)
        };
        let record: Record = serde_json::from_slice(line).map_err(|error| bad(format!("is no vote: {error}")))?;
        if let Record::Vote(vote) = &record
            && pairs.place(vote.pair).is_none()
        {
            return Err(bad(format!("is a vote on pair {}, which is not there", vote.pair)));
        }
        book.check(&record).map_err(bad)?;
        book.enter(record);
    }
    Ok((Some(Contents { begin, book }), whole))
}

/// Whether this is a log of these pairs: what it begins with and how long that line is, or nothing where that was never
/// written to its end.
fn check_first(path: &Path, bytes: &[u8], pairs: &Pairs) -> Result<Option<(Begin, usize)>> {
    let foreign =
        |message: String| Error::row(path, 1, message, "name the log of these pairs, or a new one, with --votes");
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        if is_cut_begin(bytes, pairs) {
            return Ok(None);
        }
        return Err(foreign("does not begin as a log of votes on these pairs does".to_owned()));
    };
    match serde_json::from_slice(&bytes[..end]) {
        Ok(Record::Begin(begin)) => {
            check_begin(path, &begin, pairs)?;
            Ok(Some((begin, end + 1)))
        }
        Ok(_) => Err(foreign("a log begins with the pairs that it belongs to".to_owned())),
        Err(error) => Err(foreign(format!("is no beginning of a log of votes: {error}"))),
    }
}

/// Whether a line without its newline is of a beginning that this program was about to write for these pairs. Seed,
/// shares and time may have been others; the pairs are named before them.
fn is_cut_begin(half: &[u8], pairs: &Pairs) -> bool {
    let line = serde_json::to_string(&Record::Begin(begin(pairs, 0, 0.0, 0.0))).expect("records serialise");
    let (fixed, _) = line.split_once("\"seed\":").expect("a beginning has a seed");
    fixed.as_bytes().starts_with(half) || half.starts_with(fixed.as_bytes())
}

fn check_begin(path: &Path, begin: &Begin, pairs: &Pairs) -> Result<()> {
    if begin.version != VERSION {
        let message = format!("is a log of version {}, this program writes version {VERSION}", begin.version);
        return Err(Error::file(path, message, "use the release that wrote it, or name another log with --votes"));
    }
    if begin.fingerprint == pairs.fingerprint {
        return Ok(());
    }
    let now = format!("{} ({} pairs)", pairs.path.display(), pairs.list.len());
    let message = format!("holds votes on other pairs ({}, {} pairs) than {now}", begin.pairs, begin.count);
    Err(Error::file(path, message, "give the pairs that it was made with, or name another log with --votes"))
}

/// The beginning of a new log.
pub fn begin(pairs: &Pairs, seed: u64, repeat: f64, overlap: f64) -> Begin {
    Begin {
        version: VERSION,
        pairs: pairs.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        fingerprint: pairs.fingerprint.clone(),
        count: pairs.list.len(),
        seed,
        repeat,
        overlap,
        time: now(),
    }
}

/// The time in UTC, to the millisecond.
pub fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Keeps the half line of a killed process beside the log.
fn set_aside(path: &Path, half: &[u8]) -> Result<()> {
    let aside = beside(path, ".cut", false);
    let mut file = OpenOptions::new().create(true).append(true).open(&aside).map_err(Error::io(&aside, "create"))?;
    let line = [half, b"\n"].concat();
    file.write_all(&line).and_then(|()| file.sync_all()).map_err(Error::io(&aside, "write"))?;
    sync_parent(&aside)?;
    tracing::warn!(
        "{}: its last line was cut ({} bytes without a newline, never acknowledged); moved to {}",
        path.display(),
        half.len(),
        aside.display()
    );
    Ok(())
}

/// `dir/name` as `dir/name.cut`, or hidden as `dir/.name.lock`.
fn beside(path: &Path, ending: &str, hidden: bool) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{}{name}{ending}", if hidden { "." } else { "" }))
}

fn sync_parent(path: &Path) -> Result<()> {
    let dir = durable::parent(path);
    File::open(dir).and_then(|file| file.sync_all()).map_err(Error::io(dir, "fsync"))
}
