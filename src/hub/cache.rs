//! The cache's layout, as huggingface_hub has it: snapshots of links to blobs, references, listings of commits, locks.
//! Imports nothing but `error`.
use super::id::Id;
use super::settings::HubSettings;
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// A file of a repository as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub name: String,
    pub size: Option<u64>,
    pub blob: Option<String>,
    pub sha256: Option<String>,
}

/// What one commit of a repository holds, in order of name.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<Listed>,
}

impl Listing {
    pub fn names(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.name.as_str()).collect()
    }

    pub fn size(&self, name: &str) -> Option<u64> {
        self.files.iter().find(|file| file.name == name).and_then(|file| file.size)
    }
}

/// The directory of the commit that the revision stands for, where there is one.
pub(super) fn snapshot(cache: &Path, id: &Id) -> Option<PathBuf> {
    let dir = id.snapshot(cache, &commit(cache, id)?);
    dir.is_dir().then_some(dir)
}

/// The commit of a branch or tag in the cache; a revision without a reference may be a commit itself.
pub(super) fn commit(cache: &Path, id: &Id) -> Option<String> {
    let text = std::fs::read_to_string(id.folder(cache).join("refs").join(&id.revision));
    let commit = text.map_or_else(|_| id.revision.clone(), |text| text.trim().to_owned());
    is_plain_name(&commit).then_some(commit)
}

/// The listing of the revision's commit, where it was kept: in `trees/<commit>.json`, huggingface_hub's form.
pub(super) fn listing(cache: &Path, id: &Id) -> Option<Listing> {
    let commit = commit(cache, id)?;
    let text = std::fs::read_to_string(tree(cache, id, &commit)).ok()?;
    let json: Value = serde_json::from_str(&text).ok()?;
    let files = json.get("files").filter(|_| json.get("format_version") == Some(&json!(1)))?.as_object()?;
    let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    let files = files.iter().filter(|(name, _)| is_plain(name)).map(|(name, entry)| Listed {
        name: name.clone(),
        size: entry.get("size").and_then(Value::as_u64),
        blob: text(entry, "blob_id"),
        sha256: text(entry, "lfs_sha256"),
    });
    Some(Listing { files: files.collect(), commit })
}

/// Keeps a listing. A commit never changes, so that the listing stays true.
pub(super) fn keep_listing(cache: &Path, id: &Id, listing: &Listing) -> Result<()> {
    let mut files = Map::new();
    for file in &listing.files {
        let mut entry = Map::new();
        let mut put = |key: &str, value: Option<Value>| value.map(|value| entry.insert(key.to_owned(), value));
        put("size", file.size.map(Value::from));
        put("blob_id", file.blob.clone().map(Value::from));
        put("lfs_sha256", file.sha256.clone().map(Value::from));
        put("lfs_size", file.sha256.as_ref().and(file.size).map(Value::from));
        files.insert(file.name.clone(), Value::Object(entry));
    }
    let json = json!({"format_version": 1, "files": files});
    replace(&tree(cache, id, &listing.commit), &json.to_string())
}

/// Says that the revision stands for this commit, all of whose wanted files are there.
pub(super) fn keep_reference(cache: &Path, id: &Id, commit: &str) -> Result<()> {
    if id.revision == commit {
        return Ok(());
    }
    replace(&id.folder(cache).join("refs").join(&id.revision), commit)
}

fn tree(cache: &Path, id: &Id, commit: &str) -> PathBuf {
    id.folder(cache).join("trees").join(format!("{commit}.json"))
}

/// Writes a small file whole or not at all, readable for whom the umask lets.
fn replace(path: &Path, text: &str) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    std::fs::create_dir_all(dir).map_err(Error::io(dir, "create"))?;
    let mode = std::fs::Permissions::from_mode(0o666);
    let mut new = tempfile::Builder::new().permissions(mode).tempfile_in(dir).map_err(Error::io(dir, "write"))?;
    new.write_all(text.as_bytes()).map_err(Error::io(path, "write"))?;
    new.as_file().sync_all().map_err(Error::io(path, "write"))?;
    new.persist(path).map_err(|e| Error::io(path, "write")(e.error))?;
    Ok(())
}

