//! Decoding: products of few rows, the draw of a token and the sampling pass against libtorch's operators and a forward over
//! whole sequences; on every instruction set.
#![allow(clippy::unwrap_used)]
use collimate::data::{RowId, Sequence, lm_batch};
use collimate::ffi;
use collimate::loss::draw::{draw, draw_by_tensors};
use collimate::model::{CausalLm, Critic, LoadOptions};
use collimate::rollout::forward::judge;
use collimate::rollout::generate::{Completion, GenerateOptions, complete};
use collimate::rollout::sampling::{Sampling, uniform};
use std::path::Path;
use std::process::Command;
use tch::{Device, Kind, Tensor};

use crate::support::{assert_close, device, golden};
use crate::tiny::{TRAINABLE, families, ids, kin, model};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
const TOLERANCE: f64 = 1e-5;
/// What libtorch itself reads to choose its kernels.
const CAPABILITY: &str = "ATEN_CPU_CAPABILITY";

/// Numbers that look random and are the same every time.
fn values(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 1.618 + phase).sin().to_kind(Kind::Float).view(shape)
}

/// Whether this process decodes with loops of its own: it must where the processor can and nobody lowered it.
fn own_loops() -> bool {
    let own = ffi::decodes(&Tensor::empty([1], FLOAT));
    #[cfg(target_arch = "x86_64")]
    if std::env::var(CAPABILITY).as_deref() != Ok("default") {
        assert_eq!(own, std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma"));
    }
    own
}

#[test]
fn small_products_are_libtorchs_and_each_rows_own() {
    let own = own_loops();
    for (rows, width, out) in [
        (1, 1, 1),
        (2, 5, 3),
        (3, 16, 64),
        (5, 37, 65),
        (6, 64, 100),
        (7, 200, 17),
        (16, 96, 131),
        (33, 70, 40),
        (128, 130, 97),
    ] {
        let (x, bias) = (values(&[rows, width], 0.3), values(&[out], 2.0));
        for (in_out, shape) in [(false, [out, width]), (true, [width, out])] {
            let weight = values(&shape, 1.0);
            let plain = if in_out { x.matmul(&weight) } else { x.matmul(&weight.tr()) };
            for bias in [None, Some(&bias)] {
                let wanted = bias.map_or_else(|| plain.shallow_clone(), |bias| &plain + bias);
                let got = ffi::small_product(&x, &weight, bias, in_out).unwrap();
                assert_eq!(got.is_some(), own);
                let Some(got) = got else { continue };
                assert_close(&format!("{rows} x {width} x {out}, {in_out}"), &got, &wanted, TOLERANCE);
                for row in 0..rows {
                    let alone = ffi::small_product(&x.narrow(0, row, 1), &weight, bias, in_out).unwrap().unwrap();
                    assert_eq!(alone, got.narrow(0, row, 1), "row {row} of {rows} depends on the others");
                }
            }
        }
    }
}

#[test]
fn products_that_are_not_small_or_want_a_gradient_are_libtorchs() {
    let none = |x: &Tensor, weight: &Tensor| ffi::small_product(x, weight, None, false).unwrap().is_none();
    let (x, weight) = (values(&[4, 8], 0.0), values(&[3, 8], 1.0));
    assert!(none(&values(&[129, 8], 0.0), &weight));
    assert!(none(&x.to_kind(Kind::BFloat16), &weight.to_kind(Kind::BFloat16)));
    assert!(none(&x, &values(&[8, 3], 1.0).tr()), "a weight that is not laid out in order");
    let leaf = weight.copy().set_requires_grad(true);
    assert!(none(&x, &leaf));
    assert_eq!(tch::no_grad(|| none(&x, &leaf)), !own_loops());
    if own_loops() {
        assert!(ffi::small_product(&x, &values(&[3, 7], 0.0), None, false).is_err(), "widths differ");
    }
}

/// Row by row against libtorch's operators, over a large vocabulary with a long tail, with and without tokens ruled out.
#[test]
fn draws_are_libtorchs() {
    for vocab in [1, 7, 16, 511, 513, 50_257] {
        let logits = values(&[24, vocab], 0.7) * 6.0;
        let ruled_out =
            logits.masked_fill(&logits.lt(-1.0), f64::NEG_INFINITY).index_fill(1, &Tensor::from_slice(&[0_i64]), 1.0);
        let uniforms: Vec<f64> = (0..24).map(|row| uniform(3, row, vocab as u64)).collect();
        for logits in [logits, ruled_out] {
            for temperature in [1.0, 0.6] {
                let (ours, theirs) =
                    (draw(&logits, temperature, &uniforms), draw_by_tensors(&logits, temperature, &uniforms));
                let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
                assert_eq!(ours.tokens, theirs.tokens, "{vocab} tokens");
                let all = (logits.to_kind(Kind::Double) / temperature).log_softmax(-1, Kind::Double);
                let exact = all.gather(1, &Tensor::from_slice(&ours.tokens).unsqueeze(1), false).squeeze_dim(1);
                for drawn in [ours, theirs] {
                    assert_close("log-probs", &Tensor::from_slice(&drawn.logprobs), &exact, TOLERANCE);
                }
            }
        }
    }
}

/// 150,000 tokens, half of the probability spread over a tail of which no token has 1e-5: every evenly spaced number finds
/// the token in whose interval of the exact running sum it lies, to within rounding.
#[test]
fn the_tail_of_a_large_vocabulary_is_drawn_as_often_as_it_should() {
    const VOCAB: i64 = 150_000;
    const ROWS: i64 = 512;
    let tail = values(&[VOCAB - 2], 0.1) * 0.5;
    let total = tail.to_kind(Kind::Double).exp().sum(Kind::Double).double_value(&[]);
    let head = (total / 2.0).ln();
    let logits = Tensor::cat(&[Tensor::from_slice(&[head as f32]), tail, Tensor::from_slice(&[head as f32])], 0);
    let ends = logits.to_kind(Kind::Double).softmax(0, Kind::Double).cumsum(0, Kind::Double);
    let ends: Vec<f64> = Vec::try_from(ends).unwrap();
    let many = logits.unsqueeze(0).expand([ROWS, VOCAB], false);
    let uniforms: Vec<f64> = (0..ROWS).map(|row| (row as f64 + 0.5) / ROWS as f64).collect();
    for drawn in [draw(&many, 1.0, &uniforms).unwrap(), draw_by_tensors(&many, 1.0, &uniforms).unwrap()] {
        for (&token, &number) in drawn.tokens.iter().zip(&uniforms) {
            let token = token as usize;
            let start = if token == 0 { 0.0 } else { ends[token - 1] };
            assert!((start - 1e-6..ends[token] + 1e-6).contains(&number), "{number}: token {token} from {start}");
        }
        let tail = drawn.tokens.iter().filter(|&&token| token != 0 && token != VOCAB - 1).count();
        assert!((tail as i64 - ROWS / 2).abs() <= 1, "{tail} of {ROWS} in the tail, which has half");
    }
    let last = draw(&logits.unsqueeze(0), 1.0, &[1.0 - f64::EPSILON / 2.0]).unwrap();
    assert_eq!(last.tokens, [VOCAB - 1]);
}

#[test]
fn logits_that_are_no_numbers_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut row = vec![0.5_f32; 40];
        row[33] = bad;
        let logits = Tensor::from_slice(&row).unsqueeze(0);
        for result in [draw(&logits, 1.0, &[0.5]), draw_by_tensors(&logits, 1.0, &[0.5])] {
            assert!(result.unwrap_err().to_string().contains("no numbers"), "{bad}");
        }
    }
    assert!(draw(&values(&[2, 9], 0.0), 1.0, &[0.5]).is_err(), "a number is missing");
}

