//! Bad tokenizers, configurations and weights of every family: one line that names file, key or tensor and the remedy,
//! exit 2, nothing written.
//!
//! In an expected line `…` stands for any text: other libraries' words.
#![allow(clippy::unwrap_used)]
use crate::support::golden;
use crate::support::sandbox::{Sandbox, copy_dir};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Where every case's model stands.
pub(super) const DIR: &str = "m";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Ends the line for a config.json, a tokenizer file, a damaged file, files that do not fit each other.
pub(super) const CONFIG: &str = "; correct it or use another model";
pub(super) const SOURCE: &str = "; take the file from the model's source again";
pub(super) const DAMAGED: &str = "; the file is damaged or incomplete; download or save it again";
pub(super) const TOGETHER: &str = "; check that config.json and the weights belong together";
/// Commands that load the model in [`DIR`]; the cases take turns.
pub(super) const COMMANDS: [&[&str]; 4] = [
    &["sft", "sft.toml", "model.path=m"],
    &["generate", "--model", DIR, "--prompt", "the", "--max-new-tokens", "4"],
    &["score", "--model", DIR, "--data", "sft.jsonl"],
    &["evaluate", "--model", DIR, "--data", "sft.jsonl"],
];

/// Puts a copy of a golden model, with a tokenizer, at [`DIR`].
pub(super) fn place(sandbox: &Sandbox, base: &str) {
    let dir = sandbox.path(DIR);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    copy_dir(&golden(&format!("models/{base}")), &dir);
    if !dir.join("tokenizer.json").exists() {
        let vocab = json!({"<unk>": 0, "</s>": 1, "a": 2, "b": 3, "the": 4});
        let model = json!({"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"});
        write_json(
            &dir.join("tokenizer.json"),
            &json!({"version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
            "decoder": null, "model": model}),
        );
        write_json(&dir.join("tokenizer_config.json"), &json!({"eos_token": "</s>"}));
    }
}

pub(super) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(super) fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

/// Changes a JSON file of the model.
pub(super) fn edit(sandbox: &Sandbox, file: &str, change: impl FnOnce(&mut Value)) {
    let path = sandbox.path(DIR).join(file);
    let mut value = read_json(&path);
    change(&mut value);
    write_json(&path, &value);
}

/// Whether `line` is `pattern`, in which `…` stands for any text.
fn fits(line: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap()) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    false
}

/// Runs `args`; fails unless it is refused in the one line `error: EXPECTED` and nothing is written.
#[track_caller]
pub(super) fn refused(sandbox: &Sandbox, args: &[&str], what: &str, expected: &str) {
    let before = sandbox.snapshot();
    let line = sandbox.run(args).refused(2);
    assert!(fits(&line, &format!("error: {expected}")), "{what} {args:?}\nexpected {expected}\nfound    {line}");
    assert!(sandbox.snapshot() == before, "{what} {args:?}: something was written");
}

/// Changes keys of config.json, and sees what is said.
fn configurations(cases: &[(&str, &str, &str)]) {
    let sandbox = Sandbox::with_stages();
    for (number, (base, keys, expected)) in cases.iter().enumerate() {
        place(&sandbox, base);
        let keys: Map<String, Value> = serde_json::from_str(keys).unwrap();
        edit(&sandbox, "config.json", |config| config.as_object_mut().unwrap().extend(keys.clone()));
        let expected = format!("m/config.json: {expected}{CONFIG}");
        refused(&sandbox, COMMANDS[number % COMMANDS.len()], &format!("{base} {keys:?}"), &expected);
    }
}

