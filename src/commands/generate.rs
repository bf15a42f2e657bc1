//! `collimate generate`: completions of prompts.
use super::{ModelArgs, Opened, check_output, open_causal, write_rows};
use crate::data::Prompt;
use crate::error::{Error, Result};
use crate::hub;
use crate::rollout::assess::{Sample, prompt_room, read_prompts, sample};
use crate::rollout::generate::GenerateOptions;
use crate::rollout::sampling::Sampling;
use crate::train::progress::Progress;
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Sample or decode completions of prompts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  collimate generate --model runs/dpo --prompt \"The plot\" --samples 4\n  \
    collimate generate --model gpt2 --prompts prompts.jsonl --greedy --output completions.jsonl")]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A prompt; may be given several times
    #[arg(long, value_name = "TEXT", required_unless_present = "prompts", conflicts_with = "prompts")]
    prompt: Vec<String>,
    /// JSONL rows with a "prompt"
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
        None => typed_prompts(&args.prompt, &opened, new_tokens)?,
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
    Map::from_iter([
        ("prompt".to_owned(), json!(prompts[sample.prompt].text)),
        ("completion".to_owned(), json!(sample.text)),
        ("sample".to_owned(), json!(number)),
        ("tokens".to_owned(), json!(sample.tokens)),
        ("finished".to_owned(), json!(finished)),
    ])
}

fn typed_prompts(texts: &[String], opened: &Opened, new_tokens: usize) -> Result<Vec<Prompt>> {
    let room = prompt_room(&opened.model, new_tokens)?;
    let mut prompts = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        let tokens = opened.tokenizer.encode(text)?;
        if tokens.is_empty() || tokens.len() > room {
            let message = format!("--prompt {text:?} has {} tokens, between 1 and {room} are needed", tokens.len());
            return Err(Error::usage(message, "change it, or lower --max-new-tokens"));
        }
        let id = crate::data::RowId::line(std::path::Path::new("--prompt"), at + 1);
        prompts.push(Prompt { tokens, text: text.clone(), messages: None, id });
    }
    Ok(prompts)
}
