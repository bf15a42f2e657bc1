//! The least that a step has to compute, in floating-point operations. Owns the counting; sees sizes of models and
//! batches only.
//!
//! Counted are matrix products alone, a multiplication and an addition as two operations: every distinct token once
//! through the backbone's matrices (a pair's prompt once for both completions), every query with the keys that it may
//! see (itself and the tokens before it; a window that is narrower than the sequence is not subtracted), and the
//! language-model head on targets. Backward takes twice what forward takes. Not counted: norms, activations, softmax,
//! the optimizer, heads of one number, and anything done twice.
use crate::data::Flat;
use crate::model::Model;

/// What a model's products take, in operations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// A token through the backbone's matrices.
    pub token: f64,
    /// A query with one key and its value, in all layers.
    pub pair: f64,
    /// The language-model head for a target.
    pub target: f64,
}

/// How much there is of each.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Distinct tokens.
    pub tokens: usize,
    /// Queries times the keys that each sees.
    pub pairs: usize,
    /// Targets.
    pub targets: usize,
}

impl Costs {
    /// Of a language model or a reward model.
    pub fn of(model: &Model) -> Self {
        let (params, spec, dims) = (model.params(), model.config().spec(), model.dims());
        let numel = |name: &str| params.get(name).map_or(0, tch::Tensor::numel);
        // A tied head is the embedding and no tensor of its own; either has the same size.
        let (embedding, head) = (numel(spec.embedding), numel(spec.head));
        Costs {
            token: 2.0 * (params.products() - head) as f64,
            pair: 4.0 * (dims.layers * dims.heads * dims.head_dim) as f64,
            target: 2.0 * embedding as f64,
        }
    }

    /// The backbone, forward.
    pub fn backbone(&self, load: &Load) -> f64 {
        self.token * load.tokens as f64 + self.pair * load.pairs as f64
    }

    /// Backbone and head, forward.
    pub fn forward(&self, load: &Load) -> f64 {
        self.backbone(load) + self.target * load.targets as f64
    }
}

impl Load {
    /// A flat batch's.
    pub fn of(flat: &Flat, targets: usize) -> Self {
        // A token at position p sees p + 1 tokens, in whichever of its rows.
        let pairs = flat.positions.iter().map(|&position| position as usize + 1).sum();
        Load { tokens: flat.len(), pairs, targets }
    }

    /// Decoding `rows` times `new_tokens` tokens after `prompt` ones: the last one is chosen and goes nowhere.
    pub fn decoding(rows: usize, prompt: usize, new_tokens: usize) -> Self {
        let passed = prompt + new_tokens - 1;
        Load { tokens: rows * passed, pairs: rows * passed * (passed + 1) / 2, targets: rows * new_tokens }
    }
}