/// Names a blob in a snapshot: a relative link, as huggingface_hub makes it.
pub(super) fn link(cache: &Path, id: &Id, commit: &str, name: &str, etag: &str) -> Result<PathBuf> {
    let pointer = id.snapshot(cache, commit).join(name);
    if is_inside(&pointer, cache) {
        return Ok(pointer);
    }
    let dir = pointer.parent().unwrap_or(&pointer);
    std::fs::create_dir_all(dir).map_err(Error::io(dir, "create"))?;
    if pointer.is_symlink() {
        // It leads nowhere, or out of the cache.
        std::fs::remove_file(&pointer).map_err(Error::io(&pointer, "replace"))?;
    }
    let up = "../".repeat(name.split('/').count() + 1);
    let linked = std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), &pointer);
    // Another process may have been quicker.
    linked
        .or_else(|e| if is_inside(&pointer, cache) { Ok(()) } else { Err(e) })
        .map_err(Error::io(&pointer, "create"))?;
    Ok(pointer)
}

/// Held while one blob is downloaded; the lock file is the one that huggingface_hub locks.
pub(super) fn lock(cache: &Path, id: &Id, etag: &str, name: &str) -> Result<File> {
    let path = cache.join(".locks").join(id.repo().folder_name()).join(format!("{etag}.lock"));
    let dir = path.parent().unwrap_or(&path);
    std::fs::create_dir_all(dir).map_err(Error::io(dir, "create"))?;
    let file = File::options().append(true).create(true).open(&path).map_err(Error::io(&path, "create"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            tracing::info!(id = %id.name, file = name, "another process is downloading it; waiting");
            file.lock().map_err(Error::io(&path, "lock"))?;
        }
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {
            tracing::warn!(lock = %path.display(), "the file system has no locks: let one process at a time download");
        }
        Err(TryLockError::Error(e)) => return Err(Error::io(&path, "lock")(e)),
    }
    Ok(file)
}

/// The file exists and no link leads out of the cache.
pub(super) fn is_inside(file: &Path, cache: &Path) -> bool {
    match (file.canonicalize(), cache.canonicalize()) {
        (Ok(file), Ok(cache)) => file.starts_with(cache) && file.is_file(),
        _ => false,
    }
}

/// Only ordinary components: nothing absolute, no `.` or `..`, no backslash.
pub(super) fn is_plain(name: &str) -> bool {
    let ordinary = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    !name.is_empty() && ordinary && !name.contains(['\\', '\0'])
}

/// [`is_plain`], and of one component.
pub(super) fn is_plain_name(name: &str) -> bool {
    is_plain(name) && !name.contains('/')
}

/// Refuses what would not fit, before anything is written.
pub(super) fn check_space(dir: &Path, needed: u64, what: &str) -> Result<()> {
    let existing = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    // Where the file system does not tell, writing will.
    let Ok(space) = rustix::fs::statvfs(existing) else { return Ok(()) };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if needed <= free {
        return Ok(());
    }
    let bytes = indicatif::HumanBytes;
    Err(Error::file(
        existing,
        format!("{what} needs {}, has {}", bytes(needed), bytes(free)),
        "free some space, or set HF_HUB_CACHE to a directory on a larger disk",
    ))
}

/// Every file below a directory, as relative names in order; hidden ones too, because a card may name them.
///
/// # Errors
/// A directory cannot be read; more than 100 000 files, which is no data set.
pub(super) fn files_below(dir: &Path) -> Result<Vec<String>> {
    let (mut found, mut waiting) = (Vec::new(), vec![String::new()]);
    while let Some(below) = waiting.pop() {
        let here = dir.join(&below);
        for entry in std::fs::read_dir(&here).map_err(Error::io(&here, "read"))? {
            let entry = entry.map_err(Error::io(&here, "read"))?;
            let Some(name) = entry.file_name().to_str().filter(|name| *name != ".git").map(str::to_owned) else {
                continue;
            };
            let name = if below.is_empty() { name } else { format!("{below}/{name}") };
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(name);
            } else if path.is_file() {
                found.push(name);
            }
        }
        if found.len() > 100_000 {
            return Err(Error::file(dir, "holds more than 100000 files", "name a directory of data files"));
        }
    }
    found.sort();
    Ok(found)
}

/// The refusal where only the cache may be used.
pub(super) fn not_there(settings: &HubSettings, id: &Id) -> Error {
    id.error(
        format!("not in the cache {} and HF_HUB_OFFLINE is set", settings.cache.display()),
        "unset HF_HUB_OFFLINE, or name a local path",
    )
}

/// The refusal where the cache holds too little and only the cache may be used.
pub(super) fn only_parts(settings: &HubSettings, id: &Id, missing: &str) -> Error {
    id.error(
        format!(
            "only parts of it are in the cache {} ({missing} is missing) and HF_HUB_OFFLINE is set",
            settings.cache.display()
        ),
        "unset HF_HUB_OFFLINE once, so that the rest can be downloaded",
    )
}
