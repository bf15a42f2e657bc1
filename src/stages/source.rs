//! Rows in a seeded order as a source of batches; what SFT, reward and DPO train on. Wiring between `data` and `train`.
use crate::config::TrainConfig;
use crate::data::fingerprint::Encoded;
use crate::data::{Loader, LoaderState, Micro, Set};
use crate::error::{Error, Result};
use crate::train::{BatchSource, SourceState};

/// Makes a micro-batch of rows, given with their numbers in the set.
pub type Collate<'a, E, B> = Box<dyn Fn(&[usize], &[&E]) -> B + 'a>;

/// Encoded rows, shuffled each epoch, a batch an update, split into micro-batches.
pub struct RowSource<'a, E, B> {
    rows: &'a Set<E>,
    loader: Loader,
    micro: Micro,
    collate: Collate<'a, E, B>,
}

impl<'a, E: Encoded, B> RowSource<'a, E, B> {
    /// A source over `rows`, of which there is at least one.
    pub fn new(rows: &'a Set<E>, config: &TrainConfig, collate: Collate<'a, E, B>) -> Self {
        Self { rows, loader: rows.loader(config), micro: micro(config), collate }
    }

    /// Steps that the configuration asks for: `train.steps`, else `train.epochs` passes.
    pub fn planned_steps(&self, config: &TrainConfig) -> u64 {
        let passes = (config.epochs * self.loader.steps_per_epoch() as f64).ceil() as u64;
        config.steps.unwrap_or(passes).max(1)
    }
}

/// How the configuration splits an update.
pub fn micro(config: &TrainConfig) -> Micro {
    Micro { rows: config.micro(), tokens: config.micro_batch_tokens }
}

/// The rows of these numbers as micro-batches.
fn batches<E: Encoded, B>(
    rows: &Set<E>,
    numbers: &[usize],
    micro: Micro,
    collate: impl Fn(&[usize], &[&E]) -> B,
) -> Result<Vec<B>> {
    let mut batches = Vec::new();
    for numbers in numbers.chunks(micro.rows) {
        let taken = rows.take(numbers)?;
        let taken: Vec<&E> = taken.iter().map(AsRef::as_ref).collect();
        let lengths: Vec<usize> = taken.iter().map(|row| row.tokens()).collect();
        batches.extend(micro.split(&lengths).into_iter().map(|part| collate(&numbers[part.clone()], &taken[part])));
    }
    Ok(batches)
}

/// All rows in file order as micro-batches, for evaluation.
///
/// # Errors
/// Rows on disk that cannot be read back.
pub fn in_order<E: Encoded, B>(rows: &Set<E>, micro: Micro, collate: impl Fn(&[usize], &[&E]) -> B) -> Result<Vec<B>> {
    batches(rows, &(0..rows.len()).collect::<Vec<_>>(), micro, collate)
}

impl<E: Encoded, B> BatchSource<B> for RowSource<'_, E, B> {
    fn next_step(&mut self) -> Result<Option<Vec<B>>> {
        let numbers = self.loader.next_batch();
        batches(self.rows, &numbers, self.micro, &self.collate).map(Some)
    }

    fn at_boundary(&self) -> bool {
        true
    }

    fn state(&self) -> SourceState {
        serde_json::to_value(self.loader.state()).expect("plain data serialises")
    }

    fn restore(&mut self, state: &SourceState) -> Result<()> {
        let state: LoaderState = serde_json::from_value(state.clone())
            .map_err(|e| Error::usage(format!("the checkpoint's source state: {e}"), "start a new run"))?;
        self.loader.restore(state)
    }

    fn position(&self) -> Vec<(&'static str, f64)> {
        vec![("epoch", self.loader.epochs())]
    }
}
