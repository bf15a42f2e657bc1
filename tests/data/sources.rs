//! Files of every format: the rows are those that pyarrow, `datasets` and Python's json read from the same files.
#![allow(clippy::unwrap_used)]
use collimate::data::source::{self, MAX_ROW};
use collimate::data::{DataReport, OnBadRow, Row, RowId, Unit, Wanted, columns, for_each_chunk, read_rows};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data").join(name)
}

fn expected() -> Map<String, Value> {
    serde_json::from_slice(&std::fs::read(golden("expected.json")).unwrap()).unwrap()
}

/// The rows of a file, none of them bad.
fn rows(path: &Path) -> Vec<(RowId, Value)> {
    source::open(path).unwrap().map(|raw| raw.unwrap()).map(|raw| (raw.id, raw.object.unwrap().into())).collect()
}

#[test]
fn every_format_has_the_rows_of_its_reference_reader() {
    let expected = expected();
    assert!(expected.len() > 25, "{}", expected.len());
    for (name, want) in &expected {
        let got = rows(&golden(name));
        let want = want.as_array().unwrap();
        assert_eq!(got.len(), want.len(), "{name}");
        for (at, ((id, got), want)) in got.iter().zip(want).enumerate() {
            assert_eq!(got, want, "{name}: row {}", at + 1);
            let lines = name.contains("jsonl");
            assert_eq!(id.unit, if lines { Unit::Line } else { Unit::Row }, "{name}");
            if name != "crlf-bom.jsonl" {
                assert_eq!(id.number, at + 1, "{name}");
            }
        }
    }
}

#[test]
fn a_row_says_where_it_stands() {
    let place = |name: &str, at: usize| {
        let id = rows(&golden(name)).remove(at).0;
        id.to_string().replace(&format!("{}/", golden("").display()).replace("//", "/"), "")
    };
    assert_eq!(place("plain.jsonl", 2), "plain.jsonl:3");
    assert_eq!(place("crlf-bom.jsonl", 2), "crlf-bom.jsonl:5");
    assert_eq!(place("members.jsonl.gz", 7), "members.jsonl.gz:8");
    assert_eq!(place("compact.json", 2), "compact.json: row 3");
    assert_eq!(place("preference-snappy.parquet", 8), "preference-snappy.parquet: row 9");
}

#[test]
fn columns_are_those_of_the_first_row_that_hold_something() {
    for name in ["plain.jsonl", "one.jsonl.gz", "frames.jsonl.zst", "indented.json", "pages.parquet"] {
        assert_eq!(columns(&golden(name)).unwrap(), ["text", "label"], "{name}");
    }
    let columns_of = |name| columns(&golden(name)).unwrap();
    assert_eq!(columns_of("preference-zstd.parquet"), ["chosen", "rejected", "preference", "score"]);
    assert_eq!(
        columns_of("types.parquet"),
        ["text", "flag", "small", "unsigned", "half", "single", "empty", "nested", "fixed"]
    );
    for name in ["empty-array.json", "empty.parquet"] {
        let text = columns(&golden(name)).unwrap_err().to_string();
        assert_eq!(text, format!("{}: has no rows; give a file with rows", golden(name).display()));
    }
}

#[test]
fn of_a_parquet_file_only_the_columns_that_are_asked_for_are_read() {
    let path = golden("types.parquet");
    let first = source::open_columns(&path, Some(&["single", "text"])).unwrap().next().unwrap().unwrap();
    let object = first.object.unwrap();
    let some: Vec<_> = object.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str()).collect();
    assert_eq!((some, object.len()), (vec!["text", "single"], 10), "the others are there, as null");
    // Where none of them is there all are read, so that they can be named.
    let first = source::open_columns(&path, Some(&["prompt"])).unwrap().next().unwrap().unwrap();
    assert_eq!(first.object.unwrap()["small"], json!(-1));
}

