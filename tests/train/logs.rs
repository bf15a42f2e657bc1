//! metrics.jsonl and the TensorBoard events: names, order, and that both say the same.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::{Sandbox, json_lines};
use std::collections::BTreeMap;

/// CRC-32C bit by bit (RFC 3720, reflected polynomial 0x82f63b78).
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// The mask of TensorFlow's record format.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The payloads of an events file; fails on a wrong sum or a cut record.
fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(number(&bytes[8..]), masked(&bytes[..8]), "sum of record {}'s length", found.len());
        let data = &bytes[12..12 + length];
        assert_eq!(number(&bytes[12 + length..]), masked(data), "sum of record {}", found.len());
        found.push(data.to_vec());
        bytes = &bytes[16 + length..];
    }
    found
}

/// A field of a protobuf message.
#[derive(Debug, Clone)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

/// A message's fields by number, in order.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let (field, size) = (
            key >> 3,
            match key & 7 {
                0 => {
                    found.push((key >> 3, Field::Number(varint(&mut bytes))));
                    continue;
                }
                1 => 8,
                5 => 4,
                2 => varint(&mut bytes) as usize,
                other => panic!("wire type {other}"),
            },
        );
        let (data, rest) = bytes.split_at(size);
        bytes = rest;
        let wide = |data: &[u8]| data.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
        found.push((field, if key & 7 == 2 { Field::Bytes(data.to_vec()) } else { Field::Number(wide(data)) }));
    }
    found
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

/// Scalars of an events file by (step, name), and its version string.
fn scalars(bytes: &[u8]) -> (String, BTreeMap<(u64, String), f32>) {
    let (mut version, mut found) = (String::new(), BTreeMap::new());
    for record in records(bytes) {
        let event = fields(&record);
        let get = |number: u64| event.iter().find(|(n, _)| *n == number).map(|(_, field)| field.clone());
        let Some(Field::Number(time)) = get(1) else { panic!("an event without wall_time") };
        assert!(f64::from_bits(time) > 1.6e9, "wall_time {}", f64::from_bits(time));
        if let Some(Field::Bytes(text)) = get(3) {
            version = String::from_utf8(text).unwrap();
        }
        let step = if let Some(Field::Number(step)) = get(2) { step } else { 0 };
        let Some(Field::Bytes(summary)) = get(5) else { continue };
        for (_, value) in fields(&summary) {
            let Field::Bytes(value) = value else { panic!("a summary's value is a message") };
            let parts = fields(&value);
            let [(1, Field::Bytes(name)), (2, Field::Number(bits))] = parts.as_slice() else { panic!("{parts:?}") };
            let name = String::from_utf8(name.clone()).unwrap();
            let old = found.insert((step, name.clone()), f32::from_bits(*bits as u32));
            assert!(old.is_none(), "step {step} has {name} twice");
        }
    }
    (version, found)
}

