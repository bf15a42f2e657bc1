//! A run that was stopped anywhere and went on ends with the bytes of one that was not.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::{Sandbox, copy_dir, golden_rows, json_lines, metrics, row};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::path::Path;

/// Fails unless two run directories hold the same results.
#[track_caller]
pub fn assert_same_run(what: &str, ours: &Path, reference: &Path, checkpoint: Option<&str>) {
    let mut files = vec!["model.safetensors".to_owned(), "config.json".into()];
    if let Some(name) = checkpoint {
        files.extend(["model.safetensors", "optimizer.safetensors"].map(|file| format!("{name}/{file}")));
    }
    for file in files {
        let read = |run: &Path| std::fs::read(run.join(&file)).unwrap_or_else(|e| panic!("{what}: {file}: {e}"));
        assert!(read(ours) == read(reference), "{what}: {file} differs");
    }
    assert_eq!(metrics(ours), metrics(reference), "{what}: metrics.jsonl");
    for file in ["samples.jsonl", "value_head.safetensors"] {
        let read = |run: &Path| std::fs::read(run.join(file)).ok();
        assert!(read(ours) == read(reference), "{what}: {file} differs");
    }
    for dir in [Some(""), checkpoint].into_iter().flatten() {
        assert_eq!(state(&ours.join(dir)), state(&reference.join(dir)), "{what}: trainer_state.json {dir}");
    }
}

/// `trainer_state.json` without its timing.
fn state(dir: &Path) -> Value {
    let mut state: Value = serde_json::from_slice(&std::fs::read(dir.join("trainer_state.json")).unwrap()).unwrap();
    state.as_object_mut().unwrap().remove("train_runtime");
    state
}

/// Leaves of a finished run what a process that was killed after `checkpoint-N` would have left: no final model, the log
/// as it stood when the process died (later lines included).
pub fn as_if_killed(run: &Path, to: &Path, checkpoint: &str) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(run).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == checkpoint {
            copy_dir(&run.join(&name), &to.join(&name));
        } else if [
            "metrics.jsonl",
            "samples.jsonl",
            "config.toml",
            "reference_logprobs.safetensors",
            "micro_batch.json",
        ]
        .contains(&name.as_str())
        {
            std::fs::copy(run.join(&name), to.join(&name)).unwrap();
        }
    }
}

/// 8 steps over 10 rows in batches of 4, 4, 2: two epochs and two thirds; a checkpoint every 4, in the second epoch; a
/// line every 3, so that the checkpoint falls between lines; evaluation every 2.
const RUN: &[&str] =
    &["train.steps=8", "train.save_every=4", "train.log_every=3", "train.keep=9", "train.micro_batch_size=3"];

fn resumed_equals_uninterrupted(stage: &str, more: &[&str]) {
    let sandbox = Sandbox::with_stages();
    let eval = if stage == "sft" { "data.eval=sft.jsonl" } else { "data.eval=pairs.jsonl" };
    let overrides = [RUN, &[eval, "train.eval_every=2", "train.weight_decay=0.01"], more].concat();
    sandbox.stage(stage, &overrides).ok();
    // Another directory, where `run` means another place.
    let other = Sandbox::with_stages();
    as_if_killed(&sandbox.path("run"), &other.path("run"), "checkpoint-4");
    let resumed = other.stage(stage, &[overrides.as_slice(), &["train.resume=true"]].concat()).ok();
    assert!(resumed.stderr.contains("going on from run/checkpoint-4"), "{}", resumed.stderr);
    assert_same_run(&format!("{stage} {more:?}"), &other.path("run"), &sandbox.path("run"), Some("checkpoint-8"));
    let lines = metrics(&other.path("run"));
    let steps: Vec<u64> = json_lines(&other.path("run/metrics.jsonl"))
        .iter()
        .filter(|line| line.contains_key("loss"))
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [3, 6, 8], "{lines:#?}");
}

#[test]
fn sft_resumes_bit_for_bit() {
    resumed_equals_uninterrupted("sft", &["train.schedule=cosine", "train.warmup_steps=5"]);
}

#[test]
fn sft_with_dropout_and_random_weights_resumes_bit_for_bit() {
    resumed_equals_uninterrupted("sft", &["model.dropout=0.1", "model.init=config"]);
}

#[test]
fn sft_in_bfloat16_resumes_bit_for_bit() {
    resumed_equals_uninterrupted("sft", &["model.dtype=bfloat16", "train.save_dtype=bfloat16"]);
}

#[test]
fn reward_resumes_bit_for_bit() {
    resumed_equals_uninterrupted("reward", &["reward.normalize=true"]);
}

