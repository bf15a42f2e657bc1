//! Pairs: who answers, which completions meet, who judges, and what stands in the rows.
#![allow(clippy::unwrap_used)]
use crate::support::golden;
use crate::support::sandbox::{Sandbox, completions, json_lines, row};
use serde_json::{Map, Value, json};

/// Judges by the share of the letter e: no ties between different lengths, nothing that a model would know.
const JUDGE: &str = "import json,sys\nfor line in sys.stdin:\n    t = json.loads(line)['completion']\n    \
    t = t if isinstance(t, str) else t[0]['content']\n    print(8 * t.count('e') / (1 + len(t)), flush=True)\n";

/// A sandbox with prompts and a configuration of the tiny GPT-2.
fn sandbox(more: &str) -> Sandbox {
    let sandbox = Sandbox::with_stages();
    let text = |i: usize| ["The film", "A scene", "They like"][i % 3].to_owned() + &" was".repeat(i / 3);
    let prompt = |i: usize| row(json!({ "prompt": text(i) }));
    sandbox.rows("prompts.jsonl", &(0..12).map(prompt).collect::<Vec<_>>());
    sandbox.write("judge.py", JUDGE);
    let model = golden("models/gpt2-tiny");
    let text = format!(
        "[collect]\nmodels = [{model:?}]\nprompts = \"prompts.jsonl\"\noutput = \"pairs_out.jsonl\"\n\
         max_new_tokens = 10\nsamples = 3\ndevice = \"cpu\"\n{more}\n"
    );
    sandbox.write("collect.toml", text);
    sandbox
}

/// A model of its own, by a few steps of SFT; its directory.
fn other(sandbox: &Sandbox, name: &str) -> String {
    let (output, rate) = (format!("train.output={name}"), format!("train.learning_rate=0.0{}", name.len()));
    sandbox.stage("sft", &[&output, &rate, "train.steps=6"]).ok();
    name.to_owned()
}

fn collect(sandbox: &Sandbox, overrides: &[&str]) -> Vec<Map<String, Value>> {
    let args: Vec<&str> = ["collect", "collect.toml"].iter().chain(overrides).copied().collect();
    _ = std::fs::remove_file(sandbox.path("pairs_out.jsonl"));
    sandbox.run(&args).ok();
    json_lines(&sandbox.path("pairs_out.jsonl"))
}

fn reward(row: &Map<String, Value>, side: &str) -> f64 {
    row[side]["reward"].as_f64().unwrap()
}

#[test]
fn unjudged_pairs_say_where_each_side_came_from_and_do_not_depend_on_the_batch() {
    let sandbox = sandbox("");
    let pairs = collect(&sandbox, &[]);
    assert_eq!(pairs.len(), 12 * 3);
    let mut first = 0;
    for pair in &pairs {
        let names: Vec<&str> = pair.keys().map(String::as_str).collect();
        assert_eq!(names, ["prompt", "a", "b", "a_source", "b_source"]);
        assert_ne!(pair["a"], pair["b"]);
        for side in ["a_source", "b_source"] {
            let source = &pair[side];
            assert_eq!(source["fingerprint"].as_str().unwrap().len(), 64);
            assert_eq!((&source["seed"], &source["temperature"]), (&json!(0), &json!(1.0)));
            assert!(source["model"].as_str().unwrap().ends_with("gpt2-tiny"));
        }
        first += usize::from(pair["a_source"]["sample"].as_u64() < pair["b_source"]["sample"].as_u64());
    }
    assert!((8..=28).contains(&first), "sides are drawn: {first} of 36");
    assert_eq!(collect(&sandbox, &["collect.batch_size=5"]), pairs);
    assert_ne!(collect(&sandbox, &["collect.seed=1"]), pairs);
    let some = collect(&sandbox, &["collect.pairs=1", "collect.limit=7"]);
    assert_eq!(some.len(), 7);
    let sides = |pair: &Map<String, Value>| {
        let mut sides = [pair["a"].to_string(), pair["b"].to_string()];
        sides.sort();
        (pair["prompt"].to_string(), sides)
    };
    assert!(some.iter().all(|pair| pairs.iter().any(|other| sides(other) == sides(pair))));
}

