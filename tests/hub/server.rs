//! A hub on the loopback address that speaks the hub's routes, with a second address as its content network, and
//! faults on demand.
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The commit of every main branch here.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// A token that must not show.
pub const SECRET: &str = "hf_planted_secret";

/// What a request was and how it was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// "hub" or "cdn".
    pub host: &'static str,
    /// GET or HEAD.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// It carried the planted token.
    pub token: bool,
    /// First byte that was asked for.
    pub from: Option<usize>,
}

/// A repository: revisions, each with its commit and files.
#[derive(Debug, Clone)]
pub struct Repo {
    kind: &'static str,
    id: String,
    revisions: BTreeMap<String, (String, BTreeMap<String, Vec<u8>>)>,
    /// Status and error code of every file.
    pub gate: Option<(u16, &'static str)>,
    /// Only shown to who has the token.
    pub private: bool,
}

impl Repo {
    /// With a main branch.
    pub fn new(kind: &'static str, id: &str, files: &[(&str, &str)]) -> Self {
        let repo = Self { kind, id: id.into(), revisions: BTreeMap::new(), gate: None, private: false };
        repo.with("main", COMMIT, files)
    }

    /// With a further revision.
    pub fn with(mut self, revision: &str, commit: &str, files: &[(&str, &str)]) -> Self {
        let files: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(n, c)| (n.to_string(), c.bytes().collect())).collect();
        self.revisions.insert(revision.into(), (commit.into(), files));
        self
    }

    fn files(&self, revision: &str) -> Option<&(String, BTreeMap<String, Vec<u8>>)> {
        self.revisions.get(revision).or_else(|| self.revisions.values().find(|(commit, _)| commit == revision))
    }
}

/// What goes wrong.
#[derive(Debug, Default)]
pub struct Faults {
    /// The next answers with a body end after so many bytes.
    pub cuts: VecDeque<usize>,
    /// Every answer with a body ends after so many bytes.
    pub always: Option<usize>,
    /// Ranges are not looked at: the whole file comes.
    pub no_ranges: bool,
    /// Ranges begin at the hundred before the byte that was asked for.
    pub rounds: bool,
    /// A cut answer keeps the connection open and says nothing more.
    pub stalls: bool,
    /// The content network turns bytes over.
    pub spoils: bool,
    /// The next requests at the hub get these statuses.
    pub statuses: VecDeque<u16>,
    /// The size that large files are said to have.
    pub claimed: Option<u64>,
    /// Files that are listed but not there.
    pub lost: Vec<&'static str>,
}

struct State {
    repos: Vec<Repo>,
    faults: Mutex<Faults>,
    seen: Mutex<Vec<Seen>>,
    cdn: String,
}

/// The two servers.
pub struct Hub {
    /// Address of the hub.
    pub endpoint: String,
    state: Arc<State>,
}

impl Hub {
    /// Starts serving.
    pub fn new(repos: Vec<Repo>) -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, cdn) = (bind(), bind());
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (endpoint, cdn_address) = (address(&hub), address(&cdn));
        let state = Arc::new(State { repos, faults: Mutex::default(), seen: Mutex::default(), cdn: cdn_address });
        for (listener, host) in [(hub, "hub"), (cdn, "cdn")] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let (state, stream) = (state.clone(), stream.unwrap());
                    std::thread::spawn(move || serve(stream, host, &state));
                }
            });
        }
        Self { endpoint, state }
    }

    /// Changes what goes wrong.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state.faults.lock().unwrap());
    }

    /// Requests since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.state.seen.lock().unwrap())
    }

    /// File names asked for at `/resolve/` with GET since the last call, each once in a row.
    pub fn got(&self) -> Vec<String> {
        let seen = self.seen().into_iter().filter(|seen| seen.method == "GET" && seen.host == "hub");
        let name = |seen: Seen| Some(seen.path.split_once("/resolve/")?.1.split_once('/')?.1.to_owned());
        let mut names: Vec<String> = seen.filter_map(name).collect();
        names.dedup();
        names
    }
}

/// Lower-case hexadecimal SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Files that the hub keeps outside git.
fn is_large(name: &str) -> bool {
    [".safetensors", ".parquet", ".gz", ".zst"].iter().any(|end| name.ends_with(end))
}

fn etag(name: &str, bytes: &[u8]) -> String {
    let sha256 = sha256(bytes);
    if is_large(name) { sha256 } else { sha256[..40].to_owned() }
}

fn serve(stream: TcpStream, host: &'static str, state: &State) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut seen = Seen { host, method, path, token: false, from: None };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 || line.trim().is_empty() {
            break;
        }
        let (name, value) = line.trim().split_once(": ")?;
        seen.token |= name.eq_ignore_ascii_case("authorization") && value == format!("Bearer {SECRET}");
        if name.eq_ignore_ascii_case("range") {
            seen.from = value.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok();
        }
    }
    state.seen.lock().unwrap().push(seen.clone());
    let answer = match host {
        "cdn" => content(&seen, state),
        _ => hub(&seen, state),
    };
    send(stream, &seen, answer, state)
}

/// Status, headers and body; `faulty` where the faults of transfers apply.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    faulty: bool,
}

impl Answer {
    fn error(status: u16, code: &'static str) -> Self {
        let message = match code {
            "GatedRepo" => "Access to model is restricted.",
            "BadToken" => "Invalid credentials in Authorization header",
            _ => "Not here.",
        };
        let headers = vec![("X-Error-Code", code.to_owned()), ("X-Error-Message", message.to_owned())];
        Self { status, headers, body: b"sorry".to_vec(), faulty: false }
    }
}

fn unquoted(path: &str) -> String {
    path.replace("%2F", "/").replace("%20", " ").replace("%25", "%").replace("%23", "#")
}

