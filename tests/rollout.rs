//! Generation: reproducible, independent of batching, greedy = argmax of the whole forward; sampling frequencies against
//! the exact distribution.
#![allow(clippy::unwrap_used)]
use collimate::model::{CausalLm, ModelInput};
use collimate::rollout::generate::{GenerateOptions, generate};
use collimate::rollout::sampling::{Sampling, probabilities, sample, uniform};
use tch::Tensor;

use crate::support::device;
use crate::tiny::{FROZEN, gpt2, ids, llama, logits, model};

const OPTIONS: GenerateOptions =
    GenerateOptions { max_new_tokens: 12, sampling: PLAIN, eos: Some(3), seed: 11, batch_size: 4 };
const PLAIN: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, greedy: false };

fn prompts() -> Vec<Vec<i64>> {
    (1..=9).map(|n| ids(n, n as i64)).collect()
}

fn run(model: &CausalLm, options: &GenerateOptions) -> Vec<Vec<i64>> {
    generate(model, &prompts(), options, |_| Ok(())).unwrap()
}

#[test]
fn results_do_not_depend_on_batching() {
    for shape in [gpt2(), llama()] {
        let model = model(shape, &FROZEN);
        for sampling in [PLAIN, Sampling::greedy(), Sampling { temperature: 0.7, top_k: 9, top_p: 0.8, greedy: false }]
        {
            let whole = run(&model, &GenerateOptions { sampling, batch_size: 100, ..OPTIONS });
            for batch_size in [1, 2, 4] {
                assert_eq!(whole, run(&model, &GenerateOptions { sampling, batch_size, ..OPTIONS }));
            }
        }
    }
}

#[test]
fn seeds_decide() {
    let model = model(gpt2(), &FROZEN);
    let first = run(&model, &OPTIONS);
    assert_eq!(first, run(&model, &OPTIONS));
    assert_ne!(first, run(&model, &GenerateOptions { seed: 12, ..OPTIONS }));
    // The same prompt twice is two draws.
    let twice = generate(&model, &[ids(3, 1), ids(3, 1)], &OPTIONS, |_| Ok(())).unwrap();
    assert_ne!(twice[0], twice[1]);
}

#[test]
fn greedy_is_the_argmax_of_the_whole_forward() {
    for shape in [gpt2(), llama()] {
        let model = model(shape, &FROZEN);
        let options = GenerateOptions { sampling: Sampling::greedy(), eos: None, ..OPTIONS };
        for (prompt, completion) in prompts().into_iter().zip(run(&model, &options)) {
            let mut sequence = prompt;
            for token in completion {
                let input = ModelInput::from_sequences(std::slice::from_ref(&sequence), device()).unwrap();
                let last = logits(&model, &input).get(sequence.len() as i64 - 1);
                assert_eq!(i64::try_from(last.argmax(-1, false)).unwrap(), token);
                sequence.push(token);
            }
        }
    }
}

#[test]
fn completions_end_with_eos_or_at_the_limit() {
    let model = model(gpt2(), &FROZEN);
    let many: Vec<Vec<i64>> = (0..60).map(|n| ids(4, n)).collect();
    let mut heard = Vec::new();
    let options = GenerateOptions { batch_size: 25, ..OPTIONS };
    let completions = generate(&model, &many, &options, |done| {
        heard.push(done);
        Ok(())
    })
    .unwrap();
    let ended = completions.iter().filter(|c| c.last() == Some(&3)).count();
    assert!(ended > 5 && ended < 60, "{ended}: the test should see both ends");
    for completion in &completions {
        assert!(completion.len() == 12 || completion.last() == Some(&3));
        assert_eq!(completion.iter().filter(|&&token| token == 3).count(), usize::from(completion.last() == Some(&3)));
    }
    assert!(heard.is_sorted() && heard.last() == Some(&60));
    let none = GenerateOptions { max_new_tokens: 0, ..OPTIONS };
    assert!(run(&model, &none).iter().all(Vec::is_empty));
}

/// With and without EOS the tokens before it are the same: rows that leave disturb nobody.
#[test]
fn rows_that_leave_disturb_nobody() {
    for shape in [gpt2(), llama()] {
        let model = model(shape, &FROZEN);
        let endless = run(&model, &GenerateOptions { eos: None, ..OPTIONS });
        for (short, long) in run(&model, &OPTIONS).iter().zip(&endless) {
            assert_eq!(short[..], long[..short.len()]);
        }
    }
}

