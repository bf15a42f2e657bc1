//! A data set's name -> the files of one split: local ones, those of the cache, or downloads. Imports nothing but
//! `error`.
use super::cache::{self, Listing, is_inside};
use super::card::{self, Config};
use super::download::Fetch;
use super::http::{Client, NoListing};
use super::id::{CONVERTED, Id, Kind, MAIN};
use super::settings::HubSettings;
use super::splits::{self, Asked, Unfit};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

const CARD: &str = "README.md";
/// A card longer than this is none.
const LONGEST_CARD: u64 = 16 << 20;
/// Endings that make a name a file's rather than a hub id.
const ENDINGS: [&str; 8] = [".jsonl", ".json", ".ndjson", ".parquet", ".gz", ".zst", ".csv", ".txt"];
const READABLE: &str = "give a JSONL or Parquet file (JSONL also as .gz or .zst), a directory of them, or a hub id as owner/name or owner/name@revision";

/// Which rows are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetSpec {
    /// A file, a directory of files, or a hub id `owner/name[@revision]`.
    pub path: String,
    /// The configuration (subset), where the data set has several.
    pub config: Option<String>,
    /// The split; "train" without one.
    pub split: Option<String>,
    /// Branch, tag or commit on the hub; "main" without one.
    pub revision: Option<String>,
}

impl DatasetSpec {
    /// The training split of the default configuration.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), config: None, split: None, revision: None }
    }

    fn asked<'a>(&'a self, program: &'a str) -> Asked<'a> {
        Asked { program, config: self.config.as_deref(), split: self.split.as_deref().unwrap_or("train") }
    }
}

/// The local files of a split: a file is itself, of a directory those of the split, of a hub id those in the cache or
/// downloaded. JSONL (also .gz, .zst) and Parquet only. They are in order of name, pattern by pattern where the card has
/// several, which is the order in which datasets reads their rows.
///
/// # Errors
/// No such path, not in the cache while offline, unknown to the hub, no such split or configuration, several
/// configurations and none chosen, formats that are not read or a loading script, a failed download.
pub fn resolve_dataset(spec: &DatasetSpec) -> Result<Vec<PathBuf>> {
    resolve_dataset_with(&HubSettings::from_env(), spec)
}

/// The one file of a split.
///
/// # Errors
/// As [`resolve_dataset`]; the split has several files.
pub fn resolve_dataset_file(path: &str) -> Result<PathBuf> {
    let mut files = resolve_dataset(&DatasetSpec::new(path))?;
    match files.len() {
        1 => Ok(files.remove(0)),
        count => Err(Error::file(path, format!("its training split is {count} files"), "name one of them")),
    }
}

/// [`resolve_dataset`] with settings that do not come from the environment.
pub fn resolve_dataset_with(settings: &HubSettings, spec: &DatasetSpec) -> Result<Vec<PathBuf>> {
    let path = Path::new(&spec.path);
    if path.exists() {
        return local(path, spec);
    }
    let is_file_name = ENDINGS.iter().any(|ending| spec.path.ends_with(ending));
    let id = if is_file_name { None } else { Id::parse(&spec.path, spec.revision.as_deref(), Kind::Dataset)? };
    let Some(id) = id.filter(|id| !id.is_below_a_directory()) else {
        return Err(Error::file(path, "there is no such file or directory", READABLE));
    };
    if let Some(files) = from_cache(settings, &id, spec)? {
        return Ok(files);
    }
    if settings.offline {
        return offline(settings, &id, spec);
    }
    download(settings, &id, spec)
}

fn local(path: &Path, spec: &DatasetSpec) -> Result<Vec<PathBuf>> {
    let given = [("revision", &spec.revision), ("configuration", &spec.config), ("split", &spec.split)];
    let taken = if path.is_dir() { 1 } else { 3 };
    if let Some((what, _)) = given[..taken].iter().find(|(_, value)| value.is_some()) {
        let kind = if path.is_dir() { "directory" } else { "file" };
        return Err(Error::file(
            path,
            format!("is a local {kind}, which has no {what}"),
            format!("leave the {what} out"),
        ));
    }
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let names = cache::files_below(path)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let configs = configs(&path.join(CARD))?;
    let source = path.display().to_string();
    let chosen = splits::choose(&names, &configs, spec.asked("")).map_err(|unfit| {
        let (message, remedy) = in_words(unfit, &source, "", spec);
        Error::file(path, message, remedy)
    })?;
    Ok(chosen.into_iter().map(|name| path.join(name)).collect())
}

