//! What each stage does of its own, seen from outside: rewards, margins, mu, references, precision.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::{Sandbox, completions, golden_rows, json_lines, metrics, row};
use crate::support::{device, golden, tensors};
use collimate::model::{ModelInput, RewardModel};
use collimate::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

type Rows = Vec<Map<String, Value>>;

/// Rewards of `rows` by `collimate score`.
fn rewards(sandbox: &Sandbox, model: &str, rows: &Rows) -> Vec<f64> {
    sandbox.rows("to-score.jsonl", rows);
    let scored = sandbox.run(&["score", "--model", model, "--data", "to-score.jsonl"]).ok().stdout;
    let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap()["reward"].as_f64().unwrap();
    scored.lines().map(parse).collect()
}

/// Mean and standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt())
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn pairs() -> Rows {
    golden_rows("preferences.jsonl", 10)
}

/// `pairs` with more columns.
fn with(columns: impl Fn(usize) -> Value) -> Rows {
    let mut rows = pairs();
    rows.iter_mut().enumerate().for_each(|(i, r)| r.extend(row(columns(i))));
    rows
}

/// `rows` with chosen and rejected exchanged.
fn exchanged(mut rows: Rows) -> Rows {
    for row in &mut rows {
        let chosen = row["chosen"].clone();
        row["chosen"] = std::mem::replace(&mut row["rejected"], chosen);
    }
    rows
}

/// Largest difference between the final weights of two runs.
fn distance(sandbox: &Sandbox, a: &str, b: &str) -> f64 {
    let load = |run: &str| tensors(&sandbox.path(run).join("model.safetensors"));
    let (a, b) = (load(a), load(b));
    a.iter().map(|(name, t)| (t - &b[name]).abs().max().double_value(&[])).fold(0.0, f64::max)
}

fn bytes(sandbox: &Sandbox, run: &str) -> Vec<u8> {
    std::fs::read(sandbox.path(run).join("model.safetensors")).unwrap()
}

#[test]
fn normalised_rewards_of_training_completions_have_mean_0_and_deviation_1() {
    for pooling in ["last", "sum"] {
        let sandbox = Sandbox::with_stages();
        let pooling = format!("reward.pooling={pooling}");
        let fixed = [pooling.as_str(), "train.steps=3", "train.save_every=3"];
        sandbox.stage("reward", &[fixed.as_slice(), &["reward.normalize=true"]].concat()).ok();
        let (mean, deviation) = moments(&rewards(&sandbox, "run", &completions(&pairs())));
        assert!(mean.abs() < 1e-4 && (deviation - 1.0).abs() < 1e-4, "{pooling}: {mean} and {deviation}");
        // Resume must go on with the raw head: a checkpoint is not normalised.
        let bias = |dir: &str| json_of(&sandbox.path(dir).join("config.json"))["collimate"]["bias"].as_f64().unwrap();
        assert!(bias("run") != 0.0 && bias("run/checkpoint-3") == 0.0);
        let (mean, deviation) = moments(&rewards(&sandbox, "run/checkpoint-3", &completions(&pairs())));
        assert!(mean.abs() > 1e-2 || (deviation - 1.0).abs() > 1e-2, "nothing to normalise here");
        // From a model that has a bias already.
        let again = ["reward.normalize=true", "model.path=run", "train.output=again"];
        sandbox.stage("reward", &[fixed.as_slice(), &again].concat()).ok();
        let (mean, deviation) = moments(&rewards(&sandbox, "again", &completions(&pairs())));
        assert!(mean.abs() < 1e-4 && (deviation - 1.0).abs() < 1e-4, "{pooling} again: {mean} and {deviation}");
        let evaluated = sandbox.run(&["evaluate", "--model", "run", "--data", "pairs.jsonl", "--json"]).ok();
        let figures: Value = serde_json::from_str(&evaluated.stdout).unwrap();
        assert!(figures["mean_reward"].as_f64().unwrap().abs() < 1e-4, "{figures}");
    }
}

