//! What the loop is given: an objective, a source of batches, an evaluation, and what a checkpoint holds besides. Traits
//! only.
use crate::error::Result;
use serde_json::{Map, Value};
use std::path::Path;
use tch::Tensor;

/// Where a source stands, as JSON; what it means is the source's own business.
pub type SourceState = Value;

/// A sampled text with what is known of it (`prompt`, `completion`, `reward`, ...), for people to look at.
pub type SampleRecord = Map<String, Value>;

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
    /// `sum / weight`, both added up over all micro-batches of a step.
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
    /// The unbiased variance, between the updates of a step, of a mean over each update; 0 for one update.
    Variance(Vec<UpdateSum>),
}

/// A micro-batch's share of an update's mean.
pub struct UpdateSum {
    /// Which update of the step, from 0.
    pub update: u64,
    /// Sum of the figure over what it is a mean of.
    pub sum: Tensor,
    /// Number of things summed.
    pub weight: f64,
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

/// What a source has to say of a step that just ended.
#[derive(Default)]
pub struct StepReport {
    /// Figures of the step that belong to no batch: those of a rollout.
    pub metrics: Vec<(&'static str, f64)>,
    /// A few sampled texts.
    pub samples: Vec<SampleRecord>,
    /// What the progress bar shows instead of the loss.
    pub message: Option<String>,
}

/// Steps of a run that have a learning-rate schedule of their own and are judged together: a round of DAgger, else the whole
/// run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The step that it begins after.
    pub first: u64,
    /// How many steps it has.
    pub steps: u64,
    /// Whether the optimizer begins anew with it, as the weights do.
    pub fresh: bool,
}

impl Span {
    /// A run's only one.
    pub fn whole(total_steps: u64) -> Self {
        Span { first: 0, steps: total_steps, fresh: false }
    }

    /// Whether it ends with step `step`, counted from 1.
    pub fn ends_at(&self, step: u64) -> bool {
        step == self.first + self.steps
    }
}

/// Where batches come from. SFT, reward and DPO read rows; a rollout source generates them.
pub trait BatchSource<B> {
    /// The micro-batches of the next optimizer update; `None` when the source is exhausted.
    fn next_step(&mut self) -> Result<Option<Vec<B>>>;
    /// Whether a step (see DESIGN: one update, or one whole rollout iteration) ends after the last update yielded.
    fn at_boundary(&self) -> bool;
    /// What the batches that were yielded last belong to, in a run of `total_steps`.
    fn span(&self, total_steps: u64) -> Span {
        Span::whole(total_steps)
    }
    /// What it has to say of the step that just ended; called once at each boundary.
    fn report(&mut self) -> StepReport {
        StepReport::default()
    }
    /// Where it stands, to be put into a checkpoint; called at boundaries only.
    fn state(&self) -> SourceState;
    /// Goes back to a saved state.
    fn restore(&mut self, state: &SourceState) -> Result<()>;
    /// How far it has come, for log lines: `epoch` (passes over the data so far) and what else it counts.
    fn position(&self) -> Vec<(&'static str, f64)>;
}

/// What an evaluation found.
pub struct Evaluation {
    /// Figures, names with the `eval_` prefix.
    pub figures: Vec<(String, f64)>,
    /// What the best checkpoint has least of: the loss, or the negative reward.
    pub cost: f64,
    /// A few sampled texts.
    pub samples: Vec<SampleRecord>,
}

/// Judges the model on held-out rows.
pub trait Evaluator {
    /// The figures after `step` steps; changes nothing.
    fn evaluate(&self, step: u64) -> Result<Evaluation>;
}

/// What a checkpoint or a finished run holds besides the optimizer: the model, its tokenizer, a card.
pub trait Artifact {
    /// Writes float32 masters (`masters`) or the final model in the configured precision into `dir`.
    fn save(&self, dir: &Path, masters: bool) -> Result<()>;
    /// Facts that resume needs and the model does not carry, for example what the reference was.
    fn facts(&self) -> serde_json::Value;
}
