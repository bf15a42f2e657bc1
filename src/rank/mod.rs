//! `collimate rank`: comparisons of K items -> Bradley-Terry strengths with intervals, as a table, JSON and pictures.
//!
//! ```text
//! read -> Comparisons -> counts -> exists? -> fit -> covariance | bootstrap -> ranking -> show, picture
//! ```
//!
//! Imports `data` (files), `chart` (pictures), seeds and errors; no model that is trained.
pub mod counts;
pub mod exists;
pub mod fit;
pub mod intervals;
mod linear;
pub mod model;
mod picture;
pub mod ranking;
pub mod read;
pub mod show;

use crate::chart::png_of_svg;
use crate::error::{Error, Result};
use clap::Args;
use counts::Grouped;
use exists::{Gaps, Missing};
use fit::Model;
use model::{Prior, Ties};
pub use picture::ranking_svg;
use ranking::{Intervals, Ranking};
use read::Comparisons;
use show::Scale;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A fit holds matrices of this many numbers squared.
const MOST_ITEMS: usize = 8000;
/// How many names an error spells out.
const NAMED: usize = 5;
/// Points of a unit of the SVG in the PNG.
const PNG_SCALE: f32 = 2.0;

/// Strengths of items from comparisons of two at a time.
#[derive(Debug, Args)]
#[command(
    after_help = "Rows (JSON lines, a JSON array or Parquet): {\"a\": \"x\", \"b\": \"y\", \"winner\": \"a\"|\"b\"|\"tie\"}, or \
    {\"a\", \"b\", \"preference\": mu, \"weight\": w}: x is better with probability mu; 0.5 is a tie; the row counts w times \
    (default 1). Judged pairs (\"chosen\", \"rejected\") with \"chosen_source\" and \"rejected_source\" rank the models that \
    these name.\n\n\
    a beats b with probability 1 / (1 + exp(r_b - r_a)). Ratings r are of the highest likelihood; a tie is half a win for \
    each, or with --ties davidson an outcome of its own with probability nu / (e^h + e^-h + nu), h = (r_a - r_b) / 2. An item \
    that always won or always lost has no finite rating without --prior:\n  \
    --prior N            as if each item had been compared N times with one of rating 0 and had won half (1: weak)\n  \
    --prior gaussian:SD  each rating is normal beforehand, with mean 0 and this standard deviation\n\n\
    Examples:\n  \
    collimate rank comparisons.jsonl\n  \
    collimate rank comparisons.jsonl --elo --bootstrap 1000 --plot leaderboard\n  \
    collimate rank monday.jsonl tuesday.jsonl --ties davidson --prior 1 --json > ranking.json"
)]
pub struct RankArgs {
    /// Files of comparisons
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON object; ratings in natural-log units, best first, with the probability matrix
    #[arg(long)]
    json: bool,
    /// What a tie says: half a win for each, or an outcome of its own
    #[arg(long, value_enum, default_value = "bradley-terry")]
    ties: Ties,
    /// Pull ratings towards each other: a number of pseudo-comparisons, or gaussian:SD; 1 where no value is given
    #[arg(long, value_name = "PRIOR", num_args = 0..=1, default_missing_value = "1")]
    prior: Option<Prior>,
    /// Intervals from refits of N samples of the rows, drawn with replacement, instead of from the Hessian
    #[arg(long, value_name = "N")]
    bootstrap: Option<u32>,
    /// Of the intervals, between 0 and 1
    #[arg(long, default_value_t = 0.95, value_parser = confidence)]
    confidence: f64,
    /// Show Elo: 1500 + 400 / ln 10 times the rating (in JSON beside it)
    #[arg(long)]
    elo: bool,
    /// Write PATH.svg and PATH.png; of a directory, ranking.svg and ranking.png in it
    #[arg(long, value_name = "PATH")]
    plot: Option<PathBuf>,
    /// Of the bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn confidence(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value < 1.0 => Ok(value),
        Ok(value) if value > 1.0 && value < 100.0 => Err(format!("give it between 0 and 1: {}", value / 100.0)),
        _ => Err("give a number between 0 and 1, such as 0.95".to_owned()),
    }
}

/// Runs the command.
pub fn run(args: &RankArgs) -> Result<()> {
    let model = Model { ties: args.ties, prior: args.prior };
    let intervals =
        Intervals { confidence: args.confidence, bootstrap: args.bootstrap.map(|n| (n as usize, args.seed)) };
    if let Some((samples, _)) = intervals.bootstrap {
        intervals::refuse_few(samples, args.confidence)?;
    }
    let pictures = args.plot.as_deref().map(pictures).transpose()?;
    let comparisons = Comparisons::read(&args.files, args.ties)?;
    let ranking = rank(&comparisons, model, intervals).map_err(|error| about(&args.files, error))?;
    let scale = if args.elo { Scale::Elo } else { Scale::Natural };
    if let Some(paths) = &pictures {
        draw(&ranking, scale, paths)?;
    }
    if args.json {
        return print(&(serde_json::to_string(&show::json(&ranking, scale)).expect("JSON values serialise") + "\n"));
    }
    print(&show::table(&ranking, scale))?;
    if let Some([svg, png]) = &pictures {
        print(&format!("\npictures: {}, {}\n", png.display(), svg.display()))?;
    }
    Ok(())
}

