//! Properties of the forward pass: flat equals padded, order and sharing change nothing, decoding equals the whole.
#![allow(clippy::unwrap_used)]
use collimate::Error;
use collimate::model::{CausalLm, KvCache, LoadOptions, ModelInput, Pooling, RewardModel};
use tch::{Kind, Tensor};

use crate::support::{device, index};
use crate::tiny::{
    FROZEN, TRAINABLE, assert_gradients, config, difference, families, gpt2, gradients, ids, llama, logits, model,
};

const TOLERANCE: f64 = 1e-5;

fn sequences() -> Vec<Vec<i64>> {
    vec![ids(9, 1), ids(1, 2), ids(17, 3), ids(5, 4)]
}

fn flat(sequences: &[Vec<i64>]) -> ModelInput {
    ModelInput::from_sequences(sequences, device()).unwrap()
}

/// A loss that weighs every logit differently.
fn weighted(logits: &Tensor) -> Tensor {
    let weights = Tensor::arange(logits.numel() as i64, (Kind::Float, logits.device())).sin().view_as(logits);
    (logits * weights).sum(Kind::Float)
}

#[test]
fn flat_equals_each_row_alone() {
    for model in families() {
        let all = logits(&model, &flat(&sequences()));
        let alone: Vec<Tensor> = sequences().iter().map(|s| logits(&model, &flat(std::slice::from_ref(s)))).collect();
        let alone = Tensor::cat(&alone, 0);
        assert!(difference(&all, &alone) < TOLERANCE);
        assert_gradients(&gradients(&model, &weighted(&all)), &gradients(&model, &weighted(&alone)), 1e-4);
    }
}

/// Few tokens that are read leave the last block's others out, many do not; a token may be read twice. With checkpointing, too.
#[test]
fn states_of_some_tokens_are_those_of_all() {
    for plain in families() {
        let config = serde_json::Value::Object(plain.config().raw.clone());
        let frugal = model(config, &LoadOptions { checkpointing: true, ..*TRAINABLE });
        for rows in [vec![31i64, 8, 31, 2], (0..30).collect()] {
            let rows = index(&rows);
            let all = plain.hidden_states(&flat(&sequences()), None).unwrap().index_select(0, &rows);
            let wanted = gradients(&plain, &weighted(&plain.logits(&all).unwrap()));
            for model in [&plain, &frugal] {
                let some = model.states_at(&flat(&sequences()), &rows, None).unwrap();
                assert!(difference(&all, &some) < TOLERANCE);
                assert_gradients(&gradients(model, &weighted(&model.logits(&some).unwrap())), &wanted, 1e-4);
            }
        }
    }
}

/// Equal lengths take the path without a gather; one longer row more forces the gather.
#[test]
fn flat_equals_padded() {
    for model in families() {
        let rows = vec![ids(8, 1), ids(8, 2), ids(8, 3)];
        let dense = logits(&model, &flat(&rows));
        let mut padded = rows.clone();
        padded.push(ids(20, 4));
        let grid = logits(&model, &flat(&padded)).narrow(0, 0, 24);
        assert!(difference(&dense, &grid) < TOLERANCE);
        // Padding on the right, as tokens: what comes before it must not notice.
        let filled: Vec<Vec<i64>> = rows.iter().map(|row| [row.as_slice(), &[5; 6]].concat()).collect();
        let filled = logits(&model, &flat(&filled)).view([3, 14, -1]).narrow(1, 0, 8).reshape([24, -1]);
        assert!(difference(&dense, &filled) < TOLERANCE);
    }
}

#[test]
fn order_of_rows_changes_nothing() {
    for model in families() {
        let mut reversed = sequences();
        reversed.reverse();
        let (a, b) = (logits(&model, &flat(&sequences())), logits(&model, &flat(&reversed)));
        let lengths: Vec<i64> = reversed.iter().map(|s| s.len() as i64).collect();
        let mut parts = b.split_with_sizes(&lengths, 0);
        parts.reverse();
        assert!(difference(&a, &Tensor::cat(&parts, 0)) < TOLERANCE);
    }
}

