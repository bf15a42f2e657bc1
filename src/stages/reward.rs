//! Reward modelling: Bradley-Terry on preference pairs.
use super::card::{self, ModelArtifact};
use super::source::{RowSource, in_order, micro};
use super::{Parts, Session, Stage, memory, pair_length};
use crate::config::{PoolingKind, RewardConfig, TrainConfig};
use crate::data::{Data, EncodeOptions, Pair, PairBatch, Set, pair_batch};
use crate::error::{Error, Result};
use crate::loss::bradley_terry;
use crate::model::device;
use crate::model::{HfConfig, Pooling, RewardModel};
use crate::rollout::forward::sequence_rewards;
use crate::train::{AdamW, Batch, LossOutput, Metric, Objective, Outcome};
use serde_json::json;
use std::path::Path;
use std::time::Instant;
use tch::{Kind, Tensor};

/// Pairs whose completions set the normalisation.
const NORMALISATION_PAIRS: usize = 1024;

impl Batch for PairBatch {
    fn targets(&self) -> f64 {
        self.preference.len() as f64
    }

    fn tokens(&self) -> u64 {
        self.flat.row_tokens() as u64
    }

    fn rows(&self) -> Vec<String> {
        self.ids.iter().map(ToString::to_string).collect()
    }
}

/// The Bradley-Terry loss, summed over pairs.
pub(crate) struct RewardObjective<'a> {
    /// The model that is trained.
    pub model: &'a RewardModel,
    /// `reward.centering`.
    pub centering: f64,
}

impl Objective for RewardObjective<'_> {
    type Batch = PairBatch;

    fn loss(&self, batch: &PairBatch) -> Result<LossOutput> {
        let pairs = batch.preference.len() as i64;
        let device = self.model.device();
        let rewards = sequence_rewards(self.model, &batch.flat, &batch.ends, &batch.actions)?;
        let (chosen, rejected) = (rewards.f_narrow(0, 0, pairs)?, rewards.f_narrow(0, pairs, pairs)?);
        let preference = super::floats(&batch.preference, device)?;
        let margin = super::floats(&batch.margin, device)?;
        let losses = bradley_terry::pair_losses(&chosen, &rejected, &preference, &margin, self.centering)?;
        let (rewards, gap) = (rewards.detach(), chosen.f_sub(&rejected)?.detach());
        let mean = |sum: Tensor, weight: i64| Metric::Mean { sum, weight: weight as f64 };
        let metrics = vec![
            ("accuracy", super::pair_accuracy(&gap, &batch.preference)?),
            ("min_reward", Metric::Min(rewards.f_min()?)),
            ("mean_reward", mean(rewards.f_sum(Kind::Float)?, 2 * pairs)),
            ("max_reward", Metric::Max(rewards.f_max()?)),
            ("margin", mean(gap.f_sum(Kind::Float)?, pairs)),
        ];
        Ok(LossOutput { sum: losses.f_sum(Kind::Float)?, metrics })
    }
}

/// Pairs as micro-batches, in the order of training.
pub(crate) fn source<'a>(rows: &'a Set<Pair>, train: &TrainConfig) -> RowSource<'a, Pair, PairBatch> {
    RowSource::new(rows, train, Box::new(|_, rows: &[&Pair]| pair_batch(rows)))
}

