//! Memory under a limit: micro-batches that are found out, limits that are kept, refusals before anything is written.
#![allow(clippy::unwrap_used)]
use std::fmt::Write;
use std::path::Path;

use collimate::Error;
use collimate::train::memory::explained;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::support::device;
use crate::support::sandbox::{Sandbox, json_lines, metrics, row};
use crate::train::resume::{as_if_killed, assert_same_run};

/// A model large enough that tensors count, and one update of 16 long rows.
const LARGE: &[&str] = &[
    "model.init=config",
    "model.config={model_type = \"gpt2\", n_embd = 192, n_layer = 8, n_head = 4, n_positions = 256}",
    "data.max_length=256",
    "train.batch_size=16",
    "train.steps=2",
    "train.log_every=1",
    "train.learning_rate=1e-4",
    "train.shuffle=false",
];

fn large() -> Sandbox {
    let sandbox = Sandbox::with_stages();
    let text = |salt: usize| {
        (0..400).fold(String::new(), |mut text, n| {
            write!(text, "{} ", (n * n + salt * 31) % 97).unwrap();
            text
        })
    };
    // The last ones are short: the longest are looked for.
    let rows = (0..24).map(|n| row(json!({"text": if n < 20 { text(n) } else { text(n)[..40].to_owned() }})));
    sandbox.rows("sft.jsonl", &rows.collect::<Vec<_>>());
    sandbox
}

fn run(sandbox: &Sandbox, name: &str, more: &[&str]) -> String {
    let output = format!("train.output={name}");
    sandbox.stage("sft", &[LARGE, &[&output], more].concat()).ok().stderr
}

/// The figures of a run's lines.
fn figures(sandbox: &Sandbox, name: &str, key: &str) -> Vec<f64> {
    let lines = json_lines(&sandbox.path(name).join("metrics.jsonl"));
    lines.iter().filter_map(|line| line.get(key)?.as_f64()).collect()
}

fn peak(sandbox: &Sandbox, name: &str) -> f64 {
    figures(sandbox, name, "peak_memory_mb").into_iter().fold(0.0, f64::max)
}

fn kept(run: &Path) -> Value {
    serde_json::from_slice::<Value>(&std::fs::read(run.join("micro_batch.json")).unwrap()).unwrap()["micro_batch_tokens"].take()
}

#[test]
fn a_limit_is_kept_without_changing_results() {
    if device() != Device::Cpu {
        // There the limit is on libtorch's allocator, and kernels decide how much a token takes.
        return;
    }
    let sandbox = large();
    run(&sandbox, "alone", &["train.micro_batch_size=1"]);
    run(&sandbox, "whole", &[]);
    let (least, most) = (peak(&sandbox, "alone"), peak(&sandbox, "whole"));
    assert!(most > least + 100.0, "nothing to limit: {least} and {most} MB");
    let limit = (0.6 * least + 0.4 * most).round();
    let stderr = run(&sandbox, "auto", &["train.micro_batch_size=auto", &format!("train.memory_limit={limit}MB")]);
    assert!(stderr.contains("micro-batches of up to ") && stderr.contains(&format!("of {limit} MB")), "{stderr}");
    let tokens = kept(&sandbox.path("auto")).as_u64().unwrap();
    assert!((512..4096).contains(&tokens) && tokens.is_multiple_of(64), "{tokens} tokens");
    let held = peak(&sandbox, "auto");
    assert!(held <= limit, "{held} of {limit} MB; {least} to {most} without a limit, {tokens} tokens");
    for key in ["loss", "grad_norm", "entropy", "mean_token_accuracy"] {
        let (ours, expected) = (figures(&sandbox, "auto", key), figures(&sandbox, "whole", key));
        assert_eq!((ours.len(), expected.len()), (2, 2), "{key}");
        for (a, b) in ours.iter().zip(&expected) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{key}: {a}, without a limit {b}");
        }
    }
    // A number that does not fit is refused before anything is written; checkpointing makes it fit.
    let limit = format!("train.memory_limit={limit}MB");
    let all = [LARGE, &["train.output=numbered", &limit]].concat();
    let line = sandbox.stage("sft", &all).refused(2);
    for part in [
        limit.trim_start_matches("train.memory_limit="),
        "train.memory_limit is ",
        "a micro-batch of 4096 tokens needs about ",
        "train.micro_batch_size = \"auto\"",
        "train.gradient_checkpointing = true",
        "data.max_length",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!sandbox.path("numbered").exists());
    run(&sandbox, "numbered", &[&limit, "train.gradient_checkpointing=true"]);
    assert!(peak(&sandbox, "numbered") < most - 100.0);
}

#[test]
fn what_cannot_fit_at_all_is_refused_before_anything_is_written() {
    if device() != Device::Cpu {
        return;
    }
    let sandbox = large();
    for more in [&["train.micro_batch_size=auto"][..], &["train.micro_batch_size=2"]] {
        let overrides = [LARGE, more, &["train.memory_limit=90MB"]].concat();
        let line = sandbox.stage("sft", &overrides).refused(2);
        assert!(
            line.contains("train.memory_limit is 90MB, and weights, gradients and moments alone need about "),
            "{line}"
        );
        assert!(!sandbox.path("run").exists());
    }
}

