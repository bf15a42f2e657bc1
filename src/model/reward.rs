//! Reward models: a backbone with one score a token. Owns the head's rules (pooling, EOS, bias) as saved; the loss and
//! pooling over a batch stand elsewhere.
use std::path::Path;

use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use super::head::ScoreHead;
use super::hf_config::HfConfig;
use super::params::{Builder, Init, Source};
use super::{LoadOptions, Model, SaveOptions, open_weights, save};
use crate::error::{Error, Result};

pub(super) const SCORE: &str = "score.weight";

/// Which hidden states make a sequence's reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The score of the last token.
    Last,
    /// The sum of the scores of the completion's tokens (Christiano et al. 2017).
    Sum,
}

impl Pooling {
    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Last => "last",
            Pooling::Sum => "sum",
        }
    }
}

/// What stands under `"collimate"` in a reward model's config.json.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RewardHead {
    pub(super) bias: f64,
    pub(super) pooling: Pooling,
    pub(super) append_eos: bool,
}

/// A reward model: the reward of a sequence is the pooled scores plus [`RewardModel::bias`].
pub struct RewardModel {
    base: Model,
    score: ScoreHead,
    weight: Tensor,
    head: RewardHead,
}

impl std::ops::Deref for RewardModel {
    type Target = Model;
    fn deref(&self) -> &Model {
        &self.base
    }
}

impl RewardModel {
    /// Loads a reward model that this program or transformers saved (a sequence classifier with one label).
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Tensor`] naming the file, key or tensor; a causal language model is refused.
    pub fn from_pretrained(dir: &Path, options: &LoadOptions) -> Result<Self> {
        let config = HfConfig::from_dir(dir)?;
        if !config.is_reward() {
            return Err(Error::file(dir, "not a reward model", "train one from it with `collimate reward`"));
        }
        let head = read_head(&config)?;
        let source = open_weights(dir, &config)?;
        let mut builder = Builder::with(source, 0, options);
        let (backbone, _) = config.family.build(&mut builder)?;
        let weight = builder.take(SCORE, &[1, backbone.dims().hidden], Init::Zeros)?;
        let params = builder.finish(config.spec().known_extra)?;
        Ok(Self::assemble(Model { backbone, params, config, generation: Map::new(), options: *options }, weight, head))
    }

    /// A new reward model on the backbone of the causal language model in `dir`; its head is dropped, the score starts
    /// from N(0, 1/sqrt(D + 1)) (Stiennon et al. 2020).
    ///
    /// # Errors
    /// As [`super::CausalLm::from_pretrained`].
    pub fn from_causal(
        dir: &Path,
        seed: u64,
        pooling: Pooling,
        append_eos: bool,
        options: &LoadOptions,
    ) -> Result<Self> {
        let config = HfConfig::from_dir(dir)?;
        if config.is_reward() {
            return Err(Error::file(dir, "this is a reward model already", "give a causal language model"));
        }
        let source = open_weights(dir, &config)?;
        Self::on_new_head(config, source, seed, RewardHead { bias: 0.0, pooling, append_eos }, options)
    }

    /// A reward model with random weights throughout.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn from_config(
        config: HfConfig,
        seed: u64,
        pooling: Pooling,
        append_eos: bool,
        options: &LoadOptions,
    ) -> Result<Self> {
        config.check_fits()?;
        Self::on_new_head(config, Source::Seed(seed), seed, RewardHead { bias: 0.0, pooling, append_eos }, options)
    }

    fn on_new_head(
        config: HfConfig,
        source: Source,
        seed: u64,
        head: RewardHead,
        options: &LoadOptions,
    ) -> Result<Self> {
        let mut builder = Builder::with(source, seed, options);
        let (backbone, _) = config.family.build(&mut builder)?;
        let hidden = backbone.dims().hidden;
        let std = 1.0 / ((hidden + 1) as f64).sqrt();
        let weight = builder.fresh(SCORE, &[1, hidden], Init::Normal { std })?;
        let spec = config.spec();
        let params = builder.finish(|name| name == spec.head || (spec.known_extra)(name))?;
        Ok(Self::assemble(Model { backbone, params, config, generation: Map::new(), options: *options }, weight, head))
    }

    fn assemble(base: Model, weight: Tensor, head: RewardHead) -> Self {
        RewardModel { base, score: ScoreHead::new(weight.shallow_clone()), weight, head }
    }

    /// Scores `[M]` in float32 of hidden states `[M, D]`, without the bias.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn scores(&self, hidden: &Tensor) -> Result<Tensor> {
        self.score.scores(hidden)
    }

    /// Added once to a sequence's pooled score.
    pub fn bias(&self) -> f64 {
        self.head.bias
    }

    /// How a sequence's reward is taken from its scores.
    pub fn pooling(&self) -> Pooling {
        self.head.pooling
    }

    /// Whether a sequence ends with EOS before it is scored.
    pub fn append_eos(&self) -> bool {
        self.head.append_eos
    }

    /// The part shared with language models.
    pub fn base(&self) -> &Model {
        &self.base
    }

    /// Writes `config.json` and `model.safetensors` into `dir`, which must exist. With last-token pooling transformers
    /// reads them as a sequence classifier with one label (whose logit lacks the bias); with summed pooling it refuses.
    ///
    /// # Errors
    /// [`Error::Io`] where writing fails.
    pub fn save_pretrained(&self, dir: &Path, save_dtype: Kind, ids: &SaveOptions) -> Result<()> {
        save::reward(&self.base, &self.head, None, dir, save_dtype, ids)
    }

    /// [`RewardModel::save_pretrained`] of the model whose reward is `gain * r + bias`: the gain is folded into
    /// `score.weight`, the bias stands in config.json. This model stays as it is.
    ///
    /// # Errors
    /// As [`RewardModel::save_pretrained`].
    pub fn save_normalised(&self, dir: &Path, save_dtype: Kind, ids: &SaveOptions, gain: f64, bias: f64) -> Result<()> {
        let head = RewardHead { bias: gain * self.head.bias + bias, ..self.head };
        let weight = self.weight.f_detach()?.f_mul_scalar(gain)?;
        save::reward(&self.base, &head, Some((SCORE, &weight)), dir, save_dtype, ids)
    }
}

/// The rules under `"collimate"`; a classifier of transformers' own has none and gets the plain ones.
fn read_head(config: &HfConfig) -> Result<RewardHead> {
    let mut head = RewardHead { bias: 0.0, pooling: Pooling::Last, append_eos: true };
    let fail = |key: &str, value: &Value| {
        let message = format!("collimate.{key}: {value} is not valid");
        Err(Error::file(&config.origin, message, "save the reward model again"))
    };
    let Some(ours) = config.raw.get("collimate") else { return Ok(head) };
    for (key, value) in ours.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("bias", Value::Number(number)) => head.bias = number.as_f64().unwrap_or(f64::NAN),
            ("pooling", Value::String(name)) if name == "last" => head.pooling = Pooling::Last,
            ("pooling", Value::String(name)) if name == "sum" => head.pooling = Pooling::Sum,
            ("append_eos", Value::Bool(on)) => head.append_eos = *on,
            ("backbone", Value::String(_)) => {}
            _ => return fail(key, value),
        }
    }
    if head.bias.is_finite() { Ok(head) } else { fail("bias", &Value::Null) }
}
