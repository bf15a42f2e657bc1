//! What is said of files and rows that cannot be used: each with the exact message.
#![allow(clippy::unwrap_used)]
use collimate::data::{DataReport, OnBadRow, Wanted, read_rows};
use std::path::Path;

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data").join(name)).unwrap()
}

/// The message for a file of these bytes, its path as FILE.
fn said(bytes: &[u8], wanted: Wanted, on_bad: OnBadRow) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    std::fs::write(&path, bytes).unwrap();
    let error = match read_rows(&path, wanted, on_bad, &mut DataReport::default()) {
        Ok(rows) => panic!("{} rows were read of {:?}", rows.len(), String::from_utf8_lossy(bytes)),
        Err(error) => error,
    };
    assert_eq!(error.exit_code(), 2, "{error}");
    let text = error.to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    text.replace(path.to_str().unwrap(), "FILE")
}

fn cut(mut bytes: Vec<u8>, from_end: usize) -> Vec<u8> {
    bytes.truncate(bytes.len() - from_end);
    bytes
}

fn with(mut bytes: Vec<u8>, at_from_end: usize, new: &[u8]) -> Vec<u8> {
    let at = bytes.len() - at_from_end;
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

const AGAIN: &str = "the file is damaged or cut short; copy or download it again";

/// Content of a file and what is said of it, by name.
type Cases = Vec<(&'static str, Vec<u8>, String)>;

fn all_refused(cases: Cases) {
    for (name, bytes, want) in cases {
        for on_bad in [OnBadRow::Error, OnBadRow::Skip] {
            assert_eq!(said(&bytes, Wanted::Lm, on_bad), format!("FILE: {want}"), "{name}");
        }
    }
}

#[test]
fn packed_files_and_parquet_that_are_damaged() {
    let (gz, zst, parquet) = (golden("one.jsonl.gz"), golden("one.jsonl.zst"), golden("pages.parquet"));
    all_refused(vec![
        ("cut gzip", cut(gz.clone(), 20), format!("the gzip data ends in the middle, after line 10; {AGAIN}")),
        (
            "gzip without its end",
            cut(gz.clone(), 4),
            format!("the gzip data ends in the middle, after line 12; {AGAIN}"),
        ),
        (
            "gzip with a wrong checksum",
            with(gz.clone(), 8, &[1, 2, 3, 4]),
            format!(
                "the gzip data is damaged after line 12 (corrupt gzip stream does not have a matching checksum); {AGAIN}"
            ),
        ),
        (
            "gzip's first bytes alone",
            b"\x1f\x8b\x08".to_vec(),
            format!("the gzip data ends in the middle, before the first row; {AGAIN}"),
        ),
        (
            "rubbish behind gzip",
            [gz.clone(), b"rubbish behind it".to_vec()].concat(),
            format!("the gzip data is damaged after line 12 (invalid gzip header); {AGAIN}"),
        ),
        ("cut zstd", cut(zst.clone(), 20), format!("the zstd data ends in the middle, before the first row; {AGAIN}")),
        (
            "zstd with a broken block",
            with(zst.clone(), zst.len() / 2, &[0xff; 8]),
            format!("the zstd data is damaged before the first row (Data corruption detected); {AGAIN}"),
        ),
        (
            "zstd with a huge window",
            b"\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00".to_vec(),
            "the zstd data asks for a window of more than 128 MiB; pack it again without --long".into(),
        ),
        (
            "Parquet's first bytes alone",
            b"PAR1\0\0".to_vec(),
            format!("begins as Parquet, but is only 6 bytes long; {AGAIN}"),
        ),
        (
            "Parquet without a footer",
            cut(parquet.clone(), 40),
            format!("begins as Parquet, but has no Parquet footer at its end; {AGAIN}"),
        ),
        (
            "Parquet with a bogus footer length",
            with(parquet.clone(), 8, &u32::MAX.to_le_bytes()),
            format!("its Parquet footer claims 4294967295 bytes, the file has {}; {AGAIN}", parquet.len()),
        ),
        ("encrypted Parquet", with(parquet.clone(), 4, b"PARE"), "is encrypted Parquet; decrypt it first".into()),
        (
            "Parquet in gzip",
            golden_parquet_in_gzip(),
            "is Parquet inside gzip; unpack it first; Parquet is read as it is".into(),
        ),
    ]);
}

#[test]
fn files_of_another_kind() {
    let mut tar = vec![b'a'; 257];
    tar.extend(b"ustar\x0000");
    let convert = "write it as Parquet: datasets.load_from_disk(DIR).to_parquet(FILE)";
    all_refused(vec![
        ("a zip archive", b"PK\x03\x04....".to_vec(), "is a zip archive; unpack it first (unzip)".into()),
        (
            "bzip2",
            b"BZh91AY".to_vec(),
            "is packed with bzip2; unpack it first (bunzip2); gzip and zstd are read as they are".into(),
        ),
        (
            "xz",
            b"\xfd7zXZ\0\0".to_vec(),
            "is packed with xz; unpack it first (unxz); gzip and zstd are read as they are".into(),
        ),
        ("Arrow", b"ARROW1\0\0".to_vec(), format!("is an Arrow file; {convert}")),
        ("an Arrow stream", b"\xff\xff\xff\xff\x10".to_vec(), format!("is an Arrow stream; {convert}")),
        ("tar", tar, "is a tar archive; unpack it first (tar -xf)".into()),
        (
            "a Git LFS pointer",
            b"version https://git-lfs.github.com/spec/v1\noid x\n".to_vec(),
            "is a Git LFS pointer, not the data; fetch the data: git lfs pull".into(),
        ),
    ]);
}

#[test]
fn arrays_and_tables_that_cannot_be_read() {
    all_refused(vec![
        (
            "a cut array",
            cut(golden("compact.json"), 10),
            "the JSON array ends in the middle, after row 11; the file is cut short; write or download it again".into(),
        ),
        (
            "an array without its bracket",
            cut(golden("compact.json"), 1),
            "the JSON array ends in the middle, after row 12; the file is cut short; write or download it again".into(),
        ),
        (
            "an array without a comma",
            b"[{\"text\": \"a\"} {\"text\": \"b\"}]".to_vec(),
            "the JSON array has no \",\" or \"]\", after row 1; correct it, or write one object a line".into(),
        ),
        (
            "an array with a comma too many",
            b"[{\"text\": \"a\"},]".to_vec(),
            "the JSON array has no row, after row 1; correct it, or write one object a line".into(),
        ),
        (
            "something behind an array",
            b"[{\"text\": \"a\"}] {\"text\": \"b\"}".to_vec(),
            "the JSON array goes on behind its closing bracket, after row 1; correct it, or write one object a line"
                .into(),
        ),
        ("an empty array", golden("empty-array.json"), "holds no rows; give a file with rows".into()),
        ("Parquet without rows", golden("empty.parquet"), "holds no rows; give a file with rows".into()),
        (
            "Parquet with strings that are no UTF-8",
            golden("not-utf8.parquet"),
            "row 2: a string is not UTF-8; write the file again with strings in UTF-8".into(),
        ),
    ]);
}

fn golden_parquet_in_gzip() -> Vec<u8> {
    golden("parquet-inside.gz")
}

#[test]
fn a_page_whose_bytes_changed_is_told_by_its_checksum() {
    let parquet = golden("pages.parquet");
    let at = parquet.windows(5).position(|bytes| bytes == b"plain").unwrap();
    let mut broken = parquet.clone();
    broken[at] ^= 1;
    let text = said(&broken, Wanted::Lm, OnBadRow::Skip);
    assert!(text.starts_with("FILE: the Parquet data is damaged at row 1 (") && text.contains("CRC"), "{text}");
}

#[test]
fn rows_that_cannot_be_used() {
    use Wanted::{Lm, Preference, Prompts};
    let ok = r#"[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]"#;
    let other = r#"[{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]"#;
    let message = |turn: &str| format!("{{\"messages\": [{turn}]}}");
    let pair = |rest: &str| format!("{{\"chosen\": {ok}, \"rejected\": {other}{rest}}}");
    let correct = "correct the message";
    let alike = "write all columns of a row as strings, or all as lists of messages";
    let render = "render the row with transformers' apply_chat_template into strings, or remove the column";
    let cases: Vec<(Wanted, String, String)> = vec![
        (Lm, "{\"text\": \"b".into(), "the line ends in the middle of its JSON (half a line); write the line whole or delete it".into()),
        (Lm, message("\"hi\""), format!("message 1 of \"messages\" must be an object with \"role\" and \"content\", found a string; {correct}")),
        (Lm, message(r#"{"content": "x"}"#), format!("message 1 of \"messages\" has no \"role\"; it has \"content\"; {correct}")),
        (Lm, message(r#"{"role": 1, "content": "x"}"#), format!("message 1 of \"messages\" has a \"role\" that must be a string, found a number; {correct}")),
        (Lm, message(r#"{"role": "", "content": "x"}"#), format!("message 1 of \"messages\" has an empty \"role\"; {correct}")),
        (Lm, message(r#"{"role": "user", "content": 3}"#), format!("message 1 of \"messages\" has a \"content\" that must be a string or a list of parts, found a number; {correct}")),
        (Lm, message(r#"{"role": "user", "content": null}"#), format!("message 1 of \"messages\" has no \"content\"; {correct}")),
        (Lm, message(r#"{"role": "user", "content": [{"type": "image"}]}"#), format!("message 1 of \"messages\" has a part of type \"image\"; only text is supported; {correct}")),
        (Lm, message(r#"{"role": "user", "content": [{"text": "x"}]}"#), format!("message 1 of \"messages\" has a part that is no {{\"type\": \"text\", \"text\": \"...\"}}; {correct}")),
        (Lm, message(""), "\"messages\" is a conversation without messages; write at least one message or delete the row".into()),
        (Lm, "{\"messages\": \"hi\"}".into(), "\"messages\" must be a list of messages, found a string; correct the value".into()),
        (Lm, message(r#"{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}"#), "message 2 of \"messages\", the assistant's, is empty; fill it or delete the row".into()),
        (Lm, format!("{{\"messages\": {ok}, \"tools\": [{{\"name\": \"f\"}}]}}"), format!("the conversation comes with \"tools\", which is not supported; {render}")),
        (Lm, format!("{{\"messages\": {ok}, \"images\": [\"i.png\"]}}"), format!("the conversation comes with \"images\", which is not supported; {render}")),
        (Lm, format!("{{\"messages\": {ok}, \"chat_template_kwargs\": {{\"a\": true}}}}"), format!("the conversation comes with \"chat_template_kwargs\", which is not supported; {render}")),
        (Lm, format!("{{\"prompt\": \"q\", \"completion\": {ok}}}"), format!("\"prompt\" is a string, \"completion\" a conversation; {alike}")),
        (Lm, format!("{{\"prompt\": {ok}, \"completion\": \"a\"}}"), format!("\"completion\" is a string, \"prompt\" a conversation; {alike}")),
        (Lm, r#"{"prompt": ["p"], "completion": "c"}"#.into(), format!("message 1 of \"prompt\" must be an object with \"role\" and \"content\", found a string; {correct}")),
        (Lm, r#"{"prompt": "q", "completion": "a", "label": false}"#.into(), "is an unpaired preference (\"completion\" with \"label\"); expected \"completion\" alone, without \"label\": only completions to learn from; put a good and a bad completion of one prompt into one row as \"chosen\" and \"rejected\"".into()),
        (Preference, r#"{"prompt": "q", "completion": "a", "label": true}"#.into(), "is an unpaired preference (\"completion\" with \"label\"); expected \"chosen\" and \"rejected\" (and where there are such \"prompt\", \"preference\", \"margin\"); put a good and a bad completion of one prompt into one row as \"chosen\" and \"rejected\"".into()),
        (Preference, format!("{{\"messages\": {ok}}}"), "expected the columns \"chosen\" and \"rejected\" (and where there are such \"prompt\", \"preference\", \"margin\"); found \"messages\", which only SFT reads; write whole conversations as \"chosen\" and \"rejected\"".into()),
        (Prompts, format!("{{\"messages\": {ok}}}"), "expected the columns \"prompt\" (or \"text\"); found \"messages\", which only SFT reads; write the messages up to the one to generate as \"prompt\"".into()),
        (Prompts, "{\"prompt\": []}".into(), "\"prompt\" is a conversation without messages; write at least one message or delete the row".into()),
        (Preference, pair(", \"preference\": 1.5"), "\"preference\" is 1.5, outside [0, 1]; give the probability that \"chosen\" is better: 1 certain, 0.5 a tie".into()),
        (Preference, pair(", \"margin\": \"x\""), "\"margin\" must be a number, found a string; correct the value".into()),
        (Preference, format!("{{\"chosen\": {ok}, \"rejected\": {ok}}}"), "\"chosen\" and \"rejected\" are the same conversation; delete the row, or correct one of them".into()),
        (Preference, format!("{{\"chosen\": {ok}, \"rejected\": \"a\"}}"), format!("\"rejected\" is a string, \"chosen\" a conversation; {alike}")),
        (Preference, pair(", \"prompt\": \"another question\""), format!("\"prompt\" is a string, \"chosen\" a conversation; {alike}")),
        (Preference, format!("{{\"prompt\": {ok}, \"chosen\": \"a\", \"rejected\": \"b\"}}"), format!("\"chosen\" is a string, \"prompt\" a conversation; {alike}")),
        (Preference, pair(", \"prompt\": [{\"role\": \"user\", \"content\": \"q\"}]"), "\"chosen\" and \"rejected\" begin with all messages of \"prompt\" again; remove \"prompt\", or take its messages off \"chosen\" and \"rejected\"".into()),
        (Preference, r#"{"chosen": [{"role": "assistant", "content": ""}], "rejected": [{"role": "assistant", "content": "b"}]}"#.into(), "message 1 of \"chosen\", the assistant's, is empty; fill it or delete the row".into()),
    ];
    for (wanted, row, want) in cases {
        assert_eq!(said(row.as_bytes(), wanted, OnBadRow::Error), format!("FILE:1: {want}"), "{row}");
        // Skipping them leaves nothing, which is said with the count.
        let skipped = said(format!("{row}\n{row}").as_bytes(), wanted, OnBadRow::Skip);
        assert!(skipped.starts_with("FILE: none of its 2 rows can be used (2 "), "{skipped}");
    }
}

#[test]
fn bad_rows_of_files_without_lines() {
    let cases: [(&[u8], Wanted, &str); 6] = [
        (
            &golden("wrong-type.parquet"),
            Wanted::Lm,
            "FILE: row 1: \"text\" must be a string, found a number; correct the value",
        ),
        (
            &golden("binary.parquet"),
            Wanted::Lm,
            "FILE: row 2: \"text\" must be a string, found an object; correct the value",
        ),
        (
            &golden("nan.parquet"),
            Wanted::Preference,
            "FILE: row 1: column \"margin\" holds NaN, which is no finite number; correct the value",
        ),
        (
            &golden("types.parquet"),
            Wanted::Preference,
            "FILE: row 1: expected the columns \"chosen\" and \"rejected\" (and where there are such \"prompt\", \"preference\", \"margin\"); found \"text\", \"flag\", \"small\", \"unsigned\", \"half\", \"single\", \"nothing\", \"empty\", \"nested\", \"fixed\"; rename or add the columns",
        ),
        (
            b"[{\"text\": \"a\"}, {\"text\":\n \"b\" \"c\"}]",
            Wanted::Lm,
            "FILE: row 2: not JSON at line 2, column 6 of the row: expected `,` or `}`; correct the row; strings escaped",
        ),
        (
            b"[{\"text\": \"a\"}, 3]",
            Wanted::Lm,
            "FILE: row 2: is a number, not a JSON object; write a list of JSON objects",
        ),
    ];
    for (bytes, wanted, want) in cases {
        assert_eq!(said(bytes, wanted, OnBadRow::Error), want);
    }
}