/// The card's configurations; none where there is no card.
fn configs(readme: &Path) -> Result<Vec<Config>> {
    let Ok(meta) = readme.metadata() else { return Ok(Vec::new()) };
    let bad = |message: String| Error::file(readme, message, "correct the card, or name the data files themselves");
    if meta.len() > LONGEST_CARD {
        return Err(bad(format!("is longer than {} MiB", LONGEST_CARD >> 20)));
    }
    let text = std::fs::read(readme).map_err(Error::io(readme, "read"))?;
    card::configs(&String::from_utf8_lossy(&text)).map_err(|e| bad(format!("its YAML is not as a card's: {e}")))
}

/// The files that a listing and a card make a split's.
fn choose(id: &Id, names: &[&str], configs: &[Config], spec: &DatasetSpec) -> Result<Vec<String>, Unfit> {
    let program = program(&id.name);
    let asked = spec.asked(&program);
    if id.revision == CONVERTED {
        splits::choose_converted(names, asked)
    } else {
        splits::choose(names, configs, asked)
    }
}

/// The program that belongs to a data set of this name.
fn program(source: &str) -> String {
    format!("{}.py", source.rsplit('/').next().unwrap_or(source))
}

/// Whether the hub's own conversion stands in for what cannot be read: only where no revision was named, because it
/// is made of the main branch.
fn converted(id: &Id, unfit: &Unfit) -> Option<Id> {
    (id.revision == MAIN && !matches!(unfit, Unfit::Choice(..))).then(|| id.at(CONVERTED))
}

/// The split's files where the cache has a listing of the commit and all of them.
fn from_cache(settings: &HubSettings, id: &Id, spec: &DatasetSpec) -> Result<Option<Vec<PathBuf>>> {
    let Some(listing) = cache::listing(&settings.cache, id) else { return Ok(None) };
    let snapshot = id.snapshot(&settings.cache, &listing.commit);
    let there = |name: &str| is_inside(&snapshot.join(name), &settings.cache);
    let names = listing.names();
    if names.contains(&CARD) && !there(CARD) {
        return Ok(None);
    }
    match choose(id, &names, &configs(&snapshot.join(CARD))?, spec) {
        Ok(files) if files.iter().all(|name| there(name)) => {
            Ok(Some(files.into_iter().map(|name| snapshot.join(name)).collect()))
        }
        Ok(_) => Ok(None),
        Err(unfit) => match converted(id, &unfit) {
            Some(converted) => from_cache(settings, &converted, spec),
            // The hub may have something newer.
            None if !settings.offline => Ok(None),
            None => Err(refusal(id, unfit, spec)),
        },
    }
}

/// Without a listing, what another program left in the cache is taken where it is no obvious part.
fn offline(settings: &HubSettings, id: &Id, spec: &DatasetSpec) -> Result<Vec<PathBuf>> {
    let Some(snapshot) = cache::snapshot(&settings.cache, id) else { return Err(cache::not_there(settings, id)) };
    let there = |name: &str| is_inside(&snapshot.join(name), &settings.cache);
    if let Some(listing) = cache::listing(&settings.cache, id) {
        let names = listing.names();
        if names.contains(&CARD) && !there(CARD) {
            return Err(cache::only_parts(settings, id, CARD));
        }
        let wanted = choose(id, &names, &configs(&snapshot.join(CARD))?, spec);
        let wanted = wanted.map_err(|unfit| refusal(id, unfit, spec))?;
        let missing = wanted.iter().find(|name| !there(name)).map_or("a file", String::as_str);
        return Err(cache::only_parts(settings, id, missing));
    }
    let names = cache::files_below(&snapshot)?;
    let names = names.iter().map(String::as_str).filter(|name| there(name));
    let names: Vec<&str> = names.collect();
    let files = choose(id, &names, &configs(&snapshot.join(CARD))?, spec);
    let files = files.map_err(|unfit| match unfit {
        Unfit::Choice(message, _) => cache::only_parts(settings, id, &format!("what was asked for, {message},")),
        _ => cache::only_parts(settings, id, "every data file"),
    })?;
    if let Some(missing) = splits::missing_shard(&files) {
        return Err(cache::only_parts(settings, id, &missing));
    }
    Ok(files.into_iter().map(|name| snapshot.join(name)).collect())
}

