//! `collimate dpo`.
use super::{Document, Problems, Shared, StageConfig, table_of};
use serde::{Deserialize, Serialize};

/// The preference loss by name; see [`crate::loss::dpo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DpoLoss {
    /// -log sigma(z) (Rafailov et al. 2023).
    #[default]
    Sigmoid,
    /// max(0, 1 - z) (SLiC).
    Hinge,
    /// (h - 1 / (2 beta))^2 (Azar et al. 2023).
    Ipo,
    /// Unbiased under label noise (Chowdhury et al. 2024).
    Robust,
}

/// `[dpo]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DpoSection {
    /// Strength of the KL constraint.
    pub beta: f64,
    /// `sigmoid`, `hinge`, `ipo` or `robust`.
    pub loss: DpoLoss,
    /// Probability that a label is wrong.
    pub label_smoothing: f64,
    /// IPO: mean instead of summed log-probs, as TRL has it; false: the paper's.
    pub ipo_length_normalised: bool,
}

impl Default for DpoSection {
    fn default() -> Self {
        Self { beta: 0.1, loss: DpoLoss::default(), label_smoothing: 0.0, ipo_length_normalised: true }
    }
}

impl DpoSection {
    fn check(&self, problems: &mut Problems) {
        problems.require(self.beta.is_finite() && self.beta > 0.0, "dpo.beta", "must be greater than 0");
        problems.require((0.0..0.5).contains(&self.label_smoothing), "dpo.label_smoothing", "must lie in [0, 0.5)");
        problems.require(
            self.ipo_length_normalised || self.loss == DpoLoss::Ipo,
            "dpo.ipo_length_normalised",
            "only read with dpo.loss = \"ipo\"; remove it",
        );
    }
}

/// Configuration of direct preference optimization.
#[derive(Debug, Clone, PartialEq)]
pub struct DpoConfig {
    shared: Shared,
    /// `[dpo]`.
    pub dpo: DpoSection,
}

impl std::ops::Deref for DpoConfig {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl StageConfig for DpoConfig {
    const STAGE: &'static str = "dpo";

    fn read(shared: Shared, document: &mut Document) -> Self {
        let dpo: DpoSection = document.section("dpo");
        let problems = document.problems();
        shared.model.check_pretrained(Self::STAGE, problems);
        shared.model.check_no_dropout(problems);
        shared.data.check_pairs(problems);
        dpo.check(problems);
        Self { shared, dpo }
    }

    fn own(&self) -> Option<toml::Value> {
        Some(table_of(&self.dpo))
    }
}
