//! Model directories: what is saved is read back, and what does not fit is refused by name.
#![allow(clippy::unwrap_used)]
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use collimate::Error;
use collimate::model::{CausalLm, HfConfig, LoadOptions, ModelInput, Pooling, RewardModel, SaveOptions};
use collimate::tensors;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::support::device;
use crate::tiny::{FROZEN, TRAINABLE, config, difference, families, gpt2, ids, kin, llama, logits, model};

const IDS: SaveOptions = SaveOptions { bos: Some(1), eos: Some(2), pad: Some(2), max_shard_bytes: u64::MAX };

fn input() -> ModelInput {
    ModelInput::from_sequences(&[ids(5, 1), ids(9, 2)], device()).unwrap()
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A saved tiny GPT-2, its tensors and its directory.
fn saved() -> (tempfile::TempDir, Vec<(String, Tensor)>) {
    let dir = tempfile::tempdir().unwrap();
    let model = model(gpt2(), &TRAINABLE);
    model.save_pretrained(dir.path(), Kind::Float, &IDS).unwrap();
    let tensors = model.params().iter().map(|(name, tensor)| (name.to_owned(), tensor.detach().copy())).collect();
    (dir, tensors)
}

fn rewrite(dir: &Path, tensors: &[(String, Tensor)]) {
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    tensors::write(&dir.join("model.safetensors"), named, Some(Kind::Float), tensors::pt_metadata()).unwrap();
}

/// The message of a refused load; it must be a user's mistake.
fn refusal(dir: &Path) -> String {
    let error = CausalLm::from_pretrained(dir, &FROZEN).err().expect("refused");
    assert_eq!(error.exit_code(), 2, "{error}");
    assert!(!error.to_string().contains('\n'));
    error.to_string()
}

#[test]
fn a_saved_model_is_read_back() {
    for model in families() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let dir = tempfile::tempdir().unwrap();
            model.save_pretrained(dir.path(), kind, &IDS).unwrap();
            let again = CausalLm::from_pretrained(dir.path(), &FROZEN).unwrap();
            let off = difference(&logits(&model, &input()), &logits(&again, &input()));
            assert!(if kind == Kind::Float { off == 0.0 } else { off > 0.0 && off < 0.2 }, "{kind:?}: {off}");
            let config = json_of(&dir.path().join("config.json"));
            assert_eq!(config["torch_dtype"], if kind == Kind::Float { "float32" } else { "bfloat16" });
            assert_eq!(config["eos_token_id"], 2);
            assert_eq!(json_of(&dir.path().join("generation_config.json"))["bos_token_id"], 1);
        }
    }
}

#[test]
fn tied_embeddings_are_saved_once() {
    let (dir, tensors) = saved();
    assert!(tensors.iter().all(|(name, _)| name != "lm_head.weight"));
    assert_eq!(tensors.len(), 2 + 2 * 12 + 2);
    let mut both = tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect::<Vec<_>>();
    both.push(("lm_head.weight".into(), tensors[0].1.copy()));
    rewrite(dir.path(), &both);
    CausalLm::from_pretrained(dir.path(), &FROZEN).expect("the same values twice are no contradiction");
    both.last_mut().unwrap().1 = &tensors[0].1 + 1.0;
    rewrite(dir.path(), &both);
    let message = refusal(dir.path());
    assert!(message.contains("lm_head.weight") && message.contains("tie_word_embeddings"), "{message}");
}

#[test]
fn names_without_prefix_and_known_extras_load() {
    let (dir, tensors) = saved();
    let before = logits(&CausalLm::from_pretrained(dir.path(), &FROZEN).unwrap(), &input());
    let bare = |name: &str| name.strip_prefix("transformer.").unwrap().to_owned();
    let mut renamed: Vec<(String, Tensor)> = tensors.iter().map(|(n, t)| (bare(n), t.shallow_clone())).collect();
    renamed.push(("h.0.attn.bias".into(), Tensor::ones([1, 1, 64, 64], (Kind::Float, Device::Cpu)).tril(0)));
    renamed.push(("h.1.attn.masked_bias".into(), Tensor::from(-1e4_f32)));
    rewrite(dir.path(), &renamed);
    let after = logits(&CausalLm::from_pretrained(dir.path(), &FROZEN).unwrap(), &input());
    assert_eq!(difference(&before, &after), 0.0);
}