/// What is tried before the first step leaves no trace in any stage: not in weights, not in draws.
#[test]
fn trying_changes_nothing() {
    let dropout = ["model.dropout=0.2"];
    let network = ["ppo.value_model=rewarder", "ppo.minibatches=2"];
    let stages: [(&str, &[&str]); 4] = [("sft", &dropout), ("reward", &[]), ("dpo", &[]), ("ppo", &network)];
    for (stage, more) in stages {
        let sandbox = Sandbox::with_stages();
        let run = |name: &str, own: &[&str]| {
            let output = format!("train.output={name}");
            let fixed = [output.as_str(), "train.steps=3", "train.log_every=1"];
            let ran = sandbox.stage(stage, &[&fixed, more, own].concat()).ok();
            assert_eq!(ran.stderr.contains("micro-batches of up to"), name == "auto", "{stage} {name}: {}", ran.stderr);
            (metrics(&sandbox.path(name)), std::fs::read(sandbox.path(name).join("model.safetensors")).unwrap())
        };
        let plain = run("plain", &[]);
        assert!(plain == run("checked", &["train.check_memory=true"]), "{stage}: check_memory");
        // Everything fits, so that nothing is split.
        assert!(plain == run("auto", &["train.micro_batch_size=auto"]), "{stage}: auto");
        assert!(plain == run("limited", &["train.memory_limit=64GB"]), "{stage}: memory_limit");
    }
}

#[test]
fn a_resumed_run_takes_the_number_that_it_began_with() {
    let sandbox = Sandbox::with_stages();
    let auto =
        ["train.micro_batch_size=auto", "train.steps=6", "train.save_every=3", "train.log_every=2", "train.keep=9"];
    sandbox.stage("sft", &auto).ok();
    let number = kept(&sandbox.path("run"));
    let resume = [&auto[..], &["train.resume=true"]].concat();
    let other = Sandbox::with_stages();
    as_if_killed(&sandbox.path("run"), &other.path("run"), "checkpoint-3");
    let stderr = other.stage("sft", &resume).ok().stderr;
    assert!(!stderr.contains("micro-batches of up to"), "measured again: {stderr}");
    assert_same_run("auto", &other.path("run"), &sandbox.path("run"), Some("checkpoint-6"));
    assert_eq!(kept(&other.path("run")), number);

    // Another number there, as another machine would have found it: what counts is what is kept.
    let tokens = ["train.micro_batch_tokens=64", "train.steps=6", "train.log_every=2", "train.output=numbered"];
    sandbox.stage("sft", &tokens).ok();
    let third = Sandbox::with_stages();
    as_if_killed(&sandbox.path("run"), &third.path("run"), "none");
    third.write("run/micro_batch.json", r#"{"micro_batch_tokens": 64}"#);
    third.stage("sft", &resume).ok();
    let weights = |path: &Path| std::fs::read(path.join("model.safetensors")).unwrap();
    let numbered = weights(&sandbox.path("numbered"));
    assert!(weights(&third.path("run")) == numbered && numbered != weights(&sandbox.path("run")));

    let fourth = Sandbox::with_stages();
    as_if_killed(&sandbox.path("run"), &fourth.path("run"), "checkpoint-3");
    fourth.write("run/micro_batch.json", "{}");
    let line = fourth.stage("sft", &resume).refused(2);
    assert!(line.contains("run/micro_batch.json") && line.contains("micro_batch_tokens"), "{line}");
}

#[test]
fn memory_that_runs_out_is_an_error_with_a_remedy() {
    let error = Tensor::f_zeros([1 << 46], (Kind::Float, Device::Cpu)).unwrap_err();
    let error = explained(Error::from(error));
    let text = error.to_string();
    assert!(matches!(error, Error::Memory { .. }) && error.exit_code() == 1, "{error:?}");
    for part in ["alloc", "train.gradient_checkpointing", "train.micro_batch_size = \"auto\"", "train.memory_limit"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(text.lines().count(), 1, "{text}");
    let shapes = Tensor::zeros([2], (Kind::Float, Device::Cpu)).f_view([3]).unwrap_err();
    assert!(matches!(explained(Error::from(shapes)), Error::Torch(_)), "another error stays what it is");
}

#[test]
fn keys_are_checked_with_all_others() {
    let sandbox = Sandbox::with_stages();
    let good = ["train.micro_batch_size=auto", "train.memory_limit=1.5 GB", "train.check_memory=true"];
    let args = ["validate", "sft.toml", "--stage", "sft"];
    sandbox.run(&[&args[..], &good].concat()).ok();
    let refused = |overrides: &[&str], parts: &[&str]| {
        let ran = sandbox.run(&[&args[..], overrides].concat());
        let line = ran.refused(2);
        for part in parts {
            assert!(line.contains(part), "{part}: {line}");
        }
    };
    for size in ["6", "6TB", "-1GB", "1e3MB", "GB", "0GB", "nanGB"] {
        let size = format!("train.memory_limit={size}");
        refused(&[&size], &["train.memory_limit", "512MB"]);
    }
    for rows in ["all", "-2", "1.5"] {
        let rows = format!("train.micro_batch_size={rows}");
        refused(&[&rows], &["train.micro_batch_size", "a number of rows or \"auto\""]);
    }
    refused(&["train.micro_batch_size=0"], &["train.micro_batch_size: must be greater than 0"]);
    let both = ["train.micro_batch_size=auto", "train.micro_batch_tokens=512"];
    refused(&both, &["train.micro_batch_tokens", "remove one of the two"]);
}
