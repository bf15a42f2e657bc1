//! A point of the frontier: a model's own samples of held-out prompts, their gold and proxy reward and their exact KL.
use super::report::Point;
use crate::durable;
use crate::error::{Error, Result};
use crate::hub;
use crate::model::{CausalLm, LoadOptions};
use crate::rollout::assess::{Sample, mean_and_error, read_prompts, sample, sample_kl, sample_rewards, win};
use crate::rollout::scorer::RewardScorer;
use crate::rollout::{GenerateOptions, Sampling};
use crate::tokenizer::Tokenizer;
use crate::train::progress::Progress;
use crate::train::signals;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One sampled completion of a held-out prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The prompt.
    pub prompt: String,
    /// The completion.
    pub completion: String,
    /// The gold judge's reward.
    pub gold_reward: f64,
    /// The trained reward model's.
    pub proxy_reward: f64,
    /// Exact KL from the SFT model, nats.
    pub kl: f64,
}

/// What a model is measured with.
pub struct Yardstick {
    reference: CausalLm,
    gold: RewardScorer,
    proxy: RewardScorer,
    options: LoadOptions,
    settings: Settings,
}

/// How it is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// File of held-out prompts.
    pub prompts: String,
    /// Completions of a prompt.
    pub samples: usize,
    /// A completion ends after so many tokens at the latest.
    pub max_new_tokens: usize,
    /// Sequences decoded or judged at once.
    pub batch_size: usize,
    /// Seed of the samples.
    pub seed: u64,
}

const POINT: &str = "point.json";
const SAMPLES: &str = "samples.jsonl";

impl Yardstick {
    /// Opens the reference (the SFT model), the gold judge and the reward model.
    pub fn open(sft: &str, gold: &str, proxy: &str, options: LoadOptions, settings: Settings) -> Result<Self> {
        let scorer = |path: &str| RewardScorer::open(&hub::resolve_model(path)?, &options, settings.batch_size);
        let (gold, proxy) = (scorer(gold)?, scorer(proxy)?);
        let reference = CausalLm::from_pretrained(&hub::resolve_model(sft)?, &options)?;
        Ok(Self { reference, gold, proxy, options, settings })
    }

    /// Measures `point.run`, fills the point's figures in and writes both files into `dir`. `sft`: what the SFT model's
    /// completions of the same prompts were worth, in the same order; none for the SFT model itself.
    pub fn measure(&self, mut point: Point, sft: Option<&[Measured]>, dir: &Path) -> Result<()> {
        let from = hub::resolve_model(&point.run)?;
        let tokenizer = Tokenizer::from_dir(&from)?;
        let policy = CausalLm::from_pretrained(&from, &self.options)?;
        let s = &self.settings;
        let prompts =
            read_prompts(&hub::resolve_dataset_file(&s.prompts)?, &policy, &tokenizer, s.max_new_tokens, None)?;
        let generate = GenerateOptions {
            max_new_tokens: s.max_new_tokens,
            sampling: Sampling::default(),
            eos: tokenizer.eos(),
            seed: s.seed,
            batch_size: s.batch_size,
        };
        let mut progress = Progress::new("sampling", (prompts.len() * s.samples) as u64, 0);
        let samples = sample(&policy, &tokenizer, &prompts, s.samples, &generate, |done| {
            progress.set(done as u64, "");
            signals::check(0)
        })?;
        drop(progress);
        let rewards = |scorer: &RewardScorer| sample_rewards(scorer, &prompts, &samples, |_| {});
        let (gold, proxy) = (rewards(&self.gold)?, rewards(&self.proxy)?);
        let kls = sample_kl(&policy, &self.reference, &prompts, &samples, 1.0, s.batch_size, |_| {})?;
        let exact: Vec<f64> = kls.iter().map(|kl| kl.exact).collect();
        let of = |values: &[f64]| mean_and_error(values, s.samples);
        (point.gold_reward, point.gold_reward_se) = of(&gold);
        (point.proxy_reward, point.proxy_reward_se) = of(&proxy);
        (point.kl, point.kl_se) = of(&exact);
        point.kl_log_ratio = of(&kls.iter().map(|kl| kl.log_ratio).collect::<Vec<_>>()).0;
        let theirs = sft.map_or_else(|| gold.clone(), |rows| rows.iter().map(|row| row.gold_reward).collect());
        let wins: Vec<f64> = gold.iter().zip(&theirs).map(|(ours, theirs)| win(*ours, *theirs)).collect();
        (point.win_rate, point.win_rate_se) = of(&wins);
        let mean = |value: &dyn Fn(&Sample) -> f64| samples.iter().map(value).sum::<f64>() / samples.len() as f64;
        point.completion_tokens = mean(&|s| s.tokens.len() as f64);
        point.finished = mean(&|s| f64::from(u8::from(s.tokens.last().copied() == tokenizer.eos())));
        let mut text = String::new();
        for (at, sample) in samples.iter().enumerate() {
            let row = Measured {
                prompt: prompts[sample.prompt].text.clone(),
                completion: sample.text.clone(),
                gold_reward: gold[at],
                proxy_reward: proxy[at],
                kl: exact[at],
            };
            text += &(serde_json::to_string(&row).expect("plain data serialises") + "\n");
        }
        std::fs::create_dir_all(dir).map_err(Error::io(dir, "create"))?;
        durable::write_file(&dir.join(SAMPLES), text.as_bytes())?;
        durable::write_file(&dir.join(POINT), &serde_json::to_vec_pretty(&point).expect("plain data serialises"))
    }
}

/// What [`Yardstick::measure`] wrote.
pub fn read(dir: &Path) -> Result<(Point, Vec<Measured>)> {
    let broken = |path: &Path| Error::file(path, "cannot be read any more", "remove its directory and run again");
    let path = dir.join(POINT);
    let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    let point = serde_json::from_slice(&bytes).map_err(|_| broken(&path))?;
    let path = dir.join(SAMPLES);
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
    let rows: Result<Vec<Measured>, _> = text.lines().map(serde_json::from_str).collect();
    Ok((point, rows.map_err(|_| broken(&path))?))
}
