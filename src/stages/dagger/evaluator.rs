//! DAgger's evaluation, at the end of each round: how often the student does not do what the expert would, in the states that
//! it comes to by itself, and in those that the expert comes to. Owns rounds.jsonl.
use super::source::{Cast, Round, shown};
use crate::config::Labels;
use crate::data::Prompt;
use crate::durable;
use crate::error::{Error, Result};
use crate::rollout::assess::mean_and_error;
use crate::rollout::disagreement::{Play, errors, mean_logprob};
use crate::rollout::mixture::Rollout;
use crate::seed;
use crate::stages::source::micro;
use crate::train::{Evaluation, Evaluator, signals};
use serde_json::{Map, Value, json};
use std::cell::{Cell, OnceCell};
use std::path::{Path, PathBuf};

/// A line for each round that was judged.
pub const ROUNDS_FILE: &str = "rounds.jsonl";

/// Rollouts that are shown of an evaluation.
const SHOWN: usize = 8;

/// Judges a round on held-out prompts, always with the same draws, so that rounds differ by the policy alone.
pub struct RoundEvaluator<'a> {
    /// Who acts and is judged.
    pub cast: Cast<'a>,
    /// Held-out prompts; at least one.
    pub prompts: Vec<Prompt>,
    /// The round.
    pub round: &'a Cell<Round>,
    /// The run directory.
    pub run: &'a Path,
    /// The expert's own rollouts with its labels, made when they are first asked for.
    pub experts: OnceCell<Labelled>,
}

/// Rollouts and the expert's actions in their states.
pub type Labelled = (Vec<Rollout>, Vec<Vec<i64>>);

impl RoundEvaluator<'_> {
    fn roll_out(&self, beta: f64, step: u64) -> Result<Labelled> {
        let mixture = self.cast.mixture(beta, seed::derive(self.cast.train.seed, "evaluation", &[]));
        let check = || signals::check_overdue(step);
        let rollouts = mixture.roll_out(&self.prompts, &check)?;
        let labels = mixture.label(&rollouts, &check)?.into_iter().map(|said| said.actions).collect();
        Ok((rollouts, labels))
    }

    /// Errors of each rollout, summed over its states.
    fn errors(&self, (rollouts, labels): &Labelled, step: u64) -> Result<Vec<f64>> {
        let Cast { student, expert, settings, train, .. } = self.cast;
        let play = match expert.model() {
            Some(teacher) if settings.labels != Labels::Greedy => Play::Drawn(teacher),
            _ => Play::Actions(labels),
        };
        let check = || signals::check_overdue(step);
        errors(student, &self.cast.sampling(), rollouts, play, micro(train), &check)
    }

    /// Adds the round's line to rounds.jsonl, in the place of an earlier one.
    fn leave(&self, line: &Map<String, Value>) -> Result<()> {
        let path: PathBuf = self.run.join(ROUNDS_FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(Error::io(&path, "read"))?,
        };
        let before = |line: &&str| {
            let known: Option<Value> = serde_json::from_str(line).ok();
            known.and_then(|known| known.get("round")?.as_u64()).is_some_and(|n| n < self.round.get().number as u64)
        };
        let mut lines: String = text.lines().filter(before).map(|line| format!("{line}\n")).collect();
        lines.push_str(&json!(line).to_string());
        lines.push('\n');
        durable::write_file(&path, lines.as_bytes())
    }
}

impl Evaluator for RoundEvaluator<'_> {
    fn evaluate(&self, step: u64) -> Result<Evaluation> {
        let own = self.roll_out(0.0, step)?;
        let experts = match self.experts.get() {
            Some(experts) => experts,
            None => {
                let made = self.roll_out(1.0, step)?;
                self.experts.get_or_init(|| made)
            }
        };
        let (on_own, on_experts) = (self.errors(&own, step)?, self.errors(experts, step)?);
        let rate = |errors: &[f64], (_, labels): &Labelled| {
            errors.iter().sum::<f64>() / labels.iter().map(Vec::len).sum::<usize>() as f64
        };
        let (total, total_se) = mean_and_error(&on_own, 1);
        let error_rate = rate(&on_own, &own);
        let states = own.1.iter().map(Vec::len).sum::<usize>() as f64;
        let agreed: usize = own.0.iter().zip(&own.1).map(|(rollout, labels)| rollout.agreements(labels)).sum();
        let mut figures = vec![
            ("error_rate", error_rate),
            ("error_rate_expert", rate(&on_experts, experts)),
            ("errors", total),
            ("errors_se", total_se),
            ("agreement", agreed as f64 / states),
            ("mean_length", states / own.0.len() as f64),
        ];
        if let Some(teacher) = self.cast.expert.model() {
            let check = || signals::check_overdue(step);
            let mean = mean_logprob(teacher, 1.0, &own.0, micro(self.cast.train), &check)?;
            figures.push(("expert_perplexity", (-mean).exp()));
        }
        let Round { number, beta, rows, labels } = self.round.get();
        let mut line = Map::new();
        let known = [("round", json!(number)), ("beta", json!(beta)), ("rows", json!(rows)), ("labels", json!(labels))];
        line.extend(known.map(|(name, value)| (name.to_owned(), value)));
        line.insert("step".into(), json!(step));
        line.extend(figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
        self.leave(&line)?;
        let some = own.0.iter().zip(&own.1).take(SHOWN);
        let samples = some.map(|(rollout, labels)| shown(rollout, labels, self.cast.tokenizer));
        let samples = samples.collect::<Result<_>>()?;
        let figures = figures.into_iter().map(|(name, value)| (format!("eval_{name}"), value)).collect();
        Ok(Evaluation { figures, cost: error_rate, samples })
    }
}
