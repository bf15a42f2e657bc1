//! PPO's source of batches: when its buffer is empty it samples, scores, takes KL, values and advantages, and then yields
//! its epochs of minibatches. A step is one such iteration.
use super::objective::PpoBatch;
use crate::config::{PpoSection, TrainConfig};
use crate::data::loader::shuffled;
use crate::data::{Loader, LoaderState, Prompt, Sequence, Set, lm_batch};
use crate::error::{Error, Result};
use crate::loss::gae::{gae, whiten};
use crate::loss::ppo::{adapted_coef, kl_rewards};
use crate::rollout::Scorer;
use crate::rollout::episode::{Episode, Players, RolloutOptions};
use crate::seed;
use crate::stages::source::micro;
use crate::train::memory::Ladder;
use crate::train::{BatchSource, SampleRecord, SourceState, StepReport, signals};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;

/// Rollouts of an iteration that are shown.
const SHOWN: usize = 4;

/// Where the source stands between iterations.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Standing {
    iteration: u64,
    kl_coef: f64,
    prompts: LoaderState,
}

/// Samples and yields; see the file's comment.
pub struct RolloutSource<'a> {
    players: Players<'a>,
    scorer: &'a RefCell<Box<dyn Scorer>>,
    prompts: &'a Set<Prompt>,
    settings: &'a PpoSection,
    train: &'a TrainConfig,
    loader: Loader,
    iteration: u64,
    kl_coef: f64,
    queue: VecDeque<Vec<PpoBatch>>,
    report: StepReport,
}

/// An episode with what it is trained on, all [T].
struct Lesson {
    episode: Episode,
    advantages: Vec<f64>,
    returns: Vec<f64>,
}

impl<'a> RolloutSource<'a> {
    /// A source over `prompts`, of which there is at least one.
    pub fn new(
        players: Players<'a>,
        scorer: &'a RefCell<Box<dyn Scorer>>,
        prompts: &'a Set<Prompt>,
        settings: &'a PpoSection,
        train: &'a TrainConfig,
    ) -> Self {
        let loader = prompts.loader(train);
        let (queue, report) = (VecDeque::new(), StepReport::default());
        let kl_coef = settings.kl_coef;
        Self { players, scorer, prompts, settings, train, loader, iteration: 0, kl_coef, queue, report }
    }

    /// Iterations that the configuration asks for: `train.steps`, else `train.epochs` passes over the prompts.
    pub fn planned_steps(&self) -> u64 {
        let episodes = self.train.epochs * self.loader.epoch_len() as f64;
        let passes = (episodes / self.train.batch_size as f64).ceil() as u64;
        self.train.steps.unwrap_or(passes).max(1)
    }

    /// One iteration: a rollout, its report, its updates in the queue, the coefficient for the next.
    fn iterate(&mut self) -> Result<()> {
        let rows = self.loader.next_full_batch();
        let prompts: Vec<Prompt> = self.prompts.take(&rows)?.into_iter().map(Cow::into_owned).collect();
        let options = rollout_options(self.settings, self.train, self.iteration);
        let check = || signals::check_overdue(self.iteration);
        let mut episodes = self.players.roll_out(&prompts, self.scorer.borrow_mut().as_mut(), &options, &check)?;
        for episode in &mut episodes {
            episode.score = self.settings.score(episode);
        }
        self.report = self.describe(&episodes);
        let kl = mean(&episodes, Episode::kl);
        let lessons = self.lessons(episodes);
        self.queue = self.minibatches(&lessons);
        if let Some(target) = self.settings.target_kl {
            let count = lessons.len() as f64;
            self.kl_coef = adapted_coef(self.kl_coef, kl, target, self.settings.horizon(), count);
        }
        self.iteration += 1;
        Ok(())
    }

