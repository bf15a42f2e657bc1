//! Divergences from an expert's distribution and their gradients against TRL's GKD and PyTorch (scripts/goldens/distill.py).
#![allow(clippy::unwrap_used)]
use crate::support::{assert_close, assert_number, device, json, list, number, tensor, text};
use collimate::loss::distill::{Distilled, Divergence, Expert, distill, divergence, keep};
use collimate::loss::logprobs::Projection;
use serde_json::Value;
use tch::{Kind, Tensor};

const TOLERANCE: f64 = 1e-5;

fn which(case: &Value) -> Divergence {
    match text(case, "loss") {
        "forward_kl" => Divergence::ForwardKl,
        "reverse_kl" => Divergence::ReverseKl,
        _ => Divergence::JensenShannon { weight: number(case, "weight") },
    }
}

fn project(weight: &Tensor) -> Projection<'_> {
    Projection { weight, compute: Kind::Float }
}

/// The expert's kept actions of a case.
fn kept(file: &Value, case: &Value) -> Option<(Tensor, Tensor)> {
    let logits = tensor(&file["expert"]).matmul(&tensor(&file["expert_head"]).tr());
    let top = case["top_k"].as_u64().unwrap() as usize;
    (top > 0).then(|| keep(&(logits / number(case, "temperature")), top).unwrap())
}

#[test]
fn divergences_and_their_gradients() {
    let file = json("distill.json");
    let (expert, expert_head) = (tensor(&file["expert"]), tensor(&file["expert_head"]));
    assert!(list(&file, "cases").len() >= 18);
    for case in list(&file, "cases") {
        let what = format!("{} {} top {} at {}", case["loss"], case["weight"], case["top_k"], case["temperature"]);
        let hidden = tensor(&file["student"]).set_requires_grad(true);
        let head = tensor(&file["head"]).set_requires_grad(true);
        let kept = kept(&file, case);
        let known = match &kept {
            Some((ids, logprobs)) => Expert::Kept { ids, logprobs },
            None => Expert::Model { hidden: &expert, head: project(&expert_head) },
        };
        let found = distill(&hidden, project(&head), &known, number(case, "temperature"), which(case)).unwrap();
        assert_number(&what, found.sum.double_value(&[]), number(case, "sum"), TOLERANCE);
        found.sum.backward();
        assert_close(&format!("{what}, d hidden"), &hidden.grad(), &tensor(&case["grad_hidden"]), TOLERANCE);
        assert_close(&format!("{what}, d head"), &head.grad(), &tensor(&case["grad_head"]), TOLERANCE);
        assert_number(&what, found.correct.double_value(&[]), number(&file, "correct"), 0.0);
        if number(case, "temperature") == 1.0 {
            assert_number(&what, found.entropy.double_value(&[]), number(&file, "entropy"), TOLERANCE);
        }
    }
}

#[test]
fn a_student_that_is_the_expert_is_at_distance_0_and_actions_of_probability_0_add_nothing() {
    let logits = Tensor::from_slice(&[0.5_f32, -1.0, 2.0, 0.0]).reshape([1, 4]).to_device(device());
    let same = logits.log_softmax(-1, Kind::Float);
    for which in [Divergence::ForwardKl, Divergence::ReverseKl, Divergence::JensenShannon { weight: 0.3 }] {
        let apart = divergence(&logits, &same, None, which).unwrap();
        assert!(apart.abs().double_value(&[0]) < 1e-6, "{which:?}: {apart:?}");
    }
    let certain = Tensor::from_slice(&[f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY]);
    let certain = certain.reshape([1, 4]).to_device(device());
    let forward = divergence(&logits, &certain, None, Divergence::ForwardKl).unwrap().double_value(&[0]);
    assert_number("-log q of the one action", forward, -same.double_value(&[0, 2]), 1e-6);
    let between = divergence(&logits, &certain, None, Divergence::JensenShannon { weight: 0.5 }).unwrap();
    assert!((0.0..=std::f64::consts::LN_2).contains(&between.double_value(&[0])), "{between:?}");
    assert!(divergence(&logits, &certain, None, Divergence::ReverseKl).unwrap().double_value(&[0]).is_infinite());
}

/// More states than a chunk holds: sums and gradients are those of all at once.
#[test]
fn chunks_of_states_add_up() {
    tch::manual_seed(5);
    let options = (Kind::Float, device());
    // 20,000 actions: 512 MB of numbers, two chunks and a part.
    let (states, vocab) = (1200, 20_000);
    let hidden = Tensor::randn([states, 8], options).set_requires_grad(true);
    let head = (Tensor::randn([vocab, 8], options) * 0.1).set_requires_grad(true);
    let (theirs, their_head) = (Tensor::randn([states, 4], options), Tensor::randn([vocab, 4], options) * 0.1);
    let known = Expert::Model { hidden: &theirs, head: project(&their_head) };
    let Distilled { sum, .. } = distill(&hidden, project(&head), &known, 1.0, Divergence::ForwardKl).unwrap();
    sum.backward();
    let grads = [hidden.grad(), head.grad()];
    let [whole, whole_head] = [&hidden, &head].map(|tensor| tensor.detach().set_requires_grad(true));
    let p = theirs.matmul(&their_head.tr()).log_softmax(-1, Kind::Float);
    let q = whole.matmul(&whole_head.tr()).log_softmax(-1, Kind::Float);
    let expected = (p.exp() * (p - q)).sum(Kind::Float);
    expected.backward();
    assert_number("sum", sum.double_value(&[]), expected.double_value(&[]), TOLERANCE);
    assert_close("d hidden", &grads[0], &whole.grad(), TOLERANCE);
    assert_close("d head", &grads[1], &whole_head.grad(), TOLERANCE);
}
