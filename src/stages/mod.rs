//! The stages: wiring only. Each opens what its configuration names, hands an objective and a source to the one loop.
//!
//! Everything that can be refused is refused before the run directory is claimed, so that a mistake writes nothing.
pub mod card;
pub mod dagger;
pub mod dpo;
mod memory;
pub mod ppo;
pub mod reference;
pub mod reward;
pub mod sft;
pub mod source;

use crate::config::{Init, ModelConfig, StageConfig, TrainConfig};
use crate::data::Pair;
use crate::data::fingerprint::Encoded;
use crate::data::set::open_tokenizer;
use crate::error::{Error, Result};
use crate::model::{CausalLm, HfConfig, LoadOptions, Params, SaveOptions, check_files, device, upload};
use crate::tokenizer::{ChatTemplate, Tokenizer};
use crate::train::run::ClaimedRun;
use crate::train::state::TrainerState;
use crate::train::{AdamW, BatchEvaluator, Evaluator, Job, Metric, Objective, Outcome, RunDir, RunState, train};
use crate::{config, hub};
use card::ModelArtifact;
use chrono::NaiveDateTime;
use serde_json::Value;
use sha2::{Digest, Sha256};
use source::RowSource;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Runs the stage named by `C` from a configuration file and overrides.
///
/// # Errors
/// A user's mistakes before anything is written; failures of the run.
pub fn run<C: Stage>(path: &Path, overrides: &[String]) -> Result<()> {
    run_config(&config::load::<C>(path, overrides)?)
}

/// Runs a stage from a configuration.
///
/// # Errors
/// As [`run`].
pub fn run_config<C: Stage>(config: &C) -> Result<()> {
    run_with(config, |session| config.run(session))
}

/// Runs a stage's `work` from its configuration.
///
/// # Errors
/// As [`run`].
pub fn run_with<C: StageConfig>(config: &C, work: impl FnOnce(Session) -> Result<Outcome>) -> Result<()> {
    let table = config.to_table();
    let (run, state) = RunDir::inspect(&config.train.output, config.train.resume, &table)?;
    let resume_from = match state {
        RunState::Finished(steps) => {
            tracing::info!("{} is a finished run of {steps} steps; nothing to do", run.path.display());
            return Ok(());
        }
        RunState::Fresh => None,
        RunState::Resume(checkpoint) => {
            tracing::info!("going on from {}", checkpoint.display());
            Some(checkpoint)
        }
    };
    let session = Session::open(config, run, table, resume_from)?;
    let output = config.train.output.clone();
    let outcome = work(session)?;
    let seconds = outcome.train_runtime;
    tracing::info!(
        "{}: {} steps in {seconds:.1} s, mean loss {:.4}; the model is in {output}",
        C::STAGE,
        outcome.steps,
        outcome.train_loss
    );
    Ok(())
}

/// A stage: its configuration knows how to run it.
pub trait Stage: StageConfig {
    /// Encodes the rows, makes objective and source, runs the loop.
    fn run(&self, session: Session) -> Result<Outcome>;
}

/// What every stage opens first, without writing anything.
pub struct Session {
    /// The run directory, looked at but not claimed.
    pub run: RunDir,
    /// The resolved configuration.
    pub table: toml::Table,
    /// The checkpoint to go on from.
    pub resume_from: Option<PathBuf>,
    /// Where the starting model is: `model.path`, resolved.
    pub model_dir: PathBuf,
    /// The tokenizer of the model.
    pub tokenizer: Tokenizer,
    /// How weights are loaded for training.
    pub options: LoadOptions,
    /// The date that chat templates write, the same in all of a run's life.
    pub moment: NaiveDateTime,
}

impl Session {
    fn open<C: StageConfig>(config: &C, run: RunDir, table: toml::Table, resume_from: Option<PathBuf>) -> Result<Self> {
        let model = &config.model;
        let device = device::resolve(&model.device)?;
        let model_dir = hub::resolve_model(&model.path)?;
        let mut tokenizer = open_tokenizer(model, &config.data, &model_dir)?;
        let options = LoadOptions {
            device,
            compute: device::kind_of(model.dtype),
            trainable: true,
            mapped: false,
            checkpointing: config.train.gradient_checkpointing,
        };
        let moment = moment(resume_from.as_deref())?;
        tokenizer.set_moment(moment);
        let session = Self { run, table, resume_from, model_dir, tokenizer, options, moment };
        session.check_model(model)?;
        Ok(session)
    }

    /// What the headers of the model's files tell, before any row is read.
    fn check_model(&self, model: &ModelConfig) -> Result<()> {
        let vocab = if self.random_init(model) {
            HfConfig::for_init(&self.model_dir, model.config.as_ref(), self.tokenizer.vocab_size())?
                .family
                .facts()
                .dims
                .vocab
        } else {
            let dir = self.weights_dir();
            check_files(dir)?;
            HfConfig::from_dir(dir)?.family.facts().dims.vocab
        };
        self.tokenizer.check_vocab(vocab, &self.model_dir)
    }

    /// Where the weights to train come from: the checkpoint on resume, else the model's directory.
    pub fn weights_dir(&self) -> &Path {
        self.resume_from.as_deref().unwrap_or(&self.model_dir)
    }

    /// Whether the weights are to be drawn at random: `model.init = "config"` and nothing to resume from.
    pub fn random_init(&self, model: &ModelConfig) -> bool {
        model.init == Init::Config && self.resume_from.is_none()
    }

