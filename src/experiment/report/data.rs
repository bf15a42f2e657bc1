//! What a report is made of. Owns the data model and its file format; computes nothing.
//!
//! JSON has no NaN: a number that is not finite is written as null, so null is read back as NaN.
use serde::{Deserialize, Deserializer, Serialize};

/// One trained model, measured on the held-out prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// `sft`, `dpo` or `ppo`.
    pub method: String,
    /// What sets this run apart within its method: empty, `beta=0.1` or `kl_coef=0.05`.
    pub setting: String,
    /// The beta or coefficient itself (no unit); none for SFT.
    pub value: Option<f64>,
    /// Seed of the run.
    pub seed: u64,
    /// Optimiser step of the model measured.
    pub step: u64,
    /// Mean gold reward, in standard deviations of the judge's training texts.
    #[serde(deserialize_with = "number")]
    pub gold_reward: f64,
    /// Standard error of `gold_reward`, same unit.
    #[serde(deserialize_with = "number")]
    pub gold_reward_se: f64,
    /// Mean reward of the reward model that PPO was trained on, in standard deviations of that model's training texts.
    #[serde(deserialize_with = "number")]
    pub proxy_reward: f64,
    /// Standard error of `proxy_reward`, same unit.
    #[serde(deserialize_with = "number")]
    pub proxy_reward_se: f64,
    /// Exact KL divergence of whole completions from the SFT model, in nats.
    #[serde(deserialize_with = "number")]
    pub kl: f64,
    /// Standard error of `kl`, in nats.
    #[serde(deserialize_with = "number")]
    pub kl_se: f64,
    /// The same divergence as the mean log-ratio of the sampled tokens (no expectation taken), in nats.
    #[serde(deserialize_with = "number")]
    pub kl_log_ratio: f64,
    /// Share of prompts (0 to 1) on which the gold judge prefers this model's completion to SFT's.
    #[serde(deserialize_with = "number")]
    pub win_rate: f64,
    /// Standard error of `win_rate`.
    #[serde(deserialize_with = "number")]
    pub win_rate_se: f64,
    /// Mean length of a completion, in tokens.
    #[serde(deserialize_with = "number")]
    pub completion_tokens: f64,
    /// Share of completions (0 to 1) that the model ended by itself.
    #[serde(deserialize_with = "number")]
    pub finished: f64,
    /// Time that training took, in seconds.
    #[serde(deserialize_with = "number")]
    pub train_seconds: f64,
    /// Directory of the run.
    pub run: String,
}

/// One line of a chart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Name in the legend.
    pub label: String,
    /// (x, y), in the units that the chart's axes name.
    #[serde(deserialize_with = "pairs")]
    pub points: Vec<(f64, f64)>,
    /// Dots in the colour of the line that stands four before it, no line.
    #[serde(default)]
    pub marks: bool,
}

/// A small chart of lines: a training curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// What is shown.
    pub title: String,
    /// Name and unit of the x axis.
    pub x_label: String,
    /// Name and unit of the y axis.
    pub y_label: String,
    /// The lines.
    pub series: Vec<Series>,
    /// Whether both axes are logarithmic; only values above 0 are then shown.
    #[serde(default)]
    pub log: bool,
}

/// What several models wrote for one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleSet {
    /// The prompt.
    pub prompt: String,
    /// One completion a model.
    pub completions: Vec<Completion>,
}

/// One model's completion of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The model: `SFT`, `DPO beta=0.1`.
    pub label: String,
    /// The text as the model wrote it.
    pub text: String,
    /// Gold reward of this completion, in standard deviations of the judge's training texts.
    #[serde(deserialize_with = "number")]
    pub gold_reward: f64,
}

/// One part of the experiment: a stage or a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Name of the part.
    pub name: String,
    /// Command line that does it.
    pub command: String,
    /// Time it took, in seconds.
    #[serde(deserialize_with = "number")]
    pub seconds: f64,
    /// Its settings, as TOML.
    pub settings: String,
    /// Whether an earlier result was taken instead of doing it again.
    pub reused: bool,
}

/// One fact about the experiment, such as how well the gold judge orders held-out pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// What is told.
    pub name: String,
    /// The value with its unit and error, as words.
    pub value: String,
}

/// Everything that the page shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Title of the page.
    pub title: String,
    /// Facts shown above the picture.
    pub facts: Vec<Fact>,
    /// The models measured.
    pub points: Vec<Point>,
    /// Training curves.
    pub charts: Vec<Chart>,
    /// Completions side by side.
    pub samples: Vec<SampleSet>,
    /// What was run.
    pub parts: Vec<Part>,
    /// Time the whole experiment took, in seconds.
    #[serde(deserialize_with = "number")]
    pub total_seconds: f64,
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

fn pairs<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(f64, f64)>, D::Error> {
    let read = Vec::<(Option<f64>, Option<f64>)>::deserialize(from)?;
    Ok(read.into_iter().map(|(x, y)| (x.unwrap_or(f64::NAN), y.unwrap_or(f64::NAN))).collect())
}
