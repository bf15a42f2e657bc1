//! Rows to tokens: boundary, EOS, truncation, bad rows. Expected ids are written out by hand from the merges.
#![allow(clippy::unwrap_used)]
use crate::tokenizer::{BYTES, Tiny};
use collimate::Result;
use collimate::data::{
    Boundary, DataReport, EncodeOptions, Located, OnBadRow, Pair, Row, RowId, Sequence, encode_lm, encode_pairs,
    encode_prompts,
};
use collimate::tokenizer::Tokenizer;
use std::path::Path;

/// Tokens that merge: ab, abc, " x".
const MERGES: [(&str, &str); 3] = [("a", "b"), ("ab", "c"), ("Ġ", "x")];
const AB: i64 = BYTES;
const ABC: i64 = BYTES + 1;
const S: i64 = BYTES + 3;
const EOS: i64 = S + 1;

fn plain() -> Tokenizer {
    Tiny::new(&MERGES).load()
}

fn with_bos() -> Tokenizer {
    Tiny::new(&MERGES).post(&["<s>"], &["</s>"]).load()
}

/// Ids of single letters: the byte-level alphabet is sorted, '!' is 0.
fn l(letter: char) -> i64 {
    letter as i64 - '!' as i64
}

fn options() -> EncodeOptions {
    EncodeOptions::completions(64, true)
}

fn located(rows: Vec<Row>) -> Vec<Located> {
    let file: std::sync::Arc<Path> = Path::new("d.jsonl").into();
    let at = |(i, row)| Located { row, id: RowId::line(file.clone(), i + 1) };
    rows.into_iter().enumerate().map(at).collect()
}

fn pc(prompt: &str, completion: &str) -> Row {
    Row::PromptCompletion { prompt: prompt.into(), completion: completion.into() }
}

fn pref(prompt: Option<&str>, chosen: &str, rejected: &str) -> Row {
    let (prompt, chosen, rejected) = (prompt.map(Into::into), chosen.into(), rejected.into());
    Row::Preference { prompt, chosen, rejected, preference: 1.0, margin: None }
}

fn lm(tokenizer: &Tokenizer, row: Row, options: &EncodeOptions) -> (Sequence, DataReport) {
    let mut report = DataReport::default();
    let mut sequences = encode_lm(tokenizer, &located(vec![row]), options, OnBadRow::Error, &mut report).unwrap();
    (sequences.remove(0), report)
}

fn pair(tokenizer: &Tokenizer, row: Row, options: &EncodeOptions) -> (Pair, DataReport) {
    let mut report = DataReport::default();
    let mut pairs = encode_pairs(tokenizer, &located(vec![row]), options, OnBadRow::Error, &mut report).unwrap();
    (pairs.remove(0), report)
}

