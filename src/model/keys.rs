//! Typed access to the keys of a config.json, with messages that name them. Knows no family and no tensors.
use std::path::Path;

use serde_json::{Map, Value};

use super::mlp::Activation;
use crate::error::{Error, Result};

/// The keys of one configuration.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a> {
    raw: &'a Map<String, Value>,
    origin: &'a Path,
}

/// Keys of other models that change what is computed. transformers' code for the families here does not read them, so a
/// configuration that sets one describes something else.
const FOREIGN: [&str; 16] = [
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "attention_multiplier",
    "embedding_multiplier",
    "residual_multiplier",
    "logits_scaling",
    "logit_scale",
    "alibi",
    "use_alibi",
    "num_experts",
    "num_local_experts",
    "no_rope_layers",
    "use_qk_norm",
    "qk_layernorm",
    "parallel_attn",
];

impl<'a> Keys<'a> {
    /// `origin` is the file that messages name.
    pub fn new(raw: &'a Map<String, Value>, origin: &'a Path) -> Self {
        Keys { raw, origin }
    }

    /// An error at `key`.
    ///
    /// # Errors
    /// Always.
    pub fn fail<T>(&self, key: &str, message: impl std::fmt::Display) -> Result<T> {
        Err(Error::file(self.origin, format!("{key}: {message}"), "correct it or use another model"))
    }

    /// The first of `names` that is there and not null: transformers has aliases.
    pub fn get(&self, names: &[&str]) -> Option<&'a Value> {
        names.iter().filter_map(|name| self.raw.get(*name)).find(|value| !value.is_null())
    }

    /// A size from 1.
    ///
    /// # Errors
    /// Another value.
    pub fn size(&self, names: &[&str], default: i64) -> Result<i64> {
        const LARGEST: i64 = 1 << 24;
        let Some(value) = self.get(names) else { return Ok(default) };
        match value.as_i64() {
            Some(size) if (1..=LARGEST).contains(&size) => Ok(size),
            _ => self.fail(names[0], format_args!("{value} is not a whole number from 1 to {LARGEST}")),
        }
    }

    /// A whole number from 0.
    ///
    /// # Errors
    /// Another value.
    pub fn count(&self, name: &str, default: i64) -> Result<i64> {
        let Some(value) = self.get(&[name]) else { return Ok(default) };
        match value.as_i64() {
            Some(count) if count >= 0 => Ok(count),
            _ => self.fail(name, format_args!("{value} is not a whole number from 0")),
        }
    }

    /// Whether the key is there and null.
    pub fn is_null(&self, name: &str) -> bool {
        self.raw.get(name).is_some_and(Value::is_null)
    }

    /// A finite number from 0.
    ///
    /// # Errors
    /// Another value.
    pub fn number(&self, names: &[&str], default: f64) -> Result<f64> {
        let Some(value) = self.get(names) else { return Ok(default) };
        match value.as_f64() {
            Some(number) if number.is_finite() && number >= 0.0 => Ok(number),
            _ => self.fail(names[0], format_args!("{value} is not a number from 0")),
        }
    }

    /// True or false.
    ///
    /// # Errors
    /// Another value.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(&[name]) else { return Ok(default) };
        value.as_bool().map_or_else(|| self.fail(name, format_args!("{value} is neither true nor false")), Ok)
    }

    /// Refuses a flag that is not as `wanted`.
    ///
    /// # Errors
    /// It is not.
    pub fn must_be(&self, name: &str, wanted: bool) -> Result<()> {
        if self.flag(name, wanted)? == wanted {
            Ok(())
        } else {
            self.fail(name, format_args!("{} is not supported", !wanted))
        }
    }

    /// An activation by transformers' name of it.
    ///
    /// # Errors
    /// A name that is not supported.
    pub fn activation(&self, name: &str, default: Activation) -> Result<Activation> {
        let Some(value) = self.get(&[name]) else { return Ok(default) };
        let known = value.as_str().and_then(Activation::named);
        known.map_or_else(|| self.fail(name, format_args!("{value} is not supported ({})", Activation::NAMES)), Ok)
    }

    /// Query heads, key/value heads and the width of a head: `hidden / heads` unless `head_dim` is given.
    ///
    /// # Errors
    /// Heads that are no multiple of the key/value heads.
    pub fn heads(&self, hidden: i64, defaults: (i64, Option<i64>), head_dim: Option<i64>) -> Result<(i64, i64, i64)> {
        let heads = self.size(&["num_attention_heads"], defaults.0)?;
        // An explicit null means as many as query heads, an absent key the family's default.
        let default = defaults.1.filter(|_| !self.is_null("num_key_value_heads")).unwrap_or(heads);
        let kv_heads = self.size(&["num_key_value_heads"], default)?;
        if heads % kv_heads != 0 {
            let message = format_args!("{heads} query heads are not a multiple of {kv_heads}");
            return self.fail("num_key_value_heads", message);
        }
        Ok((heads, kv_heads, self.size(&["head_dim"], head_dim.unwrap_or((hidden / heads).max(1)))?))
    }

    /// The width of a head where all of `hidden` is split.
    ///
    /// # Errors
    /// It does not divide.
    pub fn even_heads(&self, name: &str, hidden: i64, heads: i64) -> Result<i64> {
        if hidden % heads == 0 {
            return Ok(hidden / heads);
        }
        self.fail(name, format_args!("the hidden size {hidden} is not a multiple of {heads}"))
    }

    /// For each layer how many tokens it attends to, itself included (none: all before it). `sliding`: the window's
    /// width and the first layer that has it, where `layer_types` does not say.
    ///
    /// # Errors
    /// `layer_types` of another length or with a kind of attention that is not supported.
    pub fn windows(&self, layers: i64, width: Option<i64>, first: i64) -> Result<Vec<Option<i64>>> {
        let Some(types) = self.get(&["layer_types"]) else {
            return Ok((0..layers).map(|layer| width.filter(|_| layer >= first)).collect());
        };
        let list = types.as_array().filter(|list| list.len() as i64 == layers);
        let Some(list) = list else {
            return self.fail("layer_types", format_args!("must name a kind for each of the {layers} layers"));
        };
        let kind = |value: &Value| match (value.as_str(), width) {
            (Some("full_attention"), _) => Ok(None),
            (Some("sliding_attention"), Some(width)) => Ok(Some(width)),
            (Some("sliding_attention"), None) => self.fail("layer_types", "sliding_attention without a sliding_window"),
            _ => self.fail("layer_types", format_args!("{value} is not supported")),
        };
        list.iter().map(kind).collect()
    }

    /// Refuses what no family here computes: quantised weights and keys of other models.
    ///
    /// # Errors
    /// Naming the key.
    pub fn refuse_foreign(&self) -> Result<()> {
        if self.get(&["quantization_config"]).is_some() {
            return self.fail("quantization_config", "quantised weights are not supported");
        }
        let neutral = |name: &str, value: &Value| match name {
            "embedding_multiplier" | "residual_multiplier" | "logits_scaling" | "logit_scale" => {
                value.as_f64() == Some(1.0)
            }
            "num_experts" | "num_local_experts" => value.as_i64() == Some(0),
            _ => value == &Value::Bool(false),
        };
        match FOREIGN.into_iter().find(|name| self.get(&[name]).is_some_and(|value| !neutral(name, value))) {
            None => Ok(()),
            Some(name) => self.fail(name, format_args!("{} is not supported", self.raw[name])),
        }
    }
}
