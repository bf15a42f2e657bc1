//! Whole comparisons: parts that are stage runs or measurements, each in a directory of its own, and a report.
//!
//! A part is skipped when what goes into it has not changed since it was finished ([`parts`]), so that a stopped
//! experiment goes on and a changed setting runs only what depends on it.
pub mod imitation;
pub mod pairs;
pub mod parts;
pub mod points;
pub mod report;
pub mod sentiment;
