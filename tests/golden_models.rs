//! Tiny models against transformers: logits, log-probs, the gradient of every parameter, scores, greedy continuations
//! (scripts/goldens/models.py and generation.py).
#![allow(clippy::unwrap_used)]
use crate::support::{
    assert_close, assert_number, assert_relative, device, golden, ids, index, json, list, number, tensors, text,
};
use collimate::data::{LmBatch, RowId, Sequence, lm_batch};
use collimate::loss::logprobs;
use collimate::model::{CausalLm, LoadOptions, ModelInput, RewardModel};
use collimate::rollout::{GenerateOptions, Sampling, generate};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use tch::{Kind, Tensor};

/// Every directory with language-model cases.
fn causal() -> Vec<String> {
    directories(|name| !name.ends_with("-reward"))
}

/// Directories under tests/golden/models that `wanted` takes; there are as many as families and options need.
fn directories(wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(golden("models")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| wanted(name)).collect();
    names.sort();
    names
}

/// Every family has its directories: nothing is left out silently.
#[test]
fn every_family_has_cases() {
    let names = directories(|_| true);
    for family in ["gpt2", "neox", "opt", "llama", "mistral", "qwen2", "qwen3"] {
        let with = |reward: bool| {
            names.iter().filter(|name| name.starts_with(family) && name.ends_with("-reward") == reward).count()
        };
        assert!(with(false) >= 2 && with(true) >= 1, "{family}: {names:?}");
    }
}

const TOLERANCE: f64 = 1e-5;

fn options(compute: Kind, trainable: bool) -> LoadOptions {
    LoadOptions { device: device(), compute, trainable, mapped: !trainable, checkpointing: false }
}

fn load(name: &str, trainable: bool) -> (CausalLm, Value) {
    let model = CausalLm::from_pretrained(&golden("models").join(name), &options(Kind::Float, trainable)).unwrap();
    (model, json(&format!("models/{name}/cases.json")))
}

/// The rows of a case as one flat batch, targets from each row's `prompt_len` on.
fn batch(case: &Value) -> LmBatch {
    let sequences: Vec<Sequence> = list(case, "rows")
        .iter()
        .enumerate()
        .map(|(i, row)| {
            let prompt_len = case["prompt_len"].get(i).map_or(1, |n| n.as_u64().unwrap() as usize);
            Sequence::new(ids(row), prompt_len, RowId::line(Path::new("golden.jsonl"), i + 1))
        })
        .collect();
    lm_batch(&sequences.iter().collect::<Vec<_>>())
}

fn input(batch: &LmBatch) -> ModelInput {
    ModelInput::new(&batch.flat.tokens, &batch.flat.positions, &batch.flat.rows, device()).unwrap()
}

/// Log-probs of all targets, in the batch's order.
fn target_logprobs(model: &CausalLm, batch: &LmBatch) -> Tensor {
    let hidden = model.hidden_states(&input(batch), None).unwrap();
    let picked = hidden.index_select(0, &index(&batch.targets.hidden));
    let logits = model.logits(&picked).unwrap();
    logprobs::token_logprobs(&logits, &index(&batch.targets.tokens)).unwrap()
}

/// `prefix.0`, `prefix.1`, ... one after the other, on the device of the tests.
fn concatenated(name: &str, prefix: &str, rows: usize) -> Tensor {
    let tensors = tensors(&golden("models").join(name).join("cases.safetensors"));
    let parts: Vec<&Tensor> = (0..rows).map(|i| &tensors[&format!("{prefix}.{i}")]).collect();
    Tensor::cat(&parts, 0).to_device(device())
}

#[test]
fn logits_of_every_position() {
    for name in &causal() {
        let (model, case) = load(name, false);
        let batch = batch(&case);
        let hidden = model.hidden_states(&input(&batch), None).unwrap();
        let expected = concatenated(name, "logits", list(&case, "rows").len());
        assert_close(&format!("{name} logits"), &model.logits(&hidden).unwrap(), &expected, TOLERANCE);
    }
}

#[test]
fn logprobs_and_their_sums() {
    for name in &causal() {
        let (model, case) = load(name, false);
        let batch = batch(&case);
        let rows = list(&case, "rows").len();
        let ours = target_logprobs(&model, &batch);
        assert_close(&format!("{name} log-probs"), &ours, &concatenated(name, "logprobs", rows), TOLERANCE);
        let sequence = index(&batch.targets.sequence);
        let sums = logprobs::sum_by_sequence(&ours, &sequence, rows as i64).unwrap();
        for (i, expected) in list(&case, "logprob_sums").iter().enumerate() {
            let what = format!("{name}, sum of row {i}");
            assert_number(&what, sums.double_value(&[i as i64]), expected.as_f64().unwrap(), TOLERANCE);
        }
    }
}

