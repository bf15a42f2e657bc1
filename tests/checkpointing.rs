//! Activation checkpointing: the same numbers in less memory, in every family and stage.
#![allow(clippy::unwrap_used)]
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use collimate::model::{CausalLm, LoadOptions, ModelInput};
use collimate::{Error, ffi};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::support::sandbox::{Sandbox, metrics};
use crate::support::{assert_close, device};
use crate::tiny::{TRAINABLE, VOCAB, difference, families, gradients, ids, logits, model};

fn checkpointed() -> LoadOptions {
    LoadOptions { checkpointing: true, ..*TRAINABLE }
}

fn leaf(phase: f64) -> Tensor {
    (Tensor::arange(6, (Kind::Float, device())) * 0.7 + phase).sin().set_requires_grad(true)
}

/// Rows of uneven lengths that share a prompt, so that attention needs its plan or its grid.
fn input() -> ModelInput {
    let rows: Vec<Vec<i64>> = vec![(0..9).collect(), (0..4).chain(9..21).collect(), (21..26).collect()];
    let positions: Vec<i64> = (0..9).chain(4..16).chain(0..5).collect();
    ModelInput::new(&ids(26, 3), &positions, &rows, device()).unwrap()
}

fn weighted(logits: &Tensor) -> Tensor {
    let weights = Tensor::arange(logits.numel() as i64, (Kind::Float, logits.device())).sin().view_as(logits);
    (logits * weights).sum(Kind::Float)
}

#[test]
fn every_family_learns_the_same_with_and_without() {
    for (at, plain) in families().iter().enumerate() {
        let config = serde_json::Value::Object(plain.config().raw.clone());
        let frugal = model(config, &checkpointed());
        for dropout in [0.0, 0.3] {
            let learn = |model: &CausalLm| {
                tch::manual_seed(11);
                let logits = logits(model, &input().with_dropout(dropout));
                let gradients = gradients(model, &weighted(&logits));
                // What comes after the step's own draws is the same too.
                (logits, gradients, Tensor::rand([3], (Kind::Float, device())))
            };
            let (expected, ours) = (learn(plain), learn(&frugal));
            let what = format!("family {at}, dropout {dropout}");
            assert!(difference(&expected.0, &ours.0) <= 1e-6, "{what}: logits");
            assert!(difference(&expected.2, &ours.2) == 0.0, "{what}: the generator stands elsewhere");
            assert_eq!(expected.1.len(), ours.1.len());
            for ((name, a), (_, b)) in expected.1.iter().zip(&ours.1) {
                assert_close(&format!("{what}: {name}"), b, a, 1e-6);
            }
            let largest = ours.1.iter().map(|(_, g)| g.abs().max().double_value(&[])).fold(0.0, f64::max);
            assert!(largest > 0.1, "{what}: nothing was learnt");
        }
    }
}

/// Tokens without a gradient take no detour, and none is kept.
#[test]
fn evaluation_and_decoding_run_each_block_once() {
    let (plain, frugal) = (model(crate::tiny::gpt2(), &TRAINABLE), model(crate::tiny::gpt2(), &checkpointed()));
    let _guard = tch::no_grad_guard();
    let found = logits(&frugal, &input());
    assert!(!found.requires_grad());
    assert!(difference(&found, &logits(&plain, &input())) == 0.0);
}

#[test]
fn a_part_runs_again_for_its_gradient_alone() {
    let (x, w) = (leaf(0.0), leaf(1.0));
    let runs = Arc::new(AtomicUsize::new(0));
    let part = {
        let (w, runs) = (w.shallow_clone(), runs.clone());
        move |x: &Tensor| {
            runs.fetch_add(1, SeqCst);
            Ok((x * &w).tanh())
        }
    };
    let y = ffi::checkpoint(&x, false, part).unwrap();
    assert_eq!(runs.load(SeqCst), 1);
    (&y * &y).sum(Kind::Float).backward();
    assert_eq!((runs.load(SeqCst), Arc::strong_count(&runs)), (2, 2), "it runs once more and is then kept by y alone");
    drop(y);
    assert_eq!(Arc::strong_count(&runs), 1, "nothing keeps the part");
    let (expected_x, expected_w) = (leaf(0.0), leaf(1.0));
    let y = (&expected_x * &expected_w).tanh();
    (&y * &y).sum(Kind::Float).backward();
    assert_close("input's gradient", &x.grad(), &expected_x.grad(), 1e-6);
    assert_close("inner gradient", &w.grad(), &expected_w.grad(), 1e-6);
}

