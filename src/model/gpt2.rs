//! GPT-2 (Radford et al. 2019) as transformers' `GPT2Model` computes it. Owns its tensor names; no head, no files.
use std::sync::Arc;

use tch::Tensor;

use super::attention::Attention;
use super::backbone::{Backbone, Dims};
use super::blocks::Blocks;
use super::cache::KvCache;
use super::family::{Facts, Family, LM_HEAD, Spec};
use super::input::ModelInput;
use super::keys::Keys;
use super::linear::{Layout, Linear};
use super::mlp::{Activation, feed_forward};
use super::norm::{Norm, NormKind};
use super::params::{Builder, Init};
use super::{blocks, dropout, embed};
use crate::error::Result;

/// The family's names.
pub static SPEC: Spec = Spec {
    model_type: "gpt2",
    causal: "GPT2LMHeadModel",
    classifier: "GPT2ForSequenceClassification",
    prefix: "transformer.",
    embedding: "transformer.wte.weight",
    head: LM_HEAD,
    // Masks that old checkpoints carry as tensors.
    known_extra: |name| {
        name.starts_with("transformer.h.") && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"))
    },
    read: |keys| Ok(Box::new(Config::read(keys)?)),
};

/// GPT-2's keys, under transformers' names.
#[derive(Debug, Clone, PartialEq)]
struct Config {
    vocab_size: i64,
    n_positions: i64,
    n_embd: i64,
    n_layer: i64,
    n_head: i64,
    n_inner: i64,
    activation_function: Activation,
    layer_norm_epsilon: f64,
    initializer_range: f64,
    tie_word_embeddings: bool,
    scale_attn_weights: bool,
    scale_attn_by_inverse_layer_idx: bool,
}

impl Config {
    fn read(keys: &Keys) -> Result<Self> {
        keys.must_be("add_cross_attention", false)?;
        // The order of scaling, and float32 for scores: here they are float32 whatever this says.
        keys.flag("reorder_and_upcast_attn", false)?;
        let n_embd = keys.size(&["n_embd", "hidden_size"], 768)?;
        let n_head = keys.size(&["n_head", "num_attention_heads"], 12)?;
        keys.even_heads("n_head", n_embd, n_head)?;
        Ok(Config {
            vocab_size: keys.size(&["vocab_size"], 50257)?,
            n_positions: keys.size(&["n_positions", "max_position_embeddings"], 1024)?,
            n_embd,
            n_layer: keys.size(&["n_layer", "num_hidden_layers"], 12)?,
            n_head,
            n_inner: keys.size(&["n_inner"], 4 * n_embd)?,
            activation_function: keys.activation("activation_function", Activation::GeluTanh)?,
            layer_norm_epsilon: keys.number(&["layer_norm_epsilon"], 1e-5)?,
            initializer_range: keys.number(&["initializer_range"], 0.02)?,
            tie_word_embeddings: keys.flag("tie_word_embeddings", true)?,
            scale_attn_weights: keys.flag("scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: keys.flag("scale_attn_by_inverse_layer_idx", false)?,
        })
    }

    /// What scores are multiplied by in layer `layer`.
    fn scale(&self, layer: i64) -> f64 {
        let width = (self.n_embd / self.n_head) as f64;
        let scale = if self.scale_attn_weights { width.sqrt().recip() } else { 1.0 };
        if self.scale_attn_by_inverse_layer_idx { scale / (layer + 1) as f64 } else { scale }
    }

    /// Sizes.
    fn dims(&self) -> Dims {
        Dims {
            vocab: self.vocab_size,
            hidden: self.n_embd,
            layers: self.n_layer,
            heads: self.n_head,
            kv_heads: self.n_head,
            head_dim: self.n_embd / self.n_head,
            context: self.n_positions,
        }
    }
}

impl Family for Config {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn facts(&self) -> Facts {
        Facts {
            tied: self.tie_word_embeddings,
            initializer_range: self.initializer_range,
            most_tokens: Some(self.n_positions),
            steady_tokens: None,
            dims: self.dims(),
        }
    }

