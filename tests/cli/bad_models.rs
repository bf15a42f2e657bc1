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
const DIR: &str = "m";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Ends the line for a config.json, a tokenizer file, a damaged file, files that do not fit each other.
const CONFIG: &str = "; correct it or use another model";
const SOURCE: &str = "; take the file from the model's source again";
const DAMAGED: &str = "; the file is damaged or incomplete; download or save it again";
const TOGETHER: &str = "; check that config.json and the weights belong together";
/// Commands that load the model in [`DIR`]; the cases take turns.
const COMMANDS: [&[&str]; 4] = [
    &["sft", "sft.toml", "model.path=m"],
    &["generate", "--model", DIR, "--prompt", "the", "--max-new-tokens", "4"],
    &["score", "--model", DIR, "--data", "sft.jsonl"],
    &["evaluate", "--model", DIR, "--data", "sft.jsonl"],
];

/// Puts a copy of a golden model, with a tokenizer, at [`DIR`].
fn place(sandbox: &Sandbox, base: &str) {
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

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

/// Changes a JSON file of the model.
fn edit(sandbox: &Sandbox, file: &str, change: impl FnOnce(&mut Value)) {
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
fn refused(sandbox: &Sandbox, args: &[&str], what: &str, expected: &str) {
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

type Change = fn(&mut Value);

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

/// What is done to a file.
type Damage = fn(&Path);

/// The header of a safetensors file, and what follows.
fn parts_of(path: &Path) -> (Value, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..end]).unwrap(), bytes[end..].to_vec())
}

fn write_parts(path: &Path, header: &str, data: &[u8]) {
    let length = header.len() as u64;
    std::fs::write(path, [&length.to_le_bytes(), header.as_bytes(), data].concat()).unwrap();
}

/// A tensor in the midst of the tiny GPT-2.
const NORM: &str = "transformer.h.1.ln_1.weight";

#[test]
fn headers_that_lie() {
    let sandbox = Sandbox::with_stages();
    let file = "m/model.safetensors";
    let place_of = "its place overlaps another's, leaves a hole or lies outside the file";
    let cases: [(&str, Change, String); 11] = [
        ("overlap", |h| h[NORM]["data_offsets"] = json!([0, 64]), format!("{file}: tensor …: {place_of}{DAMAGED}")),
        (
            "backwards",
            |h| h[NORM]["data_offsets"].as_array_mut().unwrap().reverse(),
            format!("{file}: tensor {NORM}: {place_of}{DAMAGED}"),
        ),
        ("hole", |h| drop(h.as_object_mut().unwrap().remove(NORM)), format!("{file}: tensor …: {place_of}{DAMAGED}")),
        (
            "beyond the file",
            |h| h[NORM]["data_offsets"] = json!([1_u64 << 62, (1_u64 << 62) + 64]),
            format!("{file}: tensor …: {place_of}{DAMAGED}"),
        ),
        (
            "negative",
            |h| h[NORM]["data_offsets"] = json!([-4, 60]),
            format!("{file}: not a safetensors file: …{DAMAGED}"),
        ),
        ("unknown type", |h| h[NORM]["dtype"] = json!("Q4"), format!("{file}: not a safetensors file: …{DAMAGED}")),
        ("smaller type", |h| h[NORM]["dtype"] = json!("F16"), format!("{file}: …{NORM}…{DAMAGED}")),
        (
            "huge shape",
            |h| h[NORM]["shape"] = json!([1_u64 << 40, 1_u64 << 40]),
            format!("{file}: not a safetensors file: …{DAMAGED}"),
        ),
        (
            "two rows",
            |h| h[NORM]["shape"] = json!([4, 4]),
            format!("{file}: tensor {NORM}: has shape [4, 4], the model wants [16]{TOGETHER}"),
        ),
        (
            "integers",
            |h| h[NORM]["dtype"] = json!("I32"),
            format!("{file}: tensor {NORM}: has type I32; save the model as float32, bfloat16 or float16"),
        ),
        (
            "a name of two lines",
            |h| h["bad\nname\u{1b}[31m"] = json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
            format!("m…: tensor transformer.bad\\nname…: …{TOGETHER}"),
        ),
    ];
    for (number, (what, change, expected)) in cases.into_iter().enumerate() {
        place(&sandbox, "gpt2-tiny");
        let path = sandbox.path(DIR).join(WEIGHTS);
        let (mut header, data) = parts_of(&path);
        change(&mut header);
        write_parts(&path, &header.to_string(), &data);
        refused(&sandbox, COMMANDS[number % COMMANDS.len()], what, &expected);
    }
}

