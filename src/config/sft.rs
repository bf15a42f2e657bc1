//! `collimate sft`.
use super::{DataConfig, Document, ModelConfig, StageConfig, TrainConfig, table_of};

/// Configuration of supervised fine-tuning.
#[derive(Debug, Clone, PartialEq)]
pub struct SftConfig {
    /// `[model]`.
    pub model: ModelConfig,
    /// `[data]`.
    pub data: DataConfig,
    /// `[train]`.
    pub train: TrainConfig,
}

impl StageConfig for SftConfig {
    const STAGE: &'static str = "sft";
    const SECTIONS: &'static [&'static str] = &["model", "data", "train"];

    fn read(document: &mut Document) -> Self {
        let config =
            Self { model: document.section("model"), data: document.section("data"), train: document.section("train") };
        let problems = document.problems();
        config.model.check(problems, false, true);
        config.data.check(problems);
        config.train.check(problems, config.data.eval.is_some());
        config
    }

    fn model(&self) -> &ModelConfig {
        &self.model
    }

    fn data(&self) -> &DataConfig {
        &self.data
    }

    fn train(&self) -> &TrainConfig {
        &self.train
    }

    fn to_table(&self) -> toml::Table {
        toml::Table::from_iter([
            ("model".into(), table_of(&self.model)),
            ("data".into(), table_of(&self.data)),
            ("train".into(), table_of(&self.train)),
        ])
    }
}