impl Stage for RewardConfig {
    fn run(&self, session: Session) -> Result<Outcome> {
        let tokenizer = &session.tokenizer;
        let started = Instant::now();
        let options = EncodeOptions::of(&self.data);
        // Rows without a margin of their own take the configured one.
        let with_margin = |pair: &mut Pair| pair.margin = pair.margin.or(Some(self.reward.margin));
        let data = Data::load(&self.data, tokenizer, &options, with_margin)?;
        let loading = Instant::now();
        let model = self.open_model(&session)?;
        data.check_lengths(model.most_tokens(), pair_length)?;
        let objective = RewardObjective { model: &model, centering: self.reward.centering };
        let optimizer = AdamW::new(model.params().iter(), self.train.optim())?;
        let ladder = || memory::longest(&data.train, &self.train, |rows: &[&Pair]| pair_batch(rows));
        let fitted = session.fit(&self.train, &objective, optimizer, ladder)?;
        let train = &fitted.train;
        let started = started + loading.elapsed();

        let source = source(&data.train, train);
        let eval = in_order(&data.eval, micro(train), |_, rows| pair_batch(rows))?;
        let ids = session.save_options(&self.train);
        let save = |dir: &Path, kind: Kind, checkpoint: bool| {
            if checkpoint || !self.reward.normalize {
                return model.save_pretrained(dir, kind, &ids);
            }
            let (gain, bias) = normalisation(&model, &data.train, train.micro())?;
            model.save_normalised(dir, kind, &ids, gain, bias)
        };
        let artifact = ModelArtifact {
            save_model: Box::new(save),
            tokenizer,
            final_kind: device::kind_of(self.train.save_dtype),
            card: card::text(self, "AutoModelForSequenceClassification", "A Bradley-Terry reward model"),
            facts: session.facts(json!({ "rows": data.fact()? }))?,
        };
        let run = fitted.claim(session.run, &session.table)?;
        let resume_from = session.resume_from.as_deref();
        let parts = Parts { objective, source, eval, artifact, params: model.params(), device: model.device() };
        parts.train(train, &run, resume_from, started)
    }
}

impl RewardConfig {
    fn pooling(&self) -> Pooling {
        match self.reward.pooling {
            PoolingKind::Last => Pooling::Last,
            PoolingKind::Sum => Pooling::Sum,
        }
    }

    fn open_model(&self, session: &Session) -> Result<RewardModel> {
        let (dir, options) = (session.weights_dir(), &session.options);
        if session.random_init(&self.model) {
            let vocab = session.tokenizer.vocab_size();
            let config = HfConfig::for_init(&session.model_dir, self.model.config.as_ref(), vocab)?;
            return RewardModel::from_config(config, self.train.seed, self.pooling(), true, options);
        }
        if !HfConfig::from_dir(dir)?.is_reward() {
            return RewardModel::from_causal(dir, self.train.seed, self.pooling(), true, options);
        }
        let model = RewardModel::from_pretrained(dir, options)?;
        if model.pooling() != self.pooling() {
            let message = format!("is a reward model with pooling {:?}", model.pooling());
            return Err(Error::file(dir, message, "set reward.pooling to the same, or start from a language model"));
        }
        Ok(model)
    }
}

/// Gain and bias with which rewards of (up to 1,024 evenly spaced pairs of) training completions have mean 0 and
/// standard deviation 1: normalised = gain * raw + bias.
fn normalisation(model: &RewardModel, rows: &Set<Pair>, micro: usize) -> Result<(f64, f64)> {
    let _guard = tch::no_grad_guard();
    let stride = rows.len().div_ceil(NORMALISATION_PAIRS);
    let sample: Vec<usize> = (0..rows.len()).step_by(stride).collect();
    let mut rewards = Vec::new();
    for numbers in sample.chunks(micro) {
        let pairs = rows.take(numbers)?;
        let batch = pair_batch(&pairs.iter().map(AsRef::as_ref).collect::<Vec<_>>());
        let values = sequence_rewards(model, &batch.flat, &batch.ends, &batch.actions)?;
        // With the bias of the model that it started from: that one is part of its reward.
        rewards.extend(Vec::<f32>::try_from(values)?.into_iter().map(|value| f64::from(value) + model.bias()));
    }
    let count = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / count;
    let variance = rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / count;
    if variance <= 0.0 {
        return Err(Error::usage("all training completions have the same reward", "set reward.normalize = false"));
    }
    let gain = 1.0 / variance.sqrt();
    Ok((gain, -mean * gain))
}