#[test]
fn the_sum_is_crc32c() {
    // RFC 3720, B.4.
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn metrics_have_trl_s_names_and_the_events_file_says_the_same() {
    let always = ["step", "loss", "grad_norm", "learning_rate", "num_tokens", "epoch"];
    let timing = ["step_seconds", "tokens_per_second", "peak_memory_mb"];
    for (stage, own) in [
        ("sft", &["entropy", "mean_token_accuracy"][..]),
        ("reward", &["accuracy", "min_reward", "mean_reward", "max_reward", "margin"]),
        (
            "dpo",
            &[
                "rewards/chosen",
                "rewards/rejected",
                "rewards/margins",
                "rewards/accuracies",
                "logps/chosen",
                "logps/rejected",
            ],
        ),
    ] {
        let sandbox = Sandbox::with_stages();
        let eval = format!("data.eval={}", if stage == "sft" { "sft.jsonl" } else { "pairs.jsonl" });
        let overrides = ["train.steps=5", "train.log_every=2", "train.eval_every=3", "train.micro_batch_size=2", &eval];
        sandbox.stage(stage, &overrides).ok();
        let lines = json_lines(&sandbox.path("run/metrics.jsonl"));
        let steps: Vec<u64> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [2, 3, 4, 5, 5, 5], "{stage}: lines at 2, 4, 5, evaluation at 3 and 5, and the last line");
        for line in [&lines[0], &lines[2], &lines[3]] {
            let mut names: Vec<&str> = line.keys().map(String::as_str).collect();
            assert_eq!(names[0], "step");
            names.sort_unstable();
            let mut expected = [always.as_slice(), timing.as_slice(), own].concat();
            expected.sort_unstable();
            assert_eq!(names, expected, "{stage}");
            assert!(line.values().all(|value| value.as_f64().is_some_and(f64::is_finite)), "{line:?}");
        }
        let mut evaluated: Vec<String> = own.iter().map(|name| format!("eval_{name}")).collect();
        evaluated.extend(["step", "eval_loss", "eval_runtime"].map(str::to_owned));
        evaluated.sort_unstable();
        let mut names: Vec<&String> = lines[1].keys().collect();
        names.sort_unstable();
        assert_eq!(names, evaluated.iter().collect::<Vec<_>>(), "{stage}");
        let last: Vec<&String> = lines[5].keys().collect();
        assert_eq!(last, ["step", "train_loss", "train_runtime"], "{stage}");

        let (version, events) = scalars(&std::fs::read(sandbox.path("run/events.out.tfevents.collimate")).unwrap());
        assert_eq!(version, "brain.Event:2");
        let expected: BTreeMap<(u64, String), f32> = lines
            .iter()
            .flat_map(|line| {
                let step = line["step"].as_u64().unwrap();
                line.iter()
                    .filter(|(name, _)| *name != "step")
                    .map(move |(name, value)| ((step, name.clone()), value.as_f64().unwrap() as f32))
            })
            .collect();
        assert_eq!(events, expected, "{stage}");
    }
}

#[test]
fn a_line_is_the_mean_over_its_steps_and_order_does_not_depend_on_micro_batches() {
    let sandbox = Sandbox::with_stages();
    let run = |name: &str, more: &[&str]| {
        let output = format!("train.output={name}");
        sandbox.stage("reward", &[more, &["train.steps=4", output.as_str()]].concat()).ok();
        json_lines(&sandbox.path(name).join("metrics.jsonl"))
    };
    let (each, pairs) = (run("each", &["train.log_every=1"]), run("pairs", &["train.log_every=2"]));
    for name in ["loss", "grad_norm", "learning_rate", "accuracy", "min_reward", "margin"] {
        for (line, pair) in pairs.iter().enumerate().take(2) {
            let values = [2 * line, 2 * line + 1].map(|at| each[at][name].as_f64().unwrap());
            let mean = pair[name].as_f64().unwrap();
            assert!((mean - (values[0] + values[1]) / 2.0).abs() < 1e-12, "{name}: {mean} of {values:?}");
        }
    }
    let keys = |lines: &[serde_json::Map<String, serde_json::Value>]| {
        lines.iter().map(|line| line.keys().cloned().collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let split = run("split", &["train.log_every=2", "train.micro_batch_size=1"]);
    assert_eq!(keys(&split), keys(&pairs), "the order of names depends on micro-batches");
    let last = each.last().unwrap()["train_loss"].as_f64().unwrap();
    let mean: f64 = each[..4].iter().map(|line| line["loss"].as_f64().unwrap()).sum::<f64>() / 4.0;
    assert!((last - mean).abs() < 1e-12, "train_loss {last} is not the mean {mean}");
}

#[test]
fn quiet_says_nothing_and_rust_log_says_more() {
    let sandbox = Sandbox::with_stages();
    let ran = sandbox.run(&["--quiet", "sft", "sft.toml", "train.steps=1"]).ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    let output = sandbox
        .command(&["sft", "sft.toml", "train.steps=2", "train.log_every=1", "train.output=more"])
        .env("RUST_LOG", "collimate=debug")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("DEBUG step 1/2 loss "), "{text}");
}
