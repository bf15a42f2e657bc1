//! sft -> reward -> dpo -> generate -> score -> evaluate -> info, and the shape of what each leaves and prints.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::{Sandbox, completions, golden_rows, json_lines};
use serde_json::{Value, json};

/// The one JSON object that a command prints.
fn printed(sandbox: &Sandbox, args: &[&str]) -> Value {
    let ran = sandbox.run(args).ok();
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is not a number in {value}"))
}

/// Files of a run directory.
fn files(sandbox: &Sandbox, run: &str) -> Vec<String> {
    let entries = std::fs::read_dir(sandbox.path(run)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_whole_way_on_the_tiny_model() {
    let sandbox = Sandbox::with_stages();
    // The three stages, each on the one before.
    let sft = sandbox.stage("sft", &["train.output=sft", "train.save_every=2", "data.eval=sft.jsonl"]).ok();
    assert_eq!(sft.stdout, "");
    assert!(sft.stderr.contains("sft: 3 steps in ") && sft.stderr.contains("the model is in sft"), "{}", sft.stderr);
    sandbox.stage("reward", &["model.path=sft", "train.output=judge", "reward.normalize=true"]).ok();
    sandbox.stage("dpo", &["model.path=sft", "train.output=dpo", "dpo.beta=0.3"]).ok();
    let common = [".lock", "README.md", "config.json", "config.toml", "events.out.tfevents.collimate"];
    let more = ["manifest.json", "metrics.jsonl", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    for (run, own) in [
        ("sft", &["checkpoint-2", "checkpoint-3", "generation_config.json"][..]),
        ("judge", &[]),
        ("dpo", &["generation_config.json", "reference_logprobs.safetensors"]),
    ] {
        let mut expected = [&common[..], &more, own, &["trainer_state.json"]].concat();
        expected.sort_unstable();
        assert_eq!(files(&sandbox, run), expected, "{run}");
    }
    let card = std::fs::read_to_string(sandbox.path("dpo/README.md")).unwrap();
    assert!(card.starts_with("---\nlibrary_name: transformers\nbase_model: sft\n"), "{card}");
    assert!(card.contains("beta = 0.3") && card.contains("AutoModelForCausalLM"), "{card}");
    let resolved: toml::Table = std::fs::read_to_string(sandbox.path("dpo/config.toml")).unwrap().parse().unwrap();
    assert_eq!(resolved["dpo"]["beta"].as_float(), Some(0.3));
    assert_eq!(resolved["train"]["batch_size"].as_integer(), Some(4));

    generates(&sandbox);
    scores(&sandbox);
    evaluates(&sandbox);
    let info = printed(&sandbox, &["info", "--json"]);
    assert_eq!(info["collimate"], json!(env!("CARGO_PKG_VERSION")));
    assert_eq!((&info["threads"], info["libtorch"].as_str().unwrap().split('+').next()), (&json!(1), Some("2.13.0")));
    for key in ["cuda_build", "cuda_available", "cuda_devices", "default_device"] {
        assert!(!info[key].is_null(), "{key}");
    }
    assert!(sandbox.run(&["info"]).ok().stdout.contains("libtorch         2.13.0"));
}

fn generates(sandbox: &Sandbox) {
    let args = ["generate", "--model", "dpo", "--max-new-tokens", "5"];
    let one = |more: &[&str]| sandbox.run(&[&args[..], more].concat()).ok().stdout;
    let sampled = one(&["--prompt", "The film was", "--samples", "2", "--seed", "3"]);
    assert_eq!(sampled.matches("The film was").count(), 2, "{sampled}");
    assert_eq!(sampled, one(&["--prompt", "The film was", "--samples", "2", "--seed", "3"]), "the seed decides");
    assert!(sampled != one(&["--prompt", "The film was", "--samples", "2", "--seed", "4"]), "the seed does nothing");
    let more = ["--prompts", "pairs.jsonl", "--samples", "2", "--batch-size", "3", "--output", "completions.jsonl"];
    assert_eq!(one(&more), "", "with --output nothing is printed");
    let rows = json_lines(&sandbox.path("completions.jsonl"));
    assert_eq!(rows.len(), 20);
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row.keys().collect::<Vec<_>>(), ["prompt", "completion", "sample", "tokens", "finished"]);
        assert_eq!(row["sample"], json!(at % 2));
        assert_eq!(row["prompt"], golden_rows("preferences.jsonl", 10)[at / 2]["prompt"]);
        let tokens = row["tokens"].as_array().unwrap().len();
        assert!(tokens == 5 || (tokens < 5 && row["finished"] == json!(true)), "{row:?}");
    }
    let greedy = |batch: &str| one(&["--prompts", "pairs.jsonl", "--greedy", "--batch-size", batch]);
    assert_eq!(greedy("1"), greedy("10"), "batching changes greedy completions");
}

fn scores(sandbox: &Sandbox) {
    let mut rows = completions(&golden_rows("preferences.jsonl", 2));
    rows[0].insert("own".into(), json!({"kept": [1, null]}));
    sandbox.rows("rows.jsonl", &rows);
    let lines = |args: &[&str]| -> Vec<Value> {
        let ran = sandbox.run(&[&["score", "--data", "rows.jsonl", "--model"], args].concat()).ok();
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (plain, ended) = (lines(&["dpo"]), lines(&["dpo", "--eos"]));
    for ((row, plain), ended) in rows.iter().zip(&plain).zip(&ended) {
        assert_eq!((&row["prompt"], &row["completion"]), (&plain["prompt"], &plain["completion"]));
        let list = |value: &Value, key: &str| value[key].as_array().unwrap().clone();
        let (tokens, logprobs) = (list(plain, "tokens"), list(plain, "logprobs"));
        assert_eq!(tokens.len(), logprobs.len());
        let sum: f64 = logprobs.iter().map(|v| v.as_f64().unwrap()).sum();
        assert!((sum - number(plain, "logprob")).abs() < 1e-5 && sum < 0.0);
        assert_eq!(list(ended, "tokens"), [tokens, vec![json!(0)]].concat(), "--eos adds EOS and nothing else");
        assert!(number(ended, "logprob") < number(plain, "logprob"));
    }
    assert_eq!(plain[0]["own"], json!({"kept": [1, null]}), "own columns stay");
    let judged = lines(&["judge"]);
    assert_eq!(judged.len(), 4);
    assert!(judged.iter().all(|row| row["reward"].is_f64() && row.get("logprob").is_none()));
    sandbox.run(&["score", "--model", "judge", "--data", "rows.jsonl", "--output", "scored.jsonl"]).ok();
    let written: Vec<Value> = json_lines(&sandbox.path("scored.jsonl")).into_iter().map(Value::Object).collect();
    assert_eq!(written, judged);
}

fn evaluates(sandbox: &Sandbox) {
    let evaluate = |args: &[&str]| printed(sandbox, &[&["evaluate", "--json", "--model"], args].concat());
    let rows = evaluate(&["sft", "--data", "sft.jsonl"]);
    assert!((number(&rows, "loss").exp() - number(&rows, "perplexity")).abs() < 1e-9);
    let last = json_lines(&sandbox.path("sft/metrics.jsonl"));
    let trained = last.iter().rev().find_map(|line| line.get("eval_loss")?.as_f64()).unwrap();
    assert!((number(&rows, "loss") - trained).abs() < 1e-5, "{rows} where training says {trained}");

    let pairs = evaluate(&["judge", "--data", "pairs.jsonl"]);
    assert_eq!(pairs["pairs"], json!(10));
    assert!((0.0..=1.0).contains(&number(&pairs, "accuracy")) && number(&pairs, "accuracy_se") <= 0.16);

    let ratio = evaluate(&["dpo", "--reference", "sft", "--data", "pairs.jsonl"]);
    assert!(number(&ratio, "log_ratio_margin") > 0.0, "DPO moved the wrong way: {ratio}");
    let none = evaluate(&["sft", "--reference", "sft", "--data", "pairs.jsonl"]);
    assert_eq!(number(&none, "log_ratio_margin"), 0.0, "{none}");

    let sample = ["--data", "pairs.jsonl", "--reward", "judge", "--max-new-tokens", "5", "--samples", "2"];
    let own = evaluate(&[&["dpo", "--reference", "sft", "--output", "own.jsonl"][..], &sample].concat());
    assert_eq!((&own["prompts"], &own["samples"]), (&json!(10), &json!(20)));
    assert!(number(&own, "kl") > 0.0 && (0.0..=1.0).contains(&number(&own, "win_rate")), "{own}");
    assert!(number(&own, "kl_se") >= 0.0 && own["kl_log_ratio"].is_f64() && own["reference_reward"].is_f64());
    let rows = json_lines(&sandbox.path("own.jsonl"));
    assert_eq!(rows.len(), 20);
    let mean = |key: &str| rows.iter().map(|row| row[key].as_f64().unwrap()).sum::<f64>() / 20.0;
    assert!((mean("reward") - number(&own, "reward")).abs() < 1e-9);
    assert!((mean("kl") - number(&own, "kl")).abs() < 1e-9);
    let same = evaluate(&[&["sft", "--reference", "sft"][..], &sample].concat());
    assert!(number(&same, "kl").abs() < 1e-9, "a model's distance from itself: {same}");
    let plain = sandbox.run(&["evaluate", "--model", "sft", "--data", "sft.jsonl"]).ok().stdout;
    assert!(plain.lines().any(|line| line.starts_with("perplexity ")), "{plain}");
}

#[test]
fn help_has_an_example_for_every_command() {
    let sandbox = Sandbox::new();
    let overview = sandbox.run(&["--help"]).ok().stdout;
    for command in ["sft", "reward", "dpo", "ppo", "generate", "score", "evaluate", "validate", "fetch", "bench"] {
        assert!(overview.contains(&format!("\n  {command} ")), "{command}: {overview}");
        let help = sandbox.run(&[command, "--help"]).ok().stdout;
        assert!(help.contains(&format!("collimate {command} ")), "{command} has no example: {help}");
    }
    assert_eq!(sandbox.run(&["--version"]).ok().stdout, format!("collimate {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn flags_of_a_stage_are_overrides() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("sft", &["train.steps=1", "--seed", "9", "--dtype", "bfloat16", "--device", "cpu"]).ok();
    let resolved: toml::Table = std::fs::read_to_string(sandbox.path("run/config.toml")).unwrap().parse().unwrap();
    assert_eq!(resolved["train"]["seed"].as_integer(), Some(9));
    assert_eq!(resolved["model"]["dtype"].as_str(), Some("bfloat16"));
    assert_eq!(resolved["model"]["device"].as_str(), Some("cpu"));
}