    /// The language model to train: of the checkpoint on resume, else as [`Session::first_policy`].
    ///
    /// # Errors
    /// Files that cannot be read or do not fit each other.
    pub fn open_policy(&self, model: &ModelConfig, seed: u64) -> Result<CausalLm> {
        match &self.resume_from {
            Some(checkpoint) => CausalLm::from_pretrained(checkpoint, &self.options),
            None => self.first_policy(model, seed),
        }
    }

    /// The language model that the run begins with: `model.path`'s, or random weights.
    ///
    /// # Errors
    /// As [`Session::open_policy`].
    pub fn first_policy(&self, model: &ModelConfig, seed: u64) -> Result<CausalLm> {
        if model.init == Init::Pretrained {
            return CausalLm::from_pretrained(&self.model_dir, &self.options);
        }
        let config = HfConfig::for_init(&self.model_dir, model.config.as_ref(), self.tokenizer.vocab_size())?;
        CausalLm::from_config(config, seed, &self.options)
    }

    /// What the run is about (rows, reference), to be put into checkpoints. A resumed run must be about the same.
    ///
    /// # Errors
    /// The checkpoint was made with other rows or another reference.
    pub fn facts(&self, mut facts: Value) -> Result<Value> {
        if self.tokenizer.chat().ok().flatten().is_some_and(ChatTemplate::writes_the_date) {
            facts[MOMENT] = Value::String(self.moment.format("%Y-%m-%dT%H:%M:%S%.f").to_string());
        }
        let Some(checkpoint) = &self.resume_from else { return Ok(facts) };
        let then = TrainerState::read(checkpoint)?.facts;
        let now = facts.as_object().into_iter().flatten();
        let changed: Vec<&str> =
            now.filter(|(key, value)| then.get(key) != Some(value)).map(|(k, _)| k.as_str()).collect();
        if changed.is_empty() {
            return Ok(facts);
        }
        let message = format!("the run began with other contents of: {}", changed.join(", "));
        Err(Error::file(checkpoint, message, "put these back, or start a new run with another train.output"))
    }

    /// What saved models say of the tokenizer, and how large their files may be.
    pub fn save_options(&self, train: &TrainConfig) -> SaveOptions {
        let tokenizer = &self.tokenizer;
        SaveOptions {
            bos: tokenizer.bos(),
            eos: tokenizer.eos(),
            pad: tokenizer.pad(),
            max_shard_bytes: (train.max_shard_gb * 1e9) as u64,
        }
    }
}

/// The fact under which a run keeps the date that its chat template writes.
const MOMENT: &str = "rendered_at";

/// When the run began, as its checkpoint has it; for a new run now.
fn moment(resume_from: Option<&Path>) -> Result<NaiveDateTime> {
    let kept = resume_from
        .map(TrainerState::read)
        .transpose()?
        .and_then(|state| state.facts.get(MOMENT)?.as_str()?.parse().ok());
    Ok(kept.unwrap_or_else(|| chrono::Local::now().naive_local()))
}

/// A command's words, with the contents of the files that they name.
pub(crate) fn feed_command<'a>(words: impl Iterator<Item = &'a String>, hash: &mut Sha256) -> Result<()> {
    for word in words {
        hash.update(word);
        if Path::new(word).is_file() {
            hash.update(std::fs::read(word).map_err(Error::io(word, "read"))?);
        }
    }
    Ok(())
}

/// Tokens of a pair's longer sequence.
pub(crate) fn pair_length(pair: &Pair) -> usize {
    pair.prompt.len() + pair.chosen.len().max(pair.rejected.len())
}

/// What a stage has made, ready for the loop.
pub(crate) struct Parts<'a, O: Objective, E> {
    pub objective: O,
    pub source: RowSource<'a, E, O::Batch>,
    /// Held-out batches; none: no evaluation.
    pub eval: Vec<O::Batch>,
    pub artifact: ModelArtifact<'a>,
    pub params: &'a Params,
    pub device: Device,
}

impl<O: Objective, E: Encoded> Parts<'_, O, E> {
    /// Runs the loop in a claimed run directory; `started`: just before the first row was encoded.
    pub fn train(
        mut self,
        config: &TrainConfig,
        run: &ClaimedRun,
        resume_from: Option<&Path>,
        started: Instant,
    ) -> Result<Outcome> {
        let total_steps = self.source.planned_steps(config);
        let evaluator = BatchEvaluator { objective: &self.objective, batches: self.eval };
        let eval: Option<&dyn Evaluator> = if evaluator.batches.is_empty() { None } else { Some(&evaluator) };
        train(Job {
            objective: &self.objective,
            optimizer: AdamW::new(self.params.iter(), config.optim())?,
            source: &mut self.source,
            eval,
            artifact: &self.artifact,
            config,
            total_steps,
            run: &run.path,
            resume_from,
            device: self.device,
            started,
            best: None,
        })
    }
}

/// Numbers of rows as a float32 tensor [P].
pub(crate) fn floats(values: &[f64], device: Device) -> Result<Tensor> {
    upload(&values.iter().map(|&value| value as f32).collect::<Vec<_>>(), device)
}

/// How often the better completion scores higher: `gap` [P] = chosen - rejected; ties in the labels (mu = 0.5) do not
/// count, and mu < 0.5 says that `rejected` is the better one.
pub(crate) fn pair_accuracy(gap: &Tensor, preference: &[f64]) -> Result<Metric> {
    let sign: Vec<f64> = preference.iter().map(|&mu| if mu == 0.5 { 0.0 } else { (mu - 0.5).signum() }).collect();
    let weight = sign.iter().filter(|&&s| s != 0.0).count() as f64;
    let right = gap.f_mul(&floats(&sign, gap.device())?)?.f_gt(0.0)?;
    Ok(Metric::Mean { sum: right.f_sum(Kind::Float)?, weight })
}
