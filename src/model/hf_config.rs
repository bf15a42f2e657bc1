//! `config.json` in Hugging Face's field names. Owns reading and refusing; knows no tensors.
//!
//! A key that changes the computation and is not supported is refused by name; keys that do not change it are kept as
//! they are and written back by `save_pretrained`.
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A model's configuration: as read, and as understood.
#[derive(Debug, Clone)]
pub struct HfConfig {
    /// All keys as they were read.
    pub raw: Map<String, Value>,
    /// The family's own keys, typed.
    pub family: Family,
    /// The file it came from, for messages.
    pub origin: PathBuf,
}

/// The families that are supported.
#[derive(Debug, Clone, PartialEq)]
pub enum Family {
    /// GPT-2 (`GPT2LMHeadModel`).
    Gpt2(Gpt2Config),
    /// Llama and what shares its architecture name (`LlamaForCausalLM`).
    Llama(LlamaConfig),
}

/// The activation of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// GELU in the tanh approximation (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// Exact GELU.
    Gelu,
    /// SiLU, also called swish.
    Silu,
    /// ReLU.
    Relu,
}

/// GPT-2's keys.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "transformers' own names")]
pub struct Gpt2Config {
    pub vocab_size: i64,
    pub n_positions: i64,
    pub n_embd: i64,
    pub n_layer: i64,
    pub n_head: i64,
    pub n_inner: i64,
    pub activation_function: Activation,
    pub layer_norm_epsilon: f64,
    pub initializer_range: f64,
    pub tie_word_embeddings: bool,
}

/// Llama's keys.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "transformers' own names")]
pub struct LlamaConfig {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub num_key_value_heads: i64,
    pub head_dim: i64,
    pub hidden_act: Activation,
    pub max_position_embeddings: i64,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub initializer_range: f64,
    pub tie_word_embeddings: bool,
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
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let raw = serde_json::from_str(&text);
        let raw = raw.map_err(|e| Error::file(&path, format!("not a JSON object: {e}"), "correct it"))?;
        Self::parse(raw, &path)
    }

    /// Understands a configuration that `origin` holds.
    ///
    /// # Errors
    /// [`Error::File`] naming `origin` and the key.
    pub fn parse(raw: Map<String, Value>, origin: &Path) -> Result<Self> {
        let keys = Keys { raw: &raw, origin };
        let family = match keys.model_type()? {
            "gpt2" => Family::Gpt2(keys.gpt2()?),
            "llama" => Family::Llama(keys.llama()?),
            other => {
                let message = format!("model_type {other:?} is not supported");
                return Err(Error::file(origin, message, "use a model of type gpt2 or llama"));
            }
        };
        if raw.contains_key("auto_map") {
            tracing::warn!("{}: auto_map ignored: no code of a model directory is run", origin.display());
        }
        if raw.get("quantization_config").is_some_and(|value| !value.is_null()) {
            return keys.fail("quantization_config", "quantised weights are not supported");
        }
        Ok(HfConfig { raw, family, origin: origin.to_path_buf() })
    }

    /// The family's `model_type`.
    pub fn model_type(&self) -> &'static str {
        match self.family {
            Family::Gpt2(_) => "gpt2",
            Family::Llama(_) => "llama",
        }
    }

    /// Whether the head shares the token embedding.
    pub fn tied(&self) -> bool {
        match &self.family {
            Family::Gpt2(config) => config.tie_word_embeddings,
            Family::Llama(config) => config.tie_word_embeddings,
        }
    }

    /// Whether it describes a reward model rather than a language model.
    pub fn is_reward(&self) -> bool {
        let names = self.raw.get("architectures").and_then(Value::as_array);
        let named = |value: &Value| value.as_str().is_some_and(|name| name.ends_with("ForSequenceClassification"));
        names.is_some_and(|names| names.iter().any(named)) || self.raw.get("model_type") == Some(&TOKEN_REWARD.into())
    }
}

/// Typed access to the keys, with messages that name them.
struct Keys<'a> {
    raw: &'a Map<String, Value>,
    origin: &'a Path,
}

impl<'a> Keys<'a> {
    fn fail<T>(&self, key: &str, message: impl std::fmt::Display) -> Result<T> {
        Err(Error::file(self.origin, format!("{key}: {message}"), "correct it or use another model"))
    }

