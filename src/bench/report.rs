//! The figures of a bench, as one JSON object and as a table. Owns names and layout; measures nothing.
use super::args::{BenchArgs, Plan, StageArg};
use super::measure::{Measured, ORDER};
use super::parts::Seconds;
use crate::model;
use serde_json::{Map, Value, json};
use tch::Device;

/// All figures.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    model: String,
    device: Device,
    dtype: String,
    threads: i64,
    parameters: usize,
    /// Distinct tokens a step, or new ones where a step samples only.
    tokens: usize,
    targets: usize,
    steps: Vec<f64>,
    /// Means over the steps.
    parts: Seconds,
    peak_memory_mb: f64,
    /// Operations a second.
    rate: f64,
    /// Whether large products run on the processor's matrix unit.
    matrix_unit: bool,
    operations: f64,
    start_seconds: f64,
}

impl Report {
    /// Of what was measured; `peak_memory_mb` and the device as the process has them.
    pub fn new(args: &BenchArgs, plan: &Plan, measured: Measured, device: Device, peak_memory_mb: f64) -> Self {
        let Measured { parameters, load, operations, rates, steps, start_seconds } = measured;
        let mut parts = Seconds::new();
        for name in ORDER {
            let all: Vec<f64> = steps.iter().filter_map(|step| step.parts.get(name).copied()).collect();
            if !all.is_empty() {
                parts.insert(name, all.iter().sum::<f64>() / steps.len() as f64);
            }
        }
        let samples_only = plan.stage == StageArg::Generate;
        Report {
            plan: *plan,
            model: args.model.clone(),
            device,
            dtype: format!("{:?}", args.dtype).to_lowercase(),
            threads: tch::get_num_threads().into(),
            parameters,
            tokens: if samples_only { load.targets } else { load.tokens },
            targets: load.targets,
            steps: steps.iter().map(|step| step.seconds).collect(),
            parts,
            peak_memory_mb,
            rate: median(&rates),
            matrix_unit: model::on_matrix_unit(device, args.dtype.kind()),
            operations,
            start_seconds,
        }
    }

    fn step_seconds(&self) -> f64 {
        median(&self.steps)
    }

    fn limit_seconds(&self) -> f64 {
        self.operations / self.rate
    }

    fn share_of_limit(&self) -> f64 {
        self.limit_seconds() / self.step_seconds()
    }

    fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.step_seconds()
    }

    fn device(&self) -> String {
        match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    /// One object.
    pub fn json(&self) -> Value {
        let plan = &self.plan;
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
        put("stage", json!(plan.stage.name()));
        put("model", json!(self.model));
        put("parameters", json!(self.parameters));
        put("device", json!(self.device()));
        put("dtype", json!(self.dtype));
        put("threads", json!(self.threads));
        put("batch_size", json!(plan.batch));
        put("micro_batch_size", json!(plan.micro));
        put("length", json!(plan.length));
        put("prompt_length", json!(plan.prompt));
        if plan.stage.samples() {
            put("new_tokens", json!(plan.new_tokens()));
        }
        if plan.stage == StageArg::Ppo {
            put("epochs", json!(plan.epochs));
        }
        put("tokens", json!(self.tokens));
        put("targets", json!(self.targets));
        put("steps", json!(plan.steps));
        put("step_seconds", json!(self.step_seconds()));
        put("step_seconds_mean", json!(mean(&self.steps)));
        put("step_seconds_all", json!(self.steps));
        put("tokens_per_second", json!(self.tokens_per_second()));
        put("parts", json!(self.parts));
        put("peak_memory_mb", json!(self.peak_memory_mb));
        put("matrix_gflops", json!(self.rate / 1e9));
        put("matrix_unit", json!(self.matrix_unit));
        put("minimum_gflop", json!(self.operations / 1e9));
        put("limit_seconds", json!(self.limit_seconds()));
        put("share_of_limit", json!(self.share_of_limit()));
        put("start_seconds", json!(self.start_seconds));
        Value::Object(object)
    }

    /// A table.
    pub fn text(&self) -> String {
        let Plan { batch, length, prompt, steps, .. } = self.plan;
        let (millions, device) = (self.parameters as f64 / 1e6, self.device());
        let threads = if self.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", self.threads) };
        let rows = match self.plan.stage {
            StageArg::Sft => format!("{batch} sequences of {length} tokens"),
            StageArg::Reward | StageArg::Dpo => {
                format!("{batch} pairs of prompts of {prompt} and completions of {} tokens", length - prompt)
            }
            StageArg::Ppo => {
                let (new, epochs) = (length - prompt, self.plan.epochs);
                format!("{batch} episodes of {prompt} and {new} new tokens, {epochs} epochs")
            }
            StageArg::Generate => format!("{batch} prompts of {prompt} tokens, {} new tokens each", length - prompt),
        };
        let mut text = format!(
            "{} of {} ({millions:.1} M parameters) on {device}, {}, {threads}\n{rows}; {steps} steps after a first\n\n",
            self.plan.stage.name(),
            self.model,
            self.dtype
        );
        let mean = mean(&self.steps);
        let mut line = |name: &str, value: String| text += &format!("{name:<22}{value}\n");
        for (name, seconds) in &self.parts {
            line(name, format!("{seconds:>10.4} s {:>5.1}%", 100.0 * seconds / mean));
        }
        line("step, mean", format!("{mean:>10.4} s"));
        line("step, median", format!("{:>10.4} s", self.step_seconds()));
        line("tokens a step", format!("{:>10}", self.tokens));
        line("targets a step", format!("{:>10}", self.targets));
        line("tokens a second", format!("{:>10.1}", self.tokens_per_second()));
        line("peak memory", format!("{:>10.1} MB", self.peak_memory_mb));
        line("matrix products", format!("{:>10.1} GFLOP/s, libtorch's", self.rate / 1e9));
        line("ours run on", if self.matrix_unit { "the matrix unit" } else { "libtorch" }.to_owned());
        line("least work of a step", format!("{:>10.2} GFLOP", self.operations / 1e9));
        line("which takes", format!("{:>10.4} s", self.limit_seconds()));
        line("share of the limit", format!("{:>10.1} %", 100.0 * self.share_of_limit()));
        line("start to first step", format!("{:>10.2} s", self.start_seconds));
        text
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The middle one, or the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { (sorted[half - 1] + sorted[half]) / 2.0 } else { sorted[half] }
}
