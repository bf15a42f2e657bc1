//! Requests to the hub: redirects without the token leaving it, tries, the hub's refusals in words. Owns ureq; imports
//! nothing but `error`.
use super::cache::{Listed, Listing, is_plain, is_plain_name};
use super::id::{Id, MAIN};
use super::settings::{HubSettings, host_and_port};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::time::Duration;
use ureq::http::{HeaderMap, Request, Response};
use ureq::{Agent, Body};

/// Failures in a row after which a request is given up.
pub(super) const TRIES: u32 = 5;
/// A listing of a repository may be this long.
const LONGEST_LISTING: u64 = 256 << 20;
const MOST_REDIRECTS: usize = 10;

/// Why one try brought nothing.
pub(super) enum Failed {
    /// Another try may help.
    Again(String),
    /// It would not.
    Never(Error),
}

/// Why there is no listing.
pub(super) enum NoListing {
    /// The hub knows no such repository, or does not show it.
    Unknown(Error),
    /// Anything else.
    Failed(Error),
}

impl From<NoListing> for Error {
    fn from(no: NoListing) -> Self {
        match no {
            NoListing::Unknown(error) | NoListing::Failed(error) => error,
        }
    }
}

/// What the hub itself said about a file, whoever then sends it.
#[derive(Debug, Default, Clone)]
pub(super) struct Said {
    pub commit: Option<String>,
    pub etag: Option<String>,
    pub size: Option<u64>,
    linked: bool,
}

impl Said {
    /// `last` where no redirect follows. What is said of a linked file (`x-linked-...`) goes before what is said of the
    /// answer itself.
    fn hear(&mut self, headers: &HeaderMap, last: bool) {
        let get = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        // A weak etag (W/"...") names the same bytes here.
        let etag = |text: String| text.trim_start_matches("W/").trim_matches('"').to_owned();
        if let Some(linked) = get("x-linked-etag") {
            (self.etag, self.linked) = (Some(etag(linked)), true);
        } else if !self.linked {
            self.etag = get("etag").map(etag).or(self.etag.take());
        }
        let size = get("x-linked-size").or_else(|| get("content-length").filter(|_| last && !self.linked));
        self.size = size.and_then(|text| text.parse().ok()).or(self.size);
        self.commit = get("x-repo-commit").or(self.commit.take());
    }
}

/// An answer and where it comes from.
pub(super) struct Reply {
    pub response: Response<Body>,
    pub said: Said,
    pub from_hub: bool,
}

/// Talks to one hub.
pub(super) struct Client<'a> {
    pub settings: &'a HubSettings,
    agent: Agent,
}

impl<'a> Client<'a> {
    /// Says at once when there is no way to the hub; `id` is for whom.
    pub fn new(settings: &'a HubSettings, id: &Id) -> Result<Self> {
        settings.check_reachable(id)?;
        let seconds = Duration::from_secs;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // Followed here, so that the token goes to the hub only.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(format!("collimate/{}", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(seconds(5)))
            .timeout_connect(Some(if settings.proxied { seconds(30) } else { seconds(5) }))
            .timeout_recv_response(Some(settings.stall))
            .timeout_per_read(Some(settings.stall));
        if !settings.proxied {
            config = config.proxy(None);
        }
        Ok(Self { settings, agent: config.build().new_agent() })
    }

