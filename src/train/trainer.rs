//! THE loop: accumulate, clip, AdamW, log, evaluate, checkpoint. The only call of `backward()` in the crate.
//!
//! A step is what lies between two boundaries of the source. Scalars leave the device at log steps; loss and gradient norm of
//! an update too, to be seen to be finite, but on a GPU nobody waits for them within a step ([`finite`]).
use super::checkpoint::{self, Keep};
use super::finite::Updates;
use super::metrics::{CLOSING_FIELD, MetricsLog, StepFigures};
use super::objective::{Artifact, Batch, BatchSource, Evaluation, Evaluator, Objective, Span, StepReport};
use super::progress::Progress;
use super::state::{Best, TrainerState};
use super::{AdamW, LossOutput, memory, schedule, signals};
use crate::config::TrainConfig;
use crate::durable;
use crate::error::{Error, Result};
use crate::{ffi, seed};
use std::path::Path;
use std::time::Instant;
use tch::{Device, Tensor};

/// Everything one run of the loop is given.
pub struct Job<'a, O: Objective> {
    /// Turns batches into losses.
    pub objective: &'a O,
    /// Where batches come from.
    pub source: &'a mut dyn BatchSource<O::Batch>,
    /// Judges the model at `eval_every` and at the end; none: no evaluation.
    pub eval: Option<&'a dyn Evaluator>,
    /// What checkpoints hold besides the moments.
    pub artifact: &'a dyn Artifact,
    /// The parameters' optimizer.
    pub optimizer: AdamW,
    /// `[train]`.
    pub config: &'a TrainConfig,
    /// Planned steps.
    pub total_steps: u64,
    /// The run directory, claimed by this process.
    pub run: &'a Path,
    /// The checkpoint to go on from.
    pub resume_from: Option<&'a Path>,
    /// The model's device, for memory figures.
    pub device: Device,
    /// When the first row was encoded.
    pub started: Instant,
    /// Whether the run is to end with the model of its best evaluation: reads that checkpoint's weights back. Every span then
    /// ends with a checkpoint. None: it ends with the last model.
    pub best: Option<ReadBack<'a>>,
}

/// Reads a checkpoint's weights into the model.
pub type ReadBack<'a> = &'a dyn Fn(&Path) -> Result<()>;

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Finished steps.
    pub steps: u64,
    /// Mean loss over all updates.
    pub train_loss: f64,
    /// Figures of the last evaluation, by name with the `eval_` prefix.
    pub eval: Vec<(String, f64)>,
    /// Seconds from the first row encoded to the last update.
    pub train_runtime: f64,
}

/// Runs the job to its end and leaves the final model at the top of the run directory.
///
/// # Errors
/// A non-finite loss or gradient (no checkpoint is replaced), a signal (after a checkpoint), input/output errors.
pub fn train<O: Objective>(job: Job<'_, O>) -> Result<Outcome> {
    let mut state = TrainerState::default();
    let Job { source, .. } = job;
    let mut optimizer = job.optimizer;
    if let Some(dir) = job.resume_from {
        state = TrainerState::read(dir)?;
        checkpoint::restore_optimizer(dir, &mut optimizer)?;
        source.restore(&state.source)?;
    }
    state.total_steps = job.total_steps;
    checkpoint::remove_after(job.run, state.step)?;
    let log = MetricsLog::open(job.run, state.step)?;
    let progress = Progress::new("training", job.total_steps, state.step);
    let earlier = state.train_runtime;
    let Job { objective, eval, artifact, config, best, .. } = job;
    let context = Context { objective, eval, artifact, config, best };
    let clock = Clock { started: job.started, earlier, device: job.device };
    let updates = Updates::default();
    let started = Loop { context, optimizer, state, updates, last_loss: 0.0, log, progress, clock, run: job.run };
    started.run(source).map_err(memory::explained)
}