/// Rewards by hand: the head's values at the last token, or summed over the completion's tokens, EOS included.
fn by_hand(dir: &Path, rows: &Rows, sum: bool) -> Vec<f64> {
    let _guard = tch::no_grad_guard();
    let model = RewardModel::from_pretrained(dir, &crate::tiny::FROZEN).unwrap();
    let tokenizer = Tokenizer::from_dir(dir).unwrap();
    let text = |row: &Map<String, Value>, column: &str| row[column].as_str().unwrap().to_owned();
    let mut found = Vec::new();
    for row in rows {
        let prompt = tokenizer.encode(&text(row, "prompt")).unwrap();
        let mut ids = tokenizer.encode(&(text(row, "prompt") + &text(row, "completion"))).unwrap();
        ids.push(tokenizer.eos().unwrap());
        let shared = prompt.iter().zip(&ids).take_while(|(a, b)| a == b).count();
        let input = ModelInput::from_sequences(&[ids], device()).unwrap();
        let values = model.scores(&model.hidden_states(&input, None).unwrap()).unwrap();
        let values: Vec<f64> = Vec::<f32>::try_from(values).unwrap().into_iter().map(f64::from).collect();
        let reward = if sum { values[shared..].iter().sum() } else { values[values.len() - 1] };
        found.push(reward + model.bias());
    }
    found
}

#[test]
fn both_poolings_are_saved_read_back_and_scored_as_defined() {
    for (pooling, architecture) in [("last", "GPT2ForSequenceClassification"), ("sum", "CollimateTokenRewardModel")] {
        let sandbox = Sandbox::with_stages();
        sandbox.stage("reward", &[&format!("reward.pooling={pooling}"), "reward.normalize=true"]).ok();
        let config = json_of(&sandbox.path("run/config.json"));
        assert_eq!(config["architectures"], json!([architecture]));
        assert_eq!(config["collimate"]["pooling"], json!(pooling));
        let rows = completions(&pairs());
        let scored = rewards(&sandbox, "run", &rows);
        for (ours, expected) in scored.iter().zip(by_hand(&sandbox.path("run"), &rows, pooling == "sum")) {
            assert!((ours - expected).abs() < 1e-5 * expected.abs().max(1.0), "{pooling}: {ours}, by hand {expected}");
        }
        assert!(moments(&scored).1 > 0.5, "all rewards alike: {scored:?}");
        let other = if pooling == "last" { "sum" } else { "last" };
        let overrides = [format!("reward.pooling={other}"), "model.path=run".into(), "train.output=other".into()];
        let line = sandbox.stage("reward", &overrides.each_ref().map(String::as_str)).refused(2);
        assert!(line.contains("run: is a reward model with pooling") && line.contains("set reward.pooling"), "{line}");
    }
}

#[test]
fn a_margin_column_is_the_configured_margin_where_they_are_equal_and_wins_where_not() {
    let sandbox = Sandbox::with_stages();
    sandbox.rows("half.jsonl", &with(|_| json!({"margin": 0.5})));
    sandbox.rows("mixed.jsonl", &with(|i| if i % 2 == 0 { json!({"margin": 0.5}) } else { json!({}) }));
    sandbox.stage("reward", &["reward.margin=0.5", "train.output=configured"]).ok();
    sandbox.stage("reward", &["data.train=half.jsonl", "train.output=column"]).ok();
    sandbox.stage("reward", &["data.train=half.jsonl", "reward.margin=9", "train.output=both"]).ok();
    sandbox.stage("reward", &["data.train=mixed.jsonl", "reward.margin=0.5", "train.output=mixed"]).ok();
    sandbox.stage("reward", &["train.output=none"]).ok();
    let configured = bytes(&sandbox, "configured");
    for run in ["column", "both", "mixed"] {
        assert!(bytes(&sandbox, run) == configured, "{run}");
    }
    assert!(bytes(&sandbox, "none") != configured, "the margin does nothing");
}