    /// One request. `from` asks for the bytes from there on; HEAD stops where the hub sends to another host.
    pub fn send(&self, id: &Id, method: &str, url: &str, from: Option<u64>) -> Result<Reply, Failed> {
        let mut url = url.to_owned();
        let mut said = Said::default();
        for _ in 0..MOST_REDIRECTS {
            let from_hub = host_and_port(&url) == host_and_port(&self.settings.endpoint);
            let mut request = Request::builder().method(method).uri(&url);
            if let Some(token) = self.settings.authorization().filter(|_| from_hub) {
                request = request.header("Authorization", token);
            }
            if let Some(from) = from {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let request = request.body(()).map_err(|e| {
                let message =
                    format!("cannot ask for {}: {}", without_query(&url), self.settings.clean(&e.to_string()));
                Failed::Never(id.error(message, "check HF_ENDPOINT and HF_TOKEN"))
            })?;
            let response = self.agent.run(request).map_err(|e| Failed::Again(self.settings.clean(&words(&e))))?;
            let location = response.headers().get("location").filter(|_| response.status().is_redirection());
            let next = location.and_then(|to| to.to_str().ok()).map(|to| joined(&url, to));
            if from_hub {
                said.hear(response.headers(), next.is_none());
            }
            let Some(next) = next else { return Ok(Reply { response, said, from_hub }) };
            let leaves = host_and_port(&next) != host_and_port(&self.settings.endpoint);
            if method == "HEAD" && leaves {
                return Ok(Reply { response, said, from_hub });
            }
            if !next.starts_with("https://") && url.starts_with("https://") {
                let message = format!("{} sends on to an address that is not https", self.settings.endpoint);
                return Err(Failed::Never(id.error(message, "check HF_ENDPOINT")));
            }
            url = next;
        }
        Err(Failed::Never(id.error(format!("{} sends in circles", self.settings.endpoint), "check HF_ENDPOINT")))
    }

    /// Tries until it works, does not make sense any more, or has failed too often in a row.
    pub fn retry<T>(&self, id: &Id, what: &str, mut attempt: impl FnMut() -> Result<T, Failed>) -> Result<T> {
        let mut failures = 0;
        loop {
            let text = match attempt() {
                Ok(value) => return Ok(value),
                Err(Failed::Never(error)) => return Err(error),
                Err(Failed::Again(text)) => text,
            };
            failures += 1;
            if failures > TRIES {
                let message = format!("cannot get {what} from {}: {text}", self.settings.endpoint);
                return Err(id.error(message, "try again later, or name a local path"));
            }
            self.wait(failures, &text);
        }
    }

    /// The pause after the n-th failure in a row.
    pub fn wait(&self, failures: u32, text: &str) {
        let pause = self.settings.pause * 2u32.pow(failures.saturating_sub(1).min(10));
        tracing::debug!(failures, after = ?pause, "trying again: {text}");
        std::thread::sleep(pause);
    }

    /// What the revision holds.
    pub fn listing(&self, id: &Id) -> Result<Listing, NoListing> {
        let url = format!("{}/api/{}?blobs=true", self.settings.endpoint, id.repo().api_url());
        let mut unknown = false;
        let info: Info = self
            .retry(id, "the list of files", || {
                let mut reply = self.send(id, "GET", &url, None)?;
                unknown = is_unknown(&reply);
                self.check(id, None, &reply)?;
                let body = reply.response.body_mut().with_config().limit(LONGEST_LISTING).read_to_vec();
                let body = body.map_err(|e| Failed::Again(self.settings.clean(&words(&e))))?;
                serde_json::from_slice(&body).map_err(|e| {
                    let message =
                        format!("{} answers with something else than a list of files ({e})", self.settings.endpoint);
                    Failed::Never(id.error(message, "check HF_ENDPOINT"))
                })
            })
            .map_err(|e| if unknown { NoListing::Unknown(e) } else { NoListing::Failed(e) })?;
        if !is_plain_name(&info.sha) {
            let message = "the hub names a commit that is no plain name";
            return Err(NoListing::Failed(id.error(message, "check HF_ENDPOINT")));
        }
        // Names that lead elsewhere are not taken.
        let mut files: Vec<Listed> =
            info.siblings.into_iter().filter(|f| is_plain(&f.rfilename)).map(Listed::from).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Listing { commit: info.sha, files })
    }

    /// Where a file of a commit is.
    pub fn file_url(&self, id: &Id, commit: &str, name: &str) -> String {
        let quoted: String = name.bytes().map(quoted).collect();
        format!(
            "{}/{}/resolve/{}/{quoted}",
            self.settings.endpoint,
            id.repo().url(),
            id.at(commit).repo().url_revision()
        )
    }

