//! Rewards a token: that a summed reward model finds the rewards that made its preferences, and how they are shown.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::{Sandbox, json_lines, row};
use crate::support::{golden, json};
use collimate::seed;
use rand::RngExt;
use serde_json::{Map, Value, json};

/// Words that are one token each after a space.
fn words() -> Vec<String> {
    let vocabulary = json("models/gpt2-tiny/tokenizer.json")["model"]["vocab"].as_object().unwrap().clone();
    let mut words: Vec<String> = vocabulary
        .keys()
        .filter_map(|token| token.strip_prefix('Ġ'))
        .filter(|word| word.len() > 2 && word.chars().all(|c| c.is_ascii_lowercase()))
        .map(str::to_owned)
        .collect();
    words.sort();
    words
}

/// What a word is worth: the truth of this test.
fn worth(word: usize) -> f64 {
    2.4 * seed::rng(5, "worth", &[word as u64]).random::<f64>() - 1.2
}

fn text(words: &[String], chosen: &[usize]) -> String {
    chosen.iter().map(|&word| format!(" {}", words[word])).collect()
}

/// Preferences drawn by Bradley and Terry from the sums of the words' worths.
fn preferences(words: &[String], count: u64) -> Vec<Map<String, Value>> {
    let pair = |number: u64| {
        let mut rng = seed::rng(7, "pairs", &[number]);
        let mut side = || -> Vec<usize> {
            let length = 4 + rng.random_range(0..5);
            (0..length).map(|_| rng.random_range(0..words.len())).collect()
        };
        let (a, b) = (side(), side());
        let sum = |side: &[usize]| side.iter().map(|&word| worth(word)).sum::<f64>();
        let wins = rng.random::<f64>() < 1.0 / (1.0 + (sum(&b) - sum(&a)).exp());
        let (chosen, rejected) = if wins { (a, b) } else { (b, a) };
        (chosen != rejected)
            .then(|| row(json!({"prompt": "Say", "chosen": text(words, &chosen), "rejected": text(words, &rejected)})))
    };
    (0..count).filter_map(pair).collect()
}

fn correlation(pairs: &[(f64, f64)]) -> f64 {
    let n = pairs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / n;
    let (a, b) = (mean(|p| p.0), mean(|p| p.1));
    let cross = pairs.iter().map(|p| (p.0 - a) * (p.1 - b)).sum::<f64>();
    let (va, vb) = pairs.iter().fold((0.0, 0.0), |(x, y), p| (x + (p.0 - a).powi(2), y + (p.1 - b).powi(2)));
    cross / (va * vb).sqrt()
}