/// Two completions of one prompt: the prompt once and indexed twice, or two copies of it.
#[test]
fn sharing_a_prompt_changes_nothing() {
    let (prompt, chosen, rejected) = (ids(6, 1), ids(7, 2), ids(3, 3));
    for model in families() {
        let tokens = [prompt.clone(), chosen.clone(), rejected.clone()].concat();
        let positions: Vec<i64> = (0..13).chain(6..9).collect();
        let rows = vec![(0..13).collect(), (0..6).chain(13..16).collect()];
        let shared = ModelInput::new(&tokens, &positions, &rows, device()).unwrap();
        let copies = flat(&[[prompt.clone(), chosen.clone()].concat(), [prompt.clone(), rejected.clone()].concat()]);
        // The loss looks at the completions, and at the prompt's last token for both.
        let shared_rows = index(&(5..13).chain([5, 13, 14, 15]).collect::<Vec<i64>>());
        let copied_rows = index(&(5..13).chain(18..22).collect::<Vec<i64>>());
        let a = logits(&model, &shared).index_select(0, &shared_rows);
        let b = logits(&model, &copies).index_select(0, &copied_rows);
        assert!(difference(&a, &b) < TOLERANCE);
        assert_gradients(&gradients(&model, &weighted(&a)), &gradients(&model, &weighted(&b)), 1e-4);
    }
}

#[test]
fn a_forward_is_causal() {
    for model in families() {
        let mut changed = sequences();
        changed[2][10] = (changed[2][10] + 1) % 41;
        let (a, b) = (logits(&model, &flat(&sequences())), logits(&model, &flat(&changed)));
        assert_eq!(difference(&a.narrow(0, 0, 20), &b.narrow(0, 0, 20)), 0.0);
        assert!(difference(&a.narrow(0, 20, 1), &b.narrow(0, 20, 1)) > 1e-3);
    }
}

/// Prompts of different lengths are filled at once, then each row goes on alone.
#[test]
fn decoding_with_a_cache_equals_the_whole_forward() {
    for model in families() {
        let whole = [ids(12, 1), ids(9, 2), ids(15, 3)];
        let steps = 6;
        let mut cache = model.new_cache(3, 15).unwrap();
        let prompts: Vec<Vec<i64>> = whole.iter().map(|s| s[..s.len() - steps].to_vec()).collect();
        let _ = model.hidden_states(&flat(&prompts), Some(&mut cache)).unwrap();
        for step in 0..steps {
            let next: Vec<i64> = whole.iter().map(|s| s[s.len() - steps + step]).collect();
            let got = decode(&model, &next, &mut cache);
            for (row, s) in whole.iter().enumerate() {
                let seen = s.len() - steps + step + 1;
                let wanted = logits(&model, &flat(&[s[..seen].to_vec()])).narrow(0, seen as i64 - 1, 1);
                assert!(difference(&got.narrow(0, row as i64, 1), &wanted) < TOLERANCE, "row {row}, step {step}");
            }
        }
        assert_eq!(cache.lengths(), [12, 9, 15]);
        assert!(matches!(ModelInput::step(&[1, 1, 1], &cache), Err(Error::Usage { .. })), "the cache is full");
    }
}

#[test]
fn rows_leave_a_cache() {
    for model in families() {
        let prompts = [ids(4, 1), ids(7, 2), ids(2, 3)];
        let mut cache = model.new_cache(3, 9).unwrap();
        let _ = model.hidden_states(&flat(&prompts), Some(&mut cache)).unwrap();
        cache.keep(&[2, 0]).unwrap();
        let got = decode(&model, &[11, 12], &mut cache);
        for (row, (prompt, next)) in [(&prompts[2], 11), (&prompts[0], 12)].into_iter().enumerate() {
            let s = [prompt.as_slice(), &[next]].concat();
            let wanted = logits(&model, &flat(std::slice::from_ref(&s))).narrow(0, s.len() as i64 - 1, 1);
            assert!(difference(&got.narrow(0, row as i64, 1), &wanted) < TOLERANCE);
        }
    }
}

fn decode(model: &CausalLm, next: &[i64], cache: &mut KvCache) -> Tensor {
    let input = ModelInput::step(next, cache).unwrap();
    model.logits(&model.hidden_states(&input, Some(cache)).unwrap()).unwrap()
}

