//! The log of votes: nothing that was acknowledged is lost, nothing counts twice, nothing broken passes unseen.
#![allow(clippy::unwrap_used)]
use super::client::{Server, ballot, id, with_pairs};
use crate::support::sandbox::{Sandbox, json_lines};
use collimate::annotate::log::{self, Log};
use collimate::annotate::pairs::Pairs;
use serde_json::{Value, json};
use std::path::PathBuf;

const ALONE: [&str; 4] = ["--repeat", "0", "--overlap", "1"];

fn votes_in(sandbox: &Sandbox) -> Vec<Value> {
    let lines = json_lines(&sandbox.path("pairs.votes.jsonl"));
    assert_eq!(lines[0]["kind"], "begin");
    lines.into_iter().skip(1).map(Value::Object).collect()
}

/// Opens a log as the server does and lets it go: how many votes stand.
fn opened(sandbox: &Sandbox) -> Result<usize, String> {
    let pairs = Pairs::read(&sandbox.path("pairs.jsonl"), false).unwrap();
    let begin = |old: Option<&_>| Ok(old.cloned().unwrap_or_else(|| log::begin(&pairs, 0, 0.0, 1.0)));
    Log::open(&sandbox.path("pairs.votes.jsonl"), &pairs, begin)
        .map(|(_, contents)| contents.book.len())
        .map_err(|error| error.to_string())
}

#[test]
fn acknowledged_votes_survive_kill_9_and_the_work_goes_on_where_it_was() {
    let sandbox = with_pairs(9);
    let mut expected = Vec::new();
    for round in 0..3 {
        let server = Server::start(&sandbox, if round == 0 { &ALONE } else { &[] });
        for choice in ["left", "right", "skip"] {
            let shown = server.next("anna")["current"].clone();
            let answer = server.vote("anna", choice);
            expected.push((shown["key"].clone(), choice));
            // Before the answer came, the vote was in the file.
            assert_eq!(votes_in(&sandbox).len(), expected.len());
            assert_eq!(answer["done"], expected.len());
        }
        let next = server.next("anna")["current"].clone();
        server.kill();
        let again = Server::start(&sandbox, &[]);
        assert_eq!(again.next("anna")["current"], next, "the same pair, the same sides");
        again.kill();
    }
    let votes = votes_in(&sandbox);
    assert_eq!(votes.len(), 9);
    for (vote, (key, choice)) in votes.iter().zip(&expected) {
        assert_eq!(format!("{}.1", vote["pair"]), key.as_str().unwrap());
        let better = match (*choice, vote["left"].as_str().unwrap()) {
            ("skip", _) => "skip",
            ("left", left) => left,
            (_, "a") => "b",
            _ => "a",
        };
        assert_eq!(vote["choice"], better);
        assert_eq!(vote["annotator"], "anna");
        assert_eq!(vote["seconds"], 2.0);
        chrono::DateTime::parse_from_rfc3339(vote["time"].as_str().unwrap()).unwrap();
    }
    let sessions: std::collections::BTreeSet<&str> = votes.iter().map(|v| v["session"].as_str().unwrap()).collect();
    assert_eq!(sessions.len(), 3, "one a run");
}

#[test]
fn kill_9_in_the_middle_of_voting_loses_no_acknowledged_vote() {
    let sandbox = with_pairs(400);
    let (mut acknowledged, mut rounds) = (Vec::new(), 0);
    while rounds < 6 {
        let server = Server::start(&sandbox, if rounds == 0 { &ALONE } else { &[] });
        let pid = server.pid();
        // Between 5 and 80 ms of voting, then the end, wherever that is.
        let killer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(5 + 15 * rounds));
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        });
        while let Some(vote) = server.try_vote("anna", "left") {
            acknowledged.push(vote);
        }
        killer.join().unwrap();
        rounds += 1;
    }
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    let stand = opened(&sandbox).unwrap();
    let logged: Vec<Value> = votes_in(&sandbox).iter().map(|vote| vote["vote"].clone()).collect();
    assert!(acknowledged.iter().all(|vote| logged.contains(&json!(vote))));
    assert!((acknowledged.len()..=acknowledged.len() + 6).contains(&stand), "at most one a round without its answer");
}