    /// Rewards, advantages and returns of every episode.
    fn lessons(&self, episodes: Vec<Episode>) -> Vec<Lesson> {
        let settings = self.settings;
        let reward = |e: &Episode| kl_rewards(&e.logprobs, &e.reference, e.score, self.kl_coef);
        let mut rewards: Vec<Vec<f64>> = episodes.iter().map(reward).collect();
        if settings.whiten_rewards {
            whiten(&mut rewards, false);
        }
        let estimate = |(e, r): (&Episode, &Vec<f64>)| gae(r, &e.values, settings.gamma, settings.gae_lambda);
        let (mut advantages, returns): (Vec<_>, Vec<_>) = episodes.iter().zip(&rewards).map(estimate).unzip();
        whiten(&mut advantages, true);
        let together = episodes.into_iter().zip(advantages).zip(returns);
        together.map(|((episode, advantages), returns)| Lesson { episode, advantages, returns }).collect()
    }

    /// The updates of an iteration: `epochs` passes in seeded orders, `minibatches` each, split into micro-batches.
    fn minibatches(&self, lessons: &[Lesson]) -> VecDeque<Vec<PpoBatch>> {
        let mut updates = VecDeque::new();
        for epoch in 0..self.settings.epochs {
            let order = shuffled(lessons.len(), self.train.seed, "minibatches", &[self.iteration, epoch]);
            for part in 0..self.settings.minibatches {
                // As equal as can be, and always as many as were asked for.
                let bound = |part: usize| part * lessons.len() / self.settings.minibatches;
                let minibatch = &order[bound(part)..bound(part + 1)];
                let update = updates.len() as u64;
                let new_in = (epoch == 0).then_some(self.iteration);
                let taken: Vec<&Lesson> = minibatch.iter().map(|&at| &lessons[at]).collect();
                let lengths: Vec<usize> = taken.iter().map(|lesson| lesson.episode.sequence.tokens.len()).collect();
                let parts = micro(self.train).split(&lengths).into_iter();
                updates.push_back(parts.map(|part| batch(&taken[part], new_in, update)).collect());
            }
        }
        updates
    }

    /// The rollout in TRL's figures.
    fn describe(&self, episodes: &[Episode]) -> StepReport {
        let kl = mean(episodes, Episode::kl);
        let score = mean(episodes, |e| e.score);
        let penalty = -self.kl_coef * kl;
        let ended = episodes.iter().filter(|e| e.finished).count() as f64;
        let metrics = vec![
            ("objective/kl", kl),
            ("objective/entropy", mean(episodes, |e| -e.logprobs.iter().sum::<f64>())),
            ("objective/non_score_reward", penalty),
            ("objective/rlhf_reward", score + penalty),
            ("objective/scores", score),
            ("objective/kl_coef", self.kl_coef),
            ("val/num_eos_tokens", ended),
            ("completions/mean_length", mean(episodes, |e| e.logprobs.len() as f64)),
        ];
        let samples = episodes.iter().take(SHOWN).map(shown).collect();
        StepReport { metrics, samples, message: Some(format!("score {score:.3} KL {kl:.2}")) }
    }
}

impl BatchSource<PpoBatch> for RolloutSource<'_> {
    fn next_step(&mut self) -> Result<Option<Vec<PpoBatch>>> {
        if self.queue.is_empty() {
            self.iterate()?;
        }
        Ok(self.queue.pop_front())
    }

    fn at_boundary(&self) -> bool {
        self.queue.is_empty()
    }

    fn report(&mut self) -> StepReport {
        std::mem::take(&mut self.report)
    }

    fn state(&self) -> SourceState {
        let standing = Standing { iteration: self.iteration, kl_coef: self.kl_coef, prompts: self.loader.state() };
        serde_json::to_value(standing).expect("plain data serialises")
    }

    fn restore(&mut self, state: &SourceState) -> Result<()> {
        let standing: Standing = serde_json::from_value(state.clone())
            .map_err(|e| Error::usage(format!("the checkpoint's source state: {e}"), "start a new run"))?;
        self.iteration = standing.iteration;
        self.kl_coef = standing.kl_coef;
        self.loader.restore(standing.prompts)
    }

    fn position(&self) -> Vec<(&'static str, f64)> {
        let episodes = self.iteration * self.train.batch_size as u64;
        vec![("epoch", self.loader.epochs()), ("episode", episodes as f64)]
    }
}

