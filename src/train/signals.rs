//! SIGINT and SIGTERM: the first asks for a stop at the next boundary, the second leaves at once.
use crate::error::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

/// How long a stop waits for a boundary before the last checkpoint has to do.
const PATIENCE: Duration = Duration::from_secs(25);

static RECEIVED: LazyLock<Arc<AtomicUsize>> = LazyLock::new(|| Arc::new(AtomicUsize::new(0)));
static FIRST_SEEN: OnceLock<Instant> = OnceLock::new();

/// Installs the handlers; called once, by `main`.
pub fn install() -> std::io::Result<()> {
    // One flag for both: whichever comes second leaves at once.
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
    }
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&again))?;
        signal_hook::flag::register_usize(signal, Arc::clone(&RECEIVED), signal as usize)?;
    }
    Ok(())
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
