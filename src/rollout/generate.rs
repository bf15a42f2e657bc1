//! Decoding with a key/value cache, batched over prompts of different lengths. Owns the loop; the choice of a token
//! stands in `sampling`.
use tch::Tensor;

use super::decoder::Decoder;
use super::sampling::{Sampling, choose, uniform};
use crate::error::{Error, Result};
use crate::model::{CausalLm, Decoding};

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
    decoder: Decoder<'a>,
    options: &'a GenerateOptions,
    /// A row's prompt, or None once its completion has ended: it leaves at the next [`Batch::compact`].
    prompts: Vec<Option<usize>>,
    /// Each row's next token.
    tokens: Vec<i64>,
    /// Tokens chosen so far.
    place: usize,
}

impl<'a> Batch<'a> {
    fn prefill(
        model: &'a CausalLm,
        prompts: &[Vec<i64>],
        indices: &[usize],
        options: &'a GenerateOptions,
    ) -> Result<Self> {
        let rows: Vec<&[i64]> = indices.iter().map(|&prompt| prompts[prompt].as_slice()).collect();
        let decoder = Decoder::prefill(model, &rows, options.max_new_tokens)?;
        let prompts = indices.iter().copied().map(Some).collect();
        Ok(Batch { decoder, options, prompts, tokens: vec![0; indices.len()], place: 0 })
    }

    /// Chooses each row's next token and adds it to its completion; gives the number of completions that ended.
    fn choose(&mut self, completions: &mut [Completion], values: StateValues<'_>) -> Result<usize> {
        let logits = self.decoder.logits()?;
        let draw = |row: &Option<usize>| row.map_or(0.0, |i| uniform(self.options.seed, i as u64, self.place as u64));
        let uniforms: Vec<f64> = self.prompts.iter().map(draw).collect();
        let drawn = choose(&logits, &self.options.sampling, &uniforms)?;
        let values: Option<Vec<f32>> = values(self.decoder.hidden())?.map(Vec::try_from).transpose()?;
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
        self.decoder.feed(&self.tokens)?;
        Ok(true)
    }

    /// Ended rows leave, where that pays.
    fn compact(&mut self) -> Result<()> {
        let live: Vec<usize> = (0..self.prompts.len()).filter(|&row| self.prompts[row].is_some()).collect();
        if live.is_empty() || !self.decoder.sheds(live.len(), self.prompts.len()) {
            return Ok(());
        }
        self.decoder.keep(&live)?;
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
