//! The theorem behind DPO (Rafailov et al. 2023, eq. 4 to 7): trained on all pairs of a listed space with
//! mu = sigma(r_w - r_l), the policy becomes pi*(y|x) = ref(y|x) exp(r(x, y) / beta) / Z(x). PPO with r as reward and
//! beta as KL coefficient must get there too. Beside it what PPO does in small spaces: a bandit, an adaptive coefficient,
//! and a reward that is hacked when nothing holds the policy.
//!
//! The space: two prompts, completions of two letters out of four and EOS, 16 a prompt, 120 pairs a prompt. DPO compares
//! listed completions only, and PPO finds no reward elsewhere, so distributions are taken over the list. Everything goes
//! through the program: `sft` makes the reference, `dpo` and `ppo` policies, `score` says what each thinks of each
//! completion.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::{Sandbox, json_lines, row};
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

/// Writes the start and trains the reference on it: far from uniform, the i-th completion stands 1 + i % 5 times.
fn reference(sandbox: &Sandbox) -> &'static str {
    write_start(sandbox);
    let all = completions();
    let rows: Vec<Map<String, Value>> = (0..PROMPTS.len() * all.len())
        .flat_map(|at| {
            let (prompt, completion) = (PROMPTS[at / all.len()], &all[at % all.len()]);
            vec![row(json!({"prompt": prompt, "completion": completion})); 1 + at % 5]
        })
        .collect();
    sandbox.rows("sft.jsonl", &rows);
    sandbox.rows("prompts.jsonl", &PROMPTS.map(|prompt| row(json!({"prompt": prompt}))));
    sandbox.write("sft.toml", format!("{COMMON}steps = 60\n"));
    sandbox.stage("sft", &["model.init=config"]).ok();
    "reference"
}

const COMMON: &str = "[model]\npath = \"start\"\n\n[data]\ntrain = \"sft.jsonl\"\nmax_length = 8\n\n[train]\nseed = 5\n\
                      output = \"reference\"\nbatch_size = 240\nshuffle = false\nlearning_rate = 0.01\nschedule = \"cosine\"\n";

/// Trains PPO from the reference on `rewards` (JSON: completion -> reward, by prompt; elsewhere `otherwise`).
fn ppo(sandbox: &Sandbox, output: &str, rewards: &Value, otherwise: f64, overrides: &[&str]) {
    sandbox.write("rewards.json", rewards.to_string());
    let program = format!(
        "import json, sys\ntable = json.load(open('rewards.json'))\nfor line in sys.stdin:\n    row = json.loads(line)\n    \
         print(table[row['prompt']].get(row['completion'], {otherwise}), flush=True)\n"
    );
    sandbox.write("reward.py", program);
    sandbox.write(
        "ppo.toml",
        "[model]\npath = \"reference\"\n\n[data]\ntrain = \"prompts.jsonl\"\nmax_length = 8\n\n[train]\nseed = 5\nlog_every = 1\n\
         output = \"ppo\"\nbatch_size = 256\n\n[ppo]\nreward_command = [\"python3\", \"reward.py\"]\nmax_new_tokens = 3\n",
    );
    let output = format!("train.output={output}");
    sandbox.stage("ppo", &[&[output.as_str()], overrides].concat()).ok();
}

/// The rewards of all completions, as `ppo` takes them.
fn table() -> Value {
    let all = completions();
    let of = |x: usize| Value::Object((0..all.len()).map(|y| (all[y].clone(), json!(reward(x, y)))).collect());
    json!({PROMPTS[0]: of(0), PROMPTS[1]: of(1)})
}

/// Fails unless the policy is pi* on the listed completions, to `near` in total variation and in expected reward.
fn assert_optimal(sandbox: &Sandbox, policy: &str, near: f64) {
    let (reference, policy) = (logprobs(sandbox, "reference"), logprobs(sandbox, policy));
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
        assert!(after < near, "{figures}");
        assert!((expected(&ours) - expected(&best)).abs() < near, "{figures}");
    }
}

#[test]
fn dpo_reaches_the_closed_form_optimum() {
    let sandbox = Sandbox::new();
    let model = format!("model.path={}", reference(&sandbox));
    let all = completions();
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
    sandbox.write("dpo.toml", format!("{COMMON}steps = 600\n\n[dpo]\nbeta = {BETA}\n"));
    let overrides = [&model, "data.train=pairs.jsonl", "train.output=policy", "train.learning_rate=0.02"];
    sandbox.stage("dpo", &overrides).ok();
    assert_optimal(&sandbox, "policy", 0.02);
}

#[test]
fn ppo_reaches_the_same_optimum() {
    let sandbox = Sandbox::new();
    reference(&sandbox);
    let coefficient = format!("ppo.kl_coef={BETA}");
    let overrides = [&coefficient, "train.steps=250", "train.learning_rate=0.01", "ppo.gae_lambda=1.0"];
    ppo(&sandbox, "ppo", &table(), -1.0, &overrides);
    assert_optimal(&sandbox, "ppo", 0.02);
}

