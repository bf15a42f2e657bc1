//! `data.train` and `data.eval`: what may be written, what is said of the rest, and how it is saved.
#![allow(clippy::unwrap_used)]
use collimate::config::{self, DataFile, DataFiles, SftConfig, StageConfig};

/// Loads a configuration whose `[data]` section has these lines; the message of a refusal without the directory.
fn load(data: &str, overrides: &[&str]) -> Result<SftConfig, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let text = format!("[model]\npath = \"m\"\n[data]\n{data}\n[train]\noutput = \"run\"\n");
    std::fs::write(&path, text).unwrap();
    let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_owned()).collect();
    config::load(&path, &overrides).map_err(|e| e.to_string().replace(&format!("{}/", dir.path().display()), ""))
}

fn file(path: &str, weight: f64) -> DataFile {
    DataFile { weight, ..DataFile::new(path) }
}

/// How `data.train` is saved, and that it is read back as it was.
fn saved(data: &str) -> String {
    let config = load(data, &[]).unwrap();
    let table = config.to_table();
    let text = toml::to_string_pretty(&table).unwrap();
    let back: toml::Table = text.parse().unwrap();
    assert_eq!(back, table);
    let read: DataFiles = back["data"]["train"].clone().try_into().unwrap();
    assert_eq!(read, config.data.train);
    back["data"]["train"].to_string()
}

#[test]
fn a_string_a_list_a_table_and_a_list_of_tables() {
    let train = |data: &str| load(data, &[]).unwrap().data.train.files().to_vec();
    assert_eq!(train("train = \"a\""), [file("a", 1.0)]);
    assert_eq!(train("train = [\"a\", \"b\"]"), [file("a", 1.0), file("b", 1.0)]);
    assert_eq!(train("train = { path = \"a\", weight = 2 }"), [file("a", 2.0)]);
    assert_eq!(train("train = [\"a\", { path = \"b\", weight = 0.5 }]"), [file("a", 1.0), file("b", 0.5)]);
    let tables = "[[data.train]]\npath = \"a\"\nweight = 0.25\n[[data.train]]\npath = \"o/d\"\nsplit = \"train\"\nconfig = \"en\"\nrevision = \"main\"";
    let some = |text: &str| Some(text.to_owned());
    let hub = DataFile { split: some("train"), config: some("en"), revision: some("main"), ..DataFile::new("o/d") };
    assert_eq!(train(tables), [file("a", 0.25), hub]);
    let config = load("train = \"a\"\neval = [\"e\", \"f\"]", &[]).unwrap();
    assert_eq!(config.data.eval.as_ref().unwrap().files().len(), 2);
    assert!(!config.data.streaming && load("train = \"a\"\nstreaming = true", &[]).unwrap().data.streaming);
    // On the command line as in the file, and without quotes.
    let overridden = |value: &str| load("train = \"a\"", &[&format!("data.train={value}")]).unwrap().data.train.clone();
    assert_eq!(overridden("[\"b\", \"c\"]").files().len(), 2);
    assert_eq!(overridden("b.jsonl"), "b.jsonl".into());
    assert_eq!(overridden("2026"), "2026".into());
}

#[test]
fn it_is_saved_as_short_as_it_can_be_said() {
    assert_eq!(saved("train = \"a\""), "\"a\"");
    assert_eq!(saved("train = [\"a\"]"), "\"a\"");
    assert_eq!(saved("train = { path = \"a\", weight = 1 }"), "\"a\"");
    assert_eq!(saved("train = [\"a\", { path = \"b\" }]"), "[\"a\", \"b\"]");
    assert_eq!(saved("train = [{ path = \"a\", weight = 2 }]"), "{ path = \"a\", weight = 2.0 }");
    assert_eq!(
        saved("train = [{ split = \"s\", path = \"a\", weight = 0.5 }, \"b\"]"),
        "[{ path = \"a\", weight = 0.5, split = \"s\" }, \"b\"]"
    );
}

#[test]
fn it_shows_itself_in_a_line() {
    let train = load("train = [{ path = \"a\", weight = 0.5, split = \"s\" }, \"b\"]", &[]).unwrap().data.train.clone();
    assert_eq!(train.to_string(), "a (weight 0.5, split \"s\"), b");
}

#[test]
fn what_cannot_be_read_names_line_key_and_file() {
    let keys = "a file has path, weight, split, config, revision";
    let shapes = "expected a path as a string, a list of paths, or tables { path = \"...\", weight = ... }";
    let of_a_list = "expected a path as a string, or a table { path = \"...\", weight = ... }";
    for (data, want) in [
        ("", "c.toml:3: data.train: missing; name a file of training rows".to_owned()),
        ("train = \"\"", "c.toml:4: data.train: missing; name a file of training rows".to_owned()),
        ("train = 3", format!("c.toml:4: data.train: invalid type: integer `3`, {shapes}")),
        ("train = []", "c.toml:4: data.train: is an empty list; name at least one file".to_owned()),
        ("train = [\"a\", 3]", format!("c.toml:4: data.train: file 2: invalid type: integer `3`, {of_a_list}")),
        ("train = [\"a\", [\"b\"]]", format!("c.toml:4: data.train: file 2: invalid type: sequence, {of_a_list}")),
        (
            "train = [\"a\", { path = \"b\", wieght = 2 }]",
            format!("c.toml:4: data.train: file 2: unknown key \"wieght\", did you mean \"weight\"?; {keys}"),
        ),
        ("train = { path = \"b\", zzz = 2 }", format!("c.toml:4: data.train: unknown key \"zzz\"; {keys}")),
        (
            "train = [{ weight = 2 }]",
            "c.toml:4: data.train: file 1: \"path\" is missing; name a file or data set".to_owned(),
        ),
        ("train = { path = 3 }", "c.toml:4: data.train: \"path\" must be a string, found an integer".to_owned()),
        (
            "train = { path = \"a\", split = [\"b\"] }",
            "c.toml:4: data.train: \"split\" must be a string, found an array".to_owned(),
        ),
        (
            "train = { path = \"a\", weight = \"2\" }",
            "c.toml:4: data.train: \"weight\" must be a number, found a string".to_owned(),
        ),
        (
            "train = [\"a\", \"\"]",
            "c.toml:4: data.train: file 2: \"path\" is empty; name a file or data set".to_owned(),
        ),
        (
            "train = \"a\"\neval = \"\"",
            "c.toml:5: data.eval: is empty; name a file of evaluation rows, or remove it".to_owned(),
        ),
        (
            "train = \"a\"\neval = { path = \"b\", weight = 2 }",
            "c.toml:5: data.eval: \"weight\" is only read in data.train; remove it".to_owned(),
        ),
        (
            "[[data.train]]\npath = \"a\"\nweight = 0",
            "c.toml:4: data.train: \"weight\" is 0; give a number above 0, 1000 at most".to_owned(),
        ),
    ] {
        assert_eq!(load(data, &[]).unwrap_err(), want, "{data}");
    }
    for (weight, shown) in [("0.0", "0"), ("-1", "-1"), ("nan", "NaN"), ("inf", "inf"), ("1001", "1001")] {
        let data = format!("train = [\"a\", {{ path = \"b\", weight = {weight} }}]");
        let want = format!("c.toml:4: data.train: file 2: \"weight\" is {shown}; give a number above 0, 1000 at most");
        assert_eq!(load(&data, &[]).unwrap_err(), want);
    }
}