#[test]
fn a_log_cut_anywhere_in_its_last_line_keeps_the_lines_before_and_the_half_line_beside() {
    let sandbox = with_pairs(4);
    let server = Server::start(&sandbox, &ALONE);
    server.vote("anna", "left");
    server.vote("anna", "tie");
    server.kill();
    let (path, aside) = (sandbox.path("pairs.votes.jsonl"), sandbox.path("pairs.votes.jsonl.cut"));
    let whole = std::fs::read(&path).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|&b| b == b'\n').unwrap() + 1;
    for cut in last..whole.len() {
        let _ = std::fs::remove_file(&aside);
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(opened(&sandbox), Ok(1), "cut at {cut}");
        assert_eq!(std::fs::read(&path).unwrap(), &whole[..last], "cut at {cut}");
        let kept = std::fs::read(&aside).unwrap_or_default();
        let half = &whole[last..cut];
        assert_eq!(kept, if half.is_empty() { vec![] } else { [half, b"\n"].concat() }, "cut at {cut}");
    }
    // In the beginning, too: then the log begins anew.
    std::fs::write(&path, &whole[..20]).unwrap();
    assert_eq!(opened(&sandbox), Ok(0));
    // And the whole program says so, takes the vote again, and both stand.
    std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    let server = Server::start(&sandbox, &[]);
    let words = std::fs::read_to_string(sandbox.path("stderr")).unwrap();
    assert!(words.contains("WARN") && words.contains("its last line was cut") && words.contains(".cut"), "{words}");
    assert_eq!(server.next("anna")["done"], 1);
    server.vote("anna", "tie");
    assert_eq!(votes_in(&sandbox).len(), 2);
    // The export does not repair: a server may be writing.
    std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    let ran = sandbox.run(&["annotate", "pairs.jsonl", "--export", "out.jsonl"]).ok();
    assert!(ran.stderr.contains("half a line at its end is left out"), "{}", ran.stderr);
    assert_eq!(json_lines(&sandbox.path("out.jsonl")).len(), 1);
    assert_eq!(std::fs::read(&path).unwrap(), &whole[..whole.len() - 9]);
}

#[test]
fn a_broken_line_elsewhere_is_an_error_that_names_it() {
    let sandbox = with_pairs(4);
    let server = Server::start(&sandbox, &ALONE);
    for choice in ["left", "tie", "right"] {
        server.vote("anna", choice);
    }
    server.undo("anna");
    server.kill();
    let path = sandbox.path("pairs.votes.jsonl");
    let whole = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    assert_eq!(lines.len(), 5);
    let broken = |at: usize, text: &str| {
        let mut lines = lines.clone();
        lines[at] = text;
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        let said = sandbox.run(&["annotate", "pairs.jsonl"]).refused(2);
        assert!(said.contains(&format!("pairs.votes.jsonl:{}: ", at + 1)), "{said}");
        assert_eq!(opened(&sandbox).unwrap_err(), said["error: ".len()..].replace("pairs.votes", &path_prefix(&path)));
        said
    };
    broken(2, &lines[2][..30]);
    broken(2, "");
    broken(4, &lines[4][..30]);
    broken(0, lines[1]);
    broken(1, lines[0]);
    assert!(broken(2, lines[1]).contains("a second time"));
    assert!(broken(2, &lines[2].replace("\"pair\":", "\"pair\":9")).contains("which is not there"));
    assert!(broken(2, &lines[2].replace("\"showing\":1", "\"showing\":2")).contains("showing 2 of pair"));
    broken(1, lines[4]);
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(opened(&sandbox), Ok(2));
}

fn path_prefix(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    text[..text.len() - ".jsonl".len()].to_owned()
}

#[test]
fn a_log_of_other_pairs_or_begun_otherwise_is_refused() {
    let sandbox = with_pairs(4);
    let server = Server::start(&sandbox, &["--seed", "3", "--overlap", "0.5"]);
    server.vote("anna", "left");
    assert_eq!(server.signal("TERM"), Some(143));
    for (option, value, was) in [("--seed", "4", "3"), ("--overlap", "1", "0.5"), ("--repeat", "0.5", "0.05")] {
        let said = sandbox.run(&["annotate", "pairs.jsonl", option, value]).refused(2);
        assert!(said.contains(&format!("{option} {was}")) && said.contains(&format!("leave out {option}")), "{said}");
    }
    assert_eq!(Server::start(&sandbox, &["--seed", "3", "--overlap", "0.5"]).signal("INT"), Some(130));
    let rows = json_lines(&sandbox.path("pairs.jsonl"));
    let mut other = rows.clone();
    other[2]["b"] = json!("something else");
    sandbox.rows("pairs.jsonl", &other);
    for args in [&["annotate", "pairs.jsonl"][..], &["annotate", "pairs.jsonl", "--export", "out.jsonl"]] {
        let said = sandbox.run(args).refused(2);
        assert!(said.contains("pairs.votes.jsonl: holds votes on other pairs") && said.contains("--votes"), "{said}");
    }
    assert!(!sandbox.path("out.jsonl").exists());
    // Columns that nobody judges may change.
    let mut same = rows;
    same[2]["topic"] = json!("renamed");
    sandbox.rows("pairs.jsonl", &same);
    assert_eq!(opened(&sandbox), Ok(1));
}

