//! `collimate bench`: every stage gives its parts and counts its work; times themselves are never asserted.
//!
//! The tiny GPT-2 has 2 layers of width 16 and 400 tokens: 2 * 12 * 16^2 = 6,144 values in its matrices, so a token takes
//! 12,288 operations, a query with a key 4 * 2 * 16 = 128, a target 2 * 400 * 16 = 12,800. torch's `FlopCounterMode` says
//! the same of transformers' models (but counts every key for every query).
#![allow(clippy::unwrap_used)]
use crate::support::golden;
use crate::support::sandbox::Sandbox;
use collimate::bench::parts;
use serde_json::{Value, json};
use std::time::Duration;
use tch::Device;

const LOOP: [&str; 5] = ["data", "forward", "backward", "optimizer", "other"];

/// What `collimate bench ARGS --model MODEL --json` prints, once its figures fit each other and nothing was left behind.
#[track_caller]
fn bench(model: &str, args: &[&str]) -> Value {
    let (sandbox, model) = (Sandbox::new(), golden("models").join(model));
    let options = ["--model", model.to_str().unwrap(), "--device", "cpu", "--steps", "2", "--json"];
    std::fs::create_dir(sandbox.path("temporary")).unwrap();
    let mut command = sandbox.command(&[&["bench"], args, &options].concat());
    let output = command.env("TMPDIR", sandbox.path("temporary")).output().unwrap();
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{errors}");
    assert_eq!((errors.as_str(), text.lines().count()), ("", 1), "{text}");
    assert_eq!(Vec::from_iter(sandbox.snapshot().into_keys()), [sandbox.path("temporary")]);
    let found: Value = serde_json::from_str(&text).unwrap();
    fits(&found);
    found
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is not a number in {value}"))
}

/// What must hold of the figures whatever the machine does.
#[track_caller]
fn fits(found: &Value) {
    let get = |key| number(found, key);
    let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} where {b} is due in {found}");
    let all: Vec<f64> = found["step_seconds_all"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!((all.len(), &found["steps"], &found["threads"]), (2, &json!(2), &json!(1)));
    near(get("step_seconds"), (all[0] + all[1]) / 2.0);
    near(get("step_seconds_mean"), (all[0] + all[1]) / 2.0);
    let parts: Vec<f64> = found["parts"].as_object().unwrap().values().map(|x| x.as_f64().unwrap()).collect();
    assert!(parts.iter().all(|&seconds| seconds >= 0.0), "{found}");
    near(parts.iter().sum(), get("step_seconds_mean"));
    near(get("limit_seconds"), get("minimum_gflop") / get("matrix_gflops"));
    near(get("share_of_limit"), get("limit_seconds") / get("step_seconds"));
    near(get("tokens_per_second"), get("tokens") / get("step_seconds"));
    // The program with libtorch, and what was started before a step.
    assert!(get("peak_memory_mb") > 10.0 && get("matrix_gflops") > 0.0 && get("start_seconds") > 0.0, "{found}");
}

/// The names of the parts, sorted.
fn parts_of(found: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = found["parts"].as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// [`LOOP`] and `more`, sorted.
fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut names = [&LOOP[..], more].concat();
    names.sort_unstable();
    names
}

#[track_caller]
fn counts(found: &Value, tokens: u64, targets: u64, operations: u64) {
    assert_eq!((&found["tokens"], &found["targets"]), (&json!(tokens), &json!(targets)), "{found}");
    let counted = number(found, "minimum_gflop") * 1e9;
    assert!((counted - operations as f64).abs() < 0.01, "{counted} operations where {operations} are due");
}

#[test]
fn sft_learns_every_token_but_the_first() {
    let found = bench("gpt2-tiny", &["--batch-size", "4", "--length", "12"]);
    assert_eq!(parts_of(&found), with(&[]));
    // Queries see 1 + 2 + ... + 12 = 78 keys in each of 4 sequences.
    counts(&found, 48, 44, 3 * (48 * 12_288 + 4 * 78 * 128 + 44 * 12_800));
    for (key, value) in [
        ("stage", json!("sft")),
        ("device", json!("cpu")),
        ("dtype", json!("float32")),
        ("batch_size", json!(4)),
        ("length", json!(12)),
        // 400 and 64 embeddings, 12 D^2 + 13 D a layer, the last norm.
        ("parameters", json!(464 * 16 + 2 * (12 * 256 + 13 * 16) + 32)),
    ] {
        assert_eq!(found[key], value, "{key}");
    }
    assert!(found["model"].as_str().unwrap().ends_with("gpt2-tiny") && found.get("epochs").is_none(), "{found}");
    let prompted = bench("gpt2-tiny", &["sft", "--batch-size", "4", "--length", "12", "--prompt-length", "5"]);
    counts(&prompted, 48, 28, 3 * (48 * 12_288 + 4 * 78 * 128 + 28 * 12_800));
}

