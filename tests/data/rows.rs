//! Reading JSON lines: what is accepted, and what is said of each bad row.
#![allow(clippy::unwrap_used)]
use collimate::data::{DataReport, Located, OnBadRow, Row, Wanted, read_rows};
use std::path::PathBuf;

struct Data {
    dir: tempfile::TempDir,
}

impl Data {
    fn new(content: impl AsRef<[u8]>) -> Self {
        let data = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(data.path(), content).unwrap();
        data
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("d.jsonl")
    }

    fn read(&self, wanted: Wanted) -> Vec<Located> {
        read_rows(&self.path(), wanted, OnBadRow::Error, &mut DataReport::default()).unwrap()
    }

    fn refusal(&self, wanted: Wanted, on_bad: OnBadRow) -> String {
        let error = read_rows(&self.path(), wanted, on_bad, &mut DataReport::default()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(!text.contains('\n'), "one line: {text}");
        text.replace(self.dir.path().to_str().unwrap(), "DIR")
    }
}

fn refused(content: impl AsRef<[u8]>, wanted: Wanted) -> String {
    Data::new(content).refusal(wanted, OnBadRow::Error)
}

fn texts(rows: &[Located]) -> Vec<(usize, &str)> {
    rows.iter()
        .map(|located| match &located.row {
            Row::Text(text) => (located.id.number, text.as_str()),
            Row::Prompt(prompt) => (located.id.number, prompt.text().unwrap()),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn bom_crlf_blank_lines_and_a_missing_last_newline_are_accepted() {
    let data = Data::new(
        "\u{feff}{\"text\": \"a\"}\r\n\r\n{\"text\": \"b\\n\\u00e9\", \"label\": 3}\n  \n {\"text\": \"c\"} ",
    );
    let rows = data.read(Wanted::Lm);
    assert_eq!(texts(&rows), [(1, "a"), (3, "b\né"), (5, "c")]);
    assert_eq!(rows[1].id.to_string(), format!("{}:3", data.path().display()));
}

#[test]
fn columns_of_each_kind() {
    let lm = r#"{"prompt": "p", "completion": "c", "text": "t", "extra": [1]}"#;
    let pc = Row::PromptCompletion { prompt: "p".into(), completion: "c".into() };
    assert_eq!(Data::new(lm).read(Wanted::Lm)[0].row, pc);
    assert_eq!(Data::new(r#"{"prompt": "p", "text": "t"}"#).read(Wanted::Lm)[0].row, Row::Text("t".into()));
    assert_eq!(Data::new(r#"{"prompt": "", "completion": "c"}"#).read(Wanted::Lm).len(), 1);

    assert_eq!(Data::new(lm).read(Wanted::Prompts)[0].row, pc);
    for row in [
        r#"{"prompt": "p"}"#,
        r#"{"prompt": "p", "completion": null}"#,
        r#"{"prompt": "p", "completion": ""}"#,
        r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#,
        r#"{"text": "p"}"#,
    ] {
        assert_eq!(Data::new(row).read(Wanted::Prompts)[0].row, Row::Prompt("p".into()), "{row}");
    }
}

#[test]
fn preference_columns() {
    let read = |row: &str| Data::new(row).read(Wanted::Preference).remove(0).row;
    let pair = |prompt: Option<&str>, preference, margin| Row::Preference {
        prompt: prompt.map(Into::into),
        chosen: "a".into(),
        rejected: "b".into(),
        preference,
        margin,
    };
    assert_eq!(read(r#"{"chosen": "a", "rejected": "b"}"#), pair(None, 1.0, None));
    assert_eq!(read(r#"{"prompt": null, "chosen": "a", "rejected": "b", "margin": null}"#), pair(None, 1.0, None));
    assert_eq!(
        read(r#"{"prompt": "p", "chosen": "a", "rejected": "b", "preference": 0.5, "margin": -2}"#),
        pair(Some("p"), 0.5, Some(-2.0))
    );
    assert_eq!(read(r#"{"chosen": "a", "rejected": "b", "preference": 0}"#), pair(None, 0.0, None));
}

#[test]
fn bad_rows_name_line_column_and_remedy() {
    let good = "{\"text\": \"a\"}\n";
    let second = |line: &str| refused(format!("{good}{line}\n"), Wanted::Lm);
    assert_eq!(
        second("{\"text\": \"b"),
        "DIR/d.jsonl:2: the line ends in the middle of its JSON (half a line); write the line whole or delete it"
    );
    assert_eq!(
        second("{\"text\": \"b\" \"c\": 1}"),
        "DIR/d.jsonl:2: not JSON at column 14: expected `,` or `}`; correct the line; one JSON object a line, strings escaped"
    );
    assert!(second("{\"text\": \"\\ud800\"}").starts_with("DIR/d.jsonl:2: not JSON at column"));
    assert!(second("{\"text\": \"b\"} {\"text\": \"c\"}").contains("trailing characters"));
    assert_eq!(second("[1]"), "DIR/d.jsonl:2: is a list, not a JSON object; write one JSON object a line");
    assert_eq!(second("\"b\""), "DIR/d.jsonl:2: is a string, not a JSON object; write one JSON object a line");
    assert_eq!(second("{\"text\": 3}"), "DIR/d.jsonl:2: \"text\" must be a string, found a number; correct the value");
    assert_eq!(second("{\"text\": \"\"}"), "DIR/d.jsonl:2: \"text\" is empty; fill it or delete the row");
    assert_eq!(
        second("{\"review\": \"b\", \"label\": 1}"),
        "DIR/d.jsonl:2: expected the columns \"text\", or \"messages\", or \"prompt\" and \"completion\"; found \"review\", \"label\"; rename or add the columns"
    );
    assert!(second("{}").contains("found none"));
    assert!(second("{\"text\": null}").contains("found \"text\""));
    assert_eq!(
        second("{\"prompt\": \"p\", \"completion\": \"\"}"),
        "DIR/d.jsonl:2: \"completion\" is empty; fill it or delete the row"
    );
    assert!(second("{\"prompt\": [\"p\"], \"completion\": \"c\"}").contains("\"prompt\""));
    assert!(second("{\"prompt\": \"p\"}").contains("found \"prompt\""));
    assert_eq!(
        refused(b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n", Wanted::Lm),
        "DIR/d.jsonl:2: byte 11 is not UTF-8; save the file as UTF-8"
    );
    assert!(refused(b"\xff\xfe{\0\"\0", Wanted::Lm).contains("d.jsonl:1: byte 1 is not UTF-8"));
}

#[test]
fn bad_preference_rows() {
    let say = |rest: &str| refused(format!("{{\"chosen\": \"a\"{rest}}}"), Wanted::Preference);
    assert_eq!(
        say(""),
        "DIR/d.jsonl:1: expected the columns \"chosen\" and \"rejected\" (and where there are such \"prompt\", \"preference\", \"margin\"); found \"chosen\"; rename or add the columns"
    );
    assert_eq!(
        say(", \"rejected\": \"a\""),
        "DIR/d.jsonl:1: \"chosen\" and \"rejected\" are the same text; delete the row, or correct one of them"
    );
    assert_eq!(say(", \"rejected\": \"\""), "DIR/d.jsonl:1: \"rejected\" is empty; fill it or delete the row");
    for value in ["1.5", "-0.1"] {
        assert_eq!(
            say(&format!(", \"rejected\": \"b\", \"preference\": {value}")),
            format!(
                "DIR/d.jsonl:1: \"preference\" is {value}, outside [0, 1]; give the probability that \"chosen\" is better: 1 certain, 0.5 a tie"
            )
        );
    }
    assert_eq!(
        say(", \"rejected\": \"b\", \"preference\": true"),
        "DIR/d.jsonl:1: \"preference\" must be a number, found true or false; correct the value"
    );
    assert!(say(", \"rejected\": \"b\", \"margin\": \"1\"").contains("\"margin\" must be a number, found a string"));
    assert!(say(", \"rejected\": {\"a\": 1}").contains("\"rejected\""));
    assert!(
        refused("{\"completion\": \"x\"}", Wanted::Prompts).contains("expected the columns \"prompt\" (or \"text\")")
    );
}

#[test]
fn skipping_counts_each_reason() {
    let data = Data::new(
        "{\"text\": \"a\"}\n{\"text\": \"\"}\n{\"text\": 1}\n\n{\"text\"\n{\"text\": \"\"}\n{\"text\": \"b\"}\n",
    );
    let mut report = DataReport::default();
    let rows = read_rows(&data.path(), Wanted::Lm, OnBadRow::Skip, &mut report).unwrap();
    assert_eq!(texts(&rows), [(1, "a"), (7, "b")]);
    assert_eq!((report.rows, report.skipped_rows(), report.usable()), (6, 4, 2));
    assert_eq!(report.to_string(), "6 rows, 4 skipped (2 empty text, 1 half a line, 1 wrong type), 0 tokens");
    assert_eq!(
        Data::new("{\"text\": 1}\n{\"text\": \"\"}").refusal(Wanted::Lm, OnBadRow::Skip),
        "DIR/d.jsonl: none of its 2 rows can be used (1 empty text, 1 wrong type); set data.on_bad_row=error to see the first one"
    );
}

#[test]
fn files_without_rows_are_refused() {
    for content in ["", "\n\n", "\u{feff}"] {
        assert_eq!(refused(content, Wanted::Lm), "DIR/d.jsonl: holds no rows; give a file with rows");
    }
    let data = Data::new("");
    let at = |path: PathBuf| {
        let error = read_rows(&path, Wanted::Lm, OnBadRow::Skip, &mut DataReport::default()).unwrap_err();
        error.to_string().replace(data.dir.path().to_str().unwrap(), "DIR")
    };
    assert_eq!(at(data.dir.path().join("no.jsonl")), "DIR/no.jsonl: there is no such file; check the path");
    assert!(at(data.dir.path().to_owned()).starts_with("DIR: is a directory; "));
}
