//! The model card (README.md) of a run, and what a run's directory holds besides the moments.
use crate::config::StageConfig;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use crate::train::Artifact;
use std::path::Path;
use tch::Kind;

/// Writes a model into a directory, its weights in the given kind; `true`: a checkpoint, `false`: the final model.
pub type SaveModel<'a> = Box<dyn Fn(&Path, Kind, bool) -> Result<()> + 'a>;

/// Saves a model, its tokenizer and a card; `save_model` is the model's own `save_pretrained`.
pub struct ModelArtifact<'a> {
    /// Writes the model.
    pub save_model: SaveModel<'a>,
    /// The model's tokenizer, copied as it is.
    pub tokenizer: &'a Tokenizer,
    /// Precision of the final model.
    pub final_kind: Kind,
    /// The card's text.
    pub card: String,
    /// What resume needs to know.
    pub facts: serde_json::Value,
}

impl Artifact for ModelArtifact<'_> {
    fn save(&self, dir: &Path, masters: bool) -> Result<()> {
        let kind = if masters { Kind::Float } else { self.final_kind };
        (self.save_model)(dir, kind, masters)?;
        self.tokenizer.save(dir)?;
        let path = dir.join("README.md");
        std::fs::write(&path, &self.card).map_err(Error::io(&path, "write"))
    }

    fn facts(&self) -> serde_json::Value {
        self.facts.clone()
    }
}

/// A card in the hub's form: front matter, what it is, how it was made, how to load it.
pub fn text<C: StageConfig>(config: &C, loader_class: &str, what: &str) -> String {
    let settings = toml::to_string_pretty(&config.to_table()).expect("a TOML table serialises");
    let base = &config.model.path;
    let stage = C::STAGE;
    format!(
        "---\nlibrary_name: transformers\nbase_model: {base}\ntags:\n- collimate\n- {stage}\n---\n\n\
         # {what}\n\n\
         Made by `collimate {stage}` (version {}) from `{base}` on `{}`.\n\n\
         ```python\nfrom transformers import AutoTokenizer, {loader_class}\n\
         model = {loader_class}.from_pretrained(\"path/to/this/directory\")\n\
         tokenizer = AutoTokenizer.from_pretrained(\"path/to/this/directory\")\n```\n\n\
         ## Settings\n\n```toml\n{settings}```\n\nFigures of the run: `metrics.jsonl`.\n",
        env!("CARGO_PKG_VERSION"),
        config.data.train,
    )
}