/// Tokens, and the position of the first target.
fn ids(tokenizer: &Tokenizer, row: Row, options: &EncodeOptions) -> (Vec<i64>, usize) {
    let (sequence, _) = lm(tokenizer, row, options);
    (sequence.tokens.clone(), sequence.prompt_len())
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn the_boundary_moves_back_where_tokens_merge_across_it() {
    let (sequence, report) = lm(&plain(), pc("za", "bz"), &options());
    assert_eq!((sequence.tokens.clone(), sequence.prompt_len()), (vec![l('z'), AB, l('z'), EOS], 1));
    assert_eq!((report.boundary_moved, report.with_eos_target, report.tokens, report.rows), (1, 1, 4, 1));
    assert_eq!(
        report.boundary_example.unwrap(),
        "d.jsonl:1: the end of the prompt, \"a\", merges with the start of the completion"
    );
    let (sequence, report) = lm(&plain(), pc("zab", "z"), &options());
    assert_eq!((sequence.tokens.clone(), sequence.prompt_len()), (vec![l('z'), AB, l('z'), EOS], 2));
    assert_eq!((report.boundary_moved, report.boundary_example), (0, None));
    // The whole prompt merges away: the first token has nothing before it, so the second is the first target.
    assert_eq!(ids(&plain(), pc("ab", "cz"), &options()), (vec![ABC, l('z'), EOS], 1));
    assert_eq!(ids(&with_bos(), pc("ab", "cz"), &options()), (vec![S, ABC, l('z'), EOS], 1));
}

#[test]
fn a_separate_boundary_stays_where_the_row_has_it() {
    let separate = EncodeOptions { boundary: Boundary::Separate, ..options() };
    let (sequence, report) = lm(&plain(), pc("za", "bz"), &separate);
    assert_eq!((sequence.tokens.clone(), sequence.prompt_len()), (vec![l('z'), l('a'), l('b'), l('z'), EOS], 2));
    assert_eq!(report.boundary_moved, 0);
    // BOS stands in front of the prompt only; without a prompt in front of what starts the sequence.
    assert_eq!(ids(&with_bos(), pc("z", "ab"), &separate), (vec![S, l('z'), AB, EOS], 2));
    assert_eq!(ids(&with_bos(), pc("", "ab"), &separate), (vec![S, AB, EOS], 1));
}

#[test]
fn bos_once_and_eos_once_whatever_the_post_processor_and_the_text_do() {
    for completion in ["ab", "ab</s>"] {
        assert_eq!(ids(&plain(), pc("z", completion), &options()), (vec![l('z'), AB, EOS], 1));
        for prompt in ["z", "<s>z"] {
            assert_eq!(ids(&with_bos(), pc(prompt, completion), &options()), (vec![S, l('z'), AB, EOS], 2));
        }
    }
    for text in ["ab", "ab</s>", "<s>ab", "<s>ab</s>"] {
        assert_eq!(ids(&with_bos(), Row::Text(text.into()), &options()), (vec![S, AB, EOS], 1));
    }
    // An EOS inside stays; an EOS that ends the prompt does not stand for the completion's.
    assert_eq!(ids(&plain(), pc("z</s>", "a</s>b"), &options()).0, [l('z'), EOS, l('a'), EOS, l('b'), EOS]);
    let bare = EncodeOptions { append_eos: false, ..options() };
    let (sequence, report) = lm(&with_bos(), pc("z", "ab"), &bare);
    assert_eq!((sequence.tokens, report.with_eos_target), (vec![S, l('z'), AB], 0));
    assert_eq!(ids(&plain(), pc("z", "ab</s>"), &bare).0, [l('z'), AB, EOS]);
}

#[test]
fn texts_and_prompts_as_targets() {
    assert_eq!(ids(&plain(), Row::Text("zab".into()), &options()), (vec![l('z'), AB, EOS], 1));
    let all = EncodeOptions { completion_only: false, ..options() };
    assert_eq!(ids(&plain(), pc("zzz", "ab"), &all), (vec![l('z'), l('z'), l('z'), AB, EOS], 1));
    assert_eq!(ids(&with_bos(), pc("zzz", "ab"), &all).1, 1);
}

#[test]
fn a_pair_shares_the_longest_prefix_that_all_have() {
    let (both, report) = pair(&plain(), pref(Some("za"), "bz", "zz"), &options());
    assert_eq!(both.prompt, [l('z')]);
    assert_eq!(both.chosen, [AB, l('z'), EOS]);
    assert_eq!(both.rejected, [l('a'), l('z'), l('z'), EOS]);
    assert_eq!((report.boundary_moved, report.with_eos_target, report.tokens), (1, 1, 8));
    // Alike beginnings of the completions stay targets.
    let (both, _) = pair(&with_bos(), pref(Some("z"), "xy", "xz"), &options());
    assert_eq!((both.prompt, both.chosen), (vec![S, l('z')], vec![l('x'), l('y'), EOS]));
    let separate = EncodeOptions { boundary: Boundary::Separate, ..options() };
    let (both, _) = pair(&with_bos(), pref(Some("za"), "bz", "zz"), &separate);
    assert_eq!((both.prompt, both.chosen), (vec![S, l('z'), l('a')], vec![l('b'), l('z'), EOS]));
}

#[test]
fn preference_and_margin_are_handed_on() {
    let row = |margin| Row::Preference {
        prompt: Some("z".into()),
        chosen: "x".into(),
        rejected: "y".into(),
        preference: 0.25,
        margin,
    };
    let (both, _) = pair(&plain(), row(Some(2.5)), &options());
    assert_eq!((both.preference, both.margin), (0.25, Some(2.5)));
    assert_eq!(pair(&plain(), row(None), &options()).0.margin, None);
}

#[test]
fn a_row_without_prompt_has_what_both_begin_with() {
    let parts = |chosen: &str, rejected: &str| {
        let tokenizer = Tiny::new(&[]).load();
        let (both, _) = pair(&tokenizer, pref(None, chosen, rejected), &options());
        [both.prompt, both.chosen, both.rejected].map(|ids| tokenizer.decode(&ids, true).unwrap())
    };
    // As TRL's extract_prompt: the space goes with the completions.
    assert_eq!(parts("the sky is blue", "the sky is green"), ["the sky is", " blue", " green"]);
    assert_eq!(parts("the sky", "the skin"), ["the sk", "y", "in"]);
    assert_eq!(parts("one", "two"), ["", "one", "two"]);
    assert_eq!(parts("naïve é", "naïve è"), ["naïve", " é", " è"]);
    // One begins with all of the other.
    assert_eq!(parts("good", "good film"), ["goo", "d", "d film"]);
}

#[test]
fn truncation_keeps_the_end_of_the_prompt_and_the_start_of_the_completion() {
    let at = |max_length| EncodeOptions { max_length, ..options() };
    let cut = |tokenizer: &Tokenizer, prompt: &str, completion: &str, max_length| {
        let (sequence, report) = lm(tokenizer, pc(prompt, completion), &at(max_length));
        assert_eq!(report.truncated, 1);
        let (prompt, completion) = sequence.tokens.split_at(sequence.prompt_len());
        let text = |ids: &[i64]| tokenizer.decode(ids, false).unwrap();
        (text(prompt), text(completion), report.with_eos_target)
    };
    let (plain, bos) = (plain(), with_bos());
    // A long prompt gives way to the completion up to half of max_length.
    assert_eq!(cut(&plain, "12345678", "xyz", 8), ("5678".into(), "xyz</s>".into(), 1));
    assert_eq!(cut(&plain, "12345678", "x", 8), ("345678".into(), "x</s>".into(), 1));
    assert_eq!(cut(&plain, "12345678", "vwxyz", 8), ("5678".into(), "vwxy".into(), 0));
    // A short prompt stays whole.
    assert_eq!(cut(&plain, "12", "stuvwxyz", 8), ("12".into(), "stuvwx".into(), 0));
    assert_eq!(cut(&plain, "12", "x", 2), ("2".into(), "x".into(), 0));
    // BOS stays in front of what is left of the prompt.
    assert_eq!(cut(&bos, "12345678", "xyz", 8), ("<s>678".into(), "xyz</s>".into(), 1));
    assert_eq!(cut(&bos, "12345678", "xyz", 2), ("8".into(), "x".into(), 0));
    // A text keeps its start.
    let (sequence, report) = lm(&bos, Row::Text("12345678".into()), &at(4));
    assert_eq!((bos.decode(&sequence.tokens, false).unwrap().as_str(), report.truncated), ("<s>123", 1));
    // Exactly full is not cut.
    assert_eq!(lm(&plain, pc("1234", "xyz"), &at(8)).1.truncated, 0);
}

#[test]
fn a_pair_is_cut_as_its_longer_completion_needs() {
    let at = |max_length| EncodeOptions { max_length, ..options() };
    let tokenizer = plain();
    let (both, report) = pair(&tokenizer, pref(Some("123456"), "x", "wxyz"), &at(8));
    let text = |ids: &[i64]| tokenizer.decode(ids, false).unwrap();
    assert_eq!([text(&both.prompt), text(&both.chosen), text(&both.rejected)], ["3456", "x</s>", "wxyz"]);
    assert_eq!((report.truncated, report.with_eos_target), (1, 1));
    let rows = located(vec![pref(Some("1"), "xxxxxy", "xxxxxz")]);
    assert_eq!(
        message(encode_pairs(&tokenizer, &rows, &at(4), OnBadRow::Error, &mut DataReport::default())),
        "d.jsonl:1: \"chosen\" and \"rejected\" have the same tokens after truncation to data.max_length; raise data.max_length, or delete the row"
    );
}

#[test]
fn rows_without_a_target_are_bad_rows() {
    let bare = EncodeOptions { append_eos: false, ..options() };
    let rows = located(vec![pc("", "x"), Row::Text("ab".into()), pc("z", "x"), Row::Prompt("z".into())]);
    let say = "d.jsonl:1: the row has no token to learn (the first token of a sequence has nothing before it); give a prompt or a longer completion, or delete the row";
    let mut report = DataReport::default();
    assert_eq!(message(encode_lm(&plain(), &rows, &bare, OnBadRow::Error, &mut report)), say);
    let mut report = DataReport::default();
    let sequences = encode_lm(&plain(), &rows, &bare, OnBadRow::Skip, &mut report).unwrap();
    assert_eq!((sequences.len(), sequences[0].id.number), (1, 3));
    assert_eq!(report.to_string(), "4 rows, 3 skipped (3 no target), 2 tokens");
    // A prompt row teaches nothing, whatever stands in front and behind.
    let mut report = DataReport::default();
    assert!(
        message(encode_lm(&with_bos(), &rows[3..], &options(), OnBadRow::Error, &mut report)).contains(":4: the row")
    );
    let rows = located(vec![pref(None, "x", "y")]);
    assert_eq!(message(encode_pairs(&plain(), &rows, &bare, OnBadRow::Error, &mut DataReport::default())), say);
    assert!(
        message(encode_pairs(&plain(), &rows, &bare, OnBadRow::Skip, &mut DataReport::default()))
            .starts_with("d.jsonl: none of its 1 rows can be used (1 no target)")
    );
}

#[test]
fn prompts_keep_their_end_and_their_bos() {
    let rows = located(vec![pc("12345678", "gold"), Row::Prompt("ab".into()), Row::Prompt("".into())]);
    let options = EncodeOptions { max_length: 4, ..options() };
    let mut report = DataReport::default();
    let prompts = encode_prompts(&with_bos(), &rows, &options, OnBadRow::Error, &mut report).unwrap();
    assert_eq!(prompts[0].tokens, [S, l('6'), l('7'), l('8')]);
    assert_eq!(prompts[0].text, "678");
    assert_eq!(prompts[1].tokens, [S, AB]);
    assert_eq!(prompts[2].tokens, [S]);
    assert_eq!((report.truncated, report.tokens, report.usable()), (1, 7, 3));
    assert_eq!(
        message(encode_prompts(&plain(), &rows, &options, OnBadRow::Error, &mut DataReport::default())),
        "d.jsonl:3: the prompt has no tokens; write something or delete the row"
    );
}

#[test]
fn options_that_cannot_work_are_refused() {
    let rows = located(vec![pc("z", "x")]);
    let no_eos = Tiny::new(&[]).config(serde_json::json!({})).load();
    assert_eq!(
        message(encode_lm(&no_eos, &rows, &options(), OnBadRow::Skip, &mut DataReport::default())),
        "the tokenizer names no EOS token, so completions cannot be ended; add \"eos_token\" to the model's tokenizer_config.json"
    );
    let bare = EncodeOptions { append_eos: false, ..options() };
    encode_lm(&no_eos, &rows, &bare, OnBadRow::Error, &mut DataReport::default()).unwrap();
    let one = EncodeOptions { max_length: 1, ..options() };
    assert!(
        message(encode_lm(&plain(), &rows, &one, OnBadRow::Skip, &mut DataReport::default()))
            .contains("max_length is 1")
    );
}

#[test]
fn order_and_numbers_survive_many_rows() {
    // More than one chunk, prompts and texts mixed, every seventh row bad.
    let row = |i: usize| match i % 7 {
        0 => Row::Prompt("bad".into()),
        1 | 2 => Row::Text(format!("z{i}")),
        _ => pc(&format!("p{i}"), &format!("c{i}")),
    };
    let rows = located((0..1500).map(row).collect());
    for boundary in [Boundary::Joint, Boundary::Separate] {
        let options = EncodeOptions { boundary, ..options() };
        let (mut report, tokenizer) = (DataReport::default(), with_bos());
        let sequences = encode_lm(&tokenizer, &rows, &options, OnBadRow::Skip, &mut report).unwrap();
        assert_eq!((report.skipped_rows(), sequences.len()), (215, 1285));
        for sequence in sequences {
            let i = sequence.id.number - 1;
            let expected = if i % 7 <= 2 { format!("z{i}") } else { format!("p{i}c{i}") };
            assert_eq!(tokenizer.decode(&sequence.tokens, true).unwrap(), expected);
        }
    }
}
