//! The order in which rows are taken: shuffled epochs and a cursor that can be saved. No rows, no tensors.
use crate::error::{Error, Result};
use crate::seed;
use rand_chacha::rand_core::Rng;
use serde::{Deserialize, Serialize};

/// Where a [`Loader`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LoaderState {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Rows of the epoch that have been taken.
    pub index: usize,
}

/// Batches of row numbers, epoch after epoch without end. The order of an epoch depends on the seed and the epoch's
/// number only, so a state is two numbers.
#[derive(Debug, Clone)]
pub struct Loader {
    sources: Vec<Source>,
    /// Rows of an epoch.
    length: usize,
    batch_size: usize,
    shuffle: bool,
    seed: u64,
    state: LoaderState,
    /// The order of the epoch it was made for.
    order: Option<(u64, Vec<usize>)>,
}

/// Rows that an epoch takes equally often: `passes` times all of them, and `drawn` of them once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    /// Its first row's number.
    first: usize,
    rows: usize,
    passes: usize,
    drawn: usize,
}

impl Loader {
    /// Takes `rows` rows in batches of `batch_size`; the last batch of an epoch is short where they do not divide.
    ///
    /// # Panics
    /// When either is 0: a configuration and a data set have been checked before.
    pub fn new(rows: usize, batch_size: usize, shuffle: bool, seed: u64) -> Self {
        Self::weighted(&[(rows, 1.0)], batch_size, shuffle, seed)
    }

    /// As [`Loader::new`], of several sources: how many rows each has and how often an epoch takes a row of it. Rows are
    /// numbered through, source after source. Of a weight that is no whole number the rest is drawn without
    /// replacement, other rows in every epoch as long as there are others.
    ///
    /// # Panics
    /// When there is no source, one has no rows, or a weight is not finite and above 0.
    pub fn weighted(sources: &[(usize, f64)], batch_size: usize, shuffle: bool, seed: u64) -> Self {
        assert!(!sources.is_empty() && batch_size > 0, "a loader of no sources or in batches of {batch_size}");
        let (mut first, mut length) = (0, 0);
        let source = |&(rows, weight): &(usize, f64)| {
            assert!(rows > 0 && weight > 0.0 && weight.is_finite(), "a source of {rows} rows with weight {weight}");
            let taken = ((rows as f64 * weight).round() as usize).max(1);
            let source = Source { first, rows, passes: taken / rows, drawn: taken % rows };
            first += rows;
            length += taken;
            source
        };
        let sources = sources.iter().map(source).collect();
        Self { sources, length, batch_size, shuffle, seed, state: LoaderState::default(), order: None }
    }

    /// Row numbers of the next batch: between 1 and `batch_size` of them, all of one epoch.
    pub fn next_batch(&mut self) -> Vec<usize> {
        self.take(self.batch_size)
    }

    /// Exactly `batch_size` row numbers, going on into the next epochs where one does not hold as many.
    pub fn next_full_batch(&mut self) -> Vec<usize> {
        self.next_rows(self.batch_size)
    }

    /// The next `count` row numbers, as [`Loader::next_full_batch`].
    pub fn next_rows(&mut self, count: usize) -> Vec<usize> {
        let mut rows = Vec::with_capacity(count);
        while rows.len() < count {
            rows.extend(self.take(count - rows.len()));
        }
        rows
    }

    /// At least 1 and at most `limit` rows of the current epoch.
    fn take(&mut self, limit: usize) -> Vec<usize> {
        let LoaderState { epoch, index } = self.state;
        let end = self.length.min(index + limit);
        let batch = if self.shuffle || !self.is_plain() {
            self.order(epoch)[index..end].to_vec()
        } else {
            (index..end).collect()
        };
        self.state = if end == self.length {
            LoaderState { epoch: epoch + 1, index: 0 }
        } else {
            LoaderState { epoch, index: end }
        };
        batch
    }

    /// Rows of an epoch; every epoch has as many.
    pub fn epoch_len(&self) -> usize {
        self.length
    }

    /// Batches of an epoch; every epoch has as many.
    pub fn steps_per_epoch(&self) -> u64 {
        self.length.div_ceil(self.batch_size) as u64
    }

    /// Epochs taken so far, with the part of the current one.
    pub fn epochs(&self) -> f64 {
        self.state.epoch as f64 + self.state.index as f64 / self.length as f64
    }

    /// Where it stands: what comes next depends on this alone.
    pub fn state(&self) -> LoaderState {
        self.state
    }

    /// Goes to where another loader of the same rows stood.
    ///
    /// # Errors
    /// A state beyond the rows: the data set is not the one that the state was saved for.
    pub fn restore(&mut self, state: LoaderState) -> Result<()> {
        if state.index >= self.length {
            let has = if self.is_plain() { "there are" } else { "an epoch takes" };
            return Err(Error::usage(
                format!("the checkpoint stands at row {} of an epoch, but {has} {} rows", state.index, self.length),
                "resume with the data the run was started with",
            ));
        }
        self.state = state;
        Ok(())
    }

    /// Whether an epoch is every row once.
    fn is_plain(&self) -> bool {
        self.sources.iter().all(|source| (source.passes, source.drawn) == (1, 0))
    }

    fn order(&mut self, epoch: u64) -> &[usize] {
        if self.order.as_ref().is_none_or(|(of, _)| *of != epoch) {
            self.order = Some((epoch, self.epoch(epoch)));
        }
        self.order.as_ref().map_or(&[], |(_, order)| order)
    }

    /// The rows of an epoch in their order.
    fn epoch(&self, epoch: u64) -> Vec<usize> {
        let mut order = match self.shuffle {
            true => permutation(self.length, self.seed, epoch),
            false => (0..self.length).collect(),
        };
        if self.is_plain() {
            return order;
        }
        let mut rows = Vec::with_capacity(self.length);
        for (at, source) in self.sources.iter().enumerate() {
            (0..source.passes).for_each(|_| rows.extend(source.first..source.first + source.rows));
            rows.extend(source.draw(self.seed, at, epoch));
        }
        order.iter_mut().for_each(|place| *place = rows[*place]);
        order
    }
}

impl Source {
    /// The rows that epoch `epoch` takes once more, in the order of the file. As many epochs as can go by without
    /// meeting a row again share a permutation, and each takes the part that follows the one before it.
    fn draw(&self, seed: u64, source: usize, epoch: u64) -> Vec<usize> {
        if self.drawn == 0 {
            return Vec::new();
        }
        let parts = (self.rows / self.drawn) as u64;
        let order = shuffled(self.rows, seed, "weights", &[source as u64, epoch / parts]);
        let start = (epoch % parts) as usize * self.drawn;
        let mut rows: Vec<usize> = order[start..start + self.drawn].iter().map(|row| self.first + row).collect();
        rows.sort_unstable();
        rows
    }
}

/// Fisher-Yates with draws of our own (high half of a 128-bit product), so that no crate's update changes an order.
fn permutation(rows: usize, seed: u64, epoch: u64) -> Vec<usize> {
    shuffled(rows, seed, "shuffle", &[epoch])
}

/// 0..`rows` in an order that (seed, purpose, indices) decide.
pub fn shuffled(rows: usize, seed: u64, purpose: &str, indices: &[u64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    let mut rng = seed::rng(seed, purpose, indices);
    for last in (1..rows).rev() {
        let draw = (u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64;
        order.swap(last, draw as usize);
    }
    order
}
