//! `collimate reward`.
use super::{Document, Problems, Shared, StageConfig, table_of};
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
    shared: Shared,
    /// `[reward]`.
    pub reward: RewardSection,
}

impl std::ops::Deref for RewardConfig {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl StageConfig for RewardConfig {
    const STAGE: &'static str = "reward";

    fn read(shared: Shared, document: &mut Document) -> Self {
        let reward: RewardSection = document.section("reward");
        let problems = document.problems();
        shared.model.check_no_dropout(problems);
        shared.model.check_no_reference(problems);
        shared.data.check_pairs(problems);
        reward.check(problems);
        Self { shared, reward }
    }

    fn own(&self) -> Option<toml::Value> {
        Some(table_of(&self.reward))
    }
}
