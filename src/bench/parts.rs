//! Where a step's time goes: listens to the spans of `part!` and adds up the time that each part has for itself. Owns
//! nothing of what is measured; imports nothing of ours.
//!
//! On CUDA the device is waited for at both ends of a span: otherwise the time of what was merely started would count
//! where it is first waited for. That costs what the host and the device do at once in a real run.
use indexmap::IndexMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tch::{Cuda, Device};
use tracing::span::Id;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, dispatcher};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{Registry, registry::LookupSpan};

/// The target of the spans, as `part!` has it.
const TARGET: &str = "collimate::parts";

/// The span around all parts of a step.
const STEP: &str = "step";

/// What of a step lies in no part.
pub const OTHER: &str = "other";

/// Seconds by part.
pub type Seconds = IndexMap<&'static str, f64>;

/// A step that was listened to.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// From its begin to its end.
    pub seconds: f64,
    /// What each part had for itself, parts within it left out; [`OTHER`] makes up the rest.
    pub parts: Seconds,
}

/// All that was heard.
#[derive(Debug, Default)]
pub struct Record {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Parts outside of any step, in order, with their seconds.
    pub apart: Vec<(&'static str, f64)>,
    /// Seconds from the start of the process to the first span.
    pub start_seconds: f64,
    open: Vec<Open>,
    current: Seconds,
}

#[derive(Debug)]
struct Open {
    name: &'static str,
    begun: Instant,
    /// Seconds of the spans within it that have ended.
    within: f64,
}

/// Runs `work` and gives what it gives, with what was heard of it. Warnings go where they went before; what is said at
/// lower levels is not wanted between the figures.
pub fn listen<T>(device: Device, work: impl FnOnce() -> T) -> (T, Record) {
    let record = Arc::new(Mutex::new(Record::default()));
    let outer = dispatcher::get_default(Dispatch::clone);
    let listener = Listener { record: record.clone(), device, outer };
    let result = tracing::subscriber::with_default(Registry::default().with(listener), work);
    let record = std::mem::take(&mut *lock(&record));
    (result, record)
}

struct Listener {
    record: Arc<Mutex<Record>>,
    device: Device,
    /// Who listened before.
    outer: Dispatch,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        if metadata.is_span() { metadata.target() == TARGET } else { *metadata.level() <= Level::WARN }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if self.outer.enabled(event.metadata()) {
            self.outer.event(event);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let Some(metadata) = context.metadata(id) else { return };
        wait_for(self.device);
        lock(&self.record).enter(metadata.name());
    }

    fn on_exit(&self, _: &Id, _: Context<'_, S>) {
        wait_for(self.device);
        lock(&self.record).exit();
    }
}

impl Record {
    fn enter(&mut self, name: &'static str) {
        if self.open.is_empty() && self.steps.is_empty() && self.apart.is_empty() {
            self.start_seconds = process_seconds().unwrap_or(f64::NAN);
        }
        self.open.push(Open { name, begun: Instant::now(), within: 0.0 });
    }

    /// Spans end in the opposite order of their begins: they are scopes of one thread.
    fn exit(&mut self) {
        let Some(ended) = self.open.pop() else { return };
        let seconds = ended.begun.elapsed().as_secs_f64();
        let own = seconds - ended.within;
        if let Some(around) = self.open.last_mut() {
            around.within += seconds;
        }
        if ended.name == STEP {
            let mut parts = std::mem::take(&mut self.current);
            parts.insert(OTHER, own);
            self.steps.push(Step { seconds, parts });
        } else if self.open.iter().any(|open| open.name == STEP) {
            *self.current.entry(ended.name).or_default() += own;
        } else {
            self.apart.push((ended.name, own));
        }
    }
}

/// Waits until a CUDA device has done all that it was given; the CPU has always done so.
pub fn wait_for(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// Seconds since this process was started, which is before its libraries were loaded; to a hundredth.
fn process_seconds() -> Option<f64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let (stat, uptime) = (read("/proc/self/stat")?, read("/proc/uptime")?);
    // Field 22, counted behind the program's name, which stands in brackets and may hold anything.
    let started: f64 = stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()?;
    let now: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let seconds = now - started / rustix::param::clock_ticks_per_second() as f64;
    Some((100.0 * seconds).round() / 100.0)
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}
