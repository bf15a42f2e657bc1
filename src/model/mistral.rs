//! Mistral (Jiang et al. 2023): the decoder with a sliding window, in every layer unless `layer_types` says
//! otherwise (transformers then calls it Ministral). Owns its keys.
use super::decoder::{self, DecoderConfig, DecoderFamily, Defaults};
use super::family::{LM_HEAD, Spec};

/// The family's names.
pub static SPEC: Spec = Spec {
    model_type: "mistral",
    causal: "MistralForCausalLM",
    classifier: "MistralForSequenceClassification",
    prefix: decoder::PREFIX,
    embedding: decoder::EMBEDDING,
    head: LM_HEAD,
    known_extra: decoder::known_extra,
    read: |keys| {
        let defaults = Defaults {
            vocab_size: 32000,
            intermediate_size: 14336,
            kv_heads: Some(8),
            head_dim: None,
            context: 4096 * 32,
        };
        let mut config = DecoderConfig::read(keys, defaults)?;
        // A file without the key has the default; an explicit null means no window.
        let width = if keys.is_null("sliding_window") { None } else { Some(keys.size(&["sliding_window"], 4096)?) };
        config.windows = keys.windows(config.layers(), width, 0)?;
        Ok(Box::new(DecoderFamily { spec: &SPEC, config }))
    },
};
