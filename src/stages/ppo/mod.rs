//! Proximal policy optimization with a per-token KL penalty: a rollout source over the one loop.
mod evaluator;
pub mod objective;
pub(crate) mod source;

use super::card::{self, ModelArtifact};
use super::{Session, Stage, feed_command};
use crate::config::{PpoConfig, PpoSection};
use crate::data::{Data, EncodeOptions, Prompt};
use crate::durable::hex;
use crate::error::{Error, Result};
use crate::hub;
use crate::model::device;
use crate::model::fingerprint::fingerprint;
use crate::model::{CausalLm, Critic, HfConfig, Model, Pooling, RewardModel};
use crate::rollout::Scorer;
use crate::rollout::command::CommandScorer;
use crate::rollout::episode::Players;
use crate::rollout::scorer::RewardScorer;
use crate::tokenizer::Tokenizer;
use crate::train::{AdamW, Evaluator, Job, Outcome, signals, train};
use evaluator::RolloutEvaluator;
use objective::PpoObjective;
use serde_json::json;
use sha2::{Digest, Sha256};
use source::{RolloutSource, longest};
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

impl Stage for PpoConfig {
    fn run(&self, session: Session) -> Result<Outcome> {
        let tokenizer = &session.tokenizer;
        let started = Instant::now();
        let options = EncodeOptions::prompts(&self.data, self.ppo.max_new_tokens);
        let data: Data<Prompt> = Data::load(&self.data, tokenizer, &options, |_| {})?;
        let loading = Instant::now();
        let policy = CausalLm::from_pretrained(session.weights_dir(), &session.options)?;
        self.check_eos(tokenizer)?;
        let (reference, reference_fact) = self.open_reference(&session, &policy)?;
        let critic = self.open_critic(&session, &policy)?;
        let mut models: Vec<(&str, &Model)> = vec![("model.path", &policy), ("model.reference", &reference)];
        if let Critic::Network(model) = &critic {
            models.push(("ppo.value_model", model));
        }
        self.check_context(&models, &data)?;
        let scorer = RefCell::new(self.ppo.open_scorer(&session, &data, self.train.micro())?);
        let objective = PpoObjective { policy: &policy, critic: &critic, settings: &self.ppo };
        let critic_params = critic.named();
        let critic_params = || critic_params.iter().map(|(name, tensor)| (name.as_str(), *tensor));
        let optimizer = || AdamW::new(policy.params().iter().chain(critic_params()), self.train.optim());
        let ladder = || longest(&data.train, &self.ppo, &self.train);
        let fitted = session.fit(&self.train, &objective, optimizer()?, ladder)?;
        let train_config = &fitted.train;
        let started = started + loading.elapsed();

        let (resume_from, ids) = (session.resume_from.clone(), session.save_options(&self.train));
        let facts = session.facts(self.facts(&data, reference_fact)?)?;
        let artifact = ModelArtifact {
            save_model: Box::new(|dir, kind, _| {
                policy.save_pretrained(dir, kind, &ids)?;
                critic.save(dir)
            }),
            tokenizer,
            final_kind: device::kind_of(self.train.save_dtype),
            card: card::text(self, "AutoModelForCausalLM", "A language model after proximal policy optimization"),
            facts,
        };
        let players = || Players { policy: &policy, critic: &critic, reference: &reference, tokenizer };
        let mut source = RolloutSource::new(players(), &scorer, &data.train, &self.ppo, train_config);
        let evaluator = RolloutEvaluator {
            players: players(),
            scorer: &scorer,
            prompts: &data.eval,
            settings: &self.ppo,
            train: train_config,
        };
        let run = fitted.claim(session.run, &session.table)?;
        train(Job {
            objective: &objective,
            optimizer: optimizer()?,
            total_steps: source.planned_steps(),
            source: &mut source,
            eval: (!data.eval.is_empty()).then_some(&evaluator as &dyn Evaluator),
            artifact: &artifact,
            config: train_config,
            run: &run.path,
            resume_from: resume_from.as_deref(),
            device: policy.device(),
            started,
            best: None,
        })
    }
}

impl PpoConfig {
    /// What a resumed run must find as it was.
    fn facts(&self, data: &Data<Prompt>, reference: serde_json::Value) -> Result<serde_json::Value> {
        let mut facts = json!({ "rows": data.fact()?, "reference": reference, "reward": self.ppo.reward_fact()? });
        if let Some(path) = &self.ppo.value_model {
            facts["value_model"] = json!(hex(&fingerprint(&hub::resolve_model(path)?)?));
        }
        Ok(facts)
    }

    /// A completion that cannot end by itself must not be punished for it.
    fn check_eos(&self, tokenizer: &Tokenizer) -> Result<()> {
        if tokenizer.eos().is_some() {
            return Ok(());
        }
        if self.ppo.missing_eos_penalty.is_some() || self.ppo.missing_eos_score.is_some() {
            let message = "ppo.missing_eos_...: the tokenizer names no EOS token, so no completion can end by itself";
            return Err(Error::usage(message, "add \"eos_token\" to tokenizer_config.json, or remove that key"));
        }
        tracing::warn!("the tokenizer names no EOS token: every completion has ppo.max_new_tokens tokens");
        Ok(())
    }

