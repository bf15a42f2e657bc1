//! Who sees what: every pair is seen, shares are kept, repetitions come late and swapped, whatever joins or leaves.
#![allow(clippy::unwrap_used)]
use super::client::{Server, with_pairs};
use collimate::annotate::plan::{History, Plan, Showing};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn plan(count: usize, repeat: f64, overlap: f64) -> Plan {
    Plan::new((1..=count).collect(), 7, repeat, overlap)
}

/// What a lone annotator sees, to the end.
fn alone(plan: &Plan, name: &str) -> Vec<Showing> {
    let (sequence, mut history, mut seen) = (plan.sequence(name), History::default(), Vec::new());
    let mut left = plan.left(&sequence, &history, |_| true);
    while let Some(showing) = plan.next(&sequence, &history, |_| true) {
        assert!(plan.accepts(&history, showing));
        seen.push(showing);
        history.add(showing.place, true);
        let now = plan.left(&sequence, &history, |_| true);
        assert!(now < left, "it comes nearer to its end: {now} after {left}");
        left = now;
    }
    assert_eq!(left, 0);
    seen
}

#[test]
fn one_annotator_sees_every_pair_and_a_share_twice_late_and_swapped() {
    for (count, repeat) in [(200, 0.1), (60, 1.0), (100, 0.0), (7, 0.5)] {
        let plan = plan(count, repeat, 0.1);
        let seen = alone(&plan, "anna");
        let first: BTreeSet<usize> = seen.iter().filter(|s| s.showing == 1).map(|s| s.place).collect();
        assert_eq!(first.len(), count);
        let again: Vec<usize> = (0..seen.len()).filter(|&at| seen[at].showing == 2).collect();
        let wanted = (repeat * count as f64).round() as usize;
        // At the very end some may be too near to be shown again.
        assert!(again.len() <= wanted && again.len() + 3 >= wanted, "{} of {wanted}", again.len());
        for at in again {
            let before = seen.iter().position(|s| s.place == seen[at].place).unwrap();
            let between = at - before - 1;
            assert!(between >= 3, "{between}");
            let all_seen = seen[..at].iter().filter(|s| s.showing == 1).count() == count;
            assert!(between >= 20.min(count / 3) || all_seen, "{between} between, and fresh pairs left");
            let sides = [before, at].map(|at| plan.left_side("anna", seen[at]));
            assert_ne!(sides[0], sides[1], "swapped");
        }
    }
}

#[test]
fn order_and_sides_come_from_seed_and_name_alone() {
    let (one, same) = (plan(300, 0.1, 0.2), plan(300, 0.1, 0.2));
    let other = Plan::new((1..=300).collect(), 8, 0.1, 0.2);
    let sides = |plan: &Plan, name: &str| -> Vec<bool> {
        let side = |place| plan.left_side(name, Showing { place, showing: 1 }) == collimate::annotate::votes::Side::A;
        (0..300).map(side).collect()
    };
    assert_eq!(one.sequence("anna"), same.sequence("anna"));
    assert_ne!(one.sequence("anna"), other.sequence("anna"));
    assert_ne!(one.sequence("anna"), one.sequence("ben"));
    assert_eq!(sides(&one, "anna"), sides(&same, "anna"));
    assert_ne!(sides(&one, "anna"), sides(&other, "anna"));
    assert_ne!(sides(&one, "anna"), sides(&one, "ben"));
    // Five standard deviations of 300 fair coins are 43.
    let left = sides(&one, "anna").iter().filter(|a| **a).count();
    assert!((107..=193).contains(&left), "{left}");
}

#[test]
fn shared_pairs_come_in_one_order_spread_over_everybodys_work() {
    let plan = plan(200, 0.0, 0.25);
    let shared = |name: &str| -> Vec<(usize, usize)> {
        let sequence = plan.sequence(name).into_iter().enumerate();
        sequence.filter(|(_, place)| plan.is_shared(*place)).collect()
    };
    assert_eq!(shared("anna"), shared("ben"));
    assert_eq!(shared("anna").len(), 50);
    assert!(shared("anna").iter().enumerate().all(|(nth, (at, _))| at / 4 == nth), "one in four");
    let all: BTreeSet<usize> = plan.sequence("anna").into_iter().collect();
    assert_eq!(all.len(), 200);
}

