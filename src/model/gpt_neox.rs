//! GPT-NeoX (Black et al. 2022) and Pythia as transformers' `GPTNeoXModel` computes them. Owns its keys and tensor names;
//! no head, no files.
use std::sync::Arc;

use tch::{Kind, Tensor};

use super::attention::Attention;
use super::backbone::{Backbone, Dims};
use super::blocks::{Block, Blocks, at};
use super::cache::KvCache;
use super::family::{Facts, Family, Spec};
use super::input::ModelInput;
use super::keys::Keys;
use super::linear::{Layout, Linear};
use super::mlp::{Activation, feed_forward};
use super::norm::{Norm, NormKind};
use super::params::{Builder, Init};
use super::rope::{Rope, RopeConfig, Rotation};
use super::{dropout, embed};
use crate::error::Result;

/// The family's names.
pub static SPEC: Spec = Spec {
    model_type: "gpt_neox",
    causal: "GPTNeoXForCausalLM",
    classifier: "GPTNeoXForSequenceClassification",
    prefix: "gpt_neox.",
    embedding: "gpt_neox.embed_in.weight",
    head: "embed_out.weight",
    // Masks and frequencies that old checkpoints carry as tensors.
    known_extra: |name| {
        let ends = [".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"];
        name.starts_with("gpt_neox.layers.") && ends.iter().any(|end| name.ends_with(end))
    },
    read: |keys| Ok(Box::new(Config::read(keys)?)),
};

/// GPT-NeoX's keys, under transformers' names.
#[derive(Debug, Clone, PartialEq)]
struct Config {
    vocab_size: i64,
    hidden_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    intermediate_size: i64,
    hidden_act: Activation,
    max_position_embeddings: i64,
    layer_norm_eps: f64,
    initializer_range: f64,
    tie_word_embeddings: bool,
    use_parallel_residual: bool,
    attention_bias: bool,
    rope: RopeConfig,
}

impl Config {
    fn read(keys: &Keys) -> Result<Self> {
        let hidden_size = keys.size(&["hidden_size"], 6144)?;
        let heads = keys.size(&["num_attention_heads"], 64)?;
        let head_dim = keys.even_heads("num_attention_heads", hidden_size, heads)?;
        if keys.size(&["head_dim"], head_dim)? != head_dim {
            return keys
                .fail("head_dim", format_args!("only hidden_size / num_attention_heads = {head_dim} is supported"));
        }
        let context = keys.size(&["max_position_embeddings"], 2048)?;
        Ok(Config {
            vocab_size: keys.size(&["vocab_size"], 50432)?,
            hidden_size,
            num_hidden_layers: keys.size(&["num_hidden_layers"], 44)?,
            num_attention_heads: heads,
            intermediate_size: keys.size(&["intermediate_size"], 24576)?,
            hidden_act: keys.activation("hidden_act", Activation::Gelu)?,
            max_position_embeddings: context,
            layer_norm_eps: keys.number(&["layer_norm_eps"], 1e-5)?,
            initializer_range: keys.number(&["initializer_range"], 0.02)?,
            tie_word_embeddings: keys.flag("tie_word_embeddings", false)?,
            use_parallel_residual: keys.flag("use_parallel_residual", true)?,
            attention_bias: keys.flag("attention_bias", true)?,
            rope: RopeConfig::read(keys, head_dim, context, (0.25, "rotary_pct"), "rotary_emb_base")?,
        })
    }

    fn head_dim(&self) -> i64 {
        self.hidden_size / self.num_attention_heads
    }

    /// Sizes.
    fn dims(&self) -> Dims {
        Dims {
            vocab: self.vocab_size,
            hidden: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads: self.num_attention_heads,
            head_dim: self.head_dim(),
            context: self.rope.reach(self.max_position_embeddings),
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
            most_tokens: None,
            steady_tokens: self.rope.steady(),
            dims: self.dims(),
        }
    }

    fn build(&self, builder: &mut Builder) -> Result<(Box<dyn Backbone>, Tensor)> {
        let backbone = GptNeoX::new(self.clone(), builder)?;
        let embedding = backbone.embed_in.shallow_clone();
        Ok((Box::new(backbone), embedding))
    }
}

/// GPT-NeoX without its head.
struct GptNeoX {
    config: Arc<Config>,
    embed_in: Tensor,
    rope: Rope,
    layers: Blocks<Layer>,
    final_layer_norm: Norm,
}

struct Layer {
    input_layernorm: Norm,
    query_key_value: Linear,
    attention: Attention,
    dense: Linear,
    post_attention_layernorm: Norm,
    dense_h_to_4h: Linear,
    dense_4h_to_h: Linear,
}

