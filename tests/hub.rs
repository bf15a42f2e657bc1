//! Hub ids: the cache's layout, a hub on the loopback address, refusals.
#![allow(clippy::unwrap_used)]
use collimate::hub::{HubSettings, resolve_dataset_file, resolve_model_with};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const SECRET: &str = "hf_planted_secret";

fn settings(cache: &Path, endpoint: &str, offline: bool) -> HubSettings {
    HubSettings::from_lookup(|name| match name {
        "HF_HUB_CACHE" => Some(cache.to_str().unwrap().into()),
        "HF_ENDPOINT" => Some(endpoint.into()),
        "HF_HUB_OFFLINE" => Some(u8::from(offline).to_string()),
        "HF_TOKEN" => Some(SECRET.into()),
        _ => None,
    })
}

/// An endpoint where nobody listens.
const NOBODY: &str = "http://127.0.0.1:9";

fn refusal(settings: &HubSettings, id: &str) -> String {
    let error = resolve_model_with(settings, id).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(!text.contains(SECRET) && !format!("{error:?} {settings:?}").contains(SECRET), "the token shows: {text}");
    assert!(!text.contains('\n'), "one line: {text}");
    text.replace(settings.cache.to_str().unwrap(), "CACHE").replace(&settings.endpoint, "HUB")
}

/// A hub that serves one repository and remembers what it was asked for.
struct Hub {
    endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn new(id: &'static str, files: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let files: BTreeMap<String, String> = files.iter().map(|(n, c)| (n.to_string(), c.to_string())).collect();
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(stream.unwrap(), id, &files, &log);
            }
        });
        Self { endpoint, asked }
    }

    /// Paths asked for since the last call, each once.
    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.dedup();
        asked
    }
}

fn answer(
    stream: TcpStream,
    id: &str,
    files: &BTreeMap<String, String>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut from, mut authorised) = (String::new(), 0, false);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let line = line.trim().to_lowercase();
        authorised |= line == format!("authorization: bearer {SECRET}");
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.split('-').next().unwrap().parse().unwrap();
        }
    }
    let Some(path) = first.split(' ').nth(1) else { return Ok(()) };
    log.lock().unwrap().push(path.to_owned());
    let info = json!({"sha": COMMIT, "siblings": files.keys().map(|f| json!({"rfilename": f})).collect::<Vec<_>>()});
    let info = info.to_string();
    let resolved = path.strip_prefix(&format!("/{id}/resolve/{COMMIT}/")).and_then(|name| files.get(name));
    let is_info = path.starts_with(&format!("/api/models/{id}/revision/"));
    let mut out = stream;
    match resolved.or(is_info.then_some(&info)).filter(|_| authorised) {
        Some(body) => {
            let part = &body[from.min(body.len())..];
            let etag = body.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
            write!(
                out,
                "HTTP/1.1 {} OK\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\nETag: \"{etag:x}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n{part}",
                if is_info { 200 } else { 206 },
                part.len(),
                body.len().max(1) - 1,
                body.len(),
            )
        }
        None => write!(out, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    }
}

/// A repository in a cache, as Python's huggingface_hub leaves it.
fn cached(cache: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let repo = cache.join(format!("models--{}", name.replace('/', "--")));
    let snapshot = repo.join("snapshots").join(COMMIT);
    for dir in [&snapshot, &repo.join("refs"), &repo.join("blobs")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
    for (file, content) in files {
        std::fs::write(repo.join("blobs").join(file), content).unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{file}"), snapshot.join(file)).unwrap();
    }
    snapshot
}

const WHOLE: [(&str, &str); 3] = [("config.json", "{}"), ("tokenizer.json", "{}"), ("model.safetensors", "w")];

#[test]
fn a_directory_is_itself_and_a_missing_path_is_no_hub_id() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), NOBODY, false);
    let path = dir.path().to_str().unwrap();
    assert_eq!(resolve_model_with(&settings, path).unwrap(), dir.path());
    for name in ["./no", "/no/such", "a/b/c", "...", "a/../b", "", "a b/c", "-x/y", "o/n@../../x", "src/nothing", "~/x"]
    {
        let text = refusal(&settings, name);
        assert!(text.contains("there is no such directory; give a model directory"), "{name}: {text}");
    }
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(refusal(&settings, &format!("{path}/file")).contains("is a file; name the model's directory"));
}

