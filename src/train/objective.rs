//! What the loop is given: an objective, a source of batches, and what a checkpoint holds besides. Traits only.
use crate::error::Result;
use std::path::Path;
use tch::Tensor;

/// Where a source stands, as JSON; what it means is the source's own business.
pub type SourceState = serde_json::Value;

/// A micro-batch: what fits one forward and backward pass.
pub trait Batch {
    /// What the step's loss is divided by: target tokens in SFT, pairs in preference stages.
    fn targets(&self) -> f64;
    /// Real tokens of its sequences, prompts counted once a sequence (TRL's `num_tokens`).
    fn tokens(&self) -> u64;
    /// Where its rows came from, for messages ("file:line").
    fn rows(&self) -> Vec<String>;
}

/// A figure that is logged; tensors are detached scalars on the model's device.
pub enum Metric {
    /// `sum / weight`, both added up over the micro-batches of a step.
    Mean {
        /// Sum of the figure over what it is a mean of.
        sum: Tensor,
        /// Number of things summed.
        weight: f64,
    },
    /// The smallest over the step.
    Min(Tensor),
    /// The largest over the step.
    Max(Tensor),
}

/// What an objective makes of a micro-batch.
pub struct LossOutput {
    /// The SUM of the loss over the batch's targets, a scalar with gradient; the loop divides once a step.
    pub sum: Tensor,
    /// Figures to log, by TRL's names.
    pub metrics: Vec<(&'static str, Metric)>,
}

/// Turns a micro-batch into a loss.
pub trait Objective {
    /// The batch it understands.
    type Batch: Batch;
    /// Loss and figures of one micro-batch; under `no_grad` in evaluation.
    fn loss(&self, batch: &Self::Batch) -> Result<LossOutput>;
}

/// Where batches come from. SFT, reward and DPO read rows; a rollout source generates them.
pub trait BatchSource<B> {
    /// The micro-batches of the next optimizer update; `None` when the source is exhausted.
    fn next_step(&mut self) -> Result<Option<Vec<B>>>;
    /// Whether a step (see DESIGN: one update, or one whole rollout iteration) ends after the last update yielded.
    fn at_boundary(&self) -> bool;
    /// Where it stands, to be put into a checkpoint; called at boundaries only.
    fn state(&self) -> SourceState;
    /// Goes back to a saved state.
    fn restore(&mut self, state: &SourceState) -> Result<()>;
    /// Passes over the data so far, for the metric `epoch`.
    fn epoch(&self) -> f64;
}

/// What a checkpoint or a finished run holds besides the optimizer: the model, its tokenizer, a card.
pub trait Artifact {
    /// Writes float32 masters (`masters`) or the final model in the configured precision into `dir`.
    fn save(&self, dir: &Path, masters: bool) -> Result<()>;
    /// Facts that resume needs and the model does not carry, for example what the reference was.
    fn facts(&self) -> serde_json::Value;
}