/// Ratings of comparisons, with intervals.
///
/// # Errors
/// [`Error::Usage`]: too many items; comparisons whose likelihood has no maximum (the items at fault are named); those of
/// [`Ranking::new`].
pub fn rank(comparisons: &Comparisons, model: Model, intervals: Intervals) -> Result<Ranking> {
    let items = comparisons.items();
    if items.len() > MOST_ITEMS {
        let message = format!("{} items are more than the {MOST_ITEMS} that can be fitted together", items.len());
        return Err(Error::usage(message, "rank fewer of them; \"a\" and \"b\" name items, not texts"));
    }
    let grouped = Grouped::new(comparisons);
    let counts = grouped.counts(&grouped.times());
    match exists::missing(&counts, model) {
        None => Ranking::new(&grouped, &counts, model, intervals),
        Some(Missing::Nu) if model.prior.is_some() => {
            let message = "every comparison is a tie, and Davidson's nu infinite";
            Err(Error::usage(message, "leave --ties davidson out: then all ratings are equal"))
        }
        Some(Missing::Nu) => {
            let message = "ties leave Davidson's nu without a maximum: no circle of results has more wins than ties";
            Err(Error::usage(message, "add --prior 1 or more comparisons, or leave --ties davidson out"))
        }
        Some(Missing::Ratings(gaps)) => {
            let message = format!("without a prior not all ratings are finite: {}", told(&gaps, items));
            Err(Error::usage(message, "add --prior 1 (see --help), or comparisons that close this gap"))
        }
    }
}

/// The files in front of what is wrong with their rows as a whole.
fn about(files: &[PathBuf], error: Error) -> Error {
    match error {
        Error::Usage { message, remedy } => Error::file(read::named(files), message, remedy),
        other => other,
    }
}

/// The gaps in words, with names.
fn told(gaps: &Gaps, items: &[String]) -> String {
    let mut said = Vec::new();
    for (groups, single, group) in [
        (&gaps.unbeaten, "never lost or tied", "never lost to or tied any other item"),
        (&gaps.winless, "never won or tied", "never beat or tied any other item"),
    ] {
        let alone: Vec<usize> = groups.iter().filter(|group| group.len() == 1).flatten().copied().collect();
        if !alone.is_empty() {
            said.push(format!("{} {single}", names(&alone, items)));
        }
        let together = groups.iter().filter(|group| group.len() > 1);
        said.extend(together.take(NAMED).map(|members| format!("{} {group}", names(members, items))));
    }
    for island in gaps.apart.iter().take(NAMED) {
        said.push(format!("no chain of comparisons connects {} with the others", names(island, items)));
    }
    if gaps.apart.len() > NAMED {
        said.push(format!("nor {} groups more", gaps.apart.len() - NAMED));
    }
    said.join(", ")
}

fn names(members: &[usize], items: &[String]) -> String {
    let mut told: Vec<String> =
        members.iter().take(NAMED).map(|i| format!("\"{}\"", show::name(&items[*i], 60))).collect();
    if members.len() > NAMED {
        told.push(format!("{} more", members.len() - NAMED));
    }
    match told.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => told.concat(),
    }
}

/// The SVG's path and the PNG's, in a directory that is there.
fn pictures(path: &Path) -> Result<[PathBuf; 2]> {
    let stem = if path.is_dir() {
        path.join("ranking")
    } else {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg" | "png") => path.with_extension(""),
            _ => path.to_owned(),
        }
    };
    let parent = stem.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(Error::file(parent, "no such directory", "make it first"));
    }
    Ok(["svg", "png"].map(|extension| {
        let mut name = stem.clone().into_os_string();
        name.push(".");
        name.push(extension);
        PathBuf::from(name)
    }))
}

fn draw(ranking: &Ranking, scale: Scale, [svg_path, png_path]: &[PathBuf; 2]) -> Result<()> {
    let svg = ranking_svg(ranking, scale);
    let png = png_of_svg(&svg, PNG_SCALE).map_err(|message| Error::file(png_path, message, "please report this"))?;
    std::fs::write(svg_path, &svg).map_err(Error::io(svg_path, "write"))?;
    std::fs::write(png_path, &png).map_err(Error::io(png_path, "write"))
}

/// To standard output; a reader who has seen enough (`head`) is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::io("standard output", "write")),
    }
}