/// Probabilities of single letters after each prompt.
fn letters(sandbox: &Sandbox, model: &str) -> Vec<Vec<f64>> {
    let rows = PROMPTS
        .iter()
        .flat_map(|p| LETTERS.iter().map(move |l| row(json!({"prompt": p, "completion": l.to_string()}))));
    sandbox.rows("letters.jsonl", &rows.collect::<Vec<_>>());
    let scored = sandbox.run(&["score", "--model", model, "--data", "letters.jsonl"]).ok().stdout;
    let value = |line: &str| serde_json::from_str::<Value>(line).unwrap()["logprob"].as_f64().unwrap();
    scored.lines().map(value).collect::<Vec<_>>().chunks(LETTERS.len()).map(<[f64]>::to_vec).collect()
}

#[test]
fn a_bandit_s_optimum_is_the_reference_tilted_by_its_rewards() {
    let sandbox = Sandbox::new();
    reference(&sandbox);
    let rewards = [0.3, -0.4, 0.8, 0.0];
    let arms: Map<String, Value> = LETTERS.iter().zip(rewards).map(|(l, r)| (l.to_string(), json!(r))).collect();
    let overrides = ["ppo.kl_coef=0.5", "ppo.max_new_tokens=1", "train.steps=200", "train.learning_rate=0.01"];
    ppo(&sandbox, "bandit", &json!({PROMPTS[0]: arms, PROMPTS[1]: arms}), -1.0, &overrides);
    for (before, after) in letters(&sandbox, "reference").iter().zip(letters(&sandbox, "bandit")) {
        let best = normalised(before.iter().zip(rewards).map(|(logp, r)| logp + r / 0.5));
        let (start, ours) = (normalised(before.iter().copied()), normalised(after.iter().copied()));
        println!("{start:?} -> {ours:?}, the optimum is {best:?}");
        assert!(total_variation(&start, &best) > 0.2);
        assert!(total_variation(&ours, &best) < 0.01, "{ours:?} is not {best:?}");
    }
}

/// The mean of a figure over the last `window` iterations.
fn late(sandbox: &Sandbox, run: &str, name: &str, window: usize) -> f64 {
    let lines = json_lines(&sandbox.path(run).join("metrics.jsonl"));
    let values: Vec<f64> = lines.iter().filter_map(|line| line.get(name).and_then(Value::as_f64)).collect();
    let last = &values[values.len() - window..];
    last.iter().sum::<f64>() / last.len() as f64
}

#[test]
fn the_adaptive_coefficient_brings_the_kl_to_its_target() {
    let sandbox = Sandbox::new();
    reference(&sandbox);
    // At twice this learning rate one run of ten loses its way, whatever the coefficient; at this one none of ten seeds left
    // 10% of the target.
    for (run, start, target) in [("from-below", "ppo.kl_coef=2.0", 0.6), ("from-above", "ppo.kl_coef=0.02", 0.25)] {
        let target_kl = format!("ppo.target_kl={target}");
        let overrides = [
            start,
            &target_kl,
            "ppo.kl_horizon=1000",
            "train.steps=200",
            "train.learning_rate=0.0015",
            "train.schedule=constant",
        ];
        ppo(&sandbox, run, &table(), -1.0, &overrides);
        let kl = late(&sandbox, run, "objective/kl", 60);
        assert!((kl / target - 1.0).abs() < 0.2, "{run}: KL {kl}, the target is {target}");
    }
}

#[test]
fn without_a_kl_coefficient_the_kl_grows_and_the_proxy_is_hacked() {
    let sandbox = Sandbox::new();
    reference(&sandbox);
    // What is wanted is one "a"; what is measured counts them.
    let count = |text: &str| text.chars().filter(|c| *c == 'a').count() as f64;
    let of = || Value::Object(completions().into_iter().map(|y| (y.clone(), json!(count(&y)))).collect());
    let proxy = json!({PROMPTS[0]: of(), PROMPTS[1]: of()});
    let gold = |run: &str| -> f64 {
        let all = completions();
        let each = logprobs(&sandbox, run).into_iter().map(|logps| {
            let p = normalised(logps.into_iter());
            p.iter().zip(&all).map(|(p, y)| p * f64::from(u8::from(count(y) == 1.0))).sum::<f64>()
        });
        each.sum::<f64>() / PROMPTS.len() as f64
    };
    for (run, coefficient) in [("held", "ppo.kl_coef=1.0"), ("free", "ppo.kl_coef=0")] {
        ppo(&sandbox, run, &proxy, 0.0, &[coefficient, "train.steps=100", "train.learning_rate=0.01"]);
    }
    let of = |name: &str| (late(&sandbox, "held", name, 15), late(&sandbox, "free", name, 15));
    let ((held_kl, free_kl), (held, free)) = (of("objective/kl"), of("objective/scores"));
    let (held_gold, free_gold) = (gold("held"), gold("free"));
    let figures = format!(
        "KL {held_kl:.2} and {free_kl:.2}, proxy {held:.2} and {free:.2}, gold {held_gold:.2} and {free_gold:.2}"
    );
    println!("held and free: {figures}");
    assert!(free_kl > 2.0 * held_kl && free > held + 0.3, "{figures}");
    assert!(free_gold < held_gold - 0.1, "the proxy's gain is the gold's loss: {figures}");
}
