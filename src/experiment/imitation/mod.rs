//! Behavioural cloning against DAgger on a task where errors compound: as many labels and updates each, over horizons and
//! seeds; how errors grow with the horizon. Owns the runs and what is measured of them.
pub mod fit;
mod report;
pub mod road;

use super::parts::{Inputs, Runner};
use crate::config::imitation::held_out;
use crate::config::{ImitationConfig, ImitationRun, StageConfig, table_of};
use crate::data::{Data, EncodeOptions, Prompt, RowId};
use crate::durable;
use crate::error::{Error, Result};
use crate::model::{CausalLm, LoadOptions, device};
use crate::rollout::Sampling;
use crate::rollout::assess::mean_and_error;
use crate::rollout::expert::{Expert, Rule, Said};
use crate::rollout::mixture::{Mixture, MixtureOptions, Rollout};
use crate::stages::dagger::Ready;
use crate::stages::dagger::evaluator::ROUNDS_FILE;
use crate::{seed, stages};
use road::Road;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a run was found to be worth, beside its model.
const MEASURED: &str = "measured.json";

/// Rollouts that are judged at once.
const ROLLOUTS: usize = 512;

/// A run, judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// `bc` or `dagger`.
    pub method: String,
    /// T.
    pub horizon: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Labels that the expert gave.
    pub labels: u64,
    /// Actions of fresh rollouts of the policy that are not the expert's: mean a trajectory.
    pub errors: f64,
    /// Its standard error over trajectories.
    pub errors_se: f64,
    /// How many trajectories.
    pub rollouts: usize,
    /// Share of wrong actions in states that the expert comes to.
    pub error_rate_expert: f64,
    /// Mean errors a trajectory after each round, on held-out trajectories.
    pub rounds: Vec<f64>,
    /// The round whose policy it is, from 1.
    pub best_round: usize,
}

/// Runs or goes on with the experiment and writes its report.
///
/// # Errors
/// Those of the runs; what is done stays done.
pub fn run(config: &ImitationConfig) -> Result<()> {
    device::resolve(&config.experiment.device)?;
    let mut runner = Runner::new(&config.experiment.output, 1 + config.runs.len())?;
    let road = Road::new(&config.task);
    task(config, &road, &mut runner)?;
    let mut measured = Vec::with_capacity(config.runs.len());
    for run in &config.runs {
        measured.push(judged(config, run, &road, &mut runner)?);
    }
    report::write(config, &measured, &runner)
}

/// The task's tokenizer and prompts, which all are its start.
fn task(config: &ImitationConfig, road: &Road, runner: &mut Runner) -> Result<()> {
    let e = &config.experiment;
    let settings = settings(config);
    let dir = PathBuf::from(config.path("task"));
    let about = (String::new(), toml::to_string_pretty(&settings).expect("a TOML table serialises"));
    runner.run("task", "its tokenizer and its starts", &Inputs::new(&settings).finish(), about, || {
        std::fs::create_dir_all(&dir).map_err(Error::io(&dir, "create"))?;
        let write = |path: &Path, text: String| durable::write_file(path, text.as_bytes());
        write(&dir.join("tokenizer.json"), road.tokenizer().to_string())?;
        write(&dir.join("tokenizer_config.json"), road.tokenizer_config().to_string())?;
        let starts = |count: usize| "{\"prompt\": \"<s>\"}\n".repeat(count.max(1));
        let shortest = e.horizons.first().copied().unwrap_or(1);
        write(&dir.join("prompts.jsonl"), starts(e.labels / shortest))?;
        for &horizon in &e.horizons {
            // A round is chosen on fewer states than the run is judged on in the end.
            write(Path::new(&config.path(&held_out(horizon))), starts(e.states / 4 / horizon))?;
        }
        Ok(())
    })
}

fn settings(config: &ImitationConfig) -> toml::Table {
    let mut settings = toml::Table::new();
    settings.insert("experiment".into(), table_of(&config.experiment));
    settings.insert("task".into(), table_of(&config.task));
    if let Some(toml::Value::Table(experiment)) = settings.get_mut("experiment") {
        for free in ["output", "device", "seeds"] {
            experiment.remove(free);
        }
    }
    settings
}

