//! Which files are a split's, against the Python library datasets (scripts/goldens/splits.py).
use super::{NOBODY, settings};
use crate::support::json;
use collimate::hub::{DatasetSpec, resolve_dataset_with};
use serde_json::Value;
use std::path::Path;

fn case_dir(case: &Value, root: &Path) {
    for file in case["files"].as_array().unwrap() {
        let path = root.join(file.as_str().unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    let card = case["card"].as_str().unwrap();
    if !card.is_empty() {
        std::fs::write(root.join("README.md"), card).unwrap();
    }
}

#[test]
fn splits_have_the_files_that_datasets_gives_them() {
    let golden = json("splits.json");
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 30);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let dir = tempfile::tempdir().unwrap();
        case_dir(case, dir.path());
        let config = case["config"].as_str().map(str::to_owned);
        let ask = |split: &str| {
            let path = dir.path().to_str().unwrap().to_owned();
            let spec = DatasetSpec { path, config: config.clone(), split: Some(split.to_owned()), revision: None };
            resolve_dataset_with(&settings(dir.path(), NOBODY, true), &spec)
        };
        let Some(splits) = case["splits"].as_object() else {
            let error = ask("train").unwrap_err().to_string();
            assert!(error.contains("configurations"), "{name}: {error}");
            continue;
        };
        for (split, files) in splits {
            let files: Vec<_> =
                files.as_array().unwrap().iter().map(|f| dir.path().join(f.as_str().unwrap())).collect();
            assert_eq!(ask(split).unwrap(), files, "{name}: {split}");
        }
        let error = ask("no-such-split").unwrap_err().to_string();
        let mut named: Vec<&str> = error.rsplit(": ").next().unwrap().split(", ").collect();
        let mut expected: Vec<&str> = splits.keys().map(String::as_str).collect();
        named.sort();
        expected.sort();
        assert_eq!(named, expected, "{name}: {error}");
    }
}
