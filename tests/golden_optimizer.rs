//! AdamW, clipping and schedules against PyTorch and transformers (scripts/goldens/optimizer.py).
#![allow(clippy::unwrap_used)]
use crate::support::{assert_close, assert_number, assert_relative, json, list, number, tensor, text};
use collimate::config::{OptimConfig, ScheduleKind};
use collimate::train::{AdamW, schedule};
use serde_json::Value;
use tch::{Tensor, no_grad};

fn kind(name: &str) -> ScheduleKind {
    match name {
        "linear" => ScheduleKind::Linear,
        "cosine" => ScheduleKind::Cosine,
        "constant" => ScheduleKind::Constant,
        other => panic!("{other}"),
    }
}

fn config(case: &Value) -> OptimConfig {
    OptimConfig {
        learning_rate: number(case, "lr"),
        schedule: kind(text(case, "schedule")),
        warmup_steps: case["warmup_steps"].as_u64().unwrap(),
        weight_decay: number(case, "weight_decay"),
        beta1: case["betas"][0].as_f64().unwrap(),
        beta2: case["betas"][1].as_f64().unwrap(),
        epsilon: number(case, "eps"),
        max_grad_norm: number(case, "max_grad_norm"),
    }
}

#[test]
fn learning_rates_of_every_step() {
    let file = json("optimizer.json");
    for case in list(&file, "schedules") {
        let optim = OptimConfig {
            learning_rate: number(case, "lr"),
            schedule: kind(text(case, "schedule")),
            warmup_steps: case["warmup_steps"].as_u64().unwrap(),
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            max_grad_norm: 1.0,
        };
        let steps = case["steps"].as_u64().unwrap();
        for (k, expected) in list(case, "rates").iter().enumerate() {
            let ours = schedule::learning_rate(&optim, k as u64, steps);
            let expected = expected.as_f64().unwrap();
            assert!((ours - expected).abs() <= 1e-12 * optim.learning_rate, "{case}: step {k}: {ours}, not {expected}");
        }
    }
}

/// One run: recorded gradients in; norms, rates, parameters and moments out.
fn replay(case: &Value) {
    let optim = config(case);
    let start = case["start"].as_object().unwrap();
    let parameters: Vec<(&str, Tensor)> =
        start.iter().map(|(name, value)| (name.as_str(), tensor(value).set_requires_grad(true))).collect();
    let mut adamw = AdamW::new(parameters.iter().map(|(name, t)| (*name, t)), optim).unwrap();
    for (k, step) in list(case, "steps").iter().enumerate() {
        let what = format!("{}, step {k}", text(case, "name"));
        adamw.zero_grad().unwrap();
        // Gradients get into `.grad` the way training puts them there.
        let terms: Vec<Tensor> = parameters
            .iter()
            .map(|(name, parameter)| (parameter * tensor(&step["gradients"][*name])).sum(tch::Kind::Float))
            .collect();
        Tensor::stack(&terms, 0).sum(tch::Kind::Float).backward();
        let norm = adamw.clip().unwrap().double_value(&[]);
        assert_number(&format!("{what}, norm"), norm / number(step, "grad_norm"), 1.0, 1e-5);
        let rate = schedule::learning_rate(&optim, k as u64, case["schedule_steps"].as_u64().unwrap());
        assert_number(&format!("{what}, rate"), rate, number(step, "learning_rate"), 1e-12);
        adamw.step(rate).unwrap();
        for (name, parameter) in &parameters {
            assert_close(&format!("{what}, {name}"), parameter, &tensor(&step["parameters"][*name]), 2e-6);
        }
    }
    let state = adamw.state().unwrap();
    for (name, _) in &parameters {
        for moment in ["exp_avg", "exp_avg_sq"] {
            let ours = &state[&format!("{name}.{moment}")];
            assert_relative(&format!("{name}.{moment}"), ours, &tensor(&case[moment][*name]), 1e-5);
        }
    }
}

#[test]
fn ten_steps_with_decay_warm_up_and_clipping() {
    replay(&list(&json("optimizer.json"), "runs")[0]);
}

#[test]
fn ten_steps_with_other_betas_and_epsilon() {
    replay(&list(&json("optimizer.json"), "runs")[1]);
}

/// Parameters without a gradient stay as they are, as in PyTorch.
#[test]
fn a_parameter_without_a_gradient_stays() {
    let case = list(&json("optimizer.json"), "runs")[0].clone();
    let used = tensor(&case["start"]["linear.weight"]).set_requires_grad(true);
    let unused = tensor(&case["start"]["embedding.weight"]).set_requires_grad(true);
    let mut adamw = AdamW::new([("used", &used), ("unused", &unused)], config(&case)).unwrap();
    used.square().sum(tch::Kind::Float).backward();
    let _ = adamw.clip().unwrap();
    adamw.step(1e-2).unwrap();
    no_grad(|| {
        assert_eq!(f64::try_from((&unused - tensor(&case["start"]["embedding.weight"])).abs().max()).unwrap(), 0.0);
        assert!(f64::try_from((&used - tensor(&case["start"]["linear.weight"])).abs().max()).unwrap() > 1e-3);
    });
}
