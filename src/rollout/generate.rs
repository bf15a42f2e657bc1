//! Decoding with a key/value cache, batched over prompts of different lengths. Owns the loop; the choice of a token
//! stands in `sampling`.
use tch::Tensor;

use super::sampling::{Sampling, sample, uniform};
use crate::error::{Error, Result};
use crate::model::{CausalLm, KvCache, ModelInput};

/// What [`generate`] does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerateOptions {
    /// A completion ends after so many tokens at the latest.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The token that ends a completion; it is part of it.
    pub eos: Option<i64>,
    /// The seed of all draws.
    pub seed: u64,
    /// Prompts decoded at once.
    pub batch_size: usize,
}

/// A completion for each prompt, EOS included where it ended with one; `progress` hears the number of finished ones after
/// every token and may stop the work with an error.
///
/// Token t of prompt i is drawn with a number from (seed, i, t): how prompts are batched changes nothing but rounding.
///
/// # Errors
/// [`Error::Usage`] for an empty prompt, one that leaves no room in the model's context, or sampling values out of range.
pub fn generate(
    model: &CausalLm,
    prompts: &[Vec<i64>],
    options: &GenerateOptions,
    mut progress: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Vec<i64>>> {
    let _part = part!("generation").entered();
    let _guard = tch::no_grad_guard();
    check(model, prompts, options)?;
    let mut completions = vec![Vec::new(); prompts.len()];
    if options.max_new_tokens == 0 {
        return Ok(completions);
    }
    let mut finished = 0;
    let order: Vec<usize> = (0..prompts.len()).collect();
    for indices in order.chunks(options.batch_size) {
        let mut batch = Batch::prefill(model, prompts, indices, options)?;
        loop {
            finished += batch.choose(&mut completions)?;
            progress(finished)?;
            if !batch.step()? {
                break;
            }
        }
    }
    Ok(completions)
}

/// The sequences that are being decoded together.
struct Batch<'a> {
    model: &'a CausalLm,
    options: &'a GenerateOptions,
    cache: KvCache,
    /// A row's prompt, or None once its completion has ended: it leaves at the next [`Batch::compact`].
    prompts: Vec<Option<usize>>,
    /// Each row's next token.
    tokens: Vec<i64>,
    /// Hidden states `[rows, D]` of each row's last token.
    hidden: Tensor,
    /// Tokens chosen so far.
    place: usize,
}

impl<'a> Batch<'a> {
    /// Runs the prompts, as one flat batch, into a new cache.
    fn prefill(
        model: &'a CausalLm,
        prompts: &[Vec<i64>],
        indices: &[usize],
        options: &'a GenerateOptions,
    ) -> Result<Self> {
        let chosen: Vec<&[i64]> = indices.iter().map(|&index| prompts[index].as_slice()).collect();
        let longest = chosen.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let mut cache = model.new_cache(indices.len(), longest + options.max_new_tokens)?;
        let input = ModelInput::from_sequences(&chosen, model.device())?;
        let hidden = model.hidden_states(&input, Some(&mut cache))?;
        let mut end = 0;
        let ends = chosen.iter().map(|prompt| {
            end += prompt.len() as i64;
            end - 1
        });
        let ends = Tensor::f_from_slice(&ends.collect::<Vec<_>>())?.f_to_device(model.device())?;
        let hidden = hidden.f_index_select(0, &ends)?;
        let prompts = indices.iter().copied().map(Some).collect();
        Ok(Batch { model, options, cache, prompts, tokens: vec![0; indices.len()], hidden, place: 0 })
    }

    /// Chooses each row's next token and adds it to its completion; gives the number of completions that ended.
    fn choose(&mut self, completions: &mut [Vec<i64>]) -> Result<usize> {
        let logits = self.model.logits(&self.hidden)?;
        let draw = |row: &Option<usize>| row.map_or(0.0, |i| uniform(self.options.seed, i as u64, self.place as u64));
        let uniforms: Vec<f64> = self.prompts.iter().map(draw).collect();
        self.tokens = sample(&logits, &self.options.sampling, &uniforms)?;
        self.place += 1;
        let mut ended = 0;
        for (row, &token) in self.prompts.iter_mut().zip(&self.tokens) {
            let Some(prompt) = *row else { continue };
            completions[prompt].push(token);
            if Some(token) == self.options.eos || self.place == self.options.max_new_tokens {
                *row = None;
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// Runs the chosen tokens; false when no row is left.
    fn step(&mut self) -> Result<bool> {
        self.compact()?;
        if self.prompts.iter().all(Option::is_none) {
            return Ok(false);
        }
        let input = ModelInput::step(&self.tokens, &self.cache)?;
        self.hidden = self.model.hidden_states(&input, Some(&mut self.cache))?;
        Ok(true)
    }

    /// Ended rows leave. Copying the cache costs about as much as a quarter of the rows, so they leave by the quarter.
    fn compact(&mut self) -> Result<()> {
        let live: Vec<usize> = (0..self.prompts.len()).filter(|&row| self.prompts[row].is_some()).collect();
        if live.is_empty() || 4 * live.len() > 3 * self.prompts.len() {
            return Ok(());
        }
        self.cache.keep(&live)?;
        self.tokens = live.iter().map(|&row| self.tokens[row]).collect();
        self.prompts = live.iter().map(|&row| self.prompts[row]).collect();
        Ok(())
    }
}

fn check(model: &CausalLm, prompts: &[Vec<i64>], options: &GenerateOptions) -> Result<()> {
    if options.batch_size == 0 {
        return Err(Error::usage("a batch of 0 prompts decodes nothing", "use a batch size of at least 1"));
    }
    if !options.sampling.greedy {
        options.sampling.validate()?;
    }
    let context = model.dims().context;
    for (i, prompt) in prompts.iter().enumerate() {
        if prompt.is_empty() {
            return Err(Error::usage(
                format!("prompt {} is empty", i + 1),
                "give at least one token, BOS for instance",
            ));
        }
        let needed = (prompt.len() + options.max_new_tokens) as i64;
        if needed > context {
            let message = format!("prompt {} and {} new tokens need {needed} places", i + 1, options.max_new_tokens);
            return Err(Error::usage(message, format!("the model has {context}: shorten one of the two")));
        }
    }
    Ok(())
}
