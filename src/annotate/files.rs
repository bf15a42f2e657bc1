//! Which of the files of a command are one, by what they are and not by how they are written, and which must be new.
//! Imports `durable` of ours.
use crate::durable;
use crate::error::{Error, Result};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Refuses two of `files`, each a path and what it is for, that are one file, and an output that is there already or has
/// no directory.
///
/// # Errors
/// [`Error::File`] that names the path and the remedy.
pub fn check(inputs: &[(&Path, &str)], outputs: &[(&Path, &str)]) -> Result<()> {
    let files: Vec<_> = inputs.iter().chain(outputs).collect();
    for (at, (path, _)) in files.iter().enumerate() {
        if let Some((_, what)) = files[..at].iter().find(|(other, _)| is_one(path, other)) {
            let message = format!("is the file of the {what}, too");
            return Err(Error::file(path, message, "give pairs, votes and outputs files of their own"));
        }
    }
    outputs.iter().try_for_each(|(path, _)| durable::check_new(path))
}

/// Whether two paths lead to one file: by device and inode, or where there is none yet, by directory and name.
fn is_one(one: &Path, other: &Path) -> bool {
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

/// Whether the open `file` is still what others find at `path`.
pub fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(ours), Ok(there)) => ours.nlink() > 0 && identity(&ours) == identity(&there),
        _ => false,
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
