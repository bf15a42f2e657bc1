//! Writing a model directory that transformers reads back. Owns config.json and generation_config.json as written.
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use super::hf_config::TOKEN_REWARD;
use super::reward::{Pooling, RewardHead};
use super::{Model, weights};
use crate::error::{Error, Result};
use crate::tensors;

/// What a model's files say beside its weights. Of special ids what is None stays as the model's files had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaveOptions {
    /// Beginning of a sequence.
    pub bos: Option<i64>,
    /// End of a sequence.
    pub eos: Option<i64>,
    /// Padding; never used by this program.
    pub pad: Option<i64>,
    /// Bytes of weights in one file; more go into several.
    pub max_shard_bytes: u64,
}

/// Saves a language model.
pub(super) fn causal_lm(model: &Model, dir: &Path, kind: Kind, ids: &SaveOptions) -> Result<()> {
    let mut config = common(model, kind, ids)?;
    config.insert("architectures".into(), json!([model.config.spec().causal]));
    set(&mut config, "pad_token_id", ids.pad);
    let mut generation = model.generation.clone();
    set_eos(&mut generation, ids.eos);
    set(&mut generation, "bos_token_id", ids.bos);
    set(&mut generation, "pad_token_id", ids.pad);
    write_json(&dir.join("config.json"), config)?;
    write_json(&dir.join("generation_config.json"), generation)?;
    write_weights(model.params.iter(), dir, kind, ids.max_shard_bytes)
}

/// Saves a reward model; `pad_token_id` is the tokenizer's pad where that differs from EOS, else null: transformers
/// takes the reward at the last token that is not pad, and a completion's EOS must count. `instead` takes the place of
/// the parameter of that name.
pub(super) fn reward(
    model: &Model,
    head: &RewardHead,
    instead: Option<(&str, &Tensor)>,
    dir: &Path,
    kind: Kind,
    ids: &SaveOptions,
) -> Result<()> {
    let mut config = common(model, kind, ids)?;
    let mut ours = json!({"bias": head.bias, "pooling": head.pooling.name(), "append_eos": head.append_eos});
    let architecture = match head.pooling {
        Pooling::Sum => "CollimateTokenRewardModel",
        Pooling::Last => model.config.spec().classifier,
    };
    if head.pooling == Pooling::Sum {
        ours["backbone"] = json!(model.config.spec().model_type);
        config.insert("model_type".into(), json!(TOKEN_REWARD));
    }
    config.insert("architectures".into(), json!([architecture]));
    config.insert("pad_token_id".into(), json!(ids.pad.filter(|_| ids.pad != ids.eos)));
    config.insert("id2label".into(), json!({"0": "LABEL_0"}));
    config.insert("label2id".into(), json!({"LABEL_0": 0}));
    config.insert("problem_type".into(), json!("regression"));
    config.insert("collimate".into(), ours);
    write_json(&dir.join("config.json"), config)?;
    let replaced = |(name, tensor)| instead.filter(|(other, _)| *other == name).unwrap_or((name, tensor));
    write_weights(model.params.iter().map(replaced), dir, kind, ids.max_shard_bytes)
}

/// What both have: the keys as they were read, the saved type, the special ids.
fn common(model: &Model, kind: Kind, ids: &SaveOptions) -> Result<Map<String, Value>> {
    let mut config = model.config.raw.clone();
    let dtype = match kind {
        Kind::Float => "float32",
        Kind::BFloat16 => "bfloat16",
        Kind::Half => "float16",
        _ => return Err(Error::usage(format!("weights cannot be saved as {kind:?}"), "save as float32 or bfloat16")),
    };
    // transformers 5 writes "dtype" and reads both; older ones know "torch_dtype" alone.
    let key = if config.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    config.insert(key.into(), json!(dtype));
    config.insert("model_type".into(), json!(model.config.spec().model_type));
    for foreign in ["auto_map", "collimate", "_name_or_path"] {
        config.shift_remove(foreign);
    }
    set(&mut config, "bos_token_id", ids.bos);
    set_eos(&mut config, ids.eos);
    // Left out, transformers would fill in its family's defaults, which may lie outside a small vocabulary.
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        config.entry(key).or_insert(Value::Null);
    }
    Ok(config)
}

fn set(map: &mut Map<String, Value>, key: &str, id: Option<i64>) {
    if let Some(id) = id {
        map.insert(key.into(), json!(id));
    }
}

/// A list of several end tokens stays where it holds ours.
fn set_eos(map: &mut Map<String, Value>, eos: Option<i64>) {
    let listed = map.get("eos_token_id").and_then(Value::as_array);
    if !listed.is_some_and(|list| eos.is_some_and(|eos| list.contains(&json!(eos)))) {
        set(map, "eos_token_id", eos);
    }
}

/// One file, or, where that would pass `max_bytes`, several (`model-00001-of-00003.safetensors`, ...) and an index, as
/// transformers writes them. A tensor is never cut.
fn write_weights<'a>(
    params: impl Iterator<Item = (&'a str, &'a Tensor)>,
    dir: &Path,
    kind: Kind,
    max_bytes: u64,
) -> Result<()> {
    let bytes = |tensor: &Tensor| (tensor.numel() * kind.elt_size_in_bytes()) as u64;
    let (mut shards, mut filled, mut total) = (vec![Vec::new()], 0, 0);
    for (name, tensor) in params {
        let last = shards.len() - 1;
        if filled + bytes(tensor) > max_bytes && !shards[last].is_empty() {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes(tensor);
        total += bytes(tensor);
        let last = shards.len() - 1;
        shards[last].push((name, tensor));
    }
    let write = |name: &str, shard: Vec<_>| tensors::write(&dir.join(name), shard, Some(kind), tensors::pt_metadata());
    if shards.len() == 1 {
        return write(weights::FILE, shards.remove(0));
    }
    let (count, mut places) = (shards.len(), Map::new());
    for (number, shard) in shards.into_iter().enumerate() {
        let file = format!("model-{:05}-of-{count:05}.safetensors", number + 1);
        places.extend(shard.iter().map(|(name, _)| ((*name).to_owned(), json!(file))));
        write(&file, shard)?;
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": places});
    let Value::Object(index) = index else { unreachable!("an object") };
    write_json(&dir.join(weights::INDEX), index)
}

fn write_json(path: &Path, map: Map<String, Value>) -> Result<()> {
    let text = format!("{:#}\n", Value::Object(map));
    let mut file = File::create(path).map_err(Error::io(path, "write"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::io(path, "write"))
}
