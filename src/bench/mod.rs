//! `collimate bench`: where the time and memory of a stage go, on synthetic rows, and how far that is from the least that
//! this machine could do it in.
//!
//! Parts are measured by spans in the code that trains (`part!`), not by a loop of its own: `measure` gives the stage's
//! objective and batches to the one loop, `parts` listens. It stands beside `experiment`, the other module that runs
//! stages, and not among `commands`, which do not know them; it must not import `experiment`.
mod args;
mod measure;
pub mod parts;
mod rate;
mod report;
mod rows;
mod work;

pub use args::BenchArgs;

use crate::error::{Error, Result};
use crate::train::trainer::peak_memory_mb;
use args::Plan;
use measure::{Weights, measure};
use report::Report;

/// Runs the command.
///
/// # Errors
/// Options or lengths that do not fit the stage or the model; a model or device that cannot be had; short memory.
pub fn run(args: &BenchArgs) -> Result<()> {
    let weights = Weights::locate(args)?;
    let plan = Plan::new(args, &weights.config.family.facts())?;
    let dir = std::env::temp_dir();
    let run = tempfile::tempdir().map_err(Error::io(&dir, "create a directory in"))?;
    let measured = measure(&plan, &weights, run.path())?;
    let device = weights.options.device;
    let report = Report::new(args, &plan, measured, device, peak_memory_mb(device));
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    Ok(())
}
