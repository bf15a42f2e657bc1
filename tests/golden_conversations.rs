//! Conversational rows against TRL 1.16's own dataset preparation, and prompts against transformers
//! (scripts/goldens/conversations.py). The rows go through files, as a run reads them.
//!
//! Not compared, because ours is another rule on purpose: assistant_only with templates that mark nothing and write
//! earlier turns differently, or begin with the assistant ([`REFUSED`]); TRL wants marks in every template.
#![allow(clippy::unwrap_used)]
use crate::support::{golden, ids, json, list, text};
use collimate::data::{
    DataReport, EncodeOptions, Located, OnBadRow, Pair, Prompt, Sequence, Wanted, encode_lm, encode_pairs,
    encode_prompts, read_rows,
};
use collimate::error::Result;
use collimate::tokenizer::Tokenizer;
use serde_json::Value;
use std::slice::from_ref;

const FILE: &str = "conversations.json";
const VARIANTS: usize = 11;
/// Longer than every row.
const WHOLE: usize = 1024;
/// By variant without `{% generation %}`, the rows of "sft" that assistant_only refuses; row 7 begins with the assistant,
/// and of the others an earlier turn reads otherwise than when it was the last.
const REFUSED: [(&str, &[usize]); 5] = [
    ("chatml-unmarked", &[7]),
    ("reasoning-unmarked", &[1, 3, 4, 5, 7, 8, 13, 15, 16, 19]),
    ("inst-unmarked", &[1, 2, 3, 12, 13, 15, 18]),
    ("zephyr-unmarked", &[7]),
    ("spoken-unmarked", &[7]),
];

/// A tokenizer with a chat template.
struct Variant {
    name: String,
    tokenizer: Tokenizer,
    /// Whether its template has `{% generation %}`.
    marked: bool,
}

impl Variant {
    fn load(case: &Value) -> Self {
        let dir = golden("tokenizer").join(text(case, "tokenizer"));
        let mut tokenizer = Tokenizer::from_dir(&dir).unwrap();
        if let Some(template) = case["template"].as_str() {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), template).unwrap();
            tokenizer.set_chat_template(file.path(), &dir).unwrap();
        }
        let (name, marked) = (text(case, "name").to_owned(), case["marked"].as_bool().unwrap());
        assert_eq!(tokenizer.chat().unwrap().unwrap().marks_generation(), marked, "{name}");
        Self { name, tokenizer, marked }
    }

    /// What TRL makes of the rows under `kind`, in their order; none where this variant has none of them.
    fn cases<'a>(&self, file: &'a Value, kind: &str) -> &'a [Value] {
        file[format!("{} {kind}", self.name)].as_array().map_or(&[], Vec::as_slice)
    }

    fn sequence(&self, row: &Located, assistant_only: bool, completion_only: bool) -> Result<(Sequence, DataReport)> {
        let options = EncodeOptions { assistant_only, completion_only, ..EncodeOptions::completions(WHOLE, true) };
        let mut report = DataReport::default();
        let rows = encode_lm(&self.tokenizer, from_ref(row), &options, OnBadRow::Error, &mut report)?;
        Ok((rows.into_iter().next().unwrap(), report))
    }

    fn pair(&self, row: &Located) -> Result<Pair> {
        let options = EncodeOptions::completions(WHOLE, true);
        let rows = encode_pairs(&self.tokenizer, from_ref(row), &options, OnBadRow::Error, &mut DataReport::default())?;
        Ok(rows.into_iter().next().unwrap())
    }

    fn prompt(&self, row: &Located) -> Result<Prompt> {
        let options = EncodeOptions::completions(WHOLE, false);
        let rows =
            encode_prompts(&self.tokenizer, from_ref(row), &options, OnBadRow::Error, &mut DataReport::default())?;
        Ok(rows.into_iter().next().unwrap())
    }

    fn refused(&self) -> &'static [usize] {
        REFUSED.iter().find(|(name, _)| *name == self.name).map_or(&[], |(_, rows)| rows)
    }
}

fn variants(file: &Value) -> Vec<Variant> {
    let variants: Vec<Variant> = list(file, "variants").iter().map(Variant::load).collect();
    assert_eq!(variants.len(), VARIANTS);
    variants
}

/// The rows under `kind`, read from a file.
fn rows(file: &Value, kind: &str, wanted: Wanted) -> Vec<Located> {
    let lines: String = list(file, kind).iter().map(|row| format!("{row}\n")).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    std::fs::write(&path, lines).unwrap();
    let rows = read_rows(&path, wanted, OnBadRow::Error, &mut DataReport::default()).unwrap();
    assert_eq!(rows.len(), list(file, kind).len());
    rows
}

/// The positions that ranges cover. The first token is TRL's label at most in name: nothing predicts it.
fn positions(ranges: &Value) -> Vec<usize> {
    let ranges: Vec<(usize, usize)> = serde_json::from_value(ranges.clone()).unwrap();
    ranges.into_iter().flat_map(|(start, end)| start..end).filter(|&at| at > 0).collect()
}

fn targets(sequence: &Sequence) -> Vec<usize> {
    sequence.target_positions().collect()
}

fn is_refused(case: &Value) -> bool {
    case["refused"] == true
}

/// The message of a row that must not be encoded.
fn message<T>(what: &str, outcome: Result<T>) -> String {
    match outcome {
        Ok(_) => panic!("{what}: not refused"),
        Err(error) => error.to_string(),
    }
}

