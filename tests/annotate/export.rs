//! Votes as rows to train on and to rank, against values worked out by hand.
#![allow(clippy::unwrap_used)]
use super::client::{Server, ballot, with_pairs};
use crate::support::sandbox::{Sandbox, json_lines};
use collimate::config::OnBadRow;
use collimate::data::{DataReport, Row, Wanted, read_rows};
use serde_json::{Map, Value, json};

/// Everybody judges everything, a third of it twice.
const TOGETHER: [&str; 4] = ["--repeat", "0.34", "--overlap", "1"];

/// Lets `annotator` judge until the end: of a pair, the side that `wish` says, by the pair's line and the showing.
fn judge(server: &Server, annotator: &str, wish: impl Fn(u64, u64) -> &'static str) {
    loop {
        let current = server.next(annotator)["current"].clone();
        let Value::String(key) = &current["key"] else { return };
        let (pair, showing) = key.split_once('.').unwrap();
        let wanted = wish(pair.parse().unwrap(), showing.parse().unwrap());
        let choice = match wanted {
            "a" | "b" => {
                let text = |side: &str| current[side].to_string();
                assert_ne!(text("left").contains("a of"), text("right").contains("a of"));
                if text("left").contains(&format!("{wanted} of")) { "left" } else { "right" }
            }
            other => other,
        };
        assert_eq!(server.post("/api/vote", ballot(annotator, &current["key"], choice)).status, 200);
    }
}

fn exported(sandbox: &Sandbox, args: &[&str]) -> Vec<Map<String, Value>> {
    sandbox.run(&[&["annotate", "pairs.jsonl"], args].concat()).ok();
    json_lines(&sandbox.path(args[1]))
}