#[test]
fn typed_rows_come_out_the_same_from_every_format() {
    let read = |name: &str, wanted| {
        let rows = read_rows(&golden(name), wanted, OnBadRow::Error, &mut DataReport::default()).unwrap();
        rows.into_iter().map(|located| located.row).collect::<Vec<Row>>()
    };
    let texts = read("plain.jsonl", Wanted::Lm);
    assert_eq!(texts.len(), 12);
    for name in ["one.jsonl.gz", "skippable.jsonl.zst", "indented.json", "array.json.gz"] {
        assert_eq!(read(name, Wanted::Lm), texts, "{name}");
    }
    let pairs = read("preference-snappy.parquet", Wanted::Preference);
    let Row::Preference { prompt, chosen, preference, margin, .. } = &pairs[1] else { panic!("{:?}", pairs[1]) };
    assert_eq!((*preference, *margin), (0.75, Some(2.0)));
    let prompt = prompt.as_ref().unwrap().messages().unwrap();
    assert_eq!((prompt.len(), chosen.messages().unwrap()[0]["content"].as_str()), (1, Some("Good 1.")));
    for kind in ["zstd", "gzip", "brotli", "lz4", "plain"] {
        assert_eq!(read(&format!("preference-{kind}.parquet"), Wanted::Preference), pairs, "{kind}");
    }
    assert_eq!(read("datasets.parquet", Wanted::Lm), read("datasets.jsonl", Wanted::Lm));
}

#[test]
fn chunks_hold_at_most_512_rows_of_one_file_and_stop_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, from: usize, to: usize| {
        let path = dir.path().join(name);
        let lines: String = (from..to).map(|i| format!("{{\"text\": \"{i}\"}}\n")).collect();
        std::fs::write(&path, lines).unwrap();
        path
    };
    let files = [write("a.jsonl", 0, 1100), write("b.jsonl", 1100, 1100), write("c.jsonl", 1100, 1103)];
    let chunks = |limit| {
        let (mut sizes, mut texts, mut report) = (Vec::new(), Vec::new(), DataReport::default());
        for_each_chunk(&files, Wanted::Lm, OnBadRow::Error, &mut report, limit, |chunk, _| {
            assert!(chunk.iter().all(|row| row.id.file == chunk[0].id.file));
            sizes.push(chunk.len());
            texts.extend(chunk.iter().map(|row| match &row.row {
                Row::Text(text) => text.parse::<usize>().unwrap(),
                other => panic!("{other:?}"),
            }));
            Ok(())
        })
        .unwrap();
        assert_eq!(texts, (0..texts.len()).collect::<Vec<_>>());
        (sizes, report.rows)
    };
    assert_eq!(chunks(None), (vec![512, 512, 76, 3], 1103));
    assert_eq!(chunks(Some(600)), (vec![512, 88], 600));
    assert_eq!(chunks(Some(1102)), (vec![512, 512, 76, 2], 1102));
    assert_eq!(chunks(Some(0)), (vec![], 0));
}

#[test]
fn a_line_of_a_hundred_mebibytes_is_one_bad_row() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.jsonl");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let filler = vec![b'x'; 1 << 20];
    file.write_all(b"{\"text\": \"a\"}\n{\"text\": \"").unwrap();
    (0..100).for_each(|_| file.write_all(&filler).unwrap());
    file.write_all(b"\"}\n{\"text\": \"b\"}\n").unwrap();
    file.into_inner().unwrap();
    let error = read_rows(&path, Wanted::Lm, OnBadRow::Error, &mut DataReport::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}:2: is longer than 64 MiB; split it into several rows or delete it", path.display())
    );
    let mut report = DataReport::default();
    let good = read_rows(&path, Wanted::Lm, OnBadRow::Skip, &mut report).unwrap();
    let lines: Vec<usize> = good.iter().map(|row| row.id.number).collect();
    assert_eq!((lines, report.skipped["too long"]), (vec![1, 3], 1));

    // The same as an element of an array; and one that just fits.
    let array = dir.path().join("long.json");
    let text = |length: usize| format!("{{\"text\": \"{}\"}}", "y".repeat(length - "{\"text\": \"\"}".len()));
    std::fs::write(&array, format!("[{}, {}, {{\"text\": \"z\"}}]", text(MAX_ROW), text(MAX_ROW + 1))).unwrap();
    let mut report = DataReport::default();
    let good = read_rows(&array, Wanted::Lm, OnBadRow::Skip, &mut report).unwrap();
    let numbers: Vec<usize> = good.iter().map(|row| row.id.number).collect();
    assert_eq!((numbers, report.skipped["too long"]), (vec![1, 3], 1));
}
