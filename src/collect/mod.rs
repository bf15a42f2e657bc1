//! `collimate collect`: prompts -> completions of one or several models -> pairs -> labels, in one JSONL file.
//!
//! ```text
//! prompts --> completions (a model after the other) --> pairs (duplicates dropped) --> judge --> pairs.jsonl
//! ```
//!
//! Owns the form of the rows that are written; must not know who reads them (`annotate` the unjudged ones, `reward` and `dpo`
//! the judged ones).
mod completions;
mod judge;
mod pairs;
mod prompts;

use crate::config::collect::{CollectConfig, CollectSection};
use crate::durable;
use crate::error::{Error, Result};
use crate::model::{LoadOptions, device};
use completions::Completion;
use judge::Label;
use pairs::Pair;
use prompts::Prompts;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Runs the command: writes `collect.output` and prints what became of the completions.
///
/// # Errors
/// An output that is there already; prompts, models or a judge that cannot be used; completions that make no pair.
pub fn run(config: &CollectConfig) -> Result<()> {
    let c = &config.collect;
    let output = Path::new(&c.output);
    let kept = output.with_extension("unjudged.jsonl");
    durable::check_new(output)?;
    if !c.judge.is_none() {
        durable::check_new(&kept)?;
    }
    let options = load_options(c)?;
    let Prompts { rows, more } = prompts::read(c)?;
    // Before hours of sampling: a judge that does not answer is seen at once.
    let mut judge = judge::open(c, &rows[0], &options)?;
    let completions = completions::sample_all(c, &rows, &options)?;
    let (pairs, counts) = pairs::make(c, rows.len(), &completions);
    if pairs.is_empty() {
        let message = format!("{} completions of {} prompts make no pair", completions.len(), rows.len());
        return Err(Error::usage(message, counts.remedy()));
    }
    let made = Made { completions: &completions, pairs: &pairs, more: &more };
    let labels = match judge.as_mut().map(|judge| judge.label(c, &completions, &pairs)).transpose() {
        Ok(labels) => labels,
        Err(error) => {
            made.write(&kept, None)?;
            tracing::warn!("the judge failed; the pairs are kept unjudged in {}", kept.display());
            return Err(error);
        }
    };
    made.write(output, labels.as_deref())?;
    report(c, rows.len(), &completions, &counts, labels.as_deref());
    Ok(())
}

fn load_options(c: &CollectSection) -> Result<LoadOptions> {
    Ok(LoadOptions {
        device: device::resolve(&c.device)?,
        compute: device::kind_of(c.dtype),
        trainable: false,
        mapped: true,
        checkpointing: false,
    })
}

/// What is written: pairs of completions, with further columns of each prompt's row.
struct Made<'a> {
    completions: &'a [Completion],
    pairs: &'a [Pair],
    more: &'a [Map<String, Value>],
}

impl Made<'_> {
    fn write(&self, output: &Path, labels: Option<&[Label]>) -> Result<()> {
        let mut rows = Vec::with_capacity(self.pairs.len());
        for (at, pair) in self.pairs.iter().enumerate() {
            let (a, b) = (&self.completions[pair.a], &self.completions[pair.b]);
            let mut row = match labels {
                None => row(a, ["a", "b"], [(a, None), (b, None)]),
                Some(labels) => judged_row(a, b, &labels[at]),
            };
            row.extend(self.more[a.prompt].clone());
            rows.push(row);
        }
        durable::write_rows(output, &rows)
    }
}

/// The better side as `chosen`; `preference` only where it is not certain.
fn judged_row(a: &Completion, b: &Completion, label: &Label) -> Map<String, Value> {
    let sides = [(a, Some(label.rewards[0])), (b, Some(label.rewards[1]))];
    let sides = if label.a_wins { sides } else { [sides[1], sides[0]] };
    let mut row = row(a, ["chosen", "rejected"], sides);
    if let Some(preference) = label.preference {
        row.insert("preference".to_owned(), json!(preference));
    }
    row
}

/// A prompt with two answers under `names`, then where each came from.
fn row(any: &Completion, names: [&str; 2], sides: [(&Completion, Option<f64>); 2]) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("prompt".to_owned(), json!(any.contents().0));
    for (name, (side, _)) in names.iter().zip(sides) {
        row.insert((*name).to_owned(), json!(side.contents().1));
    }
    for (name, (side, reward)) in names.iter().zip(sides) {
        let mut source = side.source.clone();
        source.extend(reward.map(|reward| ("reward".to_owned(), json!(reward))));
        row.insert(format!("{name}_source"), Value::Object(source));
    }
    row
}

/// What became of the completions, a line each.
fn report(
    c: &CollectSection,
    prompts: usize,
    completions: &[Completion],
    counts: &pairs::Counts,
    labels: Option<&[Label]>,
) {
    println!("{:<24} {prompts}", "prompts");
    for (at, model) in c.models.iter().enumerate() {
        let own: Vec<&Completion> = completions.iter().filter(|completion| completion.model == at).collect();
        let ended = own.iter().filter(|completion| completion.finished).count();
        let tokens = own.iter().map(|completion| completion.tokens).sum::<usize>() as f64 / own.len().max(1) as f64;
        println!(
            "{:<24} {} by {model}: {ended} ended by themselves, {tokens:.1} tokens on average",
            "completions",
            own.len()
        );
    }
    let dropped = [("empty", counts.empty), ("unfinished", counts.unfinished), ("duplicate pairs", counts.duplicates)];
    for (what, count) in dropped.into_iter().filter(|(_, count)| *count > 0) {
        println!("{:<24} {count} {what}", "dropped");
    }
    if let Some(labels) = labels {
        let ties = labels.iter().filter(|label| label.preference == Some(0.5)).count();
        let gap = labels.iter().map(|label| (label.rewards[0] - label.rewards[1]).abs()).sum::<f64>();
        println!("{:<24} {ties}", "ties");
        println!("{:<24} {:.3}", "mean reward gap", gap / labels.len() as f64);
    }
    println!("{:<24} {} in {}", "pairs", counts.pairs, c.output);
}
