//! Completions -> pairs: which ones, without duplicates, and which side is a.
use super::completions::Completion;
use crate::config::collect::CollectSection;
use crate::data::loader::shuffled;
use crate::seed;
use rand::RngExt;
use serde_json::json;
use std::collections::HashSet;

/// Two completions of a prompt, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// One side.
    pub a: usize,
    /// The other.
    pub b: usize,
}

/// What was made and what was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Pairs.
    pub pairs: usize,
    /// Completions that say nothing.
    pub empty: usize,
    /// Completions that did not end by themselves, where only such are wanted.
    pub unfinished: usize,
    /// Pairs whose sides are the same text, and pairs of texts that there were already.
    pub duplicates: usize,
}

impl Counts {
    /// What to do where there is no pair.
    pub fn remedy(self) -> &'static str {
        if self.unfinished > 0 {
            "raise collect.max_new_tokens, or set collect.finished_only = false"
        } else {
            "they are empty or all alike: raise collect.temperature or collect.samples"
        }
    }
}

/// Pairs of every prompt, in the order of the prompts: all, or `collect.pairs` drawn at random; sides drawn too, so that a
/// side says nothing about the model.
pub fn make(c: &CollectSection, prompts: usize, completions: &[Completion]) -> (Vec<Pair>, Counts) {
    let mut counts = Counts::default();
    let mut of_prompt = vec![Vec::new(); prompts];
    for (at, completion) in completions.iter().enumerate() {
        match completion {
            _ if completion.text.trim().is_empty() => counts.empty += 1,
            _ if c.finished_only && !completion.finished => counts.unfinished += 1,
            _ => of_prompt[completion.prompt].push(at),
        }
    }
    let (mut pairs, mut seen) = (Vec::new(), HashSet::new());
    for (prompt, own) in of_prompt.iter().enumerate() {
        let mut candidates = Vec::new();
        for (at, &first) in own.iter().enumerate() {
            for &second in &own[at + 1..] {
                let (one, other) = (&completions[first], &completions[second]);
                if c.between_models && one.model == other.model {
                    continue;
                }
                if one.text == other.text || !seen.insert(texts(one, other)) {
                    counts.duplicates += 1;
                    continue;
                }
                candidates.push(Pair { a: first, b: second });
            }
        }
        let order = shuffled(candidates.len(), c.seed, "pairs", &[prompt as u64]);
        let chosen = order.into_iter().take(c.pairs.unwrap_or(usize::MAX));
        let mut sides = seed::rng(c.seed, "sides", &[prompt as u64]);
        pairs.extend(chosen.map(|at| {
            let Pair { a, b } = candidates[at];
            if sides.random::<bool>() { Pair { a, b } } else { Pair { a: b, b: a } }
        }));
    }
    counts.pairs = pairs.len();
    (pairs, counts)
}

/// What makes two pairs the same: prompt and texts, whichever side they stand on.
fn texts(one: &Completion, other: &Completion) -> (String, String, String) {
    let (low, high) = if one.text < other.text { (one, other) } else { (other, one) };
    (json!(one.contents().0).to_string(), low.text.clone(), high.text.clone())
}