#[test]
fn weights_that_are_cut_or_do_not_fit() {
    let sandbox = Sandbox::with_stages();
    let cases: [(&str, Damage, String); 6] = [
        ("cut", |path| { let b = std::fs::read(path).unwrap(); std::fs::write(path, &b[..b.len() - 9]).unwrap(); },
            format!("m/{WEIGHTS}: its length is not what its header says (cut short?){DAMAGED}")),
        ("a huge header", |path| { let b = std::fs::read(path).unwrap(); std::fs::write(path, [&(1_u64 << 63).to_le_bytes(), &b[8..]].concat()).unwrap(); },
            format!("m/{WEIGHTS}: not a safetensors file: header too large{DAMAGED}")),
        ("a tensor twice", |path| {
            let (header, data) = parts_of(path);
            let again = format!(",{}:{}}}", json!(NORM), header[NORM]);
            write_parts(path, &(header.to_string().trim_end_matches('}').to_owned() + "}" + &again), &data);
        }, format!("m/{WEIGHTS}: tensor {NORM}: stands in the header twice{DAMAGED}")),
        ("two names of one tensor", |path| {
            let (mut header, mut data) = parts_of(path);
            let end = data.len();
            header["h.1.ln_1.weight"] = json!({"dtype": "F32", "shape": [16], "data_offsets": [end, end + 64]});
            data.extend([0; 64]);
            write_parts(path, &header.to_string(), &data);
        }, format!("m/{WEIGHTS}: tensor …: stands in the weights twice{DAMAGED}")),
        ("not a number", |path| {
            let (header, mut data) = parts_of(path);
            let at = header[NORM]["data_offsets"][0].as_u64().unwrap() as usize;
            data[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            write_parts(path, &header.to_string(), &data);
        }, format!("m/{WEIGHTS}: tensor {NORM}: holds a value that is not finite (NaN or infinity){DAMAGED}")),
        ("another head than the tied one", |path| {
            let (mut header, mut data) = parts_of(path);
            let (end, size) = (data.len(), 400 * 16 * 4);
            header["lm_head.weight"] = json!({"dtype": "F32", "shape": [400, 16], "data_offsets": [end, end + size]});
            data.extend(vec![0; size]);
            write_parts(path, &header.to_string(), &data);
        }, "m…: tensor lm_head.weight: differs from transformer.wte.weight, though config.json ties them; set \"tie_word_embeddings\": false in config.json to keep both".into()),
    ];
    for (number, (what, change, expected)) in cases.into_iter().enumerate() {
        place(&sandbox, "gpt2-tiny");
        change(&sandbox.path(DIR).join(WEIGHTS));
        refused(&sandbox, COMMANDS[number % COMMANDS.len()], what, &expected);
    }
}

/// Weights of each family beside a config.json that wants others.
#[test]
fn weights_that_config_json_does_not_describe() {
    let sandbox = Sandbox::with_stages();
    for (number, (base, key, value, expected)) in [
        ("gpt2-tiny", "n_embd", json!(32), "m/model.safetensors: tensor transformer.wte.weight: has shape [400, 16], the model wants [400, 32]"),
        ("llama-tiny-gqa", "mlp_bias", json!(true), "m…: tensor model.layers.0.mlp.gate_proj.bias: missing from the weights"),
        ("llama-tiny-gqa", "attention_bias", json!(false), "m…: tensor model.layers.0.self_attn.…: the model that config.json describes has no such tensor"),
        ("mistral-window", "num_hidden_layers", json!(3), "m…: tensor model.layers.2.…: missing from the weights"),
        ("qwen3-tiny", "model_type", json!("qwen2"), "m…: tensor model.layers.0.self_attn.q_proj.bias: missing from the weights"),
        ("opt-pre", "enable_bias", json!(false), "m…: tensor model.decoder.layers.0.…: the model that config.json describes has no such tensor"),
        ("opt-pre", "max_position_embeddings", json!(31), "m/model.safetensors: tensor model.decoder.embed_positions.weight: has shape [34, 24], the model wants [33, 24]"),
        ("neox-serial", "intermediate_size", json!(31), "m/model.safetensors: tensor gpt_neox.layers.0.mlp.dense_h_to_4h.weight: has shape [30, 24], the model wants [31, 24]"),
    ]
    .into_iter()
    .enumerate()
    {
        place(&sandbox, base);
        edit(&sandbox, "config.json", |config| config[key] = value);
        refused(&sandbox, COMMANDS[number % COMMANDS.len()], &format!("{base} {key}"), &format!("{expected}{TOGETHER}"));
    }
}

#[test]
fn shards_that_do_not_fit_their_index() {
    let sandbox = Sandbox::with_stages();
    let shard = |n: usize| format!("model-0000{n}-of-00003.safetensors");
    for (number, name) in
        ["../start/model.safetensors", "/etc/passwd", "a/b.safetensors", "", "..", "a\nb"].into_iter().enumerate()
    {
        place(&sandbox, "llama-sharded");
        edit(&sandbox, INDEX, |index| index["weight_map"]["lm_head.weight"] = json!(name));
        let expected =
            format!("m/{INDEX}: names the shard {name:?}, which is not a plain file name; do not use this model");
        refused(&sandbox, COMMANDS[number % COMMANDS.len()], name, &expected);
    }
    let misplaced = format!("m/{}: tensor lm_head.weight: {INDEX} does not place it here{DAMAGED}", shard(3));
    let cases: [(&str, Change, String); 5] = [
        (
            "a tensor of no shard",
            |i| i["weight_map"]["model.layers.7.x"] = json!("model-00001-of-00003.safetensors"),
            format!("m/{INDEX}: tensor model.layers.7.x: in no shard, but the index names it{DAMAGED}"),
        ),
        (
            "the wrong shard",
            |i| i["weight_map"]["lm_head.weight"] = json!("model-00001-of-00003.safetensors"),
            misplaced.clone(),
        ),
        ("a tensor not listed", |i| drop(i["weight_map"].as_object_mut().unwrap().remove("lm_head.weight")), misplaced),
        (
            "no map",
            |i| drop(i.as_object_mut().unwrap().remove("weight_map")),
            format!("m/{INDEX}: …`weight_map`…; download it again"),
        ),
        ("a list", |i| i["weight_map"] = json!([]), format!("m/{INDEX}: …; download it again")),
    ];
    for (what, change, expected) in cases {
        place(&sandbox, "llama-sharded");
        edit(&sandbox, INDEX, change);
        refused(&sandbox, COMMANDS[2], what, &expected);
    }
    for content in [&b""[..], b"\xff\x00"] {
        place(&sandbox, "llama-sharded");
        sandbox.write(&format!("m/{INDEX}"), content);
        refused(&sandbox, COMMANDS[1], &format!("{content:?}"), &format!("m/{INDEX}: …; download it again"));
    }
    place(&sandbox, "llama-sharded");
    std::fs::remove_file(sandbox.path(DIR).join(shard(2))).unwrap();
    let expected = format!("m/{}: missing, but {INDEX} names it; download it again", shard(2));
    refused(&sandbox, COMMANDS[0], "a shard that is not there", &expected);
    sandbox.write(&format!("m/{}", shard(2)), b"short");
    refused(&sandbox, COMMANDS[3], "a shard cut short", &format!("m/{}: not a safetensors file: …{DAMAGED}", shard(2)));
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

/// What the headers tell, `validate` says as well.
#[test]
fn validate_refuses_weights_that_do_not_fit() {
    let sandbox = Sandbox::with_stages();
    place(&sandbox, "gpt2-tiny");
    edit(&sandbox, "config.json", |config| config["n_embd"] = json!(32));
    let expected =
        format!("m/{WEIGHTS}: tensor transformer.wte.weight: has shape [400, 16], the model wants [400, 32]{TOGETHER}");
    refused(&sandbox, &["validate", "sft.toml", "model.path=m"], "n_embd", &expected);
}
