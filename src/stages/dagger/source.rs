//! DAgger's source of batches: at the start of a round it rolls the mixture out, has the expert label every visited state, adds
//! the rows to D, and then yields D's rows. A step is one update.
use super::data::{Dataset, Lesson};
use super::objective::DaggerBatch;
use crate::config::{DaggerSection, TrainConfig};
use crate::data::{Loader, LoaderState, Prompt, Set};
use crate::error::{Error, Result};
use crate::model::CausalLm;
use crate::rollout::Sampling;
use crate::rollout::expert::{Expert, Said};
use crate::rollout::mixture::{Actor, Mixture, MixtureOptions, Rollout, World};
use crate::seed;
use crate::stages::source::micro;
use crate::tokenizer::Tokenizer;
use crate::train::{BatchSource, SampleRecord, SourceState, Span, StepReport, signals};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::borrow::Cow;
use std::cell::Cell;
use std::path::Path;

/// Rollouts of a round that are shown.
const SHOWN: usize = 4;

/// Who takes part, and in what.
#[derive(Clone, Copy)]
pub struct Cast<'a> {
    /// The model that is trained.
    pub student: &'a CausalLm,
    /// Whom it learns from.
    pub expert: &'a dyn Expert,
    /// What answers actions, where anything does.
    pub world: Option<&'a dyn World>,
    /// The student's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// `[dagger]`.
    pub settings: &'a DaggerSection,
    /// `[train]`.
    pub train: &'a TrainConfig,
}

impl Cast<'_> {
    /// How the student acts.
    pub fn sampling(&self) -> Sampling {
        match self.settings.temperature {
            0.0 => Sampling::greedy(),
            temperature => Sampling { temperature, ..Sampling::default() },
        }
    }

    /// The mixture at `beta`, with the draws of `seed`.
    pub fn mixture(&self, beta: f64, seed: u64) -> Mixture<'_> {
        let options = MixtureOptions {
            beta,
            sampling: self.sampling(),
            max_new_tokens: self.settings.max_new_tokens,
            eos: self.tokenizer.eos(),
            seed,
            batch_size: self.settings.rollout_batch_size,
            world: self.world,
        };
        Mixture { student: self.student, expert: self.expert, options }
    }
}

/// What is known of the round that is being trained.
#[derive(Debug, Clone, Copy, Default)]
pub struct Round {
    /// From 1; 0: none has begun.
    pub number: usize,
    /// The probability that the expert acted in it.
    pub beta: f64,
    /// Rows of D.
    pub rows: usize,
    /// Labels in D.
    pub labels: usize,
}

/// Where the source stands between steps.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Standing {
    round: usize,
    /// Updates of the round so far.
    updates: u64,
    order: LoaderState,
    prompts: LoaderState,
    /// D's.
    dataset: String,
}

/// Rolls out, labels, aggregates and yields; see the file's comment.
pub struct DaggerSource<'a> {
    cast: Cast<'a>,
    prompts: &'a Set<Prompt>,
    /// Gives the student its first weights back.
    begin_again: &'a dyn Fn() -> Result<()>,
    /// What the evaluation hears of the round.
    told: &'a Cell<Round>,
    upcoming: Loader,
    /// Updates before each round, and of all.
    firsts: Vec<u64>,
    dataset: Dataset,
    order: Loader,
    updates: u64,
    report: StepReport,
}

impl<'a> DaggerSource<'a> {
    /// A source over `prompts`, of which there is at least one, in a run directory.
    pub fn new(
        cast: Cast<'a>,
        prompts: &'a Set<Prompt>,
        run: &Path,
        begin_again: &'a dyn Fn() -> Result<()>,
        told: &'a Cell<Round>,
    ) -> Self {
        let upcoming = prompts.loader(cast.train);
        let (dataset, report) = (Dataset::new(run), StepReport::default());
        let order = order(1, cast.train);
        let firsts = vec![0];
        let mut source =
            Self { cast, prompts, begin_again, told, upcoming, firsts, dataset, order, updates: 0, report };
        for round in 1..=cast.settings.rounds {
            source.firsts.push(source.firsts[round - 1] + source.planned(round));
        }
        source
    }

    /// Updates of all rounds.
    pub fn planned_steps(&self) -> u64 {
        self.first_of(self.cast.settings.rounds + 1)
    }

    /// Rollouts of a round.
    fn rollouts(&self) -> usize {
        let rounds = self.cast.settings.rounds;
        self.cast.settings.rollouts.unwrap_or_else(|| self.upcoming.epoch_len().div_ceil(rounds))
    }

    /// Updates before round `round`, from 1.
    fn first_of(&self, round: usize) -> u64 {
        self.firsts[round - 1]
    }

    /// Updates of a round.
    fn steps_of(&self, round: usize) -> u64 {
        self.firsts[round] - self.firsts[round - 1]
    }

    /// Updates of a round: its share of `train.steps`, else `train.epochs` passes over what D has by then.
    fn planned(&self, round: usize) -> u64 {
        let Cast { settings, train, .. } = self.cast;
        if let Some(steps) = train.steps {
            let (rounds, round) = (settings.rounds as u64, round as u64);
            return steps * round / rounds - steps * (round - 1) / rounds;
        }
        let batches = (round * self.rollouts()).div_ceil(train.batch_size);
        ((train.epochs * batches as f64).ceil() as u64).max(1)
    }