/// A forward and a backward pass over a micro-batch: its loss, divided by `targets` and without its graph, and its figures.
pub(super) fn pass<O: Objective>(objective: &O, batch: &O::Batch, targets: f64) -> Result<LossOutput> {
    let LossOutput { sum, metrics } = part!("forward").in_scope(|| objective.loss(batch))?;
    let share = sum.f_div_scalar(targets)?;
    part!("backward").in_scope(|| share.f_backward())?;
    Ok(LossOutput { sum: share.detach(), metrics })
}

/// What does not change while the loop runs.
struct Context<'a, O: Objective> {
    objective: &'a O,
    eval: Option<&'a dyn Evaluator>,
    artifact: &'a dyn Artifact,
    config: &'a TrainConfig,
    best: Option<ReadBack<'a>>,
}

struct Clock {
    started: Instant,
    earlier: f64,
    device: Device,
}

impl Clock {
    fn runtime(&self) -> f64 {
        self.earlier + self.started.elapsed().as_secs_f64()
    }
}

struct Loop<'a, O: Objective> {
    context: Context<'a, O>,
    optimizer: AdamW,
    state: TrainerState,
    /// Updates whose loss is on its way.
    updates: Updates,
    last_loss: f64,
    log: MetricsLog,
    progress: Progress,
    clock: Clock,
    run: &'a Path,
}

