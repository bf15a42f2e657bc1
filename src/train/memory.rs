//! Memory under a limit: what a forward and backward pass takes is measured before the first step, on the run's own rows, and
//! the largest micro-batch follows. Nothing is updated and nothing drawn that a step would see.
use super::objective::Objective;
use super::trainer::pass;
use super::{AdamW, Batch, signals};
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::ffi;
use std::path::{Path, PathBuf};
use tch::Device;

/// What `"auto"` takes of the memory that is free.
const SHARE: f64 = 0.8;
/// Token limits are multiples of it.
const GRANULE: usize = 64;
/// Measurements after that of the longest row alone, and what they take at most: so many times that row, or so many tokens
/// where that is more.
const MORE: usize = 3;
const SPREAD: (usize, usize) = (4, 2048);
/// Pages that are free may stay the process's: the larger of so many bytes and that part of what is in use (memory.cpp).
const SLACK: (u64, u64) = (32 << 20, 16);

/// The rows that take the most memory.
pub struct Ladder<'a, B> {
    /// Tokens of the longest rows, most first; as many as an update has.
    pub lengths: Vec<usize>,
    /// A micro-batch of the first so many of them.
    pub batch: Box<dyn Fn(usize) -> Result<B> + 'a>,
}

impl<B> Ladder<'_, B> {
    fn tokens(&self, rows: usize) -> usize {
        self.lengths[..rows].iter().sum()
    }
}

/// Measures what micro-batches need and compares it with the limit. Of `train.micro_batch_size = "auto"` gives the most
/// tokens of a micro-batch. `optimizer`: a new one, which is not used again.
///
/// # Errors
/// [`Error::Usage`] where not even the longest row fits, or the micro-batch that is configured does not.
pub fn fit<O: Objective>(
    config: &TrainConfig,
    device: Device,
    objective: &O,
    mut optimizer: AdamW,
    ladder: &Ladder<'_, O::Batch>,
) -> Result<Option<usize>> {
    let limit = Limit::of(config, device)?;
    let gauge = Gauge { device };
    let gradients = optimizer.gradient_bytes();
    let weights = gauge.start()? + 3 * gradients;
    if weights > limit.bytes {
        // Nothing that changes activations helps.
        let message = limit.exceeded("weights, gradients and moments alone need", weights);
        return Err(Error::usage(message, "train a smaller model, or allow more with train.memory_limit"));
    }
    optimizer.allocate()?;
    let mut bench = Bench { gauge, objective, optimizer, ladder };
    bench.pass(1)?;
    let line = Line::measure(config, &limit, &mut bench)?;
    let (rows, most) = (ladder.lengths.len(), largest(config, ladder));
    let whole = ladder.tokens(rows);
    let mut need = line.need(most);
    if most == whole {
        // An update of one pass makes its gradients while activations go: how much that is, only this pass tells.
        need = need.saturating_sub(gradients);
        if need <= limit.bytes {
            need = bench.need(rows, true)?;
        }
        if need <= limit.bytes {
            return Ok(config.auto().then(|| announce(whole, need, &limit)));
        }
    }
    if !config.auto() {
        let what = format!("a micro-batch of {most} tokens needs");
        return if need > limit.bytes { Err(limit.refusal(config, &what, need)) } else { Ok(None) };
    }
    let longest = ladder.lengths[0];
    if line.need(longest) > limit.bytes {
        let what = format!("a pass over the longest row ({longest} tokens) needs");
        return Err(limit.refusal(config, &what, line.need(longest)));
    }
    let tokens = (line.fitting(limit.bytes).min(whole) / GRANULE * GRANULE).max(GRANULE);
    Ok(Some(announce(tokens, line.need(tokens), &limit)))
}

fn announce(tokens: usize, need: u64, limit: &Limit) -> usize {
    let (need, most) = (megabytes(need), megabytes(limit.bytes));
    tracing::info!("micro-batches of up to {tokens} tokens: a pass needs about {need} of {most} MB");
    tokens
}

/// Runs passes.
struct Bench<'a, 'b, O: Objective> {
    gauge: Gauge,
    objective: &'a O,
    optimizer: AdamW,
    ladder: &'a Ladder<'b, O::Batch>,
}

