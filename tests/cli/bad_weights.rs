//! Weights and shards that do not fit, one line each.
#![allow(clippy::unwrap_used)]
use super::bad_models::{COMMANDS, Change, DAMAGED, DIR, INDEX, TOGETHER, WEIGHTS, edit, place, refused};
use crate::support::sandbox::Sandbox;
use serde_json::{Value, json};
use std::path::Path;

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
