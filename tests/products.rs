//! Products in float32 against exact ones: on a processor with a matrix unit for bfloat16 the large ones run there, each
//! value in three pieces.
#![allow(clippy::unwrap_used)]
use std::process::Command;

use collimate::ffi::{self, HeadPass};
use tch::{Device, Kind, Tensor};

use crate::support::assert_relative;

/// What sends all products libtorch's way.
const PRODUCTS: &str = "COLLIMATE_PRODUCTS";

/// Values of both signs and of very different sizes, with all 24 bits of theirs in use.
fn values(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let at = Tensor::arange(count, (Kind::Double, Device::Cpu));
    let (sign, size) = ((&at * 1.618 + phase).sin(), (&at * 0.377 + phase).cos() * 3.0);
    (sign * size.exp()).to_kind(Kind::Float).view(shape)
}

/// The root of the mean square of what one differs from the other by, as a part of the other's.
fn error(found: &Tensor, exact: &Tensor) -> f64 {
    let root = |x: &Tensor| x.square().mean(Kind::Double).sqrt().double_value(&[]);
    root(&(found.to_kind(Kind::Double) - exact)) / root(exact)
}

fn exact(x: &Tensor) -> Tensor {
    x.detach().to_kind(Kind::Double)
}

/// Near the exact result, and no further from it than libtorch's.
fn judge(what: &str, found: &Tensor, wanted: &Tensor, libtorchs: &Tensor) {
    let (ours, theirs) = (error(found, wanted), error(libtorchs, wanted));
    assert!(ours < 2e-6 && ours < 1.2 * theirs, "{what}: {ours:.2e} from the exact product, libtorch's {theirs:.2e}");
}

#[test]
fn a_linear_layer_and_its_gradients_are_near_the_exact_ones() {
    // Rows, terms, columns: whole panels of 32 and not, more terms than are summed at once, more rows and columns than are
    // held at once, too few for the unit.
    let shapes =
        [(96, 96, 96), (131, 1500, 203), (2500, 130, 97), (100, 99, 4300), (200, 2100, 160), (40, 300, 200), (3, 5, 7)];
    for (rows, terms, columns) in shapes {
        for (in_out, biased) in [(true, true), (false, false), (false, true)] {
            let shape = if in_out { [terms, columns] } else { [columns, terms] };
            let (x, weight) = (values(&[rows, terms], 0.1), values(&shape, 0.7));
            let bias = biased.then(|| values(&[columns], 0.4).set_requires_grad(true));
            let (x, weight) = (x.set_requires_grad(true), weight.set_requires_grad(true));
            let by = |weight: &Tensor| if in_out { weight.shallow_clone() } else { weight.tr() };
            let found = ffi::linear(&x, &weight, bias.as_ref(), in_out).unwrap();
            let plain = x.detach().matmul(&by(&weight.detach()));
            let wanted = exact(&x).matmul(&by(&exact(&weight)));
            let what = format!("[{rows}, {terms}] by [{terms}, {columns}], in_out {in_out}");
            match &bias {
                Some(bias) => {
                    let bias = bias.detach();
                    judge(&what, &found, &(wanted + exact(&bias)), &(plain + bias));
                }
                None => judge(&what, &found, &wanted, &plain),
            }
            let upstream = values(&[rows, columns], 0.9);
            found.backward_with(&upstream);
            let turned = |g: Tensor| if in_out { g } else { g.tr() };
            let x_plain = upstream.matmul(&by(&weight.detach()).tr());
            judge(&format!("{what}: x"), &x.grad(), &exact(&upstream).matmul(&by(&exact(&weight)).tr()), &x_plain);
            let plain = turned(x.detach().tr().matmul(&upstream));
            let wanted = turned(exact(&x).tr().matmul(&exact(&upstream)));
            judge(&format!("{what}: weight"), &weight.grad(), &wanted, &plain);
            if let Some(bias) = &bias {
                let wanted = upstream.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
                assert_relative(&format!("{what}: bias"), &bias.grad(), &wanted, 1e-6);
            }
        }
    }
}

trait Backward {
    fn backward_with(&self, upstream: &Tensor);
}

impl Backward for Tensor {
    fn backward_with(&self, upstream: &Tensor) {
        (self * upstream).sum(Kind::Float).backward();
    }
}

/// The head's weight collects the gradients of several chunks of rows in one buffer.
#[test]
fn a_heads_gradient_is_collected_over_chunks() {
    let (rows, width, vocab) = (330, 128, 301);
    let targets = (Tensor::arange(rows, (Kind::Int64, Device::Cpu)) * 211).remainder(vocab);
    let make =
        |shape: &[i64], phase: f64, kind: Kind| (values(shape, phase) * 0.02).to_kind(kind).set_requires_grad(true);
    let (hidden, weight) = (make(&[rows, width], 0.2, Kind::Float), make(&[vocab, width], 0.6, Kind::Float));
    let (h, w) = (make(&[rows, width], 0.2, Kind::Double), make(&[vocab, width], 0.6, Kind::Double));
    let budget = 4 * 110 * u64::try_from(vocab).unwrap();
    let pass = HeadPass { scale: 1.3, budget, compute: Kind::Float, figures: true };
    let found = ffi::head_sum(&hidden, &weight, &targets, pass).unwrap();
    found.logprobs.backward();
    let logp = (h.matmul(&w.tr()) * 1.3).log_softmax(-1, Kind::Double);
    let wanted = logp.gather(1, &targets.unsqueeze(1), false).sum(Kind::Double);
    wanted.backward();
    assert_relative("sum", &found.logprobs, &wanted.to_kind(Kind::Float), 1e-6);
    assert_relative("hidden", &hidden.grad(), &h.grad().to_kind(Kind::Float), 3e-6);
    assert_relative("weight", &weight.grad(), &w.grad().to_kind(Kind::Float), 3e-6);
}

/// What is no number stays none, in its own row alone.
#[test]
fn what_is_no_number_shows_in_its_row() {
    for bad in [f64::NAN, f64::INFINITY] {
        let (x, weight) = (values(&[128, 200], 0.3), values(&[200, 150], 0.5));
        let _ = x.get(77).get(123).fill_(bad);
        let y = ffi::linear(&x, &weight, None, true).unwrap();
        let finite = y.isfinite().all_dim(1, false);
        assert_eq!(finite.sum(Kind::Int64).int64_value(&[]), 127, "{bad}");
        assert_eq!(finite.int64_value(&[77]), 0, "{bad}");
    }
}

/// The unit is used where it is there, and the switch turns it off.
#[test]
fn the_switch_decides_who_multiplies() {
    let (x, weight) = (values(&[128, 500], 0.3), values(&[500, 150], 0.5));
    let same = ffi::linear(&x, &weight, None, true).unwrap() == x.matmul(&weight);
    assert_eq!(same, !ffi::splits(), "products on the matrix unit round differently from libtorch's");
    if std::env::var_os(PRODUCTS).is_some() {
        assert!(!ffi::splits());
        return;
    }
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["products::", "kernels::", "golden_models::", "model::", "--test-threads", "2"])
        .env(PRODUCTS, "libtorch")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{out}");
    let passed = out.lines().find_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse().ok());
    assert!(passed.is_some_and(|passed: usize| passed > 20), "{out}");
}