impl<O: Objective> Bench<'_, '_, O> {
    /// A pass over so many of the longest rows; gradients are added to those that are there.
    fn pass(&self, rows: usize) -> Result<()> {
        signals::check(0)?;
        let batch = (self.ladder.batch)(rows)?;
        pass(self.objective, &batch, batch.targets()).map(drop)
    }

    /// Bytes that such a pass needs: into gradients that are there, or, where it is an update's only one, `alone`.
    fn need(&mut self, rows: usize, alone: bool) -> Result<u64> {
        if alone {
            self.optimizer.zero_grad()?;
        }
        self.gauge.start()?;
        self.pass(rows)?;
        self.gauge.need()
    }
}

impl<O: Objective> Drop for Bench<'_, '_, O> {
    /// The first step finds no gradients.
    fn drop(&mut self) {
        if let Err(error) = self.optimizer.zero_grad() {
            tracing::debug!("{error}");
        }
    }
}

/// Tokens of the largest micro-batch that there can be; with `"auto"` of a whole update.
fn largest<B>(config: &TrainConfig, ladder: &Ladder<'_, B>) -> usize {
    let rows = ladder.tokens(config.micro().min(ladder.lengths.len()));
    let most = config.micro_batch_tokens.unwrap_or(usize::MAX).max(ladder.lengths[0]);
    rows.min(most)
}

/// What a pass into gradients that are there needs by its tokens. The head's memory stops growing at its budget, so that a
/// line through two smaller micro-batches does not say too little of a larger one.
struct Line {
    tokens: usize,
    bytes: u64,
    /// Bytes a token.
    slope: f64,
}

impl Line {
    /// Through passes over the longest row and over more of the longest, each time as many as are sure to fit.
    fn measure<O: Objective>(config: &TrainConfig, limit: &Limit, bench: &mut Bench<'_, '_, O>) -> Result<Self> {
        let ladder = bench.ladder;
        let (empty, first) = (bench.gauge.start()?, ladder.tokens(1));
        let bytes = bench.need(1, false)?;
        let slope = bytes.saturating_sub(empty) as f64 / first as f64;
        let mut line = Line { tokens: first, bytes, slope };
        for _ in 0..MORE {
            let most = largest(config, ladder).min(line.fitting(limit.bytes)).min(SPREAD.1.max(SPREAD.0 * first));
            let fits = |&rows: &usize| ladder.tokens(rows) <= most;
            let rows = (1..=ladder.lengths.len()).take_while(fits).last().unwrap_or(1);
            let tokens = ladder.tokens(rows);
            if tokens < line.tokens + line.tokens / 4 {
                break;
            }
            let bytes = bench.need(rows, false)?;
            let slope = bytes.saturating_sub(line.bytes) as f64 / (tokens - line.tokens) as f64;
            line = Line { tokens, bytes, slope };
        }
        Ok(line)
    }

    fn need(&self, tokens: usize) -> u64 {
        (self.bytes as f64 + self.slope * (tokens as f64 - self.tokens as f64)).max(0.0) as u64
    }

    /// Tokens that need no more than `bytes`.
    fn fitting(&self, bytes: u64) -> usize {
        let more = (bytes as f64 - self.bytes as f64) / self.slope;
        // Without a slope (everything is too small to be counted) there is no limit.
        if more.is_finite() { (self.tokens as f64 + more).max(0.0) as usize } else { usize::MAX }
    }
}

/// What may be used, and who says so.
struct Limit {
    bytes: u64,
    source: String,
}

impl Limit {
    fn of(config: &TrainConfig, device: Device) -> Result<Self> {
        if let Some(limit) = &config.memory_limit {
            return Ok(Limit { bytes: limit.bytes(), source: format!("train.memory_limit is {limit}") });
        }
        let free = free_bytes(device)?;
        let (bytes, part) = if config.auto() { ((free as f64 * SHARE) as u64, "80% of ") } else { (free, "") };
        let source = format!("{part}the memory that is free here is {} MB", megabytes(bytes));
        Ok(Limit { bytes, source })
    }

