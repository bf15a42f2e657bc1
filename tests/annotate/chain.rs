//! The whole chain: a model's own completions, judged by a person in a browser, exported, trained on.
#![allow(clippy::unwrap_used)]
use super::browser::Browser;
use super::client::Server;
use super::page::{ALONE, ENDED, enter, press};
use crate::support::golden;
use crate::support::sandbox::{Sandbox, json_lines, row};
use serde_json::json;

/// The taste of this test's person.
fn worth(text: &str) -> f64 {
    text.matches('e').count() as f64 / (1 + text.chars().count()) as f64
}

#[test]
fn collected_pairs_are_judged_exported_and_trained_on() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = Sandbox::with_stages();
    let prompts = ["The film", "A scene", "They like", "When they", "After that", "This movie"];
    sandbox.rows("prompts.jsonl", &prompts.map(|prompt| row(json!({ "prompt": prompt }))));
    let model = golden("models/gpt2-tiny");
    let config = format!(
        "[collect]\nmodels = {model:?}\nprompts = \"prompts.jsonl\"\noutput = \"pairs.jsonl\"\nmax_new_tokens = 12\n\
         device = \"cpu\"\n"
    );
    sandbox.write("collect.toml", config);
    // The stages have pairs of their own.
    std::fs::remove_file(sandbox.path("pairs.jsonl")).unwrap();
    sandbox.run(&["collect", "collect.toml"]).ok();
    assert_eq!(json_lines(&sandbox.path("pairs.jsonl")).len(), 6);

    let server = Server::start(&sandbox, &ALONE);
    let tab = enter(&mut browser, &server, "anna");
    for done in 1..=6 {
        let (left, right) = (browser.text(&tab, "#left .said"), browser.text(&tab, "#right .said"));
        let key = if worth(&left) > worth(&right) {
            "ArrowLeft"
        } else if worth(&left) < worth(&right) {
            "ArrowRight"
        } else {
            "t"
        };
        press(&mut browser, &tab, key, done);
    }
    browser.wait(&tab, ENDED);
    browser.nothing_went_wrong(&tab, &server.address);
    server.kill();

    sandbox.run(&["annotate", "pairs.jsonl", "--export", "preferences.jsonl"]).ok();
    let preferences = json_lines(&sandbox.path("preferences.jsonl"));
    assert_eq!(preferences.len(), 6);
    for pair in &preferences {
        let (chosen, rejected) = (pair["chosen"].as_str().unwrap(), pair["rejected"].as_str().unwrap());
        let expected = if worth(chosen) > worth(rejected) { 1.0 } else { 0.5 };
        assert!(worth(chosen) >= worth(rejected) && pair["preference"] == expected, "{pair:?}");
        assert_eq!(pair["chosen_source"]["seed"], 0);
    }
    for stage in ["reward", "dpo"] {
        let output = format!("train.output=from-{stage}");
        sandbox.stage(stage, &["data.train=preferences.jsonl", &output, "train.epochs=2"]).ok();
        assert!(sandbox.path(&format!("from-{stage}/model.safetensors")).is_file());
    }
}