    /// Every model that sees the completions must hold them, and speak of the same ids.
    fn check_context(&self, models: &[(&str, &Model)], data: &Data<Prompt>) -> Result<()> {
        let new = self.ppo.max_new_tokens;
        let mut longest = 0;
        for prompt in data.train.iter().chain(data.eval.iter()) {
            longest = longest.max(prompt?.tokens.len());
        }
        let longest = longest + new;
        let vocab = models[0].1.dims().vocab;
        for (key, model) in models {
            if model.most_tokens().is_some_and(|most| longest as i64 > most) {
                let most = model.most_tokens().unwrap_or_default();
                let message = format!("{key} holds {most} tokens; the longest prompt and {new} new ones are {longest}");
                return Err(Error::usage(message, "lower data.max_length (prompts are cut) or ppo.max_new_tokens"));
            }
            if *key == "model.reference" && model.dims().vocab != vocab {
                let message = format!("{key} has {} logits, the policy {vocab}", model.dims().vocab);
                return Err(Error::usage(message, "name a reference with the policy's own vocabulary"));
            }
        }
        Ok(())
    }

    /// The frozen reference: what is configured, else the starting weights (never a checkpoint's); and what resume must
    /// know of it.
    fn open_reference(&self, session: &Session, policy: &CausalLm) -> Result<(CausalLm, serde_json::Value)> {
        let (name, dir) = match &self.model.reference {
            Some(path) => (path, hub::resolve_model(path)?),
            None => (&self.model.path, session.model_dir.clone()),
        };
        let fact = json!({ "path": name, "fingerprint": hex(&fingerprint(&dir)?) });
        if self.model.reference.is_none() && session.resume_from.is_none() {
            return Ok((policy.duplicate_frozen()?, fact));
        }
        let reference = CausalLm::from_pretrained(&dir, &session.options.frozen())?;
        session.tokenizer.check_vocab(reference.dims().vocab, &dir)?;
        self.same_tokenizer(session, &dir, "model.reference")?;
        Ok((reference, fact))
    }

    /// The critic, zero or as `ppo.value_model` is, or as the checkpoint has it.
    fn open_critic(&self, session: &Session, policy: &CausalLm) -> Result<Critic> {
        let critic = match &self.ppo.value_model {
            None => Critic::zero_head(policy.dims().hidden, policy.device())?,
            Some(path) => {
                let dir = hub::resolve_model(path)?;
                self.same_tokenizer(session, &dir, "ppo.value_model")?;
                let model = if HfConfig::from_dir(&dir)?.is_reward() {
                    RewardModel::from_pretrained(&dir, &session.options)?
                } else {
                    RewardModel::from_causal(&dir, self.train.seed, Pooling::Last, true, &session.options)?
                };
                session.tokenizer.check_vocab(model.dims().vocab, &dir)?;
                Critic::Network(Box::new(model))
            }
        };
        if let Some(checkpoint) = &session.resume_from {
            critic.restore(checkpoint)?;
        }
        Ok(critic)
    }

    /// KL and values are per token: both models must mean the same by an id.
    fn same_tokenizer(&self, session: &Session, dir: &PathBuf, key: &str) -> Result<()> {
        if *dir == session.model_dir || session.tokenizer.same_ids(&Tokenizer::from_dir(dir)?) {
            return Ok(());
        }
        let remedy = format!("name a {key} with the same tokenizer.json as model.path");
        Err(Error::file(dir, "has another tokenizer than the model that is trained", remedy))
    }
}

impl PpoSection {
    /// What tells this source of rewards from another: the model's files, or the command with the files that it names.
    fn reward_fact(&self) -> Result<String> {
        let mut hash = Sha256::new();
        if let Some(path) = &self.reward_model {
            hash.update(fingerprint(&hub::resolve_model(path)?)?);
        }
        feed_command(self.reward_command.iter().flatten(), &mut hash)?;
        Ok(hex(&hash.finalize()))
    }

    /// The configured source of rewards; a command is started at once, so that a wrong name is seen before step 0.
    fn open_scorer(&self, session: &Session, data: &Data<Prompt>, batch_size: usize) -> Result<Box<dyn Scorer>> {
        if let Some(command) = &self.reward_command {
            let keys = ("ppo.reward_command", "ppo.reward_timeout");
            let scorer = CommandScorer::start(command, Duration::from_secs_f64(self.reward_timeout), keys)?;
            signals::on_leaving(scorer.killer());
            return Ok(Box::new(scorer));
        }
        let path = self.reward_model.as_deref().unwrap_or_default();
        let frozen = session.options.frozen();
        let mut scorer = RewardScorer::open(&hub::resolve_model(path)?, &frozen, batch_size)?;
        scorer.set_moment(session.moment);
        for prompt in data.train.take(&[0])? {
            scorer.check_prompt(&prompt)?;
        }
        Ok(Box::new(scorer))
    }
}
