//! Qwen2, Qwen2.5 and Qwen3: the decoder with biases (2) or head norms (3), and windows in the upper layers by option.
//! Owns their keys.
use super::decoder::{self, DecoderConfig, DecoderFamily, Defaults};
use super::family::{LM_HEAD, Spec};
use super::keys::Keys;
use crate::error::Result;

/// Qwen2's and Qwen2.5's names.
pub static SPEC_2: Spec = Spec {
    model_type: "qwen2",
    causal: "Qwen2ForCausalLM",
    classifier: "Qwen2ForSequenceClassification",
    prefix: decoder::PREFIX,
    embedding: decoder::EMBEDDING,
    head: LM_HEAD,
    known_extra: decoder::known_extra,
    read: |keys| {
        let mut config = read(keys, None)?;
        config.qkv_bias = true;
        Ok(Box::new(DecoderFamily { spec: &SPEC_2, config }))
    },
};

/// Qwen3's names.
pub static SPEC_3: Spec = Spec {
    model_type: "qwen3",
    causal: "Qwen3ForCausalLM",
    classifier: "Qwen3ForSequenceClassification",
    prefix: decoder::PREFIX,
    embedding: decoder::EMBEDDING,
    head: LM_HEAD,
    known_extra: decoder::known_extra,
    read: |keys| {
        let mut config = read(keys, Some(128))?;
        config.qkv_bias = keys.flag("attention_bias", false)?;
        config.out_bias = config.qkv_bias;
        config.qk_norm = true;
        Ok(Box::new(DecoderFamily { spec: &SPEC_3, config }))
    },
};

fn read(keys: &Keys, head_dim: Option<i64>) -> Result<DecoderConfig> {
    let defaults =
        Defaults { vocab_size: 151_936, intermediate_size: 22016, kv_heads: Some(32), head_dim, context: 32768 };
    let mut config = DecoderConfig::read(keys, defaults)?;
    // Published files name a window that is not in use.
    let used = keys.flag("use_sliding_window", false)? && !keys.is_null("sliding_window");
    let width = if used { Some(keys.size(&["sliding_window"], 4096)?) } else { None };
    config.windows = keys.windows(config.layers(), width, keys.count("max_window_layers", 28)?)?;
    Ok(config)
}