#[test]
fn a_second_server_on_one_log_is_refused_by_the_name_of_the_first() {
    let sandbox = with_pairs(2);
    let server = Server::start(&sandbox, &[]);
    let link: PathBuf = sandbox.path("elsewhere.jsonl");
    std::os::unix::fs::symlink(sandbox.path("pairs.votes.jsonl"), &link).unwrap();
    for args in [&["annotate", "pairs.jsonl"][..], &["annotate", "pairs.jsonl", "--votes", "elsewhere.jsonl"]] {
        let said = sandbox.run(args).refused(2);
        assert!(said.contains(&format!("process {} on ", server.pid())) && said.contains("--votes"), "{said}");
    }
    server.vote("anna", "left");
    // Votes may be written out while they are collected.
    sandbox.run(&["annotate", "pairs.jsonl", "--export", "out.jsonl"]).ok();
    server.kill();
    Server::start(&sandbox, &[]).vote("anna", "right");
}

#[test]
fn a_vote_or_undo_that_is_sent_again_counts_once() {
    let sandbox = with_pairs(5);
    let server = Server::start(&sandbox, &ALONE);
    let first = ballot("anna", &server.next("anna")["current"]["key"], "left");
    let answers: Vec<Value> = (0..3).map(|_| server.post("/api/vote", first.clone()).json()).collect();
    assert!(answers.iter().all(|answer| answer == &answers[0]), "the same answer");
    assert_eq!((votes_in(&sandbox).len(), answers[0]["done"].as_u64()), (1, Some(1)));
    // The same id for something else, and another vote on the same showing.
    for (field, value) in
        [("choice", json!("right")), ("annotator", json!("ben")), ("key", answers[0]["current"]["key"].clone())]
    {
        let mut other = first.clone();
        other[field] = value;
        assert_eq!(server.post("/api/vote", other).status, 409, "{field}");
    }
    let mut again = first.clone();
    again["vote"] = json!(id());
    assert_eq!(server.post("/api/vote", again).status, 409);
    server.vote("anna", "tie");
    let undo = json!({ "annotator": "anna", "undo": id() });
    for _ in 0..3 {
        assert_eq!(server.post("/api/undo", undo.clone()).json()["done"], 1);
    }
    assert_eq!(votes_in(&sandbox).len(), 3, "two votes, one undo");
    // Late, the vote that was taken back comes once more: it was counted, and stays taken back.
    assert_eq!(server.undo("anna").json()["done"], 0);
    assert_eq!(server.post("/api/vote", first).json()["done"], 0);
    assert_eq!(votes_in(&sandbox).len(), 4);
    assert_eq!(server.undo("anna").status, 409, "nothing is left to take back");
}

#[test]
fn undo_goes_back_to_the_first_vote_across_restarts_and_shows_the_same_again() {
    let sandbox = with_pairs(30);
    let mut shown = Vec::new();
    let server = Server::start(&sandbox, &["--repeat", "0.5", "--overlap", "1"]);
    while let key @ Value::String(_) = server.next("anna")["current"].clone()["key"].clone() {
        shown.push((key, server.next("anna")["current"].clone()));
        server.vote("anna", ["left", "right", "tie", "both_bad"][shown.len() % 4]);
    }
    assert_eq!(shown.len(), 45);
    server.kill();
    let server = Server::start(&sandbox, &[]);
    for (at, (_, pair)) in shown.iter().enumerate().rev() {
        let answer = server.undo("anna").json();
        assert_eq!(answer["done"], at);
        assert_eq!(&answer["current"], pair, "undo {at}");
    }
    assert_eq!(server.undo("anna").status, 409);
    // Forward again, the same way.
    for (_, pair) in &shown {
        assert_eq!(&server.next("anna")["current"], pair);
        server.vote("anna", "left");
    }
    assert_eq!(votes_in(&sandbox).len(), 3 * 45);
}

