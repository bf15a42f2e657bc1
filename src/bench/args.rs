//! What the user typed, and what it comes to once it is checked against the model's configuration. Owns both; opens no
//! weights.
use crate::commands::DtypeArg;
use crate::error::{Error, Result};
use crate::model::{Facts, LoadOptions, device};
use clap::{Args, ValueEnum};

/// The first step is not counted: memory is fresh and nothing is in a cache.
pub const WARMUP_STEPS: usize = 1;

/// Where the time and memory of a stage go.
///
/// Runs the stage itself (its objective, its batches, the optimizer, the loop) on random tokens, writes nothing, and
/// holds the time of a step against the time that its least work takes at the rate of matrix products that is measured
/// between the steps.
///
/// Parts: data (batches, and in ppo what is made of the samples), forward, backward, optimizer (zeroing gradients,
/// clipping, AdamW), generation, reward (the reward model's forward), reference (reference log-probs; in ppo the policy's
/// own and the values too), other. Each has only what lies in no part within it. On CUDA every part waits for the device
/// at both ends; a real run does not, and is faster by that.
///
/// Least work: matrix products alone. Every distinct token once through the backbone's matrices, every query with the
/// keys it may see, the head on targets; backward twice as much. dpo adds a forward of the reference; ppo the sampling
/// of each token, a forward of reference and reward model, and forward and backward in every epoch.
///
/// The rate is that of libtorch's products in the run's precision. On a processor with a matrix unit for bfloat16 (AMX)
/// the large float32 products run there, faster than that: a share of the limit may then pass 100%.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  collimate bench --model gpt2\n  \
    collimate bench dpo --model runs/sft --batch-size 16 --micro-batch-size 4\n  \
    collimate bench ppo --model gpt2 --prompt-length 10 --new-tokens 48 --json\n  \
    collimate bench generate --model my-config --random --batch-size 64")]
pub struct BenchArgs {
    /// What is run
    #[arg(value_enum, default_value = "sft")]
    pub stage: StageArg,
    /// Model: a directory in Hugging Face layout or a hub id
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// Random weights: of a directory only config.json is read
    #[arg(long)]
    pub random: bool,
    /// Rows a step: sequences, pairs, episodes, prompts
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,
    /// Rows a forward pass [default: the batch size]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub micro_batch_size: Option<u32>,
    /// sft, reward, dpo: tokens of a sequence, prompt included [default: sft 256, else 65]
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    pub length: Option<u32>,
    /// Tokens of a prompt; they are no targets [default: sft 0, else 10]
    #[arg(long)]
    pub prompt_length: Option<u32>,
    /// ppo, generate: tokens of a completion; none ends before [default: ppo 48, generate 64]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub new_tokens: Option<u32>,
    /// ppo: passes over the episodes [default: 4]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: Option<u32>,
    /// Steps that count; one before them does not
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Precision of matrix products
    #[arg(long, value_enum, default_value = "float32")]
    pub dtype: DtypeArg,
    /// Seed of rows, random weights and draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StageArg {
    /// Supervised fine-tuning on sequences.
    Sft,
    /// A reward model on pairs.
    Reward,
    /// Direct preference optimization on pairs.
    Dpo,
    /// Proximal policy optimization on prompts, with a reward model of the same shape.
    Ppo,
    /// Sampling completions of prompts.
    Generate,
}

impl StageArg {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            StageArg::Sft => "sft",
            StageArg::Reward => "reward",
            StageArg::Dpo => "dpo",
            StageArg::Ppo => "ppo",
            StageArg::Generate => "generate",
        }
    }

    /// Tokens of a prompt and of what follows it, where nothing is said.
    fn usual_lengths(self) -> (usize, usize) {
        match self {
            StageArg::Sft => (0, 256),
            StageArg::Reward | StageArg::Dpo => (10, 55),
            StageArg::Ppo => (10, 48),
            StageArg::Generate => (10, 64),
        }
    }

    /// Whether it samples completions.
    pub fn samples(self) -> bool {
        matches!(self, StageArg::Ppo | StageArg::Generate)
    }
}

