//! The command line: parses, sets up logging, runs one command, prints errors, exits.
//!
//! Exit status: 0 done, 2 a user's mistake, 1 a failure, 128 + n after signal n.
use clap::{Args, Parser, Subcommand};
use collimate::annotate::{self, AnnotateArgs};
use collimate::bench::{self, BenchArgs};
use collimate::commands::{DtypeArg, evaluate, fetch, generate, info, score, validate};
use collimate::config::{
    CollectConfig, DaggerConfig, DpoConfig, ImitationConfig, PpoConfig, RewardConfig, SentimentConfig, SftConfig,
};
use collimate::rank::{self, RankArgs};
use collimate::train::{progress, signals};
use collimate::{Error, collect, experiment, stages};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Aligns small language models: SFT, reward models, DPO, PPO. Hugging Face formats in and out.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
#[command(after_help = "Example:\n  collimate dpo configs/dpo.toml train.output=runs/mine dpo.beta=0.3\n\n\
    RUST_LOG=collimate=debug shows more; errors are one line on standard error with the remedy.")]
struct Cli {
    /// No progress, only warnings and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Supervised fine-tuning on texts or completions
    #[command(after_help = "Examples:\n  collimate sft configs/sft.toml\n  \
        collimate sft configs/sft.toml train.output=runs/a train.resume=true")]
    Sft(StageArgs),
    /// Imitation of an expert on the student's own rollouts (dataset aggregation)
    #[command(after_help = "Examples:\n  collimate dagger configs/dagger.toml dagger.rounds=3\n  \
        collimate dagger my.toml 'dagger.expert_command=python3 expert.py'")]
    Dagger(StageArgs),
    /// A Bradley-Terry reward model on preference pairs
    #[command(after_help = "Example:\n  collimate reward configs/reward.toml reward.pooling=sum")]
    Reward(StageArgs),
    /// Direct preference optimization on preference pairs
    #[command(after_help = "Example:\n  collimate dpo configs/dpo.toml model.path=gpt2 dpo.beta=0.1")]
    Dpo(StageArgs),
    /// Proximal policy optimization against a reward model or a program
    #[command(after_help = "Examples:\n  collimate ppo configs/ppo.toml ppo.kl_coef=0.1\n  \
        collimate ppo my.toml 'ppo.reward_command=python3 score.py'")]
    Ppo(StageArgs),
    /// A whole comparison, from SFT to the report
    #[command(subcommand)]
    Experiment(Experiment),
    /// Pairs of completions of one or several models, judged or not
    #[command(after_help = "Examples:\n  collimate collect configs/collect.toml\n  \
        collimate collect configs/collect.toml collect.output=mine.jsonl collect.judge=runs/judge collect.labels=mu")]
    Collect(ExperimentArgs),
    /// A page on which people judge pairs, and what they said as rows to train on
    Annotate(AnnotateArgs),
    /// Completions of prompts
    Generate(generate::GenerateArgs),
    /// Log-probs or rewards of rows
    Score(score::ScoreArgs),
    /// Loss, accuracy, reward and exact KL
    Evaluate(evaluate::EvaluateArgs),
    /// What a configuration would train on, without training
    Validate(validate::ValidateArgs),
    /// A model or data set of the hub into the cache
    Fetch(fetch::FetchArgs),
    /// Where the time and memory of a stage go, on synthetic rows
    Bench(BenchArgs),
    /// Bradley-Terry strengths of items from comparisons of two at a time
    Rank(RankArgs),
    /// Versions, devices, threads
    Info(info::InfoArgs),
}