#[test]
fn gradients_of_every_parameter() {
    for name in &causal() {
        let (model, case) = load(name, true);
        let batch = batch(&case);
        assert_eq!(batch.targets.tokens.len() as u64, case["targets"].as_u64().unwrap());
        let loss = -target_logprobs(&model, &batch).sum(Kind::Float) / batch.targets.tokens.len() as f64;
        assert_number(&format!("{name} loss"), loss.double_value(&[]), number(&case, "loss"), TOLERANCE);
        loss.backward();
        let file = tensors(&golden("models").join(name).join("cases.safetensors"));
        let expected: BTreeSet<&str> = file.keys().filter_map(|key| key.strip_prefix("grad.")).collect();
        let ours: BTreeSet<&str> = model.params().iter().map(|(name, _)| name).collect();
        assert_eq!(ours, expected, "{name}: parameters");
        for (parameter, tensor) in model.params().iter() {
            let gradient = tensor.grad();
            assert!(gradient.defined(), "{name}: {parameter} has no gradient");
            if case["zero_gradients"].as_array().is_some_and(|list| list.iter().any(|zero| zero == parameter)) {
                // Zero but for rounding, there and here.
                let largest = gradient.abs().max().double_value(&[]);
                assert!(largest < 1e-7, "{name} d {parameter}: {largest}");
                continue;
            }
            assert_relative(&format!("{name} d {parameter}"), &gradient, &file[&format!("grad.{parameter}")], 1e-4);
        }
    }
}

#[test]
fn scores_of_one_label_classifiers() {
    for name in &directories(|name| name.ends_with("-reward")) {
        let directory = golden("models").join(name);
        let model = RewardModel::from_pretrained(&directory, &options(Kind::Float, false)).unwrap();
        let case = json(&format!("models/{name}/cases.json"));
        let batch = batch(&case);
        let hidden = model.hidden_states(&input(&batch), None).unwrap();
        let ends: Vec<i64> = batch.flat.rows.iter().map(|row| *row.last().unwrap()).collect();
        let scores = model.scores(&hidden.index_select(0, &index(&ends))).unwrap();
        assert_eq!(model.bias(), 0.0);
        for (i, expected) in list(&case, "scores").iter().enumerate() {
            let what = format!("{name}, score of row {i}");
            assert_number(&what, scores.double_value(&[i as i64]), expected.as_f64().unwrap(), TOLERANCE);
        }
    }
}

/// Matrix products in bfloat16 differ from float32 by about their 8 bits of precision, no more and no less; with
/// matrices that are kept in bfloat16 (frozen) and with float32 masters (trainable).
#[test]
fn bfloat16_is_near_and_really_used() {
    for (name, trainable) in causal().iter().flat_map(|name| [(name, false), (name, true)]) {
        let directory = golden("models").join(name);
        let model = CausalLm::from_pretrained(&directory, &options(Kind::BFloat16, trainable)).unwrap();
        let case = json(&format!("models/{name}/cases.json"));
        let logits = model.logits(&model.hidden_states(&input(&batch(&case)), None).unwrap()).unwrap();
        assert_eq!(logits.kind(), Kind::Float, "{name}");
        let expected = concatenated(name, "logits", list(&case, "rows").len());
        let error = (&logits - &expected).norm().double_value(&[]) / expected.norm().double_value(&[]);
        assert!((1e-4..3e-2).contains(&error), "{name}, trainable {trainable}: relative error {error}");
    }
}

/// Of the log-probs that transformers computes in bfloat16, the error against float32 (scripts/goldens/bfloat16.py): ours,
/// with a float32 residual stream, is smaller.
#[test]
fn bfloat16_is_no_worse_than_transformers() {
    let mut ratios = Vec::new();
    for case in list(&json("bf16.json"), "models") {
        let (name, theirs) = (text(case, "model"), number(case, "rms"));
        let cases = json(&format!("models/{name}/cases.json"));
        let batch = batch(&cases);
        let expected = concatenated(name, "logprobs", list(&cases, "rows").len());
        for trainable in [false, true] {
            let directory = golden("models").join(name);
            let model = CausalLm::from_pretrained(&directory, &options(Kind::BFloat16, trainable)).unwrap();
            let off = target_logprobs(&model, &batch) - &expected;
            let ours = (&off * &off).mean(Kind::Float).sqrt().double_value(&[]);
            // A model's 40 log-probs are a small sample; together they are not.
            assert!(ours <= 1.2 * theirs, "{name}, trainable {trainable}: rms error {ours}, transformers' {theirs}");
            ratios.push(ours / theirs);
        }
    }
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    assert!(mean < 0.9, "{ratios:?}");
}

#[test]
fn greedy_continuations() {
    let file = json("generation.json");
    for case in list(&file, "models") {
        let name = text(case, "model");
        let (model, _) = load(name, false);
        let prompts: Vec<Vec<i64>> = list(case, "prompts").iter().map(ids).collect();
        for (key, eos) in [("completions", None), ("completions_with_eos", case["eos"].as_i64())] {
            let options = GenerateOptions {
                max_new_tokens: case["max_new_tokens"].as_u64().unwrap() as usize,
                sampling: Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, greedy: true },
                eos,
                seed: 0,
                batch_size: 4,
            };
            let expected: Vec<Vec<i64>> = list(case, key).iter().map(ids).collect();
            assert_eq!(generate(&model, &prompts, &options, |_| Ok(())).unwrap(), expected, "{name}, {key}");
        }
    }
}