#[test]
fn shards_load_and_stay_within_the_directory() {
    let (dir, tensors) = saved();
    let before = logits(&CausalLm::from_pretrained(dir.path(), &FROZEN).unwrap(), &input());
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let mut places = HashMap::new();
    for (n, half) in tensors.chunks(tensors.len() / 2 + 1).enumerate() {
        let file = format!("model-{n}.safetensors");
        let named = half.iter().map(|(name, tensor)| (name.as_str(), tensor));
        tensors::write(&dir.path().join(&file), named, Some(Kind::Float), tensors::pt_metadata()).unwrap();
        places.extend(half.iter().map(|(name, _)| (name.clone(), file.clone())));
    }
    let index = dir.path().join("model.safetensors.index.json");
    let write =
        |places: &HashMap<String, String>| fs::write(&index, json!({"weight_map": places}).to_string()).unwrap();
    write(&places);
    let after = logits(&CausalLm::from_pretrained(dir.path(), &FROZEN).unwrap(), &input());
    assert_eq!(difference(&before, &after), 0.0);
    let mut lost = places.clone();
    lost.insert("transformer.h.9.ln_1.weight".into(), "model-0.safetensors".into());
    write(&lost);
    assert!(refusal(dir.path()).contains("transformer.h.9.ln_1.weight"));
    for outside in ["../model-0.safetensors", "/etc/passwd", "a/b", ""] {
        places.insert("transformer.wte.weight".into(), outside.into());
        write(&places);
        assert!(refusal(dir.path()).contains("not a plain file name"));
    }
}

type Change<'a> = &'a dyn Fn(&mut Vec<(String, Tensor)>);

#[test]
fn tensors_that_do_not_fit_are_named() {
    let (dir, tensors) = saved();
    let changed = |change: Change| {
        let mut list = tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        change(&mut list);
        rewrite(dir.path(), &list);
        refusal(dir.path())
    };
    let name = "transformer.h.1.mlp.c_fc.weight";
    let at = tensors.iter().position(|(n, _)| n == name).unwrap();
    let message = changed(&|list| drop(list.remove(at)));
    assert!(message.contains(name) && message.contains("missing"), "{message}");
    let message = changed(&|list| list[at].1 = list[at].1.transpose(0, 1).contiguous());
    assert!(message.contains(name) && message.contains("[52, 24]") && message.contains("[24, 52]"), "{message}");
    let message = changed(&|list| list.push(("transformer.h.2.ln_1.weight".into(), Tensor::from(1.0_f32))));
    assert!(message.contains("transformer.h.2.ln_1.weight") && message.contains("no such tensor"), "{message}");
    let message = changed(&|list| list[at].1 = list[at].1.shallow_clone() / 0.0);
    assert!(message.contains(name) && message.contains("not finite"), "{message}");
    let message = changed(&|list| list.push(("score.weight".into(), Tensor::from(1.0_f32))));
    assert!(message.contains("score.weight"), "{message}");
}

#[test]
fn damaged_files_are_named() {
    let (dir, _) = saved();
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let with_header = |text: &str, data: &[u8]| [&(text.len() as u64).to_le_bytes(), text.as_bytes(), data].concat();
    let text = String::from_utf8(whole[8..header].to_vec()).unwrap();
    let first = text.find("\"transformer").unwrap();
    let entry = &text[first..text[first..].find('}').unwrap() + first + 1];
    let cases = [
        ("empty", Vec::new()),
        ("cut in the length", whole[..5].to_vec()),
        ("cut in the header", whole[..header / 2].to_vec()),
        ("cut in the data", whole[..whole.len() - 1].to_vec()),
        ("longer than it says", [whole.as_slice(), &[0]].concat()),
        ("a huge header", [&u64::MAX.to_le_bytes(), &whole[8..]].concat()),
        ("a header beyond the file", [&(1_u64 << 26).to_le_bytes(), &whole[8..]].concat()),
        ("no JSON", with_header(&text.replace('{', "["), &whole[header..])),
        ("a tensor twice", with_header(&text.replacen(entry, &format!("{entry},{entry}"), 1), &whole[header..])),
        ("an unknown type", with_header(&text.replacen("F32", "X32", 1), &whole[header..])),
        ("another type", with_header(&text.replacen("F32", "F16", 1), &whole[header..])),
        ("a hole", with_header(&text.replacen("[0,", "[4,", 1), &whole[header..])),
        ("integers", with_header(&text.replacen("F32", "I32", 1), &whole[header..])),
    ];
    for (what, bytes) in cases {
        fs::write(&path, bytes).unwrap();
        let message = refusal(dir.path());
        assert!(message.contains("model.safetensors") || message.contains("transformer."), "{what}: {message}");
    }
}

#[test]
fn pickles_and_empty_directories_are_refused_with_the_remedy() {
    let (dir, _) = saved();
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert!(refusal(dir.path()).contains("no model.safetensors"));
    fs::write(dir.path().join("pytorch_model.bin"), b"").unwrap();
    let message = refusal(dir.path());
    assert!(message.contains("pytorch_model.bin") && message.contains("save_pretrained"), "{message}");
    assert!(refusal(&dir.path().join("nowhere")).contains("no such directory"));
    fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(refusal(dir.path()).contains("config.json"));
}

