//! Where the hub and its cache are, from the environment as huggingface_hub reads it. Imports nothing but `error`.
use super::id::Id;
use crate::error::{Error, Result};
use std::fmt;
use std::io::IsTerminal;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// How long the hub may take to accept a connection.
const CONNECT: Duration = Duration::from_millis(1500);
/// How long a server may send nothing, unless `HF_HUB_DOWNLOAD_TIMEOUT` says otherwise.
const STALL: Duration = Duration::from_secs(30);
/// The first wait before trying again; it doubles with every failure in a row.
const PAUSE: Duration = Duration::from_millis(300);

/// A secret that does not show itself.
#[derive(Clone)]
pub(super) struct Token(String);

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
    pub(super) token: Option<Token>,
    pub(super) proxied: bool,
    pub(super) bars: bool,
    pub(super) stall: Duration,
    pub(super) pause: Duration,
}

impl HubSettings {
    /// From `HF_HUB_CACHE` (or `HF_HOME`, `XDG_CACHE_HOME`), `HF_ENDPOINT`, `HF_HUB_OFFLINE` (or
    /// `TRANSFORMERS_OFFLINE`), `HF_HUB_DOWNLOAD_TIMEOUT`, `HF_HUB_DISABLE_PROGRESS_BARS` and `HF_TOKEN` (or the token
    /// file that `hf auth login` leaves, at `HF_TOKEN_PATH`), which `HF_HUB_DISABLE_IMPLICIT_TOKEN` leaves unused.
    pub fn from_env() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// As [`from_env`](Self::from_env), with the variables from a function.
    pub fn from_lookup(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let path = |name: &str| {
            let value = get(name)?;
            match (value.strip_prefix("~/"), get("HOME")) {
                (Some(rest), Some(home)) => Some(Path::new(&home).join(rest)),
                _ => Some(PathBuf::from(value)),
            }
        };
        let cache_home =
            path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache"))).unwrap_or_else(|| ".cache".into());
        let home = path("HF_HOME").unwrap_or_else(|| cache_home.join("huggingface"));
        let yes = |name| get(name).is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_lowercase().as_str()));
        let token = get("HF_TOKEN")
            .or_else(|| std::fs::read_to_string(path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"))).ok())
            .filter(|_| !yes("HF_HUB_DISABLE_IMPLICIT_TOKEN"));
        let stall = get("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|seconds| seconds.trim().parse().ok());
        Self {
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            endpoint: get("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into()).trim_end_matches('/').to_owned(),
            offline: yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE"),
            token: token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).map(Token),
            proxied: ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"]
                .into_iter()
                .any(|name| get(name).or_else(|| get(&name.to_lowercase())).is_some()),
            bars: !yes("HF_HUB_DISABLE_PROGRESS_BARS"),
            stall: stall.filter(|seconds| *seconds > 0).map_or(STALL, Duration::from_secs),
            pause: PAUSE,
        }
    }

    /// Another first wait before a failed request is tried again (300 ms); it doubles with every failure in a row.
    #[must_use]
    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// The value of the Authorization header.
    pub(super) fn authorization(&self) -> Option<String> {
        self.token.as_ref().map(|token| format!("Bearer {}", token.0))
    }

    /// One line of text that may come from a server or a library: without the token, not too long.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut line: String = text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        if let Some(token) = &self.token {
            line = line.replace(&token.0, "[redacted]");
        }
        if line.chars().count() > 200 { line.chars().take(200).chain("...".chars()).collect() } else { line }
    }

    /// A bar may be drawn: standard error is a terminal, nothing switched the bars or the messages off.
    pub(super) fn draws_bars(&self) -> bool {
        self.bars && tracing::enabled!(tracing::Level::INFO) && std::io::stderr().is_terminal()
    }

    /// Says quickly that there is no way to the hub; through a proxy that cannot be known.
    pub(super) fn check_reachable(&self, id: &Id) -> Result<()> {
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
            "check the network or HF_ENDPOINT, or name a local path",
        ))
    }
}

/// Host and port of an http or https address.
pub(super) fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (scheme, rest) = address.split_once("://")?;
    let default = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?.rsplit('@').next()?;
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => Some((host.trim_matches(['[', ']']).into(), port.parse().ok()?)),
        _ => (!authority.is_empty()).then(|| (authority.trim_matches(['[', ']']).into(), default)),
    }
}
