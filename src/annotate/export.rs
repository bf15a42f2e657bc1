//! Votes -> rows: for `reward` and `dpo` with a preference, for `rank` with the models of the sides. Owns what a
//! preference is made of; must not know the page.
//!
//! Of a pair, each annotator's judgements make one number, the mean over the times that they saw it: 1 where side a is
//! better, 0 where b is, 0.5 for a tie; both bad is 0.5 too, or no judgement (`--both-bad leave-out`). The mean over
//! the annotators is the preference. Skips are no judgement; a pair without any is left out. For `rank` each judgement
//! has a row of its own, with weights that have the same mean.
use super::pairs::{Pair, Pairs};
use super::votes::{Book, Choice};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What both bad means for training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BothBad {
    /// Neither is better
    Tie,
    /// No judgement
    LeaveOut,
}

/// What was said of one pair: for each annotator, by name, the values of their votes, 1 where side a is better. Nobody's
/// list is empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judgement(pub Vec<Vec<f64>>);

impl Judgement {
    /// Probability that side a is better.
    pub fn a_better(&self) -> f64 {
        let mean = |own: &Vec<f64>| own.iter().sum::<f64>() / own.len() as f64;
        self.0.iter().map(mean).sum::<f64>() / self.annotators() as f64
    }

    /// How many people said something.
    pub fn annotators(&self) -> usize {
        self.0.len()
    }

    /// How many votes that was.
    pub fn votes(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

/// What was said of each pair, by what votes call it.
pub fn judgements(book: &Book, both_bad: BothBad) -> BTreeMap<usize, Judgement> {
    let mut judgements: BTreeMap<usize, Judgement> = BTreeMap::new();
    for (_, votes) in book.stacks() {
        let mut own: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for vote in votes {
            let value = match vote.choice {
                Choice::A => 1.0,
                Choice::B => 0.0,
                Choice::Tie => 0.5,
                Choice::BothBad if both_bad == BothBad::Tie => 0.5,
                Choice::BothBad | Choice::Skip => continue,
            };
            own.entry(vote.pair).or_default().push(value);
        }
        own.into_iter().for_each(|(pair, values)| judgements.entry(pair).or_default().0.push(values));
    }
    judgements
}

/// The rows for `reward` and `dpo`, in the order of the pairs. The side that is preferred is `chosen`, so that
/// `preference` is never below 0.5; of a tie, side a.
pub fn preferences(pairs: &Pairs, judgements: &BTreeMap<usize, Judgement>) -> Vec<Map<String, Value>> {
    let mut margins = 0;
    let mut row_of = |pair: &Pair| {
        let judged = judgements.get(&pair.number)?;
        let a_better = judged.a_better();
        let kept = a_better >= 0.5;
        let [a, b] = pair.columns();
        let (chosen, rejected) = if kept { (a, b) } else { (b, a) };
        let source = |side: &str| pair.row.get(&format!("{side}_source")).cloned();
        let mut row = Map::new();
        row.extend(pair.row.get("prompt").map(|prompt| ("prompt".to_owned(), prompt.clone())));
        row.insert("chosen".into(), pair.row[chosen].clone());
        row.insert("rejected".into(), pair.row[rejected].clone());
        row.insert("preference".into(), json!(if kept { a_better } else { 1.0 - a_better }));
        row.insert("votes".into(), json!(judged.votes()));
        row.insert("annotators".into(), json!(judged.annotators()));
        row.extend(source(chosen).map(|source| ("chosen_source".to_owned(), source)));
        row.extend(source(rejected).map(|source| ("rejected_source".to_owned(), source)));
        let used = [a.to_owned(), b.to_owned(), format!("{a}_source"), format!("{b}_source")];
        for (name, value) in pair.row.iter().filter(|(name, _)| !used.contains(name)) {
            if name == "margin" && !kept {
                margins += 1;
            } else if !row.contains_key(name) {
                row.insert(name.clone(), value.clone());
            }
        }
        Some(row)
    };
    let rows: Vec<_> = pairs.list.iter().filter_map(&mut row_of).collect();
    if margins > 0 {
        tracing::warn!(
            "\"margin\" is left out of {margins} rows whose sides changed places: it spoke for the other side"
        );
    }
    rows
}

/// The rows for `rank`: a comparison of two models a judgement, of weight 1 an annotator and pair. Who judged a pair twice
/// and differently gives both, each with half the weight. No row holds a mean, which could not be told from a tie.
///
/// # Errors
/// The pairs do not name the models of their sides, or of each pair both are the same.
pub fn comparisons(pairs: &Pairs, judgements: &BTreeMap<usize, Judgement>) -> Result<Vec<Map<String, Value>>> {
    let several = names_of_several(pairs);
    let (mut rows, mut unnamed, mut same) = (Vec::new(), 0, 0);
    for pair in &pairs.list {
        let Some(judged) = judgements.get(&pair.number) else { continue };
        let [a, b] = pair.columns().map(|side| item(pair, side, &several));
        match (a, b) {
            (Some(a), Some(b)) if a != b => rows.extend(judged.0.iter().flat_map(|own| comparisons_of(&a, &b, own))),
            (Some(_), Some(_)) => same += 1,
            _ => unnamed += 1,
        }
    }
    if rows.is_empty() && !judgements.is_empty() {
        let (message, remedy) = if unnamed > 0 {
            let remedy = "name them: \"a_source\": {\"model\": \"name\"} and \"b_source\", as collimate collect writes";
            ("the judged pairs do not name the models of their sides", remedy)
        } else {
            ("both sides of each judged pair come from one model", "collect pairs of several models to rank them")
        };
        return Err(Error::file(&pairs.path, message, remedy));
    }
    for (count, what) in [(unnamed, "do not name the models of their sides"), (same, "have one model on both sides")] {
        if count > 0 {
            tracing::warn!("{}: {count} judged pairs {what} and are left out of the comparisons", pairs.path.display());
        }
    }
    Ok(rows)
}

/// One person's judgements of a pair; equal ones are one.
fn comparisons_of(a: &str, b: &str, own: &[f64]) -> Vec<Map<String, Value>> {
    let row = |preference: f64, weight: Value| {
        let row = json!({ "a": a, "b": b, "preference": preference, "weight": weight });
        row.as_object().cloned().expect("an object")
    };
    if own.iter().all(|value| *value == own[0]) {
        return vec![row(own[0], json!(1))];
    }
    own.iter().map(|&value| row(value, json!(1.0 / own.len() as f64))).collect()
}

/// What `rank` calls a side: its model, and the beginning of its fingerprint where several models have that name.
fn item(pair: &Pair, side: &str, several: &BTreeSet<String>) -> Option<String> {
    let source = pair.row.get(&format!("{side}_source"))?;
    let model = source.get("model")?.as_str()?;
    let fingerprint = source.get("fingerprint").and_then(Value::as_str).unwrap_or_default();
    let short: String = fingerprint.chars().take(8).collect();
    Some(if several.contains(model) { format!("{model}@{short}") } else { model.to_owned() })
}

/// Model names that stand for more than one fingerprint.
fn names_of_several(pairs: &Pairs) -> BTreeSet<String> {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for pair in &pairs.list {
        for side in pair.columns() {
            let source = pair.row.get(&format!("{side}_source"));
            let text = |key: &str| source.and_then(|source| source.get(key)).and_then(Value::as_str);
            if let Some(model) = text("model") {
                found.entry(model).or_default().insert(text("fingerprint").unwrap_or_default());
            }
        }
    }
    found.into_iter().filter(|(_, prints)| prints.len() > 1).map(|(name, _)| name.to_owned()).collect()
}
