//! OPT (Zhang et al. 2022) as transformers' `OPTModel` computes it: norms before or after, embeddings of a width of their
//! own, learned positions from 2. Owns its keys and tensor names; no head, no files.
use std::sync::Arc;

use tch::{Kind, Tensor};

use super::attention::Attention;
use super::backbone::{Backbone, Dims};
use super::blocks::{Block, Blocks, at};
use super::cache::KvCache;
use super::family::{Facts, Family, LM_HEAD, Spec};
use super::input::ModelInput;
use super::keys::Keys;
use super::linear::{Layout, Linear, cast};
use super::mlp::{Activation, feed_forward};
use super::norm::{Norm, NormKind};
use super::params::{Builder, Init};
use super::{dropout, embed};
use crate::error::Result;

/// The family's names.
pub static SPEC: Spec = Spec {
    model_type: "opt",
    causal: "OPTForCausalLM",
    classifier: "OPTForSequenceClassification",
    prefix: "model.",
    embedding: "model.decoder.embed_tokens.weight",
    head: LM_HEAD,
    known_extra: |_| false,
    read: |keys| Ok(Box::new(Config::read(keys)?)),
};

/// Rows of the position embedding that stand before position 0.
const OFFSET: i64 = 2;
/// transformers leaves `torch.nn.LayerNorm`'s own.
const LAYER_NORM_EPS: f64 = 1e-5;

/// OPT's keys, under transformers' names.
#[derive(Debug, Clone, PartialEq)]
struct Config {
    vocab_size: i64,
    hidden_size: i64,
    num_hidden_layers: i64,
    ffn_dim: i64,
    max_position_embeddings: i64,
    do_layer_norm_before: bool,
    remove_final_layer_norm: bool,
    word_embed_proj_dim: i64,
    num_attention_heads: i64,
    activation_function: Activation,
    init_std: f64,
    enable_bias: bool,
    layer_norm_elementwise_affine: bool,
    tie_word_embeddings: bool,
}

impl Config {
    fn read(keys: &Keys) -> Result<Self> {
        let hidden_size = keys.size(&["hidden_size"], 768)?;
        let num_attention_heads = keys.size(&["num_attention_heads"], 12)?;
        keys.even_heads("num_attention_heads", hidden_size, num_attention_heads)?;
        Ok(Config {
            vocab_size: keys.size(&["vocab_size"], 50272)?,
            hidden_size,
            num_hidden_layers: keys.size(&["num_hidden_layers"], 12)?,
            ffn_dim: keys.size(&["ffn_dim"], 3072)?,
            max_position_embeddings: keys.size(&["max_position_embeddings"], 2048)?,
            do_layer_norm_before: keys.flag("do_layer_norm_before", true)?,
            remove_final_layer_norm: keys.flag("_remove_final_layer_norm", false)?,
            word_embed_proj_dim: keys.size(&["word_embed_proj_dim"], hidden_size)?,
            num_attention_heads,
            activation_function: keys.activation("activation_function", Activation::Relu)?,
            init_std: keys.number(&["init_std"], 0.02)?,
            enable_bias: keys.flag("enable_bias", true)?,
            layer_norm_elementwise_affine: keys.flag("layer_norm_elementwise_affine", true)?,
            tie_word_embeddings: keys.flag("tie_word_embeddings", true)?,
        })
    }

    fn norm(&self, name: &str, builder: &mut Builder, output: Kind) -> Result<Norm> {
        let width = self.hidden_size;
        if self.layer_norm_elementwise_affine {
            Norm::take(builder, name, NormKind::Layer, (width, LAYER_NORM_EPS), output)
        } else {
            Ok(Norm::plain(width, LAYER_NORM_EPS, output))
        }
    }

    /// Sizes.
    fn dims(&self) -> Dims {
        Dims {
            vocab: self.vocab_size,
            hidden: self.word_embed_proj_dim,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads: self.num_attention_heads,
            head_dim: self.hidden_size / self.num_attention_heads,
            context: self.max_position_embeddings,
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
            initializer_range: self.init_std,
            most_tokens: Some(self.max_position_embeddings),
            steady_tokens: None,
            dims: self.dims(),
        }
    }

    fn build(&self, builder: &mut Builder) -> Result<(Box<dyn Backbone>, Tensor)> {
        let backbone = Opt::new(self.clone(), builder)?;
        let embedding = backbone.embed_tokens.shallow_clone();
        Ok((Box::new(backbone), embedding))
    }
}

/// OPT without its head.
struct Opt {
    config: Arc<Config>,
    embed_tokens: Tensor,
    embed_positions: Tensor,
    /// Between the embeddings' width and the layers', where they differ: into the layers and out of them.
    projections: Option<[Linear; 2]>,
    layers: Blocks<Layer>,
    final_layer_norm: Option<Norm>,
}

struct Layer {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    attention: Attention,
    out_proj: Linear,
    self_attn_layer_norm: Norm,
    fc1: Linear,
    fc2: Linear,
    final_layer_norm: Norm,
}