#[test]
fn sizes_and_numbers_that_no_model_has() {
    let of = "is not a whole number from 1 to 16777216";
    let said = |key: &str, value: &str| format!("{key}: {value} {of}");
    let cases: Vec<(&str, String, String)> = vec![
        ("gpt2-tiny", r#"{"n_head": 0}"#.into(), said("n_head", "0")),
        ("gpt2-tiny", r#"{"n_embd": -16}"#.into(), said("n_embd", "-16")),
        ("gpt2-tiny", r#"{"n_layer": "2"}"#.into(), said("n_layer", "\"2\"")),
        ("gpt2-tiny", r#"{"n_layer": 2.5}"#.into(), said("n_layer", "2.5")),
        ("gpt2-tiny", r#"{"vocab_size": 100000000000}"#.into(), said("vocab_size", "100000000000")),
        ("llama-tiny-gqa", r#"{"head_dim": "12"}"#.into(), said("head_dim", "\"12\"")),
        ("llama-tiny-gqa", r#"{"max_position_embeddings": 0}"#.into(), said("max_position_embeddings", "0")),
        ("mistral-window", r#"{"sliding_window": 0}"#.into(), said("sliding_window", "0")),
        ("qwen2-tiny", r#"{"sliding_window": -5}"#.into(), said("sliding_window", "-5")),
        ("opt-pre", r#"{"ffn_dim": 0}"#.into(), said("ffn_dim", "0")),
        ("neox-serial", r#"{"num_hidden_layers": true}"#.into(), said("num_hidden_layers", "true")),
    ];
    let cases: Vec<_> = cases.iter().map(|(base, keys, line)| (*base, keys.as_str(), line.as_str())).collect();
    configurations(&cases);
    configurations(&[
        ("gpt2-tiny", r#"{"n_head": 3}"#, "n_head: the hidden size 16 is not a multiple of 3"),
        (
            "neox-serial",
            r#"{"num_attention_heads": 5}"#,
            "num_attention_heads: the hidden size 24 is not a multiple of 5",
        ),
        ("opt-pre", r#"{"num_attention_heads": 5}"#, "num_attention_heads: the hidden size 24 is not a multiple of 5"),
        (
            "llama-tiny-gqa",
            r#"{"num_key_value_heads": 3}"#,
            "num_key_value_heads: 4 query heads are not a multiple of 3",
        ),
        ("llama-tiny-gqa", r#"{"head_dim": 7}"#, "head_dim: 7 is odd, rotary embedding needs pairs"),
        ("qwen3-tiny", r#"{"head_dim": 9}"#, "head_dim: 9 is odd, rotary embedding needs pairs"),
        ("neox-serial", r#"{"head_dim": 3}"#, "head_dim: only hidden_size / num_attention_heads = 12 is supported"),
        ("gpt2-tiny", r#"{"layer_norm_epsilon": -1}"#, "layer_norm_epsilon: -1 is not a number from 0"),
        (
            "qwen2-tiny",
            r#"{"layer_types": null, "max_window_layers": -1}"#,
            "max_window_layers: -1 is not a whole number from 0",
        ),
    ]);
}

#[test]
fn configurations_of_something_else() {
    configurations(&[
        ("gpt2-tiny", r#"{"model_type": null, "architectures": null}"#, "model_type: missing"),
        ("gpt2-tiny", r#"{"model_type": 3}"#, "model_type: 3 is not …"),
        (
            "qwen3-tiny",
            r#"{"model_type": "qwen3_moe"}"#,
            "model_type: \"qwen3_moe\" is not supported (gpt2, gpt_neox, opt, llama, mistral, qwen2, qwen3 are)",
        ),
        (
            "gpt2-tiny",
            r#"{"quantization_config": {"bits": 4}}"#,
            "quantization_config: quantised weights are not supported",
        ),
        ("gpt2-tiny", r#"{"attn_logit_softcapping": 30.0}"#, "attn_logit_softcapping: 30.0 is not supported"),
        ("gpt2-tiny", r#"{"add_cross_attention": true}"#, "add_cross_attention: true is not supported"),
        ("gpt2-tiny", r#"{"activation_function": "swiglu"}"#, "activation_function: \"swiglu\" is not supported (…)"),
        (
            "opt-pre",
            r#"{"activation_function": "quick_gelu"}"#,
            "activation_function: \"quick_gelu\" is not supported (…)",
        ),
        ("neox-serial", r#"{"hidden_act": 1}"#, "hidden_act: 1 is not supported (…)"),
        (
            "gpt2-tiny",
            r#"{"tie_word_embeddings": "false"}"#,
            "tie_word_embeddings: \"false\" is neither true nor false",
        ),
        ("opt-pre", r#"{"do_layer_norm_before": 1}"#, "do_layer_norm_before: 1 is neither true nor false"),
        ("llama-tiny-gqa", r#"{"num_local_experts": 8}"#, "num_local_experts: 8 is not supported"),
        (
            "mistral-window",
            r#"{"layer_types": ["full_attention"]}"#,
            "layer_types: must name a kind for each of the 2 layers",
        ),
        (
            "mistral-window",
            r#"{"layer_types": ["full_attention", "mamba"]}"#,
            "layer_types: \"mamba\" is not supported",
        ),
        ("qwen2-tiny", r#"{"use_sliding_window": false}"#, "layer_types: sliding_attention without a sliding_window"),
    ]);
}

#[test]
fn rotary_embeddings_that_cannot_be() {
    configurations(&[
        (
            "llama-tiny-gqa",
            r#"{"rope_parameters": {"rope_type": "magic"}}"#,
            "rope_parameters: rope_type \"magic\" is not supported (default, linear, dynamic, llama3 are)",
        ),
        ("llama-tiny-gqa", r#"{"rope_parameters": {"rope_type": "linear"}}"#, "rope_parameters: factor is missing"),
        (
            "llama-tiny-gqa",
            r#"{"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1}}"#,
            "rope_parameters: high_freq_factor must be above low_freq_factor",
        ),
        ("llama-tiny-gqa", r#"{"rope_parameters": [1]}"#, "rope_parameters: [1] is not an object"),
        ("llama-tiny-gqa", r#"{"rope_parameters": null, "rope_theta": 0}"#, "rope_theta: 0 is not a positive number"),
        (
            "mistral-window",
            r#"{"rope_parameters": {"rope_theta": "1e4"}}"#,
            "rope_parameters: rope_theta: \"1e4\" is not a positive number",
        ),
        ("llama-tiny-gqa", r#"{"partial_rotary_factor": 0.5}"#, "partial_rotary_factor: only 1.0 is supported here"),
        (
            "neox-serial",
            r#"{"rope_parameters": null, "rotary_pct": 1.5}"#,
            "rotary_pct: 18 of a head's 12 values cannot turn",
        ),
    ]);
}

/// Files of the model that are replaced by other bytes.
#[test]
fn files_that_are_not_what_their_names_say() {
    let sandbox = Sandbox::with_stages();
    let junk: &[u8] = b"\xff\xfe\x00\x01";
    let (not_json, no_object) = (format!("is not JSON: …{SOURCE}"), format!("is not a JSON object{SOURCE}"));
    let no_tokenizer = format!("is not a tokenizer: …{SOURCE}");
    let no_weights = format!("not a safetensors file: …{DAMAGED}");
    let cut = b"{\"version\": \"1.0\", \"model\": {\"type\": \"BPE\"";
    for (number, (file, content, expected)) in [
        ("config.json", &b""[..], &not_json),
        ("config.json", b"{oops}", &not_json),
        ("config.json", junk, &not_json),
        ("config.json", b"[1]", &no_object),
        ("tokenizer_config.json", b"[]", &no_object),
        ("tokenizer_config.json", b"{\"eos_token\": \"</", &not_json),
        ("special_tokens_map.json", b"null", &no_object),
        ("generation_config.json", junk, &not_json),
        ("tokenizer.json", b"", &no_tokenizer),
        ("tokenizer.json", junk, &no_tokenizer),
        ("tokenizer.json", cut, &no_tokenizer),
        ("tokenizer.json", b"{\"version\": \"1.0\", \"added_tokens\": []}", &no_tokenizer),
        (WEIGHTS, b"", &no_weights),
        (WEIGHTS, b"<!DOCTYPE html><html>404</html>", &no_weights),
        (WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n", &no_weights),
        (WEIGHTS, b"\x80\x02}q\x00.", &no_weights),
        (WEIGHTS, b"\x04\0\0\0\0\0\0\0{\"\xff\"", &no_weights),
    ]
    .into_iter()
    .enumerate()
    {
        place(&sandbox, "gpt2-tiny");
        std::fs::write(sandbox.path(DIR).join(file), content).unwrap();
        let args = COMMANDS[number % COMMANDS.len()];
        refused(&sandbox, args, &format!("{file} {content:?}"), &format!("m/{file}: {expected}"));
    }
    for file in ["vocab.json", "tokenizer.model", "spiece.model"] {
        place(&sandbox, "gpt2-tiny");
        std::fs::rename(sandbox.path("m/tokenizer.json"), sandbox.path(DIR).join(file)).unwrap();
        let expected = "m: has no tokenizer.json; make one from the files there: python -c '…save_pretrained(d)'";
        refused(&sandbox, COMMANDS[0], file, expected);
    }
}

/// What is done to a JSON file.
pub(super) type Change = fn(&mut Value);

/// A post-processor that puts `<bos>` in front, with its table of special tokens.
fn front(table: Value) -> Value {
    let single = json!([{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]);
    json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": table})
}

fn added(id: i64, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true})
}

#[test]
fn tokenizers_that_do_not_work() {
    let sandbox = Sandbox::with_stages();
    let broken = &*format!("m/tokenizer.json: is not a tokenizer: …{SOURCE}");
    let beyond = "m: the tokenizer has ids up to 400 but the model has 400 embedding rows; use the tokenizer that the \
                  model was trained with";
    let far = "m…: …90000…; …";
    let empty =
        "m/tokenizer.json: is not a tokenizer: the vocabulary is empty; take the file from the model's source again";
    let cases: [(&str, Change, &str); 14] = [
        ("no vocabulary", |t| drop(t["model"].as_object_mut().unwrap().remove("vocab")), broken),
        ("negative id", |t| t["model"]["vocab"]["zz"] = json!(-4), broken),
        ("id as text", |t| t["model"]["vocab"]["zz"] = json!("4"), broken),
        ("id of 40 bits", |t| t["model"]["vocab"]["zz"] = json!(1_u64 << 40), broken),
        ("merge of no tokens", |t| t["model"]["merges"].as_array_mut().unwrap().push(json!(["qq", "zz"])), broken),
        ("unknown kind", |t| t["model"]["type"] = json!("Magic"), broken),
        ("unknown version", |t| t["version"] = json!("2.0"), broken),
        (
            "bad pattern",
            |t| {
                t["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "("}, "behavior":
            "Isolated", "invert": false})
            },
            broken,
        ),
        (
            "bad character map",
            |t| t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
            broken,
        ),
        (
            "empty pattern",
            |t| t["normalizer"] = json!({"type": "Replace", "pattern": {"String": ""}, "content": "a"}),
            broken,
        ),
        ("token without id", |t| t["post_processor"] = front(json!({})), broken),
        (
            "token in front beyond the model",
            |t| {
                t["post_processor"] = front(json!({"<bos>": {"id": "<bos>", "ids": [90000],
            "tokens": ["<bos>"]}}))
            },
            far,
        ),
        ("one token too many", |t| t["added_tokens"].as_array_mut().unwrap().push(added(400, "<more>")), beyond),
        (
            "nothing at all",
            |t| {
                t["model"]["vocab"] = json!({});
                t["model"]["merges"] = json!([]);
                t["added_tokens"] = json!([]);
            },
            empty,
        ),
    ];
    for (number, (what, change, expected)) in cases.into_iter().enumerate() {
        place(&sandbox, "gpt2-tiny");
        edit(&sandbox, "tokenizer.json", change);
        refused(&sandbox, COMMANDS[number % COMMANDS.len()], what, expected);
    }
}

#[test]
fn special_tokens_outside_the_vocabulary() {
    let sandbox = Sandbox::with_stages();
    let config = "tokenizer_config.json";
    let outside = "which is not in the vocabulary of tokenizer.json; correct";
    let table = format!("m/{config}: added_tokens_decoder is not a table of ids and tokens{SOURCE}");
    let other = format!("m/{config}: added_tokens_decoder lists");
    let belongs = "use the tokenizer_config.json that belongs to tokenizer.json";
    for (number, (key, value, expected)) in [
        ("eos_token", json!("<nope>"), format!("m/{config}: eos_token is \"<nope>\", {outside} eos_token or …")),
        (
            "bos_token",
            json!({"content": "<no>"}),
            format!("m/{config}: bos_token is \"<no>\", {outside} bos_token or …"),
        ),
        ("pad_token", json!("<nope>"), format!("m/{config}: pad_token is \"<nope>\", {outside} pad_token or …")),
        ("added_tokens_decoder", json!([]), table.clone()),
        ("added_tokens_decoder", json!({"two": {"content": "<s>"}}), table.clone()),
        ("added_tokens_decoder", json!({"2": {}}), table),
        (
            "added_tokens_decoder",
            json!({"7": {"content": "<s>"}}),
            format!("{other} \"<s>\" as id 7, but tokenizer.json gives it id 2; {belongs}"),
        ),
        (
            "added_tokens_decoder",
            json!({"399": {"content": "<new>"}}),
            format!("{other} \"<new>\" as id 399, but tokenizer.json has no such token; {belongs}"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        place(&sandbox, "gpt2-tiny");
        edit(&sandbox, config, |object| object[key] = value);
        refused(&sandbox, COMMANDS[number % COMMANDS.len()], key, &expected);
    }
    for (id, expected) in [
        (json!(5000), format!("m/generation_config.json: eos_token_id is 5000, {outside} eos_token_id or …")),
        (json!([5000]), format!("m/generation_config.json: eos_token_id is 5000, {outside} eos_token_id or …")),
        (json!("x"), "m/generation_config.json: eos_token_id …; …".to_owned()),
    ] {
        place(&sandbox, "gpt2-tiny");
        edit(&sandbox, config, |object| *object = json!({}));
        edit(&sandbox, "generation_config.json", |object| object["eos_token_id"] = id.clone());
        refused(&sandbox, COMMANDS[0], &format!("EOS {id}"), &expected);
    }
}

#[test]
fn chat_templates_that_do_not_work() {
    let sandbox = Sandbox::with_stages();
    let turns = json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Good."}]});
    sandbox.write("chat.jsonl", format!("{turns}\n"));
    let compile = "m/chat_template.jinja: the chat template does not compile: …; correct the template";
    let refuses = "chat.jsonl:1: the chat template refuses the conversation: ";
    let deep = |open: &str, rest: &str| format!("{{{{ {}{rest} }}}}", open.repeat(120_000));
    for (template, expected) in [
        ("{% for m in messages %}{{ m".to_owned(), compile.to_owned()),
        ("{% include '/etc/passwd' %}".into(), compile.into()),
        (deep("-", "1"), compile.into()),
        (deep("1+", "1"), compile.into()),
        (deep("a.", "b"), compile.into()),
        (
            "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}".into(),
            format!("{refuses}…too many steps; …"),
        ),
        ("{{ 'x' * 1000000000 }}".into(), format!("{refuses}…; …")),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into(), format!("{refuses}recursion limit exceeded; …")),
        ("{{ raise_exception('begin with\\nthe system') }}".into(), format!("{refuses}begin with the system; …")),
    ] {
        place(&sandbox, "gpt2-tiny");
        sandbox.write("m/chat_template.jinja", &template);
        let what: String = template.chars().take(60).collect();
        refused(&sandbox, &["sft", "sft.toml", "model.path=m", "data.train=chat.jsonl"], &what, &expected);
    }
    place(&sandbox, "gpt2-tiny");
    sandbox.write("junk.jinja", b"\xff\x00");
    for file in ["none.jinja", "junk.jinja", "rewarder"] {
        let path = format!("data.chat_template={file}");
        refused(&sandbox, &["sft", "sft.toml", "model.path=m", &path], file, &format!("{file}: …; …"));
    }
}
