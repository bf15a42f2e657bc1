//! The shim's own kernels against libtorch's operators: the head in chunks, attention over a flat list, tensors' memory.
#![allow(clippy::unwrap_used)]
use collimate::ffi::{self, Activation, Group, HeadPass, Heads, RowPlan, Segment};
use tch::{Device, Kind, Tensor};

use crate::support::{assert_close, assert_relative, device};

const TOLERANCE: f64 = 1e-5;

fn noise(shape: &[i64], phase: f64, device: Device) -> Tensor {
    let count: i64 = shape.iter().product();
    ((Tensor::arange(count, (Kind::Float, device)) * 0.731 + phase).sin() * 1.7).view(shape)
}

/// Log-probs, entropies and whether the target leads, by libtorch's own operators in double precision.
fn expected(hidden: &Tensor, weight: &Tensor, targets: &Tensor, scale: f64) -> [Tensor; 3] {
    let logits = hidden.to_kind(Kind::Double).matmul(&weight.to_kind(Kind::Double).tr()) * scale;
    let logp = logits.log_softmax(-1, Kind::Double);
    let own = logp.gather(1, &targets.unsqueeze(1), false).squeeze_dim(1);
    let entropy = -(logp.exp() * &logp).sum_dim_intlist([-1i64].as_slice(), false, Kind::Double);
    let correct = logits.argmax(-1, false).eq_tensor(targets);
    [own, entropy, correct].map(|x| x.to_kind(Kind::Float))
}

#[test]
fn a_head_in_chunks_equals_one_of_all_rows() {
    let at = device();
    let (rows, width, vocab) = (11, 6, 2500);
    let targets = (Tensor::arange(rows, (Kind::Int64, at)) * 211).remainder(vocab);
    let upstream = noise(&[rows], 0.4, at);
    // 1, 4 and all rows at once; the gradient of a weight that has one already is added to it.
    for (rows_at_once, scale) in [(1, 1.0), (4, 0.7), (64, 1.0), (64, 1.3)] {
        let make =
            || [noise(&[rows, width], 0.0, at), noise(&[vocab, width], 1.0, at)].map(|x| x.set_requires_grad(true));
        let [hidden, weight] = make();
        let budget = rows_at_once * vocab as u64 * 4;
        let pass = HeadPass { scale, budget, compute: Kind::Float, figures: true };
        let [logps, entropy, correct] = expected(&hidden, &weight, &targets, scale);
        let found = ffi::head(&hidden, &weight, &targets, pass).unwrap();
        assert_close("log-probs", &found.logprobs, &logps, TOLERANCE);
        assert_close("entropies", &found.entropy, &entropy, TOLERANCE);
        assert_close("correct", &found.correct, &correct, 0.0);
        (&found.logprobs * &upstream).sum(Kind::Float).backward();
        (&logps * &upstream).sum(Kind::Float).backward();
        // Both went into the same gradients: ours first, then libtorch's on top.
        let [ours_h, ours_w] = make();
        let found = ffi::head(&ours_h, &ours_w, &targets, pass).unwrap();
        (&found.logprobs * &upstream).sum(Kind::Float).backward();
        assert_close("hidden gradient, twice", &(ours_h.grad() * 2.0), &hidden.grad(), TOLERANCE);
        assert_close("weight gradient, twice", &(ours_w.grad() * 2.0), &weight.grad(), TOLERANCE);

        let [sum_h, sum_w] = make();
        let found = ffi::head_sum(&sum_h, &sum_w, &targets, pass).unwrap();
        let [logps, entropy, correct] = expected(&hidden, &weight, &targets, scale).map(|x| x.sum(Kind::Float));
        assert_close("sum", &found.logprobs, &logps, TOLERANCE);
        assert_close("sum of entropies", &found.entropy, &entropy, TOLERANCE);
        assert_close("count", &found.correct, &correct, 0.0);
        let [ref_h, ref_w] = make();
        (&found.logprobs * -0.25).backward();
        let [logps, ..] = expected(&ref_h, &ref_w, &targets, scale);
        (logps.sum(Kind::Float) * -0.25).backward();
        assert_close("hidden gradient of the sum", &sum_h.grad(), &ref_h.grad(), TOLERANCE);
        assert_close("weight gradient of the sum", &sum_w.grad(), &ref_w.grad(), TOLERANCE);
    }
}