#[test]
fn hard_labels_follow_the_judge_and_ties_are_half() {
    let sandbox = sandbox("judge = [\"python3\", \"judge.py\"]\n");
    let pairs = collect(&sandbox, &["collect.tie=0.05"]);
    let mut ties = 0;
    for pair in &pairs {
        let (chosen, rejected) = (reward(pair, "chosen_source"), reward(pair, "rejected_source"));
        assert!(chosen >= rejected);
        let p = 1.0 / (1.0 + (rejected - chosen).exp());
        assert_eq!(pair.get("preference"), (p - 0.5 < 0.05).then_some(&json!(0.5)));
        ties += usize::from(pair.contains_key("preference"));
        let text = pair["chosen"].as_str().unwrap();
        let by_hand = 8.0 * text.matches('e').count() as f64 / (1.0 + text.chars().count() as f64);
        assert!((chosen - by_hand).abs() < 1e-12);
    }
    assert!(ties > 0 && ties < pairs.len(), "{ties} ties");
}

#[test]
fn probabilities_are_written_and_drawn_as_bradley_and_terry_have_them() {
    let sandbox = sandbox("judge = [\"python3\", \"judge.py\"]\n");
    for pair in collect(&sandbox, &["collect.labels=mu"]) {
        let gap = reward(&pair, "chosen_source") - reward(&pair, "rejected_source");
        let mu = pair["preference"].as_f64().unwrap();
        assert!(gap >= 0.0 && (mu - 1.0 / (1.0 + (-gap).exp())).abs() < 1e-12);
    }
    let drawn = collect(&sandbox, &["collect.labels=sampled", "collect.samples=12"]);
    assert_eq!(drawn, collect(&sandbox, &["collect.labels=sampled", "collect.samples=12", "collect.batch_size=7"]));
    let (mut expected, mut variance, mut higher) = (0.0, 0.0, 0.0);
    for pair in &drawn {
        assert!(!pair.contains_key("preference"));
        let gap = reward(pair, "chosen_source") - reward(pair, "rejected_source");
        let p = 1.0 / (1.0 + (-gap.abs()).exp());
        expected += p;
        variance += p * (1.0 - p);
        higher += f64::from(u8::from(gap > 0.0)) + 0.5 * f64::from(u8::from(gap == 0.0));
    }
    assert!(expected > 0.52 * drawn.len() as f64, "the judge says something: {expected} of {}", drawn.len());
    assert!((higher - expected).abs() < 4.0 * variance.sqrt(), "{higher} wins of the higher, {expected} expected");
}

#[test]
fn a_reward_model_judges_as_score_does_and_stages_train_on_the_pairs() {
    let sandbox = sandbox("judge = \"rewarder\"\n");
    let pairs = collect(&sandbox, &[]);
    sandbox.rows("rows.jsonl", &completions(&pairs));
    sandbox
        .run(&["score", "--model", "rewarder", "--data", "rows.jsonl", "--output", "scored.jsonl", "--device", "cpu"])
        .ok();
    let scored = json_lines(&sandbox.path("scored.jsonl"));
    let sides = pairs.iter().map(|pair| reward(pair, "chosen_source"));
    for (ours, row) in sides.chain(pairs.iter().map(|pair| reward(pair, "rejected_source"))).zip(&scored) {
        assert!((ours - row["reward"].as_f64().unwrap()).abs() < 1e-5, "{ours} and {row:?}");
    }
    for stage in ["reward", "dpo"] {
        sandbox.stage(stage, &["data.train=pairs_out.jsonl", &format!("train.output=run-{stage}")]).ok();
    }
}

