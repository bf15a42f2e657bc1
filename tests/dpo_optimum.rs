//! The theorem behind DPO (Rafailov et al. 2023, eq. 4 to 7): trained on all pairs of a listed space with
//! mu = sigma(r_w - r_l), the policy becomes pi*(y|x) = ref(y|x) exp(r(x, y) / beta) / Z(x).
//!
//! The space: two prompts, completions of two letters out of four and EOS, 16 a prompt, 120 pairs a prompt. The loss
//! compares listed completions only, so distributions are taken over the list. Everything goes through the program:
//! `sft` makes the reference, `dpo` the policy, `score` says what both think of each completion.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::{Sandbox, row};
use serde_json::{Map, Value, json};

const PROMPTS: [&str; 2] = ["p", "q"];
const LETTERS: [char; 4] = ['a', 'b', 'c', 'd'];
const BETA: f64 = 0.5;

/// The completions of a prompt, in order.
fn completions() -> Vec<String> {
    LETTERS.iter().flat_map(|first| LETTERS.iter().map(move |second| format!("{first}{second}"))).collect()
}

/// The gold reward: fixed, different for every prompt and completion, between -1 and 1.
fn reward(prompt: usize, completion: usize) -> f64 {
    ((7 * prompt + 5 * completion + completion * completion) as f64 * 0.9).sin()
}

/// A model directory with a tokenizer of one letter a token and a configuration, without weights.
fn write_start(sandbox: &Sandbox) {
    let mut vocab = Map::from_iter([("<eos>".to_owned(), json!(0))]);
    for token in ["p", "q", "a", "b", "c", "d"] {
        vocab.insert(token.into(), json!(vocab.len()));
    }
    let eos = json!({"id": 0, "content": "<eos>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [eos],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}});
    sandbox.write("start/tokenizer.json", tokenizer.to_string());
    sandbox.write("start/tokenizer_config.json", json!({"eos_token": "<eos>"}).to_string());
    let config = json!({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 7, "n_positions": 8,
        "n_embd": 32, "n_layer": 1, "n_head": 2, "initializer_range": 0.1});
    sandbox.write("start/config.json", config.to_string());
}

/// Log-probs of all completions of all prompts under a model, EOS included.
fn logprobs(sandbox: &Sandbox, model: &str) -> Vec<Vec<f64>> {
    let all = completions();
    let rows: Vec<Map<String, Value>> = PROMPTS
        .iter()
        .flat_map(|prompt| all.iter().map(move |completion| row(json!({"prompt": prompt, "completion": completion}))))
        .collect();
    sandbox.rows("all.jsonl", &rows);
    let scored = sandbox.run(&["score", "--model", model, "--data", "all.jsonl", "--eos"]).ok().stdout;
    let value = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["tokens"].as_array().unwrap().len(), 3, "two letters and EOS");
        line["logprob"].as_f64().unwrap()
    };
    scored.lines().map(value).collect::<Vec<_>>().chunks(all.len()).map(<[f64]>::to_vec).collect()
}

/// exp(weights) over its sum.
fn normalised(weights: impl Iterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = weights.map(f64::exp).collect();
    let total: f64 = values.iter().sum();
    values.iter().map(|value| value / total).collect()
}

fn total_variation(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
}

#[test]
fn dpo_reaches_the_closed_form_optimum() {
    let sandbox = Sandbox::new();
    write_start(&sandbox);
    let all = completions();
    // A reference that is far from uniform: the i-th completion stands 1 + i % 5 times.
    let rows: Vec<Map<String, Value>> = (0..PROMPTS.len() * all.len())
        .flat_map(|at| {
            let (prompt, completion) = (PROMPTS[at / all.len()], &all[at % all.len()]);
            vec![row(json!({"prompt": prompt, "completion": completion})); 1 + at % 5]
        })
        .collect();
    sandbox.rows("sft.jsonl", &rows);
    let mut pairs = Vec::new();
    for (x, prompt) in PROMPTS.iter().enumerate() {
        for w in 0..all.len() {
            for l in w + 1..all.len() {
                let mu = 1.0 / (1.0 + (reward(x, l) - reward(x, w)).exp());
                let columns = json!({"prompt": prompt, "chosen": all[w], "rejected": all[l], "preference": mu});
                pairs.push(row(columns));
            }
        }
    }
    assert_eq!(pairs.len(), 240);
    sandbox.rows("pairs.jsonl", &pairs);
    let common = "[model]\npath = \"start\"\n\n[data]\ntrain = \"sft.jsonl\"\nmax_length = 8\n\n[train]\nseed = 5\n\
                  output = \"reference\"\nbatch_size = 240\nshuffle = false\nlearning_rate = 0.01\nschedule = \"cosine\"\n";
    sandbox.write("sft.toml", format!("{common}steps = 60\n"));
    sandbox.stage("sft", &["model.init=config"]).ok();
    sandbox.write("dpo.toml", format!("{common}steps = 600\n\n[dpo]\nbeta = {BETA}\n"));
    sandbox
        .stage(
            "dpo",
            &["model.path=reference", "data.train=pairs.jsonl", "train.output=policy", "train.learning_rate=0.02"],
        )
        .ok();

    let (reference, policy) = (logprobs(&sandbox, "reference"), logprobs(&sandbox, "policy"));
    for x in 0..PROMPTS.len() {
        let start = normalised(reference[x].iter().copied());
        let ours = normalised(policy[x].iter().copied());
        let best = normalised(reference[x].iter().enumerate().map(|(y, logp)| logp + reward(x, y) / BETA));
        let expected = |p: &[f64]| p.iter().enumerate().map(|(y, p)| p * reward(x, y)).sum::<f64>();
        let (before, after) = (total_variation(&start, &best), total_variation(&ours, &best));
        let figures = format!(
            "prompt {}: total variation to pi* {before:.4} before, {after:.5} after; expected reward {:.4} before, \
             {:.4} after, {:.4} at the optimum",
            PROMPTS[x],
            expected(&start),
            expected(&ours),
            expected(&best)
        );
        println!("{figures}");
        assert!(before > 0.3, "the optimum is too near the reference to tell: {figures}");
        assert!(after < 0.02, "{figures}");
        assert!((expected(&ours) - expected(&best)).abs() < 0.02, "{figures}");
    }
}
