//! How an update is split into micro-batches. Plain numbers.
use std::ops::Range;

/// Limits of a micro-batch: what fits one forward and backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Micro {
    /// Most rows (or pairs).
    pub rows: usize,
    /// Most tokens, each counted as often as it is computed; none: no limit. A row that has more is a micro-batch alone.
    pub tokens: Option<usize>,
}

impl Micro {
    /// Rows of these lengths (tokens) in order, as ranges within the limits.
    pub fn split(&self, lengths: &[usize]) -> Vec<Range<usize>> {
        let most = self.tokens.unwrap_or(usize::MAX);
        let (mut ranges, mut start, mut tokens) = (Vec::new(), 0, 0usize);
        for (at, &length) in lengths.iter().enumerate() {
            if at > start && (at - start == self.rows || tokens.saturating_add(length) > most) {
                ranges.push(start..at);
                (start, tokens) = (at, 0);
            }
            tokens = tokens.saturating_add(length);
        }
        if start < lengths.len() {
            ranges.push(start..lengths.len());
        }
        ranges
    }
}