    fn build(&self, builder: &mut Builder) -> Result<(Box<dyn Backbone>, Tensor)> {
        let backbone = Gpt2::new(self.clone(), builder)?;
        let embedding = backbone.wte.shallow_clone();
        Ok((Box::new(backbone), embedding))
    }
}

/// GPT-2 without its head.
struct Gpt2 {
    config: Arc<Config>,
    wte: Tensor,
    wpe: Tensor,
    blocks: Blocks<Block>,
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

impl Gpt2 {
    /// Random tensors are drawn as transformers draws them.
    fn new(config: Config, builder: &mut Builder) -> Result<Self> {
        let (d, std) = (config.n_embd, config.initializer_range);
        let normal = Init::Normal { std };
        let wte = builder.take(SPEC.embedding, &[config.vocab_size, d], normal)?;
        let wpe = builder.take("transformer.wpe.weight", &[config.n_positions, d], normal)?;
        let blocks = Blocks::take(builder, config.n_layer, |layer, builder| Block::new(&config, layer, builder))?;
        let ln_f = norm("transformer.ln_f", &config, builder, tch::Kind::Float)?;
        Ok(Gpt2 { config: Arc::new(config), wte, wpe, blocks, ln_f })
    }
}

impl Block {
    fn new(config: &Config, layer: i64, builder: &mut Builder) -> Result<Self> {
        let (d, inner, std) = (config.n_embd, config.n_inner, config.initializer_range);
        let compute = builder.compute();
        let name = |part: &str| format!("transformer.h.{layer}.{part}");
        // Radford et al. scale the residual projections by 1/sqrt(number of residual layers), two a block.
        let residual = std / (2.0 * config.n_layer as f64).sqrt();
        let heads = config.n_head;
        Ok(Block {
            ln_1: norm(&name("ln_1"), config, builder, compute)?,
            c_attn: conv1d(&name("attn.c_attn"), [d, 3 * d], std, builder)?,
            attention: Attention::new(layer, (heads, heads, d / heads)).with_scale(config.scale(layer)),
            c_proj: conv1d(&name("attn.c_proj"), [d, d], residual, builder)?,
            ln_2: norm(&name("ln_2"), config, builder, compute)?,
            c_fc: conv1d(&name("mlp.c_fc"), [d, inner], std, builder)?,
            mlp_c_proj: conv1d(&name("mlp.c_proj"), [inner, d], residual, builder)?,
        })
    }
}

impl blocks::Block for Block {
    type Common = Arc<Config>;

    fn forward(
        &self,
        x: &Tensor,
        config: &Arc<Config>,
        input: &ModelInput,
        cache: Option<&mut KvCache>,
        rows: Option<&Tensor>,
    ) -> Result<Tensor> {
        let qkv = self.c_attn.forward(&self.ln_1.forward(x)?)?;
        let attended = self.c_proj.forward(&blocks::at(&self.attention.packed(qkv, input, cache)?, rows)?)?;
        let x = blocks::at(x, rows)?.f_add(&dropout(attended, input)?)?;
        let inner = self.c_fc.forward(&self.ln_2.forward(&x)?)?;
        let out = feed_forward(&inner, None, config.activation_function, &self.mlp_c_proj)?;
        Ok(x.f_add(&dropout(out, input)?)?)
    }
}

impl Backbone for Gpt2 {
    fn hidden_states(&self, input: &ModelInput, cache: Option<&mut KvCache>) -> Result<Tensor> {
        let tokens = embed(&self.wte, &input.tokens)?;
        let positions = embed(&self.wpe, &input.positions)?;
        let x = dropout(tokens.f_add(&positions)?, input)?;
        let x = self.blocks.forward(x, self.config.clone(), input, cache)?;
        self.ln_f.forward(&x)
    }

    fn dims(&self) -> Dims {
        self.config.dims()
    }
}

fn norm(name: &str, config: &Config, builder: &mut Builder, output: tch::Kind) -> Result<Norm> {
    Norm::take(builder, name, NormKind::Layer, (config.n_embd, config.layer_norm_epsilon), output)
}

fn conv1d(name: &str, shape: [i64; 2], std: f64, builder: &mut Builder) -> Result<Linear> {
    Linear::take(builder, name, Layout::InOut, shape, true, std)
}
