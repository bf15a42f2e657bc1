//! The loop from outside: micro-batches, resume, kills, signals, checkpoints, logs and seeds.
mod batches;
mod checkpoints;
mod logs;
pub mod resume;
mod signals;
