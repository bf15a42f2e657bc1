//! Bad input: one line that names file, line or key and the remedy, exit 2, nothing written.
#![allow(clippy::unwrap_used)]
use crate::support::golden;
use crate::support::sandbox::{Sandbox, copy_dir};
use serde_json::{Value, json};
use std::path::Path;

/// Runs `args`; fails unless it is refused in one line that has every part, and leaves the directory as it was.
#[track_caller]
fn refuses(sandbox: &Sandbox, args: &[&str], parts: &[&str]) {
    let before = sandbox.snapshot();
    let line = sandbox.run(args).refused(2);
    for part in parts {
        assert!(line.contains(part), "{args:?}: {part:?} is not in {line}");
    }
    // What is wrong; what to do about it.
    assert!(line.contains("; "), "{args:?}: no remedy in {line}");
    let now = sandbox.snapshot();
    let new: Vec<_> = now.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(now == before, "{args:?}: something was written: {new:?}");
}

/// A copy of the tiny GPT-2 named `name`, changed.
fn model(sandbox: &Sandbox, name: &str, change: impl FnOnce(&Path)) {
    copy_dir(&golden("models/gpt2-tiny"), &sandbox.path(name));
    change(&sandbox.path(name));
}

/// The tiny GPT-2 with a changed config.json.
fn with_config(sandbox: &Sandbox, name: &str, change: impl FnOnce(&mut Value)) {
    model(sandbox, name, |dir| {
        let path = dir.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
    });
}