/// With mu = 1/2 neither side is better, and mu of one order is 1 - mu of the other.
fn mu_is_symmetric(stage: &str, accuracy: &str) {
    let sandbox = Sandbox::with_stages();
    let run = |name: &str, rows: Rows| {
        let (file, output) = (format!("{name}.jsonl"), format!("train.output={name}"));
        sandbox.rows(&file, &rows);
        // A large epsilon: see tests/train/batches.rs.
        let data = format!("data.train={file}");
        sandbox.stage(stage, &[&data, &output, "train.adam_epsilon=1e-4", "train.log_every=1"]).ok();
        json_lines(&sandbox.path(name).join("metrics.jsonl"))
    };
    let ties = run("ties", with(|_| json!({"preference": 0.5})));
    run("seit", exchanged(with(|_| json!({"preference": 0.5}))));
    assert!(distance(&sandbox, "ties", "seit") < 1e-6, "{stage}: a tie has a better side");
    assert!(ties.iter().all(|line| !line.contains_key(accuracy)), "{stage}: ties are neither right nor wrong");
    run("sure", with(|i| json!({"preference": if i % 2 == 0 { 0.8 } else { 0.0 }})));
    run("erus", exchanged(with(|i| json!({"preference": if i % 2 == 0 { 0.2 } else { 1.0 }}))));
    assert!(distance(&sandbox, "sure", "erus") < 1e-6, "{stage}: mu is not 1 - mu of the exchanged pair");
    assert!(distance(&sandbox, "sure", "ties") > 1e-4, "{stage}: mu does nothing");
    run("plain", pairs());
    run("one", with(|_| json!({"preference": 1})));
    assert!(bytes(&sandbox, "plain") == bytes(&sandbox, "one"), "{stage}: the default is mu = 1");
}

#[test]
fn reward_takes_preferences_as_probabilities() {
    mu_is_symmetric("reward", "accuracy");
}

#[test]
fn dpo_takes_preferences_as_probabilities() {
    mu_is_symmetric("dpo", "rewards/accuracies");
}

#[test]
fn a_tie_s_loss_is_log_2_where_nothing_was_learnt_yet() {
    let sandbox = Sandbox::with_stages();
    sandbox.rows("pairs.jsonl", &with(|_| json!({"preference": 0.5})));
    sandbox.stage("dpo", &["train.steps=1"]).ok();
    let first = json_lines(&sandbox.path("run/metrics.jsonl"))[0].clone();
    assert!((first["loss"].as_f64().unwrap() - std::f64::consts::LN_2).abs() < 1e-6, "{first:?}");
    for name in ["rewards/chosen", "rewards/rejected", "rewards/margins"] {
        assert!(first[name].as_f64().unwrap().abs() < 1e-6, "{name}: the policy is the reference: {first:?}");
    }
}

#[test]
fn a_named_reference_that_is_the_start_changes_nothing_and_another_one_does() {
    let sandbox = Sandbox::with_stages();
    let start = format!("model.reference={}", golden("models/gpt2-tiny").display());
    for dtype in ["float32", "bfloat16"] {
        let dtype_override = format!("model.dtype={dtype}");
        let (copy, named) = (format!("copy-{dtype}"), format!("named-{dtype}"));
        sandbox.stage("dpo", &[&dtype_override, &format!("train.output={copy}")]).ok();
        sandbox.stage("dpo", &[&dtype_override, &format!("train.output={named}"), &start]).ok();
        assert!(bytes(&sandbox, &copy) == bytes(&sandbox, &named), "{dtype}: same reference, other result");
        assert_eq!(metrics(&sandbox.path(&copy)), metrics(&sandbox.path(&named)));
    }
    sandbox.stage("sft", &["train.output=tuned", "train.steps=3", "train.learning_rate=0.01"]).ok();
    sandbox.stage("dpo", &["train.output=other", "model.reference=tuned", "train.save_every=2"]).ok();
    assert!(bytes(&sandbox, "other") != bytes(&sandbox, "copy-float32"), "the reference does nothing");
    let first = json_lines(&sandbox.path("other/metrics.jsonl"))[0].clone();
    assert!(first["rewards/chosen"].as_f64().unwrap().abs() > 1e-3, "{first:?}");
    let facts = json_of(&sandbox.path("other/checkpoint-2/trainer_state.json"))["facts"]["reference"].clone();
    assert_eq!(facts["path"], json!("tuned"));
    assert_eq!(facts["fingerprint"].as_str().unwrap().len(), 64);
}

