//! GPT-2 (Radford et al. 2019) as transformers' `GPT2Model` computes it. Owns its tensor names; no head, no files.
use tch::Tensor;

use super::attention::Attention;
use super::backbone::{Backbone, Dims};
use super::cache::KvCache;
use super::dropout;
use super::hf_config::Gpt2Config;
use super::input::ModelInput;
use super::linear::{Layout, Linear};
use super::mlp::activate;
use super::norm::{Norm, NormKind};
use super::params::{Builder, Init};
use crate::error::Result;

/// The token embedding's name.
pub const EMBEDDING: &str = "transformer.wte.weight";

/// GPT-2 without its head.
pub struct Gpt2 {
    config: Gpt2Config,
    wte: Tensor,
    wpe: Tensor,
    blocks: Vec<Block>,
    ln_f: Norm,
}

struct Block {
    ln_1: Norm,
    c_attn: Linear,
    attention: Attention,
    c_proj: Linear,
    ln_2: Norm,
    c_fc: Linear,
    mlp_c_proj: Linear,
}

/// Hub `gpt2` has no prefix, transformers writes one.
pub fn canonical_name(name: &str) -> String {
    let bare = ["transformer.", "lm_head.", "score."].iter().all(|prefix| !name.starts_with(prefix));
    if bare { format!("transformer.{name}") } else { name.to_owned() }
}

/// Masks that old checkpoints carry as tensors.
pub fn known_extra(name: &str) -> bool {
    name.starts_with("transformer.h.") && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"))
}

impl Gpt2 {
    /// Takes its tensors from `builder`; random ones as transformers draws them.
    ///
    /// # Errors
    /// As [`Builder::take`].
    pub fn new(config: Gpt2Config, builder: &mut Builder) -> Result<Self> {
        let (d, std) = (config.n_embd, config.initializer_range);
        let normal = Init::Normal { std };
        let wte = builder.take(EMBEDDING, &[config.vocab_size, d], normal)?;
        let wpe = builder.take("transformer.wpe.weight", &[config.n_positions, d], normal)?;
        let blocks = (0..config.n_layer).map(|layer| Block::new(&config, layer, builder)).collect::<Result<_>>()?;
        let ln_f = norm("transformer.ln_f", &config, builder, tch::Kind::Float)?;
        Ok(Gpt2 { config, wte, wpe, blocks, ln_f })
    }

    /// The token embedding, `[V, D]`.
    pub fn embedding(&self) -> &Tensor {
        &self.wte
    }
}

impl Block {
    fn new(config: &Gpt2Config, layer: i64, builder: &mut Builder) -> Result<Self> {
        let (d, inner, std) = (config.n_embd, config.n_inner, config.initializer_range);
        let compute = builder.compute();
        let name = |part: &str| format!("transformer.h.{layer}.{part}");
        // Radford et al. scale the residual projections by 1/sqrt(number of residual layers), two a block.
        let residual = std / (2.0 * config.n_layer as f64).sqrt();
        let heads = config.n_head;
        Ok(Block {
            ln_1: norm(&name("ln_1"), config, builder, compute)?,
            c_attn: conv1d(&name("attn.c_attn"), [d, 3 * d], std, builder)?,
            attention: Attention { heads, kv_heads: heads, head_dim: d / heads, layer: layer as usize },
            c_proj: conv1d(&name("attn.c_proj"), [d, d], residual, builder)?,
            ln_2: norm(&name("ln_2"), config, builder, compute)?,
            c_fc: conv1d(&name("mlp.c_fc"), [d, inner], std, builder)?,
            mlp_c_proj: conv1d(&name("mlp.c_proj"), [inner, d], residual, builder)?,
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        config: &Gpt2Config,
        input: &ModelInput,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let qkv = self.c_attn.forward(&self.ln_1.forward(x)?)?;
        let attended = self.c_proj.forward(&self.attention.packed(qkv, input, cache)?)?;
        let x = x.f_add(&dropout(attended, input)?)?;
        let inner = activate(&self.c_fc.forward(&self.ln_2.forward(&x)?)?, config.activation_function)?;
        let out = self.mlp_c_proj.forward(&inner)?;
        Ok(x.f_add(&dropout(out, input)?)?)
    }
}

impl Backbone for Gpt2 {
    fn hidden_states(&self, input: &ModelInput, mut cache: Option<&mut KvCache>) -> Result<Tensor> {
        let tokens = Tensor::f_embedding(&self.wte, &input.tokens, -1, false, false)?;
        let positions = Tensor::f_embedding(&self.wpe, &input.positions, -1, false, false)?;
        let mut x = dropout(tokens.f_add(&positions)?, input)?;
        for block in &self.blocks {
            x = block.forward(&x, &self.config, input, cache.as_deref_mut())?;
        }
        self.ln_f.forward(&x)
    }

    fn dims(&self) -> Dims {
        let config = &self.config;
        Dims {
            vocab: config.vocab_size,
            hidden: config.n_embd,
            layers: config.n_layer,
            heads: config.n_head,
            kv_heads: config.n_head,
            head_dim: config.n_embd / config.n_head,
            context: config.n_positions,
        }
    }
}

fn norm(name: &str, config: &Gpt2Config, builder: &mut Builder, output: tch::Kind) -> Result<Norm> {
    let weight = builder.take(&format!("{name}.weight"), &[config.n_embd], Init::Ones)?;
    let bias = builder.take(&format!("{name}.bias"), &[config.n_embd], Init::Zeros)?;
    Ok(Norm::new(NormKind::Layer, weight, Some(bias), config.layer_norm_epsilon, output))
}

fn conv1d(name: &str, shape: [i64; 2], std: f64, builder: &mut Builder) -> Result<Linear> {
    let weight = builder.take_matrix(&format!("{name}.weight"), &shape, Init::Normal { std })?;
    let bias = builder.take_matrix(&format!("{name}.bias"), &shape[1..], Init::Zeros)?;
    Ok(Linear::new(weight, Some(bias), Layout::InOut, builder.compute()))
}
