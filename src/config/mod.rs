//! Configuration: TOML plus `section.key=value` overrides, into one struct a stage. Imports nothing of ours but `error`.
//!
//! What the user typed ([`Document`]) and what was validated (the stage structs) are different types. All problems of a
//! file are reported at once, each with file, line, key and remedy; an unknown key is an error, never ignored.
pub mod collect;
pub mod dagger;
pub mod data;
pub mod document;
pub mod dpo;
pub mod experiment;
pub mod files;
pub mod imitation;
pub mod memory;
pub mod model;
pub mod optim;
pub mod ppo;
pub mod reward;
pub mod sft;
pub mod train;

pub use collect::{CollectConfig, CollectSection, Judge, JudgeLabels};
pub use dagger::{BetaName, BetaSchedule, DaggerConfig, DaggerSection, ImitationLoss, Labels};
pub use data::{Boundary, DataConfig, OnBadRow};
pub use document::{Document, Problems};
pub use dpo::{DpoConfig, DpoLoss, DpoSection};
pub use experiment::{ExperimentSection, Part, SentimentConfig, SentimentData};
pub use files::{DataFile, DataFiles};
pub use imitation::{ImitationConfig, ImitationRun, ImitationSection, Method, TaskSection};
pub use memory::{ByteSize, MicroBatch};
pub use model::{Dtype, Init, ModelConfig};
pub use optim::{OptimConfig, ScheduleKind};
pub use ppo::{PpoConfig, PpoSection};
pub use reward::{PoolingKind, RewardConfig, RewardSection};
pub use sft::SftConfig;
pub use train::TrainConfig;

use crate::error::Result;
use std::path::Path;

/// The sections that every stage reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Shared {
    /// `[model]`.
    pub model: ModelConfig,
    /// `[data]`.
    pub data: DataConfig,
    /// `[train]`.
    pub train: TrainConfig,
}

impl Shared {
    /// `train_defaults`: where a stage's defaults of `[train]` differ from the others'.
    fn read(document: &mut Document, train_defaults: &[(&str, f64)]) -> Self {
        for (key, value) in train_defaults {
            document.set_default("train", key, *value);
        }
        let shared =
            Self { model: document.section("model"), data: document.section("data"), train: document.section("train") };
        let problems = document.problems();
        shared.model.check(problems);
        shared.data.check(problems);
        shared.train.check(problems, shared.data.eval.is_some());
        shared
    }
}

/// A stage's configuration: the shared sections (to which it dereferences) and at most one of its own.
pub trait StageConfig: Sized + std::ops::Deref<Target = Shared> {
    /// The stage's name, as on the command line and of its own section.
    const STAGE: &'static str;
    /// Keys of `[train]` with a default of the stage's own.
    const TRAIN_DEFAULTS: &'static [(&'static str, f64)] = &[];
    /// Takes the stage's own section out of the document; problems are collected there.
    fn read(shared: Shared, document: &mut Document) -> Self;
    /// The stage's own section, if it has one.
    fn own(&self) -> Option<toml::Value>;

    /// The resolved configuration, defaults filled in, as it is saved with the run.
    fn to_table(&self) -> toml::Table {
        let mut table = toml::Table::from_iter([
            ("model".into(), table_of(&self.model)),
            ("data".into(), table_of(&self.data)),
            ("train".into(), table_of(&self.train)),
        ]);
        table.extend(self.own().map(|own| (Self::STAGE.to_owned(), own)));
        table
    }
}

/// Reads, overrides and validates a stage's configuration.
///
/// # Errors
/// All problems at once: unreadable file, broken TOML, unknown sections and keys, wrong types, values out of range.
pub fn load<C: StageConfig>(path: &Path, overrides: &[String]) -> Result<C> {
    let mut document = Document::open(path, overrides)?;
    let config = read(&mut document);
    document.finish()?;
    Ok(config)
}

/// The sections of a configuration file with its overrides, whichever stage it is for.
///
/// # Errors
/// As [`Document::open`].
pub fn sections(path: &Path, overrides: &[String]) -> Result<Vec<String>> {
    Ok(Document::open(path, overrides)?.sections())
}

/// Reads and validates a whole document as a stage's configuration; problems stay in the document.
pub fn read<C: StageConfig>(document: &mut Document) -> C {
    let shared = Shared::read(document, C::TRAIN_DEFAULTS);
    let config = C::read(shared, document);
    document.only_known_sections(C::STAGE);
    config
}

/// A section as a TOML table; fields that are `None` are left out.
pub(crate) fn table_of(section: &impl serde::Serialize) -> toml::Value {
    toml::Value::try_from(section).expect("sections hold only TOML's own types")
}
