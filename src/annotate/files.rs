//! Which of the files of a command are one, by what they are and not by how they are written, and which must be new.
//! Imports `durable` of ours.
use crate::durable;
use crate::error::{Error, Result};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Refuses two of `files`, each a path and what it is for, that are one file, and an output that is there already or has
/// no directory.
///
/// # Errors
/// [`Error::File`] that names the path and the remedy.
pub fn check(inputs: &[(&Path, &str)], outputs: &[(&Path, &str)]) -> Result<()> {
    let files: Vec<_> = inputs.iter().chain(outputs).collect();
    for (at, (path, _)) in files.iter().enumerate() {
        if let Some((_, what)) = files[..at].iter().find(|(other, _)| durable::is_one(path, other)) {
            let message = format!("is the file of the {what}, too");
            return Err(Error::file(path, message, "give pairs, votes and outputs files of their own"));
        }
    }
    outputs.iter().try_for_each(|(path, _)| durable::check_new(path))
}

/// Whether the open `file` is still what others find at `path`.
pub fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(ours), Ok(there)) => ours.nlink() > 0 && durable::identity(&ours) == durable::identity(&there),
        _ => false,
    }
}
