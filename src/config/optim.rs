//! The optimizer's part of `[train]`: AdamW, clipping and the learning-rate schedule.
use serde::{Deserialize, Serialize};

/// Shape of the learning rate after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Falls in a straight line to 0.
    #[default]
    Linear,
    /// Half a cosine down to 0.
    Cosine,
    /// Stays.
    Constant,
}

/// What the optimizer needs, taken from `[train]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay after warm-up.
    pub schedule: ScheduleKind,
    /// Steps from 0 to the peak.
    pub warmup_steps: u64,
    /// Decoupled weight decay; norms and biases are exempt.
    pub weight_decay: f64,
    /// Decay rate of the first moment.
    pub beta1: f64,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Largest total gradient norm (2-norm over all parameters).
    pub max_grad_norm: f64,
}
