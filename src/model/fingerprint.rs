//! What tells one model directory from another: a SHA-256 over configuration, tokenizer and weight files.
use crate::error::{Error, Result};
use crate::ffi;
use sha2::{Digest, Sha256};
use std::path::Path;

/// SHA-256 over config.json, tokenizer.json and every safetensors file of a model directory, in the order of their
/// names.
///
/// # Errors
/// A directory or file that cannot be read.
pub fn fingerprint(dir: &Path) -> Result<[u8; 32]> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir, "list"))? {
        let name = entry.map_err(Error::io(dir, "list"))?.file_name().to_string_lossy().into_owned();
        let weights = name.starts_with("model") && name.ends_with(".safetensors");
        if weights || name == "config.json" || name == "tokenizer.json" {
            names.push(name);
        }
    }
    names.sort();
    let mut hash = Sha256::new();
    for name in names {
        let bytes = ffi::map_file(&dir.join(&name))?;
        hash.update(name.as_bytes());
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(&bytes);
    }
    Ok(hash.finalize().into())
}
