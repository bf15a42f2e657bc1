//! Durable writes: a directory appears whole or not at all. Owns temporary names, fsync, rename and manifests.
//!
//! Order: files written and fsynced in a temporary directory beside the target, the manifest last, the directory
//! fsynced, renamed, the parent fsynced. Imports nothing of ours but errors.
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The manifest's name; a directory is whole when every sum in it agrees.
pub const MANIFEST: &str = "manifest.json";

/// SHA-256 of every other file of a directory, in hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Sums by file name.
    pub sha256: BTreeMap<String, String>,
}

/// Writes `target` as a whole: `fill` writes into a temporary directory beside it.
///
/// # Errors
/// Those of `fill` and of the file system; `target` is then as it was.
pub fn write_dir(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let temporary = temporary_name(target);
    remove_dir(&temporary)?;
    fs::create_dir_all(&temporary).map_err(Error::io(&temporary, "create"))?;
    let filled = fill(&temporary).and_then(|()| seal(&temporary));
    if let Err(error) = filled {
        let _ = fs::remove_dir_all(&temporary);
        return Err(error);
    }
    fs::rename(&temporary, target).map_err(Error::io(target, "rename into place"))?;
    sync_dir(target.parent().unwrap_or(Path::new(".")))
}

/// Moves the files of a sealed temporary directory into `target`, an existing directory, the manifest last.
pub fn write_into(target: &Path, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let temporary = target.join(format!(".{name}.tmp"));
    remove_dir(&temporary)?;
    fs::create_dir(&temporary).map_err(Error::io(&temporary, "create"))?;
    if let Err(error) = fill(&temporary).and_then(|()| seal(&temporary)) {
        let _ = fs::remove_dir_all(&temporary);
        return Err(error);
    }
    let mut names = file_names(&temporary)?;
    names.sort_by_key(|file| file == MANIFEST);
    for file in names {
        let to = target.join(&file);
        fs::rename(temporary.join(&file), &to).map_err(Error::io(&to, "rename into place"))?;
    }
    remove_dir(&temporary)?;
    sync_dir(target)
}

/// Refuses to write over what exists, a link that leads nowhere included, or into a missing directory, before any work is
/// done.
///
/// # Errors
/// [`Error::File`] naming the path and the remedy.
pub fn check_new(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(Error::file(path, "exists already", "name another output or remove it"));
    }
    let parent = parent(path);
    if parent.is_dir() { Ok(()) } else { Err(Error::file(parent, "no such directory", "make it first")) }
}

/// Whether two paths lead to one file: by device and inode, or where there is none yet, by directory and name.
pub fn is_one(one: &Path, other: &Path) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => identity(&one) == identity(&other),
        (Err(_), Err(_)) => place(one) == place(other),
        _ => false,
    }
}

/// Where a file that is not there would be.
fn place(path: &Path) -> PathBuf {
    let dir = parent(path);
    dir.canonicalize().unwrap_or_else(|_| dir.to_owned()).join(path.file_name().unwrap_or_default())
}

/// The directory of a path.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What tells a file from all others: device and inode.
pub fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Writes JSON rows, one a line, whole or not at all.
///
/// # Errors
/// Those of the file system.
pub fn write_rows(path: &Path, rows: &[Map<String, Value>]) -> Result<()> {
    write_file(path, lines(rows).as_bytes())
}

/// JSON rows, one a line.
pub fn lines(rows: &[Map<String, Value>]) -> String {
    let line = |row| serde_json::to_string(row).expect("JSON values serialise") + "\n";
    rows.iter().map(line).collect()
}

/// Writes a small file whole: temporary name, fsync, rename, parent fsynced.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = temporary_name(path);
    let mut file = File::create(&temporary).map_err(Error::io(&temporary, "create"))?;
    file.write_all(content).map_err(Error::io(&temporary, "write"))?;
    file.sync_all().map_err(Error::io(&temporary, "fsync"))?;
    fs::rename(&temporary, path).map_err(Error::io(path, "rename into place"))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Checks every sum of `dir`'s manifest.
///
/// # Errors
/// No manifest, a missing file or one whose sum differs, each by name.
pub fn verify(dir: &Path) -> Result<()> {
    let path = dir.join(MANIFEST);
    let text = fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
    let remedy = "delete this directory to go on from the one before it";
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| Error::file(&path, format!("not a manifest: {error}"), remedy))?;
    for (name, expected) in &manifest.sha256 {
        let file = dir.join(name);
        if sum(&file)? != *expected {
            return Err(Error::file(&file, "its SHA-256 differs from manifest.json", remedy));
        }
    }
    Ok(())
}

/// The temporary name beside `target`; leftovers of it are removed before the next write.
pub fn temporary_name(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.tmp"))
}

/// Removes a directory if it is there.
pub fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(dir, "remove")(error)),
        _ => Ok(()),
    }
}

/// fsyncs every file, writes the manifest, fsyncs the directory.
fn seal(dir: &Path) -> Result<()> {
    let mut sha256 = BTreeMap::new();
    for name in file_names(dir)? {
        let path = dir.join(&name);
        File::open(&path).and_then(|f| f.sync_all()).map_err(Error::io(&path, "fsync"))?;
        sha256.insert(name, sum(&path)?);
    }
    let path = dir.join(MANIFEST);
    let text = serde_json::to_string_pretty(&Manifest { sha256 }).expect("strings serialise");
    let mut file = File::create(&path).map_err(Error::io(&path, "create"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::io(&path, "write"))?;
    sync_dir(dir)
}

fn file_names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir, "list"))? {
        let entry = entry.map_err(Error::io(dir, "list"))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn sum(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path, "open"))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(Error::io(path, "read"))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    Ok(hex(&hash.finalize()))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sync_dir(dir: &Path) -> Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|f| f.sync_all()).map_err(Error::io(dir, "fsync"))
}
