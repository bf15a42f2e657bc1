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
    for (stage, more) in [("sft", ["model.dropout=0.1"].as_slice()), ("dpo", &[])] {
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
