//! `[train]`: the loop, the optimizer and what is kept.
use super::{ByteSize, Dtype, MicroBatch, OptimConfig, Problems, ScheduleKind};
use serde::{Deserialize, Serialize};

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainConfig {
    /// The run directory.
    pub output: String,
    /// Optimizer steps; wins over `epochs`.
    pub steps: Option<u64>,
    /// Passes over the data.
    pub epochs: f64,
    /// Rows (or pairs) an update.
    pub batch_size: usize,
    /// Rows a forward pass; default `batch_size`. `"auto"`: as many tokens as fit `memory_limit`. Changes memory, not results.
    pub micro_batch_size: Option<MicroBatch>,
    /// Most tokens of a forward and backward pass, each counted as often as it is computed (a pair's prompt once); a row
    /// with more goes alone. Changes memory, not results.
    pub micro_batch_tokens: Option<usize>,
    /// What the process may hold in memory (`"6GB"`, `"512MB"`; on CUDA libtorch's allocator), tried before the first step;
    /// none: no limit, and for `"auto"` 80% of what is free.
    pub memory_limit: Option<ByteSize>,
    /// Try the largest micro-batch before the first step also where there is no `memory_limit`: it must fit what is free. Off,
    /// as it takes about as long as a step.
    pub check_memory: bool,
    /// Layers keep only what went into them, and compute the rest again for the gradient. Changes memory and time, not
    /// results.
    pub gradient_checkpointing: bool,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// `linear`, `cosine` or `constant` after warm-up.
    pub schedule: ScheduleKind,
    /// Steps from 0 to the peak.
    pub warmup_steps: u64,
    /// Decoupled weight decay (norms and biases exempt).
    pub weight_decay: f64,
    /// AdamW beta1.
    pub adam_beta1: f64,
    /// AdamW beta2.
    pub adam_beta2: f64,
    /// AdamW epsilon.
    pub adam_epsilon: f64,
    /// Largest gradient norm.
    pub max_grad_norm: f64,
    /// Seed of every random draw.
    pub seed: u64,
    /// Shuffle rows each epoch.
    pub shuffle: bool,
    /// Steps between logged lines.
    pub log_every: u64,
    /// Steps between evaluations; none: at the end only.
    pub eval_every: Option<u64>,
    /// Steps between checkpoints; none: only the final model.
    pub save_every: Option<u64>,
    /// Newest checkpoints that stay.
    pub keep: usize,
    /// Also keep the checkpoint with the lowest `eval_loss` (PPO: the highest reward less `kl_coef` times KL).
    pub keep_best: bool,
    /// Go on from the newest whole checkpoint.
    pub resume: bool,
    /// Precision of the final model's file.
    pub save_dtype: Dtype,
    /// Weights of more than so many GB (10^9 bytes) are saved in several files.
    pub max_shard_gb: f64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            output: String::new(),
            steps: None,
            epochs: 1.0,
            batch_size: 8,
            micro_batch_size: None,
            micro_batch_tokens: None,
            memory_limit: None,
            check_memory: false,
            gradient_checkpointing: false,
            learning_rate: 5e-5,
            schedule: ScheduleKind::default(),
            warmup_steps: 0,
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            max_grad_norm: 1.0,
            seed: 0,
            shuffle: true,
            log_every: 10,
            eval_every: None,
            save_every: None,
            keep: 2,
            keep_best: false,
            resume: false,
            save_dtype: Dtype::default(),
            max_shard_gb: 5.0,
        }
    }
}

impl TrainConfig {
    /// The optimizer's part.
    pub fn optim(&self) -> OptimConfig {
        OptimConfig {
            learning_rate: self.learning_rate,
            schedule: self.schedule,
            warmup_steps: self.warmup_steps,
            weight_decay: self.weight_decay,
            beta1: self.adam_beta1,
            beta2: self.adam_beta2,
            epsilon: self.adam_epsilon,
            max_grad_norm: self.max_grad_norm,
        }
    }

    /// Rows a forward pass; with `"auto"` no limit but the batch.
    pub fn micro(&self) -> usize {
        match self.micro_batch_size {
            Some(MicroBatch::Rows(rows)) => rows,
            Some(MicroBatch::Auto) | None => self.batch_size,
        }
    }

    /// Whether the number of a micro-batch's tokens is to be found out.
    pub fn auto(&self) -> bool {
        self.micro_batch_size == Some(MicroBatch::Auto)
    }

    /// What can be said without running. `has_eval`: `data.eval` is set.
    pub fn check(&self, problems: &mut Problems, has_eval: bool) {
        let positive = "must be greater than 0";
        problems.require(!self.output.is_empty(), "train.output", "missing; name the run's directory");
        problems.require(self.steps != Some(0), "train.steps", positive);
        problems.require(self.epochs.is_finite() && self.epochs > 0.0, "train.epochs", positive);
        problems.require(self.batch_size > 0, "train.batch_size", positive);
        problems.require(self.micro_batch_size != Some(MicroBatch::Rows(0)), "train.micro_batch_size", positive);
        problems.require(
            !self.auto() || self.micro_batch_tokens.is_none(),
            "train.micro_batch_tokens",
            "train.micro_batch_size = \"auto\" chooses this number; remove one of the two",
        );
        problems.require(self.micro_batch_tokens != Some(0), "train.micro_batch_tokens", positive);
        problems.require(
            self.micro() <= self.batch_size,
            "train.micro_batch_size",
            format!("must not exceed train.batch_size ({})", self.batch_size),
        );
        let rate = self.learning_rate;
        problems.require(rate.is_finite() && rate >= 0.0, "train.learning_rate", "must be 0 or greater");
        problems.require(self.weight_decay >= 0.0, "train.weight_decay", "must be 0 or greater");
        problems.require((0.0..1.0).contains(&self.adam_beta1), "train.adam_beta1", "must lie in [0, 1)");
        problems.require((0.0..1.0).contains(&self.adam_beta2), "train.adam_beta2", "must lie in [0, 1)");
        problems.require(self.adam_epsilon > 0.0, "train.adam_epsilon", positive);
        problems.require(self.max_grad_norm > 0.0, "train.max_grad_norm", positive);
        problems.require(self.log_every > 0, "train.log_every", positive);
        problems.require(self.eval_every != Some(0), "train.eval_every", positive);
        problems.require(self.save_every != Some(0), "train.save_every", positive);
        problems.require(self.max_shard_gb > 0.0, "train.max_shard_gb", positive);
        problems.require(self.keep > 0, "train.keep", "must be at least 1: resume needs a checkpoint");
        problems.require(self.seed <= i64::MAX as u64, "train.seed", "must not exceed 9223372036854775807");
        problems.require(
            has_eval || self.eval_every.is_none(),
            "train.eval_every",
            "needs data.eval; name evaluation rows or remove this",
        );
        problems.require(
            !self.keep_best || (self.eval_every.is_some() && self.save_every.is_some()),
            "train.keep_best",
            "needs data.eval, train.eval_every and train.save_every",
        );
    }
}
