//! What a policy's own samples are worth and how far they lie from the reference: reward, exact KL, log-ratio KL.
use super::forward::{exact_kl, projection, target_hidden};
use super::generate::{Completion, GenerateOptions, StateValues, complete};
use super::scorer::RewardScorer;
use crate::data::{
    Content, DataReport, EncodeOptions, Located, OnBadRow, Prompt, Row, RowId, Sequence, Wanted, encode_prompts,
    lm_batch, read_rows,
};
use crate::error::{Error, Result};
use crate::loss::logprobs;
use crate::model::CausalLm;
use crate::rollout::forward::index;
use crate::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};
use std::path::Path;
use tch::Tensor;

/// Prompts of a file, each short enough that `new_tokens` more fit the model; at most `limit`.
///
/// # Errors
/// Rows that are no prompts; no room for a prompt.
pub fn read_prompts(
    path: &Path,
    model: &CausalLm,
    tokenizer: &Tokenizer,
    new_tokens: usize,
    limit: Option<usize>,
) -> Result<Vec<Prompt>> {
    let mut rows = read_rows(path, Wanted::Prompts, OnBadRow::Error, &mut DataReport::default())?;
    rows.truncate(limit.unwrap_or(usize::MAX));
    encode_for(model, tokenizer, &rows, new_tokens)
}

/// Rows as prompts of a model, in order, each short enough that `new_tokens` more fit it.
///
/// # Errors
/// Rows that the model's chat template refuses; no room for a prompt.
pub fn encode_for(model: &CausalLm, tokenizer: &Tokenizer, rows: &[Located], new_tokens: usize) -> Result<Vec<Prompt>> {
    let mut report = DataReport::default();
    let options = EncodeOptions::completions(prompt_room(model, new_tokens)?, false);
    let prompts = encode_prompts(tokenizer, rows, &options, OnBadRow::Error, &mut report)?;
    if report.truncated > 0 {
        let (cut, holds) = (report.truncated, model.dims().context);
        tracing::warn!("{cut} prompts lost their beginning: the model holds {holds} tokens");
    }
    Ok(prompts)
}

/// Tokens that a prompt may have so that `new_tokens` more fit the model.
///
/// # Errors
/// None are left.
pub fn prompt_room(model: &CausalLm, new_tokens: usize) -> Result<usize> {
    let positions = usize::try_from(model.dims().context).unwrap_or(usize::MAX);
    match positions.checked_sub(new_tokens) {
        Some(room) if room > 0 => Ok(room),
        _ => Err(Error::usage(
            format!("{new_tokens} new tokens leave no room for a prompt: the model holds {positions} tokens"),
            "lower max-new-tokens",
        )),
    }
}

/// 1 where ours is better, 1/2 for a tie: its mean is a win rate.
pub fn win(ours: f64, theirs: f64) -> f64 {
    match ours.partial_cmp(&theirs) {
        Some(std::cmp::Ordering::Greater) => 1.0,
        Some(std::cmp::Ordering::Less) => 0.0,
        _ => 0.5,
    }
}

/// A completion that a model sampled.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Which prompt, by index.
    pub prompt: usize,
    /// Ids of the completion, EOS included where the text ended.
    pub tokens: Vec<i64>,
    /// The completion as text, special tokens left out.
    pub text: String,
    /// log of the probability that each token was drawn with, nats.
    pub logprobs: Vec<f64>,
    /// Values of the states that the tokens were chosen in, where there are any.
    pub values: Vec<f64>,
}

