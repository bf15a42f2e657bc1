//! Configurations of models that start from random weights: `model.init = "config"`.
use super::family::FAMILIES;
use super::hf_config::HfConfig;
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

impl HfConfig {
    /// The configuration of a model with random weights: `inline` (from `[model.config]`) or `dir/config.json`.
    ///
    /// `vocab_size` is the tokenizer's where the inline configuration does not name one.
    ///
    /// # Errors
    /// Neither an inline configuration nor a file; keys as in [`HfConfig::parse`].
    pub fn for_init(dir: &Path, inline: Option<&toml::Table>, vocab_size: usize) -> Result<Self> {
        let Some(inline) = inline else {
            if dir.join("config.json").is_file() {
                return Self::from_dir(dir);
            }
            let remedy = "add a [model.config] section with model_type and sizes";
            return Err(Error::file(dir, "has no config.json to make a model from", remedy));
        };
        let value = serde_json::to_value(inline).expect("TOML values are JSON values");
        let Value::Object(mut raw) = value else { unreachable!("a table is an object") };
        raw.entry("vocab_size").or_insert_with(|| vocab_size.into());
        Self::parse(with_layers(raw), Path::new("[model.config]"))
    }

    /// Refuses random weights that could not be drawn: those of embedding and attention alone would not fit this machine.
    ///
    /// # Errors
    /// They would not.
    pub(super) fn check_fits(&self) -> Result<()> {
        let dims = self.family.facts().dims;
        let attention = 2.0 * dims.hidden as f64 * ((dims.heads + dims.kv_heads) * dims.head_dim) as f64;
        let bytes = 4.0 * (dims.vocab as f64 * dims.hidden as f64 + dims.layers as f64 * attention);
        let system = rustix::system::sysinfo();
        let memory = system.totalram as f64 * f64::from(system.mem_unit);
        if bytes <= memory {
            return Ok(());
        }
        let message =
            format!("its weights take more than {:.0} GB, this machine has {:.0} GB", bytes / 1e9, memory / 1e9);
        Err(Error::file(&self.origin, message, "make the model smaller"))
    }
}

/// transformers wants these names in every config.json; they follow from the family.
fn with_layers(mut raw: Map<String, Value>) -> Map<String, Value> {
    let named = raw.get("model_type").and_then(Value::as_str);
    let Some(spec) = FAMILIES.iter().find(|spec| Some(spec.model_type) == named) else { return raw };
    raw.entry("architectures").or_insert_with(|| serde_json::json!([spec.causal]));
    raw
}