/// One run with what it is worth.
fn judged(config: &ImitationConfig, run: &ImitationRun, road: &Road, runner: &mut Runner) -> Result<Measured> {
    let (name, mut table) = (run.name(), run.config.to_table());
    let dir = PathBuf::from(config.path(&name));
    let text = toml::to_string_pretty(&table).expect("a TOML table serialises");
    table.extend(settings(config));
    let what = format!("{} labels, T = {}", run.method.name(), run.horizon);
    runner.run(&name, &what, &Inputs::new(&table).finish(), (String::new(), text), || {
        let expert = Rule(|prefix: &[i64]| road.right_action(prefix[prefix.len() - 1]));
        train(run, road, &expert)?;
        let measured = measure(config, run, road, &expert, &dir)?;
        durable::write_file(&dir.join(MEASURED), &serde_json::to_vec_pretty(&measured).expect("plain data serialises"))
    })?;
    let path = dir.join(MEASURED);
    let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::file(&path, e.to_string(), "remove this run's directory"))
}

fn train(run: &ImitationRun, road: &Road, expert: &dyn Expert) -> Result<()> {
    let config = &run.config;
    stages::run_with(config, |session| {
        let started = Instant::now();
        let options = EncodeOptions::prompts(&config.data, config.dagger.max_new_tokens);
        let data: Data<Prompt> = Data::load(&config.data, &session.tokenizer, &options, |_| {})?;
        let loading = Instant::now();
        let student = session.open_policy(&config.model, config.train.seed)?;
        let fact = json!({ "rows": data.fact()? });
        let started = started + loading.elapsed();
        config.learn(session, Ready { data, student, expert, world: Some(road), fact, started })
    })
}

/// Fresh rollouts of the run's policy, and what its rounds left.
fn measure(
    config: &ImitationConfig,
    run: &ImitationRun,
    road: &Road,
    expert: &dyn Expert,
    dir: &Path,
) -> Result<Measured> {
    let horizon = run.horizon;
    let device = device::resolve(&config.experiment.device)?;
    let compute = device::kind_of(run.config.model.dtype);
    let options = LoadOptions { device, compute, trainable: false, mapped: false, checkpointing: false };
    let student = CausalLm::from_pretrained(dir, &options)?;
    let rollouts = config.experiment.states.div_ceil(horizon);
    let options = MixtureOptions {
        beta: 0.0,
        sampling: Sampling::greedy(),
        max_new_tokens: 2 * horizon,
        eos: None,
        seed: seed::derive(run.seed, "judged", &[horizon as u64]),
        batch_size: ROLLOUTS,
        world: Some(road),
    };
    let mixture = Mixture { student: &student, expert, options };
    let start = Prompt { tokens: vec![0], text: String::new(), messages: None, id: RowId::line(Path::new("start"), 1) };
    let check = || crate::train::signals::check_overdue(0);
    let trajectories = mixture.roll_out(&vec![start; rollouts], &check)?;
    let labels = mixture.label(&trajectories, &check)?;
    let wrong = |(rollout, said): (&Rollout, &Said)| (said.actions.len() - rollout.agreements(&said.actions)) as f64;
    let errors: Vec<f64> = trajectories.iter().zip(&labels).map(wrong).collect();
    let (errors, errors_se) = mean_and_error(&errors, 1);
    let rounds = rounds(dir)?;
    let number = |line: &Value, name: &str| line.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let best = (0..rounds.len())
        .min_by(|a, b| number(&rounds[*a], "error_rate").total_cmp(&number(&rounds[*b], "error_rate")));
    let best = best.unwrap_or(0);
    Ok(Measured {
        method: run.method.name().into(),
        horizon,
        seed: run.seed,
        labels: rounds.last().map_or(0.0, |line| number(line, "labels")) as u64,
        errors,
        errors_se,
        rollouts,
        error_rate_expert: rounds.get(best).map_or(f64::NAN, |line| number(line, "error_rate_expert")),
        rounds: rounds.iter().map(|line| number(line, "errors")).collect(),
        best_round: best + 1,
    })
}

/// The lines of a run's rounds.jsonl.
fn rounds(dir: &Path) -> Result<Vec<Value>> {
    let path = dir.join(ROUNDS_FILE);
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
    let read =
        |line: &str| serde_json::from_str(line).map_err(|e| Error::file(&path, e.to_string(), "start a new run"));
    text.lines().map(read).collect()
}
