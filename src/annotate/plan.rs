//! Who sees which pair when, and on which side: pure functions of the seed, the annotator's name and the votes that
//! stand. Must not know time, the log's file or the page.
//!
//! Some pairs are shared: everybody sees them, in one order, spread evenly over each annotator's sequence, so that
//! agreement can be told early. The others come to whoever is first to reach them; each annotator goes through them in
//! an order of their own. Some pairs are shown a second time to the same annotator with the sides swapped, [`APART`]
//! pairs later or more, and fewer only where no other pair is left, but never less than [`NEAREST`].
use super::votes::{Choice, Side, Vote};
use crate::seed::{derive, rng};
use rand::seq::SliceRandom;
use std::collections::{HashMap, HashSet};

/// So many other pairs lie between the two showings of a pair; a third of the pairs where there are few.
const APART: usize = 20;
/// A pair is never shown again before so many others.
const NEAREST: usize = 3;

/// One showing of a pair to an annotator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Showing {
    /// The pair's place in the list.
    pub place: usize,
    /// 1, or 2 where it is shown again.
    pub showing: u8,
}

/// What is decided once for all pairs.
pub struct Plan {
    seed: u64,
    /// What votes call each pair.
    numbers: Vec<usize>,
    shared: Vec<usize>,
    rest: Vec<usize>,
    is_shared: HashSet<usize>,
    repeated: HashSet<usize>,
    overlap: f64,
    apart: usize,
}

/// What an annotator has seen, oldest first, as far as the plan needs it.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// For each pair: when it was first seen, how often, and whether something was said of it.
    seen: HashMap<usize, (usize, u8, bool)>,
    length: usize,
}

impl History {
    /// From votes that stand; `place` finds a pair by what votes call it.
    pub fn of(votes: &[Vote], place: impl Fn(usize) -> Option<usize>) -> Self {
        let mut history = Self::default();
        for vote in votes {
            if let Some(place) = place(vote.pair) {
                history.add(place, vote.choice != Choice::Skip);
            }
        }
        history
    }

    /// One more pair was seen; `judged` where it was not skipped.
    pub fn add(&mut self, place: usize, judged: bool) {
        let (_, times, _) = self.seen.entry(place).or_insert((self.length, 0, judged));
        *times += 1;
        self.length += 1;
    }

    /// How many pairs were seen.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether none was seen.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Plan {
    /// For pairs that votes call `numbers`; shares lie in [0, 1].
    pub fn new(numbers: Vec<usize>, seed: u64, repeat: f64, overlap: f64) -> Self {
        let count = numbers.len();
        let part = |share: f64| ((share * count as f64).round() as usize).min(count);
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut rng(seed, "annotate repeated", &[]));
        let repeated = order[..part(repeat)].iter().copied().collect();
        order.shuffle(&mut rng(seed, "annotate shared", &[]));
        let rest = order.split_off(part(overlap));
        let is_shared = order.iter().copied().collect();
        Self { seed, numbers, shared: order, rest, is_shared, repeated, overlap, apart: APART.min(count / 3) }
    }

    /// Whether everybody sees a pair.
    pub fn is_shared(&self, place: usize) -> bool {
        self.is_shared.contains(&place)
    }

    /// All pairs in the order in which they are offered to an annotator.
    pub fn sequence(&self, annotator: &str) -> Vec<usize> {
        let mut rest = self.rest.clone();
        rest.shuffle(&mut rng(self.seed, &format!("annotate order of {annotator}"), &[]));
        let (mut shared, mut rest) = (self.shared.iter().copied(), rest.into_iter());
        let count = self.numbers.len();
        let mut sequence = Vec::with_capacity(count);
        while sequence.len() < count {
            let at = sequence.len() as f64;
            let turn = ((at + 1.0) * self.overlap).floor() > (at * self.overlap).floor();
            let next = if turn { shared.next().or_else(|| rest.next()) } else { rest.next().or_else(|| shared.next()) };
            sequence.extend(next);
        }
        sequence
    }

    /// What an annotator with this history sees next; `free` says whether a pair that is not shared may be offered.
    pub fn next(&self, sequence: &[usize], history: &History, free: impl Fn(usize) -> bool) -> Option<Showing> {
        let again = self.oldest_pending(history);
        let shown_again = |at_least: usize| {
            let (since, place) = again?;
            (history.length - since > at_least).then_some(Showing { place, showing: 2 })
        };
        if let Some(due) = shown_again(self.apart.max(NEAREST)) {
            return Some(due);
        }
        let fresh = sequence.iter().find(|&&place| self.is_open(place, history, &free));
        fresh.map(|&place| Showing { place, showing: 1 }).or_else(|| shown_again(NEAREST))
    }

    /// How many pairs an annotator with this history will still see, if nobody else goes on.
    pub fn left(&self, sequence: &[usize], history: &History, free: impl Fn(usize) -> bool) -> usize {
        if self.next(sequence, history, &free).is_none() {
            return 0;
        }
        let fresh: Vec<usize> = sequence.iter().copied().filter(|&p| self.is_open(p, history, &free)).collect();
        let again = fresh.iter().filter(|place| self.repeated.contains(place)).count();
        let pending = history.seen.iter().filter(|(place, seen)| self.is_pending(**place, seen)).count();
        fresh.len() + again + pending
    }

    /// Which side stands on the left. Drawn for the first showing, swapped in the second.
    pub fn left_side(&self, annotator: &str, showing: Showing) -> Side {
        let number = self.numbers[showing.place] as u64;
        let drawn = derive(self.seed, &format!("annotate sides of {annotator}"), &[number]) & 1 == 0;
        if drawn == (showing.showing == 1) { Side::A } else { Side::B }
    }

    /// Whether a vote on this showing fits this history.
    pub fn accepts(&self, history: &History, showing: Showing) -> bool {
        match (history.seen.get(&showing.place), showing.showing) {
            (None, 1) => true,
            (Some(seen), 2) => self.is_pending(showing.place, seen),
            _ => false,
        }
    }

    fn is_open(&self, place: usize, history: &History, free: impl Fn(usize) -> bool) -> bool {
        !history.seen.contains_key(&place) && (self.is_shared(place) || free(place))
    }

    fn is_pending(&self, place: usize, (_, times, judged): &(usize, u8, bool)) -> bool {
        *times == 1 && *judged && self.repeated.contains(&place)
    }

    /// The pair to be shown again that was seen longest ago: when, and which.
    fn oldest_pending(&self, history: &History) -> Option<(usize, usize)> {
        let pending = history.seen.iter().filter(|(place, seen)| self.is_pending(**place, seen));
        pending.map(|(&place, seen)| (seen.0, place)).min()
    }
}