impl Opt {
    fn new(config: Config, builder: &mut Builder) -> Result<Self> {
        let (d, embedded, std) = (config.hidden_size, config.word_embed_proj_dim, config.init_std);
        let normal = Init::Normal { std };
        let embed_tokens = builder.take(SPEC.embedding, &[config.vocab_size, embedded], normal)?;
        let places = config.max_position_embeddings + OFFSET;
        let embed_positions = builder.take("model.decoder.embed_positions.weight", &[places, d], normal)?;
        let mut project = |part: &str, shape: [i64; 2]| {
            Linear::take(builder, &format!("model.decoder.{part}"), Layout::OutIn, shape, false, std)
        };
        let projections = match embedded == d {
            true => None,
            false => Some([project("project_in", [d, embedded])?, project("project_out", [embedded, d])?]),
        };
        let layers = Blocks::take(builder, config.num_hidden_layers, |n, builder| Layer::new(&config, n, builder))?;
        let final_layer_norm = match config.do_layer_norm_before && !config.remove_final_layer_norm {
            true => Some(config.norm("model.decoder.final_layer_norm", builder, Kind::Float)?),
            false => None,
        };
        Ok(Opt { config: Arc::new(config), embed_tokens, embed_positions, projections, layers, final_layer_norm })
    }
}

impl Layer {
    fn new(config: &Config, layer: i64, builder: &mut Builder) -> Result<Self> {
        let (d, inner, std, bias) = (config.hidden_size, config.ffn_dim, config.init_std, config.enable_bias);
        let name = |part: &str| format!("model.decoder.layers.{layer}.{part}");
        let heads = config.num_attention_heads;
        // After a norm comes a product; with norms after the parts, their results are the residual stream itself.
        let output = if config.do_layer_norm_before { builder.compute() } else { Kind::Float };
        let mut linear =
            |part: &str, shape: [i64; 2]| Linear::take(builder, &name(part), Layout::OutIn, shape, bias, std);
        let k_proj = linear("self_attn.k_proj", [d, d])?;
        let v_proj = linear("self_attn.v_proj", [d, d])?;
        let q_proj = linear("self_attn.q_proj", [d, d])?;
        let out_proj = linear("self_attn.out_proj", [d, d])?;
        let fc1 = linear("fc1", [inner, d])?;
        let fc2 = linear("fc2", [d, inner])?;
        Ok(Layer {
            q_proj,
            k_proj,
            v_proj,
            attention: Attention::new(layer, (heads, heads, d / heads)),
            out_proj,
            self_attn_layer_norm: config.norm(&name("self_attn_layer_norm"), builder, output)?,
            fc1,
            fc2,
            final_layer_norm: config.norm(&name("final_layer_norm"), builder, output)?,
        })
    }

    fn attend(
        &self,
        x: &Tensor,
        input: &ModelInput,
        cache: Option<&mut KvCache>,
        rows: Option<&Tensor>,
    ) -> Result<Tensor> {
        let parts = [self.q_proj.forward(x)?, self.k_proj.forward(x)?, self.v_proj.forward(x)?];
        dropout(self.out_proj.forward(&at(&self.attention.separate(parts, input, cache)?, rows)?)?, input)
    }

    fn feed_forward(&self, x: &Tensor, config: &Config, input: &ModelInput) -> Result<Tensor> {
        dropout(feed_forward(&self.fc1.forward(x)?, None, config.activation_function, &self.fc2)?, input)
    }
}

impl Block for Layer {
    type Common = Arc<Config>;

    fn forward(
        &self,
        x: &Tensor,
        config: &Arc<Config>,
        input: &ModelInput,
        cache: Option<&mut KvCache>,
        rows: Option<&Tensor>,
    ) -> Result<Tensor> {
        if config.do_layer_norm_before {
            let normed = self.self_attn_layer_norm.forward(x)?;
            let x = at(x, rows)?.f_add(&self.attend(&normed, input, cache, rows)?)?;
            return Ok(x.f_add(&self.feed_forward(&self.final_layer_norm.forward(&x)?, config, input)?)?);
        }
        let attended = self.attend(x, input, cache, rows)?;
        let x = self.self_attn_layer_norm.forward(&at(x, rows)?.f_add(&attended)?)?;
        self.final_layer_norm.forward(&x.f_add(&self.feed_forward(&x, config, input)?)?)
    }
}

impl Backbone for Opt {
    fn hidden_states(&self, input: &ModelInput, cache: Option<&mut KvCache>) -> Result<Tensor> {
        let mut x = embed(&self.embed_tokens, &input.tokens)?;
        if let Some([project_in, _]) = &self.projections {
            x = cast(&project_in.forward(&x)?, Kind::Float)?;
        }
        let places = input.positions.f_add_scalar(OFFSET)?;
        x = dropout(x.f_add(&embed(&self.embed_positions, &places)?)?, input)?;
        x = self.layers.forward(x, self.config.clone(), input, cache)?;
        if let Some(norm) = &self.final_layer_norm {
            x = norm.forward(&x)?;
        }
        match &self.projections {
            Some([_, project_out]) => cast(&project_out.forward(&x)?, Kind::Float),
            None => Ok(x),
        }
    }

    fn dims(&self) -> Dims {
        self.config.dims()
    }
}