#[test]
fn reward_with_summed_pooling_resumes_bit_for_bit() {
    resumed_equals_uninterrupted("reward", &["reward.pooling=sum", "reward.margin=0.2"]);
}

#[test]
fn dpo_resumes_bit_for_bit() {
    resumed_equals_uninterrupted("dpo", &[]);
}

#[test]
fn ppo_resumes_bit_for_bit() {
    resumed_equals_uninterrupted(
        "ppo",
        &["ppo.epochs=2", "ppo.minibatches=2", "ppo.target_kl=0.1", "ppo.kl_horizon=40"],
    );
}

#[test]
fn ppo_with_a_value_network_and_a_sampling_temperature_resumes_bit_for_bit() {
    let network = "ppo.value_model=rewarder";
    resumed_equals_uninterrupted("ppo", &[network, "ppo.temperature=0.8", "ppo.whiten_rewards=true"]);
}

#[test]
fn a_run_killed_between_its_last_line_and_its_final_model_says_nothing_twice() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("sft", RUN).ok();
    let other = Sandbox::with_stages();
    as_if_killed(&sandbox.path("run"), &other.path("run"), "checkpoint-8");
    other.stage("sft", &[RUN, &["train.resume=true"]].concat()).ok();
    assert_same_run("killed at the end", &other.path("run"), &sandbox.path("run"), Some("checkpoint-8"));
}

#[test]
fn half_a_line_and_half_a_directory_are_no_hindrance() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("sft", RUN).ok();
    let other = Sandbox::with_stages();
    as_if_killed(&sandbox.path("run"), &other.path("run"), "checkpoint-4");
    let log = other.path("run/metrics.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, &text[..text.find('\n').unwrap() + 40]).unwrap();
    other.write("run/.checkpoint-8.tmp/model.safetensors", "half");
    other.write("run/.final.tmp/config.json", "{");
    other.write("run/.config.toml.tmp", "x");
    let ran = other.stage("sft", &[RUN, &["train.resume=true"]].concat()).ok();
    for name in [".checkpoint-8.tmp", ".final.tmp", ".config.toml.tmp"] {
        assert!(ran.stderr.contains(&format!("removing run/{name}")), "not named: {}", ran.stderr);
        assert!(!other.path("run").join(name).exists(), "{name} is still there");
    }
    assert_same_run("leftovers", &other.path("run"), &sandbox.path("run"), Some("checkpoint-8"));
}

#[test]
fn a_run_that_never_reached_a_checkpoint_starts_anew() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("dpo", RUN).ok();
    let other = Sandbox::with_stages();
    as_if_killed(&sandbox.path("run"), &other.path("run"), "none");
    other.stage("dpo", &[RUN, &["train.resume=true"]].concat()).ok();
    assert_same_run("from the start", &other.path("run"), &sandbox.path("run"), Some("checkpoint-8"));
    // And where there is nothing at all, `resume` starts.
    let empty = Sandbox::with_stages();
    empty.stage("dpo", &[RUN, &["train.resume=true"]].concat()).ok();
    assert_same_run("from nothing", &empty.path("run"), &sandbox.path("run"), Some("checkpoint-8"));
}

/// Kills with SIGKILL after a random number of changes in the run directory, again and again, until the run is through.
fn killed_at_random_equals_uninterrupted(stage: &str, seed: u64, more: &[&str]) {
    let run = ["train.steps=40", "train.save_every=2", "train.log_every=3", "train.keep=1"];
    let overrides = [run.as_slice(), more].concat();
    let sandbox = Sandbox::with_stages();
    sandbox.stage(stage, &overrides).ok();
    let victim = Sandbox::with_stages();
    let resume = [overrides.as_slice(), &["train.resume=true"]].concat();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut kills = 0;
    for _ in 0..5 {
        let mut left = 1 + rng.next_u32() % 60;
        let mut child = victim.start(stage, &resume);
        let mut seen = listing(&victim.path("run"));
        while left > 0 && !child.ended() {
            let now = listing(&victim.path("run"));
            if now != seen {
                left -= 1;
                seen = now;
            }
        }
        if child.ended() {
            break;
        }
        child.signal("KILL");
        child.finish();
        kills += 1;
    }
    assert!(kills > 0, "{stage}, seed {seed}: it was never killed");
    victim.stage(stage, &resume).ok();
    let what = format!("{stage} killed {kills} times (seed {seed})");
    assert_same_run(&what, &victim.path("run"), &sandbox.path("run"), Some("checkpoint-40"));
    let leftovers: Vec<String> = listing(&victim.path("run")).into_iter().filter(|n| n.contains(".tmp")).collect();
    assert!(leftovers.is_empty(), "{what}: {leftovers:?}");
}

