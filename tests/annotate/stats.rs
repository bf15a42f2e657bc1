//! Agreement and bias, against an independent implementation and by hand.
#![allow(clippy::unwrap_used)]
use super::client::{Server, with_pairs};
use crate::support::{assert_number, json as golden, list};
use collimate::annotate::stats::agreement;
use serde_json::Value;

#[test]
fn krippendorffs_alpha_is_that_of_the_reference() {
    let file = golden("agreement.json");
    let cases = list(&file, "cases");
    assert!(cases.len() >= 10);
    for case in cases {
        // One list a rater, one entry a unit, null where there is none.
        let raters: Vec<&Vec<Value>> = list(case, "ratings").iter().map(|row| row.as_array().unwrap()).collect();
        let unit = |at: usize| raters.iter().filter_map(|row| row[at].as_i64()).collect::<Vec<i64>>();
        let units: Vec<Vec<i64>> = (0..raters[0].len()).map(unit).collect();
        let found = agreement(&units);
        match case["alpha"].as_f64() {
            Some(alpha) => assert_number(&case["name"].to_string(), found.alpha.unwrap(), alpha, 1e-12),
            None => assert_eq!(found.alpha, None, "{}", case["name"]),
        }
        assert_eq!(found.pairs as u64, case["pairs"].as_u64().unwrap(), "{}", case["name"]);
    }
}

#[test]
fn the_page_is_told_of_bias_pace_and_agreement() {
    let sandbox = with_pairs(24);
    let server = Server::start(&sandbox, &["--repeat", "0.5", "--overlap", "1"]);
    // Always left: with the sides swapped, every pair that comes again is judged the other way.
    let mut shown = 0;
    while server.next("anna")["current"].is_object() {
        server.vote("anna", "left");
        shown += 1;
    }
    for choice in ["right", "tie", "both_bad", "skip"] {
        server.vote("ben", choice);
    }
    let found = server.request("POST", "/api/statistics", "{}").json();
    let anna = &found["annotators"][0];
    assert_eq!((anna["name"].as_str(), anna["votes"].as_u64()), (Some("anna"), Some(shown)));
    assert_eq!((anna["left"].as_u64(), anna["right"].as_u64()), (Some(shown), Some(0)));
    assert_eq!(anna["left_share"], 1.0);
    // Wilson's interval of n of n begins at n / (n + z^2).
    let low = anna["left_interval"][0].as_f64().unwrap();
    let square = 1.959963984540054_f64.powi(2);
    assert_number("interval", low, shown as f64 / (shown as f64 + square), 1e-12);
    assert!(anna["repeated"].as_u64().unwrap() >= 9, "{anna}");
    assert_eq!(anna["consistent"], 0);
    assert_eq!(anna["pace"], 2.0);
    let ben = &found["annotators"][1];
    for (key, count) in [("left", 0), ("right", 1), ("ties", 1), ("both_bad", 1), ("skipped", 1), ("votes", 4)] {
        assert_eq!(ben[key], count, "{key}");
    }
    assert_eq!(found["all"]["votes"], shown + 4);
    assert_eq!(found["agreement"]["pairs"], 3, "the skipped one is missing");
    // What is taken back is gone from the statistics.
    (0..4).for_each(|_| drop(server.undo("ben")));
    let found = server.request("POST", "/api/statistics", "{}").json();
    assert_eq!(found["agreement"]["pairs"], 0);
    assert!(found["agreement"]["alpha"].is_null());
    assert_eq!(found["annotators"].as_array().unwrap().len(), 1);
}
