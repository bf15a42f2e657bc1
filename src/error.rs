//! The one error type, and panics of libraries as errors. Owns wording and exit codes; imports nothing of ours.
//!
//! Every variant names the file, line, key or tensor at fault and the remedy, in one line.
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. [`Error::exit_code`] tells a user's mistake (2) from a failure (1) and a signal (128 + n).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory that the user named cannot be used.
    #[error("{}: {message}; {remedy}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
        /// What to do about it.
        remedy: String,
    },
    /// One row of a data set cannot be used.
    #[error("{}:{line}: {message}; {remedy}", path.display())]
    Row {
        /// The data file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with the row.
        message: String,
        /// What to do about it.
        remedy: String,
    },
    /// Problems in a configuration: one line each.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    /// A tensor in a weights file does not fit the model.
    #[error("{}: tensor {tensor}: {message}; {remedy}", path.display())]
    Tensor {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What is wrong with it.
        message: String,
        /// What to do about it.
        remedy: String,
    },
    /// A device that was asked for is not there.
    #[error("device {asked:?}: {message}; {remedy}")]
    Device {
        /// As the user wrote it.
        asked: String,
        /// Why it cannot be used.
        message: String,
        /// What to do about it.
        remedy: String,
    },
    /// A wrong argument on the command line, or arguments that do not fit each other.
    #[error("{message}; {remedy}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do about it.
        remedy: String,
    },
    /// A model or data set of the hub cannot be had.
    #[error("{id}: {message}; {remedy}")]
    Hub {
        /// The hub id, as `owner/name`.
        id: String,
        /// What went wrong.
        message: String,
        /// What to do about it.
        remedy: String,
    },
    /// A loss or gradient is not a finite number.
    #[error(
        "step {step}: {what} is {value}; no checkpoint was replaced; rows of the step: {rows}; lower train.learning_rate or look at these rows"
    )]
    NonFinite {
        /// The step at which it happened, from 1.
        step: u64,
        /// "loss" or "gradient norm".
        what: &'static str,
        /// The value.
        value: f64,
        /// Where the rows of the step came from.
        rows: String,
    },
    /// What scores completions failed.
    #[error("{message}; {remedy}")]
    Reward {
        /// What happened.
        message: String,
        /// What to do about it.
        remedy: String,
    },
    /// The policy that is updated is not the one that sampled.
    #[error(
        "step {step}: before the first update the policy's log-probs differ from those at sampling by {difference:.1e} on average and {largest:.1e} at most (rounding makes about {allowed:.0e}); this is a fault of the program or of the device's arithmetic; please report it with the configuration"
    )]
    Ratio {
        /// The iteration, from 1.
        step: u64,
        /// Mean |log ratio| over tokens.
        difference: f64,
        /// Largest |log ratio|.
        largest: f64,
        /// The tolerance of the mean; of the largest, a hundred times that.
        allowed: f64,
    },
    /// Training needs more memory than there is.
    #[error("{message}; {remedy}")]
    Memory {
        /// What libtorch says.
        message: String,
        /// What to do about it.
        remedy: String,
    },
    /// Reading or writing failed.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried: "read", "write", "create".
        action: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
    /// A signal stopped the run.
    #[error("stopped by {name} after step {step}; go on with train.resume=true")]
    Interrupted {
        /// The signal's number.
        signal: i32,
        /// Its name.
        name: &'static str,
        /// The last finished step.
        step: u64,
    },
    /// A signal ended what has no steps.
    #[error("stopped by {name}; {remedy}")]
    Stopped {
        /// The signal's number.
        signal: i32,
        /// Its name.
        name: &'static str,
        /// How to go on.
        remedy: String,
    },
    /// libtorch reported an error.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
    /// The C++ shim reported an error.
    #[error("libtorch: {0}")]
    Shim(String),
}

impl Error {
    /// A file at fault.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::File { path: path.as_ref().into(), message: one_line(message), remedy: remedy.into() }
    }

    /// A row at fault; `line` counts from 1.
    pub fn row(path: impl AsRef<Path>, line: usize, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Row { path: path.as_ref().into(), line, message: one_line(message), remedy: remedy.into() }
    }

    /// A tensor at fault.
    pub fn tensor(path: impl AsRef<Path>, tensor: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Tensor {
            path: path.as_ref().into(),
            tensor: one_line(tensor),
            message: one_line(message),
            remedy: remedy.into(),
        }
    }

    /// Arguments at fault.
    pub fn usage(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Usage { message: one_line(message), remedy: remedy.into() }
    }

    /// Wraps an input/output error: `.map_err(Error::io(path, "read"))`.
    pub fn io(path: impl AsRef<Path>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, action, source }
    }

    /// 2 for a user's mistake, 1 for a failure, 128 + n after signal n.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::NonFinite { .. } | Error::Reward { .. } | Error::Ratio { .. } => 1,
            Error::Torch(_) | Error::Shim(_) | Error::Memory { .. } => 1,
            Error::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => 2,
                _ => 1,
            },
            Error::Interrupted { signal, .. } | Error::Stopped { signal, .. } => 128 + signal,
            _ => 2,
        }
    }
}

/// libtorch's messages carry a C++ stack trace; the first line says what happened.
fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// What names and texts of other people's files may bring along, made fit to be read: control characters are escaped, and
/// of very long ones the beginning is kept.
fn one_line(text: impl Into<String>) -> String {
    const LONGEST: usize = 2000;
    let text: String = text.into();
    let long = text.chars().count() > LONGEST;
    if !long && !text.contains(char::is_control) {
        return text;
    }
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let kept: String = text.chars().take(LONGEST).map(escape).collect();
    if long { format!("{kept}...") } else { kept }
}

/// What `read` gives, or the message of its panic: some libraries panic on files that are damaged. Nothing is printed.
///
/// # Errors
/// It panicked; in one line.
pub fn caught<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    thread_local!(static READING: Cell<bool> = const { Cell::new(false) });
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !READING.get() {
                print(info);
            }
        }));
    });
    READING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    READING.set(false);
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        text.and_then(|text| text.lines().next()).unwrap_or("the reader stopped").to_owned()
    })
}