#[test]
fn reference_logprobs_are_what_score_says_and_are_computed_once() {
    let sandbox = Sandbox::with_stages();
    let overrides = ["train.steps=4", "train.save_every=2", "data.eval=pairs.jsonl"];
    sandbox.stage("dpo", &overrides).ok();
    let file = sandbox.path("run/reference_logprobs.safetensors");
    let (values, inode) = (std::fs::read(&file).unwrap(), std::fs::metadata(&file).unwrap().ino());
    let stored = safetensors::SafeTensors::deserialize(&values).unwrap();
    let numbers = |name: &str| -> Vec<f64> {
        stored.tensor(name).unwrap().data().chunks(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).collect()
    };
    sandbox.rows("to-score.jsonl", &completions(&pairs()));
    let model = golden("models/gpt2-tiny").display().to_string();
    let scored = sandbox.run(&["score", "--model", &model, "--data", "to-score.jsonl", "--eos"]).ok().stdout;
    let scored: Vec<f64> =
        scored.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["logprob"].as_f64().unwrap()).collect();
    for (at, expected) in scored.iter().enumerate() {
        let column = numbers(if at < 10 { "chosen" } else { "rejected" });
        // Training rows, then evaluation rows: the same here.
        assert_eq!(column.len(), 20);
        for ours in [column[at % 10], column[10 + at % 10]] {
            assert!((ours - expected).abs() < 1e-4, "row {at}: {ours}, score says {expected}");
        }
    }

    let interrupt = || {
        for name in ["manifest.json", "trainer_state.json"] {
            std::fs::remove_file(sandbox.path("run").join(name)).unwrap();
        }
        std::fs::remove_dir_all(sandbox.path("run/checkpoint-4")).unwrap();
    };
    let resume = [overrides.as_slice(), &["train.resume=true"]].concat();
    interrupt();
    let again = sandbox.stage("dpo", &resume).ok();
    assert_eq!(std::fs::metadata(&file).unwrap().ino(), inode, "computed again");
    assert!(!again.stderr.contains("computing it anew"), "{}", again.stderr);

    // Other data: the stored values would belong to other rows.
    let mut rows = pairs();
    rows[3]["chosen"] = json!(" short.");
    sandbox.rows("pairs.jsonl", &rows);
    interrupt();
    let refused = sandbox.stage("dpo", &resume).refused(2);
    assert!(refused.contains("checkpoint-2") && refused.contains("other contents of: rows"), "{refused}");
    std::fs::remove_dir_all(sandbox.path("run/checkpoint-2")).unwrap();
    let anew = sandbox.stage("dpo", &resume).ok();
    assert!(anew.stderr.contains("reference_logprobs.safetensors") && anew.stderr.contains("computing it anew"));
    let fresh = Sandbox::with_stages();
    fresh.rows("pairs.jsonl", &rows);
    fresh.stage("dpo", &overrides).ok();
    assert!(std::fs::read(&file).unwrap() != values);
    assert!(
        std::fs::read(&file).unwrap() == std::fs::read(fresh.path("run/reference_logprobs.safetensors")).unwrap(),
        "the reference is the starting model, not the checkpoint"
    );
}

#[test]
fn a_final_model_in_bfloat16_is_the_rounded_one_and_checkpoints_stay_float32() {
    for stage in ["sft", "reward", "dpo"] {
        let sandbox = Sandbox::with_stages();
        sandbox.stage(stage, &["train.output=full", "train.steps=2"]).ok();
        sandbox.stage(stage, &["train.save_dtype=bfloat16", "train.steps=2", "train.save_every=2"]).ok();
        let dtypes = |file: &str| {
            let bytes = std::fs::read(sandbox.path(file)).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let mut found: Vec<String> = file.tensors().iter().map(|(_, t)| format!("{:?}", t.dtype())).collect();
            found.dedup();
            found
        };
        assert_eq!(dtypes("run/model.safetensors"), ["BF16"], "{stage}");
        assert_eq!(dtypes("run/checkpoint-2/model.safetensors"), ["F32"], "{stage}");
        assert_eq!(json_of(&sandbox.path("run/config.json"))["dtype"], json!("bfloat16"));
        assert_eq!(json_of(&sandbox.path("run/checkpoint-2/config.json"))["dtype"], json!("float32"));
        let (full, half) =
            (tensors(&sandbox.path("full/model.safetensors")), tensors(&sandbox.path("run/model.safetensors")));
        for (name, tensor) in &full {
            let rounded = tensor.to_kind(tch::Kind::BFloat16).to_kind(tch::Kind::Float);
            assert!(half[name].equal(&rounded), "{stage}: {name} is not the rounded float32");
        }
    }
}

