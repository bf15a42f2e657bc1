//! `collimate experiment sentiment` on a tiny model: what it leaves, what it skips, what it refuses.
#![allow(clippy::unwrap_used)]
use crate::support::golden;
use crate::support::sandbox::{Ran, Sandbox, golden_rows, row};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A sandbox with `experiment.toml`: 2 betas, 1 coefficient, a few steps each.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let texts: Vec<Map<String, Value>> =
        golden_rows("sft.jsonl", 10).iter().map(|r| row(json!({"text": joined(r, "prompt", "completion")}))).collect();
    sandbox.rows("sft.jsonl", &texts);
    let pairs = golden_rows("preferences.jsonl", 10);
    let judged: Vec<Map<String, Value>> = pairs
        .iter()
        .map(|r| row(json!({"chosen": joined(r, "prompt", "chosen"), "rejected": joined(r, "prompt", "rejected")})))
        .collect();
    sandbox.rows("judge.jsonl", &judged[..7]);
    sandbox.rows("judge_eval.jsonl", &judged[7..]);
    let prompts: Vec<Map<String, Value>> = pairs.iter().map(|r| row(json!({"prompt": r["prompt"]}))).collect();
    sandbox.rows("prompts.jsonl", &prompts[..6]);
    sandbox.rows("eval_prompts.jsonl", &prompts[6..]);
    let model = golden("models/gpt2-tiny");
    let train = "learning_rate = 1e-2\nbatch_size = 4\nlog_every = 1\n";
    sandbox.write(
        "experiment.toml",
        format!(
            "[experiment]\noutput = \"out\"\ndevice = \"cpu\"\nbetas = [0.1, 1]\nkl_coefs = [0.2]\nsamples = 6\npairs = 3\n\
             max_new_tokens = 24\n\n[data]\njudge = \"judge.jsonl\"\njudge_eval = \"judge_eval.jsonl\"\nsft = \"sft.jsonl\"\n\
             prompts = \"prompts.jsonl\"\neval_prompts = \"eval_prompts.jsonl\"\n\n[sft.model]\npath = {model:?}\n\n\
             [sft.train]\nsteps = 40\n{train}\n[judge.train]\nsteps = 3\n{train}\n[reward.train]\nsteps = 3\n{train}\n[dpo.train]\nsteps = 3\n{train}\n[ppo.train]\nsteps = 3\n{train}"
        ),
    );
    sandbox
}

fn joined(row: &Map<String, Value>, a: &str, b: &str) -> String {
    [a, b].map(|name| row[name].as_str().unwrap()).concat()
}

fn experiment(sandbox: &Sandbox, overrides: &[&str]) -> Ran {
    sandbox.run(&[&["experiment", "sentiment", "experiment.toml"], overrides].concat())
}

/// Parts that ran, by the log.
fn ran_parts(ran: &Ran) -> Vec<String> {
    let titles = ran.stderr.lines().filter_map(|line| line.strip_prefix(" INFO == "));
    let anew = titles.filter(|title| !title.contains("done before"));
    anew.map(|title| title.split([' ', ':']).nth(1).unwrap().to_owned()).collect()
}

/// The final weights in the directory; a signal leaves a checkpoint beside them.
fn weights(sandbox: &Sandbox) -> BTreeMap<PathBuf, Vec<u8>> {
    let weights = |path: &PathBuf| {
        path.ends_with("model.safetensors") && path.parent().unwrap().parent() == Some(&sandbox.path("out"))
    };
    let inside = |path: PathBuf| path.strip_prefix(sandbox.path("out")).unwrap().to_owned();
    sandbox
        .snapshot()
        .into_iter()
        .filter(|(path, _)| weights(path))
        .map(|(path, bytes)| (inside(path), bytes))
        .collect()
}

const ALL: [&str; 11] = [
    "sft",
    "judge",
    "pairs",
    "reward",
    "dpo-beta-0.1",
    "dpo-beta-1",
    "ppo-coef-0.2",
    "measure-sft",
    "measure-dpo-beta-0.1",
    "measure-dpo-beta-1",
    "measure-ppo-coef-0.2",
];

