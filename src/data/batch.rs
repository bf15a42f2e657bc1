//! Sequences and pairs -> flat batches: one list of real tokens, no padding. Plain vectors; no tensors.
//!
//! Legend: N tokens of the flat list, P pairs, S sequences, M targets.
use super::encode::{Pair, Sequence};
use super::rows::RowId;

/// The tokens of a batch, each once, and which of them every attention row sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flat {
    /// Ids, `[N]`.
    pub tokens: Vec<i64>,
    /// Position of each token in its own sequence, `[N]`, from 0.
    pub positions: Vec<i64>,
    /// For every row, indices into the flat list, in the order of positions. Rows may share tokens.
    pub rows: Vec<Vec<i64>>,
}

/// What is predicted from where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// Flat index of the token whose hidden state predicts the target: the token before it, `[M]`. A pair's last prompt
    /// token stands here twice.
    pub hidden: Vec<i64>,
    /// The target ids, `[M]`.
    pub tokens: Vec<i64>,
    /// The sequence that each target belongs to, `[M]`, not decreasing.
    pub sequence: Vec<i64>,
    /// How many sequences there are, S.
    pub sequences: usize,
}

/// Where the completion tokens themselves stand (rewards summed over a completion).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actions {
    /// Flat index of every completion token.
    pub indices: Vec<i64>,
    /// The sequence that each belongs to, not decreasing.
    pub sequence: Vec<i64>,
    /// How many sequences there are, S.
    pub sequences: usize,
}

/// Sequences: row i is sequence i.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LmBatch {
    /// The tokens.
    pub flat: Flat,
    /// Each sequence's own targets.
    pub targets: Targets,
    /// Where the rows came from, `[S]`.
    pub ids: Vec<RowId>,
}

/// Pairs: rows and sequences 0..P are the chosen ones, P..2P the rejected ones; a pair's prompt stands once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PairBatch {
    /// The tokens.
    pub flat: Flat,
    /// The completions' tokens that have one before them.
    pub targets: Targets,
    /// Flat index of each sequence's last token, `[2P]`.
    pub ends: Vec<i64>,
    /// All tokens of the completions.
    pub actions: Actions,
    /// The probability that chosen is better, `[P]`.
    pub preference: Vec<f64>,
    /// By how much chosen should win, `[P]`.
    pub margin: Vec<f64>,
    /// Where the pairs came from, `[P]`.
    pub ids: Vec<RowId>,
}

impl Flat {
    /// How many tokens there are, N.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Tokens of all rows together, a shared prompt counted in each: what TRL calls `num_tokens`.
    pub fn row_tokens(&self) -> usize {
        self.rows.iter().map(Vec::len).sum()
    }

    /// Adds tokens that start at a position; returns their flat indices.
    fn push(&mut self, tokens: &[i64], position: usize) -> std::ops::Range<i64> {
        let start = self.tokens.len() as i64;
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((position..position + tokens.len()).map(|p| p as i64));
        start..start + tokens.len() as i64
    }
}

impl Targets {
    /// How many targets there are, M.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Adds the targets of the next sequence: the tokens of `row` at `positions`, all at least 1.
    fn push(&mut self, flat: &Flat, row: &[i64], positions: impl Iterator<Item = usize>) {
        for t in positions {
            self.hidden.push(row[t - 1]);
            self.tokens.push(flat.tokens[row[t] as usize]);
            self.sequence.push(self.sequences as i64);
        }
        self.sequences += 1;
    }
}

/// A flat batch of sequences.
pub fn lm_batch(sequences: &[&Sequence]) -> LmBatch {
    let mut batch = LmBatch::default();
    for sequence in sequences {
        let row: Vec<i64> = batch.flat.push(&sequence.tokens, 0).collect();
        batch.targets.push(&batch.flat, &row, sequence.target_positions());
        batch.flat.rows.push(row);
        batch.ids.push(sequence.id.clone());
    }
    batch
}

/// A flat batch of pairs: prompt, chosen, rejected of the first, then of the second, ...
///
/// # Panics
/// On a completion without tokens; [`super::encode_pairs`] makes none.
pub fn pair_batch(pairs: &[&Pair]) -> PairBatch {
    let mut batch = PairBatch::default();
    let (mut chosen, mut rejected) = (Vec::with_capacity(pairs.len()), Vec::with_capacity(pairs.len()));
    for pair in pairs {
        assert!(!pair.chosen.is_empty() && !pair.rejected.is_empty(), "{}: a completion without tokens", pair.id);
        let prompt = batch.flat.push(&pair.prompt, 0);
        for (completion, rows) in [(&pair.chosen, &mut chosen), (&pair.rejected, &mut rejected)] {
            let row: Vec<i64> = prompt.clone().chain(batch.flat.push(completion, pair.prompt.len())).collect();
            rows.push(row);
        }
        batch.preference.push(pair.preference);
        batch.margin.push(pair.margin.unwrap_or(0.0));
        batch.ids.push(pair.id.clone());
    }
    chosen.extend(rejected);
    for (sequence, row) in chosen.into_iter().enumerate() {
        let prompt_len = pairs[sequence % pairs.len()].prompt.len();
        batch.targets.push(&batch.flat, &row, prompt_len.max(1)..row.len());
        batch.actions.indices.extend(&row[prompt_len..]);
        batch.actions.sequence.extend(std::iter::repeat_n(sequence as i64, row.len() - prompt_len));
        batch.ends.extend(row.last());
        batch.flat.rows.push(row);
    }
    batch.actions.sequences = batch.targets.sequences;
    batch
}
