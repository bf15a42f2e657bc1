//! A model's name -> a local directory: a directory stays itself, a hub id comes from the cache or is downloaded.
//! Owns hf-hub and the hub's environment variables; imports nothing of ours but `error`.
//!
//! The cache is the one that Python's huggingface_hub keeps (`models--owner--name/snapshots/<commit>`, `refs/main`).
//! A model that is whole there makes no network call. A reference is written after all files are there, so that an
//! interrupted download is never taken for a whole one.
use crate::error::{Error, Result};
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::fmt;
use std::io::IsTerminal;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// Small files that are taken where the repository has them. Weights come last.
const SMALL: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// How long the hub may take to accept a connection.
const CONNECT: Duration = Duration::from_millis(1500);

/// A secret that does not show itself.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// Where the hub and its cache are.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The cache of repositories.
    pub cache: PathBuf,
    /// Address of the hub, without a slash at its end.
    pub endpoint: String,
    /// Only the cache is used.
    pub offline: bool,
    token: Option<Token>,
    proxied: bool,
}

impl HubSettings {
    /// From `HF_HUB_CACHE` (or `HF_HOME`, `XDG_CACHE_HOME`), `HF_ENDPOINT`, `HF_HUB_OFFLINE` and `HF_TOKEN` (or the token
    /// file that `hf auth login` leaves).
    pub fn from_env() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// As [`from_env`](Self::from_env), with the variables from a function.
    pub fn from_lookup(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let path = |name: &str| get(name).map(PathBuf::from);
        let cache_home =
            path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache"))).unwrap_or_else(|| ".cache".into());
        let home = path("HF_HOME").unwrap_or_else(|| cache_home.join("huggingface"));
        let yes = |name| get(name).is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_lowercase().as_str()));
        let token = get("HF_TOKEN")
            .or_else(|| std::fs::read_to_string(path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"))).ok());
        Self {
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            endpoint: get("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into()).trim_end_matches('/').to_owned(),
            offline: yes("HF_HUB_OFFLINE"),
            token: token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).map(Token),
            proxied: ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"]
                .into_iter()
                .any(|name| get(name).or_else(|| get(&name.to_lowercase())).is_some()),
        }
    }

    fn api(&self, id: &Id) -> Result<Api> {
        ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.as_ref().map(|token| token.0.clone()))
            .with_progress(std::io::stderr().is_terminal())
            .with_retries(3)
            .with_user_agent("collimate", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|e| self.failure(id, "the hub", &e))
    }

    /// Says quickly that there is no way to the hub; through a proxy that cannot be known.
    fn check_reachable(&self, id: &Id) -> Result<()> {
        let address = host_and_port(&self.endpoint).ok_or_else(|| {
            Error::usage(format!("HF_ENDPOINT is {:?}", self.endpoint), "give an address such as https://host")
        })?;
        if self.proxied {
            return Ok(());
        }
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let addresses = (address.0.as_str(), address.1).to_socket_addrs();
            let connects = |address| TcpStream::connect_timeout(&address, CONNECT).is_ok();
            // Nobody listens any more when it took too long.
            let _ = send.send(addresses.is_ok_and(|mut all| all.any(connects)));
        });
        if receive.recv_timeout(CONNECT + Duration::from_millis(300)).unwrap_or(false) {
            return Ok(());
        }
        Err(id.error(
            format!("not in the cache {} and {} cannot be reached", self.cache.display(), self.endpoint),
            "check the network or HF_ENDPOINT, or name a local directory",
        ))
    }

    fn failure(&self, id: &Id, what: &str, error: &ApiError) -> Error {
        let text = error.to_string();
        let status = ["401", "403", "404"].into_iter().find(|code| text.contains(&format!("status: {code}")));
        if let Some(code) = status {
            return id.error(
                format!("{} has no {what} there, or it is private or gated (HTTP {code})", self.endpoint),
                "check the name; for a private or gated model set HF_TOKEN",
            );
        }
        let mut text = text.lines().next().unwrap_or_default().to_owned();
        if let Some(token) = &self.token {
            text = text.replace(&token.0, "[redacted]");
        }
        id.error(format!("cannot get {what} from {}: {text}", self.endpoint), "try again, or name a local directory")
    }
}

