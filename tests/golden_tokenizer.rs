//! Ids, offsets and assistant masks against transformers: three tokenizers over one vocabulary
//! (scripts/goldens/tokenization.py) and the pipelines of the families (scripts/goldens/pipelines.py).
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]
use crate::support::{golden, ids, json, list, text};
use collimate::tokenizer::chat::{Ending, Message};
use collimate::tokenizer::{Tokenizer, mask_of, unmarked};
use serde_json::Value;

const VARIANTS: [&str; 10] = ["plain", "bos", "added", "neox", "opt", "llama3", "smollm2", "qwen2", "qwen3", "flags"];
/// Those whose cases have offsets.
const PIPELINES: [&str; 7] = ["neox", "opt", "llama3", "smollm2", "qwen2", "qwen3", "flags"];
/// Those with a chat template, and how many of their conversations have a span that transformers' mask breaks off at.
const CHATS: [(&str, usize); 6] =
    [("neox", 0), ("llama3", 0), ("smollm2", 0), ("qwen2", 0), ("qwen3", 0), ("flags", 1)];

fn load(variant: &str) -> (Tokenizer, Value) {
    let tokenizer = Tokenizer::from_dir(&golden("tokenizer").join(variant)).unwrap();
    (tokenizer, json(&format!("tokenizer/{variant}/cases.json")))
}

/// transformers puts a second BOS in front of a text that begins with one; we do not, on purpose. Reference ids
/// without the second one.
fn without_doubled_bos(reference: Vec<i64>, tokenizer: &Tokenizer) -> Vec<i64> {
    match (tokenizer.bos(), reference.as_slice()) {
        (Some(bos), [first, second, ..]) if *first == bos && *second == bos && !tokenizer.lead().is_empty() => {
            reference[1..].to_vec()
        }
        _ => reference,
    }
}

#[test]
fn special_ids_and_size() {
    for variant in VARIANTS {
        let (tokenizer, cases) = load(variant);
        assert_eq!(tokenizer.bos(), cases["bos"].as_i64(), "{variant}");
        assert_eq!(tokenizer.eos(), cases["eos"].as_i64(), "{variant}");
        assert_eq!(tokenizer.pad(), cases["pad"].as_i64(), "{variant}");
        assert_eq!(tokenizer.vocab_size() as i64, cases["size"].as_i64().unwrap(), "{variant}");
    }
}

#[test]
fn ids_of_texts() {
    for variant in VARIANTS {
        let (tokenizer, cases) = load(variant);
        for case in list(&cases, "texts") {
            let input = text(case, "text");
            let expected = without_doubled_bos(ids(&case["ids"]), &tokenizer);
            assert_eq!(tokenizer.encode(input).unwrap(), expected, "{variant}: {input:?}");
            assert_eq!(tokenizer.encode_bare(input).unwrap(), ids(&case["bare"]), "{variant}: {input:?}, bare");
        }
        let texts: Vec<&str> = list(&cases, "texts").iter().map(|case| text(case, "text")).collect();
        let expected: Vec<Vec<i64>> =
            list(&cases, "texts").iter().map(|c| without_doubled_bos(ids(&c["ids"]), &tokenizer)).collect();
        assert_eq!(tokenizer.encode_batch(&texts).unwrap(), expected, "{variant}: in a batch");
    }
}

#[test]
fn texts_of_ids() {
    for variant in VARIANTS {
        let (tokenizer, cases) = load(variant);
        for case in list(&cases, "texts") {
            let ids = ids(&case["ids"]);
            let what = format!("{variant}: {:?}", text(case, "text"));
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text(case, "decoded"), "{what}");
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), text(case, "decoded_without_special"), "{what}");
        }
    }
}

#[test]
fn offsets_of_tokens() {
    for variant in PIPELINES {
        let (tokenizer, cases) = load(variant);
        for case in list(&cases, "texts") {
            let input = text(case, "text");
            let (bare, offsets) = tokenizer.encode_with_offsets(input).unwrap();
            assert_eq!(bare, ids(&case["bare"]), "{variant}: {input:?}");
            let at = |byte: usize| input[..byte].chars().count() as i64;
            let ours: Vec<[i64; 2]> = offsets.iter().map(|&(start, end)| [at(start), at(end)]).collect();
            let expected: Vec<[i64; 2]> = serde_json::from_value(case["offsets"].clone()).unwrap();
            assert_eq!(ours, expected, "{variant}: {input:?}");
        }
    }
}

#[test]
fn masks_of_conversations() {
    for (variant, broken) in CHATS {
        let (tokenizer, cases) = load(variant);
        let (chat, mut broken_off, mut marked) = (tokenizer.chat().unwrap().unwrap(), 0, 0);
        for case in list(&cases, "masks") {
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
            let rendered = chat.render(&messages, Ending::Nothing).unwrap();
            let (bare, offsets) = tokenizer.encode_with_offsets(&rendered.text).unwrap();
            assert_eq!(bare, ids(&case["ids"]), "{variant}: {case}");
            let mask: Vec<i64> = mask_of(&offsets, &rendered.generated).into_iter().map(i64::from).collect();
            assert_eq!(mask, ids(&case["mask"]), "{variant}: {case}");
            broken_off += usize::from(unmarked(&offsets, &rendered.generated).is_some());
            marked += mask.iter().sum::<i64>();
        }
        assert!(marked > 0, "{variant}");
        assert_eq!(broken_off, broken, "{variant}");
    }
}

#[test]
fn masks_of_spans() {
    let offsets = [(0, 2), (2, 2), (3, 6), (3, 6), (6, 9)];
    let mask = |spans: &[std::ops::Range<usize>]| {
        mask_of(&offsets, spans).iter().map(|&bit| u8::from(bit)).collect::<Vec<_>>()
    };
    assert_eq!(mask(&[3..6]), [0, 0, 1, 0, 0]); // of tokens that share a character, the first
    assert_eq!(mask(&[0..2]), [1, 1, 1, 1, 1]); // one that ends in token 0 goes on to the end, as in transformers
    assert_eq!(mask(&[3..9]), [0, 0, 1, 1, 1]);
    assert_eq!(mask(&[2..4, 6..9]), [0, 0, 0, 0, 0]); // no token holds byte 2: nothing from there on
    assert_eq!(mask(&[3..4, 2..3, 6..9]), [0, 0, 1, 0, 0]);
    assert_eq!(mask(&[0..0, 6..12]), [0, 0, 0, 0, 1]);
    assert_eq!(unmarked(&offsets, &[3..4, 2..3, 6..9]), Some(1));
    assert_eq!(unmarked(&offsets, &[3..4]), None);
}
