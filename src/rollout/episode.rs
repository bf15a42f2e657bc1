//! A rollout: completions sampled from the policy itself, with everything that PPO needs of them. Owns the order of the
//! passes; what is made of the numbers stands in `loss` and in the stage.
//!
//! Legend: T tokens of one completion, EOS included where it ended by itself.
use super::assess::{Sample, sample_rows, sample_valued, sequence};
use super::forward::{exact_kl, index, judge, model_input, projection, target_hidden};
use super::generate::GenerateOptions;
use super::sampling::Sampling;
use super::scorer::Scorer;
use crate::data::{LmBatch, Prompt, Sequence, lm_batch};
use crate::error::{Error, Result};
use crate::loss::logprobs;
use crate::model::{CausalLm, Critic};
use crate::tokenizer::Tokenizer;
use tch::{Kind, Tensor};

/// Squares of rewards beyond it would leave float32.
const LARGEST_REWARD: f64 = 1e9;

/// A sampled completion and what was thought of it when it was sampled.
#[derive(Debug, Clone)]
pub struct Episode {
    /// Prompt and completion, ids as they were sampled.
    pub sequence: Sequence,
    /// The prompt as text.
    pub prompt: String,
    /// The completion as text, special tokens left out.
    pub text: String,
    /// Whether it ended by itself.
    pub finished: bool,
    /// What the scorer says of the text.
    pub score: f64,
    /// log pi of each token [T], nats, at the temperature of sampling.
    pub logprobs: Vec<f64>,
    /// log ref of each token [T], at the same temperature.
    pub reference: Vec<f64>,
    /// The critic's value of the state that each token was chosen in [T].
    pub values: Vec<f64>,
    /// Full-vocabulary KL(pi || ref) summed over the positions, nats; where it was asked for.
    pub exact_kl: Option<f64>,
}

impl Episode {
    /// Sum over tokens of log pi - log ref, nats.
    pub fn kl(&self) -> f64 {
        self.logprobs.iter().zip(&self.reference).map(|(p, q)| p - q).sum()
    }
}

/// Who takes part in a rollout, none of them with gradient.
pub struct Players<'a> {
    /// Samples.
    pub policy: &'a CausalLm,
    /// Estimates values.
    pub critic: &'a Critic,
    /// What the policy stays near.
    pub reference: &'a CausalLm,
    /// The policy's tokenizer.
    pub tokenizer: &'a Tokenizer,
}

/// How a rollout samples.
#[derive(Debug, Clone, Copy)]
pub struct RolloutOptions {
    /// A completion ends after so many tokens at the latest.
    pub max_new_tokens: usize,
    /// Logits are divided by it, in policy and reference.
    pub temperature: f64,
    /// Seed of all draws.
    pub seed: u64,
    /// Prompts decoded at once.
    pub batch_size: usize,
    /// Sequences of a forward pass.
    pub micro: usize,
    /// Whether the exact KL is wanted too.
    pub exact_kl: bool,
}

