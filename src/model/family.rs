//! What a model family is: its names, its configuration, the backbone it builds. One file a family implements this;
//! nothing else of the crate knows which families there are.
use std::fmt::Debug;

use tch::Tensor;

use super::backbone::{Backbone, Dims};
use super::keys::Keys;
use super::params::Builder;
use super::{gpt_neox, gpt2, llama, mistral, opt, qwen};
use crate::error::Result;

/// All families.
pub static FAMILIES: [&Spec; 7] =
    [&gpt2::SPEC, &gpt_neox::SPEC, &opt::SPEC, &llama::SPEC, &mistral::SPEC, &qwen::SPEC_2, &qwen::SPEC_3];

/// The name of a tied or untied head in most families.
pub const LM_HEAD: &str = "lm_head.weight";

/// A family's names, all of them transformers' own.
#[derive(Debug)]
pub struct Spec {
    /// `model_type` in config.json.
    pub model_type: &'static str,
    /// The architecture with a language-model head.
    pub causal: &'static str,
    /// The architecture with a score head.
    pub classifier: &'static str,
    /// What stands before every name of the backbone's; checkpoints of the bare model lack it.
    pub prefix: &'static str,
    /// The token embedding.
    pub embedding: &'static str,
    /// The language-model head.
    pub head: &'static str,
    /// Whether a published checkpoint carries that (canonical) name besides the weights.
    pub known_extra: fn(&str) -> bool,
    /// Understands the family's keys.
    pub read: fn(&Keys) -> Result<Box<dyn Family>>,
}

impl Spec {
    /// The canonical form of a name as some checkpoint has it.
    pub fn canonical_name(&self, name: &str) -> String {
        if name == LM_HEAD {
            // transformers' own name of every head in memory; one family's files have another.
            return self.head.to_owned();
        }
        let part = |name: &str| name.split('.').next().map(str::to_owned);
        let whole = name.starts_with(self.prefix) || part(name) == part(self.head) || name.starts_with("score.");
        if whole { name.to_owned() } else { format!("{}{name}", self.prefix) }
    }
}

/// What every family's configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Whether the head shares the token embedding.
    pub tied: bool,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// Most tokens that a sequence can have at all: learned positions end, rotary ones go on, if badly.
    pub most_tokens: Option<i64>,
    /// Tokens up to which a sequence that grows leaves earlier tokens' keys as they are; none: any number.
    pub steady_tokens: Option<i64>,
    /// Sizes.
    pub dims: Dims,
}

/// A family's configuration, understood.
pub trait Family: Debug + Send + Sync {
    /// Its names.
    fn spec(&self) -> &'static Spec;

    /// What every family has.
    fn facts(&self) -> Facts;

    /// Takes the backbone's tensors; gives the backbone and the token embedding `[V, D]`.
    ///
    /// # Errors
    /// As [`Builder::take`].
    fn build(&self, builder: &mut Builder) -> Result<(Box<dyn Backbone>, Tensor)>;
}
