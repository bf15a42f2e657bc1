//! Several models' samples of the same prompts, judged against each other: rewards, win rates, and rows for a ranking.
use super::{EvaluateArgs, Figures, limited};
use crate::commands::{check_output, open_causal, write_rows};
use crate::config::OnBadRow;
use crate::data::{DataReport, Located, Wanted, read_rows};
use crate::error::{Error, Result};
use crate::hub;
use crate::loss::bradley_terry::probability;
use crate::model::LoadOptions;
use crate::rollout::assess::{encode_for, mean_and_error, sample, sample_rewards, win};
use crate::rollout::sampling::Sampling;
use crate::rollout::scorer::RewardScorer;
use crate::train::progress::Progress;
use serde_json::{Map, Value, json};

/// What the judge says of a model: rewards, prompt by prompt, sample by sample.
struct Player {
    name: String,
    rewards: Vec<f64>,
}

/// Samples every model, judges, and compares sample k of a prompt by one model with sample k by each other one.
///
/// # Errors
/// The same model twice; no judge; models or rows that cannot be used.
pub(super) fn run(args: &EvaluateArgs, options: &LoadOptions) -> Result<Figures> {
    check_output(args.comparisons.as_deref())?;
    let names: Vec<&str> = std::iter::once(&args.model.model).chain(&args.against).map(String::as_str).collect();
    if let Err(twice) = hub::resolve_different(&names)? {
        let message = format!("{twice} would be compared with itself");
        return Err(Error::usage(message, "name each model once"));
    }
    let path = hub::resolve_dataset_file(&args.data)?;
    let rows = read_rows(&path, Wanted::Prompts, OnBadRow::Error, &mut DataReport::default())?;
    let rows = limited(rows, args.limit);
    let judge = args.reward.as_deref().unwrap_or_default();
    let judge = RewardScorer::open(&hub::resolve_model(judge)?, options, args.model.batch())?;
    let mut players = Vec::new();
    for name in names {
        players.push(Player { name: name.to_owned(), rewards: rewards(args, name, &rows, &judge, options)? });
    }
    if let Some(path) = &args.comparisons {
        write_rows(Some(path), &comparisons(args, &players))?;
    }
    Ok(figures(args, &players, rows.len()))
}

/// The judge's rewards of a model's samples.
fn rewards(
    args: &EvaluateArgs,
    name: &str,
    rows: &[Located],
    judge: &RewardScorer,
    options: &LoadOptions,
) -> Result<Vec<f64>> {
    let opened = open_causal(name, options)?;
    let sampling = Sampling { temperature: args.sampling.temperature, top_k: 0, top_p: 1.0, greedy: false };
    let generate = args.sampling.options(&opened, sampling, args.model.batch())?;
    let prompts = encode_for(&opened.model, &opened.tokenizer, rows, generate.max_new_tokens)?;
    let samples = args.samples as usize;
    let mut progress = Progress::new("sampling", (prompts.len() * samples) as u64, 0);
    let drawn = sample(&opened.model, &opened.tokenizer, &prompts, samples, &generate, |done| {
        progress.set(done as u64, name);
        Ok(())
    })?;
    drop(progress);
    let mut progress = Progress::new("judging", drawn.len() as u64, 0);
    sample_rewards(judge, &prompts, &drawn, |done| progress.set(done as u64, name))
}

/// Every two models, in the order in which they were named.
fn pairs(players: &[Player]) -> impl Iterator<Item = (&Player, &Player)> {
    players.iter().enumerate().flat_map(|(at, a)| players[at + 1..].iter().map(move |b| (a, b)))
}

/// Rows for `rank`: who won, or with `--soft` the Bradley-Terry probability that a wins.
fn comparisons(args: &EvaluateArgs, players: &[Player]) -> Vec<Map<String, Value>> {
    let samples = args.samples as usize;
    let mut rows = Vec::new();
    for (a, b) in pairs(players) {
        for (at, (ours, theirs)) in a.rewards.iter().zip(&b.rewards).enumerate() {
            let mut row = Map::new();
            row.insert("a".to_owned(), json!(a.name));
            row.insert("b".to_owned(), json!(b.name));
            if args.soft {
                row.insert("preference".to_owned(), json!(probability(ours - theirs)));
            } else {
                let winner = ["b", "tie", "a"][(2.0 * win(*ours, *theirs)) as usize];
                row.insert("winner".to_owned(), json!(winner));
            }
            row.insert("prompt".to_owned(), json!(at / samples));
            row.insert("sample".to_owned(), json!(at % samples));
            rows.push(row);
        }
    }
    rows
}

/// Each model's mean reward and win rate over all others, then every two models.
fn figures(args: &EvaluateArgs, players: &[Player], prompts: usize) -> Figures {
    let samples = args.samples as usize;
    let stated = |mut object: Map<String, Value>, name: &str, values: &[f64]| {
        let (mean, se) = mean_and_error(values, samples);
        object.insert(name.to_owned(), json!(mean));
        object.insert(format!("{name}_se"), json!(se));
        object
    };
    let model = |player: &Player| {
        let others = || players.iter().filter(|other| other.name != player.name);
        let rate = |at: usize| others().map(|other| win(player.rewards[at], other.rewards[at])).sum::<f64>();
        let rates: Vec<f64> = (0..player.rewards.len()).map(|at| rate(at) / others().count() as f64).collect();
        let object = Map::from_iter([("model".to_owned(), json!(player.name))]);
        Value::Object(stated(stated(object, "reward", &player.rewards), "win_rate", &rates))
    };
    let pair = |(a, b): (&Player, &Player)| {
        let wins: Vec<f64> = a.rewards.iter().zip(&b.rewards).map(|(ours, theirs)| win(*ours, *theirs)).collect();
        let object = Map::from_iter([("a".to_owned(), json!(a.name)), ("b".to_owned(), json!(b.name))]);
        Value::Object(stated(object, "win_rate", &wins))
    };
    let mut figures = Figures::new();
    figures.insert("data".into(), json!(args.data));
    figures.insert("judge".into(), json!(args.reward));
    figures.insert("prompts".into(), json!(prompts));
    figures.insert("samples".into(), json!(prompts * samples));
    figures.insert("models".into(), players.iter().map(model).collect());
    figures.insert("pairs".into(), pairs(players).map(pair).collect());
    figures
}

/// The models in a table, the highest win rate first.
pub(super) fn print(figures: &Figures) {
    for name in ["data", "judge", "prompts", "samples"] {
        println!("{name:<24} {}", figures[name].as_str().map_or_else(|| figures[name].to_string(), str::to_owned));
    }
    let number = |model: &Value, key: &str| model[key].as_f64().unwrap_or(f64::NAN);
    let mut models: Vec<&Value> = figures["models"].as_array().into_iter().flatten().collect();
    models.sort_by(|a, b| number(b, "win_rate").total_cmp(&number(a, "win_rate")));
    let name = |model: &Value| model["model"].as_str().unwrap_or_default().to_owned();
    let width = models.iter().map(|model| name(model).chars().count()).max().unwrap_or(0).max("model".len());
    println!("\n{:<width$}  {:>18}  {:>22}", "model", "reward", "wins against the rest");
    for model in models {
        let reward = format!("{:.4} +- {:.4}", number(model, "reward"), number(model, "reward_se"));
        let rate = format!("{:.1}% +- {:.1}%", 100.0 * number(model, "win_rate"), 100.0 * number(model, "win_rate_se"));
        println!("{:<width$}  {reward:>18}  {rate:>22}", name(model));
    }
}