/// A critic with weights, as if it had been trained.
fn critic(policy: &CausalLm) -> Critic {
    let width = policy.dims().hidden;
    let weight = (values(&[1, width], 0.9) * 0.3).to_device(device());
    Critic::Head { weight, bias: Tensor::from_slice(&[0.25_f32]).to_device(device()) }
}

fn sampled(policy: &CausalLm, prompts: &[Vec<i64>], options: &GenerateOptions) -> Vec<Completion> {
    let critic = critic(policy);
    complete(policy, prompts, options, &|hidden| critic.values_of_hidden(hidden), |_| Ok(())).unwrap()
}

const OPTIONS: GenerateOptions = GenerateOptions {
    max_new_tokens: 7,
    sampling: Sampling { temperature: 0.7, top_k: 0, top_p: 1.0, greedy: false },
    eos: Some(3),
    seed: 5,
    batch_size: 5,
};

/// Prompts of several lengths, one of them three times.
fn prompts() -> Vec<Vec<i64>> {
    [(3, 1), (1, 2), (6, 3), (3, 1), (2, 5), (4, 6), (3, 1)].map(|(length, salt)| ids(length, salt)).to_vec()
}

/// What PPO takes from the sampling pass is what a forward over the whole sequences gives.
fn equals_a_whole_forward(name: &str, policy: &CausalLm) {
    let prompts = prompts();
    let completions = sampled(policy, &prompts, &OPTIONS);
    let sequence = |(at, completion): (usize, &Completion)| {
        let tokens = [prompts[at].as_slice(), &completion.tokens].concat();
        Sequence::new(tokens, prompts[at].len(), RowId::line(Path::new("prompts"), at + 1))
    };
    let sequences: Vec<Sequence> = completions.iter().enumerate().map(sequence).collect();
    let batch = lm_batch(&sequences.iter().collect::<Vec<_>>());
    let whole = judge(policy, &critic(policy), &batch, OPTIONS.sampling.temperature).unwrap();
    let together = |of: fn(&Completion) -> &Vec<f64>| {
        let all: Vec<f64> = completions.iter().flat_map(of).copied().collect();
        Tensor::from_slice(&all)
    };
    assert_close(
        &format!("{name}: log-probs"),
        &together(|c| &c.logprobs),
        &whole.tokens.logprobs.to_device(Device::Cpu),
        TOLERANCE,
    );
    assert_close(&format!("{name}: values"), &together(|c| &c.values), &whole.values.to_device(Device::Cpu), TOLERANCE);
}