fn hub(seen: &Seen, state: &State) -> Answer {
    if let Some(status) = state.faults.lock().unwrap().statuses.pop_front() {
        return Answer::error(status, if status == 401 { "BadToken" } else { "" });
    }
    let path = seen.path.split('?').next().unwrap();
    for repo in state.repos.iter().filter(|repo| !repo.private || seen.token) {
        if let Some(revision) = path.strip_prefix(&format!("/api/{}/{}/revision/", repo.kind, repo.id)) {
            return info(repo, revision);
        }
        let page = if repo.kind == "datasets" { format!("/datasets/{}", repo.id) } else { format!("/{}", repo.id) };
        let direct = path.strip_prefix(&format!("{page}/resolve/"));
        let relayed = path.strip_prefix(&format!("/api/resolve-cache{page}/"));
        if let Some((revision, name)) = direct.or(relayed).and_then(|rest| rest.split_once('/')) {
            let name = unquoted(name);
            let place = (direct.is_some() && name == "config.json")
                .then(|| format!("/api/resolve-cache{page}/{revision}/{name}"));
            return file(repo, revision, &name, place, state);
        }
    }
    Answer::error(if seen.token { 404 } else { 401 }, "RepoNotFound")
}

fn info(repo: &Repo, revision: &str) -> Answer {
    assert!(!revision.contains('/'), "a slash in a revision has to be quoted: {revision}");
    let Some((commit, files)) = repo.files(&unquoted(revision)) else { return Answer::error(404, "RevisionNotFound") };
    let siblings: Vec<serde_json::Value> = files
        .iter()
        .map(|(name, bytes)| {
            let lfs = is_large(name).then(|| serde_json::json!({"sha256": sha256(bytes), "size": bytes.len()}));
            serde_json::json!({"rfilename": name, "size": bytes.len(), "blobId": sha256(bytes)[..40], "lfs": lfs})
        })
        .collect();
    let body = serde_json::json!({"id": repo.id, "sha": commit, "siblings": siblings}).to_string().into_bytes();
    Answer { status: 200, headers: vec![("Content-Type", "application/json".into())], body, faulty: false }
}

fn file(repo: &Repo, revision: &str, name: &str, relay: Option<String>, state: &State) -> Answer {
    // The second of two answers, after a redirect on the hub itself.
    let relayed = relay.is_none() && name == "config.json";
    if let Some((status, code)) = repo.gate {
        return Answer::error(status, code);
    }
    let Some((commit, files)) = repo.files(&unquoted(revision)) else { return Answer::error(404, "RevisionNotFound") };
    let faults = state.faults.lock().unwrap();
    let Some(body) = files.get(name).filter(|_| !faults.lost.contains(&name)) else {
        return Answer::error(404, "EntryNotFound");
    };
    let tag = etag(name, body);
    let mut headers = vec![("X-Repo-Commit", commit.clone())];
    if let Some(location) = relay {
        headers.extend([("Location", location), ("X-Linked-Etag", format!("\"{tag}\""))]);
        return Answer { status: 307, headers, body: Vec::new(), faulty: false };
    }
    if is_large(name) {
        headers.push(("X-Linked-Size", faults.claimed.unwrap_or(body.len() as u64).to_string()));
        headers.push(("X-Linked-Etag", format!("\"{tag}\"")));
        headers.push(("ETag", "\"of-the-pointer\"".into()));
        headers.push(("Location", format!("{}/{}/{commit}/{name}?signature=s3cret", state.cdn, repo.id)));
        return Answer { status: 302, headers, body: Vec::new(), faulty: false };
    }
    headers.push(("ETag", if relayed { "\"of-the-relay\"".into() } else { format!("W/\"{tag}\"") }));
    Answer { status: 200, headers, body: body.clone(), faulty: true }
}

fn content(seen: &Seen, state: &State) -> Answer {
    let path = seen.path.trim_start_matches('/').split('?').next().unwrap();
    for repo in &state.repos {
        let rest = path.strip_prefix(&repo.id).and_then(|rest| rest.strip_prefix('/'));
        let Some((commit, name)) = rest.and_then(|rest| rest.split_once('/')) else { continue };
        let found = repo.revisions.values().find(|(own, files)| own == commit && files.contains_key(name));
        if let Some((_, files)) = found {
            let mut body = files[name].clone();
            if state.faults.lock().unwrap().spoils {
                body.reverse();
            }
            return Answer { status: 200, headers: vec![("ETag", "\"another\"".into())], body, faulty: true };
        }
    }
    Answer::error(403, "")
}

fn send(mut stream: TcpStream, seen: &Seen, mut answer: Answer, state: &State) -> Option<()> {
    let (mut cut, mut stalls) = (None, false);
    let total = answer.body.len();
    let mut body = std::mem::take(&mut answer.body);
    if seen.method == "GET" && answer.faulty {
        let mut faults = state.faults.lock().unwrap();
        stalls = faults.stalls;
        if let Some(from) = seen.from.filter(|_| !faults.no_ranges) {
            let from = if faults.rounds { from / 100 * 100 } else { from };
            if from >= total {
                answer.status = 416;
                body.clear();
            } else {
                answer.status = 206;
                answer.headers.push(("Content-Range", format!("bytes {from}-{}/{total}", total - 1)));
                body.drain(..from);
            }
        }
        cut = faults.cuts.pop_front().or(faults.always).filter(|cut| *cut < body.len());
    }
    let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n", answer.status, body.len());
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if seen.method == "GET" {
        stream.write_all(&body[..cut.unwrap_or(body.len())]).ok()?;
    }
    if cut.is_some() && stalls {
        stream.flush().ok()?;
        std::thread::sleep(Duration::from_secs(20));
    }
    Some(())
}
