//! Models from a hub on the loopback address: which files are taken, where they end up, revisions, the token.
use super::server::{Hub, Repo, SECRET, sha256};
use super::{COMMIT, NOBODY, WHOLE, names, settings, shown};
use collimate::hub::{HubSettings, resolve_model_with};
use std::path::Path;

#[test]
fn a_download_takes_what_is_needed_once() {
    let cache = tempfile::tempdir().unwrap();
    let more = [("pytorch_model.bin", "no"), ("README.md", "no"), ("../evil", "no"), ("generation_config.json", "{}")];
    let more = [&more[..], &[("additional_chat_templates/rag.jinja", "{}"), ("onnx/model.safetensors", "no")]].concat();
    let hub = Hub::new(vec![Repo::new("models", "owner/name", &[&WHOLE[..], &more].concat())]);
    let settings = settings(cache.path(), &hub.endpoint, false);
    let snapshot = resolve_model_with(&settings, "owner/name").unwrap();
    assert_eq!(snapshot, cache.path().join("models--owner--name/snapshots").join(COMMIT));
    let files =
        ["additional_chat_templates", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(names(&snapshot), files);
    assert_eq!(std::fs::read_to_string(snapshot.join("model.safetensors")).unwrap(), "weights");
    assert_eq!(std::fs::read_to_string(cache.path().join("models--owner--name/refs/main")).unwrap(), COMMIT);
    assert_eq!(hub.got().last().unwrap(), "model.safetensors", "weights come last");
    assert_eq!(resolve_model_with(&settings, "owner/name").unwrap(), snapshot);
    assert_eq!(hub.seen(), []);
    // What an interrupted download or another program left is completed, the rest is not taken again.
    std::fs::remove_file(snapshot.join("tokenizer.json")).unwrap();
    std::fs::remove_file(cache.path().join(format!("models--owner--name/blobs/{}", &sha256(b"{ }")[..40]))).unwrap();
    assert_eq!(resolve_model_with(&settings, "owner/name").unwrap(), snapshot);
    assert_eq!(hub.got(), ["tokenizer.json"]);
}

#[test]
fn the_cache_has_the_layout_of_huggingface_hub() {
    let cache = tempfile::tempdir().unwrap();
    let files = [&WHOLE[..], &[("additional_chat_templates/rag.jinja", "nested"), ("vocab.json", "{}")]].concat();
    let hub = Hub::new(vec![Repo::new("models", "o/n", &files)]);
    let snapshot = resolve_model_with(&settings(cache.path(), &hub.endpoint, false), "o/n").unwrap();
    let link = |name: &str| std::fs::read_link(snapshot.join(name)).unwrap().to_str().unwrap().to_owned();
    assert_eq!(link("model.safetensors"), format!("../../blobs/{}", sha256(b"weights")));
    assert_eq!(link("config.json"), format!("../../blobs/{}", &sha256(b"{}")[..40]));
    let nested = &sha256(b"nested")[..40];
    assert_eq!(link("additional_chat_templates/rag.jinja"), format!("../../../blobs/{nested}"));
    assert_eq!(std::fs::read_to_string(snapshot.join("additional_chat_templates/rag.jinja")).unwrap(), "nested");
    let repo = cache.path().join("models--o--n");
    assert_eq!(names(&repo.join("blobs")).len(), 4, "config.json and vocab.json are the same bytes");
    assert_eq!(names(&cache.path().join(".locks/models--o--n")).len(), 4);
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let cache = tempfile::tempdir().unwrap();
    let mut repo = Repo::new("models", "o/private", &WHOLE);
    repo.private = true;
    let hub = Hub::new(vec![repo]);
    resolve_model_with(&settings(cache.path(), &hub.endpoint, false), "o/private").unwrap();
    let seen = hub.seen();
    assert!(seen.iter().any(|seen| seen.host == "cdn") && seen.iter().any(|seen| seen.path.contains("resolve-cache")));
    for seen in seen {
        assert_eq!(seen.token, seen.host == "hub", "{seen:?}");
    }
    // The file that `hf auth login` leaves.
    let file = cache.path().join("token");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let with = |disabled: bool| {
        let (cache, hub, file) = (cache.path().join("second"), hub.endpoint.clone(), file.clone());
        HubSettings::from_lookup(move |name| match name {
            "HF_HUB_CACHE" => Some(cache.to_str().unwrap().into()),
            "HF_ENDPOINT" => Some(hub.clone()),
            "HF_TOKEN_PATH" => Some(file.to_str().unwrap().into()),
            "HF_HUB_DISABLE_IMPLICIT_TOKEN" => Some(u8::from(disabled).to_string()),
            _ => None,
        })
    };
    let error = resolve_model_with(&with(true), "o/private").unwrap_err();
    assert!(error.to_string().contains("or it is private (HTTP 401)"), "{error}");
    assert!(hub.seen().iter().all(|seen| !seen.token));
    resolve_model_with(&with(false), "o/private").unwrap();
}

#[test]
fn a_revision_is_a_branch_a_tag_or_a_commit() {
    let cache = tempfile::tempdir().unwrap();
    let other = "89abcdef0123456789abcdef0123456789abcdef";
    let newer = [WHOLE[0], WHOLE[1], ("model.safetensors", "newer")];
    let repo = Repo::new("models", "o/n", &WHOLE).with("v2.0", other, &newer).with("refs/pr/1", other, &newer);
    let hub = Hub::new(vec![repo]);
    let settings = settings(cache.path(), &hub.endpoint, false);
    let weights = |id: &str| {
        let dir = resolve_model_with(&settings, id).unwrap();
        std::fs::read_to_string(dir.join("model.safetensors")).unwrap()
    };
    for id in ["o/n@v2.0", "o/n@refs/pr/1", &format!("o/n@{other}")] {
        assert_eq!(weights(id), "newer", "{id}");
    }
    assert_eq!(weights("o/n"), "weights");
    let refs = cache.path().join("models--o--n/refs");
    assert_eq!(std::fs::read_to_string(refs.join("v2.0")).unwrap(), other);
    assert_eq!(std::fs::read_to_string(refs.join("refs/pr/1")).unwrap(), other);
    assert_eq!(names(&refs), ["main", "refs", "v2.0"], "a commit needs no reference");
    // All of it is there now.
    let offline = super::settings(cache.path(), NOBODY, true);
    for id in ["o/n@v2.0", "o/n@refs/pr/1", "o/n"] {
        resolve_model_with(&offline, id).unwrap();
    }
}

#[test]
fn shards_are_downloaded_and_must_be_plain_names() {
    let cache = tempfile::tempdir().unwrap();
    let files = |index: &'static str| {
        [&WHOLE[..2], &[("model.safetensors.index.json", index), ("m-1.safetensors", "1")]].concat()
    };
    let say = |cache: &Path, id: &str, index: &'static str| {
        let hub = Hub::new(vec![Repo::new("models", id, &files(index))]);
        let settings = settings(cache, &hub.endpoint, false);
        resolve_model_with(&settings, id).map_err(|error| shown(&settings, &error))
    };
    let snapshot = say(cache.path(), "o/good", r#"{"weight_map": {"a": "m-1.safetensors"}}"#).unwrap();
    assert!(snapshot.join("m-1.safetensors").is_file());
    let cases = [("o/up", "../m-1.safetensors"), ("o/abs", "/m-1.safetensors"), ("o/bin", "m-1.bin"), ("o/no", "")];
    for (id, shard) in cases {
        let index = format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#);
        let text = say(cache.path(), id, index.leak()).unwrap_err();
        let expected = format!("names the shard \"{shard}\", which is no plain .safetensors file name");
        assert!(text.contains(&expected), "{text}");
        let repo = cache.path().join(format!("models--{}", id.replace('/', "--")));
        assert!(!repo.join("refs/main").exists(), "a failed download leaves no reference");
    }
    let text = say(cache.path(), "o/lost", r#"{"weight_map": {"a": "m-2.safetensors"}}"#).unwrap_err();
    assert_eq!(
        text,
        "o/lost: the model has no file m-2.safetensors at this revision (HTTP 404); try again; if it stays so, name another revision"
    );
}