fn download(settings: &HubSettings, id: &Id, spec: &DatasetSpec) -> Result<Vec<PathBuf>> {
    let client = Client::new(settings, id)?;
    let listing = client.listing(id)?;
    match take(&client, id, &listing, spec)? {
        Ok(files) => Ok(files),
        Err(unfit) => {
            let Some(converted) = converted(id, &unfit) else { return Err(refusal(id, unfit, spec)) };
            let listing = match client.listing(&converted) {
                Ok(listing) => listing,
                Err(NoListing::Unknown(_)) => return Err(refusal(id, unfit, spec)),
                Err(NoListing::Failed(error)) if is_no_revision(&error) => return Err(refusal(id, unfit, spec)),
                Err(NoListing::Failed(error)) => return Err(error),
            };
            tracing::info!(id = %id.name, "no files that are read here; taking the hub's own conversion ({CONVERTED})");
            take(&client, &converted, &listing, spec)?.map_err(|other| match other {
                Unfit::Choice(..) => refusal(&converted, other, spec),
                _ => refusal(id, unfit, spec),
            })
        }
    }
}

/// Downloads a split. What makes a later call find it without the network comes last.
fn take(client: &Client, id: &Id, listing: &Listing, spec: &DatasetSpec) -> Result<Result<Vec<PathBuf>, Unfit>> {
    let cache = &client.settings.cache;
    let fetch = Fetch { client, id, listing };
    let names = listing.names();
    let configs =
        if names.contains(&CARD) && id.revision != CONVERTED { configs(&fetch.file(CARD)?)? } else { Vec::new() };
    let chosen = choose(id, &names, &configs, spec);
    let files = match &chosen {
        Ok(chosen) => fetch.files(chosen)?,
        Err(_) => Vec::new(),
    };
    // That nothing on the main branch is read here is worth keeping, too: its conversion is then found offline.
    if !matches!(chosen, Err(Unfit::Choice(..))) {
        cache::keep_listing(cache, id, listing)?;
        cache::keep_reference(cache, id, &listing.commit)?;
    }
    Ok(chosen.map(|_| files))
}

fn is_no_revision(error: &Error) -> bool {
    matches!(error, Error::Hub { message, .. } if message.contains("has no revision"))
}

fn refusal(id: &Id, unfit: Unfit, spec: &DatasetSpec) -> Error {
    let (message, remedy) = in_words(unfit, &id.name, &id.python_revision(), spec);
    id.error(message, remedy)
}

/// Message and remedy; `source` is what datasets would open.
fn in_words(unfit: Unfit, source: &str, revision: &str, spec: &DatasetSpec) -> (String, String) {
    let Asked { config, split, .. } = spec.asked("");
    let config = config.map_or(String::new(), |config| format!(", {config:?}"));
    let line = |more: &str| {
        format!(
            "python -c 'from datasets import load_dataset as L; L({source:?}{config}, split={split:?}{revision}{more}).to_json(\"{split}.jsonl\")' and name {split}.jsonl"
        )
    };
    match unfit {
        Unfit::Choice(message, remedy) => (message, remedy),
        Unfit::Formats(formats) => (
            format!("its {split} split is not JSONL or Parquet but {}", formats.join(", ")),
            format!("convert it: {}", line("")),
        ),
        Unfit::Script(script) => (
            format!("its rows are made by a program ({script}), which is not run"),
            format!("convert it where running that is safe, with datasets < 4: {}", line(", trust_remote_code=True")),
        ),
        Unfit::Nothing => ("has no data files (JSONL or Parquet)".into(), format!("convert it: {}", line(""))),
    }
}
