//! What is not ours to write stays as it is: outputs that exist, logs of something else, and a log that is gone.
#![allow(clippy::unwrap_used)]
use super::client::{Server, ballot, with_pairs};
use crate::support::sandbox::{Sandbox, json_lines};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Pairs and a log with one vote.
fn judged() -> Sandbox {
    let sandbox = with_pairs(3);
    let server = Server::start(&sandbox, &["--repeat", "0", "--overlap", "1"]);
    server.vote("anna", "left");
    server.kill();
    sandbox
}

/// Every file but what the servers of the tests say, and the lock of the tests' own log, which names who had it last.
fn files(sandbox: &Sandbox) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = sandbox.snapshot();
    files.retain(|path, _| !["stderr", ".pairs.votes.jsonl.lock"].iter().any(|name| path.ends_with(name)));
    files
}

/// The command is refused, and no file of the sandbox changed, appeared or went; what it said.
#[track_caller]
fn refused_untouched(sandbox: &Sandbox, args: &[&str]) -> String {
    let before = files(sandbox);
    let ran = sandbox.run(&[&["annotate", "pairs.jsonl"], args].concat());
    assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
    assert!(files(sandbox) == before, "{args:?} changed a file: {}", ran.stderr);
    ran.stderr
}

#[test]
fn outputs_never_replace_pairs_votes_or_anything_else() {
    let sandbox = judged();
    sandbox.write("old.jsonl", "somebody's work\n");
    std::fs::create_dir(sandbox.path("sub")).unwrap();
    std::fs::hard_link(sandbox.path("pairs.votes.jsonl"), sandbox.path("hard.jsonl")).unwrap();
    symlink("pairs.votes.jsonl", sandbox.path("soft.jsonl")).unwrap();
    let absolute = sandbox.path("pairs.votes.jsonl").display().to_string();
    let ours = [
        ("./pairs.votes.jsonl", "votes"),
        ("pairs.votes.jsonl", "votes"),
        ("sub/../pairs.votes.jsonl", "votes"),
        (&absolute, "votes"),
        ("hard.jsonl", "votes"),
        ("soft.jsonl", "votes"),
        ("pairs.jsonl", "pairs"),
        ("./pairs.jsonl", "pairs"),
    ];
    for option in ["--export", "--comparisons"] {
        for (path, what) in ours {
            let said = refused_untouched(&sandbox, &[option, path]);
            assert!(said.contains(&format!("{path}: is the file of the {what}, too")), "{said}");
        }
        for path in ["old.jsonl", "sub", ".pairs.votes.jsonl.lock"] {
            let said = refused_untouched(&sandbox, &[option, path]);
            assert!(said.contains(&format!("{path}: exists already; name another output or remove it")), "{said}");
        }
        let said = refused_untouched(&sandbox, &[option, "no/such/dir/out.jsonl"]);
        assert!(said.contains("no/such/dir: no such directory"), "{said}");
    }
    // One output that is refused is the end of both, and both must be two.
    refused_untouched(&sandbox, &["--export", "new.jsonl", "--comparisons", "old.jsonl"]);
    for other in ["new.jsonl", "./new.jsonl", "sub/../new.jsonl"] {
        let said = refused_untouched(&sandbox, &["--export", "new.jsonl", "--comparisons", other]);
        assert!(said.contains("is the file of the export, too"), "{said}");
    }
    sandbox.run(&["annotate", "pairs.jsonl", "--export", "new.jsonl", "--comparisons", "sub/new.jsonl"]).ok();
    assert_eq!(
        (json_lines(&sandbox.path("new.jsonl")).len(), json_lines(&sandbox.path("sub/new.jsonl")).len()),
        (1, 1)
    );
    // Nor while a server has the log, whose votes go on being there.
    let server = Server::start(&sandbox, &[]);
    refused_untouched(&sandbox, &["--export", "./pairs.votes.jsonl"]);
    server.vote("anna", "tie");
    assert_eq!(json_lines(&sandbox.path("pairs.votes.jsonl")).len(), 3);
    // A link that leads nowhere is there as well.
    symlink("nowhere.jsonl", sandbox.path("dangling.jsonl")).unwrap();
    let said = sandbox.run(&["annotate", "pairs.jsonl", "--export", "dangling.jsonl"]).refused(2);
    assert!(said.contains("dangling.jsonl: exists already"), "{said}");
    assert!(sandbox.path("dangling.jsonl").is_symlink() && !sandbox.path("nowhere.jsonl").exists());
}

