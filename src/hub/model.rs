//! Which files make a model, where they are, and what is refused. Imports nothing but `error`.
use super::cache::{self, is_inside};
use super::download::Fetch;
use super::http::Client;
use super::id::{Id, Kind};
use super::settings::HubSettings;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Small files that are taken where the repository has them. Weights come last.
const SMALL: [&str; 10] = [
    "config.json",
    "generation_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];
/// Further chat templates: `additional_chat_templates/NAME.jinja`.
const TEMPLATES: &str = "additional_chat_templates/";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The local directory of a model: a directory is itself; `owner/name`, `name`, each with `@revision`, is a hub id.
///
/// # Errors
/// No such directory, not in the cache while offline, no such model on the hub, weights only as pickle, no
/// tokenizer.json, a download that fails or does not fit the disk.
pub fn resolve_model(path_or_id: &str) -> Result<PathBuf> {
    resolve_model_with(&HubSettings::from_env(), path_or_id)
}

/// [`resolve_model`] of several, or the name of the first that is the model of an earlier one, however it is spelt.
///
/// # Errors
/// As [`resolve_model`].
pub fn resolve_different<'a>(names: &[&'a str]) -> Result<std::result::Result<Vec<PathBuf>, &'a str>> {
    let mut dirs = Vec::new();
    for name in names {
        let dir = resolve_model(name)?;
        let dir = std::fs::canonicalize(&dir).unwrap_or(dir);
        if dirs.contains(&dir) {
            return Ok(Err(name));
        }
        dirs.push(dir);
    }
    Ok(Ok(dirs))
}

/// [`resolve_model`] with settings that do not come from the environment.
pub fn resolve_model_with(settings: &HubSettings, path_or_id: &str) -> Result<PathBuf> {
    let path = Path::new(path_or_id);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    if path.is_file() {
        return Err(Error::file(path, "is a file", "name the model's directory"));
    }
    let Some(id) = Id::parse(path_or_id, None, Kind::Model)?.filter(|id| !id.is_below_a_directory()) else {
        return Err(Error::file(
            path,
            "there is no such directory",
            "give a model directory in Hugging Face layout, or a hub id as owner/name or owner/name@revision",
        ));
    };
    let cached = cache::snapshot(&settings.cache, &id);
    let missing = cached.as_ref().map(|dir| missing(dir, &settings.cache));
    match (cached, missing) {
        (Some(snapshot), Some(None)) => Ok(snapshot),
        _ if !settings.offline => download(settings, &id),
        (_, Some(Some(missing))) => Err(cache::only_parts(settings, &id, &missing)),
        _ => Err(cache::not_there(settings, &id)),
    }
}

/// The first of configuration, tokenizer and weights that is not there.
fn missing(snapshot: &Path, cache: &Path) -> Option<String> {
    let absent = |name: &str| !is_inside(&snapshot.join(name), cache);
    if let Some(name) = ["config.json", TOKENIZER].into_iter().find(|name| absent(name)) {
        return Some(name.to_owned());
    }
    if !absent(WEIGHTS) {
        return None;
    }
    // An index that cannot be read counts as missing: the download says what is wrong with it.
    let shards = if absent(INDEX) { Vec::new() } else { shard_names(&snapshot.join(INDEX)).unwrap_or_default() };
    if shards.is_empty() { Some(WEIGHTS.to_owned()) } else { shards.into_iter().find(|name| absent(name)) }
}

fn download(settings: &HubSettings, id: &Id) -> Result<PathBuf> {
    let client = Client::new(settings, id)?;
    let listing = client.listing(id)?;
    let names = listing.names();
    let weights = [WEIGHTS, INDEX].into_iter().find(|name| names.contains(name));
    let weights = weights.ok_or_else(|| no_safetensors(id, &names))?;
    if !names.contains(&TOKENIZER) {
        return Err(no_tokenizer(id, &names));
    }
    let template =
        |name: &&str| name.strip_prefix(TEMPLATES).is_some_and(|n| n.ends_with(".jinja") && !n.contains('/'));
    let small = SMALL.into_iter().filter(|name| names.contains(name)).chain(names.iter().copied().filter(template));
    let small: Vec<String> = small.map(str::to_owned).collect();
    // Pinned to one commit, whatever happens on the hub meanwhile.
    let fetch = Fetch { client: &client, id, listing: &listing };
    fetch.files(&small)?;
    if weights == INDEX {
        let index = fetch.file(INDEX)?;
        fetch.files(&shard_names(&index)?)?;
    } else {
        fetch.files(&[WEIGHTS.to_owned()])?;
    }
    cache::keep_reference(&settings.cache, id, &listing.commit)?;
    Ok(id.snapshot(&settings.cache, &listing.commit))
}

/// Reads the whole repository with transformers and writes what this program reads.
fn conversion(id: &Id) -> String {
    let revision = id.python_revision();
    format!(
        "python -c 'from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; n = {:?}; M.from_pretrained(n{revision}).save_pretrained(\"model\"); T.from_pretrained(n{revision}).save_pretrained(\"model\")' and name the directory model",
        id.name
    )
}

fn no_safetensors(id: &Id, names: &[&str]) -> Error {
    let pickle = |name: &&&str| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end));
    if names.contains(&"adapter_model.safetensors") {
        return id.error(
            "has only an adapter (adapter_model.safetensors), not the model's own weights",
            format!(
                "merge it: python -c 'from peft import AutoPeftModelForCausalLM as M; from transformers import AutoTokenizer as T; n = {:?}; m = M.from_pretrained(n).merge_and_unload(); m.save_pretrained(\"model\"); T.from_pretrained(n).save_pretrained(\"model\")' and name the directory model",
                id.name
            ),
        );
    }
    match names.iter().find(pickle) {
        Some(name) => id.error(
            format!("its weights are a pickle ({name}), which can run code when loaded"),
            format!("convert them where that is safe: {}", conversion(id)),
        ),
        None => id.error("has no model.safetensors", "name a model with safetensors weights"),
    }
}

fn no_tokenizer(id: &Id, names: &[&str]) -> Error {
    let older = ["tokenizer.model", "spiece.model", "vocab.json", "vocab.txt"].into_iter().find(|n| names.contains(n));
    match older {
        Some(name) => id.error(
            format!("has no tokenizer.json (its tokenizer is {name})"),
            format!("write one: {}", conversion(id)),
        ),
        None => id.error("has no tokenizer.json", "name a model with its tokenizer"),
    }
}

/// The shards that an index names, each once: plain file names ending in .safetensors.
fn shard_names(index: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(index).map_err(Error::io(index, "read"))?;
    let bad = |message: String| Error::file(index, message, "take the file from the model's source again");
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| bad(format!("is not JSON: {e}")))?;
    let map = json.get("weight_map").and_then(|map| map.as_object());
    let map = map.ok_or_else(|| bad("has no \"weight_map\"".into()))?;
    let mut names = std::collections::BTreeSet::new();
    for value in map.values() {
        let name = value.as_str().unwrap_or_default();
        if !cache::is_plain_name(name) || !name.ends_with(".safetensors") {
            return Err(bad(format!("names the shard {value}, which is no plain .safetensors file name")));
        }
        names.insert(name.to_owned());
    }
    Ok(names.into_iter().collect())
}
