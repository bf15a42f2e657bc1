//! A model that decodes rows in step, a token each at a time. Owns their key/value cache; the choice of tokens is its caller's.
use super::forward::index;
use crate::error::Result;
use crate::model::{CausalLm, KvCache, ModelInput};
use std::collections::HashMap;
use tch::Tensor;

/// Prompt tokens that run through the model at once: enough for its products, and their activations stay small.
const PREFILL_TOKENS: usize = 1024;

/// The sequences that a model decodes together.
pub struct Decoder<'a> {
    model: &'a CausalLm,
    cache: KvCache,
    /// Hidden states `[rows, D]` of each row's last token.
    hidden: Tensor,
}

impl<'a> Decoder<'a> {
    /// Runs the prompts into a new cache with room for `new_tokens` more, each of them once; what it left is then copied for
    /// its other rows.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] when memory is short.
    pub fn prefill(model: &'a CausalLm, prompts: &[&[i64]], new_tokens: usize) -> Result<Self> {
        let (mut distinct, mut known) = (Vec::new(), HashMap::new());
        let mut place = |&prompt: &&[i64]| {
            *known.entry(prompt.to_vec()).or_insert_with(|| {
                distinct.push(prompt.to_vec());
                distinct.len() as i64 - 1
            })
        };
        let sources: Vec<i64> = prompts.iter().map(&mut place).collect();
        let longest = distinct.iter().map(Vec::len).max().unwrap_or(0);
        // The last token is chosen, not run.
        let mut cache = model.new_cache(distinct.len(), longest + new_tokens - 1)?;
        let mut hidden = run_prompts(model, &distinct, &mut cache)?;
        if distinct.len() < prompts.len() {
            cache.keep(&sources.iter().map(|&source| source as usize).collect::<Vec<_>>())?;
            hidden = hidden.f_index_select(0, &index(&sources, model.device())?)?;
        }
        Ok(Decoder { model, cache, hidden })
    }

    /// Hidden states `[rows, D]` of each row's last token.
    pub fn hidden(&self) -> &Tensor {
        &self.hidden
    }

    /// Logits `[rows, V]` of each row's next token.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] when memory is short.
    pub fn logits(&self) -> Result<Tensor> {
        self.model.logits(&self.hidden)
    }

    /// Runs each row's next token.
    ///
    /// # Errors
    /// One token a row is needed, and room in the cache.
    pub fn feed(&mut self, tokens: &[i64]) -> Result<()> {
        let input = ModelInput::step(tokens, &self.cache)?;
        self.hidden = self.model.hidden_states(&input, Some(&mut self.cache))?;
        Ok(())
    }

    /// Only these rows stay, in this order. Their hidden states are those of the next [`Decoder::feed`].
    ///
    /// # Errors
    /// [`crate::Error::Torch`] when memory is short.
    pub fn keep(&mut self, rows: &[usize]) -> Result<()> {
        self.cache.keep(rows)
    }

    /// Whether it pays to drop all but `live` of `rows` rows: at once where the cache stays as it is, else by the quarter, as
    /// copying it costs about as much as a quarter of the rows.
    pub fn sheds(&self, live: usize, rows: usize) -> bool {
        if self.cache.in_place() { live < rows } else { 4 * live <= 3 * rows }
    }
}

/// Hidden states `[n, D]` of the last tokens of n prompts, whose keys and values are left in the cache's n rows.
fn run_prompts(model: &CausalLm, prompts: &[Vec<i64>], cache: &mut KvCache) -> Result<Tensor> {
    let (mut hidden, mut from) = (Vec::new(), 0);
    while from < prompts.len() {
        let mut tokens = 0;
        let fits = |prompt: &&Vec<i64>| {
            tokens += prompt.len();
            tokens <= PREFILL_TOKENS
        };
        let count = prompts[from..].iter().take_while(fits).count().max(1);
        let some = &prompts[from..from + count];
        let mut part = cache.part(from, count)?;
        let input = ModelInput::from_sequences(some, model.device())?;
        let mut next = 0;
        let last = |prompt: &Vec<i64>| {
            next += prompt.len() as i64;
            next - 1
        };
        let ends: Vec<i64> = some.iter().map(last).collect();
        hidden.push(model.states_at(&input, &index(&ends, model.device())?, Some(&mut part))?);
        cache.take_lengths(from, &part);
        from += count;
    }
    Ok(Tensor::f_cat(&hidden, 0)?)
}
