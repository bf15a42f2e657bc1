//! Dataset aggregation (Ross, Gordon and Bagnell 2011): imitation on the learner's own states, as a source of batches over the
//! objective of SFT.
pub mod data;
pub mod evaluator;
pub mod objective;
pub mod source;

use super::card::{self, ModelArtifact};
use super::source::micro;
use super::{Session, Stage, feed_command};
use crate::config::{DaggerConfig, DaggerSection, Labels};
use crate::data::{Data, EncodeOptions, Prompt, RowId, Set};
use crate::durable::hex;
use crate::error::{Error, Result};
use crate::hub;
use crate::model::device;
use crate::model::fingerprint::fingerprint;
use crate::model::{CausalLm, Model};
use crate::rollout::Sampling;
use crate::rollout::expert::{Expert, Kept, Teacher};
use crate::rollout::expert_command::CommandExpert;
use crate::rollout::mixture::{Actor, Rollout, World};
use crate::tokenizer::Tokenizer;
use crate::train::memory::Ladder;
use crate::train::{AdamW, Job, Outcome, signals, train};
use data::Lesson;
use evaluator::RoundEvaluator;
use objective::{DaggerBatch, DaggerObjective};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use source::{Cast, DaggerSource, Round};
use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::path::Path;
use std::time::{Duration, Instant};

/// What a run of DAgger is given besides its configuration.
pub struct Ready<'a> {
    /// Prompts to learn from, and held-out ones; at least one of each.
    pub data: Data<Prompt>,
    /// The model that is trained, as it is now.
    pub student: CausalLm,
    /// Whom it learns from.
    pub expert: &'a dyn Expert,
    /// What answers actions, where anything does.
    pub world: Option<&'a dyn World>,
    /// What a resumed run must find as it was.
    pub fact: Value,
    /// When the first row was encoded, loading left out.
    pub started: Instant,
}

impl Stage for DaggerConfig {
    fn run(&self, session: Session) -> Result<Outcome> {
        let started = Instant::now();
        let options = EncodeOptions::prompts(&self.data, self.dagger.max_new_tokens);
        let data: Data<Prompt> = Data::load(&self.data, &session.tokenizer, &options, |_| {})?;
        let loading = Instant::now();
        let student = session.open_policy(&self.model, self.train.seed)?;
        let expert = self.open_expert(&session, &student)?;
        self.check_context(&student, expert.model(), &data)?;
        let fact = json!({ "rows": data.fact()?, "expert": self.dagger.expert_fact()? });
        let started = started + loading.elapsed();
        self.learn(session, Ready { data, student, expert: expert.as_ref(), world: None, fact, started })
    }
}

impl DaggerConfig {
    /// Rounds of rolling out, labelling and training; the best one's model is the run's.
    ///
    /// # Errors
    /// Those of the run.
    pub fn learn(&self, session: Session, ready: Ready<'_>) -> Result<Outcome> {
        let Ready { data, student, expert, world, fact, started } = ready;
        let imitation = self.dagger.imitation();
        let temperature = self.dagger.temperature;
        let objective = DaggerObjective { student: &student, teacher: expert.model(), imitation, temperature };
        let optimizer = || AdamW::new(student.params().iter(), self.train.optim());
        let loading = Instant::now();
        let fitted = session.fit(&self.train, &objective, optimizer()?, || self.longest(&data.train))?;
        let started = started + loading.elapsed();
        let (train_config, tokenizer) = (&fitted.train, &session.tokenizer);

        let ids = session.save_options(&self.train);
        let artifact = ModelArtifact {
            save_model: Box::new(|dir, kind, _| student.save_pretrained(dir, kind, &ids)),
            tokenizer,
            final_kind: device::kind_of(self.train.save_dtype),
            card: card::text(self, "AutoModelForCausalLM", "A language model after dataset aggregation (DAgger)"),
            facts: session.facts(fact)?,
        };
        let begin_again = || student.params().assign(session.first_policy(&self.model, self.train.seed)?.params());
        let best = |dir: &Path| student.params().assign(CausalLm::from_pretrained(dir, &session.options)?.params());
        let cast = Cast { student: &student, expert, world, tokenizer, settings: &self.dagger, train: train_config };
        let round = Cell::new(Round::default());
        let run = fitted.claim(session.run.clone(), &session.table)?;
        let mut source = DaggerSource::new(cast, &data.train, &run.path, &begin_again, &round);
        let held_out = data.eval.iter().map(|prompt| prompt.map(Cow::into_owned)).collect::<Result<_>>()?;
        let evaluator =
            RoundEvaluator { cast, prompts: held_out, round: &round, run: &run.path, experts: OnceCell::new() };
        train(Job {
            objective: &objective,
            optimizer: optimizer()?,
            total_steps: source.planned_steps(),
            source: &mut source,
            eval: Some(&evaluator),
            artifact: &artifact,
            config: train_config,
            run: &run.path,
            resume_from: session.resume_from.as_deref(),
            device: student.device(),
            started,
            best: Some(&best),
        })
    }