#[test]
fn errors_and_panics_of_a_part_come_back_as_errors() {
    let x = leaf(0.0);
    let refusal = || Error::usage("this part refuses", "nothing helps");
    let at_once = ffi::checkpoint(&x, false, move |_| Err(refusal()));
    assert!(matches!(at_once, Err(Error::Usage { .. })), "{at_once:?}");
    for panics in [false, true] {
        let first = AtomicUsize::new(0);
        let y = ffi::checkpoint(&x, false, move |x| match first.fetch_add(1, SeqCst) {
            0 => Ok(x * 2.0),
            _ if panics => panic!("this part panics"),
            _ => Err(refusal()),
        });
        let error = y.unwrap().sum(Kind::Float).f_backward().unwrap_err().to_string();
        let expected = if panics { "this part panics" } else { "this part refuses" };
        assert!(error.contains(expected), "{error}");
    }
    // The engine is as good as before.
    let y = ffi::checkpoint(&x, true, |x| Ok(x * 3.0)).unwrap();
    y.sum(Kind::Float).backward();
    assert_close("gradient", &x.grad(), &(x.ones_like() * 3.0), 0.0);
}

/// Eight layers and large enough tensors for the pool, which counts the CPU's.
#[test]
fn a_step_takes_less_memory() {
    let gpt2 = json!({"model_type": "gpt2", "n_positions": 512, "n_embd": 128, "n_layer": 8, "n_head": 4});
    let other = |family: &str| {
        json!({"model_type": family, "max_position_embeddings": 512, "hidden_size": 128, "num_hidden_layers": 8,
               "num_attention_heads": 4, "intermediate_size": 512, "ffn_dim": 512})
    };
    for mut config in [gpt2, other("gpt_neox"), other("opt"), other("llama")] {
        config["vocab_size"] = json!(VOCAB);
        takes_less_memory(config);
    }
}

fn takes_less_memory(config: serde_json::Value) {
    let rows: Vec<Vec<i64>> = (0..4).map(|salt| ids(512, salt)).collect();
    let input = ModelInput::from_sequences(&rows, Device::Cpu).unwrap();
    let peak = |checkpointing: bool| {
        let options = LoadOptions { device: Device::Cpu, checkpointing, ..*TRAINABLE };
        let model = model(config.clone(), &options);
        let before = ffi::cpu_used_bytes();
        ffi::cpu_peak_bytes(true);
        let hidden = model.hidden_states(&input, None).unwrap();
        (&hidden * &hidden).sum(Kind::Float).backward();
        ffi::cpu_peak_bytes(false) - before
    };
    let (plain, frugal) = (peak(false), peak(true));
    assert!(frugal > 0 && frugal * 3 < plain, "{frugal} bytes with, {plain} without: {config}");
}

fn same_run(stage: &str, more: &[&str]) {
    let sandbox = Sandbox::with_stages();
    let run = |name: &str, switch: &str| {
        let (output, switch) = (format!("train.output={name}"), format!("train.gradient_checkpointing={switch}"));
        let own = [output.as_str(), switch.as_str(), "train.steps=4", "train.log_every=1"];
        sandbox.stage(stage, &[&own, more].concat()).ok();
        let read = |file: &str| std::fs::read(sandbox.path(name).join(file)).ok();
        (metrics(&sandbox.path(name)), read("model.safetensors"), read("value_head.safetensors"))
    };
    let (plain, frugal) = (run("plain", "false"), run("frugal", "true"));
    assert_eq!(frugal.0, plain.0, "{stage}: metrics");
    assert!(frugal.1 == plain.1 && frugal.2 == plain.2, "{stage}: weights");
}

#[test]
fn sft_with_dropout_ends_the_same() {
    same_run("sft", &["model.dropout=0.2", "train.micro_batch_size=3"]);
}

#[test]
fn reward_ends_the_same() {
    same_run("reward", &[]);
}

#[test]
fn dpo_ends_the_same() {
    same_run("dpo", &[]);
}

#[test]
fn ppo_with_a_value_network_ends_the_same() {
    same_run("ppo", &["ppo.value_model=rewarder", "ppo.epochs=2"]);
}
