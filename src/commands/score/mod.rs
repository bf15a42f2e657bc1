//! `collimate score`: log-probs a token (causal LM) or rewards (reward model), a row in, a row out.
mod tokens;

use super::{ModelArgs, Opened, check_output, open_causal, write_rows};
use crate::config::OnBadRow;
use crate::data::{DataReport, EncodeOptions, Located, Sequence, Wanted, encode_lm, lm_batch, read_rows, source};
use crate::durable;
use crate::error::{Error, Result};
use crate::hub;
use crate::model::HfConfig;
use crate::rollout::forward::target_logprobs;
use crate::rollout::scorer::RewardScorer;
use crate::train::progress::Progress;
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Log-probs or rewards of rows.
#[derive(Debug, Args)]
#[command(after_help = "Rows are {\"prompt\", \"completion\"} or {\"text\"}. A language model adds \"tokens\", \
    \"logprobs\" and \"logprob\" (their sum, in nats), a reward model adds \"reward\"; with --per-token one with \
    pooling = \"sum\" adds \"tokens\", \"token_texts\" and \"token_rewards\" (r(s, a) of each).\n\nExamples:\n  \
    collimate score --model runs/reward --data rows.jsonl --output scored.jsonl\n  \
    collimate score --model gpt2 --data rows.jsonl --eos --output scored.jsonl\n  \
    collimate score --model runs/summed --data rows.jsonl --per-token --html tokens.html --output scored.jsonl")]
pub struct ScoreArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// JSONL rows
    #[arg(long, value_name = "FILE")]
    data: String,
    /// JSONL file to write; default: standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Language models: let EOS end every completion
    #[arg(long)]
    eos: bool,
    /// Reward models that sum rewards over tokens: what each token adds
    #[arg(long)]
    per_token: bool,
    /// Write a page that colours the tokens by what they add to this file
    #[arg(long, value_name = "FILE", requires = "per_token")]
    html: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &ScoreArgs) -> Result<()> {
    check_output(args.output.as_deref())?;
    check_output(args.html.as_deref())?;
    if let (Some(html), Some(output)) = (&args.html, &args.output)
        && durable::is_one(html, output)
    {
        return Err(Error::usage("--html and --output name one file", "name two"));
    }
    let options = args.model.load_options()?;
    let path = hub::resolve_dataset_file(&args.data)?;
    let rows = read_rows(&path, Wanted::Lm, OnBadRow::Error, &mut DataReport::default())?;
    let mut objects = source::whole(&path, &rows)?;
    let dir = hub::resolve_model(&args.model.model)?;
    let mut progress = Progress::new("scoring", rows.len() as u64, 0);
    if HfConfig::from_dir(&dir)?.is_reward() {
        if args.eos {
            let remedy = "leave it out: a reward model's own rule says how a sequence ends";
            return Err(Error::usage("--eos is for language models", remedy));
        }
        let scorer = RewardScorer::open(&dir, &options, args.model.batch())?;
        if args.per_token {
            token_rows(&scorer, &rows, args, &mut objects, &mut progress)?;
        } else {
            let rewards = scorer.score(&rows, |done| progress.set(done as u64, ""))?;
            for (object, reward) in objects.iter_mut().zip(rewards) {
                object.insert("reward".into(), json!(reward));
            }
        }
    } else if args.per_token {
        let remedy = "leave it out: \"logprobs\" has a number a token, or give a reward model";
        return Err(Error::usage("--per-token is for reward models", remedy));
    } else {
        let opened = open_causal(&args.model.model, &options)?;
        logprob_rows(&opened, &rows, args, &mut objects, &mut progress)?;
    }
    drop(progress);
    write_rows(args.output.as_deref(), &objects)
}

fn token_rows(
    scorer: &RewardScorer,
    rows: &[Located],
    args: &ScoreArgs,
    objects: &mut [Map<String, Value>],
    progress: &mut Progress,
) -> Result<()> {
    let all = scorer.token_rewards(rows, |done| progress.set(done as u64, ""))?;
    let mut shown = Vec::new();
    for (own, object) in all.iter().zip(objects) {
        let reward = own.rewards.iter().sum::<f64>() + scorer.model().bias();
        let pieces = tokens::pieces(scorer.tokenizer(), &own.tokens)?;
        object.extend(tokens::columns(&pieces, own));
        object.insert("reward".into(), json!(reward));
        if args.html.is_some() {
            let before = scorer.tokenizer().decode(&own.before, true)?;
            shown.push(tokens::Shown::new(before, reward, pieces, &own.rewards));
        }
    }
    match &args.html {
        Some(path) => {
            let title = format!("Rewards a token by {}", args.model.model);
            durable::write_file(path, tokens::page(&title, shown)?.as_bytes())
        }
        None => Ok(()),
    }
}

fn logprob_rows(
    opened: &Opened,
    rows: &[Located],
    args: &ScoreArgs,
    objects: &mut [Map<String, Value>],
    progress: &mut Progress,
) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let most = usize::try_from(opened.model.dims().context).unwrap_or(usize::MAX);
    let options = EncodeOptions::completions(most, args.eos);
    let mut report = DataReport::default();
    let sequences = encode_lm(&opened.tokenizer, rows, &options, OnBadRow::Error, &mut report)?;
    if report.truncated > 0 {
        tracing::warn!("{} rows were cut to the model's {} tokens", report.truncated, options.max_length);
    }
    let mut done = 0;
    for (sequences, objects) in sequences.chunks(args.model.batch()).zip(objects.chunks_mut(args.model.batch())) {
        let batch = lm_batch(&sequences.iter().collect::<Vec<&Sequence>>());
        let values = Vec::<f32>::try_from(target_logprobs(&opened.model, &batch.flat, &batch.targets, 1.0)?)?;
        for (at, object) in objects.iter_mut().enumerate() {
            let mine = |i: &usize| batch.targets.sequence[*i] == at as i64;
            let mine: Vec<usize> = (0..values.len()).filter(mine).collect();
            let tokens: Vec<i64> = mine.iter().map(|&i| batch.targets.tokens[i]).collect();
            let own: Vec<f32> = mine.iter().map(|&i| values[i]).collect();
            object.insert("tokens".into(), json!(tokens));
            object.insert("logprob".into(), json!(own.iter().map(|&v| f64::from(v)).sum::<f64>()));
            object.insert("logprobs".into(), json!(own));
        }
        done += sequences.len();
        progress.set(done as u64, "");
    }
    Ok(())
}