#[test]
fn every_part_runs_once_and_a_changed_setting_runs_what_depends_on_it() {
    let sandbox = sandbox();
    let first = experiment(&sandbox, &[]).ok();
    assert_eq!(ran_parts(&first), ALL);
    assert!(first.stdout.contains("report: out/report.html"), "{}", first.stdout);
    let points: Vec<Value> =
        serde_json::from_slice(&std::fs::read(sandbox.path("out/frontier.json")).unwrap()).unwrap();
    let named: Vec<(&str, &str)> =
        points.iter().map(|p| (p["method"].as_str().unwrap(), p["setting"].as_str().unwrap())).collect();
    assert_eq!(named, [("sft", ""), ("dpo", "beta=0.1"), ("dpo", "beta=1"), ("ppo", "kl_coef=0.2")]);
    for point in &points {
        for name in ["seed", "step", "gold_reward", "gold_reward_se", "proxy_reward", "kl", "kl_se", "win_rate"] {
            assert!(point[name].is_number(), "{name}: {point}");
        }
    }
    assert!(points[0]["kl"].as_f64().unwrap().abs() < 1e-5 && points[0]["win_rate"] == json!(0.5), "{}", points[0]);
    assert!(points[1]["kl"].as_f64().unwrap() > 1e-3, "{}", points[1]);
    assert_eq!((points[0]["step"].as_u64(), points[3]["step"].as_u64()), (Some(40), Some(3)));
    let png = std::fs::read(sandbox.path("out/frontier.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG") && sandbox.path("out/frontier.svg").exists());
    let page = std::fs::read_to_string(sandbox.path("out/report.html")).unwrap();
    assert!(page.contains("ppo-coef-0.2") && page.contains("gold judge"));

    assert_eq!(ran_parts(&experiment(&sandbox, &[]).ok()), [""; 0]);
    assert_eq!(ran_parts(&experiment(&sandbox, &["ppo.ppo.epochs=2"]).ok()), ["ppo-coef-0.2", "measure-ppo-coef-0.2"]);
    let more = experiment(&sandbox, &["ppo.ppo.epochs=2", "experiment.betas=[0.1,0.5,1]"]).ok();
    assert_eq!(ran_parts(&more), ["dpo-beta-0.5", "measure-dpo-beta-0.5"]);
    // Another row of the judge: everything but SFT and its own samples' model.
    let mut text = std::fs::read_to_string(sandbox.path("judge.jsonl")).unwrap();
    text += "{\"chosen\": \"It is good.\", \"rejected\": \"It is dull.\"}\n";
    sandbox.write("judge.jsonl", text);
    assert_eq!(ran_parts(&experiment(&sandbox, &[]).ok()), ALL[1..]);
}

#[test]
fn a_killed_experiment_goes_on_and_ends_the_same() {
    let reference = sandbox();
    experiment(&reference, &[]).ok();
    let sandbox = sandbox();
    // Killed while DPO runs, and once more with a signal that leaves a checkpoint, while PPO runs.
    for (part, signal, code) in [("dpo-beta-0.1", "KILL", -1), ("ppo-coef-0.2", "TERM", 143)] {
        let args = ["experiment", "sentiment", "experiment.toml"];
        let mut child = sandbox.start_any(&args);
        let log = sandbox.path("out").join(part).join("metrics.jsonl");
        child.wait_for(|| std::fs::metadata(&log).is_ok_and(|m| m.len() > 0));
        child.signal(signal);
        let ended = child.finish();
        assert!(ended.code == code || ended.code == 0, "{part}: {} {}", ended.code, ended.stderr);
    }
    let last = experiment(&sandbox, &[]).ok();
    assert!(!ran_parts(&last).contains(&"sft".to_owned()), "what was done is done");
    let (ours, theirs) = (weights(&sandbox), weights(&reference));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (path, bytes) in &ours {
        assert!(*bytes == theirs[path], "{} differs", path.display());
    }
    let points = |sandbox: &Sandbox| -> Vec<Value> {
        let all: Vec<Value> =
            serde_json::from_slice(&std::fs::read(sandbox.path("out/frontier.json")).unwrap()).unwrap();
        let without_time = |mut point: Value| {
            point["train_seconds"].take();
            point
        };
        all.into_iter().map(without_time).collect()
    };
    assert_eq!(points(&sandbox), points(&reference));
}

