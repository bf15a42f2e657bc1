//! What tells one model directory from another: a SHA-256 over configuration, tokenizer and weight files.
use super::weights;
use crate::error::Result;
use crate::ffi;
use sha2::{Digest, Sha256};
use std::path::Path;

/// The files beside the weights that decide what a model computes for a row.
const OTHERS: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// SHA-256 over the weights of a model directory and what stands beside them (configuration, tokenizer, chat template), in
/// the order of their names.
///
/// # Errors
/// A directory or file that cannot be read.
pub fn fingerprint(dir: &Path) -> Result<[u8; 32]> {
    let mut names = weights::files(dir)?;
    names.extend(OTHERS.into_iter().filter(|name| dir.join(name).is_file()).map(str::to_owned));
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