    /// The first of `names` that is there and not null: transformers has aliases.
    fn get(&self, names: &[&str]) -> Option<&'a Value> {
        names.iter().filter_map(|name| self.raw.get(*name)).find(|value| !value.is_null())
    }

    fn size(&self, names: &[&str], default: i64) -> Result<i64> {
        const LARGEST: i64 = 1 << 24;
        let Some(value) = self.get(names) else { return Ok(default) };
        match value.as_i64() {
            Some(size) if (1..=LARGEST).contains(&size) => Ok(size),
            _ => self.fail(names[0], format_args!("{value} is not a whole number from 1 to {LARGEST}")),
        }
    }

    fn number(&self, name: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(&[name]) else { return Ok(default) };
        match value.as_f64() {
            Some(number) if number.is_finite() && number >= 0.0 => Ok(number),
            _ => self.fail(name, format_args!("{value} is not a number from 0")),
        }
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(&[name]) else { return Ok(default) };
        value.as_bool().map_or_else(|| self.fail(name, format_args!("{value} is neither true nor false")), Ok)
    }

    fn must_be(&self, name: &str, wanted: bool) -> Result<()> {
        if self.flag(name, wanted)? == wanted {
            Ok(())
        } else {
            self.fail(name, format_args!("{} is not supported", !wanted))
        }
    }

    fn activation(&self, name: &str, default: Activation) -> Result<Activation> {
        let Some(value) = self.get(&[name]) else { return Ok(default) };
        match value.as_str() {
            Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some("gelu") => Ok(Activation::Gelu),
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("relu") => Ok(Activation::Relu),
            _ => self.fail(name, format_args!("{value} is not supported (gelu_new, gelu, silu and relu are)")),
        }
    }

    fn model_type(&self) -> Result<&'a str> {
        let named = self.get(&["model_type"]).and_then(Value::as_str);
        if named == Some(TOKEN_REWARD) {
            let backbone = self.get(&["collimate"]).and_then(|value| value.get("backbone")).and_then(Value::as_str);
            return backbone.map_or_else(|| self.fail("collimate.backbone", "missing"), Ok);
        }
        let first = self.get(&["architectures"]).and_then(|value| value.get(0)).and_then(Value::as_str);
        match (named, first) {
            (Some(named), _) => Ok(named),
            (None, Some(name)) if name.starts_with("GPT2") => Ok("gpt2"),
            (None, Some(name)) if name.starts_with("Llama") => Ok("llama"),
            _ => self.fail("model_type", "missing"),
        }
    }

    fn gpt2(&self) -> Result<Gpt2Config> {
        self.must_be("scale_attn_weights", true)?;
        self.must_be("scale_attn_by_inverse_layer_idx", false)?;
        self.must_be("reorder_and_upcast_attn", false)?;
        self.must_be("add_cross_attention", false)?;
        let n_embd = self.size(&["n_embd", "hidden_size"], 768)?;
        let n_head = self.size(&["n_head", "num_attention_heads"], 12)?;
        if n_embd % n_head != 0 {
            return self.fail("n_head", format_args!("n_embd = {n_embd} is not a multiple of {n_head}"));
        }
        Ok(Gpt2Config {
            vocab_size: self.size(&["vocab_size"], 50257)?,
            n_positions: self.size(&["n_positions", "max_position_embeddings"], 1024)?,
            n_embd,
            n_layer: self.size(&["n_layer", "num_hidden_layers"], 12)?,
            n_head,
            n_inner: self.size(&["n_inner"], 4 * n_embd)?,
            activation_function: self.activation("activation_function", Activation::GeluTanh)?,
            layer_norm_epsilon: self.number("layer_norm_epsilon", 1e-5)?,
            initializer_range: self.number("initializer_range", 0.02)?,
            tie_word_embeddings: self.flag("tie_word_embeddings", true)?,
        })
    }

    fn llama(&self) -> Result<LlamaConfig> {
        let hidden_size = self.size(&["hidden_size"], 4096)?;
        let heads = self.size(&["num_attention_heads"], 32)?;
        let kv_heads = self.size(&["num_key_value_heads"], heads)?;
        if heads % kv_heads != 0 {
            return self
                .fail("num_key_value_heads", format_args!("{heads} query heads are not a multiple of {kv_heads}"));
        }
        let head_dim = self.size(&["head_dim"], (hidden_size / heads).max(1))?;
        if head_dim % 2 != 0 {
            return self.fail("head_dim", format_args!("{head_dim} is odd, rotary embedding needs pairs"));
        }
        Ok(LlamaConfig {
            vocab_size: self.size(&["vocab_size"], 32000)?,
            hidden_size,
            intermediate_size: self.size(&["intermediate_size"], 11008)?,
            num_hidden_layers: self.size(&["num_hidden_layers"], 32)?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            hidden_act: self.activation("hidden_act", Activation::Silu)?,
            max_position_embeddings: self.size(&["max_position_embeddings"], 2048)?,
            rms_norm_eps: self.number("rms_norm_eps", 1e-6)?,
            rope_theta: self.rope_theta()?,
            attention_bias: self.flag("attention_bias", false)?,
            mlp_bias: self.flag("mlp_bias", false)?,
            initializer_range: self.number("initializer_range", 0.02)?,
            tie_word_embeddings: self.flag("tie_word_embeddings", false)?,
        })
    }

    /// `rope_theta`, or since transformers 5 `rope_parameters.rope_theta`; scaled variants are refused.
    fn rope_theta(&self) -> Result<f64> {
        for key in ["rope_scaling", "rope_parameters"] {
            let Some(value) = self.get(&[key]) else { continue };
            let kind = value.get("rope_type").or_else(|| value.get("type")).and_then(Value::as_str);
            if kind.unwrap_or("default") != "default" {
                return self.fail(key, format_args!("{value} is not supported, only plain rotary embedding is"));
            }
        }
        let partial = |value: &Value| value.get("partial_rotary_factor").and_then(Value::as_f64).unwrap_or(1.0) != 1.0;
        if self.number("partial_rotary_factor", 1.0)? != 1.0 || self.get(&["rope_parameters"]).is_some_and(partial) {
            return self.fail("partial_rotary_factor", "only 1.0 is supported");
        }
        let nested = self.get(&["rope_parameters"]).and_then(|value| value.get("rope_theta"));
        match nested.map(|value| (value, value.as_f64())) {
            None => self.number("rope_theta", 10_000.0),
            Some((_, Some(theta))) if theta > 0.0 => Ok(theta),
            Some((value, _)) => {
                self.fail("rope_parameters.rope_theta", format_args!("{value} is not a positive number"))
            }
        }
    }
}
