//! Tiny random models of all families for the tests of models and rollouts.
#![allow(clippy::unwrap_used)]
use std::path::Path;
use std::sync::LazyLock;

use collimate::model::{CausalLm, HfConfig, LoadOptions, ModelInput};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::support::device;

pub static TRAINABLE: LazyLock<LoadOptions> = LazyLock::new(|| options(true));
pub static FROZEN: LazyLock<LoadOptions> = LazyLock::new(|| options(false));
pub const VOCAB: i64 = 41;

fn options(trainable: bool) -> LoadOptions {
    LoadOptions { device: device(), compute: Kind::Float, trainable, mapped: !trainable, checkpointing: false }
}

/// Shapes with nothing accidentally equal: 3 heads of 8, an inner width that is not 4 D.
pub fn gpt2() -> Value {
    json!({"model_type": "gpt2", "vocab_size": VOCAB, "n_positions": 64, "n_embd": 24, "n_layer": 2, "n_head": 3,
           "n_inner": 52, "initializer_range": 0.2})
}

/// Grouped-query attention, head_dim that is not D / heads, untied.
pub fn llama() -> Value {
    json!({"model_type": "llama", "vocab_size": VOCAB, "hidden_size": 20, "intermediate_size": 36,
           "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
           "max_position_embeddings": 64, "rope_theta": 1000.0, "attention_bias": true, "initializer_range": 0.25,
           "tie_word_embeddings": false})
}

pub fn config(value: Value) -> HfConfig {
    let Value::Object(map) = value else { panic!("an object") };
    HfConfig::parse(map, Path::new("config.json")).unwrap()
}

pub fn model(value: Value, options: &LoadOptions) -> CausalLm {
    CausalLm::from_config(config(value), 7, options).unwrap()
}

/// The other families: every option that the two above lack somewhere. Windows are narrower than the tests' rows.
pub fn kin(family: &str) -> Value {
    let mut decoder = llama();
    decoder.as_object_mut().unwrap().remove("attention_bias");
    decoder["model_type"] = json!(family);
    match family {
        "gpt2-scaled" => {
            let mut scaled = gpt2();
            scaled["scale_attn_weights"] = json!(false);
            scaled["scale_attn_by_inverse_layer_idx"] = json!(true);
            return scaled;
        }
        "gpt_neox" | "gpt_neox-serial" => {
            return json!({"model_type": "gpt_neox", "vocab_size": VOCAB, "hidden_size": 24, "num_hidden_layers": 2,
                          "num_attention_heads": 3, "intermediate_size": 50, "max_position_embeddings": 64,
                          "rotary_pct": 0.5, "use_parallel_residual": family == "gpt_neox", "initializer_range": 0.2});
        }
        "opt" | "opt-post" => {
            let post = family == "opt-post";
            return json!({"model_type": "opt", "vocab_size": VOCAB, "hidden_size": 24, "num_hidden_layers": 2,
                          "num_attention_heads": 3, "ffn_dim": 50, "max_position_embeddings": 64, "init_std": 0.2,
                          "do_layer_norm_before": !post, "word_embed_proj_dim": if post { 14 } else { 24 }});
        }
        "mistral" => decoder["sliding_window"] = json!(5),
        "qwen2" => {}
        "qwen3" => {
            decoder["use_sliding_window"] = json!(true);
            decoder["sliding_window"] = json!(4);
            decoder["max_window_layers"] = json!(1);
            decoder["tie_word_embeddings"] = json!(true);
        }
        "llama-linear" => {
            decoder["model_type"] = json!("llama");
            decoder["rope_scaling"] = json!({"type": "linear", "factor": 4.0});
        }
        "llama3" => {
            decoder["model_type"] = json!("llama");
            decoder["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                             "high_freq_factor": 4.0, "original_max_position_embeddings": 16});
        }
        other => panic!("{other}"),
    }
    decoder
}

/// All families, some with several options.
pub fn families() -> Vec<CausalLm> {
    let others = [
        "gpt2-scaled",
        "gpt_neox",
        "gpt_neox-serial",
        "opt",
        "opt-post",
        "mistral",
        "qwen2",
        "qwen3",
        "llama-linear",
        "llama3",
    ];
    [gpt2(), llama()].into_iter().chain(others.map(kin)).map(|config| model(config, &TRAINABLE)).collect()
}

/// Ids that look random and are the same every time.
pub fn ids(length: usize, salt: i64) -> Vec<i64> {
    (0..length as i64).map(|i| (i * i * 7 + i * 13 + salt * 29 + 3) % VOCAB).collect()
}

/// Logits of all tokens.
pub fn logits(model: &CausalLm, input: &ModelInput) -> Tensor {
    model.logits(&model.hidden_states(input, None).unwrap()).unwrap()
}

/// Largest absolute difference.
pub fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    f64::try_from((a.detach() - b.detach()).abs().max()).unwrap()
}

/// Gradients of a weighted sum of `logits`, by parameter, after clearing older ones.
pub fn gradients(model: &CausalLm, loss: &Tensor) -> Vec<(String, Tensor)> {
    for (_, tensor) in model.params().iter() {
        let _ = tensor.grad().defined().then(|| tensor.grad().zero_());
    }
    loss.backward();
    model.params().iter().map(|(name, tensor)| (name.to_owned(), tensor.grad().copy())).collect()
}

/// Asserts that two sets of gradients agree to `tolerance` of each tensor's norm.
pub fn assert_gradients(a: &[(String, Tensor)], b: &[(String, Tensor)], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for ((name, a), (_, b)) in a.iter().zip(b) {
        let norm = f64::try_from(b.norm()).unwrap();
        if name.starts_with("model.decoder.") && name.ends_with("k_proj.bias") {
            // OPT's keys do not turn: a softmax over them does not see what is added to all, so this is rounding.
            assert!(norm < 1e-4, "{name}: {norm}");
            continue;
        }
        assert!(norm > 0.0, "{name} has no gradient");
        let off = f64::try_from((a - b).norm()).unwrap();
        assert!(off <= tolerance * norm + 1e-6, "{name}: off by {off} of {norm}");
    }
}
