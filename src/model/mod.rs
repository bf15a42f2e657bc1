//! Language models and reward models: a backbone, its named tensors and a head. Owns loading and the two model types;
//! must not import `data`, `loss` or `train`.
//!
//! A forward runs on one flat list of N real tokens ([`ModelInput`]) and gives hidden states `[N, D]`; heads then run on
//! the rows that are asked for.
mod attention;
mod backbone;
mod blocks;
mod cache;
mod critic;
mod decoder;
pub mod device;
mod family;
pub mod fingerprint;
mod gpt2;
mod gpt_neox;
mod head;
mod hf_config;
mod init;
mod input;
mod keys;
mod linear;
mod llama;
mod mistral;
mod mlp;
mod norm;
mod opt;
mod params;
mod qwen;
mod reward;
mod rope;
mod rows;
mod save;
pub mod weights;

use std::path::Path;

use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

pub use backbone::{Backbone, Dims};
pub use cache::KvCache;
pub use critic::Critic;
pub use family::{Facts, Family, Spec};
pub use hf_config::HfConfig;
pub use input::{ModelInput, upload};
pub use linear::{Decoding, on_matrix_unit};
pub use params::{Init, Params};
pub use reward::{Pooling, RewardModel};
pub use save::SaveOptions;

use crate::error::{Error, Result};
use crate::ffi;
use head::LmHead;
use params::{Builder, Source};
use weights::Weights;

/// How a model is put into memory.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Where it lives.
    pub device: Device,
    /// The kind of matrix products: `Kind::Float` or `Kind::BFloat16`.
    pub compute: Kind,
    /// With gradients: float32 masters. Without, matrices are held in the compute kind.
    pub trainable: bool,
    /// Without gradients: weights are read where their file is mapped, not copied, so that the file must stay as it is for as
    /// long as the model lives. For commands that are soon over.
    pub mapped: bool,
    /// With gradients: blocks keep their input alone and are run again for the gradient, which takes less memory and a forward
    /// pass more.
    pub checkpointing: bool,
}

impl LoadOptions {
    /// The same for a model that is not trained.
    pub fn frozen(self) -> Self {
        LoadOptions { trainable: false, ..self }
    }
}

/// What both kinds of model share.
pub struct Model {
    backbone: Box<dyn Backbone>,
    params: Params,
    config: HfConfig,
    /// `generation_config.json` as it was read, to be written back.
    generation: Map<String, Value>,
    options: LoadOptions,
}

impl Model {
    /// Hidden states `[N, D]` in float32; with a cache without gradient.
    ///
    /// # Errors
    /// [`Error::Usage`] for a token id outside the vocabulary or a position outside the context.
    pub fn hidden_states(&self, input: &ModelInput, mut cache: Option<&mut KvCache>) -> Result<Tensor> {
        let _guard = cache.is_some().then(tch::no_grad_guard);
        let dims = self.backbone.dims();
        if input.largest_token >= dims.vocab {
            let message =
                format!("token id {} is outside the model's vocabulary of {}", input.largest_token, dims.vocab);
            return Err(Error::usage(message, "use the tokenizer that belongs to the model"));
        }
        if self.most_tokens().is_some_and(|most| input.largest_position >= most) {
            let message = format!("a sequence of {} tokens is longer than the context", input.largest_position + 1);
            return Err(Error::usage(message, format!("keep sequences within {} tokens", dims.context)));
        }
        if let Some(cache) = cache.as_deref() {
            cache.check(input)?;
        }
        let hidden = self.backbone.hidden_states(input, cache.as_deref_mut())?;
        if let Some(cache) = cache {
            cache.advance(input);
        }
        Ok(hidden)
    }

    /// [`Model::hidden_states`] of the tokens at flat indices `rows [M]`, `[M, D]`: the last block does without the others.
    ///
    /// # Errors
    /// As [`Model::hidden_states`].
    pub fn states_at(&self, input: &ModelInput, rows: &Tensor, cache: Option<&mut KvCache>) -> Result<Tensor> {
        self.hidden_states(&input.reading(rows), cache)
    }

    /// Most tokens that a sequence can have at all: learned positions end, rotary ones go on, if badly.
    pub fn most_tokens(&self) -> Option<i64> {
        self.config.family.facts().most_tokens
    }

    /// Whether tokens that run one by one with a cache see what they see in a forward over all `tokens` of their sequence:
    /// dynamic scaling would turn the keys in the cache anew.
    pub fn is_steady(&self, tokens: usize) -> bool {
        self.config.family.facts().steady_tokens.is_none_or(|most| tokens as i64 <= most)
    }

    /// The named tensors.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The configuration.
    pub fn config(&self) -> &HfConfig {
        &self.config
    }

    /// Where the model lives.
    pub fn device(&self) -> Device {
        self.options.device
    }

    /// The kind of matrix products.
    pub fn compute(&self) -> Kind {
        self.options.compute
    }

    /// Sizes.
    pub fn dims(&self) -> Dims {
        self.backbone.dims()
    }

    /// An empty cache for `rows` sequences of up to `capacity` tokens.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn new_cache(&self, rows: usize, capacity: usize) -> Result<KvCache> {
        KvCache::new(self.dims(), rows as i64, capacity as i64, self.options.compute, self.options.device)
    }
}

