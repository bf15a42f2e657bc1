//! Preference pairs out of a model's own samples, labelled by the gold judge.
use crate::data::Prompt;
use crate::data::loader::shuffled;
use crate::durable;
use crate::error::{Error, Result};
use crate::loss::bradley_terry::probability;
use crate::model::{CausalLm, LoadOptions};
use crate::rollout::assess::{Sample, columns, read_prompts, sample, sample_rewards};
use crate::rollout::scorer::RewardScorer;
use crate::rollout::{GenerateOptions, Sampling};
use crate::tokenizer::Tokenizer;
use crate::train::progress::Progress;
use crate::train::signals;
use crate::{hub, seed};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Who samples and who labels, opened.
pub struct Labeller {
    model: CausalLm,
    tokenizer: Tokenizer,
    judge: RewardScorer,
    batch_size: usize,
}

/// How pairs are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairOptions {
    /// Completions of a prompt.
    pub samples: usize,
    /// Pairs of a prompt, drawn at random among its completions.
    pub pairs: usize,
    /// A pair is a tie where sigma(difference of the judge's rewards) lies within 0.5 +- this.
    pub tie: f64,
    /// A completion ends after so many tokens at the latest; those that do not end by themselves make no pair.
    pub max_new_tokens: usize,
    /// Seed of the samples and of the choice.
    pub seed: u64,
}

impl Labeller {
    /// Opens both models.
    pub fn open(model: &str, judge: &str, options: &LoadOptions, batch_size: usize) -> Result<Self> {
        let dir = hub::resolve_model(model)?;
        let tokenizer = Tokenizer::from_dir(&dir)?;
        let model = CausalLm::from_pretrained(&dir, options)?;
        tokenizer.check_vocab(model.dims().vocab, &dir)?;
        let judge = RewardScorer::open(&hub::resolve_model(judge)?, options, batch_size)?;
        Ok(Self { model, tokenizer, judge, batch_size })
    }

    /// Writes the pairs of `prompts`' completions to `to`; returns how many pairs and how many of them are ties.
    ///
    /// # Errors
    /// No pair at all: no prompt has two different completions that ended by themselves.
    pub fn write(&self, prompts: &str, to: &Path, options: &PairOptions) -> Result<(usize, usize)> {
        let prompts = read_prompts(
            &hub::resolve_dataset_file(prompts)?,
            &self.model,
            &self.tokenizer,
            options.max_new_tokens,
            None,
        )?;
        let samples = self.sampled(&prompts, options)?;
        let mut progress = Progress::new("judging", samples.len() as u64, 0);
        let rewards = sample_rewards(&self.judge, &prompts, &samples, |done| progress.set(done as u64, ""))?;
        drop(progress);
        let judged: Vec<(&Sample, f64)> = samples.iter().zip(rewards).collect();
        let (mut text, mut pairs, mut ties) = (String::new(), 0, 0);
        for group in judged.chunk_by(|(a, _), (b, _)| a.prompt == b.prompt) {
            for (better, worse) in chosen_pairs(group, options) {
                let columns = |text: &str| columns(&prompts[better.0.prompt], text);
                let (mut row, mut other) = (columns(&better.0.text), columns(&worse.0.text));
                let take = |row: &mut Map<String, Value>| row.remove("completion").unwrap_or_default();
                let (chosen, rejected) = (take(&mut row), take(&mut other));
                row.extend([("chosen".to_owned(), chosen), ("rejected".to_owned(), rejected)]);
                if probability(better.1 - worse.1) < 0.5 + options.tie {
                    row.insert("preference".to_owned(), json!(0.5));
                    ties += 1;
                }
                pairs += 1;
                text += &(Value::Object(row).to_string() + "\n");
            }
        }
        if pairs == 0 {
            let message = "no prompt has two different completions that ended by themselves";
            return Err(Error::usage(message, "raise experiment.max_new_tokens, or train the SFT model longer"));
        }
        durable::write_file(to, text.as_bytes())?;
        Ok((pairs, ties))
    }

    /// Completions that ended by themselves and say something.
    fn sampled(&self, prompts: &[Prompt], options: &PairOptions) -> Result<Vec<Sample>> {
        let mut progress = Progress::new("sampling", (prompts.len() * options.samples) as u64, 0);
        let mut samples = Vec::new();
        let chunk = self.batch_size.div_ceil(options.samples);
        for (at, some) in prompts.chunks(chunk).enumerate() {
            let generate = GenerateOptions {
                max_new_tokens: options.max_new_tokens,
                sampling: Sampling::default(),
                eos: self.tokenizer.eos(),
                seed: seed::derive(options.seed, "pairs", &[at as u64]),
                batch_size: self.batch_size,
            };
            let before = at * chunk * options.samples;
            let report = |done: usize| {
                progress.set((before + done) as u64, "");
                signals::check(0)
            };
            let mut drawn = sample(&self.model, &self.tokenizer, some, options.samples, &generate, report)?;
            drawn.iter_mut().for_each(|sample| sample.prompt += at * chunk);
            samples.extend(drawn);
        }
        let eos = self.tokenizer.eos();
        let useful = |s: &Sample| s.tokens.last().copied() == eos && !s.text.trim().is_empty();
        samples.retain(useful);
        Ok(samples)
    }
}

/// A completion with its reward.
type Judged<'a> = (&'a Sample, f64);

/// Some of a prompt's pairs in a seeded order, the better completion first.
fn chosen_pairs<'a>(group: &[Judged<'a>], options: &PairOptions) -> Vec<(Judged<'a>, Judged<'a>)> {
    let mut candidates = Vec::new();
    for (at, a) in group.iter().enumerate() {
        for b in &group[at + 1..] {
            if a.0.text != b.0.text {
                candidates.push(if a.1 >= b.1 { (*a, *b) } else { (*b, *a) });
            }
        }
    }
    let prompt = group.first().map_or(0, |(sample, _)| sample.prompt as u64);
    let order = shuffled(candidates.len(), options.seed, "choice", &[prompt]);
    order.into_iter().take(options.pairs).map(|at| candidates[at]).collect()
}