#[test]
fn preferences_are_means_over_annotators_turned_to_the_better_side() {
    let sandbox = with_pairs(6);
    let server = Server::start(&sandbox, &TOGETHER);
    // Pair:    1  2  3    4         5     6
    // anna     a  b  tie  both_bad  skip  a
    // ben      a  b  b    both_bad  skip  b
    // carol    a  a  b    tie       skip  skip
    let said = |row: [&'static str; 6]| move |pair: u64, _: u64| row[pair as usize - 1];
    judge(&server, "anna", said(["a", "b", "tie", "both_bad", "skip", "a"]));
    judge(&server, "ben", said(["a", "b", "b", "both_bad", "skip", "b"]));
    judge(&server, "carol", said(["a", "a", "b", "tie", "skip", "skip"]));
    // A vote that is taken back says nothing.
    judge(&server, "dora", |_, _| "skip");
    server.undo("dora");
    server.vote("dora", "left");
    server.undo("dora");
    server.kill();
    let rows = exported(&sandbox, &["--export", "prefs.jsonl"]);
    // How often each pair was judged, by the log; what dora said was taken back.
    let log = json_lines(&sandbox.path("pairs.votes.jsonl"));
    let judged = |pair: u64| {
        let counts = |vote: &&Map<String, Value>| vote["annotator"] != "dora" && vote["choice"] != "skip";
        log.iter().filter(|vote| vote.get("pair") == Some(&json!(pair))).filter(counts).count()
    };
    assert!((1..=6).any(|pair| judged(pair) > 3), "a pair was shown twice");
    let expected = [
        (1, "a", 1.0, 3),
        (2, "b", 2.0 / 3.0, 3),
        (3, "b", (1.0 + 1.0 + 0.5) / 3.0, 3),
        (4, "a", 0.5, 3),
        (6, "a", 0.5, 2),
    ];
    assert_eq!(rows.len(), expected.len());
    for (row, (pair, chosen, preference, annotators)) in rows.iter().zip(expected) {
        let rejected = if chosen == "a" { "b" } else { "a" };
        assert_eq!(row["prompt"], format!("prompt {pair}"));
        assert_eq!(row["chosen"], format!("{chosen} of {pair}"));
        assert_eq!(row["rejected"], format!("{rejected} of {pair}"));
        assert!((row["preference"].as_f64().unwrap() - preference).abs() < 1e-12, "pair {pair}: {row:?}");
        assert_eq!(row["annotators"], annotators);
        assert_eq!(row["votes"], judged(pair), "pair {pair}");
        let model = |side| if side == "a" { "secret-small" } else { "secret-large" };
        assert_eq!(row["chosen_source"]["model"], model(chosen));
        assert_eq!(row["rejected_source"]["model"], model(rejected));
        assert_eq!(row["topic"], pair, "an unknown column is kept");
        assert!(["a", "b", "a_source", "b_source"].iter().all(|name| !row.contains_key(*name)));
    }
    // Both bad left out: of pair 4 only carol's tie is left.
    let rows = exported(&sandbox, &["--export", "without.jsonl", "--both-bad", "leave-out"]);
    assert_eq!(rows.len(), 5);
    assert_eq!((&rows[3]["preference"], &rows[3]["annotators"]), (&json!(0.5), &json!(1)));
    // For rank: what each person said of each pair, whether once or twice.
    let rows = exported(&sandbox, &["--comparisons", "ranks.jsonl"]);
    let found: Vec<f64> = rows.iter().map(|row| row["preference"].as_f64().unwrap()).collect();
    assert_eq!(found, [1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.5, 0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 0.0]);
    assert!(rows.iter().all(|row| row["weight"] == 1), "{rows:?}");
    assert!(rows.iter().all(|row| row["a"] == "secret-small" && row["b"] == "secret-large" && row.len() == 4));
    // reward and dpo read the rows.
    let rows = read_rows(&sandbox.path("prefs.jsonl"), Wanted::Preference, OnBadRow::Error, &mut DataReport::default());
    let read: Vec<f64> = rows
        .unwrap()
        .iter()
        .map(|row| match row.row {
            Row::Preference { preference, .. } => preference,
            _ => panic!("{row:?}"),
        })
        .collect();
    assert!(read.iter().all(|p| (0.5..=1.0).contains(p)), "{read:?}");
}

#[test]
fn somebody_who_contradicts_themselves_counts_as_a_tie() {
    let sandbox = with_pairs(12);
    let server = Server::start(&sandbox, &["--repeat", "1", "--overlap", "1"]);
    judge(&server, "anna", |_, showing| if showing == 1 { "a" } else { "b" });
    server.kill();
    let rows = exported(&sandbox, &["--export", "prefs.jsonl"]);
    let twice = rows.iter().filter(|row| row["votes"] == 2).count();
    assert!(twice >= 9);
    for row in &rows {
        assert_eq!(row["preference"], if row["votes"] == 2 { 0.5 } else { 1.0 });
        assert_eq!(row["annotators"], 1);
    }
}

#[test]
fn judged_rows_and_conversations_keep_their_columns_and_turn_with_the_vote() {
    let sandbox = Sandbox::new();
    let user = |text: &str| json!({ "role": "user", "content": text });
    let assistant = |text: &str| json!({ "role": "assistant", "content": text });
    let rows = [
        json!({ "chosen": [user("q"), assistant("a of 1")], "rejected": [user("q"), assistant("b of 1")], "margin": 2.5,
                "preference": 0.9, "chosen_source": { "model": "m", "fingerprint": "aaaaaaaaaa" },
                "rejected_source": { "model": "m", "fingerprint": "bbbbbbbbbb" }, "id": "x" }),
        json!({ "prompt": [user("q")], "chosen": [assistant("a of 2")], "rejected": [assistant("b of 2")], "margin": 1.5,
                "chosen_source": { "model": "m", "fingerprint": "aaaaaaaaaa" },
                "rejected_source": { "model": "m", "fingerprint": "aaaaaaaaaa" } }),
        json!({ "prompt": "q", "a": "a of 3", "b": "b of 3" }),
    ];
    sandbox.rows("pairs.jsonl", &rows.each_ref().map(|row| row.as_object().unwrap().clone()));
    let server = Server::start(&sandbox, &["--repeat", "0", "--overlap", "1"]);
    // A prompt that both conversations begin with is shown as the prompt.
    let mut shown = Vec::new();
    judge(&server, "anna", |pair, _| if pair == 2 { "a" } else { "b" });
    for _ in 0..3 {
        shown.push(server.undo("anna").json()["current"].clone());
    }
    let first = shown.iter().find(|pair| pair["key"] == "1.1").unwrap();
    assert_eq!(first["prompt"], json!({ "turns": [{ "role": "user", "text": "q" }] }));
    judge(&server, "anna", |pair, _| if pair == 2 { "a" } else { "b" });
    server.kill();
    let out = exported(&sandbox, &["--export", "prefs.jsonl"]);
    assert_eq!(out[0]["chosen"], rows[0]["rejected"]);
    assert_eq!(out[0]["rejected"], rows[0]["chosen"]);
    assert_eq!(out[0]["chosen_source"]["fingerprint"], "bbbbbbbbbb");
    assert_eq!((&out[0]["preference"], &out[0]["id"]), (&json!(1.0), &json!("x")));
    assert!(!out[0].contains_key("margin") && !out[0].contains_key("prompt"), "{:?}", out[0]);
    assert_eq!((&out[1]["chosen"], &out[1]["margin"]), (&rows[1]["chosen"], &json!(1.5)));
    assert_eq!(out[2]["chosen"], "b of 3");
    // One name, two models: told apart by their fingerprints; one model on both sides is no comparison.
    let ranks = exported(&sandbox, &["--comparisons", "ranks.jsonl"]);
    assert_eq!(ranks.len(), 1);
    assert_eq!((&ranks[0]["a"], &ranks[0]["b"]), (&json!("m@aaaaaaaa"), &json!("m@bbbbbbbb")));
    assert_eq!((&ranks[0]["preference"], &ranks[0]["weight"]), (&json!(0.0), &json!(1)));
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let sandbox = with_pairs(2);
    let args = ["annotate", "pairs.jsonl", "--export", "out.jsonl"];
    assert!(sandbox.run(&args).refused(2).contains("pairs.votes.jsonl: holds no votes"));
    let server = Server::start(&sandbox, &["--overlap", "1"]);
    assert!(sandbox.run(&args).refused(2).contains("holds no judgement"));
    server.vote("anna", "skip");
    assert!(sandbox.run(&args).refused(2).contains("holds no judgement"));
    server.vote("anna", "left");
    server.kill();
    assert_eq!(sandbox.run(&["annotate", "pairs.jsonl", "--export", "no/such/dir/out.jsonl"]).code, 2);
    assert!(!sandbox.path("out.jsonl").exists());
    // Options of the server do not go with it.
    for option in [["--port", "80"], ["--seed", "1"], ["--repeat", "1"], ["--overlap", "1"], ["--host", "0.0.0.0"]] {
        assert_eq!(sandbox.run(&[&args[..], &option].concat()).code, 2, "{option:?}");
    }
    let plain = Sandbox::new();
    plain.write("pairs.jsonl", "{\"a\": \"a of 1\", \"b\": \"b of 1\"}\n");
    Server::start(&plain, &[]).vote("anna", "left");
    let said = plain.run(&["annotate", "pairs.jsonl", "--comparisons", "r.jsonl"]).refused(2);
    assert!(said.contains("do not name the models") && said.contains("a_source"), "{said}");
}
