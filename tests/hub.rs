//! Hub ids: models and data sets from the cache, from a hub on the loopback address, refusals.
#![allow(clippy::unwrap_used)]
mod cache;
mod datasets;
mod downloads;
mod fetch;
mod models;
mod refusals;
mod server;
mod splits;

use collimate::hub::HubSettings;
use server::{COMMIT, SECRET};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An endpoint where nobody listens.
const NOBODY: &str = "http://127.0.0.1:9";

fn settings(cache: &Path, endpoint: &str, offline: bool) -> HubSettings {
    let settings = HubSettings::from_lookup(|name| match name {
        "HF_HUB_CACHE" => Some(cache.to_str().unwrap().into()),
        "HF_ENDPOINT" => Some(endpoint.into()),
        "HF_HUB_OFFLINE" => Some(u8::from(offline).to_string()),
        "HF_TOKEN" => Some(SECRET.into()),
        "HF_HUB_DOWNLOAD_TIMEOUT" => Some("1".into()),
        _ => None,
    });
    settings.with_pause(Duration::from_millis(1))
}

/// An error's text with the paths and addresses that change from run to run replaced; checked to hold no secret.
fn shown(settings: &HubSettings, error: &collimate::Error) -> String {
    let text = error.to_string();
    let secret = |text: &str| text.contains(SECRET) || text.contains("s3cret");
    assert!(!secret(&text) && !secret(&format!("{error:?} {settings:?}")), "a secret shows: {text}");
    assert!(!text.contains('\n'), "one line: {text}");
    text.replace(settings.cache.to_str().unwrap(), "CACHE").replace(&settings.endpoint, "HUB")
}

/// A repository in a cache, as Python's huggingface_hub leaves it.
fn cached(cache: &Path, folder: &str, files: &[(&str, &str)]) -> PathBuf {
    let repo = cache.join(folder);
    let snapshot = repo.join("snapshots").join(COMMIT);
    for dir in [&snapshot, &repo.join("refs"), &repo.join("blobs")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
    for (file, content) in files {
        let (blob, link) = (file.replace('/', "-"), snapshot.join(file));
        std::fs::write(repo.join("blobs").join(&blob), content).unwrap();
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        let up = "../".repeat(file.split('/').count() + 1);
        std::os::unix::fs::symlink(format!("{up}blobs/{blob}"), link).unwrap();
    }
    snapshot
}

/// Names below a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

/// The least that makes a model.
const WHOLE: [(&str, &str); 3] = [("config.json", "{}"), ("tokenizer.json", "{ }"), ("model.safetensors", "weights")];
