//! Every loss and its gradient, example by example, against TRL's own code and PyTorch (scripts/goldens/losses.py).
#![allow(clippy::unwrap_used)]
use crate::support::{assert_close, assert_number, device, ids, index, json, list, number, tensor, text};
use collimate::loss::cross_entropy::cross_entropy;
use collimate::loss::dpo::{DpoSettings, Variant};
use collimate::loss::logprobs::Projection;
use collimate::loss::{bradley_terry, dpo, logprobs};
use serde_json::Value;
use tch::{Kind, Tensor};

const TOLERANCE: f64 = 1e-5;

/// Column `i` of a list of lists, as float32.
fn column(rows: &[Value], i: usize) -> Tensor {
    let values: Vec<f32> = rows.iter().map(|row| row[i].as_f64().unwrap() as f32).collect();
    Tensor::from_slice(&values).to_device(device())
}

/// Compares element by element: the examples of a case differ by orders of magnitude.
fn assert_each(what: &str, ours: &Tensor, reference: &Value) {
    assert_eq!(ours.size(), [reference.as_array().unwrap().len() as i64], "{what}: shape");
    for (i, expected) in reference.as_array().unwrap().iter().enumerate() {
        assert_number(
            &format!("{what}, pair {i}"),
            ours.double_value(&[i as i64]),
            expected.as_f64().unwrap(),
            TOLERANCE,
        );
    }
}

#[test]
fn cross_entropy_and_its_gradient() {
    let case = &json("losses.json")["cross_entropy"];
    let logits = tensor(&case["logits"]).set_requires_grad(true);
    let targets = index(&ids(&case["targets"]));
    let sequence = index(&ids(&case["sequence"]));
    let tokens = logprobs::token_logprobs(&logits, &targets).unwrap();
    assert_close("log-probs", &tokens, &tensor(&case["logprobs"]), TOLERANCE);
    let sums = logprobs::sum_by_sequence(&tokens, &sequence, case["sequences"].as_i64().unwrap()).unwrap();
    assert_close("sums by sequence", &sums, &tensor(&case["logprob_sums"]), TOLERANCE);
    // A head that is the identity: hidden states are the logits.
    let eye = Tensor::eye(logits.size()[1], (Kind::Float, logits.device()));
    let head = Projection { weight: &eye, compute: Kind::Float };
    let found = cross_entropy(&logits, head, &targets).unwrap();
    assert_number("sum", found.sum.double_value(&[]), number(case, "loss_sum"), TOLERANCE);
    found.sum.backward();
    assert_close("gradient", &logits.grad(), &tensor(&case["grad_logits"]), TOLERANCE);
    let entropy = tensor(&case["entropy"]).sum(Kind::Float).double_value(&[]);
    assert_number("entropy", found.entropy.double_value(&[]), entropy, TOLERANCE);
    let correct = list(case, "correct").iter().filter(|x| x.as_bool().unwrap()).count();
    assert_number("correct", found.correct.double_value(&[]), correct as f64, 0.0);
}

#[test]
fn bradley_terry_with_preference_margin_and_centring() {
    let file = json("losses.json");
    let pairs = list(&file, "reward_pairs");
    for case in list(&file, "bradley_terry") {
        let chosen = column(pairs, 0).set_requires_grad(true);
        let rejected = column(pairs, 1).set_requires_grad(true);
        let margin = if case["margin"].is_null() { chosen.detach().zeros_like() } else { tensor(&case["margin"]) };
        let preference = chosen.detach().full_like(number(case, "mu"));
        let losses =
            bradley_terry::pair_losses(&chosen, &rejected, &preference, &margin, number(case, "centering")).unwrap();
        let what = format!("mu {}, margin {}, centring {}", case["mu"], case["margin"], case["centering"]);
        assert_each(&what, &losses, &case["losses"]);
        losses.sum(Kind::Float).backward();
        assert_each(&format!("{what}, d chosen"), &chosen.grad(), &case["grad_chosen"]);
        assert_each(&format!("{what}, d rejected"), &rejected.grad(), &case["grad_rejected"]);
    }
}

/// The variant of a case, and whether log-ratios are divided by the completion's length.
fn variant(name: &str) -> (Variant, bool) {
    match name {
        "sigmoid" => (Variant::Sigmoid, false),
        "hinge" => (Variant::Hinge, false),
        "robust" => (Variant::Robust, false),
        "ipo" => (Variant::Ipo, true),
        "ipo_paper" => (Variant::Ipo, false),
        other => panic!("{other}"),
    }
}

#[test]
fn dpo_variants_with_preference_and_label_smoothing() {
    let file = json("losses.json");
    let pairs = list(&file, "dpo_pairs");
    for case in list(&file, "dpo") {
        let (variant, normalised) = variant(text(case, "loss"));
        let chosen = column(pairs, 0).set_requires_grad(true);
        let rejected = column(pairs, 1).set_requires_grad(true);
        let mut ratios = [&chosen - column(pairs, 2), &rejected - column(pairs, 3)];
        if normalised {
            ratios = [&ratios[0] / column(pairs, 4), &ratios[1] / column(pairs, 5)];
        }
        let settings =
            DpoSettings { variant, beta: number(case, "beta"), label_smoothing: number(case, "label_smoothing") };
        let preference = chosen.detach().full_like(number(case, "mu"));
        let losses = dpo::pair_losses(&(&ratios[0] - &ratios[1]), &preference, &settings).unwrap();
        let what = format!("{} mu {} {settings:?}", case["loss"], case["mu"]);
        assert_each(&what, &losses, &case["losses"]);
        losses.sum(Kind::Float).backward();
        assert_each(&format!("{what}, d chosen"), &chosen.grad(), &case["grad_chosen"]);
        assert_each(&format!("{what}, d rejected"), &rejected.grad(), &case["grad_rejected"]);
    }
}
