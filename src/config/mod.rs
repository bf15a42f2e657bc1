//! Configuration: TOML plus `section.key=value` overrides, into one struct a stage. Imports nothing of ours but `error`.
//!
//! What the user typed ([`Document`]) and what was validated (the stage structs) are different types. All problems of a
//! file are reported at once, each with file, line, key and remedy; an unknown key is an error, never ignored.
pub mod data;
pub mod document;
pub mod dpo;
pub mod model;
pub mod optim;
pub mod reward;
pub mod sft;
pub mod train;

pub use data::{Boundary, DataConfig, OnBadRow};
pub use document::{Document, Problems};
pub use dpo::{DpoConfig, DpoLoss, DpoSection};
pub use model::{Dtype, Init, ModelConfig};
pub use optim::{OptimConfig, ScheduleKind};
pub use reward::{PoolingKind, RewardConfig, RewardSection};
pub use sft::SftConfig;
pub use train::TrainConfig;

use crate::error::Result;
use std::path::Path;

/// What every stage's configuration offers to the wiring: its shared sections, and itself as TOML.
pub trait StageConfig: Sized {
    /// The stage's name, as on the command line.
    const STAGE: &'static str;
    /// Names of the sections that the stage reads.
    const SECTIONS: &'static [&'static str];
    /// Takes the sections out of the document; problems are collected there.
    fn read(document: &mut Document) -> Self;
    /// `[model]`.
    fn model(&self) -> &ModelConfig;
    /// `[data]`.
    fn data(&self) -> &DataConfig;
    /// `[train]`.
    fn train(&self) -> &TrainConfig;
    /// The resolved configuration, defaults filled in, as it is saved with the run.
    fn to_table(&self) -> toml::Table;
}

/// Reads, overrides and validates a stage's configuration.
///
/// # Errors
/// All problems at once: unreadable file, broken TOML, unknown sections and keys, wrong types, values out of range.
pub fn load<C: StageConfig>(path: &Path, overrides: &[String]) -> Result<C> {
    let mut document = Document::open(path, overrides)?;
    document.only_sections(C::SECTIONS, C::STAGE);
    let config = C::read(&mut document);
    document.finish()?;
    Ok(config)
}

/// A section as a TOML table; fields that are `None` are left out.
pub(crate) fn table_of(section: &impl serde::Serialize) -> toml::Value {
    toml::Value::try_from(section).expect("sections hold only TOML's own types")
}