#[test]
fn products_in_bfloat16_train_nearly_the_same() {
    for stage in ["sft", "reward", "dpo"] {
        let sandbox = Sandbox::with_stages();
        let loss = |run: &str, dtype: &str| {
            let (output, dtype) = (format!("train.output={run}"), format!("model.dtype={dtype}"));
            sandbox.stage(stage, &[&output, &dtype]).ok();
            let lines = json_lines(&sandbox.path(run).join("metrics.jsonl"));
            lines.last().unwrap()["train_loss"].as_f64().unwrap()
        };
        let (full, half) = (loss("full", "float32"), loss("half", "bfloat16"));
        assert!((full - half).abs() < 0.02 * full, "{stage}: {full} and {half}");
        assert!(bytes(&sandbox, "full") != bytes(&sandbox, "half"), "{stage}: model.dtype does nothing");
    }
}

#[test]
fn every_preference_loss_runs_and_they_differ() {
    let sandbox = Sandbox::with_stages();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for (run, overrides) in [
        ("sigmoid", &["dpo.loss=sigmoid"][..]),
        ("hinge", &["dpo.loss=hinge"]),
        ("ipo", &["dpo.loss=ipo"]),
        ("paper", &["dpo.loss=ipo", "dpo.ipo_length_normalised=false"]),
        ("robust", &["dpo.loss=robust", "dpo.label_smoothing=0.2"]),
        ("smooth", &["dpo.label_smoothing=0.2"]),
        ("strong", &["dpo.beta=0.5"]),
    ] {
        let output = format!("train.output={run}");
        sandbox.stage("dpo", &[overrides, &[output.as_str(), "train.steps=3"]].concat()).ok();
        let weights = bytes(&sandbox, run);
        assert!(!seen.contains(&weights), "{run} is one of those before it");
        seen.push(weights);
    }
}

#[test]
fn only_completions_are_targets_unless_asked() {
    let sandbox = Sandbox::with_stages();
    let rows: Rows = ["one two three", "a film", "What a"]
        .iter()
        .map(|prompt| row(json!({"prompt": prompt, "completion": " good."})))
        .collect();
    sandbox.rows("sft.jsonl", &rows);
    // Nothing is learnt: the loss is that of the start, a mean over its targets.
    let loss = |run: &str, more: &[&str]| {
        let output = format!("train.output={run}");
        sandbox.stage("sft", &[more, &["train.learning_rate=0", "train.steps=1", output.as_str()]].concat()).ok();
        json_lines(&sandbox.path(run).join("metrics.jsonl"))[0]["loss"].as_f64().unwrap()
    };
    let (masked, whole) = (loss("masked", &[]), loss("whole", &["data.completion_only=false"]));
    let model = golden("models/gpt2-tiny").display().to_string();
    let scored = sandbox.run(&["score", "--model", &model, "--data", "sft.jsonl", "--eos"]).ok().stdout;
    let lines: Vec<Value> = scored.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tokens: usize = lines.iter().map(|line| line["tokens"].as_array().unwrap().len()).sum();
    let logprob: f64 = lines.iter().map(|line| line["logprob"].as_f64().unwrap()).sum();
    assert!((masked + logprob / tokens as f64).abs() < 1e-5, "{masked}, score says {}", -logprob / tokens as f64);
    assert!((masked - whole).abs() > 1e-3, "completion_only does nothing");
}
