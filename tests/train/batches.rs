//! What an update is: micro-batches equal one batch, seeds decide everything, weight decay spares vectors.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::{Sandbox, json_lines};
use crate::support::{assert_close, golden, tensors};
use collimate::data::Micro;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// The final weights of a stage with these overrides, run in `run`.
fn weights(sandbox: &Sandbox, stage: &str, run: &str, overrides: &[&str]) -> BTreeMap<String, Tensor> {
    let output = format!("train.output={run}");
    let overrides: Vec<&str> = overrides.iter().copied().chain([output.as_str()]).collect();
    sandbox.stage(stage, &overrides).ok();
    tensors(&sandbox.path(run).join("model.safetensors"))
}

fn largest_change(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> f64 {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    a.iter().map(|(name, t)| (t - &b[name]).abs().max().double_value(&[])).fold(0.0, f64::max)
}

/// Batches of 4, 4 and 2 rows over two epochs, in micro-batches of 3 (3 + 1, 3 + 1, 2) and of 1.
///
/// Epsilon is 1e-4 here: with 1e-8 AdamW turns a gradient that is zero but for rounding (a key's bias) into a step of
/// the learning rate's size, in either direction.
fn micro_batches_equal_one_batch(stage: &str, more: &[&str]) {
    let sandbox = Sandbox::with_stages();
    let mut common = vec!["train.epochs=2", "train.adam_epsilon=1e-4", "train.log_every=1", "train.max_grad_norm=0.5"];
    common.extend(more);
    let whole = weights(&sandbox, stage, "whole", &common);
    assert!(largest_change(&whole, &tensors(&start_of(stage, &sandbox))) > 1e-4, "nothing was learnt");
    // By rows, and by tokens: rows of the sandbox have 5 to 40.
    for (key, micro) in [("size", "3"), ("size", "1"), ("tokens", "50"), ("tokens", "1")] {
        let size = format!("train.micro_batch_{key}={micro}");
        let run = format!("micro-{key}-{micro}");
        let split = weights(&sandbox, stage, &run, &[common.as_slice(), &[size.as_str()]].concat());
        for (name, tensor) in &split {
            let worst = (tensor - &whole[name]).abs().max().double_value(&[]);
            assert!(worst <= 1e-6, "{stage}, micro-batches of {micro}: {name} is {worst:.1e} off");
        }
        let lines = |run: &str| json_lines(&sandbox.path(run).join("metrics.jsonl"));
        for (one, other) in lines("whole").iter().zip(lines(&run)) {
            for (name, value) in one {
                if collimate::train::metrics::TIMING_FIELDS.contains(&name.as_str()) {
                    continue;
                }
                let (a, b) = (value.as_f64().unwrap(), other[name].as_f64().unwrap());
                assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{stage}, micro {micro}: {name} {a} against {b}");
            }
        }
    }
}

/// A file with the weights that a stage starts from, as far as it saves the same names.
fn start_of(stage: &str, sandbox: &Sandbox) -> std::path::PathBuf {
    if stage != "reward" {
        return golden("models/gpt2-tiny/model.safetensors");
    }
    sandbox.stage("reward", &["train.output=start", "train.steps=1", "train.learning_rate=0"]).ok();
    sandbox.path("start/model.safetensors")
}

#[test]
fn sft_micro_batches_equal_one_batch() {
    micro_batches_equal_one_batch("sft", &[]);
}

#[test]
fn reward_micro_batches_equal_one_batch() {
    micro_batches_equal_one_batch("reward", &["reward.centering=0.01"]);
}

#[test]
fn dpo_micro_batches_equal_one_batch() {
    micro_batches_equal_one_batch("dpo", &["dpo.label_smoothing=0.1"]);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let sandbox = Sandbox::with_stages();
    let bytes = |stage: &str, run: &str, overrides: &[&str]| {
        weights(&sandbox, stage, run, overrides);
        let metrics = crate::support::sandbox::metrics(&sandbox.path(run));
        (std::fs::read(sandbox.path(run).join("model.safetensors")).unwrap(), metrics)
    };
    // The order of rows, and the reward head's first values, come from the seed.
    for stage in ["sft", "reward"] {
        let first = bytes(stage, &format!("{stage}-a"), &["train.seed=7"]);
        assert!(first == bytes(stage, &format!("{stage}-b"), &["train.seed=7"]), "{stage}: same seed, other bytes");
        assert!(first.0 != bytes(stage, &format!("{stage}-c"), &["train.seed=8"]).0, "{stage}: the seed does nothing");
    }
    // In file order, dropout is all that is left to the seed.
    let still = ["train.shuffle=false", "train.steps=2"];
    let with = |more: &[&'static str]| [still.as_slice(), more].concat();
    let one = bytes("sft", "drop-a", &with(&["model.dropout=0.2"]));
    assert!(one == bytes("sft", "drop-b", &with(&["model.dropout=0.2"])), "dropout does not come from the seed");
    assert!(one.0 != bytes("sft", "drop-c", &with(&["model.dropout=0.2", "train.seed=1"])).0, "seed and dropout");
    let none = bytes("sft", "drop-d", &still);
    assert!(one.0 != none.0, "dropout does nothing");
    assert!(none.0 == bytes("sft", "drop-e", &with(&["train.seed=1"])).0, "without dropout the seed draws nothing");
}

#[test]
fn random_initial_weights_come_from_the_seed() {
    let sandbox = Sandbox::with_stages();
    let fixed = ["model.init=config", "train.learning_rate=0", "train.steps=1"];
    let with = |seed: &'static str| [fixed.as_slice(), &[seed]].concat();
    let first = weights(&sandbox, "sft", "a", &with("train.seed=3"));
    assert_eq!(largest_change(&first, &weights(&sandbox, "sft", "b", &with("train.seed=3"))), 0.0);
    assert!(largest_change(&first, &weights(&sandbox, "sft", "c", &with("train.seed=4"))) > 0.01);
    let std = first["transformer.h.0.mlp.c_fc.weight"].std(true).double_value(&[]);
    assert!((std - 0.02).abs() < 0.002, "initializer_range is 0.02, weights spread by {std}");
}

#[test]
fn weight_decay_shrinks_matrices_and_spares_vectors() {
    let sandbox = Sandbox::with_stages();
    let one = ["train.steps=1", "train.learning_rate=0.01", "train.schedule=constant"];
    let plain = weights(&sandbox, "sft", "plain", &one);
    let decayed = weights(&sandbox, "sft", "decayed", &[one.as_slice(), &["train.weight_decay=0.5"]].concat());
    let start = tensors(&golden("models/gpt2-tiny/model.safetensors"));
    let (mut vectors, mut matrices) = (0, 0);
    for (name, before) in &start {
        if before.dim() < 2 {
            vectors += 1;
            assert!(decayed[name].equal(&plain[name]), "{name} has one dimension and was decayed");
        } else {
            matrices += 1;
            // w <- w - lr wd w - lr step; the step is the same in both.
            let expected = &plain[name] - before * (0.01 * 0.5);
            assert_close(name, &decayed[name], &expected, 1e-6);
            assert!(!decayed[name].equal(&plain[name]), "{name} was not decayed");
        }
    }
    assert!(vectors > 10 && matrices > 5, "{vectors} vectors, {matrices} matrices");
}

#[test]
fn the_learning_rate_follows_the_schedule_and_the_norm_is_clipped() {
    let sandbox = Sandbox::with_stages();
    let run = |name: &str, more: &[&str]| {
        let output = format!("train.output={name}");
        let fixed = ["train.steps=4", "train.log_every=1", "train.learning_rate=0.004", output.as_str()];
        sandbox.stage("sft", &[fixed.as_slice(), more].concat()).ok();
        let lines = json_lines(&sandbox.path(name).join("metrics.jsonl"));
        lines.iter().filter_map(|line| line.get("learning_rate")?.as_f64()).collect::<Vec<f64>>()
    };
    // lr (1 - k / steps) for k = 0, 1, ..., after warm-up from 0.
    assert_eq!(run("linear", &[]), [0.004, 0.003, 0.002, 0.001]);
    assert_eq!(run("constant", &["train.schedule=constant", "train.warmup_steps=2"]), [0.0, 0.002, 0.004, 0.004]);
    let cosine = run("cosine", &["train.schedule=cosine"]);
    let expected = [1.0, 0.5 + 0.5f64.sqrt() / 2.0, 0.5, 0.5 - 0.5f64.sqrt() / 2.0];
    for (ours, expected) in cosine.iter().zip(expected) {
        assert!((ours - 0.004 * expected).abs() < 1e-12, "{cosine:?}");
    }
    // SGD-like: with a huge epsilon the step is lr * g / epsilon, so clipping to a tenth makes steps a tenth.
    let step = |name: &str, norm: &str| {
        let norm = format!("train.max_grad_norm={norm}");
        let large = ["train.adam_epsilon=1e6", "train.learning_rate=1e6", "train.steps=1", norm.as_str()];
        let after = weights(&sandbox, "sft", name, &large);
        let start = tensors(&golden("models/gpt2-tiny/model.safetensors"));
        let squares = after.iter().map(|(n, t)| (t - &start[n]).square().sum(Kind::Double).double_value(&[]));
        squares.sum::<f64>().sqrt()
    };
    let (full, clipped) = (step("full", "0.1"), step("tenth", "0.01"));
    assert!((full - 0.1).abs() < 1e-3 && (clipped - 0.01).abs() < 1e-4, "steps of {full} and {clipped}");
    let norm = json_lines(&sandbox.path("full/metrics.jsonl"))[0]["grad_norm"].as_f64().unwrap();
    assert!(norm > 0.5, "the norm before clipping is logged, not {norm}");
}

#[test]
fn an_epoch_is_all_rows_and_steps_win_over_epochs() {
    let sandbox = Sandbox::with_stages();
    let last = |run: &str, more: &[&str]| {
        let output = format!("train.output={run}");
        sandbox.stage("sft", &[more, &["train.log_every=1", output.as_str()]].concat()).ok();
        let lines = json_lines(&Path::new(&sandbox.path(run)).join("metrics.jsonl"));
        let line = &lines[lines.len() - 2];
        (line["step"].as_u64().unwrap(), line["epoch"].as_f64().unwrap())
    };
    assert_eq!(last("one", &[]), (3, 1.0));
    assert_eq!(last("half", &["train.epochs=0.5"]), (2, 0.8));
    assert_eq!(last("steps", &["train.epochs=9", "train.steps=4"]), (4, 1.4));
}

#[test]
fn micro_batches_keep_the_order_and_both_limits() {
    let split = |rows: usize, tokens: Option<usize>, lengths: &[usize]| Micro { rows, tokens }.split(lengths);
    assert_eq!(split(3, None, &[9; 7]), [0..3, 3..6, 6..7]);
    assert_eq!(split(8, Some(10), &[4, 6, 1, 9, 11, 2, 20]), [0..2, 2..4, 4..5, 5..6, 6..7]);
    assert_eq!(split(2, Some(10), &[1, 1, 1, 9]), [0..2, 2..4]);
    assert!(split(2, Some(1), &[]).is_empty());
}
