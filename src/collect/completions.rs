//! Completions of every prompt by every model, one model in memory at a time. Owns where a completion came from.
use crate::config::collect::CollectSection;
use crate::data::{Content, Located, Prompt, Row};
use crate::durable::hex;
use crate::error::{Error, Result};
use crate::model::fingerprint::fingerprint;
use crate::model::{CausalLm, LoadOptions};
use crate::rollout::assess::{answered, encode_for, sample};
use crate::rollout::{GenerateOptions, Sampling};
use crate::tokenizer::Tokenizer;
use crate::train::progress::Progress;
use crate::{hub, rollout, seed};
use serde_json::{Map, Value, json};
use std::path::Path;

/// An answer to a prompt.
#[derive(Debug, Clone)]
pub struct Completion {
    /// Which prompt, by number.
    pub prompt: usize,
    /// Which of `collect.models`.
    pub model: usize,
    /// The answer.
    pub text: String,
    /// Prompt and answer, as a judge reads them and as they are written.
    pub row: Located,
    /// Tokens of the answer, its end included.
    pub tokens: usize,
    /// Whether it ended by itself.
    pub finished: bool,
    /// Where it came from: model, fingerprint, seed and the seed of its model's draws, sampling, sample, row of the prompt.
    pub source: Map<String, Value>,
}

impl Completion {
    /// The prompt and the answer as columns.
    pub fn contents(&self) -> (&Content, &Content) {
        match &self.row.row {
            Row::PromptCompletion { prompt, completion } => (prompt, completion),
            _ => unreachable!("an answered prompt is a prompt with a completion"),
        }
    }
}

/// `collect.samples` completions of every prompt by every model, ordered by model, prompt, sample.
///
/// The draws of a completion depend on the seed, the model's place in the list, the prompt's number and the sample's; not on
/// the batch.
///
/// # Errors
/// A model that cannot be opened or is named twice; a prompt that it cannot read.
pub fn sample_all(c: &CollectSection, rows: &[Located], options: &LoadOptions) -> Result<Vec<Completion>> {
    let names: Vec<&str> = c.models.iter().map(String::as_str).collect();
    let dirs = hub::resolve_different(&names)?.map_err(|twice| {
        let message = format!("collect.models names {twice} twice");
        Error::usage(message, "raise collect.samples for more completions of one model")
    })?;
    let mut all = Vec::new();
    for (number, dir) in dirs.iter().enumerate() {
        all.extend(sample_one(c, (number, dir), rows, options)?);
    }
    Ok(all)
}

fn sample_one(
    c: &CollectSection,
    (number, dir): (usize, &Path),
    rows: &[Located],
    options: &LoadOptions,
) -> Result<Vec<Completion>> {
    let name = &c.models[number];
    let tokenizer = open_tokenizer(c, dir, rows)?;
    let model = CausalLm::from_pretrained(dir, options)?;
    tokenizer.check_vocab(model.dims().vocab, dir)?;
    let mut prompts = encode_for(&model, &tokenizer, rows, c.max_new_tokens)?;
    prompts.iter_mut().zip(rows).for_each(|(prompt, row)| whole(prompt, row));
    let generate = GenerateOptions {
        max_new_tokens: c.max_new_tokens,
        sampling: Sampling { temperature: c.temperature, top_k: c.top_k, top_p: c.top_p, greedy: false },
        eos: tokenizer.eos(),
        seed: seed::derive(c.seed, "collect", &[number as u64]),
        batch_size: c.batch_size,
    };
    let mut progress = Progress::new("sampling", (prompts.len() * c.samples) as u64, 0);
    let drawn = sample(&model, &tokenizer, &prompts, c.samples, &generate, |done| {
        progress.set(done as u64, name);
        Ok(())
    })?;
    drop(progress);
    let fingerprint = hex(&fingerprint(dir)?);
    let completion = |(at, drawn): (usize, rollout::assess::Sample)| {
        let source = json!({
            "model": name, "fingerprint": fingerprint, "seed": c.seed, "temperature": c.temperature,
            "sample": at % c.samples, "top_k": c.top_k, "top_p": c.top_p, "max_new_tokens": c.max_new_tokens,
            "draws": generate.seed, "row": rows[drawn.prompt].id.number,
        });
        Completion {
            prompt: drawn.prompt,
            model: number,
            row: answered(&prompts[drawn.prompt], &drawn.text),
            tokens: drawn.tokens.len(),
            finished: tokenizer.eos().is_some() && drawn.tokens.last().copied() == tokenizer.eos(),
            source: source.as_object().cloned().unwrap_or_default(),
            text: drawn.text,
        }
    };
    Ok(drawn.into_iter().enumerate().map(completion).collect())
}

/// The model's tokenizer; its own chat template goes before `collect.chat_template`.
fn open_tokenizer(c: &CollectSection, dir: &Path, rows: &[Located]) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_dir(dir)?;
    if tokenizer.chat()?.is_some() {
        return Ok(tokenizer);
    }
    if let Some(template) = &c.chat_template {
        tokenizer.set_chat_template(template.as_ref(), dir)?;
    } else if rows.iter().any(is_conversation) {
        let message = "this model has no chat template, and the prompts are conversations";
        return Err(Error::file(dir, message, "name a template in collect.chat_template"));
    }
    Ok(tokenizer)
}

fn is_conversation(located: &Located) -> bool {
    matches!(
        &located.row,
        Row::Prompt(Content::Messages(_)) | Row::PromptCompletion { prompt: Content::Messages(_), .. }
    )
}

/// A row shows the whole prompt, also where a model's context cut it: the other models' pairs have the same one.
fn whole(prompt: &mut Prompt, row: &Located) {
    if let Row::Prompt(content) | Row::PromptCompletion { prompt: content, .. } = &row.row
        && let Some(text) = content.text()
    {
        text.clone_into(&mut prompt.text);
    }
}