#[test]
fn what_cannot_be_generated_is_refused() {
    let model = model(gpt2(), &FROZEN);
    let refused = |prompt: Vec<i64>, options: GenerateOptions| {
        let error = generate(&model, &[prompt], &options, |_| Ok(())).expect_err("refused");
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    assert!(refused(vec![], OPTIONS).contains("empty"));
    assert!(refused(ids(60, 1), OPTIONS).contains("64"));
    assert!(refused(ids(3, 1), GenerateOptions { batch_size: 0, ..OPTIONS }).contains("batch"));
    for temperature in [0.0, -1.0, f64::NAN] {
        let sampling = Sampling { temperature, ..PLAIN };
        assert!(refused(ids(3, 1), GenerateOptions { sampling, ..OPTIONS }).contains("temperature"));
    }
    for top_p in [0.0, 1.5, f64::NAN] {
        let sampling = Sampling { top_p, ..PLAIN };
        assert!(refused(ids(3, 1), GenerateOptions { sampling, ..OPTIONS }).contains("top-p"));
    }
}

/// The exact distribution, computed here the plain way in float64.
fn exact(logits: &[f64], sampling: &Sampling) -> Vec<f64> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let mut weights: Vec<f64> = logits.iter().map(|x| (x / sampling.temperature).exp()).collect();
    if sampling.top_k > 0 {
        order.iter().skip(sampling.top_k).for_each(|&i| weights[i] = 0.0);
    }
    let total: f64 = weights.iter().sum();
    let mut before = 0.0;
    for &i in &order {
        let probability = weights[i] / total;
        if before >= sampling.top_p {
            weights[i] = 0.0;
        }
        before += probability;
    }
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

/// Chi-square over 40,000 draws from the generator that generation uses.
#[test]
fn frequencies_match_the_exact_distribution() {
    const DRAWS: usize = 40_000;
    let row: Vec<f64> = (0..12).map(|i| 2.0 * (i as f64 * 1.3).sin()).collect();
    let logits = Tensor::from_slice(&row).to_kind(tch::Kind::Float).unsqueeze(0).to_device(device());
    let many = logits.expand([DRAWS as i64, 12], false).contiguous();
    let uniforms: Vec<f64> = (0..DRAWS).map(|i| uniform(5, i as u64, (i % 7) as u64)).collect();
    let top = |top_k, top_p| Sampling { temperature: 1.0, top_k, top_p, greedy: false };
    for sampling in [PLAIN, Sampling { temperature: 0.6, ..PLAIN }, top(4, 1.0), top(0, 0.7), top(7, 0.9), top(1, 1.0)]
    {
        let wanted = exact(&row, &sampling);
        let got: Vec<f64> = Vec::<f32>::try_from(probabilities(&logits, &sampling).unwrap().get(0))
            .unwrap()
            .iter()
            .map(|&p| p.into())
            .collect();
        let mut counts = [0.0; 12];
        for token in sample(&many, &sampling, &uniforms).unwrap() {
            counts[token as usize] += 1.0;
        }
        let (mut square, mut cells) = (0.0, 0.0);
        for i in 0..12 {
            assert!((wanted[i] - got[i]).abs() < 1e-6, "{sampling:?}: {wanted:?} {got:?}");
            let expected = wanted[i] * DRAWS as f64;
            if expected == 0.0 {
                assert_eq!(counts[i], 0.0, "{sampling:?}: token {i} is ruled out");
            } else {
                square += (counts[i] - expected).powi(2) / expected;
                cells += 1.0;
            }
        }
        // Mean n - 1, variance 2 (n - 1): five standard deviations.
        let freedom: f64 = cells - 1.0;
        assert!(square <= freedom + 5.0 * (2.0 * freedom).sqrt(), "{sampling:?}: chi-square {square} of {freedom}");
    }
}

/// The ends of the unit interval give the first and the last token with any probability.
#[test]
fn the_inverse_transform_keeps_its_ends() {
    let minus = f32::NEG_INFINITY;
    let logits = Tensor::from_slice(&[minus, 0.0, 1.0, minus, 0.5, minus, minus]).unsqueeze(0).to_device(device());
    assert_eq!(sample(&logits, &PLAIN, &[0.0]).unwrap(), [1]);
    assert_eq!(sample(&logits, &PLAIN, &[1.0 - f64::EPSILON / 2.0]).unwrap(), [4]);
    assert_eq!(sample(&logits, &PLAIN, &[1.0]).unwrap(), [4]);
    assert!(sample(&logits, &PLAIN, &[]).is_err());
}

#[test]
fn uniforms_are_uniform_and_differ() {
    let draws: Vec<f64> = (0..2000).map(|i| uniform(1, i / 50, i % 50)).collect();
    assert!(draws.iter().all(|u| (0.0..1.0).contains(u)));
    let mean = draws.iter().sum::<f64>() / 2000.0;
    assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0_f64 / 2000.0).sqrt());
    assert_ne!(uniform(1, 2, 3), uniform(1, 3, 2));
    assert_ne!(uniform(1, 2, 3), uniform(2, 2, 3));
}
