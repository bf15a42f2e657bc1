//! Data sets from a hub on the loopback address and from its cache: cards, file names, conversions, refusals.
use super::server::{Hub, Repo};
use super::{NOBODY, cached, settings, shown};
use collimate::hub::{DatasetSpec, HubSettings, resolve_dataset_file, resolve_dataset_with};
use std::path::{Path, PathBuf};

const CARD: &str = "---\nlicense: mit\nconfigs:\n- config_name: main\n  default: true\n  data_files:\n  - split: train\n    path: main/train-*\n  - split: test\n    path: main/test-*\n- config_name: hard\n  data_files:\n  - split: train\n    path: hard/*.parquet\n---\n# Rows\n";
const CONVERTED: &str = "fedcba9876543210fedcba9876543210fedcba98";

fn spec(path: &str, config: Option<&str>, split: Option<&str>) -> DatasetSpec {
    let (config, split) = (config.map(str::to_owned), split.map(str::to_owned));
    DatasetSpec { config, split, ..DatasetSpec::new(path) }
}

/// Names below the snapshot.
fn found(settings: &HubSettings, spec: &DatasetSpec) -> Vec<String> {
    let files = resolve_dataset_with(settings, spec).unwrap();
    let name = |path: &PathBuf| {
        assert!(path.is_file(), "{}", path.display());
        let path = path.strip_prefix(&settings.cache).unwrap().to_str().unwrap();
        path.splitn(4, '/').last().unwrap().to_owned()
    };
    files.iter().map(name).collect()
}

fn refusal(settings: &HubSettings, spec: &DatasetSpec) -> String {
    let error = resolve_dataset_with(settings, spec).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    shown(settings, &error)
}

fn shards(prefix: &str, count: usize) -> Vec<(String, String)> {
    (0..count).map(|i| (format!("{prefix}-{i:05}-of-{count:05}.parquet"), format!("{prefix} {i}"))).collect()
}

fn lent(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect()
}

#[test]
fn a_card_says_which_files_are_a_splits() {
    let cache = tempfile::tempdir().unwrap();
    let files = [shards("main/train", 2), shards("main/test", 1), shards("hard/train", 1)].concat();
    let files = [lent(&files), vec![("README.md", CARD), ("other/train.jsonl", "{}")]].concat();
    let hub = Hub::new(vec![Repo::new("datasets", "o/math", &files)]);
    let online = settings(cache.path(), &hub.endpoint, false);
    let train = ["main/train-00000-of-00002.parquet", "main/train-00001-of-00002.parquet"];
    assert_eq!(found(&online, &spec("o/math", None, None)), train);
    assert_eq!(hub.got(), [&["README.md"], &train[..]].concat(), "nothing else is downloaded");
    assert_eq!(found(&online, &spec("o/math", Some("hard"), Some("train"))), ["hard/train-00000-of-00001.parquet"]);
    assert_eq!(hub.got(), ["hard/train-00000-of-00001.parquet"]);
    // What is there needs no network; what is not is named.
    let (nobody, offline) = (settings(cache.path(), NOBODY, false), settings(cache.path(), NOBODY, true));
    for settings in [&nobody, &offline] {
        assert_eq!(found(settings, &spec("o/math", None, None)), train);
        assert_eq!(found(settings, &spec("o/math@main", Some("hard"), None)), ["hard/train-00000-of-00001.parquet"]);
    }
    assert_eq!(
        refusal(&offline, &spec("o/math", None, Some("test"))),
        "o/math: only parts of it are in the cache CACHE (main/test-00000-of-00001.parquet is missing) and HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE once, so that the rest can be downloaded"
    );
    for settings in [&online, &offline] {
        assert_eq!(
            refusal(settings, &spec("o/math", None, Some("validation"))),
            "o/math: the configuration \"main\" has no split \"validation\"; choose one of its splits: train, test"
        );
        assert_eq!(
            refusal(settings, &spec("o/math", Some("easy"), None)),
            "o/math: the data set has no configuration \"easy\"; choose one of its configurations: main, hard"
        );
    }
    assert_eq!(hub.got(), Vec::<String>::new(), "what is refused downloads nothing");
}

