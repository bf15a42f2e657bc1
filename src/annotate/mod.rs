//! `collimate annotate`: a page on which people judge pairs, and what they said as rows for `reward`, `dpo` and `rank`.
//!
//! ```text
//! pairs -> plan (who sees what) -> desk <-> server <-> page/     (the browser)
//!                                   |
//!                                  log -> book (votes that stand) -> stats, export
//! ```
//!
//! Imports data, locks, seeds and errors; no model, no tensor.
pub mod desk;
pub mod export;
mod files;
pub mod gate;
pub mod log;
pub mod pairs;
pub mod plan;
mod server;
pub mod stats;
mod view;
pub mod votes;

use crate::durable;
use crate::error::{Error, Result};
use clap::Args;
use desk::Desk;
use export::BothBad;
use log::Log;
use pairs::Pairs;
use plan::Plan;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use votes::Begin;

/// Of a new log, where the command says nothing: one pair in twenty is shown twice.
const REPEAT: f64 = 0.05;
/// Of a new log, where the command says nothing: everybody sees one pair in ten.
const OVERLAP: f64 = 0.1;

/// A page on which people judge pairs, and what they said as rows to train on.
#[derive(Debug, Args)]
#[command(
    after_help = "Rows of PAIRS are {\"prompt\", \"a\", \"b\"} or {\"prompt\", \"chosen\", \"rejected\"}, strings or \
    lists of messages. The page hides which side is which. Every vote is on the disk before the next pair shows; the same \
    command goes on after any end. Several people, each by name, may use one link at the same time.\n\n\
    Examples:\n  \
    collimate annotate pairs.jsonl\n  \
    collimate annotate pairs.jsonl --overlap 1 --repeat 0.1     everybody judges all pairs, a tenth of them twice\n  \
    collimate annotate pairs.jsonl --export prefs.jsonl         rows for collimate reward and dpo\n  \
    collimate annotate pairs.jsonl --comparisons comps.jsonl    rows for collimate rank"
)]
pub struct AnnotateArgs {
    /// Pairs to judge, as collimate collect writes them
    #[arg(value_name = "PAIRS")]
    pairs: PathBuf,
    /// Log of the votes; default: PAIRS with the ending .votes.jsonl
    #[arg(long, value_name = "FILE")]
    votes: Option<PathBuf>,
    /// Address to listen on: 127.0.0.1 for this machine alone, 0.0.0.0 for the network
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = address, conflicts_with_all = EXPORTS)]
    host: IpAddr,
    /// Port to listen on; 0: any that is free
    #[arg(long, default_value_t = 0, conflicts_with_all = EXPORTS)]
    port: u16,
    /// A further name by which browsers may call this server (name or name:port), for a tunnel or proxy; may be repeated
    #[arg(long, value_name = "NAME", conflicts_with_all = EXPORTS)]
    allow_host: Vec<String>,
    /// Share of the pairs that an annotator sees twice, sides swapped [default: 0.05; fixed by the first start]
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with_all = EXPORTS)]
    repeat: Option<f64>,
    /// Share of the pairs that all annotators see; the others are divided among them [default: 0.1; fixed by the first start]
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with_all = EXPORTS)]
    overlap: Option<f64>,
    /// Seed of order and sides [default: 0; fixed by the first start]
    #[arg(long, conflicts_with_all = EXPORTS)]
    seed: Option<u64>,
    /// Leave out rows that cannot be used instead of refusing the file
    #[arg(long)]
    skip_bad_rows: bool,
    /// Write rows {prompt, chosen, rejected, preference, votes, annotators} for reward and dpo, and end
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Write a row {a, b, preference, weight} a judgement about the models of the sides for rank, and end
    #[arg(long, value_name = "FILE")]
    comparisons: Option<PathBuf>,
    /// What "both bad" counts as in what is written [default: tie]
    #[arg(long, value_enum)]
    both_bad: Option<BothBad>,
}

const EXPORTS: [&str; 2] = ["export", "comparisons"];