#[test]
fn pairs_share_their_prompt() {
    let options = ["--batch-size", "4", "--length", "12", "--prompt-length", "5"];
    // 5 + 7 + 7 tokens a pair; the prompt's see 1 + ... + 5 keys, each completion's 6 + ... + 12.
    let backbone = 76 * 12_288 + 4 * (15 + 2 * 63) * 128;
    let reward = bench("gpt2-tiny", &[&["reward"][..], &options].concat());
    assert_eq!(parts_of(&reward), with(&[]));
    counts(&reward, 76, 8, 3 * backbone);
    let dpo = bench("gpt2-tiny", &[&["dpo"][..], &options].concat());
    assert_eq!(parts_of(&dpo), with(&["reference"]));
    counts(&dpo, 76, 56, 4 * (backbone + 56 * 12_800));
    // Micro-batches change how the work is done, not how much of it there is.
    let micro = bench("gpt2-tiny", &[&["dpo", "--micro-batch-size", "3"][..], &options].concat());
    assert_eq!(parts_of(&micro), with(&["reference"]));
    counts(&micro, 76, 56, 4 * (backbone + 56 * 12_800));
    assert_eq!(micro["micro_batch_size"], json!(3));
    // A reward model goes on from its own head.
    counts(&bench("gpt2-tiny-reward", &[&["reward"][..], &options].concat()), 76, 8, 3 * backbone);
}

/// Decoding 7 tokens after 5, 4 times: 11 tokens a row go through the model, with 1 + ... + 11 keys.
const DECODING: u64 = 44 * 12_288 + 4 * 66 * 128 + 28 * 12_800;

#[test]
fn ppo_samples_judges_and_learns() {
    let options = ["--batch-size", "4", "--prompt-length", "5", "--new-tokens", "7", "--epochs", "2"];
    let found = bench("gpt2-tiny", &[&["ppo"][..], &options].concat());
    assert_eq!(parts_of(&found), with(&["generation", "reference", "reward"]));
    let backbone = 48 * 12_288 + 4 * 78 * 128;
    let forward = backbone + 28 * 12_800;
    counts(&found, 48, 28, DECODING + forward + backbone + 2 * 3 * forward);
    assert_eq!((&found["epochs"], &found["new_tokens"]), (&json!(2), &json!(7)));
    for part in ["generation", "reward", "reference", "forward", "backward", "optimizer"] {
        assert!(number(&found["parts"], part) > 0.0, "{part}: {found}");
    }
}

#[test]
fn generate_counts_new_tokens() {
    let options = ["generate", "--batch-size", "4", "--prompt-length", "5", "--new-tokens", "7"];
    let found = bench("gpt2-tiny", &options);
    assert_eq!(parts_of(&found), ["generation", "other"]);
    counts(&found, 28, 28, DECODING);
}

#[test]
fn every_family_s_matrices_are_told_from_embeddings() {
    let options = ["generate", "--batch-size", "1", "--prompt-length", "3", "--new-tokens", "2"];
    // Queries of 4 heads and keys of 2, 12 wide each; an untied head, which is no part of the backbone.
    let llama = 2 * 2 * (32 * (48 + 24 + 24) + 48 * 32 + 3 * 32 * 40);
    counts(&bench("llama-tiny-gqa", &options), 2, 2, 4 * llama + 10 * 4 * 2 * 48 + 2 * 2 * 96 * 32);
    // Embeddings 10 wide, projected to 24 and back; learned positions are looked up.
    let opt = 2 * (2 * (4 * 24 * 24 + 2 * 24 * 17) + 2 * 10 * 24);
    counts(&bench("opt-post", &options), 2, 2, 4 * opt + 10 * 4 * 2 * 24 + 2 * 2 * 56 * 10);
}

#[test]
fn random_weights_need_a_configuration_only() {
    let sandbox = Sandbox::new();
    let config = std::fs::read(golden("models/gpt2-tiny/config.json")).unwrap();
    sandbox.write("shape/config.json", config);
    for stage in ["sft", "reward", "dpo", "ppo", "generate"] {
        let mut args = vec!["bench", stage, "--model", "shape", "--random", "--batch-size", "2", "--steps", "1"];
        args.extend(["--device", "cpu", "--prompt-length", "4"]);
        args.extend(if ["ppo", "generate"].contains(&stage) { ["--new-tokens", "6"] } else { ["--length", "10"] });
        let text = sandbox.run(&args).ok().stdout;
        for line in ["step, median", "tokens a second", "peak memory", "share of the limit"] {
            assert!(text.lines().any(|l| l.starts_with(line)), "{stage}: {line}: {text}");
        }
        let title = format!("{stage} of shape (0.0 M parameters) on cpu, float32, 1 thread\n2 ");
        assert!(text.starts_with(&title), "{text}");
        let part = if stage == "generate" { "generation " } else { "backward " };
        assert!(text.lines().any(|l| l.starts_with(part) && l.ends_with('%')), "{stage}: {text}");
    }
    // The configuration of a reward model, too.
    let reward = std::fs::read(golden("models/gpt2-tiny-reward/config.json")).unwrap();
    sandbox.write("judge/config.json", reward);
    let args = ["bench", "reward", "--model", "judge", "--random", "--steps", "1", "--device", "cpu", "--length", "20"];
    sandbox.run(&args).ok();
}

