//! Progress on a terminal as a bar with time left, elsewhere as plain lines now and then.
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Plain lines come at most this often.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// `--quiet`: no bars and no plain progress lines.
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Progress of one long thing.
pub struct Progress {
    label: String,
    total: u64,
    done: u64,
    started: Instant,
    initial: u64,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts at `done` of `total`.
    pub fn new(label: &str, total: u64, done: u64) -> Self {
        let quiet = QUIET.load(Ordering::Relaxed);
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let template = "{prefix:>14} [{bar:30}] {pos}/{len} {elapsed} (left {eta}) {msg}";
            let style = ProgressStyle::with_template(template).expect("the template is constant").progress_chars("=> ");
            let bar = ProgressBar::new(total).with_style(style).with_prefix(label.to_owned()).with_position(done);
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        let now = Instant::now();
        Self { label: label.into(), total, done, started: now, initial: done, last_line: now, bar }
    }

    /// Moves to `done`, with a short message.
    pub fn set(&mut self, done: u64, message: &str) {
        self.done = done;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message.to_owned());
        } else if self.last_line.elapsed() >= PLAIN_EVERY && !QUIET.load(Ordering::Relaxed) {
            self.last_line = Instant::now();
            let advanced = done.saturating_sub(self.initial).max(1) as f64;
            let left = self.started.elapsed().as_secs_f64() / advanced * self.total.saturating_sub(done) as f64;
            eprintln!("{}: {done}/{} (about {left:.0} s left) {message}", self.label, self.total);
        }
    }

    /// Runs `print` without the bar in its way.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
