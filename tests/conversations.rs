//! Conversational rows through every stage and command, packed files, weights and rows on disk, as a user runs them.
#![allow(clippy::unwrap_used)]
use crate::support::golden;
use crate::support::sandbox::{Sandbox, json_lines};
use crate::train::resume::{as_if_killed, assert_same_run};
use serde_json::{Map, Value, json};
use std::io::Write;

/// Ends a turn with EOS and a newline, marks what the assistant says.
const TEMPLATE: &str = "{% for message in messages %}<|{{ message.role }}|>\n{% if message.role == 'assistant' %}\
    {% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}{% else %}{{ message.content }}\
    {{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}";

fn turn(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// The stages' sandbox with `template.jinja`, and ten rows of each kind of conversation.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_stages();
    sandbox.write("template.jinja", TEMPLATE);
    let question = |i: usize| turn("user", &format!("Was film {i} good?"));
    let rows = |row: &dyn Fn(usize) -> Value| (0..10).map(|i| object(row(i))).collect::<Vec<_>>();
    sandbox.rows(
        "messages.jsonl",
        &rows(&|i| {
            let more =
                [turn("user", "And the end?"), turn("assistant", if i % 3 == 0 { "Good." } else { "Bad, too." })];
            let mut messages = vec![question(i), turn("assistant", "Yes.")];
            messages.extend(more.into_iter().take(2 * (i % 2)));
            json!({"messages": messages})
        }),
    );
    sandbox.rows(
        "chat-pairs.jsonl",
        &rows(&|i| {
            json!({"prompt": [question(i)], "chosen": [turn("assistant", "It was good.")],
               "rejected": [turn("assistant", &format!("No, {i}."))]})
        }),
    );
    sandbox
}

const CHAT: &str = "data.chat_template=template.jinja";

