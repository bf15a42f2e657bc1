//! The sampling distribution against transformers' logits warpers (scripts/goldens/sampling.py).
#![allow(clippy::unwrap_used)]
use crate::support::{assert_close, json, list, number, tensor};
use collimate::rollout::sampling::{Sampling, probabilities, sample};
use serde_json::Value;

/// How many evenly spaced uniforms are tried on a row: each token's share of them is its probability to within a
/// rounding at either end of its interval.
const GRID: usize = 4000;

fn sampling(case: &Value) -> Sampling {
    Sampling {
        temperature: number(case, "temperature"),
        top_k: case["top_k"].as_u64().unwrap() as usize,
        top_p: number(case, "top_p"),
        greedy: false,
    }
}

#[test]
fn shares_of_evenly_spaced_uniforms_are_the_probabilities() {
    let file = json("sampling.json");
    let logits = tensor(&file["logits"]);
    let (rows, vocabulary) = logits.size2().unwrap();
    for case in list(&file, "cases") {
        let sampling = sampling(case);
        for row in 0..rows {
            let repeated = logits.narrow(0, row, 1).repeat([GRID as i64, 1]);
            let uniforms: Vec<f64> = (0..GRID).map(|j| (j as f64 + 0.5) / GRID as f64).collect();
            let mut counts = vec![0usize; vocabulary as usize];
            for token in sample(&repeated, &sampling, &uniforms).unwrap() {
                counts[token as usize] += 1;
            }
            for (token, &count) in counts.iter().enumerate() {
                let expected = case["probabilities"][row as usize][token].as_f64().unwrap();
                let share = count as f64 / GRID as f64;
                let what = format!("{sampling:?}, row {row}, token {token}: share {share}, probability {expected}");
                assert!((share - expected).abs() <= 1.5 / GRID as f64, "{what}");
                assert!(expected > 0.0 || count == 0, "{what}");
            }
        }
    }
}

#[test]
fn probabilities_after_temperature_top_k_and_top_p() {
    let file = json("sampling.json");
    let logits = tensor(&file["logits"]);
    for case in list(&file, "cases") {
        let sampling = sampling(case);
        let ours = probabilities(&logits, &sampling).unwrap();
        assert_close(&format!("{sampling:?}"), &ours, &tensor(&case["probabilities"]), 1e-6);
    }
}

#[test]
fn greedy_takes_the_largest() {
    let logits = tensor(&json("sampling.json")["logits"]);
    let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, greedy: true };
    let uniforms = vec![0.999; logits.size()[0] as usize];
    let expected: Vec<i64> = Vec::try_from(logits.argmax(-1, false)).unwrap();
    assert_eq!(sample(&logits, &sampling, &uniforms).unwrap(), expected);
}

/// The ends of the unit interval must give a token that has some probability.
#[test]
fn extreme_uniforms_give_possible_tokens() {
    let file = json("sampling.json");
    let logits = tensor(&file["logits"]);
    for case in list(&file, "cases") {
        let sampling = sampling(case);
        for uniform in [0.0, 1.0 - f64::EPSILON] {
            let tokens = sample(&logits, &sampling, &vec![uniform; logits.size()[0] as usize]).unwrap();
            for (row, token) in tokens.into_iter().enumerate() {
                let probability = case["probabilities"][row][token as usize].as_f64().unwrap();
                assert!(probability > 0.0, "{sampling:?}, row {row}, uniform {uniform}: token {token} is impossible");
            }
        }
    }
}
