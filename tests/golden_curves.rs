//! Whole stages through the command line against TRL 1.16's trainers: every logged metric of 8 updates and the final
//! weights (scripts/goldens/curves.py says what TRL's figures are means of).
#![allow(clippy::unwrap_used)]
use crate::support::{assert_close, assert_number, device_name, golden, json, list, number, program, tensors};
use serde_json::Value;
use std::path::Path;

/// What TRL logs in DPO and we do not.
const NOT_OURS: [&str; 4] = ["logits/chosen", "logits/rejected", "entropy", "mean_token_accuracy"];

struct Run {
    /// The reference run: `curves/<name>.json`.
    name: &'static str,
    stage: &'static str,
    model: &'static str,
    data: &'static str,
    /// More lines of the configuration, as overrides.
    overrides: &'static [&'static str],
    /// Whether TRL's per-token metrics are means over micro-batches of different size and so no reference.
    accumulated: bool,
    /// Whether nothing but rounding moves all rewards together (a reward model without centring).
    free_offset: bool,
}

const SFT: Run = Run {
    name: "sft",
    stage: "sft",
    model: "gpt2-tiny",
    data: "sft.jsonl",
    overrides: &[],
    accumulated: false,
    free_offset: false,
};
const REWARD: Run =
    Run { name: "reward", stage: "reward", model: "gpt2-tiny-reward", data: "preferences.jsonl", ..SFT };
const DPO: Run =
    Run { name: "dpo-sigmoid", stage: "dpo", data: "preferences.jsonl", overrides: &["dpo.beta=0.5"], ..SFT };

impl Run {
    /// Runs the stage into a directory of its own.
    fn execute(&self) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let reference = json(&format!("curves/{}.json", self.name));
        let settings = &reference["settings"];
        let model = directory.path().join("model");
        complete_model(self.model, &model);
        let schedule = settings["lr_scheduler_type"].as_str().unwrap();
        let config = format!(
            "[model]\npath = {model:?}\ndevice = \"{device}\"\n[data]\ntrain = {data:?}\nmax_length = 64\n[train]\noutput = {output:?}\n\
             steps = {steps}\nbatch_size = {batch}\nmicro_batch_size = {micro}\nlearning_rate = {rate}\n\
             schedule = {schedule:?}\nwarmup_steps = {warmup}\nweight_decay = {decay}\nshuffle = false\nlog_every = 1\n",
            device = device_name(),
            data = golden("curves").join(self.data),
            output = directory.path().join("run"),
            steps = settings["max_steps"],
            batch = reference["batch_size"],
            micro = reference["micro_batch_size"],
            rate = settings["learning_rate"],
            warmup = settings["warmup_steps"],
            decay = settings["weight_decay"],
        );
        let path = directory.path().join("config.toml");
        std::fs::write(&path, config).unwrap();
        let output =
            program().arg(self.stage).arg(&path).args(self.overrides).env("OMP_NUM_THREADS", "1").output().unwrap();
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        directory
    }

    /// Whether a figure of TRL's is no reference for ours.
    fn leaves_out(&self, step: usize, key: &str) -> bool {
        let per_token = ["entropy", "mean_token_accuracy"].contains(&key);
        let offset = ["min_reward", "mean_reward", "max_reward"].contains(&key);
        (self.stage == "dpo" && NOT_OURS.contains(&key))
            || (self.accumulated && per_token)
            || (self.free_offset && offset && step > 0)
    }

    /// Compares metrics.jsonl line by line with TRL's log.
    fn compare_metrics(&self, run: &Path) {
        let reference = json(&format!("curves/{}.json", self.name));
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.len() >= list(&reference, "history").len(), "{}: {} lines", self.name, lines.len());
        for (step, expected) in list(&reference, "history").iter().enumerate() {
            for (key, value) in expected.as_object().unwrap() {
                if self.leaves_out(step, key) {
                    continue;
                }
                let what = format!("{}, line {}, {key}", self.name, step + 1);
                assert!(lines[step][key].is_number(), "{what}: not in {}", lines[step]);
                assert_number(&what, number(&lines[step], key), value.as_f64().unwrap(), 1e-4);
            }
        }
    }

    /// Compares the final model with TRL's in `weights`: within 3 % of one step at the peak learning rate.
    fn compare_weights(&self, run: &Path, weights: &str) {
        let settings = &json(&format!("curves/{}.json", self.name))["settings"];
        let tolerance = 0.03 * number(settings, "learning_rate");
        let expected = tensors(&golden("curves").join(weights));
        let start = tensors(&golden("models").join(self.model).join("model.safetensors"));
        let ours = tensors(&run.join("model.safetensors"));
        assert_eq!(ours.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{}", self.name);
        for (name, tensor) in &expected {
            let what = format!("{}, final {name}", self.name);
            let moved = (tensor - &start[name]).abs().max().double_value(&[]);
            assert!(moved > 20.0 * tolerance, "{what}: moved by {moved} only, the comparison says little");
            if self.free_offset && name == "transformer.ln_f.bias" {
                continue;
            }
            let third = tensor.size()[0] / 3;
            // Softmax does not see a bias of the keys: its gradient is rounding, which Adam scales up to whole steps.
            let parts = if name.ends_with("attn.c_attn.bias") {
                vec![(0, third), (2 * third, third)]
            } else {
                vec![(0, tensor.size()[0])]
            };
            for (from, length) in parts {
                assert_close(&what, &ours[name].narrow(0, from, length), &tensor.narrow(0, from, length), tolerance);
            }
        }
    }

    fn check(&self) {
        let directory = self.execute();
        let run = directory.path().join("run");
        self.compare_metrics(&run);
        self.compare_weights(&run, &format!("{}.safetensors", self.name));
    }
}

