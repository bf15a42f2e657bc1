//! Checkpoints: whole or passed over, pruned as documented, never replaced by a run that went wrong.
#![allow(clippy::unwrap_used)]
use super::resume::assert_same_run;
use crate::support::sandbox::{Sandbox, json_lines};
use crate::support::{golden, tensors};
use sha2::{Digest, Sha256};
use std::path::Path;
use tch::{Kind, Tensor};

/// Steps of the checkpoints in `run`.
fn checkpoints(run: &Path) -> Vec<u64> {
    let names = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut steps: Vec<u64> = names.filter_map(|name| name.strip_prefix("checkpoint-")?.parse().ok()).collect();
    steps.sort_unstable();
    steps
}

/// Fails unless `dir` holds exactly the files of its manifest, with their sums.
fn assert_whole(dir: &Path) {
    let text = std::fs::read(dir.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let sums = manifest["sha256"].as_object().unwrap();
    for (name, sum) in sums {
        let digest = Sha256::digest(std::fs::read(dir.join(name)).unwrap());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, sum.as_str().unwrap(), "{}/{name}", dir.display());
    }
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "trainer_state.json"] {
        assert!(sums.contains_key(name), "{name} is not in {}", dir.display());
    }
}

const RUN: &[&str] = &["train.steps=8", "train.save_every=2"];

/// An interrupted run: the final model gone, checkpoints as `keep` left them.
fn interrupted(sandbox: &Sandbox, more: &[&str]) {
    sandbox.stage("sft", &[RUN, more].concat()).ok();
    for name in ["manifest.json", "trainer_state.json", "model.safetensors"] {
        std::fs::remove_file(sandbox.path("run").join(name)).unwrap();
    }
}

#[test]
fn a_checkpoint_and_a_run_hold_what_their_manifests_say() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("sft", &[RUN, &["train.save_dtype=bfloat16"]].concat()).ok();
    let run = sandbox.path("run");
    for dir in [run.clone(), run.join("checkpoint-6"), run.join("checkpoint-8")] {
        assert_whole(&dir);
    }
    let moments = tensors(&run.join("checkpoint-8/optimizer.safetensors"));
    let model = tensors(&run.join("checkpoint-8/model.safetensors"));
    assert_eq!(moments.len(), 3 * model.len());
    assert_eq!(moments["transformer.wte.weight.step"].double_value(&[]), 8.0);
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.join("checkpoint-6/trainer_state.json")).unwrap()).unwrap();
    assert_eq!((state["step"].as_u64(), state["finished"].as_bool()), (Some(6), Some(false)));
}

#[test]
fn the_newest_keep_and_the_best_stay() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("sft", RUN).ok();
    assert_eq!(checkpoints(&sandbox.path("run")), [6, 8], "keep is 2");
    sandbox.stage("sft", &[RUN, &["train.keep=3", "train.output=three"]].concat()).ok();
    assert_eq!(checkpoints(&sandbox.path("three")), [4, 6, 8]);
    sandbox.stage("sft", &["train.steps=3", "train.output=none"]).ok();
    assert_eq!(checkpoints(&sandbox.path("none")), [0u64; 0], "without save_every there is only the final model");
    assert_whole(&sandbox.path("none"));
    // A rate that rises until it does harm: the best evaluation is neither the first nor among the last.
    let rising = ["train.steps=12", "train.warmup_steps=12", "train.learning_rate=0.5", "train.output=best"];
    let best = ["data.eval=sft.jsonl", "train.eval_every=1", "train.save_every=4", "train.keep_best=true"];
    sandbox.stage("sft", &[rising, best].concat().iter().copied().chain(["train.keep=1"]).collect::<Vec<_>>()).ok();
    let lines = json_lines(&sandbox.path("best/metrics.jsonl"));
    let evals: Vec<(f64, u64)> =
        lines.iter().filter_map(|line| Some((line.get("eval_loss")?.as_f64()?, line["step"].as_u64()?))).collect();
    let lowest = evals.iter().fold((f64::INFINITY, 0), |a, b| if b.0 < a.0 { *b } else { a });
    assert!(lowest.1 > 1 && lowest.1 < 12, "{evals:?}");
    assert_eq!(checkpoints(&sandbox.path("best")), [lowest.1, 12]);
}