#[test]
fn a_frozen_copy_is_deep() {
    for model in families() {
        let copy = model.duplicate_frozen().unwrap();
        let before = logits(&copy, &flat(&sequences()));
        assert!(!before.requires_grad());
        assert_eq!(difference(&before, &logits(&model, &flat(&sequences()))), 0.0);
        tch::no_grad(|| {
            for (_, tensor) in model.params().iter() {
                let _ = tensor.shallow_clone().fill_(0.0);
            }
        });
        assert_eq!(difference(&before, &logits(&copy, &flat(&sequences()))), 0.0);
    }
}

#[test]
fn initialisation_depends_on_seed_and_name_only() {
    let (a, b) = (model(gpt2(), &TRAINABLE), model(gpt2(), &FROZEN));
    let c = CausalLm::from_config(config(gpt2()), 8, &TRAINABLE).unwrap();
    for ((name, a), (_, b)) in a.params().iter().zip(b.params().iter()) {
        assert_eq!(difference(a, b), 0.0, "{name}");
    }
    let name = "transformer.h.1.mlp.c_proj.weight";
    let (a, c) = (a.params().get(name).unwrap(), c.params().get(name).unwrap());
    assert!(difference(a, c) > 0.01);
    // Residual projections start smaller by 1/sqrt(2 layers).
    assert!((f64::try_from(a.std(true)).unwrap() - 0.1).abs() < 0.01);
    let within = f64::try_from(a.abs().lt(0.1).to_kind(Kind::Float).mean(Kind::Float)).unwrap();
    assert!((within - 0.683).abs() < 0.05, "a normal distribution has 68% within one standard deviation, not {within}");
}

/// bfloat16 products: near the float32 result, gradients in float32, and a frozen copy that computes the same.
#[test]
fn bfloat16_is_near_and_consistent() {
    let options = LoadOptions { compute: Kind::BFloat16, ..*TRAINABLE };
    for shape in [gpt2(), llama()] {
        let (exact, rounded) = (model(shape.clone(), &TRAINABLE), model(shape, &options));
        let (a, b) = (logits(&exact, &flat(&sequences())), logits(&rounded, &flat(&sequences())));
        assert_eq!(b.kind(), Kind::Float);
        let scale = f64::try_from(a.abs().max()).unwrap();
        assert!(difference(&a, &b) > 0.0 && difference(&a, &b) < 0.05 * scale);
        for (name, gradient) in gradients(&rounded, &weighted(&b)) {
            assert_eq!(gradient.kind(), Kind::Float, "{name}");
        }
        let frozen = rounded.duplicate_frozen().unwrap();
        assert_eq!(difference(&b, &logits(&frozen, &flat(&sequences()))), 0.0);
        let mut cache = frozen.new_cache(1, 9).unwrap();
        let _ = frozen.hidden_states(&flat(&[ids(8, 1)]), Some(&mut cache)).unwrap();
        let step = decode(&frozen, &[ids(9, 1)[8]], &mut cache);
        assert!(difference(&step, &b.narrow(0, 8, 1)) < 0.05 * scale);
    }
}

#[test]
fn dropout_is_off_unless_asked_for() {
    for model in families() {
        let run = |p: f64, seed: i64| {
            tch::manual_seed(seed);
            logits(&model, &flat(&sequences()).with_dropout(p))
        };
        assert_eq!(difference(&run(0.0, 1), &run(0.0, 2)), 0.0);
        assert_eq!(difference(&run(0.1, 1), &run(0.1, 1)), 0.0);
        assert!(difference(&run(0.1, 1), &run(0.1, 2)) > 1e-3);
    }
}

#[test]
fn scores_are_the_heads_product_and_start_at_the_stated_spread() {
    let reward = RewardModel::from_config(config(llama()), 3, Pooling::Sum, true, &TRAINABLE).unwrap();
    let hidden = reward.hidden_states(&flat(&sequences()), None).unwrap();
    let weight = reward.params().get("score.weight").unwrap();
    assert_eq!(weight.size(), [1, 20]);
    let wanted = hidden.matmul(&weight.transpose(0, 1)).squeeze_dim(1);
    assert!(difference(&reward.scores(&hidden).unwrap(), &wanted) < TOLERANCE);
    let spread = f64::try_from(weight.std(true)).unwrap() * (21.0_f64).sqrt();
    assert!((0.6..1.4).contains(&spread), "{spread}");
}