/// `samples` completions of every prompt, ordered by prompt, then by sample.
pub fn sample(
    model: &CausalLm,
    tokenizer: &Tokenizer,
    prompts: &[Prompt],
    samples: usize,
    options: &GenerateOptions,
    progress: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Sample>> {
    sample_valued((model, &|_| Ok(None)), tokenizer, prompts, samples, options, progress)
}

/// [`sample`] with the values of states, from the pass that samples.
pub fn sample_valued(
    (model, values): (&CausalLm, StateValues<'_>),
    tokenizer: &Tokenizer,
    prompts: &[Prompt],
    samples: usize,
    options: &GenerateOptions,
    progress: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Sample>> {
    let repeat = |p: &Prompt| std::iter::repeat_n(p.tokens.clone(), samples);
    let ids: Vec<Vec<i64>> = prompts.iter().flat_map(repeat).collect();
    let completions = complete(model, &ids, options, values, progress)?;
    let mut out = Vec::with_capacity(completions.len());
    for (at, Completion { tokens, logprobs, values }) in completions.into_iter().enumerate() {
        let text = tokenizer.decode(&tokens, true)?;
        out.push(Sample { prompt: at / samples, tokens, text, logprobs, values });
    }
    Ok(out)
}

/// KL of each sample's positions, summed, in nats.
#[derive(Debug, Clone, Copy)]
pub struct SampleKl {
    /// Sum over positions of the full-vocabulary KL(policy || reference).
    pub exact: f64,
    /// Sum over tokens of log policy - log reference: unbiased too, but noisy.
    pub log_ratio: f64,
}

/// KL of every sample; logits are divided by `temperature`, at which the samples were drawn.
pub fn sample_kl(
    policy: &CausalLm,
    reference: &CausalLm,
    prompts: &[Prompt],
    samples: &[Sample],
    temperature: f64,
    batch_size: usize,
    mut progress: impl FnMut(usize),
) -> Result<Vec<SampleKl>> {
    let _guard = tch::no_grad_guard();
    let mut out = Vec::with_capacity(samples.len());
    for chunk in samples.chunks(batch_size) {
        let rows: Vec<Sequence> = chunk.iter().map(|s| sequence(&prompts[s.prompt], s)).collect();
        let batch = lm_batch(&rows.iter().collect::<Vec<_>>());
        let (ours, ids) = target_hidden(policy, &batch.flat, &batch.targets, 0.0)?;
        let (theirs, _) = target_hidden(reference, &batch.flat, &batch.targets, 0.0)?;
        let logps = |model: &CausalLm, hidden: &Tensor| -> Result<Tensor> {
            Ok(logprobs::of_targets(hidden, projection(model), &ids, temperature, false)?.logprobs)
        };
        let ratio = logps(policy, &ours)?.f_sub(&logps(reference, &theirs)?)?;
        let rows = index(&batch.targets.sequence, policy.device())?;
        let sum = |values: &Tensor| -> Result<Vec<f32>> {
            Ok(Vec::<f32>::try_from(logprobs::sum_by_sequence(values, &rows, chunk.len() as i64)?)?)
        };
        let exact = sum(&exact_kl((policy, &ours), (reference, &theirs), temperature)?)?;
        let kls = exact.into_iter().zip(sum(&ratio)?);
        out.extend(kls.map(|(e, l)| SampleKl { exact: f64::from(e), log_ratio: f64::from(l) }));
        progress(out.len());
    }
    Ok(out)
}

/// Rewards of every sample by `scorer`, from the text.
pub fn sample_rewards(
    scorer: &RewardScorer,
    prompts: &[Prompt],
    samples: &[Sample],
    progress: impl FnMut(usize),
) -> Result<Vec<f64>> {
    scorer.score(&sample_rows(prompts, samples), progress)
}

/// Samples as rows, for a scorer: of text, or of conversations, which a scorer's own template writes anew.
pub fn sample_rows(prompts: &[Prompt], samples: &[Sample]) -> Vec<Located> {
    samples.iter().map(|sample| answered(&prompts[sample.prompt], &sample.text)).collect()
}

/// A prompt with an answer to it as columns, as they are shown and scored again: strings, or lists of messages.
pub fn columns(prompt: &Prompt, answer: &str) -> Map<String, Value> {
    let Row::PromptCompletion { prompt, completion } = answered(prompt, answer).row else {
        unreachable!("an answered prompt is a prompt with a completion")
    };
    let pair = [("prompt", prompt), ("completion", completion)];
    pair.into_iter().map(|(name, content)| (name.to_owned(), json!(content))).collect()
}

/// A prompt with an answer to it as a row: in a conversation the answer is the assistant's next message, or goes on in the
/// last one, where that is the assistant's.
pub fn answered(prompt: &Prompt, answer: &str) -> Located {
    let row = match &prompt.messages {
        None => Row::PromptCompletion { prompt: prompt.text.clone().into(), completion: answer.into() },
        Some(messages) => {
            let begun = messages.last().filter(|message| message.get("role").is_some_and(|role| role == "assistant"));
            let start = begun.and_then(|message| message.get("content")?.as_str()).unwrap_or_default();
            let mut message = begun.cloned().unwrap_or_default();
            message.insert("role".to_owned(), "assistant".into());
            message.insert("content".to_owned(), format!("{start}{answer}").into());
            let before = messages.len() - usize::from(begun.is_some());
            Row::PromptCompletion {
                prompt: Content::Messages(messages[..before].to_vec()),
                completion: Content::Messages(vec![message]),
            }
        }
    };
    Located { row, id: prompt.id.clone() }
}

/// Mean and standard error over prompts: samples of one prompt are averaged first, as they are not independent.
pub fn mean_and_error(values: &[f64], per_prompt: usize) -> (f64, f64) {
    let means: Vec<f64> = values.chunks(per_prompt).map(|c| c.iter().sum::<f64>() / c.len() as f64).collect();
    let count = means.len() as f64;
    let mean = means.iter().sum::<f64>() / count;
    let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    (mean, (variance / count).sqrt())
}

/// Prompt and completion of a sample as one sequence, ids as they were sampled.
pub fn sequence(prompt: &Prompt, sample: &Sample) -> Sequence {
    let tokens: Vec<i64> = prompt.tokens.iter().chain(&sample.tokens).copied().collect();
    let id: RowId = prompt.id.clone();
    Sequence::new(tokens, prompt.tokens.len(), id)
}