#[test]
fn models_that_are_given_are_used() {
    let sandbox = sandbox();
    experiment(&sandbox, &["experiment.kl_coefs=[0.2]", "experiment.betas=[1]"]).ok();
    let text = std::fs::read_to_string(sandbox.path("experiment.toml")).unwrap();
    let (head, rest) = text.split_once("[sft.model]").unwrap();
    let (_, tail) = rest.split_once("[reward.train]").unwrap();
    let given = head.replace("\"out\"", "\"again\"\nsft = \"out/sft\"\njudge = \"out/judge\"");
    sandbox.write("experiment.toml", format!("{given}[reward.train]{tail}"));
    let ran = experiment(&sandbox, &["experiment.betas=[1]"]).ok();
    assert_eq!(ran_parts(&ran)[..2], ["pairs", "reward"]);
    let read = |run: &str| std::fs::read(sandbox.path(run).join("frontier.json")).unwrap();
    let points = |run: &str| serde_json::from_slice::<Vec<Value>>(&read(run)).unwrap();
    for (a, b) in points("out").iter().zip(points("again")) {
        assert_eq!((&a["gold_reward"], &a["kl"]), (&b["gold_reward"], &b["kl"]));
    }
}

#[test]
fn mistakes_are_named_with_their_line_before_anything_is_written() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    for (overrides, expected) in [
        (&["dpo.train.learning_rat=1"][..], "dpo.train.learning_rat: unknown key, did you mean \"learning_rate\"?"),
        (&["ppo.train.output=x"], "ppo.train.output: the experiment decides this; remove it"),
        (&["judge.reward.normalize=false"], "judge.reward.normalize: the experiment decides this; remove it"),
        (&["ppo.ppo.kl_coef=1"], "ppo.ppo.kl_coef: the experiment decides this; remove it"),
        (&["reward.dpo.beta=1"], "reward.dpo: unknown section for reward"),
        (&["experiment.betas=[]"], "experiment.betas: must be greater than 0, and at least one"),
        (&["experiment.kl_coefs=[0.1,0.1]"], "experiment.kl_coefs: names a value twice"),
        (&["experiment.samples=1"], "experiment.samples: must be at least 2"),
        (&["experiment.judge=somewhere"], "only read without experiment.judge"),
        (&["ppo.ppo.top_k=5"], "ppo.ppo.top_k: must stay off"),
        (&["dagger.train.steps=1"], "dagger: unknown section"),
        (&["data.sft=nowhere.jsonl"], "nowhere.jsonl: there is no such file"),
        (&["data.eval_prompts=nowhere.jsonl"], "nowhere.jsonl: there is no such file"),
    ] {
        let message = experiment(&sandbox, overrides).refused(2);
        assert!(message.contains(expected), "{overrides:?}: {message}");
    }
    assert!(sandbox.snapshot() == before, "something was written");
    let text = std::fs::read_to_string(sandbox.path("experiment.toml")).unwrap();
    sandbox.write("broken.toml", text.replace("[ppo.train]\nsteps = 3", "[ppo.train]\nstep = 3"));
    let line = text.lines().position(|line| line == "[ppo.train]").unwrap() + 2;
    let message = sandbox.run(&["experiment", "sentiment", "broken.toml"]).refused(2);
    assert!(message.contains(&format!("broken.toml:{line}: ppo.train.step: unknown key")), "{message}");
    // A directory that is not the experiment's is not touched.
    sandbox.write("out/sft/mine.txt", "mine");
    let message = experiment(&sandbox, &[]).refused(2);
    assert!(message.contains("out/sft: is there already, and no experiment made it"), "{message}");
    assert!(sandbox.path("out/sft/mine.txt").exists());
}

#[test]
fn a_second_process_leaves_and_disturbs_nothing() {
    let sandbox = sandbox();
    let args = ["experiment", "sentiment", "experiment.toml", "sft.train.steps=100000000"];
    let mut first = sandbox.start_any(&args);
    first.wait_for(|| std::fs::metadata(sandbox.path("out/sft/metrics.jsonl")).is_ok_and(|m| m.len() > 0));
    let message = experiment(&sandbox, &[]).refused(2);
    assert!(message.contains(&format!("out: process {} on ", first.id())), "{message}");
    assert!(!first.ended() && sandbox.path("out/sft/metrics.jsonl").exists());
    first.signal("TERM");
    assert_eq!(first.finish().code, 143);
}