#[test]
fn what_is_no_log_of_these_pairs_is_refused_as_votes_and_left_alone() {
    let sandbox = judged();
    let pairs = std::fs::read_to_string(sandbox.path("pairs.jsonl")).unwrap();
    let log = std::fs::read_to_string(sandbox.path("pairs.votes.jsonl")).unwrap();
    // As editors and other programs write: the last row has no newline.
    sandbox.write("pairs.jsonl", pairs.trim_end());
    sandbox.write("other.jsonl", pairs.replace("of 1", "of 7").trim_end());
    sandbox.write("notes.txt", "one line, no newline");
    sandbox.write("number.txt", "7");
    let first = log.lines().next().unwrap();
    let foreign = first.replace("\"fingerprint\":\"", "\"fingerprint\":\"0");
    sandbox.write("foreign.jsonl", &foreign[..foreign.find("\"seed\"").unwrap()]);
    sandbox.write("foreign.votes.jsonl", format!("{foreign}\n{{\"kind\":\"vo"));
    sandbox.write("vote.jsonl", format!("{}\n{{\"kind\":\"vo", log.lines().nth(1).unwrap()));
    symlink("pairs.jsonl", sandbox.path("soft.jsonl")).unwrap();
    std::fs::hard_link(sandbox.path("pairs.jsonl"), sandbox.path("hard.jsonl")).unwrap();
    for path in ["./pairs.jsonl", "pairs.jsonl", "soft.jsonl", "hard.jsonl"] {
        let said = refused_untouched(&sandbox, &["--votes", path]);
        assert!(said.contains("is the file of the pairs, too"), "{path}: {said}");
    }
    for path in ["other.jsonl", "notes.txt", "number.txt", "foreign.jsonl", "foreign.votes.jsonl", "vote.jsonl"] {
        let said = refused_untouched(&sandbox, &["--votes", path]);
        assert!(said.contains(path) && said.contains("--votes"), "{path}: {said}");
        let said = refused_untouched(&sandbox, &["--votes", path, "--export", "out.jsonl"]);
        assert!(said.contains(path), "{path}: {said}");
    }
    // A half line after votes that are ours stays, too, until all of the command fits.
    sandbox.write("pairs.votes.jsonl", format!("{log}{{\"kind\":\"vo"));
    refused_untouched(&sandbox, &["--seed", "5"]);
    sandbox.write("pairs.votes.jsonl", format!("{log}{{\"kind\":\"nothing\"}}\n{{\"kind\":\"vo"));
    refused_untouched(&sandbox, &[]);
}

#[test]
fn a_beginning_of_ours_that_was_cut_anywhere_begins_anew() {
    let sandbox = judged();
    let path = sandbox.path("pairs.votes.jsonl");
    let log = std::fs::read_to_string(&path).unwrap();
    let first = log.lines().next().unwrap();
    for cut in [0, 1, 30, first.find("\"seed\"").unwrap() + 9, first.len()] {
        sandbox.write("pairs.votes.jsonl", &first[..cut]);
        // With another seed than the one that was cut.
        let server = Server::start(&sandbox, &["--seed", "11"]);
        server.vote("anna", "tie");
        server.kill();
        let lines = json_lines(&path);
        assert_eq!((lines.len(), &lines[0]["seed"]), (2, &json!(11)), "cut at {cut}");
    }
}

/// Sends a vote that must be refused, and the same once more after `mend`, where it must be taken.
fn refused_then_taken(server: &Server, log: &Path, mend: impl FnOnce()) {
    let done = server.next("anna")["done"].clone();
    let vote = ballot("anna", &server.next("anna")["current"]["key"], "left");
    let answer = server.post("/api/vote", vote.clone());
    assert_eq!(answer.status, 500, "{answer:?}");
    assert!(answer.body.contains("pairs.votes.jsonl: is no longer the file that votes are written to"), "{answer:?}");
    assert_eq!(server.undo("anna").status, 500, "an undo would be lost as well");
    assert_eq!(server.next("anna")["done"], done, "what was refused does not stand");
    mend();
    assert_eq!(server.post("/api/vote", vote.clone()).status, 200);
    assert_eq!(json_lines(log).last().unwrap()["vote"], vote["vote"]);
}

#[test]
fn votes_are_refused_while_the_log_is_not_where_it_was() {
    let sandbox = with_pairs(9);
    let server = Server::start(&sandbox, &["--repeat", "0", "--overlap", "1"]);
    server.vote("anna", "left");
    let (log, away) = (sandbox.path("pairs.votes.jsonl"), sandbox.path("away.jsonl"));
    let back = || std::fs::rename(&away, &log).unwrap();
    // Moved away.
    std::fs::rename(&log, &away).unwrap();
    refused_then_taken(&server, &log, back);
    // Replaced by a copy, as editors and synchronising programs do.
    std::fs::rename(&log, &away).unwrap();
    std::fs::copy(&away, &log).unwrap();
    refused_then_taken(&server, &log, back);
    assert_eq!(json_lines(&log).len(), 4, "no refused vote was written");
    // Removed for good: nothing is acknowledged any more, and the next start says what there is.
    std::fs::copy(&log, &away).unwrap();
    std::fs::remove_file(&log).unwrap();
    let vote = ballot("anna", &server.next("anna")["current"]["key"], "left");
    assert_eq!(server.post("/api/vote", vote.clone()).status, 500);
    assert!(!log.exists());
    server.kill();
    back();
    let server = Server::start(&sandbox, &[]);
    assert_eq!(server.post("/api/vote", vote).json()["done"], 4);
}

