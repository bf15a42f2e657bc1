//! Files that say who works here: a lock that ends with its process, and its owner's number and host. Imports nothing
//! of ours but errors; what is locked, and what is said where it is taken, belongs to the callers.
use crate::error::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// What became of an attempt to take a lock.
#[derive(Debug)]
pub enum Lock {
    /// It is this process's until the file is dropped.
    Ours(File),
    /// Another process has it: "process 17 on host".
    Theirs(String),
}

/// Takes the lock of the file `path`, which is made where there is none.
///
/// # Errors
/// A file that cannot be made, locked or written.
pub fn take(path: &Path) -> Result<Lock> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    let mut file = options.open(path).map_err(Error::io(path, "create"))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(Lock::Theirs(owner(&mut file))),
        Err(TryLockError::Error(source)) => return Err(Error::io(path, "lock")(source)),
        Ok(()) => {}
    }
    let name = format!("process {} on {}", std::process::id(), host());
    file.set_len(0).and_then(|()| file.write_all(name.as_bytes())).map_err(Error::io(path, "write"))?;
    Ok(Lock::Ours(file))
}

/// Who has the lock of the file `path` now; nothing is written.
///
/// # Errors
/// A file that cannot be locked for another reason.
pub fn holder(path: &Path) -> Result<Option<String>> {
    let Ok(mut file) = File::open(path) else { return Ok(None) };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Ok(Some(owner(&mut file))),
        Err(TryLockError::Error(source)) => Err(Error::io(path, "lock")(source)),
        Ok(()) => Ok(None),
    }
}

/// This machine's name.
pub fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "this host".into(), |h| h.trim().to_owned())
}

fn owner(file: &mut File) -> String {
    let mut owner = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut owner));
    if owner.is_empty() { "another process".to_owned() } else { owner }
}