    /// Rolls out, labels and aggregates.
    fn begin(&mut self, round: usize) -> Result<()> {
        let settings = self.cast.settings;
        let beta = settings.beta_of(round);
        let numbers = self.upcoming.next_rows(self.rollouts());
        let prompts: Vec<Prompt> = self.prompts.take(&numbers)?.into_iter().map(Cow::into_owned).collect();
        let seed = seed::derive(self.cast.train.seed, "dagger", &[round as u64]);
        let step = self.first_of(round);
        let check = || signals::check_overdue(step);
        let mixture = self.cast.mixture(beta, seed);
        let rollouts = mixture.roll_out(&prompts, &check)?;
        let said = part!("labels").in_scope(|| mixture.label(&rollouts, &check))?;
        let lesson = |(rollout, Said { actions: labels, kept })| Lesson { round, rollout, labels, kept };
        let lessons: Vec<Lesson> = rollouts.into_iter().zip(said).map(lesson).collect();
        self.report = self.describe(&lessons)?;
        let tokenizer = self.cast.tokenizer;
        self.dataset.add(round, lessons, |rollout| tokenizer.decode(&rollout.tokens, false))?;
        if settings.restart && round > 1 {
            (self.begin_again)()?;
        }
        self.enter(round);
        let Round { rows, labels, .. } = self.told.get();
        tracing::info!("round {round} of {}: beta {beta}, D has {rows} rollouts and {labels} labels", settings.rounds);
        Ok(())
    }

    /// D is what it is in this round: its order begins anew.
    fn enter(&mut self, round: usize) {
        let rows = self.dataset.lessons().len();
        self.order = order(rows, self.cast.train);
        self.updates = 0;
        let (beta, labels) = (self.cast.settings.beta_of(round), self.dataset.labels());
        self.told.set(Round { number: round, beta, rows, labels });
    }

    fn describe(&self, lessons: &[Lesson]) -> Result<StepReport> {
        let (mut states, mut experts, mut agreed) = (0.0, 0.0, 0.0);
        for Lesson { rollout, labels, .. } in lessons {
            states += labels.len() as f64;
            experts += rollout.actors.iter().filter(|actor| **actor == Actor::Expert).count() as f64;
            agreed += rollout.agreements(labels) as f64;
        }
        let metrics = vec![
            ("rollout/expert_share", experts / states),
            ("rollout/agreement", agreed / states),
            ("rollout/mean_length", states / lessons.len() as f64),
        ];
        let show = |lesson: &Lesson| shown(&lesson.rollout, &lesson.labels, self.cast.tokenizer);
        let samples = lessons.iter().take(SHOWN).map(show).collect::<Result<_>>()?;
        Ok(StepReport { metrics, samples, message: None })
    }
}

/// The order in which a round takes D's rows.
fn order(rows: usize, train: &TrainConfig) -> Loader {
    Loader::new(rows, train.batch_size, train.shuffle, train.seed)
}

/// A rollout for people to look at.
pub fn shown(rollout: &Rollout, labels: &[i64], tokenizer: &Tokenizer) -> Result<SampleRecord> {
    let (prompt, completion) = rollout.tokens.split_at(rollout.prompt_len);
    Ok(SampleRecord::from_iter([
        ("prompt".to_owned(), json!(tokenizer.decode(prompt, true)?)),
        ("completion".to_owned(), json!(tokenizer.decode(completion, true)?)),
        ("expert".to_owned(), json!(tokenizer.decode(labels, true)?)),
        ("tokens".to_owned(), json!(completion.len())),
    ]))
}

impl BatchSource<DaggerBatch> for DaggerSource<'_> {
    fn next_step(&mut self) -> Result<Option<Vec<DaggerBatch>>> {
        let round = self.told.get().number;
        if round == 0 || self.updates == self.steps_of(round) {
            if round == self.cast.settings.rounds {
                return Ok(None);
            }
            self.begin(round + 1)?;
        }
        let numbers = self.order.next_batch();
        self.updates += 1;
        let lessons: Vec<&Lesson> = numbers.iter().map(|&number| &self.dataset.lessons()[number]).collect();
        let lengths: Vec<usize> = lessons.iter().map(|lesson| lesson.rollout.tokens.len()).collect();
        let parts = micro(self.cast.train).split(&lengths).into_iter();
        Ok(Some(parts.map(|part| DaggerBatch::new(&lessons[part])).collect()))
    }

    fn at_boundary(&self) -> bool {
        true
    }

    fn span(&self, _total_steps: u64) -> Span {
        let round = self.told.get().number.max(1);
        let fresh = self.cast.settings.restart && round > 1;
        Span { first: self.first_of(round), steps: self.steps_of(round), fresh }
    }

    fn report(&mut self) -> StepReport {
        std::mem::take(&mut self.report)
    }

    fn state(&self) -> SourceState {
        let standing = Standing {
            round: self.told.get().number,
            updates: self.updates,
            order: self.order.state(),
            prompts: self.upcoming.state(),
            dataset: self.dataset.fingerprint(),
        };
        serde_json::to_value(standing).expect("plain data serialises")
    }

    fn restore(&mut self, state: &SourceState) -> Result<()> {
        let standing: Standing = serde_json::from_value(state.clone())
            .map_err(|e| Error::usage(format!("the checkpoint's source state: {e}"), "start a new run"))?;
        self.dataset.read(standing.round, &standing.dataset)?;
        self.enter(standing.round);
        self.updates = standing.updates;
        self.upcoming.restore(standing.prompts)?;
        self.order.restore(standing.order)
    }

    fn position(&self) -> Vec<(&'static str, f64)> {
        let round = self.told.get();
        let passes = self.order.epochs();
        vec![("epoch", passes), ("round", round.number as f64), ("beta", round.beta), ("rows", round.rows as f64)]
    }
}
