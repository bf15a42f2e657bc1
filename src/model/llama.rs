//! Llama (Touvron et al. 2023) as transformers' `LlamaModel` computes it: RMS norms, rotary positions, grouped-query
//! attention, gated feed-forward. Owns its tensor names; no head, no files.
use tch::{Kind, Tensor};

use super::attention::Attention;
use super::backbone::{Backbone, Dims};
use super::cache::KvCache;
use super::hf_config::LlamaConfig;
use super::input::ModelInput;
use super::linear::{Layout, Linear};
use super::mlp::activate;
use super::norm::{Norm, NormKind};
use super::params::{Builder, Init};
use super::rope::{Rope, Rotation};
use crate::error::Result;

/// The token embedding's name.
pub const EMBEDDING: &str = "model.embed_tokens.weight";

/// Llama without its head.
pub struct Llama {
    config: LlamaConfig,
    embed_tokens: Tensor,
    rope: Rope,
    layers: Vec<Layer>,
    norm: Norm,
}

struct Layer {
    input_layernorm: Norm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    attention: Attention,
    o_proj: Linear,
    post_attention_layernorm: Norm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

/// The bare `LlamaModel` has no prefix, transformers' heads write one.
pub fn canonical_name(name: &str) -> String {
    let bare = ["model.", "lm_head.", "score."].iter().all(|prefix| !name.starts_with(prefix));
    if bare { format!("model.{name}") } else { name.to_owned() }
}

/// Frequencies that old checkpoints carry as tensors.
pub fn known_extra(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}

impl Llama {
    /// Takes its tensors from `builder`; random ones as transformers draws them.
    ///
    /// # Errors
    /// As [`Builder::take`].
    pub fn new(config: LlamaConfig, builder: &mut Builder) -> Result<Self> {
        let normal = Init::Normal { std: config.initializer_range };
        let embed_tokens = builder.take(EMBEDDING, &[config.vocab_size, config.hidden_size], normal)?;
        let rope = Rope::new(config.rope_theta, config.head_dim, builder.device())?;
        let layers = (0..config.num_hidden_layers).map(|n| Layer::new(&config, n, builder)).collect::<Result<_>>()?;
        let norm = norm("model.norm", &config, builder, Kind::Float)?;
        Ok(Llama { config, embed_tokens, rope, layers, norm })
    }

    /// The token embedding, `[V, D]`.
    pub fn embedding(&self) -> &Tensor {
        &self.embed_tokens
    }
}

impl Layer {
    fn new(config: &LlamaConfig, layer: i64, builder: &mut Builder) -> Result<Self> {
        let (d, inner, head_dim) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let (compute, std) = (builder.compute(), config.initializer_range);
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let (attn_bias, mlp_bias) = (config.attention_bias, config.mlp_bias);
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        Ok(Layer {
            input_layernorm: norm(&name("input_layernorm"), config, builder, compute)?,
            q_proj: linear(&name("self_attn.q_proj"), [q, d], attn_bias, std, builder)?,
            k_proj: linear(&name("self_attn.k_proj"), [kv, d], attn_bias, std, builder)?,
            v_proj: linear(&name("self_attn.v_proj"), [kv, d], attn_bias, std, builder)?,
            attention: Attention { heads, kv_heads, head_dim, layer: layer as usize },
            o_proj: linear(&name("self_attn.o_proj"), [d, q], attn_bias, std, builder)?,
            post_attention_layernorm: norm(&name("post_attention_layernorm"), config, builder, compute)?,
            gate_proj: linear(&name("mlp.gate_proj"), [inner, d], mlp_bias, std, builder)?,
            up_proj: linear(&name("mlp.up_proj"), [inner, d], mlp_bias, std, builder)?,
            down_proj: linear(&name("mlp.down_proj"), [d, inner], mlp_bias, std, builder)?,
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        config: &LlamaConfig,
        rotation: &Rotation,
        input: &ModelInput,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let normed = self.input_layernorm.forward(x)?;
        let rotated = |projection: &Linear, heads: i64| -> Result<Tensor> {
            let split = projection.forward(&normed)?.f_view([-1, heads, config.head_dim])?;
            Ok(rotation.apply(&split)?.f_view([-1, heads * config.head_dim])?)
        };
        let q = rotated(&self.q_proj, config.num_attention_heads)?;
        let k = rotated(&self.k_proj, config.num_key_value_heads)?;
        let v = self.v_proj.forward(&normed)?;
        let x = x.f_add(&self.o_proj.forward(&self.attention.separate([q, k, v], input, cache)?)?)?;
        let normed = self.post_attention_layernorm.forward(&x)?;
        let gate = activate(&self.gate_proj.forward(&normed)?, config.hidden_act)?;
        let inner = gate.f_mul(&self.up_proj.forward(&normed)?)?;
        Ok(x.f_add(&self.down_proj.forward(&inner)?)?)
    }
}

impl Backbone for Llama {
    fn hidden_states(&self, input: &ModelInput, mut cache: Option<&mut KvCache>) -> Result<Tensor> {
        let mut x = Tensor::f_embedding(&self.embed_tokens, &input.tokens, -1, false, false)?;
        let rotation = self.rope.rotation(&input.positions)?;
        for layer in &self.layers {
            x = layer.forward(&x, &self.config, &rotation, input, cache.as_deref_mut())?;
        }
        self.norm.forward(&x)
    }

    fn dims(&self) -> Dims {
        let config = &self.config;
        Dims {
            vocab: config.vocab_size,
            hidden: config.hidden_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            context: config.max_position_embeddings,
        }
    }
}

fn norm(name: &str, config: &LlamaConfig, builder: &mut Builder, output: Kind) -> Result<Norm> {
    let weight = builder.take(&format!("{name}.weight"), &[config.hidden_size], Init::Ones)?;
    Ok(Norm::new(NormKind::RootMeanSquare, weight, None, config.rms_norm_eps, output))
}

fn linear(name: &str, shape: [i64; 2], bias: bool, std: f64, builder: &mut Builder) -> Result<Linear> {
    let weight = builder.take_matrix(&format!("{name}.weight"), &shape, Init::Normal { std })?;
    let bias = if bias { Some(builder.take_matrix(&format!("{name}.bias"), &shape[..1], Init::Zeros)?) } else { None };
    Ok(Linear::new(weight, bias, Layout::OutIn, builder.compute()))
}
