//! What is not a stage: generate, score, evaluate, info. One file each; this one holds what they share.
pub mod evaluate;
pub mod fetch;
pub mod generate;
pub mod info;
pub mod score;
pub mod validate;

use crate::durable;
use crate::error::{Error, Result};
use crate::hub;
use crate::model::{CausalLm, LoadOptions, device};
use crate::tokenizer::Tokenizer;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use std::io::Write;
use std::path::{Path, PathBuf};
use tch::Kind;

/// Precision of matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeArg {
    /// IEEE single precision.
    Float32,
    /// bfloat16 products, float32 everywhere else.
    Bfloat16,
}

impl DtypeArg {
    /// libtorch's kind of it.
    pub fn kind(self) -> Kind {
        match self {
            DtypeArg::Float32 => Kind::Float,
            DtypeArg::Bfloat16 => Kind::BFloat16,
        }
    }
}

/// Where and how a model is opened.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Model: a directory in Hugging Face layout or a hub id
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Precision of matrix products
    #[arg(long, value_enum, default_value = "float32")]
    pub dtype: DtypeArg,
    /// Sequences a forward pass
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,
}

impl ModelArgs {
    /// Options for a model that is not trained.
    pub fn load_options(&self) -> Result<LoadOptions> {
        let (device, compute) = (device::resolve(&self.device)?, self.dtype.kind());
        Ok(LoadOptions { device, compute, trainable: false, mapped: true, checkpointing: false })
    }

    /// Sequences a forward pass.
    pub fn batch(&self) -> usize {
        self.batch_size as usize
    }
}

/// A causal language model with its tokenizer, for a command.
pub struct Opened {
    /// Where it is.
    pub dir: PathBuf,
    /// The model.
    pub model: CausalLm,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// Opens a causal language model by path or hub id.
pub fn open_causal(path: &str, options: &LoadOptions) -> Result<Opened> {
    let dir = hub::resolve_model(path)?;
    let tokenizer = Tokenizer::from_dir(&dir)?;
    let model = CausalLm::from_pretrained(&dir, options)?;
    tokenizer.check_vocab(model.dims().vocab, &dir)?;
    Ok(Opened { dir, model, tokenizer })
}

/// [`durable::check_new`] of a file that may not be wanted.
pub fn check_output(path: Option<&Path>) -> Result<()> {
    path.map_or(Ok(()), durable::check_new)
}

/// Writes JSON rows, one a line, whole or not at all; to standard output without a path.
pub fn write_rows(path: Option<&Path>, rows: &[Map<String, Value>]) -> Result<()> {
    match path {
        Some(path) => durable::write_rows(path, rows),
        None => {
            std::io::stdout().write_all(durable::lines(rows).as_bytes()).map_err(Error::io("standard output", "write"))
        }
    }
}