#[test]
fn configurations_that_compute_something_else_are_refused_by_key() {
    let refused = |mut base: Value, key: &str, value: Value| {
        base[key] = value;
        let Value::Object(map) = base else { panic!("an object") };
        let error = HfConfig::parse(map, Path::new("config.json")).err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| panic!("{key} accepted"));
        assert!(error.contains(key), "{key}: {error}");
    };
    refused(gpt2(), "model_type", json!("mamba"));
    refused(gpt2(), "add_cross_attention", json!(true));
    refused(gpt2(), "attn_logit_softcapping", json!(30.0));
    refused(gpt2(), "activation_function", json!("mish"));
    refused(gpt2(), "n_head", json!(5));
    refused(gpt2(), "n_layer", json!("two"));
    refused(gpt2(), "n_layer", json!(0));
    refused(gpt2(), "quantization_config", json!({"bits": 4}));
    refused(llama(), "rope_scaling", json!({"rope_type": "llama3", "factor": 8.0}));
    refused(llama(), "rope_scaling", json!({"rope_type": "linear"}));
    refused(llama(), "rope_scaling", json!({"type": "longrope", "factor": 2.0}));
    refused(llama(), "rope_scaling", json!({"type": "dynamic", "factor": -2.0}));
    refused(llama(), "partial_rotary_factor", json!(0.5));
    refused(llama(), "residual_multiplier", json!(0.2));
    refused(kin("mistral"), "sliding_window", json!("wide"));
    refused(kin("mistral"), "layer_types", json!(["full_attention", "chunked_attention"]));
    refused(kin("qwen2"), "layer_types", json!(["full_attention"]));
    refused(kin("qwen2"), "layer_types", json!(["full_attention", "sliding_attention"]));
    refused(kin("qwen3"), "layer_types", json!(["full_attention", "linear_attention"]));
    refused(kin("gpt_neox"), "rotary_pct", json!(1.5));
    refused(kin("gpt_neox"), "head_dim", json!(2));
    refused(kin("opt"), "num_attention_heads", json!(5));
    refused(kin("opt"), "activation_function", json!("quick_gelu"));
    refused(llama(), "rope_parameters", json!({"rope_type": "yarn", "rope_theta": 1e4}));
    refused(llama(), "num_key_value_heads", json!(3));
    refused(llama(), "head_dim", json!(7));
    refused(llama(), "tie_word_embeddings", json!("no"));
}

#[test]
fn rope_theta_is_read_in_both_forms() {
    let mut new = llama();
    new.as_object_mut().unwrap().remove("rope_theta");
    new["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 1000.0});
    assert_eq!(format!("{:?}", config(new).family), format!("{:?}", config(llama()).family));
}

#[test]
fn reward_models_are_read_back_with_their_rules() {
    let dir = tempfile::tempdir().unwrap();
    for (pooling, architecture) in
        [(Pooling::Last, "GPT2ForSequenceClassification"), (Pooling::Sum, "CollimateTokenRewardModel")]
    {
        let (causal, _) = saved();
        let reward = RewardModel::from_causal(causal.path(), 5, pooling, false, &TRAINABLE).unwrap();
        reward.save_pretrained(dir.path(), Kind::Float, &IDS).unwrap();
        let again = RewardModel::from_pretrained(dir.path(), &FROZEN).unwrap();
        let score = |model: &RewardModel| model.scores(&model.hidden_states(&input(), None).unwrap()).unwrap();
        assert_eq!(difference(&score(&reward), &score(&again)), 0.0);
        assert_eq!((again.pooling(), again.append_eos(), again.bias()), (pooling, false, 0.0));
        let config = json_of(&dir.path().join("config.json"));
        assert_eq!(config["architectures"], json!([architecture]));
        assert_eq!(config["pad_token_id"], Value::Null, "the pad is EOS, which must count");
        assert_eq!(config["model_type"] == "gpt2", pooling == Pooling::Last, "transformers must not misread sums");
        // Gain and bias: r -> 2 r + 0.5, twice.
        again.save_normalised(dir.path(), Kind::Float, &IDS, 2.0, 0.5).unwrap();
        let twice = RewardModel::from_pretrained(dir.path(), &FROZEN).unwrap();
        assert!(difference(&(score(&again) * 2.0), &score(&twice)) < 1e-5);
        twice.save_normalised(dir.path(), Kind::Float, &IDS, 2.0, 0.5).unwrap();
        assert_eq!(RewardModel::from_pretrained(dir.path(), &FROZEN).unwrap().bias(), 1.5);
        assert_eq!(difference(&score(&reward), &score(&again)), 0.0, "saving leaves the model as it is");
        assert!(refusal(dir.path()).contains("reward model"));
        assert!(RewardModel::from_causal(dir.path(), 5, pooling, false, &TRAINABLE).is_err());
        assert!(matches!(RewardModel::from_pretrained(causal.path(), &FROZEN), Err(Error::File { .. })));
    }
}

#[test]
fn large_weights_are_saved_in_shards_and_read_back() {
    for model in families() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = 4 * model.params().numel() as u64;
        let options = SaveOptions { max_shard_bytes: bytes / 3, ..IDS };
        model.save_pretrained(dir.path(), Kind::Float, &options).unwrap();
        assert!(!dir.path().join("model.safetensors").exists());
        let index = json_of(&dir.path().join("model.safetensors.index.json"));
        assert_eq!(index["metadata"]["total_size"], bytes);
        let places = index["weight_map"].as_object().unwrap();
        assert_eq!(places.len(), model.params().len());
        let files: std::collections::BTreeSet<&str> = places.values().map(|file| file.as_str().unwrap()).collect();
        assert!(files.len() >= 3, "{files:?}");
        for file in &files {
            assert!(file.ends_with(&format!("-of-{:05}.safetensors", files.len())), "{file}");
            let (tensors, _) = tensors::read(&dir.path().join(file), Device::Cpu).unwrap();
            let size: usize = tensors.values().map(|tensor| 4 * tensor.numel()).sum();
            assert!(size as u64 <= bytes / 3 || tensors.len() == 1, "{file} has {size} of {bytes} bytes");
        }
        let again = CausalLm::from_pretrained(dir.path(), &FROZEN).unwrap();
        assert_eq!(difference(&logits(&model, &input()), &logits(&again, &input())), 0.0);
    }
}

