//! Downloads that are cut, lied to or run side by side end in the same bytes, or in an error that says what is wrong.
use super::server::{Hub, Repo, Seen, sha256};
use super::{COMMIT, settings, shown};
use collimate::hub::{HubSettings, resolve_model_with};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SIZE: usize = 1500;

/// Weights of which no two places look alike.
fn weights() -> String {
    (0..SIZE / 5).map(|at| format!("{at:04}\n")).collect()
}

fn hub(weights: &str) -> Hub {
    let files = [("config.json", "{}"), ("tokenizer.json", "{ }"), ("model.safetensors", weights)];
    Hub::new(vec![Repo::new("models", "o/n", &files)])
}

fn read(cache: &Path) -> Vec<u8> {
    std::fs::read(cache.join("models--o--n/snapshots").join(COMMIT).join("model.safetensors")).unwrap()
}

fn part(cache: &Path, weights: &str) -> PathBuf {
    cache.join(format!("models--o--n/blobs/{}.collimate.incomplete", sha256(weights.as_bytes())))
}

fn from_cdn(hub: &Hub) -> Vec<Option<usize>> {
    hub.seen().into_iter().filter(|seen: &Seen| seen.host == "cdn").map(|seen| seen.from).collect()
}

/// The small files first, so that what is counted below is the weights.
fn prepared(hub: &Hub, cache: &Path) -> HubSettings {
    let settings = settings(cache, &hub.endpoint, false);
    hub.faults(|faults| faults.spoils = true);
    resolve_model_with(&settings, "o/n").unwrap_err();
    hub.faults(|faults| faults.spoils = false);
    hub.seen();
    settings
}

#[test]
fn cut_anywhere_it_ends_in_the_same_bytes() {
    let weights = weights();
    let hub = hub(&weights);
    for cut in (0..64).chain((64..SIZE).step_by(37)).chain([SIZE - 1]) {
        let cache = tempfile::tempdir().unwrap();
        let settings = prepared(&hub, cache.path());
        hub.faults(|faults| faults.cuts = [cut].into());
        resolve_model_with(&settings, "o/n").unwrap();
        assert_eq!(read(cache.path()), weights.as_bytes(), "cut after {cut}");
        let again = if cut == 0 { None } else { Some(cut) };
        assert_eq!(from_cdn(&hub), [None, again], "cut after {cut}");
    }
}

#[test]
fn cut_again_and_again_it_goes_on_as_long_as_bytes_come() {
    let (weights, cache) = (weights(), tempfile::tempdir().unwrap());
    let hub = hub(&weights);
    let settings = prepared(&hub, cache.path());
    hub.faults(|faults| faults.always = Some(70));
    resolve_model_with(&settings, "o/n").unwrap();
    assert_eq!(read(cache.path()), weights.as_bytes());
    let asked = from_cdn(&hub);
    assert_eq!(asked.len(), SIZE.div_ceil(70));
    assert!(asked.iter().enumerate().skip(1).all(|(at, from)| *from == Some(at * 70)), "{asked:?}");
}

#[test]
fn what_came_is_kept_for_the_next_call() {
    let (weights, cache) = (weights(), tempfile::tempdir().unwrap());
    let hub = hub(&weights);
    let settings = prepared(&hub, cache.path());
    hub.faults(|faults| {
        faults.cuts = [600].into();
        faults.always = Some(0);
    });
    let error = shown(&settings, &resolve_model_with(&settings, "o/n").unwrap_err());
    assert!(
        error.starts_with("o/n: model.safetensors stopped after 600 of 1500 bytes, 5 more tries brought nothing: "),
        "{error}"
    );
    assert!(error.ends_with("; what came is kept; run it again to go on there"), "{error}");
    assert_eq!(from_cdn(&hub), [None, Some(600), Some(600), Some(600), Some(600), Some(600)]);
    assert!(!cache.path().join("models--o--n/refs/main").exists());
    assert_eq!(std::fs::metadata(part(cache.path(), &weights)).unwrap().len(), 600);
    hub.faults(|faults| faults.always = None);
    resolve_model_with(&settings, "o/n").unwrap();
    assert_eq!(read(cache.path()), weights.as_bytes());
    assert_eq!(from_cdn(&hub), [Some(600)]);
    assert!(!part(cache.path(), &weights).exists());
}

#[test]
fn a_whole_part_is_checked_and_not_asked_for_again() {
    let (weights, cache) = (weights(), tempfile::tempdir().unwrap());
    let hub = hub(&weights);
    let settings = prepared(&hub, cache.path());
    std::fs::write(part(cache.path(), &weights), &weights).unwrap();
    resolve_model_with(&settings, "o/n").unwrap();
    assert_eq!((read(cache.path()), from_cdn(&hub)), (weights.clone().into_bytes(), vec![]));
}

