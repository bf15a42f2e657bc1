//! Rows in a seeded order as a source of batches; what SFT, reward and DPO train on. Wiring between `data` and `train`.
use crate::config::TrainConfig;
use crate::data::{Loader, LoaderState};
use crate::error::{Error, Result};
use crate::train::{BatchSource, SourceState};

/// Makes a micro-batch of examples.
pub type Collate<'a, E, B> = Box<dyn Fn(&[&E]) -> B + 'a>;

/// Encoded examples, shuffled each epoch, a batch an update, split into micro-batches.
pub struct RowSource<'a, E, B> {
    examples: &'a [E],
    loader: Loader,
    micro: usize,
    collate: Collate<'a, E, B>,
}

impl<'a, E, B> RowSource<'a, E, B> {
    /// A source over `examples`, of which there is at least one.
    pub fn new(examples: &'a [E], config: &TrainConfig, collate: Collate<'a, E, B>) -> Self {
        let loader = Loader::new(examples.len(), config.batch_size, config.shuffle, config.seed);
        Self { examples, loader, micro: config.micro(), collate }
    }

    /// Steps that the configuration asks for: `train.steps`, else `train.epochs` passes.
    pub fn planned_steps(&self, config: &TrainConfig) -> u64 {
        let passes = (config.epochs * self.loader.steps_per_epoch() as f64).ceil() as u64;
        config.steps.unwrap_or(passes).max(1)
    }
}

/// All examples in file order as micro-batches, for evaluation and reference passes.
pub fn in_order<E, B>(examples: &[E], micro: usize, collate: impl Fn(&[&E]) -> B) -> Vec<B> {
    let chunk = |rows: &[E]| collate(&rows.iter().collect::<Vec<_>>());
    examples.chunks(micro).map(chunk).collect()
}

impl<E, B> BatchSource<B> for RowSource<'_, E, B> {
    fn next_step(&mut self) -> Result<Option<Vec<B>>> {
        let rows = self.loader.next_batch();
        let examples: Vec<&E> = rows.iter().map(|&row| &self.examples[row]).collect();
        Ok(Some(examples.chunks(self.micro).map(|chunk| (self.collate)(chunk)).collect()))
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