/// A causal language model.
pub struct CausalLm {
    base: Model,
    head: LmHead,
}

impl std::ops::Deref for CausalLm {
    type Target = Model;
    fn deref(&self) -> &Model {
        &self.base
    }
}

impl CausalLm {
    /// Loads a model directory in Hugging Face layout; strict: no tensor missing, misshapen or unknown.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Tensor`] naming the file, key or tensor.
    pub fn from_pretrained(dir: &Path, options: &LoadOptions) -> Result<Self> {
        let config = HfConfig::from_dir(dir)?;
        if config.is_reward() {
            return Err(Error::file(dir, "this is a reward model", "give a causal language model"));
        }
        let source = open_weights(dir, &config)?;
        Self::build(config, read_generation(dir)?, source, options)
    }

    /// A model with random weights.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn from_config(config: HfConfig, seed: u64, options: &LoadOptions) -> Result<Self> {
        config.check_fits()?;
        Self::build(config, Map::new(), Source::Seed(seed), options)
    }

    /// A deep copy without gradients: a reference model.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn duplicate_frozen(&self) -> Result<CausalLm> {
        let source = Source::Copies(self.base.params.shallow_clone());
        let options = LoadOptions { trainable: false, ..self.base.options };
        Self::build(self.base.config.clone(), self.base.generation.clone(), source, &options)
    }

    /// Logits `[M, V]` in float32 of hidden states `[M, D]`: only of the rows that are needed.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head.logits(hidden)
    }

    /// The head's weight `[V, D]`: the embedding where they are tied.
    pub fn head_weight(&self) -> &Tensor {
        self.head.weight()
    }

    /// The part shared with reward models.
    pub fn base(&self) -> &Model {
        &self.base
    }

    /// Writes `config.json`, `generation_config.json` and `model.safetensors` into `dir`, which must exist; transformers
    /// reads them back. A tied head is written once, as the embedding.
    ///
    /// # Errors
    /// [`Error::Io`] where writing fails.
    pub fn save_pretrained(&self, dir: &Path, save_dtype: Kind, ids: &SaveOptions) -> Result<()> {
        save::causal_lm(&self.base, dir, save_dtype, ids)
    }

    fn build(config: HfConfig, generation: Map<String, Value>, source: Source, options: &LoadOptions) -> Result<Self> {
        let mut builder = Builder::with(source, 0, options);
        let (family, spec) = (&config.family, config.spec());
        let (backbone, embedding) = family.build(&mut builder)?;
        let weight = if family.facts().tied {
            builder.take_duplicate(spec.head, spec.embedding)?;
            head_of_embedding(&embedding, options)?
        } else {
            builder.take_matrix(spec.head, &embedding.size(), Init::Normal { std: family.facts().initializer_range })?
        };
        let params = builder.finish(spec.known_extra)?;
        let head = LmHead::new(weight, options.compute);
        Ok(CausalLm { base: Model { backbone, params, config, generation, options: *options }, head })
    }
}

/// Checks a model directory by its headers: every tensor that config.json asks for is there, in its shape and a type that
/// is read, and no other. Gives the number of values.
///
/// # Errors
/// [`Error::File`] or [`Error::Tensor`] naming the file, key or tensor.
pub fn check_files(dir: &Path) -> Result<u64> {
    let config = HfConfig::from_dir(dir)?;
    let spec = config.spec();
    let weights = Weights::open(dir, |name| spec.canonical_name(name))?;
    let count = weights.numel();
    let mut builder = Builder::of_headers(weights);
    let (backbone, embedding) = config.family.build(&mut builder)?;
    if config.is_reward() {
        let _ = builder.take(reward::SCORE, &[1, backbone.dims().hidden], Init::Zeros)?;
    } else if config.family.facts().tied {
        builder.take_duplicate(spec.head, spec.embedding)?;
    } else {
        let _ = builder.take_matrix(spec.head, &embedding.size(), Init::Zeros)?;
    }
    builder.finish(spec.known_extra)?;
    Ok(count)
}

/// A frozen model in bfloat16 casts its tied head once, not in every forward.
fn head_of_embedding(embedding: &Tensor, options: &LoadOptions) -> Result<Tensor> {
    if options.trainable { Ok(embedding.shallow_clone()) } else { linear::cast(embedding, options.compute) }
}

fn open_weights(dir: &Path, config: &HfConfig) -> Result<Source> {
    let spec = config.spec();
    Ok(Source::Weights(Weights::open(dir, |name| spec.canonical_name(name))?))
}

fn read_generation(dir: &Path) -> Result<Map<String, Value>> {
    let path = dir.join("generation_config.json");
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .map_err(|e| Error::file(&path, format!("not a JSON object: {e}"), "correct or remove it")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(Error::io(&path, "read")(error)),
    }
}

/// Rows `ids [N]` of an embedding `[V, D]`.
fn embed(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    ffi::embedding(table, ids)
}

/// Dropout as the input asks for it; off, it costs nothing.
fn dropout(x: Tensor, input: &ModelInput) -> Result<Tensor> {
    if input.dropout > 0.0 { Ok(x.f_dropout(input.dropout, true)?) } else { Ok(x) }
}