    /// Turns a status that is no success into words; `file` where one was asked for.
    pub fn check(&self, id: &Id, file: Option<&str>, reply: &Reply) -> Result<(), Failed> {
        let status = reply.response.status();
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        let code = status.as_u16();
        if matches!(code, 408 | 429 | 500..=599) || !reply.from_hub {
            let who = if reply.from_hub { "it" } else { "the server that it sends to" };
            let slower = if code == 429 { ", too many requests" } else { "" };
            return Err(Failed::Again(format!("{who} answers HTTP {code}{slower}")));
        }
        Err(Failed::Never(self.refusal(id, file, code, reply.response.headers())))
    }

    fn refusal(&self, id: &Id, file: Option<&str>, status: u16, headers: &HeaderMap) -> Error {
        let get = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (kind, hub) = (id.kind.name(), &self.settings.endpoint);
        let message = self.settings.clean(get("x-error-message"));
        match (status, get("x-error-code"), file) {
            (_, "GatedRepo", _) => id.error(
                format!("the {kind} is gated: its licence has to be accepted first (HTTP {status})"),
                format!("accept it at {} and set HF_TOKEN to a token of that account", id.page(hub)),
            ),
            (_, "RevisionNotFound", _) => id.error(
                format!("the {kind} has no revision {:?} (HTTP {status})", id.revision),
                format!("name a branch, a tag or a commit, as {}@{MAIN}", id.name),
            ),
            (_, "EntryNotFound", file) => id.error(
                format!("the {kind} has no file {} at this revision (HTTP {status})", file.unwrap_or("of that name")),
                "try again; if it stays so, name another revision",
            ),
            (401, _, _) if message.starts_with("Invalid credentials") => id.error(
                format!("{hub} does not know the token (HTTP 401)"),
                "set HF_TOKEN to a valid token, or unset it (and remove what `hf auth login` left)",
            ),
            (401 | 404, _, None) | (_, "RepoNotFound", _) => id.error(
                format!("{hub} has no such {kind}, or it is private (HTTP {status})"),
                format!("check the name; for a private {kind} set HF_TOKEN"),
            ),
            (403, _, _) => id.error(
                format!(
                    "{hub} does not let it be read (HTTP 403{}{message})",
                    if message.is_empty() { "" } else { ": " }
                ),
                "check that the token of HF_TOKEN may read it",
            ),
            _ => id.error(
                format!("{hub} answers HTTP {status} for {}", file.unwrap_or("the list of files")),
                "try again later; check HF_ENDPOINT",
            ),
        }
    }
}

/// The hub shows a repository that is not there and one that the token may not see alike: 401 or 404.
fn is_unknown(reply: &Reply) -> bool {
    let header = |name: &str| reply.response.headers().get(name).and_then(|value| value.to_str().ok());
    let code = header("x-error-code").unwrap_or_default();
    let bad_token = header("x-error-message").is_some_and(|text| text.starts_with("Invalid credentials"));
    matches!(reply.response.status().as_u16(), 401 | 404) && matches!(code, "" | "RepoNotFound") && !bad_token
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
}

impl From<Sibling> for Listed {
    fn from(file: Sibling) -> Self {
        Self { name: file.rfilename, size: file.size, blob: file.blob_id, sha256: file.lfs.and_then(|lfs| lfs.sha256) }
    }
}

fn quoted(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

/// The address that a Location header means.
fn joined(url: &str, to: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if to.contains("://") && !to.starts_with('/') {
        to.to_owned()
    } else if let Some(rest) = to.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if to.starts_with('/') {
        format!("{scheme}://{authority}{to}")
    } else {
        let path = without_query(url);
        format!("{}/{to}", path.rsplit_once('/').map_or(path, |(dir, _)| dir))
    }
}

/// An address without its query, which may carry a signature.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// ureq's errors in words.
fn words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(which) => format!("nothing came in time ({which})"),
        ureq::Error::Io(e) => e.to_string(),
        other => other.to_string(),
    }
}

/// As [`words`], for what a body's reader says.
pub(super) fn read_words(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        Some(inner) => words(inner),
        None => error.to_string(),
    }
}