impl BenchArgs {
    /// How weights are put into memory.
    ///
    /// # Errors
    /// A device that is not there.
    pub fn load_options(&self) -> Result<LoadOptions> {
        let (device, compute) = (device::resolve(&self.device)?, self.dtype.kind());
        Ok(LoadOptions { device, compute, trainable: true, mapped: false, checkpointing: false })
    }
}

/// A checked request.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What is run.
    pub stage: StageArg,
    /// Rows a step.
    pub batch: usize,
    /// Rows a forward pass.
    pub micro: usize,
    /// Tokens of a prompt.
    pub prompt: usize,
    /// Tokens of a sequence: the prompt and what follows it.
    pub length: usize,
    /// Passes over the episodes.
    pub epochs: usize,
    /// Steps that count.
    pub steps: usize,
    /// Of rows, random weights and draws.
    pub seed: u64,
}

impl Plan {
    /// What `args` ask for of a model with these `facts`.
    ///
    /// # Errors
    /// An option that the stage does not read; lengths that do not fit each other or the model.
    pub fn new(args: &BenchArgs, facts: &Facts) -> Result<Self> {
        let stage = args.stage;
        args.refuse_unread()?;
        let batch = args.batch_size as usize;
        let micro = args.micro_batch_size.map_or(batch, |micro| micro as usize);
        if micro > batch {
            let message = format!("--micro-batch-size {micro} exceeds --batch-size {batch}");
            return Err(Error::usage(message, "lower the one or raise the other"));
        }
        let (usual_prompt, usual_rest) = stage.usual_lengths();
        let prompt = args.prompt_length.map_or(usual_prompt, |n| n as usize);
        let length = match stage.samples() {
            true => prompt + args.new_tokens.map_or(usual_rest, |n| n as usize),
            false => args.length.map_or(usual_prompt + usual_rest, |n| n as usize),
        };
        let epochs = args.epochs.map_or(4, |n| n as usize);
        let plan = Plan { stage, batch, micro, prompt, length, epochs, steps: args.steps as usize, seed: args.seed };
        plan.check_lengths(facts)?;
        Ok(plan)
    }

    fn check_lengths(&self, facts: &Facts) -> Result<()> {
        let Plan { prompt, length, .. } = *self;
        if self.stage.samples() && prompt == 0 {
            return Err(Error::usage("--prompt-length 0: nothing to go on from", "give a prompt at least one token"));
        }
        if prompt >= length {
            let message = format!("--prompt-length {prompt} leaves nothing of a sequence of {length} tokens to learn");
            return Err(Error::usage(message, "lower it or raise --length"));
        }
        // Decoding keeps within the positions that the model was made for; rotary ones can be trained beyond.
        let most = if self.stage.samples() { Some(facts.dims.context) } else { facts.most_tokens };
        match most {
            Some(most) if length as i64 > most => {
                let message = format!("sequences of {length} tokens: the model holds {most}");
                let lower = if self.stage.samples() { "--new-tokens or --prompt-length" } else { "--length" };
                Err(Error::usage(message, format!("lower {lower}")))
            }
            _ => Ok(()),
        }
    }

    /// Tokens of a completion that is sampled.
    pub fn new_tokens(&self) -> usize {
        self.length - self.prompt
    }

    /// Steps that are run.
    pub fn all_steps(&self) -> usize {
        self.steps + WARMUP_STEPS
    }
}

impl BenchArgs {
    /// A setting that is not read would be taken for one that changes nothing.
    fn refuse_unread(&self) -> Result<()> {
        let (stage, samples) = (self.stage, self.stage.samples());
        let unread = [
            (self.length.is_some() && samples, "--length", "use --prompt-length and --new-tokens"),
            (self.new_tokens.is_some() && !samples, "--new-tokens", "use --length"),
            (
                self.epochs.is_some() && stage != StageArg::Ppo,
                "--epochs",
                "leave it out; only ppo has epochs in a step",
            ),
            (
                self.micro_batch_size.is_some() && stage == StageArg::Generate,
                "--micro-batch-size",
                "leave it out; all prompts of a step are decoded at once",
            ),
        ];
        match unread.into_iter().find(|(given, ..)| *given) {
            None => Ok(()),
            Some((_, option, remedy)) => Err(Error::usage(format!("{} does not read {option}", stage.name()), remedy)),
        }
    }
}