#[test]
fn a_cached_model_makes_no_network_call() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cached(cache.path(), "owner/name", &WHOLE);
    for offline in [true, false] {
        let settings = settings(cache.path(), NOBODY, offline);
        for id in ["owner/name", "owner/name@main", &format!("owner/name@{COMMIT}")] {
            assert_eq!(resolve_model_with(&settings, id).unwrap(), snapshot);
        }
    }
    let plain = cached(cache.path(), "gpt2", &WHOLE);
    assert_eq!(resolve_model_with(&settings(cache.path(), NOBODY, true), "gpt2").unwrap(), plain);
}

#[test]
fn sharded_weights_count_as_there_when_every_shard_is() {
    let cache = tempfile::tempdir().unwrap();
    let index = r#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors"}}"#;
    let files = [("config.json", ""), ("tokenizer.json", ""), ("model.safetensors.index.json", index)];
    let snapshot = cached(cache.path(), "o/shards", &[&files[..], &[("m-1.safetensors", "1")]].concat());
    let settings = settings(cache.path(), NOBODY, true);
    let parts = "o/shards: only parts of it are in the cache CACHE and HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE once, so that the rest can be downloaded";
    assert_eq!(refusal(&settings, "o/shards"), parts);
    std::fs::write(snapshot.join("m-2.safetensors"), "2").unwrap();
    assert_eq!(resolve_model_with(&settings, "o/shards").unwrap(), snapshot);
}

#[test]
fn offline_and_unreachable_say_so_in_time() {
    let cache = tempfile::tempdir().unwrap();
    let start = std::time::Instant::now();
    assert_eq!(
        refusal(&settings(cache.path(), NOBODY, true), "owner/name"),
        "owner/name: not in the cache CACHE and HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE, or name a local directory"
    );
    assert_eq!(
        refusal(&settings(cache.path(), NOBODY, false), "owner/name@v2"),
        "owner/name@v2: not in the cache CACHE and HUB cannot be reached; check the network or HF_ENDPOINT, or name a local directory"
    );
    assert!(refusal(&settings(cache.path(), "huggingface", false), "owner/name").starts_with("HF_ENDPOINT is \"HUB\""));
    assert!(start.elapsed().as_secs_f64() < 2.0);
}

#[test]
fn a_link_out_of_the_cache_is_not_followed() {
    let (cache, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let snapshot = cached(cache.path(), "o/link", &WHOLE[..2]);
    std::fs::write(other.path().join("w"), "w").unwrap();
    std::os::unix::fs::symlink(other.path().join("w"), snapshot.join("model.safetensors")).unwrap();
    assert!(refusal(&settings(cache.path(), NOBODY, true), "o/link").contains("only parts of it are in the cache"));
}

#[test]
fn a_download_takes_what_is_needed_once() {
    let cache = tempfile::tempdir().unwrap();
    let more = [("pytorch_model.bin", "no"), ("README.md", "no"), ("../evil", "no"), ("generation_config.json", "{}")];
    let hub = Hub::new("owner/name", &[&WHOLE[..], &more].concat());
    let settings = settings(cache.path(), &hub.endpoint, false);
    let snapshot = resolve_model_with(&settings, "owner/name").unwrap();
    assert_eq!(snapshot, cache.path().join("models--owner--name/snapshots").join(COMMIT));
    let names = |dir: &Path| -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&snapshot), ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(std::fs::read_to_string(snapshot.join("model.safetensors")).unwrap(), "w");
    assert_eq!(std::fs::read_to_string(cache.path().join("models--owner--name/refs/main")).unwrap(), COMMIT);
    assert!(hub.asked().last().unwrap().ends_with("/model.safetensors"), "weights come last");
    assert_eq!(resolve_model_with(&settings, "owner/name").unwrap(), snapshot);
    assert_eq!(hub.asked(), Vec::<String>::new());
    // What an interrupted download or another program left is completed, the rest is not taken again.
    std::fs::remove_file(snapshot.join("tokenizer.json")).unwrap();
    assert_eq!(resolve_model_with(&settings, "owner/name").unwrap(), snapshot);
    let resolved: Vec<String> = hub.asked().into_iter().filter(|path| path.contains("/resolve/")).collect();
    assert_eq!(resolved, [format!("/owner/name/resolve/{COMMIT}/tokenizer.json")]);
}