#[test]
fn the_sampling_pass_sees_what_a_whole_forward_sees() {
    for (at, policy) in families().iter().enumerate() {
        equals_a_whole_forward(&format!("family {at}"), policy);
    }
    let mut models = 0;
    for entry in std::fs::read_dir(golden("models")).unwrap() {
        let directory = entry.unwrap().path();
        let name = directory.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with("-reward") {
            continue;
        }
        let options = LoadOptions {
            device: device(),
            compute: Kind::Float,
            trainable: true,
            mapped: false,
            checkpointing: false,
        };
        let policy = CausalLm::from_pretrained(&directory, &options).unwrap();
        // Longer than that, dynamic scaling turns earlier keys anew.
        assert_eq!(policy.is_steady(13), name != "llama-rope-dynamic", "{name}");
        if policy.is_steady(13) {
            equals_a_whole_forward(&name, &policy);
            models += 1;
        }
    }
    assert!(models >= 20, "only {models} models found");
}

/// A prompt of several rows runs once; its rows are what they are alone, draws included.
#[test]
fn rows_of_one_prompt_are_what_they_are_alone() {
    for policy in families() {
        let prompts = prompts();
        let together = sampled(&policy, &prompts, &GenerateOptions { batch_size: 100, ..OPTIONS });
        assert_ne!(together[0].tokens, together[3].tokens, "draws of their own");
        for batch_size in [1, 2, 3] {
            let apart = sampled(&policy, &prompts, &GenerateOptions { batch_size, ..OPTIONS });
            for (a, b) in together.iter().zip(&apart) {
                assert_eq!(a.tokens, b.tokens);
                for (a, b) in [(&a.logprobs, &b.logprobs), (&a.values, &b.values)] {
                    assert_close("sampled", &Tensor::from_slice(a), &Tensor::from_slice(b), TOLERANCE);
                }
            }
        }
    }
}

/// More prompt tokens than run at once, and rows that leave at different times.
#[test]
fn prompts_run_in_parts() {
    let policy = model(kin("mistral"), &TRAINABLE);
    let prompts: Vec<Vec<i64>> = (0..70).map(|n| ids(20 + n % 25, n as i64)).collect();
    assert!(prompts.iter().map(Vec::len).sum::<usize>() > 2 * 1024);
    let together = sampled(&policy, &prompts, &GenerateOptions { batch_size: 70, ..OPTIONS });
    let apart = sampled(&policy, &prompts, &GenerateOptions { batch_size: 3, ..OPTIONS });
    for (a, b) in together.iter().zip(&apart) {
        assert_eq!(a.tokens, b.tokens);
    }
}

/// Products in bfloat16 take libtorch's operators and a cache of their own kind.
#[test]
fn bfloat16_decodes_too() {
    let policy = model(kin("mistral"), &LoadOptions { compute: Kind::BFloat16, ..*TRAINABLE });
    let completions = sampled(&policy, &prompts(), &OPTIONS);
    for (prompt, completion) in prompts().iter().zip(&completions) {
        let tokens = [prompt.as_slice(), &completion.tokens].concat();
        let row = Sequence::new(tokens, prompt.len(), RowId::line(Path::new("prompts"), 1));
        let whole = judge(&policy, &critic(&policy), &lm_batch(&[&row]), OPTIONS.sampling.temperature).unwrap();
        let ours = Tensor::from_slice(&completion.logprobs);
        assert_close("bfloat16 log-probs", &ours, &whole.tokens.logprobs.to_device(Device::Cpu), 5e-2);
    }
}

/// The same tests where libtorch is told to leave wider registers alone, and where it is left with none: then everything
/// goes libtorch's way, as on a GPU.
#[test]
fn every_instruction_set_decodes_alike() {
    let _ = own_loops();
    for capability in ["avx2", "default"] {
        let ran = Command::new(std::env::current_exe().unwrap())
            .args(["decoding::", "kernels::", "rollout::", "golden_sampling::", "golden_models::greedy", "model::"])
            .args(["--skip", "every_instruction_set", "--test-threads", "2"])
            .env(CAPABILITY, capability)
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{capability}: {out}");
        let passed =
            out.lines().find_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse().ok());
        assert!(passed.is_some_and(|passed: usize| passed > 20), "{capability}: {out}");
    }
}
