//! The decoder that Llama (Touvron et al. 2023), Mistral and Qwen share, as transformers computes it: root-mean-square
//! norms, rotary positions, grouped-query attention, gated feed-forward. Owns its tensor names; the families' files say
//! which of its options they have.
use std::sync::Arc;

use tch::{Kind, Tensor};

use super::attention::Attention;
use super::backbone::{Backbone, Dims};
use super::blocks::{Block, Blocks, at};
use super::cache::KvCache;
use super::embed;
use super::family::{Facts, Family, Spec};
use super::input::ModelInput;
use super::keys::Keys;
use super::linear::{Layout, Linear};
use super::mlp::{Activation, feed_forward};
use super::norm::{Norm, NormKind};
use super::params::{Builder, Init};
use super::rope::{Rope, RopeConfig, Rotation};
use crate::error::Result;

/// The token embedding's name.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// What stands before the names of the backbone.
pub const PREFIX: &str = "model.";

/// Frequencies that old checkpoints carry as tensors.
pub fn known_extra(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}

/// The keys of a decoder, under transformers' names, and its options.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    vocab_size: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    num_key_value_heads: i64,
    head_dim: i64,
    hidden_act: Activation,
    max_position_embeddings: i64,
    rms_norm_eps: f64,
    rope: RopeConfig,
    initializer_range: f64,
    tie_word_embeddings: bool,
    /// Biases of the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias of the attention's output projection.
    pub out_bias: bool,
    /// Biases of the feed-forward part.
    pub mlp_bias: bool,
    /// Norms over each head of queries and keys, before they turn.
    pub qk_norm: bool,
    /// For each layer how many tokens a query sees; none: all before it.
    pub windows: Vec<Option<i64>>,
}

/// transformers' defaults where families differ.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// `vocab_size`.
    pub vocab_size: i64,
    /// `intermediate_size`.
    pub intermediate_size: i64,
    /// `num_key_value_heads`; none: as many as query heads.
    pub kv_heads: Option<i64>,
    /// `head_dim`; none: hidden / heads.
    pub head_dim: Option<i64>,
    /// `max_position_embeddings`.
    pub context: i64,
}

impl DecoderConfig {
    /// Reads the keys that all such families have; options are off.
    ///
    /// # Errors
    /// A key out of range.
    pub fn read(keys: &Keys, defaults: Defaults) -> Result<Self> {
        let hidden_size = keys.size(&["hidden_size"], 4096)?;
        let (heads, kv_heads, head_dim) = keys.heads(hidden_size, (32, defaults.kv_heads), defaults.head_dim)?;
        let context = keys.size(&["max_position_embeddings"], defaults.context)?;
        let rope = RopeConfig::read(keys, head_dim, context, (1.0, "partial_rotary_factor"), "rope_theta")?;
        if !rope.is_whole(head_dim) {
            return keys.fail("partial_rotary_factor", "only 1.0 is supported here");
        }
        let layers = keys.size(&["num_hidden_layers"], 32)?;
        Ok(DecoderConfig {
            vocab_size: keys.size(&["vocab_size"], defaults.vocab_size)?,
            hidden_size,
            intermediate_size: keys.size(&["intermediate_size"], defaults.intermediate_size)?,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            hidden_act: keys.activation("hidden_act", Activation::Silu)?,
            max_position_embeddings: context,
            rms_norm_eps: keys.number(&["rms_norm_eps"], 1e-6)?,
            rope,
            initializer_range: keys.number(&["initializer_range"], 0.02)?,
            tie_word_embeddings: keys.flag("tie_word_embeddings", false)?,
            qkv_bias: false,
            out_bias: false,
            mlp_bias: false,
            qk_norm: false,
            windows: vec![None; layers as usize],
        })
    }

    /// Number of layers.
    pub fn layers(&self) -> i64 {
        self.num_hidden_layers
    }

    /// Sizes.
    fn dims(&self) -> Dims {
        Dims {
            vocab: self.vocab_size,
            hidden: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            context: self.rope.reach(self.max_position_embeddings),
        }
    }
}

/// A family that is a decoder with options: its names beside them.
#[derive(Debug)]
pub struct DecoderFamily {
    /// The names.
    pub spec: &'static Spec,
    /// Keys and options.
    pub config: DecoderConfig,
}

impl Family for DecoderFamily {
    fn spec(&self) -> &'static Spec {
        self.spec
    }

    fn facts(&self) -> Facts {
        Facts {
            tied: self.config.tie_word_embeddings,
            initializer_range: self.config.initializer_range,
            most_tokens: None,
            steady_tokens: self.config.rope.steady(),
            dims: self.config.dims(),
        }
    }

    fn build(&self, builder: &mut Builder) -> Result<(Box<dyn Backbone>, Tensor)> {
        let decoder = Decoder::new(self.config.clone(), builder)?;
        let embedding = decoder.embed_tokens.shallow_clone();
        Ok((Box::new(decoder), embedding))
    }
}

/// The decoder without its head.
struct Decoder {
    config: Arc<DecoderConfig>,
    embed_tokens: Tensor,
    rope: Rope,
    layers: Blocks<Layer>,
    norm: Norm,
}