    /// The expert; a model that does not speak of the student's ids is refused.
    fn open_expert(&self, session: &Session, student: &CausalLm) -> Result<Box<dyn Expert>> {
        let vocab = student.dims().vocab;
        if let Some(command) = &self.dagger.expert_command {
            let timeout = Duration::from_secs_f64(self.dagger.expert_timeout);
            let expert = CommandExpert::start(command, timeout, vocab)?;
            signals::on_leaving(expert.killer());
            return Ok(Box::new(expert));
        }
        let path = self.dagger.teacher.as_deref().unwrap_or_default();
        let dir = hub::resolve_model(path)?;
        let teacher = CausalLm::from_pretrained(&dir, &session.options.frozen())?;
        let theirs = teacher.dims().vocab;
        let remedy = "name a dagger.teacher with the student's own tokenizer and vocabulary";
        if theirs != vocab {
            let message = format!("dagger.teacher has {theirs} logits, the student {vocab}");
            return Err(Error::file(&dir, message, remedy));
        }
        if dir != session.model_dir && !session.tokenizer.same_ids(&Tokenizer::from_dir(&dir)?) {
            return Err(Error::file(&dir, "dagger.teacher has another tokenizer than the student", remedy));
        }
        if self.dagger.top_k as i64 > vocab {
            let message = format!("dagger.top_k is {}, and there are {vocab} actions", self.dagger.top_k);
            return Err(Error::usage(message, "set it to 0 for all of them"));
        }
        let sampling = match self.dagger.labels {
            Labels::Greedy => Sampling::greedy(),
            Labels::Sample | Labels::Distribution => {
                Sampling { temperature: self.dagger.temperature, ..Sampling::default() }
            }
        };
        Ok(Box::new(Teacher::new(teacher, sampling, self.dagger.top_k, micro(&self.train))))
    }

    /// Both models must hold the longest prompt with what is added to it.
    fn check_context(&self, student: &Model, teacher: Option<&CausalLm>, data: &Data<Prompt>) -> Result<()> {
        let new = self.dagger.max_new_tokens;
        let mut longest = 0;
        for prompt in data.train.iter().chain(data.eval.iter()) {
            longest = longest.max(prompt?.tokens.len() + new);
        }
        let teacher = teacher.map(|teacher| ("dagger.teacher", teacher.base()));
        for (key, model) in [("model.path", student)].into_iter().chain(teacher) {
            if let Some(most) = model.most_tokens().filter(|most| longest as i64 > *most) {
                let message = format!("{key} holds {most} tokens; the longest prompt and {new} new ones are {longest}");
                return Err(Error::usage(message, "lower data.max_length (prompts are cut) or dagger.max_new_tokens"));
            }
        }
        Ok(())
    }

    /// Rows of the longest rollouts that there can be, as an update has them, for measuring what they need.
    fn longest(&self, prompts: &Set<Prompt>) -> Result<Ladder<'_, DaggerBatch>> {
        let mut tokens: Vec<i64> = Vec::new();
        for prompt in prompts.iter() {
            let prompt = prompt?;
            if prompt.tokens.len() > tokens.len() {
                tokens.clone_from(&prompt.tokens);
            }
        }
        let (prompt_len, new) = (tokens.len(), self.dagger.max_new_tokens);
        tokens.extend(std::iter::repeat_n(tokens.last().copied().unwrap_or(0), new));
        let lengths = vec![tokens.len(); self.train.batch_size];
        let labels = tokens[prompt_len..].to_vec();
        let (top, id) = (self.dagger.top_k, RowId::line(Path::new("longest"), 1));
        let kept = (top > 0).then(|| Kept {
            ids: (0..new * top).map(|at| (at % top) as i64).collect(),
            logprobs: vec![-(top as f32).ln(); new * top],
        });
        let rollout = Rollout { tokens, prompt_len, actors: vec![Actor::Student; new], id };
        let lesson = Lesson { round: 1, rollout, labels, kept };
        Ok(Ladder { lengths, batch: Box::new(move |rows| Ok(DaggerBatch::new(&vec![&lesson; rows]))) })
    }
}

impl DaggerSection {
    /// What tells this expert from another: the model's files, or the command with the files that it names.
    fn expert_fact(&self) -> Result<String> {
        let mut hash = Sha256::new();
        if let Some(path) = &self.teacher {
            hash.update(fingerprint(&hub::resolve_model(path)?)?);
        }
        feed_command(self.expert_command.iter().flatten(), &mut hash)?;
        Ok(hex(&hash.finalize()))
    }
}