/// The prompts that `validate --json` shows, as text of context and target runs.
fn example(sandbox: &Sandbox, args: &[&str], column: &str) -> Vec<(bool, String)> {
    let report: Value = serde_json::from_str(&sandbox.run(args).ok().stdout).unwrap();
    let runs = report["data.train"]["example"]["columns"][column].as_array().unwrap();
    runs.iter().map(|run| (run["target"] == true, run["text"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn every_stage_takes_conversations() {
    let sandbox = sandbox();
    let only = ["data.train=messages.jsonl", CHAT, "data.assistant_only=true", "train.output=sft"];
    sandbox.stage("sft", &only).ok();
    let saved = std::fs::read_to_string(sandbox.path("sft/chat_template.jinja")).unwrap();
    assert_eq!(saved, TEMPLATE, "the template goes with the model");
    // From here on it is the model's own.
    let pairs = "data.train=chat-pairs.jsonl";
    sandbox.stage("reward", &["model.path=sft", pairs, "train.output=judge"]).ok();
    sandbox.stage("dpo", &["model.path=sft", pairs, "train.output=dpo"]).ok();
    let ppo = ["model.path=sft", pairs, "ppo.reward_model=judge", "train.steps=1"];
    sandbox.stage("ppo", &[&ppo[..], &["train.output=ppo"]].concat()).ok();
    let said = sandbox.path("said.jsonl");
    let program = format!(
        "import json,sys\nfor line in sys.stdin:\n    open({said:?}, 'a').write(line)\n    print(0.5, flush=True)\n"
    );
    sandbox.write("score.py", program);
    let command = ["model.path=sft", pairs, "train.steps=1", "ppo.reward_command=python3 score.py"];
    let asked = sandbox.stage("ppo", &[&command[..], &["train.output=asked"]].concat());
    assert_eq!(asked.code, 2, "reward_model stands in the file: {asked:?}");
    let text = std::fs::read_to_string(sandbox.path("ppo.toml")).unwrap().replace("reward_model = \"rewarder\"\n", "");
    sandbox.write("ppo.toml", text);
    sandbox.stage("ppo", &[&command[..], &["train.output=asked"]].concat()).ok();
    let rows = json_lines(&said);
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert_eq!(row["prompt"][0]["role"], "user", "{row:?}");
        assert_eq!(row["completion"][0]["role"], "assistant", "{row:?}");
    }
    commands(&sandbox);
}

fn commands(sandbox: &Sandbox) {
    let generated = ["generate", "--model", "dpo", "--max-new-tokens", "5", "--output", "out.jsonl"];
    sandbox.run(&[&generated[..], &["--prompts", "chat-pairs.jsonl"]].concat()).ok();
    let rows = json_lines(&sandbox.path("out.jsonl"));
    assert_eq!(rows[0]["prompt"], json!([turn("user", "Was film 0 good?")]), "as rows that can be scored again");
    assert_eq!(rows[0]["completion"][0]["role"], "assistant");
    sandbox.run(&["score", "--model", "judge", "--data", "out.jsonl", "--output", "judged.jsonl"]).ok();
    let typed = ["generate", "--model", "dpo", "--max-new-tokens", "5", "--greedy", "--output"];
    sandbox.run(&[&typed[..], &["typed.jsonl", "--chat", "--prompt", "Was film 0 good?"]].concat()).ok();
    sandbox.run(&[&typed[..], &["read.jsonl", "--prompts", "chat-pairs.jsonl"]].concat()).ok();
    assert_eq!(
        json_lines(&sandbox.path("typed.jsonl"))[0]["tokens"],
        json_lines(&sandbox.path("read.jsonl"))[0]["tokens"]
    );
    for (model, data) in [("dpo", "messages.jsonl"), ("dpo", "chat-pairs.jsonl"), ("judge", "chat-pairs.jsonl")] {
        let evaluated = sandbox.run(&["evaluate", "--model", model, "--data", data, "--json"]).ok().stdout;
        let figures: Value = serde_json::from_str(&evaluated).unwrap();
        assert!(figures["loss"].is_f64() || figures["accuracy"].is_f64(), "{figures}");
    }
    collected(sandbox);
    let scored = ["score", "--model", "sft", "--data", "messages.jsonl", "--output", "scored.jsonl"];
    sandbox.run(&scored).ok();
    let first = &json_lines(&sandbox.path("scored.jsonl"))[0];
    assert!(first["messages"].is_array() && first["logprob"].is_f64(), "{first:?}");
}

/// Pairs of answers to conversations, which a judge reads through its own template.
fn collected(sandbox: &Sandbox) {
    let text = "[collect]\nmodels = \"dpo\"\nprompts = \"chat-pairs.jsonl\"\nmax_new_tokens = 6\ndevice = \"cpu\"\n";
    sandbox.write("collect.toml", text);
    let collect = |judge: &str, output: &str| {
        let more = [format!("collect.judge={judge}"), format!("collect.output={output}")];
        sandbox.run(&["collect", "collect.toml", &more[0], &more[1]])
    };
    collect("judge", "collected.jsonl").ok();
    for row in json_lines(&sandbox.path("collected.jsonl")) {
        assert_eq!((&row["prompt"][0]["role"], &row["chosen"][0]["role"]), (&json!("user"), &json!("assistant")));
    }
    sandbox.stage("reward", &["model.path=sft", "data.train=collected.jsonl", "train.output=from-collected"]).ok();
    let plain = golden("models/gpt2-tiny");
    let base =
        ["collect", "collect.toml", "collect.output=plain.jsonl", &format!("collect.models={}", plain.display())];
    assert!(sandbox.run(&base).refused(2).contains("collect.chat_template"));
    sandbox.run(&[&base[..], &["collect.chat_template=template.jinja"]].concat()).ok();
    let refusal = collect("rewarder", "other.jsonl").refused(2);
    assert!(refusal.contains("no chat template"), "{refusal}");
}

#[test]
fn validate_shows_the_mask_of_a_conversation() {
    let sandbox = sandbox();
    let base = ["validate", "sft.toml", "data.train=messages.jsonl", CHAT, "--json"];
    let whole = example(&sandbox, &base, "sequence");
    assert_eq!(whole.len(), 2, "all but the first token: {whole:?}");
    let only = example(&sandbox, &[&base[..], &["data.assistant_only=true"]].concat(), "sequence");
    let text = |target: bool, text: &str| (target, text.to_owned());
    assert_eq!(
        only,
        [
            text(false, "<|user|>\nWas film 0 good?<|endoftext|>\n<|assistant|>\n"),
            text(true, "Yes.<|endoftext|>"),
            text(false, "\n"),
        ]
    );
    let pairs = ["validate", "dpo.toml", "--stage", "dpo", "data.train=chat-pairs.jsonl", CHAT, "--json"];
    let chosen = example(&sandbox, &pairs, "chosen");
    assert_eq!(chosen[1], text(true, "It was good.<|endoftext|>\n"));
    let report: Value = serde_json::from_str(&sandbox.run(&pairs).ok().stdout).unwrap();
    let source = &report["data.train"]["sources"][0];
    for (key, count) in [("rows", 10), ("usable", 10), ("truncated", 0), ("boundary_moved", 0), ("with_eos_target", 10)]
    {
        assert_eq!(source[key], count, "{key}: {source}");
    }
    assert_eq!(report["stage"], "dpo");
    assert!(report["memory"]["at_least_bytes"].as_u64().unwrap() > 0);
    let plain = sandbox.run(&["validate", "sft.toml"]).ok().stdout;
    for part in
        ["stage             sft", "data.train        sft.jsonl: 10 rows", "example           sft.jsonl:1", "target "]
    {
        assert!(plain.contains(part), "{part}: {plain}");
    }
    let before = sandbox.snapshot();
    let wrong = sandbox.run(&["validate", "sft.toml", "data.train=pairs.jsonl"]).refused(2);
    assert!(wrong.contains("preference pairs") && wrong.contains("--stage"), "{wrong}");
    let missing = sandbox.run(&["validate", "sft.toml", "data.train=messages.jsonl"]).refused(2);
    assert!(missing.contains("no chat template") && missing.contains("data.chat_template"), "{missing}");
    assert_eq!(before, sandbox.snapshot(), "validate writes nothing");
}

/// Rows on disk give the same run, byte for byte, also when it is resumed; so do packed files and parts with weight 1.
#[test]
fn streaming_packed_and_listed_rows_train_alike() {
    for (stage, file) in [("sft", "sft.jsonl"), ("dpo", "pairs.jsonl"), ("ppo", "pairs.jsonl")] {
        let memory = Sandbox::with_stages();
        let run = ["train.steps=5", "train.save_every=2", "train.keep=9"];
        memory.stage(stage, &run).ok();
        let disk = Sandbox::with_stages();
        let streaming = [&run[..], &["data.streaming=true"]].concat();
        disk.stage(stage, &[&streaming[..], &["train.steps=5"]].concat()).ok();
        assert_same_run(&format!("{stage} on disk"), &disk.path("run"), &memory.path("run"), Some("checkpoint-4"));
        let text = std::fs::read_to_string(memory.path(file)).unwrap();
        let packed = Sandbox::with_stages();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        packed.write("rows.gz", encoder.finish().unwrap());
        packed.stage(stage, &[&run[..], &["data.train=rows.gz"]].concat()).ok();
        assert_same_run(&format!("{stage} packed"), &packed.path("run"), &memory.path("run"), Some("checkpoint-4"));
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let listed = Sandbox::with_stages();
        listed.write("a.jsonl", lines[..4].concat());
        listed.write("b.jsonl", lines[4..].concat());
        listed.stage(stage, &[&run[..], &["data.train=[\"a.jsonl\", \"b.jsonl\"]"]].concat()).ok();
        assert_same_run(&format!("{stage} listed"), &listed.path("run"), &memory.path("run"), Some("checkpoint-4"));
    }
}

/// A weight of 2 doubles a file's share of the epoch, a half halves it; a resumed run takes the same rows.
#[test]
fn weights_decide_an_epoch_and_resume() {
    let train = "data.train=[{ path = \"a.jsonl\", weight = 2 }, { path = \"b.jsonl\", weight = 0.5 }]";
    let run =
        [train, "train.epochs=2", "train.save_every=1", "train.keep=99", "train.batch_size=1", "train.log_every=1"];
    let made = || {
        let sandbox = Sandbox::with_stages();
        let text = std::fs::read_to_string(sandbox.path("sft.jsonl")).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        sandbox.write("a.jsonl", lines[..3].concat());
        sandbox.write("b.jsonl", lines[3..7].concat());
        sandbox
    };
    let whole = made();
    whole.stage("sft", &run).ok();
    let last = json_lines(&whole.path("run/metrics.jsonl")).last().cloned().unwrap();
    assert_eq!(last["step"], 2 * (2 * 3 + 2), "two epochs of 2 * 3 + 4 / 2 rows");
    let cut = made();
    as_if_killed(&whole.path("run"), &cut.path("run"), "checkpoint-11");
    let changed =
        cut.stage("sft", &[&run[1..], &["data.train=[\"a.jsonl\", \"b.jsonl\"]", "train.resume=true"]].concat());
    assert!(changed.refused(2).contains("data.train was"), "other weights are another run");
    cut.stage("sft", &[&run[..], &["train.resume=true"]].concat()).ok();
    assert_same_run("weighted", &cut.path("run"), &whole.path("run"), Some("checkpoint-16"));
}

/// A template that writes the date renders the rows of a resumed run as of the day on which it began.
#[test]
fn the_date_of_a_template_is_the_runs_first() {
    let sandbox = sandbox();
    sandbox.write("dated.jinja", format!("{{{{ strftime_now('%H:%M:%S') }}}}{TEMPLATE}"));
    let run = ["data.train=messages.jsonl", "data.chat_template=dated.jinja", "train.steps=4", "train.save_every=2"];
    sandbox.stage("sft", &run).ok();
    let other = self::sandbox();
    other.write("dated.jinja", std::fs::read(sandbox.path("dated.jinja")).unwrap());
    as_if_killed(&sandbox.path("run"), &other.path("run"), "checkpoint-2");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    other.stage("sft", &[&run[..], &["train.resume=true"]].concat()).ok();
    assert_same_run("dated", &other.path("run"), &sandbox.path("run"), Some("checkpoint-4"));
}

/// A prompt that ends with the assistant's words goes on there, and is judged as one message.
#[test]
fn a_prompt_that_goes_on_is_one_message() {
    let sandbox = sandbox();
    let prompt = json!([turn("user", "Was it good?"), turn("assistant", "It was")]);
    sandbox.rows("begun.jsonl", &[object(json!({"prompt": prompt}))]);
    sandbox.stage("sft", &["data.train=messages.jsonl", CHAT, "train.output=sft"]).ok();
    let args =
        ["generate", "--model", "sft", "--prompts", "begun.jsonl", "--max-new-tokens", "4", "--output", "o.jsonl"];
    sandbox.run(&args).ok();
    let row = &json_lines(&sandbox.path("o.jsonl"))[0];
    assert_eq!(row["prompt"], json!([turn("user", "Was it good?")]));
    assert!(row["completion"][0]["content"].as_str().unwrap().starts_with("It was"), "{row:?}");
}
