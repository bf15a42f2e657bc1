//! `collimate fetch`: a model or a split of a data set from the hub into the cache.
use crate::error::{Error, Result};
use crate::hub::{DatasetSpec, HubSettings, Kind, kind_of, resolve_dataset_with, resolve_model_with};
use clap::Args;
use std::io::Write;

/// A model or data set of the hub into the cache.
#[derive(Debug, Args)]
#[command(
    after_help = "The id is looked for among the models, then among the data sets. Standard output has the local \
    path: of a model its directory, of a data set the files of the split, one a line. A download that was cut goes on \
    where it stopped; what is there already makes no network call. HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and \
    HF_HUB_OFFLINE are those of huggingface_hub, and so is the cache.\n\nExamples:\n  \
    collimate fetch HuggingFaceTB/SmolLM2-135M\n  \
    collimate fetch HuggingFaceTB/SmolLM2-135M@main\n  \
    collimate fetch HuggingFaceH4/ultrafeedback_binarized --split train_prefs\n  \
    collimate fetch stanfordnlp/imdb --dataset --split test"
)]
pub struct FetchArgs {
    /// Hub id: owner/name or owner/name@revision
    #[arg(value_name = "MODEL_OR_DATASET")]
    name: String,
    /// It is a data set; --split and --config say so, too
    #[arg(long)]
    dataset: bool,
    /// Branch, tag or commit; default: main
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Split of a data set; default: train
    #[arg(long, value_name = "SPLIT")]
    split: Option<String>,
    /// Configuration of a data set that has several
    #[arg(long, value_name = "CONFIG")]
    config: Option<String>,
}

/// Runs the command.
pub fn run(args: &FetchArgs) -> Result<()> {
    let settings = HubSettings::from_env();
    let kind = if args.dataset || args.split.is_some() || args.config.is_some() {
        Kind::Dataset
    } else {
        kind_of(&settings, &args.name, args.revision.as_deref())?
    };
    tracing::info!("{} is a {}", args.name, kind.name());
    let paths = match kind {
        Kind::Model => vec![resolve_model_with(&settings, &with_revision(&args.name, args.revision.as_deref())?)?],
        Kind::Dataset => {
            let (config, split, revision) = (args.config.clone(), args.split.clone(), args.revision.clone());
            resolve_dataset_with(&settings, &DatasetSpec { path: args.name.clone(), config, split, revision })?
        }
    };
    let mut out = std::io::stdout().lock();
    for path in paths {
        writeln!(out, "{}", path.display()).map_err(Error::io("standard output", "write"))?;
    }
    Ok(())
}

/// A model's revision stands behind its name.
fn with_revision(name: &str, revision: Option<&str>) -> Result<String> {
    match (name.split_once('@'), revision) {
        (_, None) => Ok(name.to_owned()),
        (None, Some(revision)) => Ok(format!("{name}@{revision}")),
        (Some((_, inline)), Some(revision)) if inline == revision => Ok(name.to_owned()),
        (Some((_, inline)), Some(revision)) => Err(Error::usage(
            format!("{name} names the revision {inline:?}, and --revision {revision:?} is given"),
            "leave one of them out",
        )),
    }
}
