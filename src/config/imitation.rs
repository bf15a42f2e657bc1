//! `collimate experiment imitation`: behavioural cloning against DAgger on a task with an expert of its own, over horizons and
//! seeds. `[dagger]` holds the stage's sections (`[dagger.train]`, `[dagger.model.config]`); the experiment fills in the rest.
use super::{DaggerConfig, Document, Problems, Shared};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `[experiment]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImitationSection {
    /// Directory of all runs and of the report.
    pub output: String,
    /// `auto`, `cpu`, `cuda` or `cuda:N`, for every run.
    pub device: String,
    /// Seeds 0, 1, ...: a run each, of either method at every horizon.
    pub seeds: u64,
    /// Actions of a trajectory, T.
    pub horizons: Vec<usize>,
    /// Labels that the expert gives in a run, of either method: in whole trajectories, as many in every round. What it takes to
    /// judge the rounds is not counted.
    pub labels: usize,
    /// Rounds of either method: as many labels, updates and policies to choose from. In behavioural cloning the expert acts in
    /// all of them.
    pub rounds: usize,
    /// Labels of an update: a batch has so many over T trajectories, at least one.
    pub update_labels: usize,
    /// States of the fresh rollouts that a policy is judged on.
    pub states: usize,
}

impl Default for ImitationSection {
    fn default() -> Self {
        Self {
            output: String::new(),
            device: "auto".into(),
            seeds: 5,
            horizons: vec![8, 16, 32, 64, 128, 256],
            labels: 4096,
            rounds: 8,
            update_labels: 512,
            states: 65_536,
        }
    }
}

/// `[task]`: a road along which the expert plays a table, and off which only a kerb is seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskSection {
    /// What can be seen on the road.
    pub symbols: usize,
    /// How many of these are common; all equally.
    pub common: usize,
    /// How often one of the others is seen.
    pub rare: f64,
    /// What can be done.
    pub actions: usize,
    /// Seed of the expert's table.
    pub seed: u64,
}

impl Default for TaskSection {
    fn default() -> Self {
        Self { symbols: 256, common: 24, rare: 0.002, actions: 32, seed: 0 }
    }
}

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Behavioural cloning: the expert's own rollouts.
    Cloning,
    /// DAgger.
    Dagger,
}

impl Method {
    /// As directories and files name it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Cloning => "bc",
            Method::Dagger => "dagger",
        }
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct ImitationRun {
    /// Whose it is.
    pub method: Method,
    /// T.
    pub horizon: usize,
    /// Its seed.
    pub seed: u64,
    /// The stage's configuration; its expert is the task's.
    pub config: DaggerConfig,
}

impl ImitationRun {
    /// Its directory below the experiment's.
    pub fn name(&self) -> String {
        format!("{}-T{}-seed{}", self.method.name(), self.horizon, self.seed)
    }
}

/// The whole experiment, every run's configuration resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct ImitationConfig {
    /// `[experiment]`.
    pub experiment: ImitationSection,
    /// `[task]`.
    pub task: TaskSection,
    /// The runs, horizon by horizon, seed by seed.
    pub runs: Vec<ImitationRun>,
}

impl ImitationSection {
    fn check(&self, problems: &mut Problems) {
        problems.require(!self.output.is_empty(), "experiment.output", "missing; name a directory");
        problems.require(self.seeds > 0, "experiment.seeds", "must be greater than 0");
        problems.require(self.rounds > 0, "experiment.rounds", "must be greater than 0");
        problems.require(self.update_labels > 0, "experiment.update_labels", "must be greater than 0");
        let horizons = &self.horizons;
        let two = "must be two different numbers at least: an exponent is fitted";
        problems.require(horizons.len() >= 2, "experiment.horizons", two);
        let rising =
            horizons.windows(2).all(|pair| pair[0] < pair[1]) && horizons.first().is_none_or(|&first| first > 0);
        problems.require(rising, "experiment.horizons", "must rise from 1 or more, none of them twice");
        let longest = horizons.last().copied().unwrap_or(1).max(1);
        let (labels, rounds) = (self.labels / longest, self.rounds);
        let message = format!("must be at least {longest} a round: every one of {rounds} rounds has a trajectory");
        problems.require(labels >= rounds, "experiment.labels", message);
        let message = format!("must be at least {longest}, the longest horizon");
        problems.require(self.states >= longest, "experiment.states", message);
    }
}

impl TaskSection {
    fn check(&self, problems: &mut Problems) {
        let message = "must be at least 1 and below task.symbols";
        problems.require((1..self.symbols).contains(&self.common), "task.common", message);
        problems.require((0.0..1.0).contains(&self.rare), "task.rare", "must lie in [0, 1)");
        problems.require(self.actions >= 2, "task.actions", "must be at least 2: the kerbs ask for different ones");
    }
}

impl ImitationConfig {
    /// Reads, overrides and validates a file; all problems are reported at once.
    ///
    /// # Errors
    /// As [`super::load`].
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        let mut document = Document::open(path, overrides)?;
        let experiment: ImitationSection = document.section("experiment");
        experiment.check(document.problems());
        let task: TaskSection = document.section("task");
        task.check(document.problems());
        let section = document.part("dagger");
        let mut runs = Vec::new();
        for &horizon in &experiment.horizons {
            for seed in 0..experiment.seeds {
                for method in [Method::Cloning, Method::Dagger] {
                    let mut own = section.clone();
                    let config = run(&mut own, &experiment, method, horizon.max(1), seed);
                    // All runs of a method have the same problems.
                    if runs.len() < 2 {
                        document.absorb(own);
                    }
                    runs.push(ImitationRun { method, horizon, seed, config });
                }
            }
        }
        document.only_known_sections("experiment");
        document.finish()?;
        Ok(Self { experiment, task, runs })
    }

    /// A path below the experiment's directory.
    pub fn path(&self, name: &str) -> String {
        below(&self.experiment.output, name)
    }
}

/// The file of held-out prompts for a horizon, below the experiment's directory.
pub fn held_out(horizon: usize) -> String {
    format!("task/held_out-T{horizon}.jsonl")
}

fn below(output: &str, name: &str) -> String {
    format!("{}/{name}", output.trim_end_matches('/'))
}

/// A run's configuration: what the section says and what is decided here, which the section must not say.
fn run(section: &mut Document, e: &ImitationSection, method: Method, horizon: usize, seed: u64) -> DaggerConfig {
    let number = |value: usize| toml::Value::from(i64::try_from(value).unwrap_or(i64::MAX));
    let rounds = e.rounds.max(1);
    let beta: toml::Value = match method {
        Method::Cloning => vec![1.0; rounds].into(),
        Method::Dagger => "indicator".into(),
    };
    let name = format!("{}-T{horizon}-seed{seed}", method.name());
    let positions = 2 * e.horizons.last().copied().unwrap_or(1) + 1;
    let decided: Vec<(&str, &str, toml::Value)> = vec![
        ("model", "path", below(&e.output, "task").into()),
        ("model", "init", "config".into()),
        ("model", "device", e.device.clone().into()),
        ("data", "train", below(&e.output, "task/prompts.jsonl").into()),
        ("data", "eval", below(&e.output, &held_out(horizon)).into()),
        ("data", "max_length", number(2 * horizon + 1)),
        ("train", "output", below(&e.output, &name).into()),
        ("train", "seed", i64::try_from(seed).unwrap_or(i64::MAX).into()),
        ("train", "resume", true.into()),
        ("train", "batch_size", number((e.update_labels / horizon).max(1))),
        ("dagger", "rounds", number(rounds)),
        ("dagger", "rollouts", number((e.labels / horizon / rounds).max(1))),
        ("dagger", "beta", beta),
        ("dagger", "labels", "greedy".into()),
        ("dagger", "temperature", 0.0.into()),
        ("dagger", "max_new_tokens", number(2 * horizon)),
    ];
    for (table, key, value) in decided {
        if section.value(table, key).is_some() {
            section.problems().at(&format!("{table}.{key}"), "the experiment decides this; remove it");
        }
        section.decide(table, key, value);
    }
    if let Some(toml::Value::Table(shape)) = section.value("model", "config") {
        let mut shape = shape.clone();
        if shape.insert("n_positions".into(), number(positions)).is_some() {
            section.problems().at("model.config", "n_positions follows from experiment.horizons; remove it");
        }
        section.decide("model", "config", shape.into());
    }
    let shared = Shared::read(section, &[]);
    let config = DaggerConfig::with_own_expert(shared, section);
    section.only_known_sections("dagger");
    config
}