#[test]
fn two_models_meet_and_templates_make_prompts() {
    let sandbox = sandbox("");
    let other = other(&sandbox, "tuned");
    let models = format!("collect.models=[{:?}, {other:?}]", golden("models/gpt2-tiny"));
    for pair in collect(&sandbox, &[&models, "collect.between_models=true", "collect.samples=2", "collect.limit=4"]) {
        assert_ne!(pair["a_source"]["fingerprint"], pair["b_source"]["fingerprint"]);
    }
    let article =
        |i: usize| row(json!({"article": format!("News of day {i} <b>"), "id": i, "a": "a column of its own"}));
    sandbox.rows("articles.jsonl", &(0..5).map(article).collect::<Vec<_>>());
    let template = "collect.template={{ article }} TL;DR:";
    let pairs = collect(&sandbox, &["collect.prompts=articles.jsonl", template, "collect.pairs=1"]);
    let prompts: Vec<&str> = pairs.iter().map(|pair| pair["prompt"].as_str().unwrap()).collect();
    for (at, pair) in pairs.iter().enumerate() {
        assert_eq!((&pair["id"], &pair["article"]), (&json!(at), &json!(format!("News of day {at} <b>"))));
        assert_eq!(pair["a_source"]["row"], at + 1);
        assert_ne!(pair["a"], "a column of its own");
    }
    assert_eq!(prompts, (0..5).map(|i| format!("News of day {i} <b> TL;DR:")).collect::<Vec<_>>());
    let refusal = |overrides: &[&str], code| {
        let args: Vec<&str> =
            ["collect", "collect.toml", "collect.output=new.jsonl"].iter().chain(overrides).copied().collect();
        let line = sandbox.run(&args).refused(code);
        assert!(!sandbox.path("new.jsonl").exists());
        line
    };
    let line = refusal(&["collect.prompts=articles.jsonl", "collect.template={{ story }}"], 2);
    assert!(line.contains("articles.jsonl:1") && line.contains("article, id, a;"), "{line}");
    let line = refusal(&["collect.prompts=articles.jsonl", "collect.template={{ article"], 2);
    assert!(line.contains("collect.template"), "{line}");
}

#[test]
fn what_cannot_work_is_refused_with_the_remedy() {
    let sandbox = sandbox("");
    let refusal = |overrides: &[&str]| {
        let args: Vec<&str> = ["collect", "collect.toml"].iter().chain(overrides).copied().collect();
        sandbox.run(&args).refused(2)
    };
    let model = golden("models/gpt2-tiny");
    let twice = format!("collect.models=[{model:?}, {:?}]", model.join("../gpt2-tiny"));
    for (overrides, says) in [
        (vec!["collect.labels=mu"], "collect.judge"),
        (vec!["collect.samples=1"], "at least 2"),
        (vec!["collect.between_models=true"], "two models"),
        (vec!["collect.tie=0.5"], "[0, 0.5)"),
        (vec!["collect.samples=100000000000"], "at most 10000"),
        (vec!["collect.samples=9223372036854775807"], "at most 10000"),
        (vec![&twice], "twice"),
        (vec!["collect.judge=[]"], "is empty"),
        (vec!["collect.judge=[\"no-such-program\"]"], "no-such-program"),
        (vec!["collect.judge=nowhere/model"], "nowhere/model"),
        (vec!["collect.model=x"], "did you mean"),
        (vec!["collect.prompts=none.jsonl"], "none.jsonl"),
        (vec!["collect.output=no/dir.jsonl"], "make it first"),
        (vec!["collect.top_k=1"], "raise collect.temperature or collect.samples"),
        (vec!["collect.finished_only=true", "collect.max_new_tokens=1"], "max_new_tokens"),
    ] {
        let line = refusal(&overrides);
        assert!(line.contains(says), "{overrides:?}: {line}");
        assert!(!sandbox.path("pairs_out.jsonl").exists());
    }
    sandbox.write("pairs_out.jsonl", "mine");
    assert!(refusal(&[]).contains("exists already"));
    assert_eq!(std::fs::read_to_string(sandbox.path("pairs_out.jsonl")).unwrap(), "mine");
}