#[test]
fn a_wide_vocabulary_loses_nothing_and_a_nan_stays_one() {
    let at = device();
    let vocab = 151_936;
    let (hidden, weight) = (noise(&[2, 4], 0.2, at) * 3.0, noise(&[vocab, 4], 0.1, at));
    let targets = Tensor::from_slice(&[150_000i64, 3]).to_device(at);
    let pass = HeadPass { scale: 1.0, budget: 1 << 30, compute: Kind::Float, figures: true };
    let [logps, entropy, _] = expected(&hidden, &weight, &targets, 1.0);
    let found = ffi::head(&hidden, &weight, &targets, pass).unwrap();
    assert_close("log-probs", &found.logprobs, &logps, TOLERANCE);
    assert_close("entropies", &found.entropy, &entropy, TOLERANCE);
    for poison in [f64::NAN, f64::INFINITY] {
        let hidden = hidden.copy();
        let _ = hidden.get(1).fill_(poison);
        let found = ffi::head(&hidden, &weight, &targets, pass).unwrap().logprobs;
        assert!(found.double_value(&[0]).is_finite(), "{poison}");
        assert!(!found.double_value(&[1]).is_finite(), "{poison}");
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let pass = HeadPass { scale: 1.0, budget: 1, compute: Kind::Float, figures: false };
    let at = device();
    let refused = |hidden: &[i64], weight: &[i64], targets: i64| {
        let targets = Tensor::zeros([targets], (Kind::Int64, at));
        let found = ffi::head(&noise(hidden, 0.0, at), &noise(weight, 0.0, at), &targets, pass);
        assert!(matches!(found, Err(collimate::Error::Shim(_))), "{found:?}");
    };
    refused(&[3, 4], &[7, 5], 3);
    refused(&[3, 4], &[7, 4], 2);
}

#[test]
fn an_embedding_adds_to_the_gradient_that_is_there() {
    let at = device();
    let ids = Tensor::from_slice(&[3i64, 0, 3, 5]).to_device(at);
    let upstream = noise(&[4, 3], 0.3, at);
    let make = || noise(&[6, 3], 0.0, at).set_requires_grad(true);
    let (ours, theirs) = (make(), make());
    for _ in 0..2 {
        (ffi::embedding(&ours, &ids).unwrap() * &upstream).sum(Kind::Float).backward();
        (Tensor::embedding(&theirs, &ids, -1, false, false) * &upstream).sum(Kind::Float).backward();
    }
    assert_close("rows", &ffi::embedding(&ours, &ids).unwrap(), &ours.index_select(0, &ids), 0.0);
    assert_close("gradient", &ours.grad(), &theirs.grad(), TOLERANCE);
}

/// Values that reach both ends of an activation.
fn wide(shape: &[i64], phase: f64) -> Tensor {
    noise(shape, phase, Device::Cpu) * 6.0
}

#[test]
fn activation_and_product_in_one_are_libtorchs() {
    let plain = |x: &Tensor, activation| match activation {
        Activation::GeluTanh => x.gelu("tanh"),
        Activation::Gelu => x.gelu("none"),
        Activation::Silu => x.silu(),
        Activation::Relu => x.relu(),
    };
    let leaf = |x: Tensor| x.set_requires_grad(true);
    // 37 values fill no whole number of registers; 300 rows are several threads' work.
    for (rows, width, out) in [(3, 37, 5), (300, 64, 8)] {
        for activation in [Activation::GeluTanh, Activation::Gelu, Activation::Silu, Activation::Relu] {
            for (gated, biased, in_out) in [(false, true, true), (true, false, false), (true, true, true)] {
                let shape = if in_out { [width, out] } else { [out, width] };
                let make = || {
                    let (x, gate) = (leaf(wide(&[rows, width], 0.1)), leaf(wide(&[rows, width], 0.7)));
                    [x, gate, leaf(noise(&shape, 0.4, Device::Cpu)), leaf(noise(&[out], 0.9, Device::Cpu))]
                };
                let (ours, theirs) = (make(), make());
                let [x, gate, weight, bias] = &ours;
                let (gate, bias) = (gated.then_some(gate), biased.then_some(bias));
                let found = ffi::feed(x, gate, (weight, bias), in_out, activation).unwrap();
                let inner =
                    plain(&theirs[0], activation) * if gated { theirs[1].shallow_clone() } else { Tensor::from(1.0) };
                let wanted = inner.matmul(&if in_out { theirs[2].shallow_clone() } else { theirs[2].tr() });
                let wanted = if biased { wanted + &theirs[3] } else { wanted };
                let what = format!("{activation:?}, {rows} rows, gated {gated}");
                assert_relative(&what, &found, &wanted, TOLERANCE);
                let values = tch::no_grad(|| ffi::activated(x, gate, activation).unwrap());
                assert_close(&format!("{what}: values"), &values, &inner, TOLERANCE);
                let upstream = noise(&[rows, out], 0.2, Device::Cpu);
                (found * &upstream).sum(Kind::Float).backward();
                (wanted * &upstream).sum(Kind::Float).backward();
                for (name, (a, b)) in ["x", "gate", "weight", "bias"].iter().zip(ours.iter().zip(&theirs)) {
                    assert_eq!(a.grad().defined(), b.grad().defined(), "{what}: {name}");
                    if b.grad().defined() {
                        assert_relative(&format!("{what}: gradient of {name}"), &a.grad(), &b.grad(), TOLERANCE);
                    }
                }
            }
        }
    }
}

#[test]
fn a_feed_forward_part_refuses_what_does_not_fit() {
    let at = Device::Cpu;
    let (x, weight) = (noise(&[3, 4], 0.0, at), noise(&[4, 5], 0.1, at));
    let refused = |x: &Tensor, gate: Option<&Tensor>, weight: &Tensor| {
        let found = ffi::feed(x, gate, (weight, None), true, Activation::Silu);
        assert!(matches!(found, Err(collimate::Error::Shim(_))), "{found:?}");
    };
    refused(&x, Some(&noise(&[3, 5], 0.0, at)), &weight);
    refused(&x, None, &noise(&[5, 4], 0.0, at));
    refused(&x.to_kind(Kind::Double), None, &weight);
    refused(&noise(&[4, 3], 0.0, at).tr(), None, &weight);
}

fn segment(start: i64, length: i64, owned: bool) -> Segment {
    Segment { start, length, owned }
}

/// A tree of rows (a shared start, a shared middle), rows of one length beside each other, a short one; CPU only, as the
/// kernel is.
fn groups() -> Vec<Group> {
    vec![
        Group { width: 9, rows: vec![vec![segment(0, 9, true)], vec![segment(0, 4, false), segment(9, 3, true)]] },
        Group { width: 8, rows: vec![vec![segment(0, 4, false), segment(9, 2, false), segment(12, 2, true)]] },
        Group { width: 5, rows: vec![vec![segment(14, 5, true)], vec![segment(19, 5, true)]] },
    ]
}

#[test]
fn attention_over_a_flat_list_equals_attention_row_by_row() {
    let at = Device::Cpu;
    let (tokens, d) = (24, 8);
    let plan = RowPlan::new(&groups()).unwrap();
    for (heads, kv_heads, window) in [(4, 4, None), (4, 2, None), (4, 1, Some(3))] {
        let make = |h: i64, phase: f64| noise(&[tokens, h, d], phase, at).set_requires_grad(true);
        let ours = [make(heads, 0.0), make(kv_heads, 0.5), make(kv_heads, 0.9)];
        let theirs = [make(heads, 0.0), make(kv_heads, 0.5), make(kv_heads, 0.9)];
        let numbers = Heads { heads, kv_heads, scale: 0.3, window };
        let found = ffi::attention(&plan, &ours[0], Some([&ours[1], &ours[2]]), numbers).unwrap();
        let wanted = row_by_row(&theirs, heads, window);
        assert_close("outputs", &found, &wanted, TOLERANCE);
        let upstream = noise(&[tokens, heads, d], 0.2, at);
        (found * &upstream).sum(Kind::Float).backward();
        (wanted * &upstream).sum(Kind::Float).backward();
        for (name, (a, b)) in ["queries", "keys", "values"].iter().zip(ours.iter().zip(&theirs)) {
            assert_close(name, &a.grad(), &b.grad(), TOLERANCE);
        }
        if heads == kv_heads {
            let packed = Tensor::stack(&ours.each_ref().map(Tensor::detach), 1).set_requires_grad(true);
            let found = ffi::attention(&plan, &packed, None, numbers).unwrap();
            (found * &upstream).sum(Kind::Float).backward();
            let wanted = Tensor::stack(&theirs.each_ref().map(Tensor::grad), 1);
            assert_close("packed", &packed.grad(), &wanted, TOLERANCE);
        }
    }
}

/// The same by an explicit softmax over each row, its owned tokens' outputs put together.
fn row_by_row(qkv: &[Tensor; 3], heads: i64, window: Option<i64>) -> Tensor {
    let mut outputs: Vec<(i64, Tensor)> = Vec::new();
    for row in groups().iter().flat_map(|group| group.rows.clone()) {
        let ids: Vec<i64> = row.iter().flat_map(|s| s.start..s.start + s.length).collect();
        let index = Tensor::from_slice(&ids);
        let [q, k, v] = qkv.each_ref().map(|x| {
            let x = x.index_select(0, &index).transpose(0, 1);
            let repeat = heads / x.size()[0];
            x.repeat_interleave_self_int(repeat, 0, None)
        });
        let length = ids.len() as i64;
        let all = Tensor::ones([length, length], (Kind::Bool, Device::Cpu));
        let sees = all.tril(0).logical_and(&all.triu(1 - window.unwrap_or(length)));
        let scores = (q.matmul(&k.transpose(1, 2)) * 0.3).masked_fill(&sees.logical_not(), f64::NEG_INFINITY);
        let out = scores.softmax(-1, Kind::Float).matmul(&v).transpose(0, 1);
        let mut place = 0;
        for part in row {
            if part.owned {
                outputs.push((part.start, out.narrow(0, place, part.length)));
            }
            place += part.length;
        }
    }
    outputs.sort_by_key(|(start, _)| *start);
    Tensor::cat(&outputs.iter().map(|(_, part)| part).collect::<Vec<_>>(), 0)
}

#[test]
fn blocks_of_tensors_never_overlap_and_are_counted() {
    // Alone in its process under the test runner; under `cargo test` others allocate too, so that only bounds hold.
    const BLOCK: i64 = 100_000;
    let before = ffi::cpu_used_bytes();
    let mut held: Vec<(i64, Tensor)> = Vec::new();
    let mut seed = 7u64;
    for round in 0..400i64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = (seed >> 33) as i64;
        if draw % 3 == 0 && !held.is_empty() {
            let (mark, tensor) = held.swap_remove(draw as usize % held.len());
            assert_eq!(tensor.eq(mark as f64).all().int64_value(&[]), 1, "block {mark} was written by another");
        } else {
            let size = BLOCK + draw % (3 * BLOCK);
            held.push((round, Tensor::full([size], round as f64, (Kind::Float, Device::Cpu))));
        }
        if round % 97 == 0 {
            ffi::cpu_release();
        }
    }
    for (mark, tensor) in &held {
        assert_eq!(tensor.eq(*mark as f64).all().int64_value(&[]), 1, "block {mark} was written by another");
    }
    let bytes: i64 = held.iter().map(|(_, tensor)| tensor.numel() as i64 * 4).sum();
    assert!(ffi::cpu_used_bytes() >= bytes as u64, "{} bytes are counted of {bytes}", ffi::cpu_used_bytes());
    assert!(ffi::cpu_peak_bytes(false) >= ffi::cpu_used_bytes().min(before + bytes as u64));
}
