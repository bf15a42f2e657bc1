//! Training: one loop for every stage. Imports `config`, `loss`, `ffi` and named tensors, never `model`.
pub mod checkpoint;
pub mod evaluate;
pub mod finite;
pub mod memory;
pub mod metrics;
pub mod objective;
pub mod optimizer;
pub mod progress;
pub mod run;
pub mod schedule;
pub mod signals;
pub mod state;
pub mod tensorboard;
pub mod trainer;

pub use evaluate::BatchEvaluator;
pub use objective::{
    Artifact, Batch, BatchSource, Evaluation, Evaluator, LossOutput, Metric, Objective, SampleRecord, SourceState,
    Span, StepReport, UpdateSum,
};
pub use optimizer::AdamW;
pub use run::{RunDir, RunState};
pub use trainer::{Job, Outcome, train};