/// Names in a run directory and in what it holds; metrics.jsonl with its length.
fn listing(run: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(run).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".tmp") {
            let inner = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
            names.extend(inner.map(|e| format!("{name}/{}", e.file_name().display())));
        }
        let length = entry.metadata().map_or(0, |m| if m.is_file() { m.len() } else { 0 });
        names.push(format!("{name} {}", if name == "metrics.jsonl" { length } else { 0 }));
    }
    names.sort();
    names
}

#[test]
fn sft_killed_at_random_moments_ends_the_same() {
    for seed in [1, 2] {
        killed_at_random_equals_uninterrupted("sft", seed, &["model.dropout=0.1"]);
    }
}

#[test]
fn reward_killed_at_random_moments_ends_the_same() {
    killed_at_random_equals_uninterrupted("reward", 3, &["reward.normalize=true"]);
}

#[test]
fn dpo_killed_at_random_moments_ends_the_same() {
    for seed in [4, 5] {
        killed_at_random_equals_uninterrupted("dpo", seed, &[]);
    }
}

#[test]
fn ppo_killed_at_random_moments_ends_the_same() {
    killed_at_random_equals_uninterrupted("ppo", 6, &["ppo.target_kl=0.1", "ppo.epochs=2"]);
}

#[test]
fn a_finished_run_says_so_and_stays_as_it_is() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("sft", RUN).ok();
    let before = sandbox.snapshot();
    let again = sandbox.stage("sft", &[RUN, &["train.resume=true"]].concat()).ok();
    assert!(again.stderr.contains("run is a finished run of 8 steps; nothing to do"), "{}", again.stderr);
    assert!(sandbox.snapshot() == before, "a finished run was changed");
}

#[test]
fn a_directory_with_a_run_is_refused_without_resume() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("sft", RUN).ok();
    let before = sandbox.snapshot();
    let line = sandbox.stage("sft", RUN).refused(2);
    assert!(line.contains("run: already holds a run; train.resume=true goes on with it"), "{line}");
    let line = sandbox.stage("reward", &[RUN, &["train.resume=true"]].concat()).refused(2);
    assert!(line.contains("run: ") && line.contains("another configuration"), "{line}");
    assert!(sandbox.snapshot() == before, "a refusal wrote something");
}

#[test]
fn a_changed_configuration_is_refused_by_key() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("sft", RUN).ok();
    let other = Sandbox::with_stages();
    as_if_killed(&sandbox.path("run"), &other.path("run"), "checkpoint-4");
    let before = other.snapshot();
    let changed = ["train.resume=true", "train.learning_rate=2e-3", "data.boundary=separate", "train.eval_every=4"];
    let line = other.stage("sft", &[RUN, &changed, &["data.eval=sft.jsonl"]].concat()).refused(2);
    for part in [
        "train.learning_rate was 0.001, is now 0.002",
        "data.boundary was \"joint\", is now \"separate\"",
        "train.eval_every was (unset), is now 4",
        "data.eval was (unset), is now \"sft.jsonl\"",
        "set these back",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    assert!(!line.contains("train.resume"), "{line}");
    assert!(other.snapshot() == before, "a refusal wrote something");
    // What decides only what is kept may change.
    let free = ["train.resume=true", "train.keep=1", "train.save_every=3"];
    other.stage("sft", &[RUN, &free].concat()).ok();
    assert_same_run("other checkpoints", &other.path("run"), &sandbox.path("run"), None);
}

#[test]
fn a_run_that_was_moved_goes_on() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("sft", RUN).ok();
    as_if_killed(&sandbox.path("run"), &sandbox.path("moved"), "checkpoint-4");
    sandbox.stage("sft", &[RUN, &["train.resume=true", "train.output=moved"]].concat()).ok();
    assert_same_run("moved", &sandbox.path("moved"), &sandbox.path("run"), Some("checkpoint-8"));
}

#[test]
fn other_rows_than_the_run_began_with_are_refused() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("sft", RUN).ok();
    let other = Sandbox::with_stages();
    as_if_killed(&sandbox.path("run"), &other.path("run"), "checkpoint-4");
    let mut one_changed = golden_rows("sft.jsonl", 10);
    one_changed[7].insert("completion".into(), json!(" dull."));
    for rows in [vec![row(json!({"prompt": "The film was", "completion": " good."}))], one_changed] {
        other.rows("sft.jsonl", &rows);
        let line = other.stage("sft", &[RUN, &["train.resume=true"]].concat()).refused(2);
        assert!(line.contains("checkpoint-4: the run began with other contents of: rows"), "{line}");
    }
}
