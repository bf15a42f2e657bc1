//! `collimate fetch`: finds out what an id is, prints paths and nothing else on standard output.
use super::server::{COMMIT, Hub, Repo, SECRET};
use super::{NOBODY, WHOLE};
use std::path::Path;
use std::process::Command;

struct Output {
    code: i32,
    out: String,
    err: String,
}

fn fetch(cache: &Path, endpoint: &str, offline: bool, args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_collimate"))
        .arg("fetch")
        .args(args)
        .env("HF_HUB_CACHE", cache)
        .env("HF_ENDPOINT", endpoint)
        .env("HF_TOKEN", SECRET)
        .env("HF_HUB_OFFLINE", if offline { "1" } else { "0" })
        .env("RUST_LOG", "debug")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    for secret in [SECRET, "s3cret"] {
        assert!(!out.contains(secret) && !err.contains(secret), "a secret shows: {out}{err}");
    }
    Output { code: output.status.code().unwrap(), out, err }
}

#[test]
fn fetch_finds_out_what_an_id_is() {
    let cache = tempfile::tempdir().unwrap();
    let rows = [("train.jsonl", "{}"), ("test.jsonl", "{ }"), ("train_2.jsonl", "{  }")];
    let hub = Hub::new(vec![Repo::new("models", "o/model", &WHOLE), Repo::new("datasets", "o/rows", &rows)]);
    let run = |args: &[&str]| fetch(cache.path(), &hub.endpoint, false, args);
    let place = |folder: &str| cache.path().join(folder).join("snapshots").join(COMMIT);
    let (model, data) = (place("models--o--model"), place("datasets--o--rows"));

    let first = run(&["o/model"]);
    assert_eq!((first.code, first.out.as_str()), (0, format!("{}\n", model.display()).as_str()), "{}", first.err);
    assert!(first.err.contains("o/model is a model"), "{}", first.err);
    assert!(first.err.contains("downloading") && first.err.contains("model.safetensors"), "{}", first.err);
    let second = run(&["o/rows"]);
    let files = format!("{0}/train.jsonl\n{0}/train_2.jsonl\n", data.display());
    assert_eq!((second.code, &second.out), (0, &files), "{}", second.err);
    assert!(second.err.contains("o/rows is a data set"), "{}", second.err);
    let test = run(&["o/rows", "--split", "test", "--revision", "main"]);
    assert_eq!(test.out, format!("{}/test.jsonl\n", data.display()), "{}", test.err);

    // Without a network from here on.
    for (args, out) in [(&["o/model"][..], &first.out), (&["o/rows"], &files), (&["o/rows", "--dataset"], &files)] {
        let output = fetch(cache.path(), NOBODY, true, args);
        assert_eq!((output.code, &output.out), (0, out), "{}", output.err);
    }
    for (args, message) in [
        (&["o/none"][..], "has neither a model nor a data set of that name, or it is private; check the name"),
        (
            &["o/rows", "--split", "dev"],
            "o/rows: the data set has no split \"dev\"; choose one of its splits: train, test",
        ),
        (&["o/model@v1", "--revision", "v2"], "o/model@v1 names the revision \"v1\", and \"v2\" is given beside it"),
        (&["a/b/c"], "a/b/c: there is no such path, and it is no hub id; give a hub id as owner/name"),
    ] {
        let output = run(args);
        assert_eq!((output.code, output.out.as_str()), (2, ""));
        assert!(output.err.contains(message), "{message}: {}", output.err);
    }
}

#[test]
fn fetch_goes_on_where_a_killed_process_stopped() {
    let cache = tempfile::tempdir().unwrap();
    let weights: String = (0..40_000).map(|at| format!("{at:06}\n")).collect();
    let files = [WHOLE[0], WHOLE[1], ("model.safetensors", weights.as_str())];
    let hub = Hub::new(vec![Repo::new("models", "o/n", &files)]);
    hub.faults(|faults| {
        faults.cuts = [10, 20, 100_000].into();
        faults.stalls = true;
    });
    // The connection of the weights stands still: nobody but the signal ends it.
    let mut child = Command::new(env!("CARGO_BIN_EXE_collimate"))
        .args(["fetch", "o/n"])
        .envs([
            ("HF_HUB_CACHE", cache.path().to_str().unwrap()),
            ("HF_ENDPOINT", &hub.endpoint),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "30"),
        ])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let name = format!("models--o--n/blobs/{}.collimate.incomplete", super::server::sha256(weights.as_bytes()));
    let kept = || std::fs::metadata(cache.path().join(&name)).map_or(0, |meta| meta.len());
    let start = std::time::Instant::now();
    while kept() < 100_000 {
        assert!(start.elapsed().as_secs() < 20, "{} bytes came", kept());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(kept(), 100_000);
    hub.seen();
    let output = fetch(cache.path(), &hub.endpoint, false, &["o/n"]);
    assert_eq!(output.code, 0, "{}", output.err);
    assert!(output.err.contains("goes on downloading"), "{}", output.err);
    let from: Vec<Option<usize>> =
        hub.seen().into_iter().filter(|seen| seen.host == "cdn").map(|seen| seen.from).collect();
    assert_eq!(from, [Some(100_000)]);
    let file = Path::new(output.out.trim()).join("model.safetensors");
    assert_eq!(std::fs::read(file).unwrap(), weights.as_bytes());
}