#[test]
fn a_broken_checkpoint_is_named_and_the_one_before_it_used() {
    let reference = Sandbox::with_stages();
    reference.stage("sft", RUN).ok();
    type Damage = dyn Fn(&Path);
    let kinds: [(&str, &Damage); 4] = [
        ("model.safetensors", &|dir| cut(&dir.join("model.safetensors"))),
        ("optimizer.safetensors", &|dir| flip(&dir.join("optimizer.safetensors"))),
        ("trainer_state.json", &|dir| std::fs::remove_file(dir.join("trainer_state.json")).unwrap()),
        ("manifest.json", &|dir| std::fs::write(dir.join("manifest.json"), "{").unwrap()),
    ];
    for (file, damage) in kinds {
        let sandbox = Sandbox::with_stages();
        interrupted(&sandbox, &[]);
        damage(&sandbox.path("run/checkpoint-8"));
        let ran = sandbox.stage("sft", &[RUN, &["train.resume=true"]].concat()).ok();
        let named = ran.stderr.contains(&format!("passing over a broken checkpoint: run/checkpoint-8/{file}"));
        assert!(named, "{file}: {}", ran.stderr);
        assert!(ran.stderr.contains("going on from run/checkpoint-6"), "{}", ran.stderr);
        assert_same_run(file, &sandbox.path("run"), &reference.path("run"), Some("checkpoint-8"));
        assert_whole(&sandbox.path("run/checkpoint-8"));
    }
}

fn cut(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_broken_newer_checkpoint_does_not_push_out_whole_ones() {
    let sandbox = Sandbox::with_stages();
    interrupted(&sandbox, &[]);
    std::fs::remove_dir_all(sandbox.path("run/checkpoint-8")).unwrap();
    // As a run with more steps, or a full disk, might have left it.
    sandbox.write("run/checkpoint-99/config.json", "{");
    let ran = sandbox.stage("sft", &[RUN, &["train.resume=true", "train.keep=1", "train.save_every=1"]].concat()).ok();
    assert!(ran.stderr.contains("broken checkpoint: run/checkpoint-99/manifest.json"), "{}", ran.stderr);
    assert!(ran.stderr.contains("removing run/checkpoint-99"), "{}", ran.stderr);
    assert_eq!(checkpoints(&sandbox.path("run")), [8], "a whole checkpoint was removed for a broken one");
    assert_whole(&sandbox.path("run/checkpoint-8"));
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint() {
    for stage in ["sft", "reward", "dpo"] {
        let sandbox = Sandbox::with_stages();
        // The rate is 0, then absurd: step 3 meets the weights that step 2 made.
        let absurd = ["train.steps=9", "train.save_every=1", "train.learning_rate=1e30", "train.warmup_steps=2"];
        let ran = sandbox.stage(stage, &[absurd.as_slice(), &["train.schedule=constant"]].concat());
        let line = ran.refused(1);
        let data = if stage == "sft" { "sft.jsonl" } else { "pairs.jsonl" };
        assert!(line.starts_with("error: step 3: ") && line.contains("no checkpoint was replaced"), "{line}");
        // Step 3 is the epoch's last two rows.
        assert_eq!(line.matches(&format!("{data}:")).count(), 2, "{line}");
        let run = sandbox.path("run");
        assert_eq!(checkpoints(&run), [1, 2]);
        assert_whole(&run.join("checkpoint-2"));
        assert!(!run.join("model.safetensors").exists(), "a final model of a run that failed");
        assert!(!run.join("checkpoint-3").exists());
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused_before_anything_is_written() {
    let sandbox = Sandbox::with_stages();
    let source = golden("models/gpt2-tiny");
    crate::support::sandbox::copy_dir(&source, &sandbox.path("nan"));
    let mut weights = tensors(&source.join("model.safetensors"));
    let bad = Tensor::full([16], f64::NAN, (Kind::Float, tch::Device::Cpu));
    weights.insert("transformer.ln_f.bias".into(), bad);
    let named = weights.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let metadata = collimate::tensors::pt_metadata();
    collimate::tensors::write(&sandbox.path("nan/model.safetensors"), named, None, metadata).unwrap();
    let before = sandbox.snapshot();
    let line = sandbox.stage("sft", &["model.path=nan"]).refused(2);
    assert!(line.contains("nan/model.safetensors") && line.contains("transformer.ln_f.bias"), "{line}");
    assert!(sandbox.snapshot() == before);
}

#[cfg(unix)]
#[test]
fn a_run_s_files_can_be_read_by_whoever_the_umask_allows() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::with_stages();
    sandbox.stage("sft", &["train.steps=1", "train.save_every=1"]).ok();
    let mode = |name: &str| std::fs::metadata(sandbox.path("run").join(name)).unwrap().permissions().mode() & 0o777;
    let usual = mode("config.json");
    for name in ["model.safetensors", "checkpoint-1/model.safetensors", "checkpoint-1/optimizer.safetensors"] {
        assert_eq!(mode(name), usual, "{name} has mode {:o}, config.json {usual:o}", mode(name));
    }
}