#[test]
fn malformed_batches_are_refused() {
    let refused = |tokens: &[i64], positions: &[i64], rows: &[Vec<i64>]| {
        matches!(ModelInput::new(tokens, positions, rows, device()), Err(Error::Usage { .. }))
    };
    assert!(refused(&[], &[], &[]), "nothing");
    assert!(refused(&[1, 2], &[0, 1], &[vec![0]]), "a token in no row");
    assert!(refused(&[1], &[0], &[vec![0, 1]]), "an index out of range");
    assert!(refused(&[1], &[0], &[vec![0], vec![]]), "an empty row");
    assert!(refused(&[1, 2], &[0], &[vec![0, 1]]), "too few positions");
    assert!(refused(&[1, 2, 3], &[0, 1, 1], &[vec![0, 1], vec![2, 1]]), "shared, but after different tokens");
}

#[test]
fn ids_and_positions_outside_the_model_are_refused() {
    for model in families() {
        let error = model.hidden_states(&flat(&[vec![41]]), None).unwrap_err().to_string();
        assert!(error.contains("41") && error.contains("vocabulary"), "{error}");
    }
    let error = model(gpt2(), &FROZEN).hidden_states(&flat(&[ids(65, 0)]), None).unwrap_err().to_string();
    assert!(error.contains("65") && error.contains("64"), "{error}");
}

/// With dynamic scaling a sequence's angles depend on its own length: not on what else is in the batch, and shared prompts
/// go by the longest completion. Up to the context it is the plain embedding.
#[test]
fn dynamic_scaling_depends_on_a_sequences_own_length() {
    let mut config = llama();
    config["max_position_embeddings"] = 12.into();
    let plain = model(config.clone(), &FROZEN);
    config["rope_scaling"] = serde_json::json!({"rope_type": "dynamic", "factor": 3.0});
    let dynamic = model(config, &FROZEN);
    let (short, long) = (ids(12, 1), ids(20, 2));
    let alone = |model: &CausalLm, row: &Vec<i64>| logits(model, &flat(std::slice::from_ref(row)));
    assert_eq!(difference(&alone(&plain, &short), &alone(&dynamic, &short)), 0.0);
    assert!(difference(&alone(&plain, &long), &alone(&dynamic, &long)) > 1e-3);
    let both = logits(&dynamic, &flat(&[short.clone(), long.clone()]));
    let each = Tensor::cat(&[alone(&dynamic, &short), alone(&dynamic, &long)], 0);
    assert!(difference(&both, &each) < TOLERANCE);
    // One prompt of 5 tokens, completions of 9 and 2: the short one turns as a row of 14 does.
    let tokens = [ids(5, 3), ids(9, 4), ids(2, 5)].concat();
    let positions: Vec<i64> = (0..14).chain(5..7).collect();
    let shared = ModelInput::new(&tokens, &positions, &[(0..14).collect(), (0..5).chain(14..16).collect()], device());
    let got = logits(&dynamic, &shared.unwrap());
    let chosen = [ids(5, 3), ids(9, 4)].concat();
    assert!(difference(&got.narrow(0, 0, 14), &alone(&dynamic, &chosen)) < TOLERANCE);
    let padded = [ids(5, 3), ids(2, 5), ids(7, 6)].concat();
    assert!(difference(&got.narrow(0, 14, 2), &alone(&dynamic, &padded).narrow(0, 5, 2)) < TOLERANCE);
}

/// Rotary attention sees distances only: all positions moved by the same number change nothing.
#[test]
fn rotary_positions_are_relative() {
    let model = model(llama(), &FROZEN);
    let (tokens, rows) = (ids(15, 1), vec![(0..15).collect()]);
    let at = |start: i64| {
        let positions: Vec<i64> = (start..start + 15).collect();
        logits(&model, &ModelInput::new(&tokens, &positions, &rows, device()).unwrap())
    };
    assert!(difference(&at(0), &at(7)) < TOLERANCE);
}
