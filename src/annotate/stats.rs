//! What the votes say of the annotators: bias to a side, ties, pace, agreement with oneself and with one another.
//! Pure functions of the votes that stand; must not know pairs or texts.
use super::votes::{Book, Choice, Side, Vote};
use serde::Serialize;
use std::collections::BTreeMap;

/// Normal quantile of a 95 % interval.
const Z: f64 = 1.959_963_984_540_054;
/// Votes before a pace is told.
const PACE_FROM: usize = 3;

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statistics {
    /// One entry an annotator, by name.
    pub annotators: Vec<Annotator>,
    /// Everybody's votes together.
    pub all: Annotator,
    /// Between annotators.
    pub agreement: Agreement,
}

/// One person's votes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Annotator {
    /// Who; empty for everybody.
    pub name: String,
    /// Votes, skips included.
    pub votes: usize,
    /// The left answer was better.
    pub left: usize,
    /// The right answer was.
    pub right: usize,
    /// Ties.
    pub ties: usize,
    /// Both bad.
    pub both_bad: usize,
    /// Skipped.
    pub skipped: usize,
    /// left / (left + right).
    pub left_share: Option<f64>,
    /// Wilson's 95 % interval of it; a fair hand has 0.5 inside.
    pub left_interval: Option<[f64; 2]>,
    /// Median seconds of a vote.
    pub pace: Option<f64>,
    /// Pairs that were judged twice.
    pub repeated: usize,
    /// Of these, how many alike.
    pub consistent: usize,
}

/// How far annotators agree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// Pairs that two or more people judged.
    pub pairs: usize,
    /// Krippendorff's alpha, nominal. None: no such pairs, or all judgements the same.
    pub alpha: Option<f64>,
    /// Share of the couples of judgements on one pair that are the same, each pair counting once.
    pub same: Option<f64>,
}

/// The statistics of all votes that stand.
pub fn of(book: &Book) -> Statistics {
    let all: Vec<&Vote> = book.stacks().flat_map(|(_, votes)| votes).collect();
    let annotators = book.stacks().map(|(name, votes)| annotator(name, &votes.iter().collect::<Vec<_>>())).collect();
    Statistics { annotators, all: annotator("", &all), agreement: agreement(&units(book)) }
}

fn annotator(name: &str, votes: &[&Vote]) -> Annotator {
    let count = |choice: Choice| votes.iter().filter(|vote| vote.choice == choice).count();
    let decided = votes.iter().filter(|vote| matches!(vote.choice, Choice::A | Choice::B)).count();
    let left = votes.iter().filter(|vote| is_left(vote)).count();
    let twice = twice(votes);
    Annotator {
        name: name.to_owned(),
        votes: votes.len(),
        left,
        right: decided - left,
        ties: count(Choice::Tie),
        both_bad: count(Choice::BothBad),
        skipped: count(Choice::Skip),
        left_share: (decided > 0).then(|| left as f64 / decided as f64),
        left_interval: (decided > 0).then(|| wilson(left, decided)),
        pace: median(votes.iter().map(|vote| vote.seconds).collect()),
        repeated: twice.len(),
        consistent: twice.iter().filter(|(first, second)| first == second).count(),
    }
}

fn is_left(vote: &Vote) -> bool {
    matches!((vote.choice, vote.left), (Choice::A, Side::A) | (Choice::B, Side::B))
}

/// Both judgements of the pairs that one person judged twice; skips are none.
fn twice(votes: &[&Vote]) -> Vec<(Choice, Choice)> {
    let mut first: BTreeMap<(&str, usize), Choice> = BTreeMap::new();
    let mut both = Vec::new();
    for vote in votes.iter().filter(|vote| vote.choice != Choice::Skip) {
        match first.get(&(vote.annotator.as_str(), vote.pair)) {
            Some(&earlier) => both.push((earlier, vote.choice)),
            None => {
                first.insert((&vote.annotator, vote.pair), vote.choice);
            }
        }
    }
    both
}

/// For each pair what each annotator said first; skips are missing values.
fn units(book: &Book) -> Vec<Vec<Choice>> {
    let mut units: BTreeMap<usize, Vec<Choice>> = BTreeMap::new();
    for (_, votes) in book.stacks() {
        let mut seen: BTreeMap<usize, Choice> = BTreeMap::new();
        for vote in votes.iter().filter(|vote| vote.choice != Choice::Skip) {
            seen.entry(vote.pair).or_insert(vote.choice);
        }
        seen.into_iter().for_each(|(pair, choice)| units.entry(pair).or_default().push(choice));
    }
    units.into_values().collect()
}

/// Krippendorff's alpha for nominal values, and plain agreement, of units with the values that raters gave them.
///
/// alpha = 1 - D_o / D_e, where over the n values of the units that have two or more, D_o = (1/n) sum_u sum_{c != k}
/// n_uc n_uk / (m_u - 1) and D_e = sum_{c != k} n_c n_k / (n (n - 1)) (Krippendorff 2004, Content Analysis, 11.3).
/// A rater who did not judge a unit has no value there; a unit with one value cannot agree or disagree and is left out.
pub fn agreement<V: Copy + Ord>(units: &[Vec<V>]) -> Agreement {
    let units: Vec<&Vec<V>> = units.iter().filter(|unit| unit.len() >= 2).collect();
    let mut totals: BTreeMap<V, f64> = BTreeMap::new();
    let (mut observed, mut same) = (0.0, 0.0);
    for unit in &units {
        let mut counts: BTreeMap<V, f64> = BTreeMap::new();
        unit.iter().for_each(|&value| *counts.entry(value).or_default() += 1.0);
        let size = unit.len() as f64;
        let alike: f64 = counts.values().map(|n| n * (n - 1.0)).sum();
        observed += (size * (size - 1.0) - alike) / (size - 1.0);
        same += alike / (size * (size - 1.0));
        counts.into_iter().for_each(|(value, n)| *totals.entry(value).or_default() += n);
    }
    let all: f64 = totals.values().sum();
    let expected = (all * all - totals.values().map(|n| n * n).sum::<f64>()) / (all - 1.0);
    let alpha = (!units.is_empty() && expected > 0.0).then(|| 1.0 - observed / expected);
    let same = (!units.is_empty()).then(|| same / units.len() as f64);
    Agreement { pairs: units.len(), alpha, same }
}

/// Median seconds of an annotator's votes, once there are some.
pub fn pace(votes: &[Vote]) -> Option<f64> {
    if votes.len() < PACE_FROM { None } else { median(votes.iter().map(|vote| vote.seconds).collect()) }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Wilson's score interval of a share.
fn wilson(hits: usize, of: usize) -> [f64; 2] {
    let (n, share) = (of as f64, hits as f64 / of as f64);
    let scale = 1.0 + Z * Z / n;
    let centre = (share + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    [centre - half, centre + half]
}