impl GptNeoX {
    fn new(config: Config, builder: &mut Builder) -> Result<Self> {
        let normal = Init::Normal { std: config.initializer_range };
        let embed_in = builder.take(SPEC.embedding, &[config.vocab_size, config.hidden_size], normal)?;
        let rope = Rope::new(config.rope.clone(), builder.device())?;
        let layers = Blocks::take(builder, config.num_hidden_layers, |n, builder| Layer::new(&config, n, builder))?;
        let final_layer_norm = norm("gpt_neox.final_layer_norm", &config, builder, Kind::Float)?;
        Ok(GptNeoX { config: Arc::new(config), embed_in, rope, layers, final_layer_norm })
    }
}

impl Layer {
    fn new(config: &Config, layer: i64, builder: &mut Builder) -> Result<Self> {
        let (d, inner, std) = (config.hidden_size, config.intermediate_size, config.initializer_range);
        let (heads, compute, bias) = (config.num_attention_heads, builder.compute(), config.attention_bias);
        let name = |part: &str| format!("gpt_neox.layers.{layer}.{part}");
        let mut linear = |part: &str, shape: [i64; 2], bias: bool| {
            Linear::take(builder, &name(part), Layout::OutIn, shape, bias, std)
        };
        let query_key_value = linear("attention.query_key_value", [3 * d, d], bias)?;
        let dense = linear("attention.dense", [d, d], bias)?;
        let dense_h_to_4h = linear("mlp.dense_h_to_4h", [inner, d], true)?;
        let dense_4h_to_h = linear("mlp.dense_4h_to_h", [d, inner], true)?;
        Ok(Layer {
            input_layernorm: norm(&name("input_layernorm"), config, builder, compute)?,
            query_key_value,
            attention: Attention::new(layer, (heads, heads, config.head_dim())),
            dense,
            post_attention_layernorm: norm(&name("post_attention_layernorm"), config, builder, compute)?,
            dense_h_to_4h,
            dense_4h_to_h,
        })
    }

    fn attend(
        &self,
        x: &Tensor,
        (config, rotation): (&Config, &Rotation),
        input: &ModelInput,
        cache: Option<&mut KvCache>,
        rows: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (heads, head_dim) = (config.num_attention_heads, config.head_dim());
        // Each head's query, key and value lie side by side.
        let qkv = self.query_key_value.forward(x)?.f_view([-1, heads, 3 * head_dim])?;
        let part = |n: i64| qkv.f_narrow(-1, n * head_dim, head_dim);
        let flat = |x: Tensor| x.f_reshape([-1, heads * head_dim]);
        let q = flat(rotation.apply(&part(0)?)?)?;
        let k = flat(rotation.apply(&part(1)?)?)?;
        let v = flat(part(2)?)?;
        dropout(self.dense.forward(&at(&self.attention.separate([q, k, v], input, cache)?, rows)?)?, input)
    }

    fn feed_forward(&self, x: &Tensor, config: &Config, input: &ModelInput) -> Result<Tensor> {
        let inner = self.dense_h_to_4h.forward(&self.post_attention_layernorm.forward(x)?)?;
        dropout(feed_forward(&inner, None, config.hidden_act, &self.dense_4h_to_h)?, input)
    }
}

impl Block for Layer {
    type Common = (Arc<Config>, Rotation);

    fn forward(
        &self,
        x: &Tensor,
        (config, rotation): &Self::Common,
        input: &ModelInput,
        cache: Option<&mut KvCache>,
        rows: Option<&Tensor>,
    ) -> Result<Tensor> {
        let normed = self.input_layernorm.forward(x)?;
        let attended = self.attend(&normed, (config, rotation), input, cache, rows)?;
        let x = at(x, rows)?;
        let after = x.f_add(&attended)?;
        let seen = if config.use_parallel_residual { &x } else { &after };
        Ok(after.f_add(&self.feed_forward(seen, config, input)?)?)
    }
}

impl Backbone for GptNeoX {
    fn hidden_states(&self, input: &ModelInput, cache: Option<&mut KvCache>) -> Result<Tensor> {
        let x = dropout(embed(&self.embed_in, &input.tokens)?, input)?;
        let rotation = self.rope.rotation(input)?;
        let x = self.layers.forward(x, (self.config.clone(), rotation), input, cache)?;
        self.final_layer_norm.forward(&x)
    }

    fn dims(&self) -> Dims {
        self.config.dims()
    }
}

fn norm(name: &str, config: &Config, builder: &mut Builder, output: Kind) -> Result<Norm> {
    Norm::take(builder, name, NormKind::Layer, (config.hidden_size, config.layer_norm_eps), output)
}
