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
    rows: usize,
    batch_size: usize,
    shuffle: bool,
    seed: u64,
    state: LoaderState,
    /// The order of the epoch it was made for.
    order: Option<(u64, Vec<usize>)>,
}

impl Loader {
    /// Takes `rows` rows in batches of `batch_size`; the last batch of an epoch is short where they do not divide.
    ///
    /// # Panics
    /// When either is 0: a configuration and a data set have been checked before.
    pub fn new(rows: usize, batch_size: usize, shuffle: bool, seed: u64) -> Self {
        assert!(rows > 0 && batch_size > 0, "a loader of {rows} rows in batches of {batch_size}");
        Self { rows, batch_size, shuffle, seed, state: LoaderState::default(), order: None }
    }

    /// Row numbers of the next batch: between 1 and `batch_size` of them, all of one epoch.
    pub fn next_batch(&mut self) -> Vec<usize> {
        self.take(self.batch_size)
    }

    /// Exactly `batch_size` row numbers, going on into the next epochs where one does not hold as many.
    pub fn next_full_batch(&mut self) -> Vec<usize> {
        let mut batch = Vec::with_capacity(self.batch_size);
        while batch.len() < self.batch_size {
            batch.extend(self.take(self.batch_size - batch.len()));
        }
        batch
    }

    /// At least 1 and at most `limit` rows of the current epoch.
    fn take(&mut self, limit: usize) -> Vec<usize> {
        let LoaderState { epoch, index } = self.state;
        let end = self.rows.min(index + limit);
        let batch = if self.shuffle { self.order(epoch)[index..end].to_vec() } else { (index..end).collect() };
        self.state = if end == self.rows {
            LoaderState { epoch: epoch + 1, index: 0 }
        } else {
            LoaderState { epoch, index: end }
        };
        batch
    }

    /// Batches of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.rows.div_ceil(self.batch_size) as u64
    }

    /// Epochs taken so far, with the part of the current one.
    pub fn epochs(&self) -> f64 {
        self.state.epoch as f64 + self.state.index as f64 / self.rows as f64
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
        if state.index >= self.rows {
            return Err(Error::usage(
                format!("the checkpoint stands at row {} of an epoch, but there are {} rows", state.index, self.rows),
                "resume with the data the run was started with",
            ));
        }
        self.state = state;
        Ok(())
    }

    fn order(&mut self, epoch: u64) -> &[usize] {
        if self.order.as_ref().is_none_or(|(of, _)| *of != epoch) {
            self.order = Some((epoch, permutation(self.rows, self.seed, epoch)));
        }
        self.order.as_ref().map_or(&[], |(_, order)| order)
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