#[test]
fn a_judge_that_fails_late_leaves_the_pairs_and_one_that_fails_early_no_work() {
    let sandbox = sandbox("judge = [\"python3\", \"judge.py\"]\n");
    let fails = |after: usize| {
        let program = format!(
            "import sys\nfor at, line in enumerate(sys.stdin):\n    \
             print('rubbish' if at >= {after} else at, flush=True)\n"
        );
        sandbox.write("judge.py", program);
        let ran = sandbox.run(&["collect", "collect.toml"]);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(!sandbox.path("pairs_out.jsonl").exists());
        ran.stderr
    };
    let early = fails(0);
    assert!(early.contains("rubbish") && !early.contains("sampling"), "{early}");
    assert!(!sandbox.path("pairs_out.unjudged.jsonl").exists());
    let late = fails(20);
    assert!(late.contains("rubbish") && late.contains("pairs_out.unjudged.jsonl"), "{late}");
    assert!(sandbox.run(&["collect", "collect.toml"]).refused(2).contains("pairs_out.unjudged.jsonl: exists already"));
    let kept = json_lines(&sandbox.path("pairs_out.unjudged.jsonl"));
    assert!(kept.len() > 20 && kept.iter().all(|pair| pair.contains_key("a") && pair.contains_key("a_source")));
}

#[test]
fn models_are_compared_by_a_judge_for_a_ranking() {
    let sandbox = sandbox("");
    let first = golden("models/gpt2-tiny");
    let (second, third) = (other(&sandbox, "tuned"), other(&sandbox, "tuned-more"));
    let names = [first.to_str().unwrap(), &second, &third];
    let base = ["evaluate", "--model", names[0], "--against", names[1], "--against", names[2], "--reward", "rewarder"];
    let rest = ["--data", "prompts.jsonl", "--max-new-tokens", "8", "--samples", "2", "--device", "cpu", "--json"];
    let run = |more: &[&str]| sandbox.run(&[&base, &rest[..], more].concat());
    let figures: Map<String, Value> = serde_json::from_str(&run(&["--comparisons", "won.jsonl"]).ok().stdout).unwrap();
    let won = json_lines(&sandbox.path("won.jsonl"));
    assert_eq!(won.len(), 3 * 12 * 2);
    run(&["--comparisons", "soft.jsonl", "--soft"]).ok();
    let soft = json_lines(&sandbox.path("soft.jsonl"));
    for (won, soft) in won.iter().zip(&soft) {
        let mu = soft["preference"].as_f64().unwrap();
        let winner = if mu > 0.5 {
            "a"
        } else if mu < 0.5 {
            "b"
        } else {
            "tie"
        };
        assert_eq!((&won["a"], &won["b"], won["winner"].as_str()), (&soft["a"], &soft["b"], Some(winner)));
    }
    let ours = won.iter().filter(|row| row["a"] == names[0] && row["b"] == names[2]);
    let score = |row: &Map<String, Value>| {
        if row["winner"] == "a" {
            1.0
        } else if row["winner"] == "tie" {
            0.5
        } else {
            0.0
        }
    };
    let rate = ours.map(score).sum::<f64>() / 24.0;
    let pair = &figures["pairs"].as_array().unwrap()[1];
    assert_eq!((pair["a"].as_str(), pair["b"].as_str()), (Some(names[0]), Some(names[2])));
    let stated = pair["win_rate"].as_f64().unwrap();
    assert!((rate - stated).abs() < 1e-12, "{rate} and {stated}");
    let twice =
        ["evaluate", "--model", names[0], "--against", names[0], "--reward", "rewarder", "--data", "prompts.jsonl"];
    assert!(sandbox.run(&twice).refused(2).contains("itself"));
    let spelt =
        ["evaluate", "--model", "tuned", "--against", "./tuned/", "--reward", "rewarder", "--data", "prompts.jsonl"];
    assert!(sandbox.run(&spelt).refused(2).contains("itself"));
    assert!(sandbox.run(&["validate", "collect.toml"]).refused(2).contains("`collimate collect`"));
}