#[test]
fn what_does_not_fit_is_refused_with_the_remedy() {
    let sandbox = Sandbox::new();
    let tiny = golden("models/gpt2-tiny");
    let judge = golden("models/gpt2-tiny-reward");
    let (tiny, judge) = (tiny.to_str().unwrap(), judge.to_str().unwrap());
    std::fs::create_dir(sandbox.path("empty")).unwrap();
    sandbox.write("shape/config.json", std::fs::read(golden("models/gpt2-tiny/config.json")).unwrap());
    let cases: &[(&str, &[&str], &[&str])] = &[
        (tiny, &[], &["256 tokens: the model holds 64", "lower --length"]),
        (tiny, &["dpo"], &["65 tokens: the model holds 64", "lower --length"]),
        (tiny, &["ppo", "--prompt-length", "30"], &["78 tokens: the model holds 64", "lower --new-tokens"]),
        (tiny, &["generate", "--prompt-length", "0"], &["--prompt-length 0", "at least one token"]),
        (tiny, &["sft", "--length", "9", "--prompt-length", "9"], &["--prompt-length 9", "raise --length"]),
        (tiny, &["sft", "--length", "9", "--new-tokens", "9"], &["sft does not read --new-tokens", "use --length"]),
        (tiny, &["ppo", "--length", "9"], &["ppo does not read --length", "--prompt-length and --new-tokens"]),
        (tiny, &["dpo", "--length", "9", "--epochs", "2"], &["dpo does not read --epochs", "only ppo"]),
        (
            tiny,
            &["generate", "--micro-batch-size", "2"],
            &["generate does not read --micro-batch-size", "leave it out"],
        ),
        (tiny, &["--length", "9", "--micro-batch-size", "9"], &["--micro-batch-size 9 exceeds", "--batch-size 8"]),
        (tiny, &["--length", "9", "--device", "cuda:x"], &["no such device", "cuda:N"]),
        (judge, &["sft", "--length", "9"], &["this is a reward model", "causal language model"]),
        ("empty", &["--random"], &["no config.json here", "Hugging Face layout"]),
        ("shape", &["--length", "9"], &["model.safetensors"]),
        ("nowhere/model", &[], &["nowhere/model"]),
    ];
    for (model, args, parts) in cases {
        let line = sandbox.run(&[&["bench", "--model", model, "--steps", "1"], *args].concat()).refused(2);
        for part in *parts {
            assert!(line.contains(part), "{args:?}: {part:?} is not in {line}");
        }
    }
}

#[test]
fn a_part_has_what_lies_in_no_part_within_it() {
    let span = |name: &'static str| match name {
        "step" => tracing::trace_span!(target: "collimate::parts", "step"),
        "data" => tracing::trace_span!(target: "collimate::parts", "data"),
        "generation" => tracing::trace_span!(target: "collimate::parts", "generation"),
        _ => tracing::trace_span!("data"),
    };
    let sleep = |milliseconds| std::thread::sleep(Duration::from_millis(milliseconds));
    let ((), record) = parts::listen(Device::Cpu, || {
        span("data").in_scope(|| sleep(2));
        span("step").in_scope(|| {
            span("data").in_scope(|| span("generation").in_scope(|| sleep(50)));
            span("data").in_scope(|| sleep(3));
            // Somebody else's span of that name.
            span("foreign").in_scope(|| sleep(20));
        });
        span("step").in_scope(|| ());
    });
    assert_eq!((record.steps.len(), record.apart.len(), record.apart[0].0), (2, 1, "data"));
    let step = &record.steps[0];
    let seconds = |name: &str| step.parts[name];
    assert!(seconds("generation") >= 0.05 && seconds("other") >= 0.02 && seconds("data") >= 0.003, "{step:?}");
    // The sum would be larger if a part had what is within it as well.
    assert!((step.parts.values().sum::<f64>() - step.seconds).abs() < 1e-9, "{step:?}");
    assert_eq!(Vec::from_iter(record.steps[1].parts.keys().copied()), ["other"]);
}
