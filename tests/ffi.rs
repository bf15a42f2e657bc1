//! The C++ shim: AdamW against tch's own, norms, and errors that come back as errors.
#![allow(clippy::unwrap_used)]
use collimate::Error;
use collimate::ffi::{self, AdamW};
use tch::nn::OptimizerConfig;
use tch::{Device, Kind, Tensor, nn};

use crate::support::device;

fn float() -> (Kind, Device) {
    (Kind::Float, device())
}

fn values(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    (Tensor::arange(count, float()) * 0.37 + phase).sin().view(shape)
}

#[test]
fn fused_adamw_equals_tchs_adamw() {
    let store = nn::VarStore::new(device());
    let shapes: [&[i64]; 2] = [&[5, 3], &[7]];
    let theirs: Vec<Tensor> =
        (0..2).map(|i| store.root().var_copy(&format!("p{i}"), &values(shapes[i], i as f64))).collect();
    let ours: Vec<Tensor> = theirs.iter().map(|t| t.detach().copy()).collect();
    let mut optimizer =
        nn::AdamW { beta1: 0.9, beta2: 0.99, wd: 0.1, eps: 1e-8, amsgrad: false }.build(&store, 1e-2).unwrap();
    let zeros = |t: &Tensor| t.zeros_like();
    let (first, second): (Vec<_>, Vec<_>) = ours.iter().map(|t| (zeros(t), zeros(t))).unzip();
    let steps: Vec<Tensor> = ours.iter().map(|_| Tensor::zeros([], float())).collect();
    let numbers = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.99, weight_decay: 0.1, eps: 1e-8 };
    for step in 0..20 {
        let loss: Tensor = theirs.iter().map(|t| (t * values(&t.size(), step as f64)).square().sum(Kind::Float)).sum();
        optimizer.zero_grad();
        loss.backward();
        // What is divided by 4 on the way is the same step.
        let grads: Vec<Tensor> = theirs.iter().map(|t| t.grad() * 4.0).collect();
        optimizer.step();
        let [p, g, m, v, s] = [&ours, &grads, &first, &second, &steps].map(|list| list.iter().collect::<Vec<_>>());
        ffi::fused_adamw(&p, &g, &m, &v, &s, Some(&Tensor::full([], 4.0, float())), numbers).unwrap();
    }
    for (a, b) in ours.iter().zip(&theirs) {
        assert!(f64::try_from((a - b).abs().max()).unwrap() < 1e-6);
    }
    assert_eq!(f64::try_from(&steps[0]).unwrap(), 20.0);
}

#[test]
fn adamw_refuses_what_would_go_wrong() {
    let (p, g) = (values(&[3], 0.0), values(&[3], 1.0));
    let (m, v, s) = (p.zeros_like(), p.zeros_like(), Tensor::zeros([], float()));
    let numbers = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.99, weight_decay: 0.0, eps: 1e-8 };
    let half = g.to_kind(Kind::BFloat16);
    let message = |error: Error| match error {
        Error::Shim(message) => message,
        other => panic!("{other}"),
    };
    let error = ffi::fused_adamw(&[&p], &[&half], &[&m], &[&v], &[&s], None, numbers).unwrap_err();
    assert!(message(error).contains("dtype"));
    let error = ffi::fused_adamw(&[&p], &[&values(&[4], 0.0)], &[&m], &[&v], &[&s], None, numbers).unwrap_err();
    assert!(message(error).contains("shape"));
    let error = ffi::fused_adamw(&[&p], &[&Tensor::new()], &[&m], &[&v], &[&s], None, numbers).unwrap_err();
    assert!(message(error).contains("no gradient"));
    assert!(ffi::fused_adamw(&[&p], &[], &[&m], &[&v], &[&s], None, numbers).is_err());
    assert_eq!(f64::try_from(&s).unwrap(), 0.0, "a refused update counts no step");
}

#[test]
fn norms_run_over_all_tensors() {
    let tensors = [values(&[4, 5], 0.0), values(&[3], 2.0)];
    let list: Vec<&Tensor> = tensors.iter().collect();
    let all = Tensor::cat(&tensors.each_ref().map(|t| t.flatten(0, -1)), 0);
    let norm = ffi::global_norm(&list).unwrap();
    assert!(f64::try_from(&norm - all.norm()).unwrap().abs() < 1e-6);
    assert!(matches!(ffi::global_norm(&[]), Err(Error::Shim(_))));
}

#[test]
fn gradients_go_and_come_anew() {
    let leaf = values(&[4], 1.0).set_requires_grad(true);
    let learn = || (&leaf * 3.0).sum(Kind::Float).backward();
    learn();
    assert!(leaf.grad().defined());
    ffi::drop_grads(&[&leaf]).unwrap();
    assert!(!leaf.grad().defined());
    learn();
    assert_eq!(leaf.grad(), Tensor::full([4], 3.0, float()), "the first one is not in it");
}

#[test]
fn cuda_memory_is_an_error_without_cuda() {
    if !collimate::model::device::CUDA_BUILD {
        assert!(ffi::cuda_peak_bytes(0, false).is_err_and(|e| matches!(e, Error::Shim(_))));
    }
}

#[test]
fn numbers_come_back_as_they_were_and_are_there_at_once_on_the_cpu() {
    let numbers = [Tensor::from(1.25_f32), Tensor::from(f32::NAN)];
    let back = ffi::Readback::begin([&numbers[0], &numbers[1]]).unwrap();
    assert!(back.is_ready().unwrap());
    let [first, second] = back.values().unwrap();
    assert!(first == 1.25 && second.is_nan());
}
