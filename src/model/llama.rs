//! Llama 1 to 3 and what shares its architecture name (SmolLM2): the decoder with optional biases. Owns its keys.
use super::decoder::{self, DecoderConfig, DecoderFamily, Defaults};
use super::family::{LM_HEAD, Spec};

/// The family's names.
pub static SPEC: Spec = Spec {
    model_type: "llama",
    causal: "LlamaForCausalLM",
    classifier: "LlamaForSequenceClassification",
    prefix: decoder::PREFIX,
    embedding: decoder::EMBEDDING,
    head: LM_HEAD,
    known_extra: decoder::known_extra,
    read: |keys| {
        let defaults =
            Defaults { vocab_size: 32000, intermediate_size: 11008, kv_heads: None, head_dim: None, context: 2048 };
        let mut config = DecoderConfig::read(keys, defaults)?;
        config.qkv_bias = keys.flag("attention_bias", false)?;
        config.out_bias = config.qkv_bias;
        config.mlp_bias = keys.flag("mlp_bias", false)?;
        Ok(Box::new(DecoderFamily { spec: &SPEC, config }))
    },
};
