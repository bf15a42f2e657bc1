//! Learning-rate schedules, as transformers defines them. Pure.
use crate::config::{OptimConfig, ScheduleKind};

/// The learning rate of step `k` (from 0) of `total`: warm-up from 0 to the peak, then the schedule's decay.
///
/// Source: `get_linear_schedule_with_warmup`, `get_cosine_schedule_with_warmup` (half a cycle) and
/// `get_constant_schedule_with_warmup` of transformers.
pub fn learning_rate(optim: &OptimConfig, k: u64, total: u64) -> f64 {
    let warmup = optim.warmup_steps;
    if k < warmup {
        return optim.learning_rate * k as f64 / warmup.max(1) as f64;
    }
    let span = total.saturating_sub(warmup).max(1) as f64;
    let progress = (k - warmup) as f64 / span;
    let factor = match optim.schedule {
        ScheduleKind::Constant => 1.0,
        ScheduleKind::Linear => (1.0 - progress).max(0.0),
        ScheduleKind::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0),
    };
    optim.learning_rate * factor
}