#[derive(Debug, Subcommand)]
enum Experiment {
    /// DPO against PPO on sentiment control: gold reward at exact KL, with report.html and frontier.png
    #[command(after_help = "Examples:\n  collimate experiment sentiment configs/quickstart.toml\n  \
        collimate experiment sentiment configs/quickstart.toml experiment.output=runs/b 'experiment.betas=[0.2]'\n\n\
        Run again, it goes on where it stopped; parts whose inputs have not changed are not run again.")]
    Sentiment(ExperimentArgs),
    /// Behavioural cloning against DAgger on a task where errors compound: errors over horizons, with report.html
    #[command(after_help = "Example:\n  collimate experiment imitation configs/imitation.toml\n\n\
        Run again, it goes on where it stopped.")]
    Imitation(ExperimentArgs),
}

/// A configuration file that is no stage's and what replaces its keys.
#[derive(Debug, Args)]
struct ExperimentArgs {
    /// Configuration file
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
    /// Replace keys of the file
    #[arg(value_name = "section.key=value")]
    overrides: Vec<String>,
}

impl Command {
    fn has_checkpoints(&self) -> bool {
        use Command::{Dagger, Dpo, Experiment, Ppo, Reward, Sft};
        matches!(self, Sft(_) | Dagger(_) | Reward(_) | Dpo(_) | Ppo(_) | Experiment(_))
    }
}

/// A stage's configuration file and what replaces its keys.
#[derive(Debug, Args)]
struct StageArgs {
    /// Configuration file; configs/ has a commented one for every stage
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
    /// Replace keys of the file
    #[arg(value_name = "section.key=value")]
    overrides: Vec<String>,
    /// Same as model.device=...
    #[arg(long)]
    device: Option<String>,
    /// Same as model.dtype=...
    #[arg(long, value_enum)]
    dtype: Option<DtypeArg>,
    /// Same as train.seed=...
    #[arg(long)]
    seed: Option<u64>,
}

impl StageArgs {
    fn overrides(&self) -> Vec<String> {
        let mut all = self.overrides.clone();
        all.extend(self.device.as_ref().map(|device| format!("model.device={device}")));
        all.extend(self.dtype.map(|dtype| format!("model.dtype={}", format!("{dtype:?}").to_lowercase())));
        all.extend(self.seed.map(|seed| format!("train.seed={seed}")));
        all
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.quiet);
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let code = error.downcast_ref::<Error>().map_or(1, Error::exit_code);
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    // Only what has checkpoints waits for a boundary; anything else ends at the first signal, as programs do.
    if command.has_checkpoints() {
        signals::install()?;
    }
    match command {
        Command::Sft(args) => stages::run::<SftConfig>(&args.config, &args.overrides())?,
        Command::Dagger(args) => stages::run::<DaggerConfig>(&args.config, &args.overrides())?,
        Command::Reward(args) => stages::run::<RewardConfig>(&args.config, &args.overrides())?,
        Command::Dpo(args) => stages::run::<DpoConfig>(&args.config, &args.overrides())?,
        Command::Ppo(args) => stages::run::<PpoConfig>(&args.config, &args.overrides())?,
        Command::Experiment(Experiment::Sentiment(args)) => {
            experiment::sentiment::run(&SentimentConfig::load(&args.config, &args.overrides)?)?;
        }
        Command::Experiment(Experiment::Imitation(args)) => {
            experiment::imitation::run(&ImitationConfig::load(&args.config, &args.overrides)?)?;
        }
        Command::Collect(args) => collect::run(&CollectConfig::load(&args.config, &args.overrides)?)?,
        Command::Annotate(args) => annotate::run(args)?,
        Command::Generate(args) => generate::run(args)?,
        Command::Score(args) => score::run(args)?,
        Command::Evaluate(args) => evaluate::run(args)?,
        Command::Validate(args) => validate::run(args)?,
        Command::Fetch(args) => fetch::run(args)?,
        Command::Bench(args) => bench::run(args)?,
        Command::Rank(args) => rank::run(args)?,
        Command::Info(args) => info::run(args)?,
    }
    Ok(())
}

fn start_logging(quiet: bool) {
    progress::set_quiet(quiet);
    let level = if quiet { "warn" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("collimate={level}")));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}