#[test]
fn shards_are_downloaded_and_must_be_plain_names() {
    let cache = tempfile::tempdir().unwrap();
    let files = |index: &'static str| {
        [&WHOLE[..2], &[("model.safetensors.index.json", index), ("m-1.safetensors", "1")]].concat()
    };
    let hub = Hub::new("o/good", &files(r#"{"weight_map": {"a": "m-1.safetensors"}}"#));
    let snapshot = resolve_model_with(&settings(cache.path(), &hub.endpoint, false), "o/good").unwrap();
    assert!(snapshot.join("m-1.safetensors").is_file());
    for (id, shard) in
        [("o/up", "../m-1.safetensors"), ("o/abs", "/m-1.safetensors"), ("o/bin", "m-1.bin"), ("o/no", "")]
    {
        let index = format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#);
        let hub = Hub::new(id, &files(index.leak()));
        let text = refusal(&settings(cache.path(), &hub.endpoint, false), id);
        assert!(
            text.contains(&format!("names the shard \"{shard}\", which is no plain .safetensors file name")),
            "{text}"
        );
        let repo = cache.path().join(format!("models--{}", id.replace('/', "--")));
        assert!(!repo.join("refs/main").exists(), "a failed download leaves no reference");
    }
}

#[test]
fn refusals_of_the_hub() {
    let cache = tempfile::tempdir().unwrap();
    let pickle = Hub::new("o/pickle", &[("config.json", "{}"), ("pytorch_model.bin", "x")]);
    let say = |hub: &Hub, id: &str| refusal(&settings(cache.path(), &hub.endpoint, false), id);
    assert_eq!(
        say(&pickle, "o/pickle"),
        "o/pickle: its weights are a pickle (pytorch_model.bin), which can run code when loaded; convert them where that is safe: python -c 'from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; n = \"o/pickle\"; M.from_pretrained(n).save_pretrained(\"model\"); T.from_pretrained(n).save_pretrained(\"model\")' and name the directory model"
    );
    assert_eq!(
        say(&pickle, "o/other"),
        "o/other: HUB has no such model there, or it is private or gated (HTTP 404); check the name; for a private or gated model set HF_TOKEN"
    );
    let empty = Hub::new("o/empty", &[("config.json", "{}")]);
    assert_eq!(say(&empty, "o/empty"), "o/empty: has no model.safetensors; name a model with safetensors weights");
    assert!(!cache.path().join("models--o--pickle").exists());
}

#[test]
fn the_environment_is_read_as_huggingface_hub_reads_it() {
    let from = |pairs: &'static [(&'static str, &'static str)]| {
        HubSettings::from_lookup(move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    };
    let cache = |pairs| from(pairs).cache.to_str().unwrap().to_owned();
    assert_eq!(cache(&[("HOME", "/h")]), "/h/.cache/huggingface/hub");
    assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
    assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "/f")]), "/f/hub");
    assert_eq!(cache(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]), "/c");
    assert_eq!(from(&[]).endpoint, "https://huggingface.co");
    assert_eq!(from(&[("HF_ENDPOINT", "http://m:1/")]).endpoint, "http://m:1");
    for (value, offline) in [("1", true), ("TRUE", true), ("yes", true), ("0", false), ("", false), ("off", false)] {
        let settings = HubSettings::from_lookup(|name| (name == "HF_HUB_OFFLINE").then(|| value.to_owned()));
        assert_eq!(settings.offline, offline, "{value}");
    }
}

#[test]
fn data_files_are_local_for_now() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("d.jsonl");
    std::fs::write(&file, "").unwrap();
    assert_eq!(resolve_dataset_file(file.to_str().unwrap()).unwrap(), file);
    assert_eq!(
        resolve_dataset_file("owner/data").unwrap_err().to_string(),
        "owner/data: there is no such file; give a local JSONL file (data sets of the hub are not read yet)"
    );
}