#[test]
fn comparisons_have_a_row_a_judgement_and_rank_as_their_means_did() {
    let sandbox = with_pairs(4);
    let server = Server::start(&sandbox, &["--repeat", "0", "--overlap", "1"]);
    server.kill();
    let path = sandbox.path("pairs.votes.jsonl");
    let mut log = std::fs::read_to_string(&path).unwrap();
    let said = [
        ("anna", 1, 1, "a"),
        ("ben", 1, 1, "b"),
        ("anna", 2, 1, "a"),
        ("anna", 2, 2, "b"),
        ("ben", 2, 1, "a"),
        ("ben", 2, 2, "a"),
        ("carol", 2, 1, "b"),
        ("anna", 3, 1, "tie"),
        ("anna", 3, 2, "a"),
        ("ben", 3, 1, "skip"),
        ("anna", 4, 1, "a"),
    ];
    for (at, (annotator, pair, showing, choice)) in said.iter().enumerate() {
        let vote = json!({
            "kind": "vote", "vote": format!("{at:016}"), "pair": pair, "annotator": annotator, "choice": choice,
            "left": "a", "showing": showing, "seconds": 1.0, "time": "2026-01-01T00:00:00.000Z", "session": "s",
        });
        log += &format!("{vote}\n");
    }
    sandbox.write("pairs.votes.jsonl", log);
    sandbox.run(&["annotate", "pairs.jsonl", "--comparisons", "rows.jsonl"]).ok();
    let rows = json_lines(&sandbox.path("rows.jsonl"));
    let found: Vec<(f64, f64)> =
        rows.iter().map(|row| (row["preference"].as_f64().unwrap(), row["weight"].as_f64().unwrap())).collect();
    let expected = [
        (1.0, 1.0), // Pair 1: two who disagree are no tie.
        (0.0, 1.0),
        (1.0, 0.5), // Pair 2: anna says both, ben one thing twice, carol one thing once.
        (0.0, 0.5),
        (1.0, 1.0),
        (0.0, 1.0),
        (0.5, 0.5), // Pair 3.
        (1.0, 0.5),
        (1.0, 1.0), // Pair 4.
    ];
    assert_eq!(found, expected);
    assert!(rows.iter().all(|row| row["a"] == "secret-small" && row["b"] == "secret-large" && row.len() == 4));
    // One row a pair with the mean over its annotators, by hand: the same likelihood, so the same fit.
    let means = [(0.5, 2), (0.5, 3), (0.75, 1), (1.0, 1)];
    let means = means.map(|(preference, weight)| {
        json!({ "a": "secret-small", "b": "secret-large", "preference": preference, "weight": weight })
    });
    sandbox.rows("means.jsonl", &means.map(|row| row.as_object().unwrap().clone()));
    let ranked = |file: &str, args: &[&str]| -> Value {
        let ran = sandbox.run(&[&["rank", file, "--json"], args].concat()).ok();
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let (rows, means) = (ranked("rows.jsonl", &[]), ranked("means.jsonl", &[]));
    // 4.25 of 7 are won: the strengths lie ln(4.25 / 2.75) apart.
    for found in [&rows, &means] {
        assert_eq!(found["items"][0]["item"], "secret-small");
        let rating = found["items"][0]["rating"].as_f64().unwrap();
        assert!((rating - (4.25f64 / 2.75).ln() / 2.0).abs() < 1e-9, "{found}");
    }
    let error = |found: &Value| found["items"][0]["standard_error"].as_f64().unwrap();
    assert!((error(&rows) - error(&means)).abs() < 1e-12);
    // Davidson: of 7, half a one is a tie and 4 are won: e^d = 4 / 2.5 where both are the maximum of the likelihood.
    let davidson = ranked("rows.jsonl", &["--ties", "davidson"]);
    let rating = davidson["items"][0]["rating"].as_f64().unwrap();
    assert!((rating - (4.0f64 / 2.5).ln() / 2.0).abs() < 1e-9, "{davidson}");
    // The means cannot say that.
    assert_eq!(sandbox.run(&["rank", "means.jsonl", "--ties", "davidson"]).code, 2);
}