/// The local directory of a model: a directory is itself; `owner/name`, `name`, each with `@revision`, is a hub id.
///
/// # Errors
/// No such directory, not in the cache while offline, no such model on the hub, weights only as pickle.
pub fn resolve_model(path_or_id: &str) -> Result<PathBuf> {
    resolve_model_with(&HubSettings::from_env(), path_or_id)
}

/// A data file. Only local files for now.
pub fn resolve_dataset_file(path: &str) -> Result<PathBuf> {
    let file = Path::new(path);
    if file.exists() {
        return Ok(file.to_owned());
    }
    Err(Error::file(file, "there is no such file", "give a local JSONL file (data sets of the hub are not read yet)"))
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
    let Some(id) = Id::parse(path_or_id).filter(|id| !id.is_below_a_directory()) else {
        return Err(Error::file(
            path,
            "there is no such directory",
            "give a model directory in Hugging Face layout, or a hub id as owner/name or owner/name@revision",
        ));
    };
    let cached = cached_snapshot(&settings.cache, &id);
    if let Some(snapshot) = cached.as_ref().filter(|dir| is_whole(dir, &settings.cache)) {
        return Ok(snapshot.clone());
    }
    if !settings.offline {
        settings.check_reachable(&id)?;
        return download(settings, &id);
    }
    match cached {
        Some(snapshot) if has_weights(&snapshot, &settings.cache) => Ok(snapshot),
        Some(_) => Err(id.error(
            format!("only parts of it are in the cache {} and HF_HUB_OFFLINE is set", settings.cache.display()),
            "unset HF_HUB_OFFLINE once, so that the rest can be downloaded",
        )),
        None => Err(id.error(
            format!("not in the cache {} and HF_HUB_OFFLINE is set", settings.cache.display()),
            "unset HF_HUB_OFFLINE, or name a local directory",
        )),
    }
}

/// A hub id, checked to be harmless as a path.
struct Id {
    name: String,
    revision: String,
}

impl Id {
    fn parse(text: &str) -> Option<Self> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let word = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && !part.contains("..")
        };
        let ok = name.split('/').count() <= 2 && name.split('/').all(word) && revision.split('/').all(word);
        ok.then(|| Self { name: name.to_owned(), revision: revision.to_owned() })
    }

    /// `runs/sft` where `runs` is a directory here: a mistyped path rather than a hub id.
    fn is_below_a_directory(&self) -> bool {
        self.name.split_once('/').is_some_and(|(first, _)| Path::new(first).is_dir())
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.name.clone(), RepoType::Model, revision.to_owned())
    }

    fn error(&self, message: impl Into<String>, remedy: impl Into<String>) -> Error {
        let at = if self.revision == "main" { String::new() } else { format!("@{}", self.revision) };
        Error::Hub { id: format!("{}{at}", self.name), message: message.into(), remedy: remedy.into() }
    }
}

fn cached_snapshot(cache: &Path, id: &Id) -> Option<PathBuf> {
    let repo = cache.join(id.repo("main").folder_name());
    let commit = std::fs::read_to_string(repo.join("refs").join(&id.revision));
    let commit = commit.map_or_else(|_| id.revision.clone(), |text| text.trim().to_owned());
    let snapshot = repo.join("snapshots").join(&commit);
    (is_plain(&commit) && snapshot.is_dir()).then_some(snapshot)
}

/// Configuration, tokenizer and weights are there.
fn is_whole(snapshot: &Path, cache: &Path) -> bool {
    let inside = |name: &str| is_inside(&snapshot.join(name), cache);
    inside("config.json") && inside("tokenizer.json") && has_weights(snapshot, cache)
}

fn has_weights(snapshot: &Path, cache: &Path) -> bool {
    let inside = |name: &str| is_inside(&snapshot.join(name), cache);
    let shards = || shard_names(&snapshot.join(INDEX)).unwrap_or_default();
    inside(WEIGHTS) || (inside(INDEX) && !shards().is_empty() && shards().iter().all(|name| inside(name)))
}

/// The file exists and no link leads out of the cache.
fn is_inside(file: &Path, cache: &Path) -> bool {
    match (file.canonicalize(), cache.canonicalize()) {
        (Ok(file), Ok(cache)) => file.starts_with(cache) && file.is_file(),
        _ => false,
    }
}