#[test]
fn a_full_disk_loses_no_acknowledged_vote_and_leaves_no_half_line() {
    let sandbox = with_pairs(40);
    // A file may have 4 blocks of 512 bytes; beyond that writing fails, in the middle of a line.
    let inner = sandbox.command(&[]);
    let mut limited = std::process::Command::new("sh");
    limited.arg("-c").arg("trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\"").arg(inner.get_program());
    limited.args(["annotate", "pairs.jsonl"].iter().chain(&ALONE)).current_dir(sandbox.path(""));
    let server = Server::started(limited, &sandbox);
    let mut acknowledged = 0;
    let refused = loop {
        let key = server.next("anna")["current"]["key"].clone();
        let answer = server.post("/api/vote", ballot("anna", &key, "left"));
        if answer.status != 200 {
            break answer;
        }
        acknowledged += 1;
    };
    assert_eq!(refused.status, 500);
    assert!(refused.body.contains("pairs.votes.jsonl: cannot write"), "{}", refused.body);
    assert!(acknowledged > 2);
    assert_eq!(server.next("anna")["done"], acknowledged, "the vote that failed does not stand");
    assert_eq!(votes_in(&sandbox).len(), acknowledged);
    assert!(std::fs::read(sandbox.path("pairs.votes.jsonl")).unwrap().ends_with(b"\n"));
    server.kill();
    let server = Server::start(&sandbox, &[]);
    assert_eq!(server.vote("anna", "left")["done"], acknowledged + 1);
}

#[test]
fn bad_rows_are_named_and_equal_sides_left_out_with_a_word() {
    let sandbox = Sandbox::new();
    let good = json!({ "prompt": "p", "a": "one", "b": "two" }).to_string();
    let same = json!({ "prompt": "p", "a": "one", "b": "one" }).to_string();
    let refused = |row: Value| {
        sandbox.write("pairs.jsonl", format!("{good}\n{row}\n"));
        let said = sandbox.run(&["annotate", "pairs.jsonl", "--export", "x"]).refused(2);
        assert!(
            said.starts_with("error: pairs.jsonl:2: ") && said.ends_with("--skip-bad-rows leaves such rows out"),
            "{said}"
        );
        said
    };
    assert!(refused(json!({ "prompt": "p", "a": "one" })).contains("has no \"b\""));
    assert!(refused(json!({ "prompt": "p" })).contains("found \"prompt\""));
    assert!(
        refused(json!({ "prompt": "p", "a": "one", "b": 2 })).contains("\"b\" must be a string or a list of messages")
    );
    assert!(refused(json!({ "prompt": "p", "a": "one", "b": "" })).contains("\"b\" is empty"));
    assert!(refused(json!({ "prompt": 1, "a": "one", "b": "two" })).contains("\"prompt\" must be"));
    assert!(
        refused(json!({ "a": "one", "b": [{ "role": "assistant", "content": "two" }] })).contains("\"a\" is a string")
    );
    assert!(refused(json!({ "a": "one", "b": "two", "chosen": "three" })).contains("has both"));
    assert!(
        refused(json!({ "chosen": "one", "rejected": [] })).contains("\"rejected\" is a conversation without messages")
    );
    assert!(refused(json!({ "chosen": "one", "rejected": "two", "preference": 2 })).contains("outside [0, 1]"));
    sandbox.write("pairs.jsonl", format!("{same}\n"));
    let said = sandbox.run(&["annotate", "pairs.jsonl"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("pairs.jsonl: holds no usable pair"), "{}", said.stderr);
    sandbox.write("pairs.jsonl", format!("{same}\n{good}\nnot json\n"));
    let pairs = Pairs::read(&sandbox.path("pairs.jsonl"), true).unwrap();
    assert_eq!(pairs.list.iter().map(|pair| pair.number).collect::<Vec<_>>(), [2]);
    let server = Server::start(&sandbox, &["--skip-bad-rows"]);
    let words = std::fs::read_to_string(sandbox.path("stderr")).unwrap();
    assert!(words.contains("rows with two equal sides, 1 in all") && words.contains("pairs.jsonl:1"), "{words}");
    assert!(
        words.contains("rows that cannot be used (--skip-bad-rows), 1 in all") && words.contains("pairs.jsonl:3"),
        "{words}"
    );
    drop(server);
    for args in [
        &["annotate", "absent.jsonl"][..],
        &["annotate", "pairs.jsonl", "--votes", "pairs.jsonl"],
        &["annotate", "pairs.jsonl", "--skip-bad-rows", "--host", "203.0.113.1", "--votes", "v"],
        &["annotate", "pairs.jsonl", "--skip-bad-rows", "--both-bad", "tie"],
        &["annotate", "pairs.jsonl", "--skip-bad-rows", "--export", "pairs.jsonl"],
    ] {
        assert_eq!(sandbox.run(args).code, 2, "{args:?}");
    }
}