/// A frozen model reads its weights where the file is mapped; the file may be replaced and removed meanwhile.
#[test]
fn frozen_weights_are_mapped_and_outlive_their_file() {
    let (dir, tensors) = saved();
    let frozen = CausalLm::from_pretrained(dir.path(), &FROZEN).unwrap();
    let trainable = CausalLm::from_pretrained(dir.path(), &TRAINABLE).unwrap();
    let before = logits(&frozen, &input());
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    rewrite(dir.path(), &tensors.iter().map(|(name, tensor)| (name.clone(), tensor * 2.0)).collect::<Vec<_>>());
    assert_eq!(difference(&before, &logits(&frozen, &input())), 0.0);
    let shared = frozen.params().get("transformer.wte.weight").unwrap().shallow_clone();
    drop(frozen);
    assert_eq!(difference(&shared, &tensors[0].1), 0.0);
    tch::no_grad(|| {
        for (_, tensor) in trainable.params().iter() {
            let _ = tensor.shallow_clone().zero_();
        }
    });
    let _ = f64::try_from(shared.sum(Kind::Float)).unwrap();
}

#[test]
fn a_frozen_bfloat16_model_is_half_as_large() {
    let (dir, _) = saved();
    let options = LoadOptions { compute: Kind::BFloat16, ..*FROZEN };
    let model = CausalLm::from_pretrained(dir.path(), &options).unwrap();
    let kind = |name: &str| model.params().get(name).unwrap().kind();
    assert_eq!(kind("transformer.h.0.attn.c_attn.weight"), Kind::BFloat16);
    assert_eq!(kind("transformer.h.0.ln_1.weight"), Kind::Float);
    assert_eq!(logits(&model, &input()).kind(), Kind::Float);
}

/// What decides a row's numbers is in the fingerprint; a directory with a tokenizer alone has one, too.
#[test]
fn fingerprints_cover_what_decides_a_models_numbers() {
    use collimate::model::fingerprint::fingerprint;
    let tokenizer_only = tempfile::tempdir().unwrap();
    fs::write(tokenizer_only.path().join("tokenizer.json"), "{}").unwrap();
    let before = fingerprint(tokenizer_only.path()).unwrap();
    fs::write(tokenizer_only.path().join("chat_template.jinja"), "{{ messages }}").unwrap();
    assert_ne!(before, fingerprint(tokenizer_only.path()).unwrap());
    let (dir, tensors) = saved();
    let whole = fingerprint(dir.path()).unwrap();
    fs::write(dir.path().join("README.md"), "not a part of it").unwrap();
    assert_eq!(whole, fingerprint(dir.path()).unwrap());
    rewrite(dir.path(), &tensors.iter().map(|(name, tensor)| (name.clone(), tensor * 2.0)).collect::<Vec<_>>());
    assert_ne!(whole, fingerprint(dir.path()).unwrap());
}