    fn exceeded(&self, what: &str, bytes: u64) -> String {
        format!("{}, and {what} about {} MB", self.source, megabytes(bytes))
    }

    fn refusal(&self, config: &TrainConfig, what: &str, bytes: u64) -> Error {
        let mut remedies = Vec::new();
        if !config.auto() {
            remedies.push("set train.micro_batch_size = \"auto\"");
        }
        if !config.gradient_checkpointing {
            remedies.push("set train.gradient_checkpointing = true");
        }
        // What is free cannot be raised here.
        if config.memory_limit.is_some() {
            remedies.push("raise train.memory_limit");
        }
        let others: String = remedies.iter().map(|remedy| format!("{remedy}, ")).collect();
        Error::usage(self.exceeded(what, bytes), format!("{others}or lower data.max_length"))
    }
}

/// Reads the most memory that was held since it was started.
struct Gauge {
    device: Device,
}

impl Gauge {
    /// Starts anew; what is held now.
    fn start(&self) -> Result<u64> {
        match self.device {
            Device::Cuda(index) => _ = ffi::cuda_peak_bytes(index, true)?,
            _ => {
                ffi::cpu_release();
                ffi::cpu_peak_bytes(true);
            }
        }
        self.need()
    }

    /// On CUDA what libtorch's allocator gave out; on the CPU what the process holds besides tensors, and the tensors with
    /// the free pages that may lie between them.
    fn need(&self) -> Result<u64> {
        if let Device::Cuda(index) = self.device {
            return ffi::cuda_peak_bytes(index, false);
        }
        ffi::cpu_release();
        let (peak, used) = (ffi::cpu_peak_bytes(false), ffi::cpu_used_bytes());
        let Some(resident) = status_bytes("VmRSS:") else {
            let remedy = "give train.micro_batch_size a number, without memory_limit and check_memory";
            return Err(Error::usage("this system does not say how much memory a process holds", remedy));
        };
        Ok(resident.saturating_sub(used) + peak + SLACK.0.max(peak / SLACK.1))
    }
}

/// What this process may come to hold: on CUDA what it holds and what is free; on the CPU the same of the machine, within
/// the limits of its control groups.
fn free_bytes(device: Device) -> Result<u64> {
    if let Device::Cuda(index) = device {
        ffi::cuda_peak_bytes(index, true)?;
        return Ok(ffi::cuda_peak_bytes(index, false)? + ffi::cuda_free_bytes(index)?);
    }
    let known = kilobytes(Path::new("/proc/meminfo"), "MemAvailable:").zip(status_bytes("RssAnon:"));
    let Some((available, own)) = known else {
        return Err(Error::usage("this system does not say how much memory is free", "set train.memory_limit"));
    };
    Ok(group_limit().map_or(available + own, |limit| limit.min(available + own)))
}

/// The least limit of the control groups that this process is in (version 2, or the memory controller of version 1).
fn group_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        let inner: PathBuf = Path::new(root).join(path);
        let bytes = |dir: &Path| std::fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
        inner.ancestors().take_while(|dir| dir.starts_with(root)).filter_map(bytes).min()
    });
    limits.min()
}

/// A figure of /proc/self/status, in bytes.
pub(super) fn status_bytes(key: &str) -> Option<u64> {
    kilobytes(Path::new("/proc/self/status"), key)
}

/// The bytes of a line `key  12345 kB`.
fn kilobytes(file: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

/// libtorch's word that memory is short, with what helps against it; other errors as they are.
pub fn explained(error: Error) -> Error {
    if !matches!(error, Error::Torch(_) | Error::Shim(_)) {
        return error;
    }
    let message = error.to_string();
    let signs = ["out of memory", "not enough memory", "DefaultCPUAllocator", "bad_alloc"];
    if !signs.iter().any(|sign| message.contains(sign)) {
        return error;
    }
    let remedy = "set train.gradient_checkpointing = true, or train.micro_batch_size = \"auto\" with a train.memory_limit, \
                  or lower data.max_length";
    Error::Memory { message, remedy: remedy.into() }
}
