//! `collimate evaluate`: what a model is worth, on rows and on its own samples.
mod against;

use super::generate::SamplingArgs;
use super::{ModelArgs, Opened, check_output, open_causal, write_rows};
use crate::config::OnBadRow;
use crate::data::{
    DataReport, EncodeOptions, Pair, Prompt, Wanted, columns, encode_lm, encode_pairs, lm_batch, pair_batch, read_rows,
};
use crate::error::{Error, Result};
use crate::hub;
use crate::model::{HfConfig, LoadOptions};
use crate::rollout::assess::{
    Sample, columns as columns_of, mean_and_error, read_prompts, sample, sample_kl, sample_rewards, win,
};
use crate::rollout::forward::{sequence_logprobs, sequence_rewards, target_logprobs};
use crate::rollout::sampling::Sampling;
use crate::rollout::scorer::RewardScorer;
use crate::tokenizer::Tokenizer;
use crate::train::progress::Progress;
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Loss, accuracy, reward and exact KL.
#[derive(Debug, Args)]
#[command(after_help = "What is measured follows from the rows and the models:\n  \
    text, prompt + completion   loss and perplexity of a language model; mean reward of a reward model\n  \
    chosen + rejected           pair accuracy of a reward model, or of a language model's log-ratio to --reference\n  \
    prompts, with --reward      mean reward of the model's own samples (and win rate over --reference's)\n  \
    prompts, with --reference   exact KL of the model from it, on those samples\n  \
    prompts, with --against     the models' samples against each other, by the judge: rows for `collimate rank`\n\nExamples:\n  \
    collimate evaluate --model runs/reward --data data/preferences_eval.jsonl\n  \
    collimate evaluate --model runs/dpo --reference runs/sft --reward runs/judge --data data/eval_prompts.jsonl\n  \
    collimate evaluate --model runs/sft --against runs/dpo --against runs/ppo --reward runs/judge \\\n    \
    --data data/eval_prompts.jsonl --comparisons comparisons.jsonl")]
pub struct EvaluateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The model that KL and log-ratios are taken against
    #[arg(long, value_name = "MODEL")]
    reference: Option<String>,
    /// Reward model that judges samples
    #[arg(long, value_name = "MODEL")]
    reward: Option<String>,
    /// Another model to compare with, may be given several times; --reward is the judge
    #[arg(long, value_name = "MODEL", requires = "reward", conflicts_with_all = ["reference", "output"])]
    against: Vec<String>,
    /// Write every comparison as a row {"a", "b", "winner"} to this JSONL file
    #[arg(long, value_name = "FILE", requires = "against")]
    comparisons: Option<PathBuf>,
    /// Write the judge's probability ("preference" of a) in place of the winner
    #[arg(long, requires = "comparisons")]
    soft: bool,
    /// JSONL rows
    #[arg(long, value_name = "FILE")]
    data: String,
    /// Completions a prompt
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Only the first N rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Write the samples with their rewards and KL to this JSONL file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Figures by name, in the order in which they are printed.
type Figures = Map<String, Value>;

/// Runs the command.
pub fn run(args: &EvaluateArgs) -> Result<()> {
    check_output(args.output.as_deref())?;
    let options = args.model.load_options()?;
    if !args.against.is_empty() {
        let figures = against::run(args, &options)?;
        if args.json {
            print(true, &figures)
        } else {
            against::print(&figures)
        }
        return Ok(());
    }
    let path = hub::resolve_dataset_file(&args.data)?;
    let found = columns(&path)?;
    let has = |name: &str| found.iter().any(|column| column == name);
    let dir = hub::resolve_model(&args.model.model)?;
    let is_reward = HfConfig::from_dir(&dir)?.is_reward();
    if is_reward && (args.reference.is_some() || args.reward.is_some()) {
        let message = format!("{} is a reward model: it draws no samples", args.model.model);
        return Err(Error::usage(message, "give a language model as --model, or leave out --reference and --reward"));
    }
    let pairs = has("chosen") && has("rejected");
    let samples = args.reward.is_some() || (args.reference.is_some() && !pairs);
    if args.output.is_some() && !samples {
        return Err(Error::usage("--output holds samples, and none are drawn here", "add --reward or --reference"));
    }
    let mut figures = Figures::new();
    figures.insert("model".into(), json!(args.model.model));
    figures.insert("data".into(), json!(args.data));
    match (is_reward, pairs) {
        (true, true) => reward_on_pairs(args, &options, &mut figures)?,
        (true, false) => reward_on_rows(args, &options, &mut figures)?,
        (false, _) => {
            let opened = open_causal(&args.model.model, &options)?;
            if pairs {
                policy_on_pairs(args, &opened, &options, &mut figures)?;
            } else if ["text", "completion", "messages", "conversations"].into_iter().any(has) {
                policy_on_rows(args, &opened, &mut figures)?;
            } else if !samples {
                let remedy = "add --reward, --reference or both, or give rows with completions";
                return Err(Error::usage(format!("{} has only prompts", args.data), remedy));
            }
            if samples {
                if !has("prompt") {
                    let remedy = "give rows with a \"prompt\"";
                    return Err(Error::usage(format!("{} has no prompts to sample from", args.data), remedy));
                }
                own_samples(args, &opened, &options, &mut figures)?;
            }
        }
    }
    print(args.json, &figures);
    Ok(())
}

fn print(as_json: bool, figures: &Figures) {
    if as_json {
        println!("{}", serde_json::to_string(figures).expect("JSON values serialise"));
        return;
    }
    for (name, value) in figures.iter().filter(|(name, _)| !name.ends_with("_se")) {
        let error = figures.get(&format!("{name}_se")).and_then(Value::as_f64);
        match (value.as_f64().filter(|_| value.is_f64()), error) {
            (Some(v), Some(se)) => println!("{name:<24} {v:.4} +- {se:.4}"),
            (Some(v), None) => println!("{name:<24} {v:.4}"),
            (None, _) => println!("{name:<24} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        }
    }
}

fn encode_options(max_positions: i64, append_eos: bool) -> EncodeOptions {
    EncodeOptions::completions(usize::try_from(max_positions).unwrap_or(usize::MAX), append_eos)
}

fn limited<T>(mut rows: Vec<T>, limit: Option<u32>) -> Vec<T> {
    rows.truncate(limit.map_or(usize::MAX, |n| n as usize));
    rows
}

fn read_pairs(args: &EvaluateArgs, tokenizer: &Tokenizer, options: &EncodeOptions) -> Result<Vec<Pair>> {
    let mut report = DataReport::default();
    let path = hub::resolve_dataset_file(&args.data)?;
    let rows = limited(read_rows(&path, Wanted::Preference, OnBadRow::Error, &mut report)?, args.limit);
    encode_pairs(tokenizer, &rows, options, OnBadRow::Error, &mut report)
}

/// Accuracy (ties in the labels left out), mean margin with standard error, rows counted.
fn pair_figures(gaps: &[f64], pairs: &[Pair], margin_name: &str, figures: &mut Figures) {
    let decided: Vec<bool> = gaps
        .iter()
        .zip(pairs)
        .filter(|(_, pair)| pair.preference != 0.5)
        .map(|(gap, pair)| gap * (pair.preference - 0.5) > 0.0)
        .collect();
    let right = decided.iter().filter(|&&r| r).count() as f64;
    let (margin, margin_se) = mean_and_error(gaps, 1);
    figures.insert("pairs".into(), json!(pairs.len()));
    if !decided.is_empty() {
        let accuracy = right / decided.len() as f64;
        figures.insert("accuracy".into(), json!(accuracy));
        figures.insert("accuracy_se".into(), json!((accuracy * (1.0 - accuracy) / decided.len() as f64).sqrt()));
    }
    figures.insert(margin_name.into(), json!(margin));
    figures.insert(format!("{margin_name}_se"), json!(margin_se));
}

fn reward_on_pairs(args: &EvaluateArgs, options: &LoadOptions, figures: &mut Figures) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let dir = hub::resolve_model(&args.model.model)?;
    let scorer = RewardScorer::open(&dir, options, args.model.batch())?;
    let model = scorer.model();
    let options = encode_options(model.dims().context, model.append_eos());
    let pairs = read_pairs(args, scorer.tokenizer(), &options)?;
    let mut progress = Progress::new("evaluating", pairs.len() as u64, 0);
    let (mut gaps, mut rewards) = (Vec::new(), Vec::new());
    for chunk in pairs.chunks(args.model.batch()) {
        let batch = pair_batch(&chunk.iter().collect::<Vec<_>>());
        let values = sequence_rewards(model, &batch.flat, &batch.ends, &batch.actions)?;
        let values: Vec<f64> = Vec::<f32>::try_from(values)?.into_iter().map(|v| f64::from(v) + model.bias()).collect();
        let (chosen, rejected) = values.split_at(chunk.len());
        gaps.extend(chosen.iter().zip(rejected).map(|(c, r)| c - r));
        rewards.extend(values);
        progress.set(gaps.len() as u64, "");
    }
    drop(progress);
    pair_figures(&gaps, &pairs, "margin", figures);
    figures.insert("mean_reward".into(), json!(mean_and_error(&rewards, 1).0));
    Ok(())
}

fn reward_on_rows(args: &EvaluateArgs, options: &LoadOptions, figures: &mut Figures) -> Result<()> {
    let dir = hub::resolve_model(&args.model.model)?;
    let scorer = RewardScorer::open(&dir, options, args.model.batch())?;
    let path = hub::resolve_dataset_file(&args.data)?;
    let rows = read_rows(&path, Wanted::Lm, OnBadRow::Error, &mut DataReport::default())?;
    let rows = limited(rows, args.limit);
    let mut progress = Progress::new("scoring", rows.len() as u64, 0);
    let rewards = scorer.score(&rows, |done| progress.set(done as u64, ""))?;
    drop(progress);
    let (reward, reward_se) = mean_and_error(&rewards, 1);
    figures.insert("rows".into(), json!(rows.len()));
    figures.insert("reward".into(), json!(reward));
    figures.insert("reward_se".into(), json!(reward_se));
    Ok(())
}

fn policy_on_rows(args: &EvaluateArgs, opened: &Opened, figures: &mut Figures) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let mut report = DataReport::default();
    let path = hub::resolve_dataset_file(&args.data)?;
    let rows = limited(read_rows(&path, Wanted::Lm, OnBadRow::Error, &mut report)?, args.limit);
    let options = encode_options(opened.model.dims().context, true);
    let sequences = encode_lm(&opened.tokenizer, &rows, &options, OnBadRow::Error, &mut report)?;
    let mut progress = Progress::new("evaluating", sequences.len() as u64, 0);
    let (mut total, mut tokens, mut done) = (0.0, 0usize, 0);
    for chunk in sequences.chunks(args.model.batch()) {
        let batch = lm_batch(&chunk.iter().collect::<Vec<_>>());
        let logps = target_logprobs(&opened.model, &batch.flat, &batch.targets, 1.0)?;
        total -= f64::try_from(logps.f_sum(tch::Kind::Double)?)?;
        tokens += batch.targets.len();
        done += chunk.len();
        progress.set(done as u64, "");
    }
    drop(progress);
    let loss = total / tokens as f64;
    figures.insert("rows".into(), json!(sequences.len()));
    figures.insert("target_tokens".into(), json!(tokens));
    figures.insert("loss".into(), json!(loss));
    figures.insert("perplexity".into(), json!(loss.exp()));
    Ok(())
}

fn policy_on_pairs(args: &EvaluateArgs, opened: &Opened, options: &LoadOptions, figures: &mut Figures) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let encode = encode_options(opened.model.dims().context, true);
    let pairs = read_pairs(args, &opened.tokenizer, &encode)?;
    let reference = args.reference.as_deref().map(|path| open_causal(path, options)).transpose()?;
    if let Some(reference) = &reference {
        same_vocabulary(opened, reference)?;
    }
    let mut progress = Progress::new("evaluating", pairs.len() as u64, 0);
    let (mut chosen, mut rejected, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
    for chunk in pairs.chunks(args.model.batch()) {
        let batch = pair_batch(&chunk.iter().collect::<Vec<_>>());
        let policy = sequence_logprobs(&opened.model, &batch.flat, &batch.targets)?;
        let ratios = match &reference {
            Some(reference) => policy.f_sub(&sequence_logprobs(&reference.model, &batch.flat, &batch.targets)?)?,
            None => policy.shallow_clone(),
        };
        let split = |values: &tch::Tensor| -> Result<(Vec<f64>, Vec<f64>)> {
            let values: Vec<f64> = Vec::<f32>::try_from(values)?.into_iter().map(f64::from).collect();
            let (chosen, rejected) = values.split_at(chunk.len());
            Ok((chosen.to_vec(), rejected.to_vec()))
        };
        let (c, r) = split(&policy)?;
        chosen.extend(c);
        rejected.extend(r);
        let (c, r) = split(&ratios)?;
        gaps.extend(c.into_iter().zip(r).map(|(c, r)| c - r));
        progress.set(gaps.len() as u64, "");
    }
    drop(progress);
    let name = if reference.is_some() { "log_ratio_margin" } else { "logp_margin" };
    pair_figures(&gaps, &pairs, name, figures);
    figures.insert("logps_chosen".into(), json!(mean_and_error(&chosen, 1).0));
    figures.insert("logps_rejected".into(), json!(mean_and_error(&rejected, 1).0));
    Ok(())
}

/// KL and log-ratios compare distributions over the same ids.
fn same_vocabulary(policy: &Opened, reference: &Opened) -> Result<()> {
    if policy.model.dims().vocab == reference.model.dims().vocab && policy.tokenizer.same_ids(&reference.tokenizer) {
        return Ok(());
    }
    let message = format!("{} and {} have different vocabularies", policy.dir.display(), reference.dir.display());
    Err(Error::usage(message, "a reference must have the model's own tokenizer"))
}

/// How many samples there are, how long they are, and how many ended by themselves.
fn count(prompts: &[Prompt], drawn: &[Sample], samples: usize, eos: Option<i64>, figures: &mut Figures) {
    let lengths: Vec<f64> = drawn.iter().map(|s| s.tokens.len() as f64).collect();
    let finished = drawn.iter().filter(|s| s.tokens.last().copied() == eos).count();
    figures.insert("prompts".into(), json!(prompts.len()));
    figures.insert("samples".into(), json!(drawn.len()));
    figures.insert("completion_tokens".into(), json!(mean_and_error(&lengths, samples).0));
    figures.insert("finished".into(), json!(finished as f64 / drawn.len() as f64));
}

/// Samples of the model, judged and compared.
fn own_samples(args: &EvaluateArgs, opened: &Opened, options: &LoadOptions, figures: &mut Figures) -> Result<()> {
    let (samples, batch) = (args.samples as usize, args.model.batch());
    let temperature = args.sampling.temperature;
    let sampling = Sampling { temperature, top_k: 0, top_p: 1.0, greedy: false };
    let generate = args.sampling.options(opened, sampling, batch)?;
    let limit = args.limit.map(|n| n as usize);
    let prompts = read_prompts(
        &hub::resolve_dataset_file(&args.data)?,
        &opened.model,
        &opened.tokenizer,
        generate.max_new_tokens,
        limit,
    )?;
    let draw = |from: &Opened, label: &str| -> Result<Vec<Sample>> {
        let mut progress = Progress::new(label, (prompts.len() * samples) as u64, 0);
        sample(&from.model, &from.tokenizer, &prompts, samples, &generate, |done| {
            progress.set(done as u64, "");
            Ok(())
        })
    };
    let drawn = draw(opened, "sampling")?;
    count(&prompts, &drawn, samples, opened.tokenizer.eos(), figures);
    let mut rows: Vec<Map<String, Value>> = drawn.iter().map(|s| columns_of(&prompts[s.prompt], &s.text)).collect();
    let mut put = |name: &str, values: &[f64], figures: &mut Figures| {
        let (mean, se) = mean_and_error(values, samples);
        figures.insert(name.to_owned(), json!(mean));
        figures.insert(format!("{name}_se"), json!(se));
        for (row, value) in rows.iter_mut().zip(values) {
            row.insert(name.to_owned(), json!(value));
        }
    };
    let reference = args.reference.as_deref().map(|path| open_causal(path, options)).transpose()?;
    let judge = args.reward.as_deref().map(|path| RewardScorer::open(&hub::resolve_model(path)?, options, batch));
    let judge = judge.transpose()?;
    let rewards = judge.as_ref().map(|judge| judged(judge, &prompts, &drawn)).transpose()?;
    if let Some(rewards) = &rewards {
        put("reward", rewards, figures);
    }
    if let Some(reference) = &reference {
        same_vocabulary(opened, reference)?;
        let mut progress = Progress::new("KL", drawn.len() as u64, 0);
        let kls = sample_kl(&opened.model, &reference.model, &prompts, &drawn, temperature, batch, |done| {
            progress.set(done as u64, "");
        })?;
        drop(progress);
        put("kl", &kls.iter().map(|k| k.exact).collect::<Vec<_>>(), figures);
        put("kl_log_ratio", &kls.iter().map(|k| k.log_ratio).collect::<Vec<_>>(), figures);
    }
    if let (Some(reference), Some(judge), Some(rewards)) = (&reference, &judge, &rewards) {
        let theirs = draw(reference, "sampling reference")?;
        let their_rewards = judged(judge, &prompts, &theirs)?;
        put("reference_reward", &their_rewards, figures);
        let wins: Vec<f64> = rewards.iter().zip(&their_rewards).map(|(a, b)| win(*a, *b)).collect();
        put("win_rate", &wins, figures);
    }
    match &args.output {
        Some(path) => write_rows(Some(path), &rows),
        None => Ok(()),
    }
}

fn judged(judge: &RewardScorer, prompts: &[Prompt], samples: &[Sample]) -> Result<Vec<f64>> {
    let mut progress = Progress::new("judging", samples.len() as u64, 0);
    sample_rewards(judge, prompts, samples, |done| progress.set(done as u64, ""))
}
