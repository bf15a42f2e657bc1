//! Prompt, completion and pair boundaries against TRL 1.16's own dataset preparation (scripts/goldens/tokenization.py).
//!
//! Not compared, because ours is another rule on purpose: rows cut by `max_length` whose prompt takes more than half of
//! it, and a BOS that TRL puts before a text which begins with one.
#![allow(clippy::unwrap_used)]
use crate::support::{golden, ids, json, list, text};
use collimate::data::{
    DataReport, EncodeOptions, Located, OnBadRow, Pair, Row, RowId, Sequence, encode_lm, encode_pairs,
};
use collimate::error::Result;
use collimate::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::Path;

const VARIANTS: [&str; 3] = ["plain", "bos", "added"];
const WHOLE: usize = 256;

struct Case {
    tokenizer: Tokenizer,
    file: Value,
}

impl Case {
    fn load(variant: &str) -> Self {
        let tokenizer = Tokenizer::from_dir(&golden("tokenizer").join(variant)).unwrap();
        Self { tokenizer, file: json(&format!("tokenizer/{variant}/cases.json")) }
    }

    fn options(&self, max_length: usize) -> EncodeOptions {
        EncodeOptions::completions(max_length, true)
    }

    fn short(&self) -> usize {
        self.file["short_max_length"].as_u64().unwrap() as usize
    }

    fn sequence(&self, row: Row, max_length: usize) -> Result<Sequence> {
        let options = self.options(max_length);
        let rows = encode_lm(&self.tokenizer, &[located(row)], &options, OnBadRow::Error, &mut DataReport::default())?;
        Ok(rows.into_iter().next().unwrap())
    }

    fn pair(&self, case: &Value, max_length: usize) -> Pair {
        let row = Row::Preference {
            prompt: case["prompt"].as_str().map(Into::into),
            chosen: text(case, "chosen").into(),
            rejected: text(case, "rejected").into(),
            preference: 1.0,
            margin: None,
        };
        let options = self.options(max_length);
        let rows =
            encode_pairs(&self.tokenizer, &[located(row)], &options, OnBadRow::Error, &mut DataReport::default());
        rows.unwrap_or_else(|e| panic!("{case}: {e}")).into_iter().next().unwrap()
    }

    /// Whether TRL's ids of this text begin with a BOS that the text already has.
    fn doubled_bos(&self, start: &str) -> bool {
        !self.tokenizer.lead().is_empty() && start.starts_with("<s>")
    }
}

fn located(row: Row) -> Located {
    Located { row, id: RowId::line(Path::new("golden.jsonl"), 1) }
}

#[test]
fn prompts_and_completions() {
    for variant in VARIANTS {
        let case = Case::load(variant);
        for (key, max_length) in [("sft", WHOLE), ("sft_short", case.short())] {
            let mut compared = 0;
            for expected in list(&case.file, key) {
                let (prompt, completion) = (text(expected, "prompt"), text(expected, "completion"));
                let prompt_len = expected["prompt_len"].as_u64().map_or(usize::MAX, |n| n as usize);
                if case.doubled_bos(prompt) || (max_length != WHOLE && prompt_len > max_length / 2) {
                    continue;
                }
                let row = Row::PromptCompletion { prompt: prompt.into(), completion: completion.into() };
                let ours = case.sequence(row, max_length).unwrap();
                assert_eq!(ours.tokens, ids(&expected["ids"]), "{variant} {key}: {prompt:?} + {completion:?}");
                assert_eq!(ours.prompt_len(), prompt_len.max(1), "{variant} {key}: {prompt:?} + {completion:?}");
                compared += 1;
            }
            assert!(compared >= if max_length == WHOLE { 20 } else { 1 }, "{variant} {key}: {compared} compared");
        }
    }
}

#[test]
fn whole_texts() {
    for variant in VARIANTS {
        let case = Case::load(variant);
        for expected in list(&case.file, "text_rows") {
            let (input, expected) = (text(expected, "text"), ids(&expected["ids"]));
            if case.doubled_bos(input) {
                continue;
            }
            let ours = case.sequence(Row::Text(input.into()), WHOLE);
            if expected.len() < 2 {
                // A single token has nothing before it: TRL trains on nothing there, we say so.
                assert!(ours.unwrap_err().to_string().contains("no token to learn"), "{variant}: {input:?}");
                continue;
            }
            let ours = ours.unwrap();
            assert_eq!(ours.tokens, expected, "{variant}: {input:?}");
            // What the tokenizer itself puts in front is no target in either: position 0.
            assert_eq!(ours.prompt_len(), 1, "{variant}: {input:?}");
        }
    }
}

#[test]
fn pairs_with_a_prompt_and_without() {
    for variant in VARIANTS {
        let case = Case::load(variant);
        for (key, max_length) in [("pairs", WHOLE), ("pairs_short", case.short()), ("implicit", WHOLE)] {
            for expected in list(&case.file, key) {
                let prompt_ids = ids(&expected["prompt_ids"]);
                assert!(
                    max_length == WHOLE || prompt_ids.len() <= max_length / 2,
                    "{variant}: choose a shorter prompt"
                );
                let ours = case.pair(expected, max_length);
                let what = format!("{variant} {key}: {expected}");
                assert_eq!(ours.prompt, prompt_ids, "{what}");
                assert_eq!(ours.chosen, ids(&expected["chosen_ids"]), "{what}");
                assert_eq!(ours.rejected, ids(&expected["rejected_ids"]), "{what}");
            }
        }
        assert!(!list(&case.file, "pairs_short").is_empty());
    }
}
