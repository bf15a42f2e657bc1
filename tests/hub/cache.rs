//! Models in the cache: no network, links, parts, the environment.
use super::{COMMIT, NOBODY, WHOLE, cached, settings, shown};
use collimate::hub::{HubSettings, resolve_model_with};

fn refusal(settings: &HubSettings, id: &str) -> String {
    let error = resolve_model_with(settings, id).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    shown(settings, &error)
}

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
    let snapshot = cached(cache.path(), "models--owner--name", &WHOLE);
    for offline in [true, false] {
        let settings = settings(cache.path(), NOBODY, offline);
        for id in ["owner/name", "owner/name@main", &format!("owner/name@{COMMIT}")] {
            assert_eq!(resolve_model_with(&settings, id).unwrap(), snapshot);
        }
    }
    let plain = cached(cache.path(), "models--gpt2", &WHOLE);
    assert_eq!(resolve_model_with(&settings(cache.path(), NOBODY, true), "gpt2").unwrap(), plain);
}

#[test]
fn sharded_weights_count_as_there_when_every_shard_is() {
    let cache = tempfile::tempdir().unwrap();
    let index = r#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors"}}"#;
    let files = [("config.json", ""), ("tokenizer.json", ""), ("model.safetensors.index.json", index)];
    let files = [&files[..], &[("m-1.safetensors", "1")]].concat();
    let snapshot = cached(cache.path(), "models--o--shards", &files);
    let settings = settings(cache.path(), NOBODY, true);
    let parts = "o/shards: only parts of it are in the cache CACHE (m-2.safetensors is missing) and HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE once, so that the rest can be downloaded";
    assert_eq!(refusal(&settings, "o/shards"), parts);
    std::fs::write(snapshot.join("m-2.safetensors"), "2").unwrap();
    assert_eq!(resolve_model_with(&settings, "o/shards").unwrap(), snapshot);
    for file in ["tokenizer.json", "config.json"] {
        std::fs::remove_file(snapshot.join(file)).unwrap();
        assert!(refusal(&settings, "o/shards").contains(&format!("({file} is missing)")));
    }
}

#[test]
fn offline_and_unreachable_say_so_in_time() {
    let cache = tempfile::tempdir().unwrap();
    let start = std::time::Instant::now();
    assert_eq!(
        refusal(&settings(cache.path(), NOBODY, true), "owner/name"),
        "owner/name: not in the cache CACHE and HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE, or name a local path"
    );
    assert_eq!(
        refusal(&settings(cache.path(), NOBODY, false), "owner/name@v2"),
        "owner/name@v2: not in the cache CACHE and HUB cannot be reached; check the network or HF_ENDPOINT, or name a local path"
    );
    assert!(refusal(&settings(cache.path(), "huggingface", false), "owner/name").starts_with("HF_ENDPOINT is \"HUB\""));
    // An address that takes no connections and says nothing.
    let silent = settings(cache.path(), "http://192.0.2.1:80", false);
    assert!(refusal(&silent, "owner/name").contains("HUB cannot be reached"));
    assert!(start.elapsed().as_secs_f64() < 2.0);
}

#[test]
fn a_link_out_of_the_cache_is_not_followed() {
    let (cache, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let snapshot = cached(cache.path(), "models--o--link", &WHOLE[..2]);
    std::fs::write(other.path().join("w"), "w").unwrap();
    std::os::unix::fs::symlink(other.path().join("w"), snapshot.join("model.safetensors")).unwrap();
    let text = refusal(&settings(cache.path(), NOBODY, true), "o/link");
    assert!(text.contains("only parts of it are in the cache CACHE (model.safetensors is missing)"), "{text}");
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
    assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~/f")]), "/h/f/hub");
    assert_eq!(cache(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]), "/c");
    assert_eq!(from(&[]).endpoint, "https://huggingface.co");
    assert_eq!(from(&[("HF_ENDPOINT", "http://m:1/")]).endpoint, "http://m:1");
    for (value, offline) in [("1", true), ("TRUE", true), ("yes", true), ("0", false), ("", false), ("off", false)] {
        for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
            let settings = HubSettings::from_lookup(|asked| (asked == name).then(|| value.to_owned()));
            assert_eq!(settings.offline, offline, "{name}={value}");
        }
    }
}