#[test]
fn several_configurations_and_none_chosen() {
    let cache = tempfile::tempdir().unwrap();
    let card = CARD.replace("  default: true\n", "");
    let files = [("README.md", card.as_str()), ("main/train-1.jsonl", ""), ("hard/a.parquet", "")];
    let broken = [("README.md", "---\nconfigs:\n- config_name: [\n---\n"), ("train.jsonl", "")];
    let twice = CARD.replace("split: test", "split: train");
    let away =
        [("README.md", "---\nconfigs:\n- config_name: a\n  data_files: https://host/a.jsonl\n---\n"), ("a.jsonl", "")];
    let hub = Hub::new(vec![
        Repo::new("datasets", "o/two", &files),
        Repo::new("datasets", "o/broken", &broken),
        Repo::new("datasets", "o/twice", &[("README.md", &twice), ("main/train-1.jsonl", "")]),
        Repo::new("datasets", "o/away", &away),
    ]);
    let settings = settings(cache.path(), &hub.endpoint, false);
    let say = |id: &str| refusal(&settings, &spec(id, None, None));
    assert_eq!(say("o/two"), "o/two: the data set has 2 configurations and none was chosen; choose one: main, hard");
    let broken = say("o/broken");
    assert!(broken.contains("README.md: its YAML is not as a card's: "), "{broken}");
    assert!(broken.ends_with("; correct the card, or name the data files themselves"), "{broken}");
    assert!(say("o/twice").contains("configuration main: data_files names the split train twice"));
    assert_eq!(
        say("o/away"),
        "o/away: the card's split \"train\" names files elsewhere (https://host/a.jsonl); download them and name the local files"
    );
}

#[test]
fn file_names_say_it_where_no_card_does() {
    let cache = tempfile::tempdir().unwrap();
    let hh = [
        ("README.md", "---\nlicense: mit\n---\n"),
        ("harmless-base/train.jsonl.gz", "1"),
        ("harmless-base/test.jsonl.gz", "2"),
        ("helpful-base/train.jsonl.gz", "3"),
        ("red-team/red.jsonl.gz", "4"),
    ];
    let odd = [("rows #1 100%.jsonl", "odd names are quoted")];
    let hub = Hub::new(vec![Repo::new("datasets", "o/hh", &hh), Repo::new("datasets", "plain", &odd)]);
    let settings = settings(cache.path(), &hub.endpoint, false);
    let train = found(&settings, &spec("o/hh", None, None));
    assert_eq!(train, ["harmless-base/train.jsonl.gz", "helpful-base/train.jsonl.gz"]);
    assert_eq!(found(&settings, &spec("o/hh", None, Some("test"))), ["harmless-base/test.jsonl.gz"]);
    assert_eq!(found(&settings, &spec("o/hh", Some("default"), Some("test"))), ["harmless-base/test.jsonl.gz"]);
    assert_eq!(
        refusal(&settings, &spec("o/hh", None, Some("red"))),
        "o/hh: the data set has no split \"red\"; choose one of its splits: train, test"
    );
    assert_eq!(
        refusal(&settings, &spec("o/hh", Some("helpful-base"), None)),
        "o/hh: the data set has no configuration \"helpful-base\"; its files belong to no named one; leave the configuration out"
    );
    assert_eq!(found(&settings, &spec("plain", None, None)), ["rows #1 100%.jsonl"]);
}

#[test]
fn what_is_not_read_comes_from_the_hubs_own_conversion() {
    let cache = tempfile::tempdir().unwrap();
    let converted = [
        ("en/train/0001.parquet", "b"),
        ("en/train/0000.parquet", "a"),
        ("en/partial-test/0000.parquet", "c"),
        ("de/train/0000.parquet", "d"),
    ];
    let script = [("rows.py", "import os"), ("README.md", "---\nlicense: mit\n---\n")];
    let repo = Repo::new("datasets", "o/rows", &script).with("refs/convert/parquet", CONVERTED, &converted);
    let csv = Repo::new("datasets", "o/csv", &[("train.csv", "a")]).with(
        "refs/convert/parquet",
        CONVERTED,
        &[("default/train/0000.parquet", "e")],
    );
    let hub = Hub::new(vec![repo, csv]);
    let online = settings(cache.path(), &hub.endpoint, false);
    let offline = settings(cache.path(), NOBODY, true);
    assert_eq!(found(&online, &spec("o/csv", None, None)), ["default/train/0000.parquet"]);
    let files = ["en/train/0000.parquet", "en/train/0001.parquet"];
    assert_eq!(found(&online, &spec("o/rows", Some("en"), None)), files);
    hub.seen();
    assert_eq!(found(&offline, &spec("o/rows", Some("en"), None)), files);
    assert_eq!(found(&online, &spec("o/rows@refs/convert/parquet", Some("en"), None)), files);
    assert_eq!(hub.seen(), []);
    assert_eq!(
        refusal(&online, &spec("o/rows", None, None)),
        "o/rows@refs/convert/parquet: the data set has 2 configurations and none was chosen; choose one: de, en"
    );
    assert_eq!(
        refusal(&online, &spec("o/rows", Some("en"), Some("test"))),
        "o/rows@refs/convert/parquet: the configuration \"en\" has no split \"test\"; choose one of its splits: partial-test, train"
    );
}