#[test]
fn rewards_of_tokens_are_recovered_from_preferences_between_sums() {
    let sandbox = Sandbox::with_stages();
    let words = words();
    assert!(words.len() >= 20, "{words:?}");
    sandbox.rows("pairs.jsonl", &preferences(&words, 4000));
    let more = ["reward.pooling=sum", "train.epochs=4", "train.batch_size=32", "train.learning_rate=1e-2"];
    sandbox.stage("reward", &more).ok();
    let held_out = |number: u64| {
        let mut rng = seed::rng(11, "held out", &[number]);
        let chosen: Vec<usize> = (0..6).map(|_| rng.random_range(0..words.len())).collect();
        (row(json!({"prompt": "Say", "completion": text(&words, &chosen), "id": number})), chosen)
    };
    let (rows, chosen): (Vec<_>, Vec<_>) = (0..60).map(held_out).unzip();
    sandbox.rows("rows.jsonl", &rows);
    let score = ["score", "--model", "run", "--data", "rows.jsonl", "--device", "cpu"];
    sandbox.run(&[&score[..], &["--per-token", "--html", "tokens.html", "--output", "tokens.jsonl"]].concat()).ok();
    sandbox.run(&[&score[..], &["--output", "sums.jsonl"]].concat()).ok();
    let mut pairs = Vec::new();
    let sums = json_lines(&sandbox.path("sums.jsonl"));
    for ((row, sum), chosen) in json_lines(&sandbox.path("tokens.jsonl")).iter().zip(&sums).zip(&chosen) {
        let rewards: Vec<f64> = row["token_rewards"].as_array().unwrap().iter().map(|r| r.as_f64().unwrap()).collect();
        let texts: Vec<&str> = row["token_texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        // The words, and EOS.
        assert_eq!((rewards.len(), row["tokens"].as_array().unwrap().len()), (7, 7));
        assert_eq!(texts[..6].concat(), row["completion"].as_str().unwrap());
        assert!((row["reward"].as_f64().unwrap() - sum["reward"].as_f64().unwrap()).abs() < 1e-5);
        assert_eq!(row["id"], sum["id"]);
        pairs.extend(rewards.iter().zip(chosen).map(|(&reward, &word)| (reward, worth(word))));
    }
    let found = correlation(&pairs);
    println!("correlation {found:.3}");
    assert!(found > 0.9, "correlation {found:.3}");
    let page = std::fs::read_to_string(sandbox.path("tokens.html")).unwrap();
    assert!(page.contains("class=\"t p") && page.contains("class=\"t m") && !page.contains("<script"));
}

#[test]
fn the_page_shows_text_as_text_and_characters_whole() {
    let sandbox = Sandbox::with_stages();
    sandbox.stage("reward", &["reward.pooling=sum", "train.steps=1"]).ok();
    let hostile = "</style><script>alert(1)</script> <b>\u{1f600}é</b>\n & \"x\"";
    let alone = "Thursday's film was good";
    let rows = [row(json!({"prompt": "<i>p</i>", "completion": hostile})), row(json!({ "text": alone }))];
    sandbox.rows("rows.jsonl", &rows);
    let score = ["score", "--model", "run", "--data", "rows.jsonl", "--per-token", "--device", "cpu"];
    sandbox.run(&[&score[..], &["--html", "tokens.html", "--output", "tokens.jsonl"]].concat()).ok();
    let rows = json_lines(&sandbox.path("tokens.jsonl"));
    let texts: Vec<&str> = rows[0]["token_texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    assert_eq!(texts[..texts.len() - 1].concat(), hostile);
    let page = std::fs::read_to_string(sandbox.path("tokens.html")).unwrap();
    for raw in ["<script", "<b>", "<i>p", "alert(1)<"] {
        assert!(!page.contains(raw), "{raw}");
    }
    // Of a text the first token has no reward, but it is shown.
    let second = page.rsplit("<article>").next().unwrap().split("<details>").next().unwrap();
    let shown: String = second.split('>').map(|part| part.split('<').next().unwrap()).collect();
    assert!(shown.contains(&alone.replace('\'', "&#x27;")), "{shown}");
    assert!(page.contains("&lt;i&gt;p&lt;") && page.contains('\u{1f600}') && page.contains("default-src 'none'"));
    assert_eq!(page.matches("</style>").count(), 1);
    let line = sandbox.run(&score).ok().stdout;
    assert!(line.contains("token_rewards"));
}

#[test]
fn models_without_rewards_a_token_are_refused() {
    let sandbox = Sandbox::with_stages();
    sandbox.rows("rows.jsonl", &[row(json!({"prompt": "A", "completion": " film"}))]);
    let run = |model: &str, more: &[&str]| {
        let base = ["score", "--model", model, "--data", "rows.jsonl", "--device", "cpu"];
        sandbox.run(&[&base[..], more].concat()).refused(2)
    };
    assert!(run("rewarder", &["--per-token"]).contains("reward.pooling = \"sum\""));
    let language_model = golden("models/gpt2-tiny");
    assert!(run(language_model.to_str().unwrap(), &["--per-token"]).contains("logprobs"));
    assert!(run("rewarder", &["--per-token", "--html", "rows.jsonl"]).contains("exists already"));
    assert!(run("rewarder", &["--per-token", "--html", "new", "--output", "./new"]).contains("one file"));
}