/// Minibatches of the longest episodes that there can be, as an update has them, for measuring what they need.
///
/// # Errors
/// Prompts on disk that cannot be read back.
pub fn longest<'a>(
    prompts: &'a Set<Prompt>,
    settings: &PpoSection,
    train: &TrainConfig,
) -> Result<Ladder<'a, PpoBatch>> {
    let mut longest: Option<Cow<'a, Prompt>> = None;
    for prompt in prompts.iter() {
        let prompt = prompt?;
        longest = longest.filter(|longest| longest.tokens.len() >= prompt.tokens.len()).or(Some(prompt));
    }
    let prompt = longest.expect("there is at least one prompt");
    let new = settings.max_new_tokens;
    let filler = prompt.tokens.last().copied().unwrap_or(0);
    let tokens: Vec<i64> = prompt.tokens.iter().copied().chain(std::iter::repeat_n(filler, new)).collect();
    let lengths = vec![tokens.len(); train.batch_size.div_ceil(settings.minibatches)];
    let episode = Sequence::new(tokens, prompt.tokens.len(), prompt.id.clone());
    let batch = move |rows: usize| {
        let numbers = || vec![0.0; rows * new];
        Ok(PpoBatch {
            rows: lm_batch(&vec![&episode; rows]),
            logprobs: numbers(),
            values: numbers(),
            advantages: numbers(),
            returns: numbers(),
            new_in: None,
            // After a first update ratios may be anything.
            update: 1,
        })
    };
    Ok(Ladder { lengths, batch: Box::new(batch) })
}

/// How an iteration samples.
pub fn rollout_options(settings: &PpoSection, train: &TrainConfig, iteration: u64) -> RolloutOptions {
    RolloutOptions {
        max_new_tokens: settings.max_new_tokens,
        temperature: settings.temperature,
        seed: seed::derive(train.seed, "rollout", &[iteration]),
        batch_size: train.batch_size,
        micro: train.micro(),
        exact_kl: false,
    }
}

/// An episode for people to look at.
pub fn shown(episode: &Episode) -> SampleRecord {
    SampleRecord::from_iter([
        ("prompt".to_owned(), json!(episode.prompt)),
        ("completion".to_owned(), json!(episode.text)),
        ("score".to_owned(), json!(episode.score)),
        ("kl".to_owned(), json!(episode.exact_kl.unwrap_or_else(|| episode.kl()))),
        ("tokens".to_owned(), json!(episode.logprobs.len())),
        ("finished".to_owned(), json!(episode.finished)),
    ])
}

impl PpoSection {
    /// An episode's score, with what is configured for completions that did not end by themselves.
    pub fn score(&self, episode: &Episode) -> f64 {
        match (episode.finished, self.missing_eos_score) {
            (true, _) => episode.score,
            (false, Some(score)) => score,
            (false, None) => episode.score - self.missing_eos_penalty.unwrap_or(0.0),
        }
    }
}

/// Mean over episodes.
pub fn mean(episodes: &[Episode], value: impl Fn(&Episode) -> f64) -> f64 {
    episodes.iter().map(value).sum::<f64>() / episodes.len() as f64
}

fn batch(lessons: &[&Lesson], new_in: Option<u64>, update: u64) -> PpoBatch {
    let sequences: Vec<_> = lessons.iter().map(|lesson| &lesson.episode.sequence).collect();
    let flat = |of: fn(&Lesson) -> &Vec<f64>| lessons.iter().flat_map(|lesson| of(lesson)).copied().collect();
    PpoBatch {
        rows: lm_batch(&sequences),
        logprobs: flat(|lesson| &lesson.episode.logprobs),
        values: flat(|lesson| &lesson.episode.values),
        advantages: flat(|lesson| &lesson.advantages),
        returns: flat(|lesson| &lesson.returns),
        new_in,
        update,
    }
}