/// A model directory with a tokenizer: the golden classifier has none of its own.
fn complete_model(name: &str, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for (from, file) in [
        (name, "config.json"),
        (name, "model.safetensors"),
        ("gpt2-tiny", "tokenizer.json"),
        ("gpt2-tiny", "tokenizer_config.json"),
    ] {
        std::fs::copy(golden("models").join(from).join(file), to.join(file)).unwrap();
    }
}

#[test]
fn sft() {
    SFT.check();
}

/// Decay, warm-up, a cosine, whole texts as targets, and a rate at which accuracy moves.
#[test]
fn sft_of_whole_texts() {
    Run { name: "sft-whole-text", overrides: &["data.completion_only=false"], ..SFT }.check();
}

/// Two micro-batches of different token counts: the same losses and weights as the whole batch.
#[test]
fn sft_accumulated() {
    let run = Run { name: "sft-accumulated", accumulated: true, ..SFT };
    let directory = run.execute();
    run.compare_metrics(&directory.path().join("run"));
    run.compare_weights(&directory.path().join("run"), "sft.safetensors");
    // The per-token metrics are over the whole step: those of TRL's run without accumulation.
    SFT.compare_metrics(&directory.path().join("run"));
}

#[test]
fn reward() {
    Run { free_offset: true, ..REWARD }.check();
}

#[test]
fn reward_with_margins_and_centring() {
    Run { name: "reward-margin", data: "preferences-margin.jsonl", overrides: &["reward.centering=0.01"], ..REWARD }
        .check();
}

#[test]
fn dpo() {
    DPO.check();
}

#[test]
fn dpo_hinge() {
    Run { name: "dpo-hinge", overrides: &["dpo.beta=0.5", "dpo.loss=hinge"], ..DPO }.check();
}

#[test]
fn dpo_ipo() {
    Run { name: "dpo-ipo", overrides: &["dpo.beta=0.5", "dpo.loss=ipo"], ..DPO }.check();
}

#[test]
fn dpo_robust() {
    let overrides = &["dpo.beta=0.5", "dpo.loss=robust", "dpo.label_smoothing=0.1"];
    Run { name: "dpo-robust", overrides, ..DPO }.check();
}
