//! A model's or data set's name -> local files: a path stays itself, a hub id comes from the cache or is downloaded.
//! Owns hf-hub, the hub's environment variables and the network; imports nothing of ours but `error`.
//!
//! The cache is the one that Python's huggingface_hub keeps (`models--owner--name/snapshots/<commit>`, `refs/main`,
//! `blobs/<etag>`). What is whole there makes no network call. A reference is written after all files are there, so
//! that an interrupted download is never taken for a whole one. hf-hub knows the names and the layout; the transfers
//! are ours, because hf-hub 0.5 goes on with a cut download without looking at what the server sends (a whole file
//! after a range was asked for is appended), and checks neither length nor hash at the end.
mod cache;
mod card;
mod dataset;
mod download;
mod glob;
mod http;
mod id;
mod model;
mod settings;
mod splits;

pub use dataset::{DatasetSpec, resolve_dataset, resolve_dataset_file, resolve_dataset_with};
pub use id::Kind;
pub use model::{resolve_different, resolve_model, resolve_model_with};
pub use settings::HubSettings;

use crate::error::{Error, Result};
use id::Id;
use std::path::Path;

/// Whether `name` is a model or a data set: what is here or in the cache says it without a call, then the hub is asked
/// for a model and after that for a data set.
///
/// # Errors
/// Neither a path nor a hub id, unknown to the hub, no way to the hub.
pub fn kind_of(settings: &HubSettings, name: &str, revision: Option<&str>) -> Result<Kind> {
    let path = Path::new(name);
    if path.exists() {
        return Ok(if path.join("config.json").is_file() { Kind::Model } else { Kind::Dataset });
    }
    let parse = |kind| Id::parse(name, revision, kind);
    let (Some(model), Some(dataset)) = (parse(Kind::Model)?, parse(Kind::Dataset)?) else {
        return Err(Error::file(
            path,
            "there is no such path, and it is no hub id",
            "give a hub id as owner/name or owner/name@revision",
        ));
    };
    if cache::snapshot(&settings.cache, &model).is_some() {
        return Ok(Kind::Model);
    }
    if settings.offline {
        let known = cache::snapshot(&settings.cache, &dataset).is_some();
        return if known { Ok(Kind::Dataset) } else { Err(cache::not_there(settings, &model)) };
    }
    let client = http::Client::new(settings, &model)?;
    match client.listing(&model) {
        Ok(_) => Ok(Kind::Model),
        Err(http::NoListing::Unknown(error)) => match client.listing(&dataset) {
            Ok(_) => Ok(Kind::Dataset),
            Err(http::NoListing::Unknown(_)) => Err(match error {
                Error::Hub { id, remedy, .. } => Error::Hub {
                    id,
                    message: format!(
                        "{} has neither a model nor a data set of that name, or it is private",
                        settings.endpoint
                    ),
                    remedy,
                },
                other => other,
            }),
            Err(http::NoListing::Failed(error)) => Err(error),
        },
        Err(http::NoListing::Failed(error)) => Err(error),
    }
}
