//! `collimate generate`: completions of prompts.
use super::{ModelArgs, Opened, check_output, open_causal, write_rows};
use crate::data::{Content, DataReport, EncodeOptions, Located, Message, OnBadRow, Prompt, Row, RowId, encode_prompts};
use crate::error::{Error, Result};
use crate::hub;
use crate::rollout::assess::{Sample, columns, prompt_room, read_prompts, sample};
use crate::rollout::generate::GenerateOptions;
use crate::rollout::sampling::Sampling;
use crate::train::progress::Progress;
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Sample or decode completions of prompts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  collimate generate --model runs/dpo --prompt \"The plot\" --samples 4\n  \
    collimate generate --model runs/chat --chat --prompt \"Was it good?\"\n  \
    collimate generate --model gpt2 --prompts prompts.jsonl --greedy --output completions.jsonl")]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A prompt; may be given several times
    #[arg(long, value_name = "TEXT", required_unless_present = "prompts", conflicts_with = "prompts")]
    prompt: Vec<String>,
    /// Take each --prompt as what a user says, through the model's chat template
    #[arg(long, requires = "prompt")]
    chat: bool,
    /// Rows with a "prompt": a text, or a list of messages
    #[arg(long, value_name = "FILE")]
    prompts: Option<String>,
    /// Completions a prompt
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Take the likeliest token at every step
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "samples"])]
    greedy: bool,
    /// Sample only from the K likeliest tokens (0: all)
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Sample only from the likeliest tokens that together have probability P
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Write rows {"prompt", "completion", "sample", "tokens", "finished"} to this JSONL file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// How completions are drawn.
#[derive(Debug, Clone, Args)]
pub struct SamplingArgs {
    /// Most new tokens a completion
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_new_tokens: u32,
    /// Logits are divided by this before sampling
    #[arg(long, default_value_t = 1.0)]
    pub temperature: f64,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

impl SamplingArgs {
    /// Options of `rollout::generate` for `sampling`.
    pub fn options(&self, opened: &Opened, sampling: Sampling, batch_size: usize) -> Result<GenerateOptions> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(Error::usage("--temperature must be greater than 0", "use --greedy for the likeliest tokens"));
        }
        Ok(GenerateOptions {
            max_new_tokens: self.max_new_tokens as usize,
            sampling,
            eos: opened.tokenizer.eos(),
            seed: self.seed,
            batch_size,
        })
    }
}

/// Runs the command.
pub fn run(args: &GenerateArgs) -> Result<()> {
    if !(args.top_p > 0.0 && args.top_p <= 1.0) {
        return Err(Error::usage("--top-p must lie in (0, 1]", "1 samples from all tokens"));
    }
    check_output(args.output.as_deref())?;
    let opened = open_causal(&args.model.model, &args.model.load_options()?)?;
    let sampling = Sampling {
        temperature: args.sampling.temperature,
        top_k: args.top_k as usize,
        top_p: args.top_p,
        greedy: args.greedy,
    };
    let options = args.sampling.options(&opened, sampling, args.model.batch())?;
    let new_tokens = options.max_new_tokens;
    let prompts = match &args.prompts {
        Some(file) => {
            read_prompts(&hub::resolve_dataset_file(file)?, &opened.model, &opened.tokenizer, new_tokens, None)?
        }
        None => typed_prompts(&args.prompt, args.chat, &opened, new_tokens)?,
    };
    let samples = args.samples as usize;
    let mut progress = Progress::new("generating", (prompts.len() * samples) as u64, 0);
    let completions = sample(&opened.model, &opened.tokenizer, &prompts, samples, &options, |done| {
        progress.set(done as u64, "");
        Ok(())
    })?;
    drop(progress);
    if args.output.is_none() && args.prompts.is_none() {
        for completion in &completions {
            println!("{}{}\n", prompts[completion.prompt].text, completion.text);
        }
        return Ok(());
    }
    let rows: Vec<_> =
        completions.iter().enumerate().map(|(i, c)| row(&prompts, c, i % samples, opened.tokenizer.eos())).collect();
    write_rows(args.output.as_deref(), &rows)
}

fn row(prompts: &[Prompt], sample: &Sample, number: usize, eos: Option<i64>) -> Map<String, Value> {
    let finished = eos.is_some() && sample.tokens.last().copied() == eos;
    let mut row = columns(&prompts[sample.prompt], &sample.text);
    row.insert("sample".to_owned(), json!(number));
    row.insert("tokens".to_owned(), json!(sample.tokens));
    row.insert("finished".to_owned(), json!(finished));
    row
}

/// Prompts of the command line: texts, or with `chat` what a user says first in a conversation.
fn typed_prompts(texts: &[String], chat: bool, opened: &Opened, new_tokens: usize) -> Result<Vec<Prompt>> {
    let room = prompt_room(&opened.model, new_tokens)?;
    let row = |(at, text): (usize, &String)| {
        let said = [("role", "user"), ("content", text.as_str())];
        let said: Message = said.map(|(key, text)| (key.to_owned(), text.into())).into_iter().collect();
        let prompt = if chat { Content::Messages(vec![said]) } else { text.as_str().into() };
        Located { row: Row::Prompt(prompt), id: RowId::line(Path::new("--prompt"), at + 1) }
    };
    let rows: Vec<Located> = texts.iter().enumerate().map(row).collect();
    let options = EncodeOptions::completions(usize::MAX, false);
    if !chat && matches!(opened.tokenizer.chat(), Ok(Some(_))) {
        tracing::info!("the model has a chat template; --chat sends a prompt through it");
    }
    let prompts = encode_prompts(&opened.tokenizer, &rows, &options, OnBadRow::Error, &mut DataReport::default())?;
    for (prompt, text) in prompts.iter().zip(texts) {
        if prompt.tokens.len() > room {
            let message = format!("--prompt {text:?} has {} tokens, at most {room} fit", prompt.tokens.len());
            return Err(Error::usage(message, "change it, or lower --max-new-tokens"));
        }
    }
    Ok(prompts)
}
