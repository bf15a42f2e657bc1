//! Sentiment control: gold judge, SFT, pairs sampled from it and labelled by the judge, a reward model, DPO at several
//! betas, PPO at several KL coefficients, every point judged on the same held-out prompts. Writes the report.
use super::pairs::{Labeller, PairOptions};
use super::parts::{Inputs, Runner};
use super::points::{self, Measured, Settings, Yardstick};
use super::report::{Chart, Completion, Fact, Part as ReportPart, Point, Report, SampleSet, Series};
use super::report::{frontier_svg, html, png_of_svg, sentences};
use crate::config::SentimentConfig;
use crate::config::experiment::run_name;
use crate::durable;
use crate::error::{Error, Result};
use crate::model::{LoadOptions, device};
use crate::train::metrics::METRICS_FILE;
use crate::{hub, seed};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tch::Kind;

/// Prompts whose completions are shown side by side.
const SHOWN: usize = 6;

/// Runs or goes on with the experiment and writes its report.
///
/// # Errors
/// Those of the parts; what is done stays done.
pub fn run(config: &SentimentConfig) -> Result<()> {
    check_inputs(config)?;
    let points = 1 + config.dpo.len() + config.ppo.len();
    let stages = usize::from(config.sft.is_some()) + usize::from(config.judge.is_some()) + 2;
    let mut runner = Runner::new(&config.experiment.output, stages + 2 * points - 1)?;
    train(config, &mut runner)?;
    let measured = measure(config, &mut runner)?;
    let report = report(config, &runner, &measured)?;
    write(Path::new(&config.experiment.output), &report)?;
    for sentence in sentences(&report.points) {
        println!("{sentence}");
    }
    println!("report: {}", config.path("report.html"));
    Ok(())
}

/// A file or model that only a late part reads must not be missed after an hour.
fn check_inputs(config: &SentimentConfig) -> Result<()> {
    let data = &config.data;
    let mut files = vec![&data.prompts, &data.eval_prompts];
    if config.sft.is_some() {
        files.push(&data.sft);
        files.extend(&data.sft_eval);
    }
    if config.judge.is_some() {
        files.extend([&data.judge, &data.judge_eval]);
    }
    for file in files {
        hub::resolve_dataset_file(file)?;
    }
    for model in [&config.experiment.sft, &config.experiment.judge].into_iter().flatten() {
        hub::resolve_model(model)?;
    }
    device::resolve(&config.experiment.device).map(drop)
}

/// The runs, each in its directory.
fn train(config: &SentimentConfig, runner: &mut Runner) -> Result<()> {
    if let Some(sft) = &config.sft {
        runner.stage("sft", "a language model learns the texts", sft)?;
    }
    if let Some(judge) = &config.judge {
        runner.stage("judge", "the gold judge learns from labels that nothing else sees", judge)?;
    }
    pairs(config, runner)?;
    runner.stage("reward", "a reward model learns the judge's preferences", &config.reward)?;
    for (beta, part) in &config.dpo {
        runner.stage(&run_name("dpo", "beta", *beta), "DPO on the pairs", part)?;
    }
    for (coef, part) in &config.ppo {
        runner.stage(&run_name("ppo", "coef", *coef), "PPO against the reward model", part)?;
    }
    Ok(())
}

fn load_options(config: &SentimentConfig) -> Result<LoadOptions> {
    let device = device::resolve(&config.experiment.device)?;
    Ok(LoadOptions { device, compute: Kind::Float, trainable: false, mapped: false, checkpointing: false })
}

/// Pairs of training prompts, and of held-out ones to tell how good the reward model and DPO are.
fn pairs(config: &SentimentConfig, runner: &mut Runner) -> Result<()> {
    let e = &config.experiment;
    let settings = toml::Table::from_iter([
        ("samples".into(), (e.samples as i64).into()),
        ("pairs".into(), (e.pairs as i64).into()),
        ("tie".into(), e.tie.into()),
        ("max_new_tokens".into(), (e.max_new_tokens as i64).into()),
        ("seed".into(), (e.seed as i64).into()),
    ]);
    let files = [("pairs.jsonl", &config.data.prompts), ("pairs_eval.jsonl", &config.data.eval_prompts)];
    let mut inputs = Inputs::new(&settings);
    for (_, prompts) in files {
        inputs.file(Some(prompts))?;
    }
    inputs.model(Some(&config.sft_path()))?;
    inputs.model(Some(&config.judge_path()))?;
    let options = load_options(config)?;
    let dir = PathBuf::from(config.path("pairs"));
    let about = (String::new(), toml::to_string_pretty(&settings).expect("a TOML table serialises"));
    runner.run("pairs", "completions of the SFT model, labelled by the judge", &inputs.finish(), about, || {
        let labeller = Labeller::open(&config.sft_path(), &config.judge_path(), &options, e.batch_size)?;
        std::fs::create_dir_all(&dir).map_err(Error::io(&dir, "create"))?;
        for (at, (file, prompts)) in files.iter().enumerate() {
            let seed = seed::derive(e.seed, "pairs", &[at as u64]);
            let pair_options =
                PairOptions { samples: e.samples, pairs: e.pairs, tie: e.tie, max_new_tokens: e.max_new_tokens, seed };
            let (count, ties) = labeller.write(prompts, &dir.join(file), &pair_options)?;
            tracing::info!("{}: {count} pairs, {ties} of them ties", dir.join(file).display());
        }
        Ok(())
    })
}

