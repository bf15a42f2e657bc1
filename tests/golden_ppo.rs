//! PPO's arithmetic against NumPy, PyTorch autograd and TRL 1.9.2 (scripts/goldens/ppo.py), and two iterations of TRL's
//! own trainer, recorded: log-probs, advantages, every minibatch's losses and gradient norms, final weights.
#![allow(clippy::unwrap_used)]
use crate::support::{assert_close, assert_number, device, golden, ids, json, list, number, tensor, tensors};
use collimate::config::{OptimConfig, PpoSection, ScheduleKind};
use collimate::data::{RowId, Sequence, lm_batch};
use collimate::loss::gae::{gae, whiten};
use collimate::loss::logprobs::{self, Projection};
use collimate::loss::ppo;
use collimate::model::{CausalLm, Critic, LoadOptions, RewardModel};
use collimate::rollout::forward::{judge, target_logprobs};
use collimate::stages::ppo::objective::{PpoBatch, PpoObjective};
use collimate::train::{AdamW, LossOutput, Metric, Objective};
use serde_json::Value;
use tch::{Kind, Tensor};

const TOLERANCE: f64 = 2e-5;

fn options() -> LoadOptions {
    LoadOptions { device: device(), compute: Kind::Float, trainable: true, mapped: false, checkpointing: false }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// [episode][token].
fn ragged(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(numbers).collect()
}

#[track_caller]
fn assert_ragged(what: &str, ours: &[Vec<f64>], reference: &Value, tolerance: f64) {
    let reference = ragged(reference);
    assert_eq!(ours.iter().map(Vec::len).collect::<Vec<_>>(), reference.iter().map(Vec::len).collect::<Vec<_>>());
    for (e, (ours, reference)) in ours.iter().zip(&reference).enumerate() {
        for (t, (a, b)) in ours.iter().zip(reference).enumerate() {
            assert_number(&format!("{what}, episode {e}, token {t}"), *a, *b, tolerance);
        }
    }
}

/// All tokens of all episodes, as float32.
fn flat(value: &Value) -> Tensor {
    let values: Vec<f32> = ragged(value).into_iter().flatten().map(|v| v as f32).collect();
    Tensor::from_slice(&values).to_device(device())
}

fn mean(tensor: &Tensor) -> f64 {
    tensor.mean(Kind::Double).double_value(&[])
}

#[test]
fn rewards_carry_the_kl_and_the_score_stands_at_the_last_real_token() {
    for (i, case) in list(&json("ppo.json"), "kl_rewards").iter().enumerate() {
        let (logps, refs) = (ragged(&case["logprobs"]), ragged(&case["ref_logprobs"]));
        let scores = numbers(&case["scores"]);
        let rewards: Vec<Vec<f64>> =
            (0..scores.len()).map(|e| ppo::kl_rewards(&logps[e], &refs[e], scores[e], number(case, "coef"))).collect();
        assert_ragged(&format!("case {i}"), &rewards, &case["rewards"], 1e-6);
    }
}

#[test]
fn advantages_and_returns() {
    for (i, case) in list(&json("ppo.json"), "gae").iter().enumerate() {
        let (rewards, values) = (ragged(&case["rewards"]), ragged(&case["values"]));
        let both = rewards.iter().zip(&values).map(|(r, v)| gae(r, v, number(case, "gamma"), number(case, "lambda")));
        let (advantages, returns): (Vec<_>, Vec<_>) = both.unzip();
        assert_ragged(&format!("advantages {i}"), &advantages, &case["advantages"], 1e-6);
        assert_ragged(&format!("returns {i}"), &returns, &case["returns"], 1e-6);
    }
}

#[test]
fn whitening_over_real_tokens() {
    for (i, case) in list(&json("ppo.json"), "whiten").iter().enumerate() {
        let mut values = ragged(&case["values"]);
        whiten(&mut values, case["shift_mean"].as_bool().unwrap());
        assert_ragged(&format!("case {i}"), &values, &case["whitened"], 1e-5);
    }
}

#[test]
fn policy_loss_its_clip_and_its_gradient() {
    for (i, case) in list(&json("ppo.json"), "policy_loss").iter().enumerate() {
        let new = flat(&case["new_logprobs"]).set_requires_grad(true);
        let (old, advantages) = (flat(&case["old_logprobs"]), flat(&case["advantages"]));
        let found = ppo::policy_losses(&new, &old, &advantages, number(case, "clip_range")).unwrap();
        let loss = found.losses.mean(Kind::Float);
        loss.backward();
        assert_number(&format!("loss {i}"), loss.double_value(&[]), number(case, "loss"), 1e-5);
        assert_number(&format!("clipped {i}"), mean(&found.clipped), number(case, "clip_fraction"), 1e-6);
        let ratio = (new.detach() - &old).exp();
        assert_number(&format!("ratio {i}"), mean(&ratio), number(case, "ratio"), 1e-5);
        let kl = mean(&ppo::approx_kls(&new, &old).unwrap());
        assert_number(&format!("approx_kl {i}"), kl, number(case, "approx_kl"), 1e-5);
        assert_close(&format!("gradient {i}"), &new.grad(), &flat(&case["grad"]), 1e-5);
    }
}

#[test]
fn value_loss_its_clip_and_its_gradient() {
    for (i, case) in list(&json("ppo.json"), "value_loss").iter().enumerate() {
        let new = flat(&case["new_values"]).set_requires_grad(true);
        let (old, returns) = (flat(&case["old_values"]), flat(&case["returns"]));
        let found = ppo::value_losses(&new, &old, &returns, number(case, "value_clip")).unwrap();
        let loss = found.losses.mean(Kind::Float);
        loss.backward();
        assert_number(&format!("loss {i}"), loss.double_value(&[]), number(case, "loss"), 1e-5);
        assert_number(&format!("clipped {i}"), mean(&found.clipped), number(case, "clip_fraction"), 1e-6);
        assert_close(&format!("gradient {i}"), &new.grad(), &flat(&case["grad"]), 1e-5);
    }
}

#[test]
fn both_losses_together() {
    for (i, case) in list(&json("ppo.json"), "total").iter().enumerate() {
        let logps = flat(&case["new_logprobs"]).set_requires_grad(true);
        let values = flat(&case["new_values"]).set_requires_grad(true);
        let (old, advantages) = (flat(&case["old_logprobs"]), flat(&case["advantages"]));
        let policy = ppo::policy_losses(&logps, &old, &advantages, number(case, "clip_range")).unwrap();
        let (old, returns) = (flat(&case["old_values"]), flat(&case["returns"]));
        let value = ppo::value_losses(&values, &old, &returns, number(case, "value_clip")).unwrap();
        let loss = policy.losses.mean(Kind::Float) + number(case, "vf_coef") * value.losses.mean(Kind::Float);
        loss.backward();
        assert_number(&format!("loss {i}"), loss.double_value(&[]), number(case, "loss"), 1e-5);
        assert_close(&format!("by log-probs {i}"), &logps.grad(), &flat(&case["grad_logprobs"]), 1e-5);
        assert_close(&format!("by values {i}"), &values.grad(), &flat(&case["grad_values"]), 1e-5);
    }
}

#[test]
fn entropy_of_the_policy() {
    for case in list(&json("ppo.json"), "entropy") {
        let logits = tensor(&case["logits"]);
        let eye = Tensor::eye(logits.size()[1], (Kind::Float, logits.device()));
        let head = Projection { weight: &eye, compute: Kind::Float };
        let targets = Tensor::zeros([logits.size()[0]], (Kind::Int64, logits.device()));
        let figures = logprobs::of_targets(&logits, head, &targets, 1.0, true).unwrap();
        let sum = figures.entropy.sum(Kind::Float).double_value(&[]);
        assert_number("entropy", sum / logits.size()[0] as f64, number(case, "mean"), 1e-5);
    }
}

#[test]
fn the_adaptive_coefficient() {
    for (i, case) in list(&json("ppo.json"), "adaptive_kl").iter().enumerate() {
        let of = |key| number(case, key);
        let ours = ppo::adapted_coef(of("coef"), of("kl"), of("target"), of("horizon"), of("n"));
        assert_number(&format!("case {i}"), ours, of("new_coef"), 1e-12);
    }
}

/// Sequences of a recorded iteration, prompts without padding.
fn sequences(record: &Value) -> Vec<Sequence> {
    let id = RowId::line(std::path::Path::new("recorded"), 1);
    let both = list(record, "prompts").iter().zip(list(record, "responses"));
    both.map(|(prompt, response)| {
        let prompt = ids(prompt);
        let tokens = prompt.iter().copied().chain(ids(response)).collect();
        Sequence::new(tokens, prompt.len(), id.clone())
    })
    .collect()
}

/// [episode][token] of a flat tensor; every episode has as many tokens.
fn by_episode(values: &Tensor, episodes: usize) -> Vec<Vec<f64>> {
    let all: Vec<f64> = Vec::<f32>::try_from(values.detach()).unwrap().into_iter().map(f64::from).collect();
    all.chunks(all.len() / episodes).map(<[f64]>::to_vec).collect()
}

fn metric(output: &LossOutput, name: &str) -> f64 {
    let (_, metric) = output.metrics.iter().find(|(n, _)| *n == name).unwrap();
    match metric {
        Metric::Mean { sum, weight } => sum.double_value(&[]) / weight,
        _ => panic!("{name} is no mean"),
    }
}

/// Norm over the gradients of some of the optimizer's parameters.
fn grad_norm<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> f64 {
    tensors
        .map(|t| t.grad())
        .filter(Tensor::defined)
        .map(|g| g.square().sum(Kind::Double).double_value(&[]))
        .sum::<f64>()
        .sqrt()
}

struct Recorded {
    policy: CausalLm,
    reference: CausalLm,
    critic: Critic,
    settings: PpoSection,
    optimizer: AdamW,
}

impl Recorded {
    fn new(recorded: &Value) -> Self {
        let of = |key| number(recorded, key);
        let policy = CausalLm::from_pretrained(&golden("models/gpt2-tiny"), &options()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(golden("models/gpt2-tiny/config.json"), dir.path().join("config.json")).unwrap();
        std::fs::copy(golden("curves/sft.safetensors"), dir.path().join("model.safetensors")).unwrap();
        let reference = CausalLm::from_pretrained(dir.path(), &options()).unwrap();
        let network = RewardModel::from_pretrained(&golden("models/gpt2-tiny-reward"), &options()).unwrap();
        let critic = Critic::Network(Box::new(network));
        let settings = PpoSection {
            temperature: of("temperature"),
            clip_range: of("cliprange"),
            value_clip_range: of("cliprange_value"),
            vf_coef: of("vf_coef"),
            kl_coef: of("kl_coef"),
            gamma: of("gamma"),
            gae_lambda: of("lam"),
            ..PpoSection::default()
        };
        let config = OptimConfig {
            learning_rate: of("learning_rate"),
            schedule: ScheduleKind::Linear,
            warmup_steps: 0,
            weight_decay: 0.0,
            beta1: of("adam_beta1"),
            beta2: of("adam_beta2"),
            epsilon: of("adam_epsilon"),
            max_grad_norm: f64::INFINITY,
        };
        let named = critic.named();
        let named = named.iter().map(|(name, tensor)| (name.as_str(), *tensor));
        let optimizer = AdamW::new(policy.params().iter().chain(named), config).unwrap();
        Self { policy, reference, critic, settings, optimizer }
    }

    /// Log-probs, values, rewards, advantages, returns against the record; the whitened advantages and the returns.
    fn rollout(&self, record: &Value) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let _guard = tch::no_grad_guard();
        let sequences = sequences(record);
        let count = sequences.len();
        let batch = lm_batch(&sequences.iter().collect::<Vec<_>>());
        let now = judge(&self.policy, &self.critic, &batch, self.settings.temperature).unwrap();
        let temperature = self.settings.temperature;
        let reference = target_logprobs(&self.reference, &batch.flat, &batch.targets, temperature).unwrap();
        let (logps, values) = (by_episode(&now.tokens.logprobs, count), by_episode(&now.values, count));
        let reference = by_episode(&reference, count);
        assert_ragged("log-probs", &logps, &record["logprobs"], TOLERANCE);
        assert_ragged("reference log-probs", &reference, &record["ref_logprobs"], TOLERANCE);
        assert_ragged("values", &values, &record["values"], TOLERANCE);
        let scores = numbers(&record["scores"]);
        let rewards: Vec<Vec<f64>> =
            (0..count).map(|e| ppo::kl_rewards(&logps[e], &reference[e], scores[e], self.settings.kl_coef)).collect();
        assert_ragged("rewards", &rewards, &record["rewards"], TOLERANCE);
        let (mut advantages, returns): (Vec<_>, Vec<_>) =
            (0..count).map(|e| gae(&rewards[e], &values[e], self.settings.gamma, self.settings.gae_lambda)).unzip();
        assert_ragged("advantages", &advantages, &record["advantages"], TOLERANCE);
        assert_ragged("returns", &returns, &record["returns"], TOLERANCE);
        whiten(&mut advantages, true);
        assert_ragged("whitened", &advantages, &record["whitened"], TOLERANCE);
        (advantages, returns)
    }

    fn batch(&self, record: &Value, episodes: &[usize], lessons: &(Vec<Vec<f64>>, Vec<Vec<f64>>)) -> PpoBatch {
        let all = sequences(record);
        let pick = |from: &[Vec<f64>]| episodes.iter().flat_map(|&e| from[e].clone()).collect();
        PpoBatch {
            rows: lm_batch(&episodes.iter().map(|&e| &all[e]).collect::<Vec<_>>()),
            logprobs: pick(&ragged(&record["logprobs"])),
            values: pick(&ragged(&record["values"])),
            advantages: pick(&lessons.0),
            returns: pick(&lessons.1),
            new_in: None,
            // Not the first: the record's own log-probs differ by rounding between its passes.
            update: 1,
        }
    }

    /// One minibatch: losses, figures and gradients against the record, then the optimizer's step.
    fn update(&mut self, what: &str, batch: &PpoBatch, expected: &Value) {
        self.optimizer.zero_grad().unwrap();
        let objective = PpoObjective { policy: &self.policy, critic: &self.critic, settings: &self.settings };
        let output = objective.loss(batch).unwrap();
        let loss = &output.sum / batch.rows.targets.len() as f64;
        loss.backward();
        assert_number(&format!("{what}: loss"), loss.double_value(&[]), number(expected, "loss"), TOLERANCE);
        for (ours, theirs) in [
            ("loss/policy_avg", "policy_loss"),
            ("loss/value_avg", "value_loss"),
            ("policy/clipfrac_avg", "clip_fraction"),
            ("val/clipfrac_avg", "value_clip_fraction"),
            ("policy/approxkl_avg", "approx_kl"),
            ("policy/entropy_avg", "entropy"),
            ("val/ratio", "ratio"),
        ] {
            assert_number(&format!("{what}: {ours}"), metric(&output, ours), number(expected, theirs), TOLERANCE);
        }
        let norms = &expected["grad_norm"];
        let policy = grad_norm(self.policy.params().iter().map(|(_, t)| t));
        assert_number(&format!("{what}: policy's gradient"), policy, number(norms, "policy"), TOLERANCE);
        let value = grad_norm(self.critic.named().into_iter().map(|(_, t)| t));
        assert_number(&format!("{what}: critic's gradient"), value, number(norms, "value"), TOLERANCE);
        self.optimizer.step(number(expected, "learning_rate")).unwrap();
    }
}

#[test]
fn two_iterations_of_trl_s_own_trainer() {
    let file = json("ppo.json");
    let mut run = Recorded::new(&file["recorded_settings"]);
    let start = tensors(&golden("models/gpt2-tiny/model.safetensors"));
    for (u, record) in list(&file, "recorded").iter().enumerate() {
        let lessons = run.rollout(record);
        for (m, expected) in list(record, "minibatches").iter().enumerate() {
            let episodes: Vec<usize> = ids(&expected["episodes"]).into_iter().map(|e| e as usize).collect();
            let batch = run.batch(record, &episodes, &lessons);
            run.update(&format!("iteration {u}, minibatch {m}"), &batch, expected);
        }
    }
    let last = list(&file, "recorded").last().unwrap();
    let mut compared = 0;
    for (name, expected) in last["final_vectors"]["policy"].as_object().unwrap() {
        assert_close(name, &run.policy.params().get(name).unwrap().detach(), &tensor(expected), TOLERANCE);
        compared += 1;
    }
    for (name, expected) in last["moved"]["policy"].as_object().unwrap() {
        let moved = run.policy.params().get(name).unwrap().detach() - start[name].to_device(device());
        let norm = moved.square().sum(Kind::Double).sqrt().double_value(&[]);
        assert_number(&format!("{name} moved"), norm, expected.as_f64().unwrap(), TOLERANCE);
        compared += 1;
    }
    let critic: std::collections::BTreeMap<String, &Tensor> = run.critic.named().into_iter().collect();
    for (name, expected) in last["final_vectors"]["value"].as_object().unwrap() {
        assert_close(name, &critic[&format!("value_model.{name}")].detach(), &tensor(expected), TOLERANCE);
        compared += 1;
    }
    assert!(compared > 30, "only {compared} tensors compared");
}
