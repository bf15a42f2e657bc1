//! Ids of texts against transformers; three tokenizers over one vocabulary (scripts/goldens/tokenization.py).
#![allow(clippy::unwrap_used)]
use crate::support::{golden, ids, json, list, text};
use collimate::tokenizer::Tokenizer;
use serde_json::Value;

const VARIANTS: [&str; 3] = ["plain", "bos", "added"];

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
