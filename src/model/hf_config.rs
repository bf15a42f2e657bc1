//! `config.json` in Hugging Face's field names. Owns reading and refusing; knows no tensors.
//!
//! A key that changes the computation and is not supported is refused by name; keys that do not change it are kept as
//! they are and written back by `save_pretrained`.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::family::{FAMILIES, Family, Spec};
use super::keys::Keys;
use crate::error::{Error, Result};

/// A model's configuration: as read, and as understood.
#[derive(Debug, Clone)]
pub struct HfConfig {
    /// All keys as they were read.
    pub raw: Map<String, Value>,
    /// The family with its own keys, typed.
    pub family: Arc<dyn Family>,
    /// The file it came from, for messages.
    pub origin: PathBuf,
}

/// The `model_type` under which a reward model with summed per-token rewards is saved: transformers does not know it and
/// refuses, where it would otherwise read the last token only. `collimate.backbone` then names the family.
pub const TOKEN_REWARD: &str = "collimate_token_reward";

impl HfConfig {
    /// Reads `dir/config.json`.
    ///
    /// # Errors
    /// [`Error::File`] naming the file and the key.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Error::file(dir, "no such directory", "give a model directory or a hub id"));
        }
        let path = dir.join("config.json");
        if !path.is_file() {
            return Err(Error::file(dir, "no config.json here", "give a directory in Hugging Face layout"));
        }
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        let again = "take the file from the model's source again";
        let raw = serde_json::from_slice(&bytes).map_err(|e| Error::file(&path, format!("is not JSON: {e}"), again))?;
        let Value::Object(raw) = raw else { return Err(Error::file(&path, "is not a JSON object", again)) };
        Self::parse(raw, &path)
    }

    /// Understands a configuration that `origin` holds.
    ///
    /// # Errors
    /// [`Error::File`] naming `origin` and the key.
    pub fn parse(raw: Map<String, Value>, origin: &Path) -> Result<Self> {
        let keys = Keys::new(&raw, origin);
        let spec = spec_of(&keys)?;
        let family = (spec.read)(&keys)?;
        keys.refuse_foreign()?;
        if raw.contains_key("auto_map") {
            tracing::warn!("{}: auto_map ignored: no code of a model directory is run", origin.display());
        }
        Ok(HfConfig { family: family.into(), raw, origin: origin.to_path_buf() })
    }

    /// The family's names.
    pub fn spec(&self) -> &'static Spec {
        self.family.spec()
    }

    /// Whether it describes a reward model rather than a language model.
    pub fn is_reward(&self) -> bool {
        let names = self.raw.get("architectures").and_then(Value::as_array);
        let named = |value: &Value| value.as_str().is_some_and(|name| name.ends_with("ForSequenceClassification"));
        names.is_some_and(|names| names.iter().any(named)) || self.raw.get("model_type") == Some(&TOKEN_REWARD.into())
    }
}

/// The family that `model_type`, or where that is missing the first architecture, names.
fn spec_of(keys: &Keys) -> Result<&'static Spec> {
    let given = keys.get(&["model_type"]);
    let mut named = given.and_then(Value::as_str);
    if let (Some(other), None) = (given, named) {
        return keys.fail("model_type", format_args!("{other} is not a string"));
    }
    if named == Some(TOKEN_REWARD) {
        named = keys.get(&["collimate"]).and_then(|value| value.get("backbone")).and_then(Value::as_str);
        if named.is_none() {
            return keys.fail("collimate.backbone", "missing");
        }
    }
    let first = keys.get(&["architectures"]).and_then(|value| value.get(0)).and_then(Value::as_str);
    let found = match (named, first) {
        (Some(named), _) => FAMILIES.iter().find(|spec| spec.model_type == named),
        (None, Some(name)) => FAMILIES.iter().find(|spec| [spec.causal, spec.classifier].contains(&name)),
        (None, None) => return keys.fail("model_type", "missing"),
    };
    found.copied().map_or_else(
        || {
            let known: Vec<&str> = FAMILIES.iter().map(|spec| spec.model_type).collect();
            let message =
                format!("{:?} is not supported ({} are)", named.or(first).unwrap_or_default(), known.join(", "));
            keys.fail("model_type", message)
        },
        Ok,
    )
}