/// Runs the command.
///
/// # Errors
/// Files that cannot be used, an address that cannot be had; the signal that ended the server.
pub fn run(args: &AnnotateArgs) -> Result<()> {
    let votes = args.votes.clone().unwrap_or_else(|| default_votes(&args.pairs));
    let outputs = [(&args.export, "export"), (&args.comparisons, "comparisons")];
    let outputs: Vec<(&Path, &str)> =
        outputs.iter().filter_map(|(path, what)| path.as_deref().map(|path| (path, *what))).collect();
    files::check(&[(&args.pairs, "pairs"), (&votes, "votes")], &outputs)?;
    let pairs = Pairs::read(&args.pairs, args.skip_bad_rows)?;
    if args.export.is_some() || args.comparisons.is_some() {
        return write(args, &pairs, &votes);
    }
    if args.both_bad.is_some() {
        let remedy = "leave it out; it goes with --export and --comparisons";
        return Err(Error::usage("--both-bad says nothing about the page", remedy));
    }
    let (log, contents) = Log::open(&votes, &pairs, |old| settled(args, &votes, &pairs, old))?;
    let begin = contents.begin;
    let (count, people) = (contents.book.len(), contents.book.stacks().count());
    tracing::info!("{}: {} pairs", args.pairs.display(), pairs.list.len());
    tracing::info!("{}: votes so far: {count}, annotators: {people}", votes.display());
    let numbers = pairs.list.iter().map(|pair| pair.number).collect();
    let plan = Plan::new(numbers, begin.seed, begin.repeat, begin.overlap);
    let desk = Desk::new(pairs, plan, log, contents.book, gate::secret(4)?);
    server::serve(desk, args.host, args.port, &args.allow_host, &votes.display().to_string())
}

fn write(args: &AnnotateArgs, pairs: &Pairs, votes: &Path) -> Result<()> {
    let contents = log::look(votes, pairs)?;
    let judged = export::judgements(&contents.book, args.both_bad.unwrap_or(BothBad::Tie));
    if judged.is_empty() {
        return Err(Error::file(votes, "holds no judgement", "judge pairs first: collimate annotate PAIRS"));
    }
    let agreement = stats::of(&contents.book).agreement;
    if let Some(same) = agreement.same {
        let alpha = agreement.alpha.map_or("not defined".to_owned(), |alpha| format!("{alpha:.3}"));
        let pairs = agreement.pairs;
        tracing::info!(
            "pairs that two or more judged: {pairs}, {:.0} % alike, Krippendorff's alpha {alpha}",
            100.0 * same
        );
    }
    if let Some(path) = &args.export {
        let rows = export::preferences(pairs, &judged);
        let ties = rows.iter().filter(|row| row["preference"] == 0.5).count();
        durable::write_rows(path, &rows)?;
        tracing::info!("{}: {} of {} pairs, {ties} of them ties", path.display(), rows.len(), pairs.list.len());
    }
    if let Some(path) = &args.comparisons {
        let rows = export::comparisons(pairs, &judged)?;
        durable::write_rows(path, &rows)?;
        tracing::info!("{}: {} comparisons", path.display(), rows.len());
    }
    Ok(())
}

/// What a log begins with, or goes on with: sides and order must not change under votes that were cast already.
fn settled(args: &AnnotateArgs, votes: &Path, pairs: &Pairs, old: Option<&Begin>) -> Result<Begin> {
    let Some(old) = old else {
        let (repeat, overlap) = (args.repeat.unwrap_or(REPEAT), args.overlap.unwrap_or(OVERLAP));
        return Ok(log::begin(pairs, args.seed.unwrap_or(0), repeat, overlap));
    };
    let changed = [
        ("--seed", args.seed.map(|seed| seed.to_string()), old.seed.to_string()),
        ("--repeat", args.repeat.map(|share| share.to_string()), old.repeat.to_string()),
        ("--overlap", args.overlap.map(|share| share.to_string()), old.overlap.to_string()),
    ];
    for (name, now, before) in changed {
        if let Some(now) = now.filter(|now| *now != before) {
            let message = format!("was begun with {name} {before}, which cannot become {now} under its votes");
            return Err(Error::file(votes, message, format!("leave out {name}, or begin another log with --votes")));
        }
    }
    Ok(old.clone())
}

/// `dir/pairs.jsonl` has its votes in `dir/pairs.votes.jsonl`.
fn default_votes(pairs: &Path) -> PathBuf {
    pairs.with_extension("votes.jsonl")
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1".to_owned()),
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    text.parse().map_err(|_| "give an address of numbers, such as 127.0.0.1, 0.0.0.0 or ::1, or localhost".to_owned())
}
