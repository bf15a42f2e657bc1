//! `collimate sft`.
use super::{Document, Shared, StageConfig};

/// Configuration of supervised fine-tuning.
#[derive(Debug, Clone, PartialEq)]
pub struct SftConfig(Shared);

impl std::ops::Deref for SftConfig {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl StageConfig for SftConfig {
    const STAGE: &'static str = "sft";

    fn read(shared: Shared, document: &mut Document) -> Self {
        shared.model.check_no_reference(document.problems());
        Self(shared)
    }

    fn own(&self) -> Option<toml::Value> {
        None
    }
}