struct Layer {
    input_layernorm: Norm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    attention: Attention,
    o_proj: Linear,
    post_attention_layernorm: Norm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Decoder {
    fn new(config: DecoderConfig, builder: &mut Builder) -> Result<Self> {
        let normal = Init::Normal { std: config.initializer_range };
        let embed_tokens = builder.take(EMBEDDING, &[config.vocab_size, config.hidden_size], normal)?;
        let rope = Rope::new(config.rope.clone(), builder.device())?;
        let layers = Blocks::take(builder, config.num_hidden_layers, |n, builder| Layer::new(&config, n, builder))?;
        let norm = norm("model.norm", config.hidden_size, &config, builder, Kind::Float)?;
        Ok(Decoder { config: Arc::new(config), embed_tokens, rope, layers, norm })
    }
}

impl Layer {
    fn new(config: &DecoderConfig, layer: i64, builder: &mut Builder) -> Result<Self> {
        let (d, inner, head_dim) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let (compute, std) = (builder.compute(), config.initializer_range);
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let window = config.windows[layer as usize];
        let mut linear = |part: &str, shape: [i64; 2], bias: bool| {
            Linear::take(builder, &name(part), Layout::OutIn, shape, bias, std)
        };
        let q_proj = linear("self_attn.q_proj", [q, d], config.qkv_bias)?;
        let k_proj = linear("self_attn.k_proj", [kv, d], config.qkv_bias)?;
        let v_proj = linear("self_attn.v_proj", [kv, d], config.qkv_bias)?;
        let o_proj = linear("self_attn.o_proj", [d, q], config.out_bias)?;
        let gate_proj = linear("mlp.gate_proj", [inner, d], config.mlp_bias)?;
        let up_proj = linear("mlp.up_proj", [inner, d], config.mlp_bias)?;
        let down_proj = linear("mlp.down_proj", [d, inner], config.mlp_bias)?;
        let mut head_norm = |part: &str| -> Result<Option<Norm>> {
            // What turns is computed in float32 whatever the products' kind.
            Ok(if config.qk_norm { Some(norm(&name(part), head_dim, config, builder, compute)?) } else { None })
        };
        let (q_norm, k_norm) = (head_norm("self_attn.q_norm")?, head_norm("self_attn.k_norm")?);
        Ok(Layer {
            input_layernorm: norm(&name("input_layernorm"), d, config, builder, compute)?,
            q_proj,
            k_proj,
            v_proj,
            q_norm,
            k_norm,
            attention: Attention::new(layer, (heads, kv_heads, head_dim)).with_window(window),
            o_proj,
            post_attention_layernorm: norm(&name("post_attention_layernorm"), d, config, builder, compute)?,
            gate_proj,
            up_proj,
            down_proj,
        })
    }
}

impl Block for Layer {
    type Common = (Arc<DecoderConfig>, Rotation);

    fn forward(
        &self,
        x: &Tensor,
        (config, rotation): &Self::Common,
        input: &ModelInput,
        cache: Option<&mut KvCache>,
        rows: Option<&Tensor>,
    ) -> Result<Tensor> {
        let normed = self.input_layernorm.forward(x)?;
        let rotated = |projection: &Linear, norm: &Option<Norm>, heads: i64| -> Result<Tensor> {
            let split = projection.forward(&normed)?.f_view([-1, heads, config.head_dim])?;
            let split = match norm {
                Some(norm) => norm.forward(&split)?,
                None => split,
            };
            Ok(rotation.apply(&split)?.f_view([-1, heads * config.head_dim])?)
        };
        let q = rotated(&self.q_proj, &self.q_norm, config.num_attention_heads)?;
        let k = rotated(&self.k_proj, &self.k_norm, config.num_key_value_heads)?;
        let v = self.v_proj.forward(&normed)?;
        let attended = at(&self.attention.separate([q, k, v], input, cache)?, rows)?;
        let x = at(x, rows)?.f_add(&self.o_proj.forward(&attended)?)?;
        let normed = self.post_attention_layernorm.forward(&x)?;
        let (gate, up) = (self.gate_proj.forward(&normed)?, self.up_proj.forward(&normed)?);
        Ok(x.f_add(&feed_forward(&gate, Some(&up), config.hidden_act, &self.down_proj)?)?)
    }
}

impl Backbone for Decoder {
    fn hidden_states(&self, input: &ModelInput, cache: Option<&mut KvCache>) -> Result<Tensor> {
        let x = embed(&self.embed_tokens, &input.tokens)?;
        let rotation = self.rope.rotation(input)?;
        let x = self.layers.forward(x, (self.config.clone(), rotation), input, cache)?;
        self.norm.forward(&x)
    }

    fn dims(&self) -> Dims {
        self.config.dims()
    }
}

fn norm(name: &str, width: i64, config: &DecoderConfig, builder: &mut Builder, output: Kind) -> Result<Norm> {
    Norm::take(builder, name, NormKind::RootMeanSquare, (width, config.rms_norm_eps), output)
}
