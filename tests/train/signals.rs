//! Signals, and two processes that want one run directory.
#![allow(clippy::unwrap_used)]
use super::resume::assert_same_run;
use crate::support::sandbox::{Sandbox, json_lines};
use std::path::Path;

/// Long enough that a signal comes in the middle.
const LONG: &[&str] = &["train.steps=600", "train.log_every=2", "train.keep=1"];
/// Longer than anyone waits.
const ENDLESS: &[&str] = &["train.steps=100000000", "train.log_every=1", "train.schedule=constant"];

fn has_lines(run: &Path) -> bool {
    std::fs::metadata(run.join("metrics.jsonl")).is_ok_and(|m| m.len() > 0)
}

fn only_checkpoint(run: &Path) -> u64 {
    let names = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let steps: Vec<u64> = names.filter_map(|name| name.strip_prefix("checkpoint-")?.parse().ok()).collect();
    assert_eq!(steps.len(), 1, "{steps:?}");
    steps[0]
}

#[test]
fn sigterm_leaves_a_checkpoint_from_which_the_run_ends_the_same() {
    let short = ["train.steps=80", "ppo.target_kl=0.2"];
    for (stage, more) in [("sft", ["model.dropout=0.1"].as_slice()), ("dpo", &[]), ("ppo", &short)] {
        let overrides = [LONG, more].concat();
        let reference = Sandbox::with_stages();
        reference.stage(stage, &overrides).ok();
        let sandbox = Sandbox::with_stages();
        let mut child = sandbox.start(stage, &overrides);
        child.wait_for(|| has_lines(&sandbox.path("run")));
        child.signal("TERM");
        let line = child.finish().refused(143);
        let step = only_checkpoint(&sandbox.path("run"));
        assert!(step < 600, "{stage}: it was through before the signal came");
        let message = format!("error: stopped by SIGTERM after step {step}; go on with train.resume=true");
        assert_eq!(line, message);
        assert!(!sandbox.path("run/model.safetensors").exists());
        let ran = sandbox.stage(stage, &[overrides.as_slice(), &["train.resume=true"]].concat()).ok();
        assert!(ran.stderr.contains(&format!("going on from run/checkpoint-{step}")), "{}", ran.stderr);
        assert_same_run(stage, &sandbox.path("run"), &reference.path("run"), None);
    }
}

#[test]
fn sigint_exits_with_130() {
    let sandbox = Sandbox::with_stages();
    let mut child = sandbox.start("reward", ENDLESS);
    child.wait_for(|| has_lines(&sandbox.path("run")));
    child.signal("INT");
    let line = child.finish().refused(130);
    let step = only_checkpoint(&sandbox.path("run"));
    assert_eq!(line, format!("error: stopped by SIGINT after step {step}; go on with train.resume=true"));
    let lines = json_lines(&sandbox.path("run/metrics.jsonl"));
    assert_eq!(lines.last().unwrap()["step"].as_u64(), Some(step), "log_every is 1: the last step was logged");
}

#[test]
fn a_second_process_leaves_and_names_the_first() {
    let sandbox = Sandbox::with_stages();
    let mut first = sandbox.start("sft", ENDLESS);
    first.wait_for(|| has_lines(&sandbox.path("run")));
    for more in [&[][..], &["train.resume=true"]] {
        let line = sandbox.stage("sft", &[ENDLESS, more].concat()).refused(2);
        assert!(line.contains(&format!("run: process {} on ", first.id())), "{line}");
        assert!(line.contains(" is running there; wait for it, stop it"), "{line}");
        assert!(!first.ended(), "the first process was disturbed");
    }
    first.signal("TERM");
    assert_eq!(first.finish().code, 143);
    // It holds nothing any more.
    let line = sandbox.stage("sft", ENDLESS).refused(2);
    assert!(line.contains("already holds a run"), "{line}");
}

#[test]
fn a_second_signal_leaves_at_once() {
    // The first one waits for a boundary, which a reward that never comes keeps far away.
    let sandbox = Sandbox::with_stages();
    let text = std::fs::read_to_string(sandbox.path("ppo.toml")).unwrap();
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("reward_model")).collect();
    sandbox.write("ppo.toml", text.join("\n"));
    sandbox.write(
        "slow.py",
        "import os, sys, time\nsys.stdin.readline()\nopen('pid', 'w').write(str(os.getpid()))\nos.rename('pid', 'asked')\n\
         time.sleep(600)\n",
    );
    let mut child = sandbox.start("ppo", &["ppo.reward_command=[\"python3\", \"slow.py\"]", "ppo.reward_timeout=600"]);
    child.wait_for(|| sandbox.path("asked").exists());
    child.signal("TERM");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!child.ended(), "the first signal waits for a boundary");
    // The other one of the two counts as the second, too.
    child.signal("INT");
    assert_eq!(child.finish().code, 130);
    let program = std::fs::read_to_string(sandbox.path("asked")).unwrap();
    let state = std::fs::read_to_string(format!("/proc/{program}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "the reward program lives on: {state}");
}

#[test]
fn what_has_no_checkpoints_ends_at_the_first_signal() {
    let sandbox = Sandbox::with_stages();
    let many: Vec<_> =
        (0..400).map(|_| crate::support::sandbox::row(serde_json::json!({"prompt": "The film"}))).collect();
    sandbox.rows("many.jsonl", &many);
    let model = crate::support::golden("models/gpt2-tiny").display().to_string();
    let (samples, tokens) = (["--samples", "1000"], ["--max-new-tokens", "48"]);
    let args = [&["generate", "--model", &model, "--prompts", "many.jsonl"][..], &samples, &tokens].concat();
    let mut child = sandbox.start_any(&args);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(!child.ended(), "400,000 completions in a second");
    child.signal("TERM");
    assert_eq!(child.finish().code, -1, "ended by the signal itself");
}

#[test]
fn a_signal_in_an_evaluation_keeps_the_step_and_the_evaluation_is_made_up_for() {
    let many: Vec<_> =
        (0..400).map(|_| crate::support::sandbox::row(serde_json::json!({"prompt": "The film"}))).collect();
    let overrides = ["train.steps=3", "train.log_every=1", "data.eval=many.jsonl", "train.eval_every=2"];
    let reference = Sandbox::with_stages();
    reference.rows("many.jsonl", &many);
    reference.stage("ppo", &overrides).ok();
    let sandbox = Sandbox::with_stages();
    sandbox.rows("many.jsonl", &many);
    let mut child = sandbox.start("ppo", &overrides);
    // Its second line is written; the evaluation takes seconds.
    child.wait_for(|| std::fs::read_to_string(sandbox.path("run/metrics.jsonl")).is_ok_and(|t| t.lines().count() == 2));
    child.signal("TERM");
    assert_eq!(child.finish().code, 143);
    assert!(sandbox.path("run/checkpoint-2/manifest.json").exists(), "two steps are lost");
    sandbox.stage("ppo", &[overrides.as_slice(), &["train.resume=true"]].concat()).ok();
    assert_same_run("evaluation", &sandbox.path("run"), &reference.path("run"), None);
}
