//! Decoding with a key/value cache, batched over prompts of different lengths. Owns the loop; the choice of a token
//! stands in `sampling`.
use std::collections::HashMap;

use tch::Tensor;

use super::sampling::{Sampling, choose, uniform};
use crate::error::{Error, Result};
use crate::model::{CausalLm, Decoding, KvCache, ModelInput};

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

/// Prompt tokens that run through the model at once: enough for its products, and their activations stay small.
const PREFILL_TOKENS: usize = 1024;

/// A completion and what was seen when it was sampled, one number a token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// Ids, EOS included where it ended with one.
    pub tokens: Vec<i64>,
    /// log of the probability that each token was drawn with: at the temperature, after top-k and top-p; 0 in greedy
    /// decoding.
    pub logprobs: Vec<f64>,
    /// Values of the states that the tokens were chosen in; empty where there are none.
    pub values: Vec<f64>,
}

/// Values `[B]` float32 of states by their hidden states `[B, D]`, or none.
pub type StateValues<'a> = &'a dyn Fn(&Tensor) -> Result<Option<Tensor>>;

/// The tokens of [`complete`].
///
/// # Errors
/// As [`complete`].
pub fn generate(
    model: &CausalLm,
    prompts: &[Vec<i64>],
    options: &GenerateOptions,
    progress: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Vec<i64>>> {
    let completions = complete(model, prompts, options, &|_| Ok(None), progress)?;
    Ok(completions.into_iter().map(|completion| completion.tokens).collect())
}

/// A completion for each prompt, EOS included where it ended with one, with what `values` says of its states; `progress` hears
/// the number of finished ones after every token and may stop the work with an error.
///
/// Token t of prompt i is drawn with a number from (seed, i, t): how prompts are batched changes nothing but rounding. A
/// prompt that stands in a batch several times runs through the model once.
///
/// # Errors
/// [`Error::Usage`] for an empty prompt, one that leaves no room in the model's context, or sampling values out of range.
pub fn complete(
    model: &CausalLm,
    prompts: &[Vec<i64>],
    options: &GenerateOptions,
    values: StateValues<'_>,
    mut progress: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Completion>> {
    let _part = part!("generation").entered();
    let (_no_grad, _decoding) = (tch::no_grad_guard(), Decoding::begin());
    check(model, prompts, options)?;
    let mut completions = vec![Completion::default(); prompts.len()];
    if options.max_new_tokens == 0 {
        return Ok(completions);
    }
    let mut finished = 0;
    let order: Vec<usize> = (0..prompts.len()).collect();
    for indices in order.chunks(options.batch_size) {
        let mut batch = Batch::prefill(model, prompts, indices, options)?;
        loop {
            finished += batch.choose(&mut completions, values)?;
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
    /// Runs the prompts into a new cache, each of them once; what it left is then copied for its other rows.
    fn prefill(
        model: &'a CausalLm,
        prompts: &[Vec<i64>],
        indices: &[usize],
        options: &'a GenerateOptions,
    ) -> Result<Self> {
        let (mut distinct, mut known) = (Vec::new(), HashMap::new());
        let mut place = |&index: &usize| {
            *known.entry(prompts[index].as_slice()).or_insert_with_key(|prompt| {
                distinct.push(*prompt);
                distinct.len() - 1
            })
        };
        let sources: Vec<usize> = indices.iter().map(&mut place).collect();
        let longest = distinct.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        // The last token is chosen, not run.
        let mut cache = model.new_cache(distinct.len(), longest + options.max_new_tokens - 1)?;
        let mut hidden = run_prompts(model, &distinct, &mut cache)?;
        if distinct.len() < indices.len() {
            cache.keep(&sources)?;
            hidden = hidden.f_index_select(0, &index(&sources, model)?)?;
        }
        let prompts = indices.iter().copied().map(Some).collect();
        Ok(Batch { model, options, cache, prompts, tokens: vec![0; indices.len()], hidden, place: 0 })
    }

    /// Chooses each row's next token and adds it to its completion; gives the number of completions that ended.
    fn choose(&mut self, completions: &mut [Completion], values: StateValues<'_>) -> Result<usize> {
        let logits = self.model.logits(&self.hidden)?;
        let draw = |row: &Option<usize>| row.map_or(0.0, |i| uniform(self.options.seed, i as u64, self.place as u64));
        let uniforms: Vec<f64> = self.prompts.iter().map(draw).collect();
        let drawn = choose(&logits, &self.options.sampling, &uniforms)?;
        let values: Option<Vec<f32>> = values(&self.hidden)?.map(Vec::try_from).transpose()?;
        self.tokens = drawn.tokens;
        self.place += 1;
        let mut ended = 0;
        for (at, (row, &token)) in self.prompts.iter_mut().zip(&self.tokens).enumerate() {
            let Some(prompt) = *row else { continue };
            let completion = &mut completions[prompt];
            completion.tokens.push(token);
            completion.logprobs.push(drawn.logprobs[at]);
            completion.values.extend(values.iter().map(|values| f64::from(values[at])));
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

    /// Ended rows leave: at once where the cache stays as it is, else by the quarter, as copying it costs about as much as a
    /// quarter of the rows.
    fn compact(&mut self) -> Result<()> {
        let live: Vec<usize> = (0..self.prompts.len()).filter(|&row| self.prompts[row].is_some()).collect();
        let few = if self.cache.in_place() {
            live.len() < self.prompts.len()
        } else {
            4 * live.len() <= 3 * self.prompts.len()
        };
        if live.is_empty() || !few {
            return Ok(());
        }
        self.cache.keep(&live)?;
        self.tokens = live.iter().map(|&row| self.tokens[row]).collect();
        self.prompts = live.iter().map(|&row| self.prompts[row]).collect();
        Ok(())
    }
}

/// Hidden states `[n, D]` of the last tokens of n prompts, whose keys and values are left in the cache's n rows.
fn run_prompts(model: &CausalLm, prompts: &[&[i64]], cache: &mut KvCache) -> Result<Tensor> {
    let (mut hidden, mut from) = (Vec::new(), 0);
    while from < prompts.len() {
        let mut tokens = 0;
        let fits = |prompt: &&&[i64]| {
            tokens += prompt.len();
            tokens <= PREFILL_TOKENS
        };
        let count = prompts[from..].iter().take_while(fits).count().max(1);
        let some = &prompts[from..from + count];
        let mut part = cache.part(from, count)?;
        let input = ModelInput::from_sequences(some, model.device())?;
        let mut next = 0;
        let last = |prompt: &&[i64]| {
            next += prompt.len();
            next - 1
        };
        let ends: Vec<usize> = some.iter().map(last).collect();
        hidden.push(model.states_at(&input, &index(&ends, model)?, Some(&mut part))?);
        cache.take_lengths(from, &part);
        from += count;
    }
    Ok(Tensor::f_cat(&hidden, 0)?)
}

fn index(rows: &[usize], model: &CausalLm) -> Result<Tensor> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    Ok(Tensor::f_from_slice(&rows)?.f_to_device(model.device())?)
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
