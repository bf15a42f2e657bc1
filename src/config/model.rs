//! `[model]`: which weights, where and in what precision.
use super::Problems;
use serde::{Deserialize, Serialize};

/// Where the initial weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// The weights in `path`.
    #[default]
    Pretrained,
    /// Random weights of the shape that `path`'s config.json or `[model.config]` gives.
    Config,
}

/// Precision of matrix products; masters, losses and moments stay float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE single precision.
    #[default]
    Float32,
    /// bfloat16 products with float32 masters.
    Bfloat16,
}

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelConfig {
    /// A directory in Hugging Face layout or a hub id.
    pub path: String,
    /// Where the tokenizer is, if not in `path`.
    pub tokenizer: Option<String>,
    /// Pretrained weights or random ones.
    pub init: Init,
    /// Inline config.json for `init = "config"`, with Hugging Face's own field names.
    pub config: Option<toml::Table>,
    /// Precision of matrix products.
    pub dtype: Dtype,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Dropout probability while training (SFT only).
    pub dropout: f64,
    /// The reference model of DPO and PPO; default: a copy of the starting weights.
    pub reference: Option<String>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            path: String::new(),
            tokenizer: None,
            init: Init::default(),
            config: None,
            dtype: Dtype::default(),
            device: "auto".into(),
            dropout: 0.0,
            reference: None,
        }
    }
}

impl ModelConfig {
    /// What can be said without opening the model.
    pub fn check(&self, problems: &mut Problems) {
        problems.require(!self.path.is_empty(), "model.path", "missing; name a model directory or a hub id");
        let config_without_init = self.config.is_some() && self.init == Init::Pretrained;
        problems.require(
            !config_without_init,
            "model.config",
            "only read with model.init = \"config\"; set it or remove this",
        );
        problems.require((0.0..1.0).contains(&self.dropout), "model.dropout", "must lie in [0, 1)");
    }

    /// For stages that train without dropout.
    pub fn check_no_dropout(&self, problems: &mut Problems) {
        let message = "only SFT trains with dropout: it makes log-probs noisy; remove it";
        problems.require(self.dropout == 0.0, "model.dropout", message);
    }

    /// For stages that start from a trained model.
    pub fn check_pretrained(&self, stage: &str, problems: &mut Problems) {
        let message =
            format!("{stage} starts from a trained model; remove init = \"config\" and name one in model.path");
        problems.require(self.init == Init::Pretrained, "model.init", message);
    }

    /// For stages without a reference model.
    pub fn check_no_reference(&self, problems: &mut Problems) {
        let message = "this stage has no reference model; remove it";
        problems.require(self.reference.is_none(), "model.reference", message);
    }
}