#[test]
fn what_is_not_read_and_not_converted_is_refused_with_a_line_of_python() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(vec![
        Repo::new("datasets", "o/script", &[("script.py", "import os"), ("data/train.jsonl", "")]),
        Repo::new("datasets", "o/make", &[("make_it.py", "import os")]),
        Repo::new("datasets", "o/csv", &[("train.csv", ""), ("test.arrow", "")]).with("v1", "1234", &[("a.csv", "")]),
        Repo::new("datasets", "o/none", &[("LICENSE", ""), (".gitattributes", "")]),
    ]);
    let settings = settings(cache.path(), &hub.endpoint, false);
    let say = |path: &str, config, split| refusal(&settings, &spec(path, config, split));
    assert_eq!(
        say("o/script", Some("en"), None),
        "o/script: its rows are made by a program (script.py), which is not run; convert it where running that is safe, with datasets < 4: python -c 'from datasets import load_dataset as L; L(\"o/script\", \"en\", split=\"train\", trust_remote_code=True).to_json(\"train.jsonl\")' and name train.jsonl"
    );
    assert!(say("o/make", None, None).starts_with("o/make: its rows are made by a program (make_it.py)"));
    assert_eq!(
        say("o/csv", None, Some("test")),
        "o/csv: its test split is not JSONL or Parquet but arrow; convert it: python -c 'from datasets import load_dataset as L; L(\"o/csv\", split=\"test\").to_json(\"test.jsonl\")' and name test.jsonl"
    );
    assert!(say("o/csv@v1", None, None).contains("L(\"o/csv\", split=\"train\", revision=\"v1\").to_json"));
    assert_eq!(
        say("o/none", None, None),
        "o/none: has no data files (JSONL or Parquet); convert it: python -c 'from datasets import load_dataset as L; L(\"o/none\", split=\"train\").to_json(\"train.jsonl\")' and name train.jsonl"
    );
}

#[test]
fn what_python_left_in_the_cache_is_used_offline_if_it_is_whole() {
    let cache = tempfile::tempdir().unwrap();
    let (offline, online) = (settings(cache.path(), NOBODY, true), settings(cache.path(), NOBODY, false));
    let files = shards("data/train", 2);
    let snapshot = cached(cache.path(), "datasets--o--whole", &lent(&files));
    assert_eq!(found(&offline, &spec("o/whole", None, None)), [files[0].0.as_str(), &files[1].0]);
    assert!(refusal(&online, &spec("o/whole", None, None)).contains("HUB cannot be reached"), "it may be a part");
    std::fs::remove_file(snapshot.join(&files[0].0)).unwrap();
    assert_eq!(
        refusal(&offline, &spec("o/whole", None, None)),
        "o/whole: only parts of it are in the cache CACHE (one of data/train-*-of-00002, of which 1 are there, is missing) and HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE once, so that the rest can be downloaded"
    );
    assert_eq!(
        refusal(&offline, &spec("o/other", None, None)),
        "o/other: not in the cache CACHE and HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE, or name a local path"
    );
}

#[test]
fn local_paths_are_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(&dir.path().join("cache"), NOBODY, false);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("set")).unwrap();
    for file in ["set/train.jsonl", "set/test.jsonl", "set/set.py"] {
        std::fs::write(path(file), "").unwrap();
    }
    let file = path("set/train.jsonl");
    assert_eq!(resolve_dataset_with(&settings, &DatasetSpec::new(&file)).unwrap(), [Path::new(&file)]);
    assert_eq!(resolve_dataset_with(&settings, &DatasetSpec::new(path("set"))).unwrap(), [Path::new(&file)]);
    assert_eq!(resolve_dataset_file(&file).unwrap(), Path::new(&file));
    let say = |spec: &DatasetSpec| refusal(&settings, spec).replace(dir.path().to_str().unwrap(), "DIR");
    assert_eq!(
        say(&spec(&file, None, Some("train"))),
        "DIR/set/train.jsonl: is a local file, which has no split; leave the split out"
    );
    let revision = DatasetSpec { revision: Some("v1".into()), ..DatasetSpec::new(path("set")) };
    assert_eq!(say(&revision), "DIR/set: is a local directory, which has no revision; leave the revision out");
    assert_eq!(
        say(&spec(&path("set"), None, Some("dev"))),
        "DIR/set: the data set has no split \"dev\"; choose one of its splits: train, test"
    );
    let both = DatasetSpec { revision: Some("v1".into()), ..DatasetSpec::new("o/n@v2") };
    assert_eq!(say(&both), "o/n@v2 names the revision \"v2\", and \"v1\" is given beside it; leave one of them out");
    for missing in ["data/train.jsonl", "no/such/file", "src/nothing", "rows.parquet", "./x"] {
        assert_eq!(
            say(&DatasetSpec::new(missing)),
            format!(
                "{missing}: there is no such file or directory; give a JSONL or Parquet file (JSONL also as .gz or .zst), a directory of them, or a hub id as owner/name or owner/name@revision"
            )
        );
    }
}
