//! SIGINT and SIGTERM: the first asks for a stop at the next boundary, the second leaves at once.
use crate::error::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a stop waits for a boundary before the last checkpoint has to do.
const PATIENCE: Duration = Duration::from_secs(25);

static RECEIVED: AtomicUsize = AtomicUsize::new(0);
static FIRST_SEEN: OnceLock<Instant> = OnceLock::new();
static ON_LEAVING: Mutex<Vec<Box<dyn Fn() + Send>>> = Mutex::new(Vec::new());

/// Installs the handlers; called once, by `main`. A thread of its own listens, so that leaving at once can still end
/// what this process has started.
pub fn install() -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            // Whichever of the two comes second leaves at once.
            if RECEIVED.swap(signal as usize, Ordering::SeqCst) != 0 {
                let hooks = ON_LEAVING.lock().unwrap_or_else(PoisonError::into_inner);
                hooks.iter().for_each(|hook| hook());
                signal_hook::low_level::exit(128 + signal);
            }
        }
    });
    Ok(())
}

/// What is to be done before a second signal ends this process without unwinding.
pub fn on_leaving(hook: impl Fn() + Send + 'static) {
    ON_LEAVING.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(hook));
}

/// Whether a stop was asked for.
pub fn stop_requested() -> bool {
    RECEIVED.load(Ordering::SeqCst) != 0
}

/// The error that ends the run after `step` finished steps, if a stop was asked for.
pub fn check(step: u64) -> Result<()> {
    match RECEIVED.load(Ordering::SeqCst) as i32 {
        0 => Ok(()),
        signal => {
            let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
            Err(Error::Interrupted { signal, name, step })
        }
    }
}

/// Like [`check`], but only when the stop has waited longer than a boundary may take; polled between micro-batches.
pub fn check_overdue(step: u64) -> Result<()> {
    if stop_requested() && FIRST_SEEN.get_or_init(Instant::now).elapsed() > PATIENCE {
        return check(step);
    }
    Ok(())
}