#[test]
fn two_people_share_some_pairs_and_divide_the_rest_and_a_third_takes_over() {
    let sandbox = with_pairs(40);
    let server = Server::start(&sandbox, &["--repeat", "0", "--overlap", "0.2"]);
    let mut seen: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    let mut vote = |server: &Server, name: &'static str| -> bool {
        let Value::String(key) = server.next(name)["current"]["key"].clone() else { return false };
        server.vote(name, "left");
        let fresh = seen.entry(key.split('.').next().unwrap().parse().unwrap()).or_default().insert(name);
        assert!(fresh, "{name} saw {key} twice");
        true
    };
    // Both have a pair on the screen at any time, and never the same but for the shared ones.
    for _ in 0..12 {
        assert!(vote(&server, "anna"));
        assert!(vote(&server, "ben"));
    }
    server.kill();
    let server = Server::start(&sandbox, &[]);
    while vote(&server, "carol") {}
    while vote(&server, "anna") {}
    while vote(&server, "ben") {}
    assert_eq!(seen.len(), 40, "every pair was judged");
    let by_all = seen.values().filter(|names| names.len() == 3).count();
    assert_eq!(by_all, 8);
    assert!(seen.values().all(|names| names.len() == 3 || names.len() == 1), "{seen:?}");
}

#[test]
fn a_skipped_pair_goes_to_the_others_and_is_not_shown_again() {
    let sandbox = with_pairs(6);
    let server = Server::start(&sandbox, &["--repeat", "1", "--overlap", "0"]);
    for _ in 0..6 {
        server.vote("anna", "skip");
    }
    assert!(server.next("anna")["current"].is_null());
    let mut judged = BTreeSet::new();
    while let Value::String(key) = &server.next("ben")["current"]["key"] {
        judged.insert(key.split('.').next().unwrap().to_owned());
        server.vote("ben", "left");
    }
    assert_eq!(judged.len(), 6);
    assert!(server.next("carol")["current"].is_null(), "all are judged");
}

#[test]
fn a_pair_on_a_screen_is_not_given_to_another() {
    let sandbox = with_pairs(3);
    let server = Server::start(&sandbox, &["--repeat", "0", "--overlap", "0"]);
    let mut keys = BTreeSet::new();
    for name in ["anna", "ben", "carol"] {
        let shown = server.next(name)["current"].clone();
        assert!(keys.insert(shown["key"].to_string()), "{name} sees what another sees");
        assert_eq!(server.next(name)["current"], shown, "and goes on seeing it");
    }
    for name in ["carol", "anna", "ben"] {
        let shown = server.next(name)["current"].clone();
        assert!(!keys.insert(shown["key"].to_string()));
        assert_eq!(server.next(name)["current"], shown, "whoever asks in between");
    }
    assert!(server.next("dora")["current"].is_null(), "nothing is left that nobody has before them");
    server.undo("dora");
    server.vote("anna", "skip");
    assert!(server.next("dora")["current"].is_object(), "but what was skipped is");
}

#[test]
fn the_next_pair_is_sent_ahead_and_not_sent_again() {
    let sandbox = with_pairs(5);
    let server = Server::start(&sandbox, &["--repeat", "0", "--overlap", "1"]);
    let first = server.next("anna");
    let (current, upcoming) = (first["current"].clone(), first["upcoming"].clone());
    let mut ballot = super::client::ballot("anna", &current["key"], "left");
    ballot["have"] = upcoming["key"].clone();
    let answer = server.post("/api/vote", ballot).json();
    assert_eq!(answer["current"], serde_json::json!({ "key": upcoming["key"] }));
    assert_eq!(server.next("anna")["current"], upcoming);
}