const TEMPLATE_REFUSES: &str = "the chat template refuses the conversation";

#[test]
fn conversations_to_learn() {
    let file = json(FILE);
    let rows = rows(&file, "sft", Wanted::Lm);
    for variant in variants(&file) {
        let cases = variant.cases(&file, "sft");
        assert_eq!(cases.len(), rows.len(), "{}", variant.name);
        let mut moved = 0;
        for (index, (row, case)) in rows.iter().zip(cases).enumerate() {
            let what = format!("{} row {index}", variant.name);
            if is_refused(case) {
                let said = message(&what, variant.sequence(row, false, true));
                assert!(said.contains(TEMPLATE_REFUSES), "{what}: {said}");
                continue;
            }
            let (ours, report) = variant.sequence(row, false, true).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(ours.tokens, ids(&case["ids"]), "{what}");
            assert_eq!(targets(&ours), positions(&case["targets"]), "{what}");
            assert_eq!(report.boundary_moved, usize::from(case["moved"] == true), "{what}");
            moved += report.boundary_moved;
            let (ours, _) = variant.sequence(row, false, false).unwrap();
            assert_eq!(ours.tokens, ids(&case["ids"]), "{what}");
            assert_eq!(targets(&ours), (1..ours.tokens.len()).collect::<Vec<_>>(), "{what}: every token");
        }
        assert!(moved >= 3, "{}: {moved} boundaries moved", variant.name);
    }
}

#[test]
fn only_what_the_assistant_says() {
    let file = json(FILE);
    let rows = rows(&file, "sft", Wanted::Lm);
    for variant in variants(&file) {
        assert_eq!(variant.refused().is_empty(), variant.marked, "{}", variant.name);
        let mut compared = 0;
        for (index, (row, case)) in rows.iter().zip(variant.cases(&file, "sft")).enumerate() {
            for (key, completion_only) in [("assistant", true), ("anywhere", false)] {
                if is_refused(case) || case.get(key).is_none() {
                    continue;
                }
                let what = format!("{} row {index} {key}", variant.name);
                let ours = variant.sequence(row, true, completion_only);
                let refusal = match case[key].as_str() {
                    _ if variant.refused().contains(&index) && index == 7 => {
                        "the conversation begins with the assistant"
                    }
                    _ if variant.refused().contains(&index) => "differently in the middle of a conversation",
                    Some("no assistant") => "the assistant says nothing in this conversation",
                    Some("dropped") => "no token to learn",
                    Some(other) => panic!("{what}: {other}"),
                    None => {
                        let (ours, _) = ours.unwrap_or_else(|e| panic!("{what}: {e}"));
                        assert_eq!(ours.tokens, ids(&case["ids"]), "{what}");
                        assert_eq!(targets(&ours), positions(&case[key]), "{what}");
                        compared += 1;
                        continue;
                    }
                };
                let said = message(&what, ours);
                assert!(said.contains(refusal), "{what}: {said}");
            }
        }
        assert!(compared >= 12, "{}: {compared} compared", variant.name);
    }
}

#[test]
fn a_template_that_strips_earlier_reasoning_needs_marks() {
    let file = json(FILE);
    let rows = rows(&file, "sft", Wanted::Lm);
    let variant = variants(&file).into_iter().find(|variant| variant.name == "reasoning-unmarked").unwrap();
    // Two answers with reasoning: the first is written without it once the second question is asked.
    let said = message("two answers", variant.sequence(&rows[5], true, true));
    assert!(said.contains("rows.jsonl:6: the chat template writes message 2 differently"), "{said}");
    assert!(said.contains("mark the assistant's turns with {% generation %} in the template"), "{said}");
    variant.sequence(&rows[6], true, true).unwrap(); // one answer
}

#[test]
fn pairs_of_conversations() {
    let file = json(FILE);
    let rows = rows(&file, "pairs", Wanted::Preference);
    let mut compared = 0;
    for variant in variants(&file) {
        for (index, (row, case)) in rows.iter().zip(variant.cases(&file, "pairs")).enumerate() {
            let what = format!("{} pair {index}", variant.name);
            if is_refused(case) {
                let said = message(&what, variant.pair(row));
                assert!(said.contains(TEMPLATE_REFUSES), "{what}: {said}");
                continue;
            }
            let ours = variant.pair(row).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(ours.prompt, ids(&case["prompt_ids"]), "{what}");
            assert_eq!(ours.chosen, ids(&case["chosen_ids"]), "{what}");
            assert_eq!(ours.rejected, ids(&case["rejected_ids"]), "{what}");
            compared += 1;
        }
    }
    assert!(compared >= 70, "{compared} compared");
}

#[test]
fn prompts_to_complete() {
    let file = json(FILE);
    let rows = rows(&file, "prompts", Wanted::Prompts);
    let mut compared = 0;
    for variant in variants(&file) {
        for (index, (row, case)) in rows.iter().zip(variant.cases(&file, "prompts")).enumerate() {
            let what = format!("{} prompt {index}", variant.name);
            if is_refused(case) {
                let said = message(&what, variant.prompt(row));
                assert!(said.contains(TEMPLATE_REFUSES), "{what}: {said}");
                continue;
            }
            let ours = variant.prompt(row).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(ours.tokens, ids(&case["ids"]), "{what}");
            assert!(ours.messages.is_some(), "{what}");
            compared += 1;
        }
    }
    assert!(compared >= 70, "{compared} compared");
}
