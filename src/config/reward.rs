//! `collimate reward`.
use super::{DataConfig, Document, ModelConfig, Problems, StageConfig, TrainConfig, table_of};
use serde::{Deserialize, Serialize};

/// How token states become one reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolingKind {
    /// The head's value at the last real token.
    #[default]
    Last,
    /// The sum of the head's values over completion tokens (Christiano et al. 2017).
    Sum,
}

/// `[reward]`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardSection {
    /// `last` or `sum`.
    pub pooling: PoolingKind,
    /// Margin of rows that have no `margin` of their own.
    pub margin: f64,
    /// Weight of (r_chosen + r_rejected)^2, which pulls rewards towards 0.
    pub centering: f64,
    /// Scale and shift so that training completions score with mean 0 and standard deviation 1.
    pub normalize: bool,
}

impl RewardSection {
    fn check(&self, problems: &mut Problems) {
        problems.require(self.margin.is_finite(), "reward.margin", "must be a finite number");
        problems.require(self.centering >= 0.0, "reward.centering", "must be 0 or greater");
    }
}

/// Configuration of reward modelling.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardConfig {
    /// `[model]`.
    pub model: ModelConfig,
    /// `[data]`.
    pub data: DataConfig,
    /// `[train]`.
    pub train: TrainConfig,
    /// `[reward]`.
    pub reward: RewardSection,
}

impl StageConfig for RewardConfig {
    const STAGE: &'static str = "reward";
    const SECTIONS: &'static [&'static str] = &["model", "data", "train", "reward"];

    fn read(document: &mut Document) -> Self {
        let config = Self {
            model: document.section("model"),
            data: document.section("data"),
            train: document.section("train"),
            reward: document.section("reward"),
        };
        let problems = document.problems();
        config.model.check(problems, false, false);
        config.data.check(problems);
        problems.require(config.data.completion_only, "data.completion_only", "only read by sft; remove it");
        config.train.check(problems, config.data.eval.is_some());
        config.reward.check(problems);
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
            ("reward".into(), table_of(&self.reward)),
        ])
    }
}