/// The points in order: SFT, DPO, PPO, each with its samples.
fn measure(config: &SentimentConfig, runner: &mut Runner) -> Result<Vec<(Point, Vec<Measured>)>> {
    let e = &config.experiment;
    let settings = Settings {
        prompts: config.data.eval_prompts.clone(),
        samples: e.eval_samples,
        max_new_tokens: e.max_new_tokens,
        batch_size: e.batch_size,
        seed: e.seed,
    };
    let (sft, gold, proxy) = (config.sft_path(), config.judge_path(), config.path("reward"));
    let mut yardstick = None;
    let mut found: Vec<(Point, Vec<Measured>)> = Vec::new();
    for (name, point) in planned_points(config, runner)? {
        let table = toml::Table::from_iter([
            ("samples".into(), (settings.samples as i64).into()),
            ("max_new_tokens".into(), (settings.max_new_tokens as i64).into()),
            ("seed".into(), (settings.seed as i64).into()),
        ]);
        let mut inputs = Inputs::new(&table);
        inputs.file(Some(&settings.prompts))?;
        for model in [&point.run, &sft, &gold, &proxy] {
            inputs.model(Some(model))?;
        }
        let dir = PathBuf::from(config.path(&name));
        let command = format!(
            "collimate evaluate --model {} --reference {sft} --reward {gold} --data {} --samples {} --max-new-tokens {} \
             --seed {} --batch-size {}",
            point.run, settings.prompts, settings.samples, settings.max_new_tokens, settings.seed, settings.batch_size
        );
        let about = (command, toml::to_string_pretty(&table).expect("a TOML table serialises"));
        let before = found.first().map(|(_, rows)| rows.as_slice());
        let options = load_options(config)?;
        runner.run(&name, "its own samples, judged", &inputs.finish(), about, || {
            if yardstick.is_none() {
                yardstick = Some(Yardstick::open(&sft, &gold, &proxy, options, settings.clone())?);
            }
            yardstick.as_ref().map_or(Ok(()), |y| y.measure(point, before, &dir))
        })?;
        found.push(points::read(&dir)?);
    }
    Ok(found)
}

/// The points to measure, with what is known before.
fn planned_points(config: &SentimentConfig, runner: &Runner) -> Result<Vec<(String, Point)>> {
    let mut plan =
        vec![("measure-sft".to_owned(), blank(config, "sft", None, config.sft_path(), runner.seconds("sft")))];
    for (method, word, runs) in [("dpo", "beta", &config.dpo), ("ppo", "coef", &config.ppo)] {
        for (value, _) in runs {
            let name = run_name(method, word, *value);
            let seconds = runner.seconds(&name);
            plan.push((format!("measure-{name}"), blank(config, method, Some(*value), config.path(&name), seconds)));
        }
    }
    for (_, point) in &mut plan {
        let steps = metrics(&point.run)?.last().and_then(|line| line.get("step")).and_then(Value::as_u64);
        point.step = steps.unwrap_or(0);
    }
    Ok(plan)
}

fn blank(config: &SentimentConfig, method: &str, value: Option<f64>, run: String, train_seconds: f64) -> Point {
    let word = if method == "ppo" { "kl_coef" } else { "beta" };
    Point {
        method: method.to_owned(),
        setting: value.map_or_else(String::new, |value| format!("{word}={value}")),
        value,
        seed: config.experiment.seed,
        step: 0,
        gold_reward: f64::NAN,
        gold_reward_se: f64::NAN,
        proxy_reward: f64::NAN,
        proxy_reward_se: f64::NAN,
        kl: f64::NAN,
        kl_se: f64::NAN,
        kl_log_ratio: f64::NAN,
        win_rate: f64::NAN,
        win_rate_se: f64::NAN,
        completion_tokens: f64::NAN,
        finished: f64::NAN,
        train_seconds,
        run,
    }
}