impl<O: Objective> Loop<'_, O> {
    fn run(mut self, source: &mut dyn BatchSource<O::Batch>) -> Result<Outcome> {
        let config = self.context.config;
        tracing::debug!("training begins");
        let mut eval = Vec::new();
        let mut since_log = Since::default();
        if self.state.evaluation_due {
            self.between_steps(source, &mut eval)?;
        }
        while self.state.step < self.state.total_steps {
            let Some(tokens) = self.step(source, &mut since_log)? else { break };
            self.state.step += 1;
            self.state.num_tokens += tokens;
            let (step, last) = (self.state.step, self.state.step == self.state.total_steps);
            self.progress.set(step, &since_log.message);
            if step.is_multiple_of(config.log_every) || last {
                self.log_line(source.position(), &mut since_log)?;
            }
            self.between_steps(source, &mut eval)?;
        }
        self.finish(source, eval)
    }

    /// What may be due after a step: an evaluation, a checkpoint, a stop.
    fn between_steps(&mut self, source: &dyn BatchSource<O::Batch>, eval: &mut Vec<(String, f64)>) -> Result<()> {
        let config = self.context.config;
        self.updates.lag()?;
        self.note();
        let (step, last) = (self.state.step, self.state.step == self.state.total_steps);
        let ends = source.span(self.state.total_steps).ends_at(step);
        let due = |every: Option<u64>| every.is_some_and(|n| step.is_multiple_of(n));
        let mut improved = false;
        if let Some(evaluator) = self.context.eval.filter(|_| last || ends || due(config.eval_every)) {
            // A stop in the middle keeps the step; its evaluation is made up for on resume.
            self.settle()?;
            self.state.evaluation_due = true;
            match self.evaluate(evaluator) {
                Ok(found) => (*eval, improved) = found,
                Err(error @ Error::Interrupted { .. }) => {
                    self.save(source)?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
            self.state.evaluation_due = false;
        }
        // A new best is saved at once so that `keep_best` names a checkpoint that exists.
        let wanted =
            due(config.save_every) || (last && config.save_every.is_some()) || (ends && self.context.best.is_some());
        if wanted || signals::stop_requested() || (improved && config.keep_best) {
            self.save(source)?;
        }
        signals::check(step)
    }

    /// One step: updates until the source is at a boundary. Tokens seen, or `None` when the source is exhausted.
    fn step(&mut self, source: &mut dyn BatchSource<O::Batch>, since: &mut Since) -> Result<Option<u64>> {
        let _part = part!("step").entered();
        let begun = Instant::now();
        let (mut tokens, mut update) = (0, 0u64);
        let mut figures = StepFigures::default();
        loop {
            let Some(batches) = part!("data").in_scope(|| source.next_step())? else { return Ok(None) };
            tokens += batches.iter().map(Batch::tokens).sum::<u64>();
            let span = source.span(self.state.total_steps);
            if span.fresh && span.first == self.state.step && update == 0 {
                self.optimizer.reset()?;
            }
            self.update(&batches, update, span, &mut figures)?;
            since.message = format!("loss {:.4}", self.last_loss);
            update += 1;
            if source.at_boundary() {
                break;
            }
        }
        let StepReport { metrics, samples, message } = source.report();
        self.state.window.push(figures.finish()?);
        self.state.window.push(metrics.into_iter().map(|(name, value)| (name, Tensor::from(value))).collect());
        // A source that samples once a round has none to show of the steps between.
        if !samples.is_empty() {
            self.state.samples = samples;
        }
        since.message = message.unwrap_or(std::mem::take(&mut since.message));
        since.steps += 1;
        since.seconds += begun.elapsed().as_secs_f64();
        since.tokens += tokens;
        Ok(Some(tokens))
    }

    /// One optimizer update over its micro-batches; the loss is a mean over the update's targets.
    fn update(&mut self, batches: &[O::Batch], update: u64, span: Span, figures: &mut StepFigures) -> Result<()> {
        let config = self.context.config;
        let step = self.state.step;
        let targets: f64 = batches.iter().map(Batch::targets).sum();
        let mut total: Option<Tensor> = None;
        part!("optimizer").in_scope(|| self.optimizer.zero_grad())?;
        for (micro, batch) in batches.iter().enumerate() {
            signals::check_overdue(step)?;
            // Dropout is the only draw inside a forward pass; its seed depends on nothing that resume would change.
            tch::manual_seed(seed::derive(config.seed, "dropout", &[step, update, micro as u64]) as i64);
            let LossOutput { sum: share, metrics } = pass(self.context.objective, batch, targets)?;
            total = Some(match total {
                None => share,
                Some(sum) => sum.f_add(&share)?,
            });
            figures.add(metrics)?;
        }
        let loss_tensor = total.expect("an update has at least one micro-batch");
        let norm = part!("optimizer").in_scope(|| self.optimizer.clip())?;
        let rows = || batches.iter().flat_map(Batch::rows).collect();
        self.updates.add([&loss_tensor, &norm], step + 1, rows)?;
        self.note();
        let rate = schedule::learning_rate(&config.optim(), step - span.first, span.steps);
        part!("optimizer").in_scope(|| self.optimizer.step(rate))?;
        let mut values = vec![("loss", loss_tensor), ("grad_norm", norm)];
        values.push(("learning_rate", Tensor::from(rate)));
        self.state.window.push(values);
        Ok(())
    }

    /// Counts the losses that have arrived.
    fn note(&mut self) {
        for loss in self.updates.arrived() {
            self.state.loss_sum += loss;
            self.state.updates += 1;
            self.last_loss = loss;
        }
    }

    /// Waits for all losses: nothing is kept, judged or saved of a model that has not been seen to be finite.
    fn settle(&mut self) -> Result<()> {
        self.updates.settle()?;
        self.note();
        Ok(())
    }

    fn log_line(&mut self, position: Vec<(&'static str, f64)>, since: &mut Since) -> Result<()> {
        self.settle()?;
        let mut fields = self.state.window.close()?;
        fields.push(("num_tokens".into(), self.state.num_tokens as f64));
        fields.extend(position.into_iter().map(|(name, value)| (name.to_owned(), value)));
        fields.push(("step_seconds".into(), since.seconds / since.steps.max(1) as f64));
        fields.push(("tokens_per_second".into(), since.tokens as f64 / since.seconds.max(1e-9)));
        fields.push(("peak_memory_mb".into(), peak_memory_mb(self.clock.device)));
        let samples = std::mem::take(&mut self.state.samples);
        *since = Since::default();
        self.log.write(self.state.step, &fields)?;
        self.log.write_samples(self.state.step, "train", samples)?;
        let get = |name: &str| fields.iter().find(|(n, _)| n == name).map_or(f64::NAN, |(_, v)| *v);
        let (loss, norm) = (get("loss"), get("grad_norm"));
        let (step, total) = (self.state.step, self.state.total_steps);
        self.progress.suspend(|| tracing::debug!("step {step}/{total} loss {loss:.4} grad_norm {norm:.3}"));
        Ok(())
    }

    /// The figures of an evaluation, logged, and whether this is the best one so far.
    fn evaluate(&mut self, evaluator: &dyn Evaluator) -> Result<(Vec<(String, f64)>, bool)> {
        let begun = Instant::now();
        let step = self.state.step;
        let Evaluation { mut figures, cost, samples } = evaluator.evaluate(step)?;
        figures.push(("eval_runtime".into(), begun.elapsed().as_secs_f64()));
        self.log.write(step, &figures)?;
        self.log.write_samples(step, "eval", samples)?;
        let text: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        self.progress.suspend(|| tracing::info!("step {step}: {}", text.join(", ")));
        let improved = cost.is_finite() && self.state.best.is_none_or(|best| cost < best.cost);
        if improved {
            self.state.best = Some(Best { step, cost });
        }
        Ok((figures, improved))
    }

    fn save(&mut self, source: &dyn BatchSource<O::Batch>) -> Result<()> {
        self.prepare_state(source)?;
        // A tensor on its way to the file is a copy of its own: not on top of pages that a pass left behind.
        ffi::cpu_release();
        let config = self.context.config;
        let kept = config.keep_best || self.context.best.is_some();
        let best = self.state.best.filter(|_| kept).map(|best| best.step);
        let keep = Keep { newest: config.keep, best };
        checkpoint::save(self.run, self.context.artifact, &self.optimizer, &self.state, keep)
    }

    fn prepare_state(&mut self, source: &dyn BatchSource<O::Batch>) -> Result<()> {
        self.settle()?;
        self.state.window.collect()?;
        self.state.source = source.state();
        self.state.facts = self.context.artifact.facts();
        self.state.train_runtime = self.clock.runtime();
        self.log.sync()
    }

    fn finish(mut self, source: &dyn BatchSource<O::Batch>, eval: Vec<(String, f64)>) -> Result<Outcome> {
        self.prepare_state(source)?;
        let train_loss = self.state.loss_sum / self.state.updates.max(1) as f64;
        let train_runtime = self.state.train_runtime;
        let last = [("train_loss".to_owned(), train_loss), (CLOSING_FIELD.to_owned(), train_runtime)];
        self.log.write(self.state.step, &last)?;
        self.log.sync()?;
        self.state.finished = true;
        if let (Some(read), Some(best)) =
            (self.context.best, self.state.best.filter(|best| best.step != self.state.step))
        {
            read(&checkpoint::path_of(self.run, best.step))?;
        }
        ffi::cpu_release();
        let (artifact, state) = (self.context.artifact, &self.state);
        durable::write_into(self.run, "final", |dir| {
            artifact.save(dir, false)?;
            state.write(dir)
        })?;
        Ok(Outcome { steps: self.state.step, train_loss, eval, train_runtime })
    }
}

/// Timing since the last logged line.
#[derive(Default)]
struct Since {
    steps: u64,
    seconds: f64,
    tokens: u64,
    message: String,
}

/// Most memory used at once, in MB: of the process on the CPU (VmHWM), of libtorch's allocator on CUDA.
pub fn peak_memory_mb(device: Device) -> f64 {
    if let Device::Cuda(index) = device {
        return ffi::cuda_peak_bytes(index, false).map_or(f64::NAN, |bytes| bytes as f64 / 1e6);
    }
    memory::status_bytes("VmHWM:").map_or(f64::NAN, |bytes| bytes as f64 / 1e6)
}