#[test]
fn a_part_that_is_wrong_is_thrown_away_once() {
    let weights = weights();
    for kept in ["0000\nwrong", &"x".repeat(SIZE), &"x".repeat(SIZE + 7)] {
        let cache = tempfile::tempdir().unwrap();
        let hub = hub(&weights);
        let settings = prepared(&hub, cache.path());
        std::fs::write(part(cache.path(), &weights), kept).unwrap();
        resolve_model_with(&settings, "o/n").unwrap();
        assert_eq!(read(cache.path()), weights.as_bytes());
        assert_eq!(from_cdn(&hub).last(), Some(&None), "from the start");
    }
}

#[test]
fn a_server_without_ranges_starts_over() {
    let (weights, cache) = (weights(), tempfile::tempdir().unwrap());
    let hub = hub(&weights);
    let settings = prepared(&hub, cache.path());
    hub.faults(|faults| {
        faults.no_ranges = true;
        faults.cuts = [600, 100].into();
    });
    resolve_model_with(&settings, "o/n").unwrap();
    assert_eq!(read(cache.path()), weights.as_bytes());
    assert_eq!(from_cdn(&hub), [None, Some(600), Some(100)]);
}

#[test]
fn another_range_than_was_asked_for_is_not_put_behind_what_is_there() {
    let (weights, cache) = (weights(), tempfile::tempdir().unwrap());
    let hub = hub(&weights);
    let settings = prepared(&hub, cache.path());
    hub.faults(|faults| {
        faults.rounds = true;
        faults.cuts = [650].into();
    });
    resolve_model_with(&settings, "o/n").unwrap();
    assert_eq!(read(cache.path()), weights.as_bytes());
    assert_eq!(from_cdn(&hub), [None, Some(650), None]);
}

#[test]
fn a_wrong_hash_at_the_end_is_an_error() {
    let (weights, cache) = (weights(), tempfile::tempdir().unwrap());
    let hub = hub(&weights);
    let settings = settings(cache.path(), &hub.endpoint, false);
    hub.faults(|faults| faults.spoils = true);
    let reversed: Vec<u8> = weights.bytes().rev().collect();
    assert_eq!(
        shown(&settings, &resolve_model_with(&settings, "o/n").unwrap_err()),
        format!(
            "o/n: model.safetensors is not what the hub promised: its SHA-256 is {} instead of {}; try again; if it stays so, a proxy or mirror on the way changes files",
            sha256(&reversed),
            sha256(weights.as_bytes())
        )
    );
    assert!(!part(cache.path(), &weights).exists() && !cache.path().join("models--o--n/refs").exists());
    hub.faults(|faults| faults.spoils = false);
    resolve_model_with(&settings, "o/n").unwrap();
    assert_eq!(read(cache.path()), weights.as_bytes());
}

#[test]
fn a_silent_server_is_given_up_and_asked_again() {
    let (weights, cache) = (weights(), tempfile::tempdir().unwrap());
    let hub = hub(&weights);
    let settings = prepared(&hub, cache.path());
    hub.faults(|faults| {
        faults.cuts = [700].into();
        faults.stalls = true;
    });
    let start = Instant::now();
    resolve_model_with(&settings, "o/n").unwrap();
    let took = start.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(read(cache.path()), weights.as_bytes());
    assert_eq!(from_cdn(&hub), [None, Some(700)]);
}

#[test]
fn a_file_that_does_not_fit_the_disk_is_not_begun() {
    let (weights, cache) = (weights(), tempfile::tempdir().unwrap());
    let hub = hub(&weights);
    let settings = prepared(&hub, cache.path());
    hub.faults(|faults| faults.claimed = Some(1 << 60));
    let error = shown(&settings, &resolve_model_with(&settings, "o/n").unwrap_err());
    assert!(error.starts_with("CACHE/models--o--n/blobs: model.safetensors needs 1.00 EiB, has "), "{error}");
    assert!(error.ends_with("; free some space, or set HF_HUB_CACHE to a directory on a larger disk"), "{error}");
    assert_eq!(from_cdn(&hub), []);
}

#[test]
fn callers_side_by_side_download_once() {
    let (weights, cache) = (weights(), tempfile::tempdir().unwrap());
    let hub = hub(&weights);
    let settings = settings(cache.path(), &hub.endpoint, false);
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..6).map(|_| scope.spawn(|| resolve_model_with(&settings, "o/n"))).collect();
        for call in calls {
            call.join().unwrap().unwrap();
        }
    });
    assert_eq!(read(cache.path()), weights.as_bytes());
    assert_eq!(from_cdn(&hub), [None]);
}