/// The lines of a run's metrics.jsonl; none where there is no such file (a model that was given).
fn metrics(run: &str) -> Result<Vec<Map<String, Value>>> {
    let path = Path::new(run).join(METRICS_FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn report(config: &SentimentConfig, runner: &Runner, measured: &[(Point, Vec<Measured>)]) -> Result<Report> {
    let parts = runner.done.iter().map(|part| ReportPart {
        name: part.name.clone(),
        command: part.command.clone(),
        seconds: part.seconds,
        settings: part.settings.clone(),
        reused: part.reused,
    });
    Ok(Report {
        title: "Sentiment control: DPO and PPO".into(),
        facts: facts(config, measured)?,
        points: measured.iter().map(|(point, _)| point.clone()).collect(),
        charts: charts(config)?,
        samples: side_by_side(measured),
        parts: parts.collect(),
        total_seconds: runner.done.iter().map(|part| part.seconds).sum(),
    })
}

/// What a reader needs to believe the rest: how good the judges are.
fn facts(config: &SentimentConfig, measured: &[(Point, Vec<Measured>)]) -> Result<Vec<Fact>> {
    let mut facts = Vec::new();
    for (name, run) in [
        ("gold judge: held-out labelled pairs ordered rightly", config.judge_path()),
        ("reward model: held-out pairs ordered as the judge does (ties left out)", config.path("reward")),
    ] {
        let accuracy = metrics(&run)?.iter().rev().find_map(|line| line.get("eval_accuracy")?.as_f64());
        if let Some(accuracy) = accuracy {
            facts.push(Fact { name: name.into(), value: format!("{:.1}%", 100.0 * accuracy) });
        }
    }
    if let Some((_, rows)) = measured.first() {
        let samples = config.experiment.eval_samples;
        let value = format!("{} prompts, {samples} completions each", rows.len() / samples);
        facts.push(Fact { name: "held-out prompts of every point".into(), value });
    }
    Ok(facts)
}

/// Training curves of the reward model and of all policies.
fn charts(config: &SentimentConfig) -> Result<Vec<Chart>> {
    let names = |method: &str, word: &str, runs: &[(f64, crate::config::Part)]| -> Vec<String> {
        runs.iter().map(|(value, _)| run_name(method, word, *value)).collect()
    };
    let (dpo, ppo) = (names("dpo", "beta", &config.dpo), names("ppo", "coef", &config.ppo));
    let mut charts = Vec::new();
    for (title, y, metric, runs) in [
        ("SFT", "loss (nats a token)", "loss", vec!["sft".to_owned()]),
        ("Reward model", "loss (nats a pair)", "loss", vec!["reward".to_owned()]),
        ("DPO", "rewards/margins (beta times nats)", "rewards/margins", dpo.clone()),
        ("DPO", "loss (nats a pair)", "loss", dpo),
        ("PPO", "objective/scores (reward model's SD)", "objective/scores", ppo.clone()),
        ("PPO", "objective/kl (nats a completion)", "objective/kl", ppo),
    ] {
        let mut series = Vec::new();
        for run in runs {
            let at = |line: &Map<String, Value>| Some((line.get("step")?.as_f64()?, line.get(metric)?.as_f64()?));
            let points: Vec<(f64, f64)> = metrics(&config.path(&run))?.iter().filter_map(at).collect();
            if !points.is_empty() {
                series.push(Series { label: run, points, marks: false });
            }
        }
        if !series.is_empty() {
            charts.push(Chart { title: title.into(), x_label: "step".into(), y_label: y.into(), series, log: false });
        }
    }
    Ok(charts)
}

/// The same prompts under SFT and under each method's best setting.
fn side_by_side(measured: &[(Point, Vec<Measured>)]) -> Vec<SampleSet> {
    let best = |method: &str| {
        let points = measured.iter().filter(|(point, _)| point.method == method);
        points.max_by(|(a, _), (b, _)| a.gold_reward.total_cmp(&b.gold_reward))
    };
    let columns: Vec<&(Point, Vec<Measured>)> =
        ["sft", "dpo", "ppo"].iter().filter_map(|method| best(method)).collect();
    let count = columns.iter().map(|(_, rows)| rows.len()).min().unwrap_or(0);
    let stride = count.div_ceil(SHOWN).max(1);
    let set = |at: usize| SampleSet {
        prompt: columns[0].1[at].prompt.clone(),
        completions: columns
            .iter()
            .map(|(point, rows)| Completion {
                label: format!("{} {}", point.method.to_uppercase(), point.setting).trim().to_owned(),
                text: rows[at].completion.clone(),
                gold_reward: rows[at].gold_reward,
            })
            .collect(),
    };
    (0..count).step_by(stride).map(set).collect()
}

fn write(output: &Path, report: &Report) -> Result<()> {
    let svg = frontier_svg(&report.points);
    let png = png_of_svg(&svg, 2.0)
        .map_err(|message| Error::file(output, format!("frontier.png: {message}"), "please report this"))?;
    let json = serde_json::to_vec_pretty(&report.points).expect("plain data serialises");
    durable::write_file(&output.join("frontier.svg"), svg.as_bytes())?;
    durable::write_file(&output.join("frontier.png"), &png)?;
    durable::write_file(&output.join("frontier.json"), &json)?;
    durable::write_file(&output.join("report.html"), html(report).as_bytes())
}