fn download(settings: &HubSettings, id: &Id) -> Result<PathBuf> {
    let api = settings.api(id)?;
    let info = api.repo(id.repo(&id.revision)).info().map_err(|e| settings.failure(id, "such model", &e))?;
    if !is_plain(&info.sha) {
        return Err(id.error("the hub names a commit that is no plain name", "check HF_ENDPOINT"));
    }
    let names: Vec<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
    let weights = [WEIGHTS, INDEX].into_iter().find(|name| names.contains(name));
    let weights = weights.ok_or_else(|| no_safetensors(id, &names))?;
    // Pinned to one commit, whatever happens on the hub meanwhile.
    let fetch = Fetch { settings, id, api: &api, repo: api.repo(id.repo(&info.sha)), commit: &info.sha };
    for name in SMALL.into_iter().filter(|name| names.contains(name)) {
        fetch.file(name)?;
    }
    let file = fetch.file(weights)?;
    if weights == INDEX {
        for shard in shard_names(&file)? {
            fetch.file(&shard)?;
        }
    }
    let cached = Cache::new(settings.cache.clone()).repo(id.repo(&id.revision));
    cached.create_ref(&info.sha).map_err(Error::io(&settings.cache, "write"))?;
    file.parent().map(Path::to_owned).ok_or_else(|| id.error("the cache has no directory for it", "check HF_HUB_CACHE"))
}

/// One commit of a repository that is being downloaded.
struct Fetch<'a> {
    settings: &'a HubSettings,
    id: &'a Id,
    api: &'a Api,
    repo: ApiRepo,
    commit: &'a str,
}

impl Fetch<'_> {
    /// Downloads a file, or takes it from the cache; its path in the snapshot.
    fn file(&self, name: &str) -> Result<PathBuf> {
        let cached = Cache::new(self.settings.cache.clone()).repo(self.id.repo(self.commit));
        if let Some(path) = cached.get(name).filter(|path| is_inside(path, &self.settings.cache)) {
            return Ok(path);
        }
        let fail = |e| self.settings.failure(self.id, name, &e);
        // hf-hub makes paths of both.
        let metadata = self.api.metadata(&self.repo.url(name)).map_err(fail)?;
        if !is_plain(metadata.etag()) || metadata.commit_hash() != self.commit {
            let message = format!("the hub's answer for {name} belongs to another commit or has a strange etag");
            return Err(self.id.error(message, "try again; check HF_ENDPOINT"));
        }
        tracing::info!(model = %self.id.name, file = name, bytes = metadata.size(), "downloading");
        self.repo.download(name).map_err(fail)
    }
}

fn no_safetensors(id: &Id, names: &[&str]) -> Error {
    let pickle = |name: &&&str| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end));
    match names.iter().find(pickle) {
        Some(name) => id.error(
            format!("its weights are a pickle ({name}), which can run code when loaded"),
            format!(
                "convert them where that is safe: python -c 'from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; n = {:?}; M.from_pretrained(n).save_pretrained(\"model\"); T.from_pretrained(n).save_pretrained(\"model\")' and name the directory model",
                id.name
            ),
        ),
        None => id.error("has no model.safetensors", "name a model with safetensors weights"),
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
        if !is_plain(name) || name.contains('/') || !name.ends_with(".safetensors") {
            return Err(bad(format!("names the shard {value}, which is no plain .safetensors file name")));
        }
        names.insert(name.to_owned());
    }
    Ok(names.into_iter().collect())
}

/// Only ordinary components: nothing absolute, no `.` or `..`, no backslash.
fn is_plain(name: &str) -> bool {
    let ordinary = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    !name.is_empty() && ordinary && !name.contains(['\\', '\0'])
}

fn host_and_port(endpoint: &str) -> Option<(String, u16)> {
    let (scheme, rest) = endpoint.split_once("://")?;
    let default = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let authority = rest.split('/').next()?.rsplit('@').next()?;
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => Some((host.trim_matches(['[', ']']).into(), port.parse().ok()?)),
        _ => (!authority.is_empty()).then(|| (authority.trim_matches(['[', ']']).into(), default)),
    }
}
