//! What a model family offers: hidden states. Heads stand elsewhere; owns no weights.
use tch::Tensor;

use super::cache::KvCache;
use super::input::ModelInput;
use crate::error::Result;

/// A transformer without its head.
pub trait Backbone: Send {
    /// The final normalised hidden states `[N, D]` in float32, one a flat token.
    ///
    /// With a cache, keys and values are stored in it; a [`ModelInput::step`] also attends to those stored before.
    fn hidden_states(&self, input: &ModelInput, cache: Option<&mut KvCache>) -> Result<Tensor>;

    /// Sizes.
    fn dims(&self) -> Dims;
}

/// The sizes of a backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    /// Rows of the token embedding, V.
    pub vocab: i64,
    /// Width of a hidden state, D.
    pub hidden: i64,
    /// Layers.
    pub layers: i64,
    /// Query heads.
    pub heads: i64,
    /// Key and value heads.
    pub kv_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// Positions the model was made for.
    pub context: i64,
}