#[test]
fn bad_rows_name_file_line_and_column() {
    let sandbox = Sandbox::with_stages();
    let good = r#"{"prompt": "The film", "chosen": " was good.", "rejected": " was bad."}"#;
    for (name, bad, parts) in [
        ("broken", r#"{"prompt": "The film", "chosen": oops}"#, &["not JSON at column 34"][..]),
        ("half", r#"{"prompt": "The film", "chosen": " was"#, &["half a line", "write the line whole"]),
        ("missing", r#"{"prompt": "The film", "chosen": " x"}"#, &["\"rejected\"", "found \"prompt\", \"chosen\""]),
        ("empty", r#"{"prompt": "a", "chosen": "", "rejected": " x"}"#, &["\"chosen\" is empty", "fill it"]),
        ("equal", r#"{"prompt": "a", "chosen": " x", "rejected": " x"}"#, &["same text", "delete the row"]),
        (
            "type",
            r#"{"prompt": 3, "chosen": " x", "rejected": " y"}"#,
            &["\"prompt\" must be a string or a list of messages, found a number"],
        ),
        ("mu", r#"{"chosen": " x", "rejected": " y", "preference": 1.5}"#, &["1.5, outside [0, 1]", "0.5 a tie"]),
        ("list", r#"["prompt"]"#, &["is a list, not a JSON object"]),
        (
            "turns",
            r#"{"chosen": [{"role": "user", "content": "x"}], "rejected": " y"}"#,
            &["\"chosen\" a conversation"],
        ),
    ] {
        let file = format!("{name}.jsonl");
        sandbox.write(&file, format!("{good}\n{bad}\n"));
        let place = format!("error: {file}:2: ");
        let parts: Vec<&str> = parts.iter().copied().chain([place.as_str()]).collect();
        let stage = if name.len() % 2 == 0 { "reward" } else { "dpo" };
        refuses(&sandbox, &[stage, &format!("{stage}.toml"), &format!("data.train={file}")], &parts);
    }
    let skipped = sandbox.stage("dpo", &["data.train=empty.jsonl", "data.on_bad_row=skip", "train.steps=1"]).ok();
    assert!(skipped.stderr.contains("empty.jsonl: 1 of 2 rows were skipped"), "{}", skipped.stderr);
}

#[test]
fn bad_data_files_are_named() {
    let sandbox = Sandbox::with_stages();
    for (file, content, parts) in [
        ("nothing.jsonl", &b""[..], &["holds no rows"][..]),
        ("latin.jsonl", b"{\"text\": \"caf\xe9\"}\n", &["latin.jsonl:1: byte 14 is not UTF-8"]),
        ("table.parquet", b"PAR1....", &["begins as Parquet, but is only 8 bytes long", "download it again"]),
        ("array.jsonl", b"[\n{\"text\": \"a\"}", &["array.jsonl: "]),
        ("packed.jsonl.gz", b"\x1f\x8b....", &["packed.jsonl.gz: "]),
        ("sft-empty.jsonl", b"{\"prompt\": \"a\", \"completion\": \"\"}\n", &["\"completion\" is empty"]),
    ] {
        sandbox.write(file, content);
        let parts: Vec<&str> = parts.iter().copied().chain([file]).collect();
        refuses(&sandbox, &["sft", "sft.toml", &format!("data.train={file}")], &parts);
    }
    refuses(&sandbox, &["sft", "sft.toml", "data.train=none.jsonl"], &["none.jsonl"]);
    refuses(&sandbox, &["sft", "sft.toml", "data.eval=none.jsonl"], &["none.jsonl"]);
    refuses(&sandbox, &["sft", "sft.toml", "data.train=start"], &["start"]);
    refuses(&sandbox, &["dpo", "dpo.toml", "data.train=sft.jsonl"], &["sft.jsonl:1: ", "\"chosen\" and \"rejected\""]);
}

#[test]
fn bad_configurations_are_refused_before_anything_is_opened() {
    let sandbox = Sandbox::with_stages();
    let one = |args: &[&str], parts: &[&str]| refuses(&sandbox, args, parts);
    one(&["sft", "none.toml"], &["none.toml: no such configuration file"]);
    one(
        &["sft", "sft.toml", "train.learnig_rate=1"],
        &["train.learnig_rate: unknown key, did you mean \"learning_rate\""],
    );
    one(&["sft", "sft.toml", "nonsense"], &["override \"nonsense\" has no \"=\""]);
    let before = sandbox.snapshot();
    let ran = sandbox.run(&["sft", "sft.toml", "train.batch_size=\"four\"", "train.keep=0", "model.dropout=2"]);
    assert_eq!(ran.code, 2);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "every problem has its line: {}", ran.stderr);
    assert!(lines[0].contains("train.batch_size: invalid type") && ran.stderr.contains("model.dropout: "));
    assert!(sandbox.snapshot() == before);
    one(&["dpo", "dpo.toml", "model.init=config"], &["model.init: "]);
}

/// Models that cannot be used, each in a directory that says why.
fn spoilt_models(sandbox: &Sandbox) {
    model(sandbox, "no-tokenizer", |dir| std::fs::remove_file(dir.join("tokenizer.json")).unwrap());
    model(sandbox, "no-config", |dir| std::fs::remove_file(dir.join("config.json")).unwrap());
    model(sandbox, "no-weights", |dir| std::fs::remove_file(dir.join("model.safetensors")).unwrap());
    model(sandbox, "pickle", |dir| {
        std::fs::rename(dir.join("model.safetensors"), dir.join("pytorch_model.bin")).unwrap();
    });
    model(sandbox, "cut", |dir| {
        let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
        std::fs::write(dir.join("model.safetensors"), &bytes[..bytes.len() - 7]).unwrap();
    });
    with_config(sandbox, "mamba", |config| {
        config["model_type"] = json!("mamba");
        config["architectures"] = json!(["MambaForCausalLM"]);
    });
    with_config(sandbox, "wider", |config| config["n_embd"] = json!(32));
    with_config(sandbox, "deeper", |config| config["n_layer"] = json!(3));
    with_config(sandbox, "odd-heads", |config| config["n_head"] = json!(3));
    with_config(sandbox, "no-layers", |config| config["n_layer"] = json!(0));
    model(sandbox, "small-vocab", |dir| {
        let path = dir.join("tokenizer.json");
        let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let token = json!({"id": 400, "content": "<|more|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true});
        tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
        std::fs::write(path, tokenizer.to_string()).unwrap();
    });
}

#[test]
fn bad_models_are_named() {
    let sandbox = Sandbox::with_stages();
    spoilt_models(&sandbox);
    for (name, parts) in [
        ("no-tokenizer", &["no-tokenizer: has no tokenizer.json"][..]),
        ("no-config", &["no-config"]),
        ("no-weights", &["no-weights"]),
        ("pickle", &["pickle", "pytorch_model.bin", "python", "save_pretrained"]),
        ("cut", &["cut/model.safetensors"]),
        (
            "mamba",
            &["mamba/config.json", "\"mamba\" is not supported", "gpt2, gpt_neox, opt, llama, mistral, qwen2, qwen3"],
        ),
        ("wider", &["wider", "tensor transformer.wte.weight", "[400, 16]", "[400, 32]"]),
        ("deeper", &["deeper", "tensor transformer.h.2."]),
        ("odd-heads", &["odd-heads/config.json", "n_head"]),
        ("no-layers", &["no-layers/config.json", "n_layer"]),
        ("small-vocab", &["small-vocab", "400"]),
    ] {
        refuses(&sandbox, &["sft", "sft.toml", &format!("model.path={name}")], parts);
    }
    for (command, args) in [
        ("generate", &["--prompt", "x"][..]),
        ("score", &["--data", "sft.jsonl"]),
        ("evaluate", &["--data", "sft.jsonl"]),
    ] {
        for (name, part) in [("pickle", "pytorch_model.bin"), ("mamba", "mamba"), ("no-tokenizer", "tokenizer.json")] {
            refuses(&sandbox, &[&[command, "--model", name], args].concat(), &[part]);
        }
    }
    refuses(&sandbox, &["sft", "sft.toml", "model.path=./nowhere"], &["nowhere"]);
    refuses(&sandbox, &["generate", "--model", "some/thing", "--prompt", "x"], &["some/thing", "HF_HUB_OFFLINE"]);
    for name in ["mamba", "pickle", "cut", "no-tokenizer"] {
        refuses(&sandbox, &["dpo", "dpo.toml", &format!("model.reference={name}")], &[name]);
    }
    model(&sandbox, "other-tokenizer", |dir| {
        let path = dir.join("tokenizer.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text.replace("<s>", "<S>")).unwrap();
    });
    let parts = ["other-tokenizer: has another tokenizer", "name a model.reference"];
    refuses(&sandbox, &["dpo", "dpo.toml", "model.reference=other-tokenizer"], &parts);
}

#[test]
fn rows_longer_than_the_model_are_refused_before_the_run_directory_is_made() {
    let sandbox = Sandbox::with_stages();
    let long = "word ".repeat(60);
    sandbox.write("sft.jsonl", format!("{{\"text\": \"short\"}}\n{{\"text\": \"{long}\"}}\n"));
    let pair = |text: &str| format!("{{\"prompt\": \"a\", \"chosen\": \" {text}\", \"rejected\": \" b\"}}\n");
    sandbox.write("pairs.jsonl", pair("short") + &pair(&long));
    for stage in ["sft", "reward", "dpo"] {
        let file = if stage == "sft" { "sft.jsonl:2: is " } else { "pairs.jsonl:2: is " };
        let parts = [file, " tokens long, the model holds 64", "set data.max_length=64"];
        refuses(&sandbox, &[stage, &format!("{stage}.toml"), "data.max_length=512"], &parts);
        sandbox.stage(stage, &["train.steps=1", &format!("train.output={stage}")]).ok();
    }
}

#[test]
fn a_device_that_is_not_there_is_explained() {
    let sandbox = Sandbox::with_stages();
    let model = golden("models/gpt2-tiny").display().to_string();
    refuses(
        &sandbox,
        &["generate", "--model", &model, "--prompt", "x", "--device", "cuda:99"],
        &["device \"cuda:99\": "],
    );
    if collimate::model::device::why_no_cuda().is_some() {
        refuses(&sandbox, &["sft", "sft.toml", "--device", "cuda"], &["device \"cuda\": ", "--device cpu"]);
    }
    refuses(&sandbox, &["sft", "sft.toml", "model.device=tpu"], &["device \"tpu\": ", "use auto, cpu, cuda or cuda:N"]);
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("reward", &["train.steps=1", "train.output=judge"]).ok();
    sandbox.write("taken.jsonl", "mine\n");
    sandbox.write("prompts.jsonl", "{\"prompt\": \"The film\"}\n");
    let lm = golden("models/gpt2-tiny").display().to_string();
    let lm = lm.as_str();
    let one = |args: &[&str], parts: &[&str]| refuses(&sandbox, args, parts);
    let generate = ["generate", "--model", lm, "--prompt", "x"];
    let with = |more: &[&'static str]| [&generate[..], more].concat();
    one(&with(&["--temperature", "0"]), &["--temperature must be greater than 0", "--greedy"]);
    one(&with(&["--top-p", "1.5"]), &["--top-p must lie in (0, 1]"]);
    one(&with(&["--max-new-tokens", "64"]), &["leave no room for a prompt: the model holds 64 tokens"]);
    one(&with(&["--output", "taken.jsonl"]), &["taken.jsonl: exists already"]);
    one(&with(&["--output", "nowhere/x.jsonl"]), &["nowhere: no such directory"]);
    one(
        &["generate", "--model", lm, "--prompt", "", "--max-new-tokens", "5"],
        &["--prompt:1: the prompt has no tokens"],
    );
    one(&["generate", "--model", "judge", "--prompt", "x"], &["judge: this is a reward model"]);
    one(&["score", "--model", lm, "--data", "none.jsonl"], &["none.jsonl"]);
    one(&["score", "--model", "judge", "--data", "sft.jsonl", "--eos"], &["--eos is for language models"]);
    one(&["score", "--model", "judge", "--data", "prompts.jsonl"], &["prompts.jsonl:1: expected the columns"]);
    one(&["evaluate", "--model", lm, "--data", "prompts.jsonl"], &["prompts.jsonl has only prompts", "--reward"]);
    one(&["evaluate", "--model", "judge", "--data", "pairs.jsonl", "--reference", lm], &["draws no samples"]);
    one(
        &["evaluate", "--model", lm, "--data", "pairs.jsonl", "--reward", lm, "--max-new-tokens", "5"],
        &["not a reward model"],
    );
    one(&["evaluate", "--model", lm, "--data", "sft.jsonl", "--output", "x"], &["--output holds samples"]);
    one(&["sft", "sft.toml", "model.path=judge"], &["judge: this is a reward model"]);
    one(&["dpo", "dpo.toml", "model.path=judge"], &["judge: this is a reward model"]);
    // What clap refuses has usage text, and exit 2 as well.
    for args in [&["sft"][..], &["align"], &["generate", "--model", lm], &["score", "--model", lm, "--batch-size", "0"]]
    {
        let before = sandbox.snapshot();
        let ran = sandbox.run(args);
        assert!(ran.code == 2 && ran.stdout.is_empty() && ran.stderr.starts_with("error: "), "{args:?}: {ran:?}");
        assert!(sandbox.snapshot() == before);
    }
}

#[cfg(unix)]
#[test]
fn an_output_that_cannot_be_written_is_named() {
    let sandbox = Sandbox::with_stages();
    sandbox.write("file", "x");
    refuses(&sandbox, &["sft", "sft.toml", "train.output=file"], &["file: is a file, a run needs a directory"]);
    refuses(&sandbox, &["sft", "sft.toml", "train.output=file/run"], &["file: is a file, a run needs a directory"]);
    // Nobody may make a directory there, root included.
    refuses(&sandbox, &["sft", "sft.toml", "train.output=/proc/run"], &["/proc: cannot be written to"]);
}

#[test]
fn a_token_shows_in_no_message() {
    const SECRET: &str = "hf_planted_in_the_environment";
    let sandbox = Sandbox::with_stages();
    for args in [&["sft", "sft.toml", "model.path=some/thing"][..], &["info"], &["sft", "sft.toml", "train.steps=1"]] {
        let output = sandbox.command(args).env("HF_TOKEN", SECRET).env("RUST_LOG", "trace").output().unwrap();
        for text in [output.stdout, output.stderr] {
            assert!(!String::from_utf8_lossy(&text).contains(SECRET), "{args:?}");
        }
    }
    for (path, bytes) in sandbox.snapshot() {
        assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "{}", path.display());
    }
}