impl Players<'_> {
    /// One completion of every prompt, in order. The sampler is the policy: no top-k, no top-p. `check` is asked after
    /// every token and every forward pass whether to go on.
    ///
    /// # Errors
    /// Those of generation and of the scorer; a score that is not finite.
    pub fn roll_out(
        &self,
        prompts: &[Prompt],
        scorer: &mut dyn Scorer,
        options: &RolloutOptions,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<Episode>> {
        let _guard = tch::no_grad_guard();
        let generate = GenerateOptions {
            max_new_tokens: options.max_new_tokens,
            sampling: Sampling { temperature: options.temperature, ..Sampling::default() },
            eos: self.tokenizer.eos(),
            seed: options.seed,
            batch_size: options.batch_size,
        };
        let values = |hidden: &Tensor| self.critic.values_of_hidden(hidden);
        let samples = sample_valued((self.policy, &values), self.tokenizer, prompts, 1, &generate, |_| check())?;
        let scores = part!("reward").in_scope(|| scorer.score_rows(&sample_rows(prompts, &samples), check))?;
        // Not `>`: a NaN must be seen.
        if let Some(at) = scores.iter().position(|score| !matches!(score.abs(), 0.0..=LARGEST_REWARD)) {
            let text = &samples[at].text;
            let message = format!("the reward of a completion is {:?}: {text:?}", scores[at]);
            let remedy = format!("rewards must lie within +-{LARGEST_REWARD:e}; look at what scores it");
            return Err(Error::Reward { message, remedy });
        }
        let mut episodes = Vec::with_capacity(samples.len());
        for (samples, scores) in samples.chunks(options.micro).zip(scores.chunks(options.micro)) {
            check()?;
            episodes.extend(part!("reference").in_scope(|| self.looked_at(prompts, samples, scores, options))?);
        }
        Ok(episodes)
    }

    /// log pi and values of a few samples, [M] over their tokens. In float32 they come from the pass that sampled, whose
    /// rounding is that of any other pass; in bfloat16, where two passes of different make-up differ by a percent, and where
    /// positions depend on a sequence's length, from one like the update's. A critic with a backbone of its own reads
    /// whole sequences.
    fn seen(&self, samples: &[Sample], batch: &LmBatch, temperature: f64) -> Result<(Vec<f64>, Vec<f64>)> {
        let longest = batch.flat.rows.iter().map(Vec::len).max().unwrap_or(0);
        if self.policy.compute() != Kind::Float || !self.policy.is_steady(longest) {
            let judged = judge(self.policy, self.critic, batch, temperature)?;
            return Ok((host(&judged.tokens.logprobs)?, host(&judged.values)?));
        }
        let together = |of: fn(&Sample) -> &Vec<f64>| samples.iter().flat_map(of).copied().collect();
        let values = match self.critic {
            Critic::Head { .. } => together(|sample| &sample.values),
            Critic::Network(network) => {
                let (input, device) = (model_input(&batch.flat, network.device())?, network.device());
                host(&Critic::network_values(network, &input, &index(&batch.targets.hidden, device)?)?)?
            }
        };
        Ok((together(|sample| &sample.logprobs), values))
    }

    /// A forward pass of the reference over a few samples, and of the policy where that is still needed.
    fn looked_at(
        &self,
        prompts: &[Prompt],
        samples: &[Sample],
        scores: &[f64],
        options: &RolloutOptions,
    ) -> Result<Vec<Episode>> {
        let temperature = options.temperature;
        let sequences: Vec<Sequence> = samples.iter().map(|s| sequence(&prompts[s.prompt], s)).collect();
        let batch = lm_batch(&sequences.iter().collect::<Vec<_>>());
        let (logprobs, values) = self.seen(samples, &batch, temperature)?;
        let (hidden, ids) = target_hidden(self.reference, &batch.flat, &batch.targets, 0.0)?;
        let device = self.policy.device();
        let exact = match options.exact_kl {
            false => None,
            true => {
                let rows = index(&batch.targets.sequence, device)?;
                let (own, _) = target_hidden(self.policy, &batch.flat, &batch.targets, 0.0)?;
                let kl = exact_kl((self.policy, &own), (self.reference, &hidden), temperature)?;
                Some(host(&logprobs::sum_by_sequence(&kl, &rows, samples.len() as i64)?)?)
            }
        };
        let reference = logprobs::of_targets(&hidden, projection(self.reference), &ids, temperature, false)?.logprobs;
        let reference = host(&reference)?;
        let mut from = 0;
        let mut episodes = Vec::with_capacity(samples.len());
        for (at, (sample, sequence)) in samples.iter().zip(sequences).enumerate() {
            let to = from + sample.tokens.len();
            let part = |all: &[f64]| all[from..to].to_vec();
            episodes.push(Episode {
                prompt: prompts[sample.prompt].text.clone(),
                text: sample.text.clone(),
                finished: sample.tokens.last().copied() == self.tokenizer.eos(),
                score: scores[at],
                logprobs: part(&logprobs),
                reference: part(&reference),
                values: part(&values),
                exact_kl: exact.as_ref().map(|kl| kl[at]),
                sequence,
            });
            from = to;
        }
        Ok(episodes)
    }
}

fn host(values: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::<f32>::try_from(values)?.into_iter().map(f64::from).collect())
}
