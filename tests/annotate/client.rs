//! A running `collimate annotate`, and requests to it byte by byte: what a well-behaved client would not send as well.
#![allow(clippy::unwrap_used)]
use crate::support::sandbox::Sandbox;
use serde_json::{Map, Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// A header's value, where there is one.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body, which must be JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.body))
    }
}

/// The program, serving; killed when dropped.
pub struct Server {
    child: Child,
    /// `127.0.0.1:12345`.
    pub address: String,
    /// As printed.
    pub link: String,
    /// `/0123456789abcdef`.
    pub base: String,
    /// `name=value`.
    pub cookie: String,
}

impl Server {
    /// Starts `collimate annotate pairs.jsonl ARGS` and goes through its link.
    pub fn start(sandbox: &Sandbox, args: &[&str]) -> Self {
        Self::started(sandbox.command(&[&["annotate", "pairs.jsonl"], args].concat()), sandbox)
    }

    /// Starts it by another command.
    pub fn started(mut command: Command, sandbox: &Sandbox) -> Self {
        let errors = std::fs::File::create(sandbox.path("stderr")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let Some(link) = lines.find(|line| line.starts_with("http://")) else {
            let _ = child.wait();
            panic!("no link: {}", std::fs::read_to_string(sandbox.path("stderr")).unwrap());
        };
        let (address, path) = link["http://".len()..].split_once('/').unwrap();
        let port = address.rsplit(':').next().unwrap();
        let address = format!("127.0.0.1:{port}");
        let entered = send(&address, "GET", &format!("/{path}"), &[("Host", &address)], b"");
        assert_eq!(entered.status, 200, "{entered:?}");
        let cookie = entered.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let base = entered.body.split("url=").nth(1).unwrap().split("/\"").next().unwrap().to_owned();
        Self { child, address, link, base, cookie }
    }

    /// A request as the page sends it.
    pub fn request(&self, method: &str, route: &str, body: &str) -> Answer {
        let path = format!("{}{route}", self.base);
        let origin = format!("http://{}", self.address);
        let mut headers = vec![("Host", self.address.as_str()), ("Cookie", &self.cookie)];
        if method == "POST" {
            headers.extend([("Origin", origin.as_str()), ("Content-Type", "application/json")]);
        }
        send(&self.address, method, &path, &headers, body.as_bytes())
    }

    /// A POST of JSON.
    pub fn post(&self, route: &str, body: Value) -> Answer {
        self.request("POST", route, &body.to_string())
    }

    /// What an annotator is to judge; fails where that is refused.
    #[track_caller]
    pub fn next(&self, annotator: &str) -> Value {
        let answer = self.post("/api/next", json!({ "annotator": annotator }));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Votes on what an annotator is to judge; the answer.
    #[track_caller]
    pub fn vote(&self, annotator: &str, choice: &str) -> Value {
        let key = self.next(annotator)["current"]["key"].clone();
        assert!(key.is_string(), "nothing left for {annotator}");
        let answer = self.post("/api/vote", ballot(annotator, &key, choice));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Votes as long as the server lives: the id of a vote that was acknowledged.
    pub fn try_vote(&self, annotator: &str, choice: &str) -> Option<String> {
        let try_post = |route: &str, body: &Value| -> Option<Value> {
            let origin = format!("http://{}", self.address);
            let headers = [
                ("Host", self.address.as_str()),
                ("Cookie", &self.cookie),
                ("Origin", &origin),
                ("Content-Type", "application/json"),
            ];
            let path = format!("{}{route}", self.base);
            let answer = try_send(&self.address, "POST", &path, &headers, body.to_string().as_bytes())?;
            (answer.status == 200).then(|| answer.json())
        };
        let key = try_post("/api/next", &json!({ "annotator": annotator }))?["current"]["key"].clone();
        let ballot = ballot(annotator, &key, choice);
        try_post("/api/vote", &ballot)?;
        Some(ballot["vote"].as_str()?.to_owned())
    }

    /// Takes an annotator's last vote back; the answer.
    pub fn undo(&self, annotator: &str) -> Answer {
        self.post("/api/undo", json!({ "annotator": annotator, "undo": id() }))
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name and goes on.
    pub fn tell(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(sent.success());
    }

    /// Ends it as kill -9 does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by name and waits; the exit status.
    pub fn signal(mut self, name: &str) -> Option<i32> {
        self.tell(name);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A vote of two seconds.
pub fn ballot(annotator: &str, key: &Value, choice: &str) -> Value {
    json!({ "annotator": annotator, "vote": id(), "key": key, "choice": choice, "seconds": 2.0 })
}

/// A fresh id, as the page makes them.
pub fn id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Two processes on one log must not make the same.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    format!("{now:016x}{:016x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Sends a request with just these headers and reads the answer to its end.
pub fn send(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    try_send(address, method, path, headers, body).unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

/// As [`send`]; none where there is nobody, or whoever it is ends in the middle of the answer.
fn try_send(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    if !body.is_empty() || method == "POST" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    // The server may answer and close before it has read all of a body that is too large.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()));
    let answer = Answer { status, headers: lines.filter_map(header).collect(), body: body.to_owned() };
    let whole = answer.header("content-length").is_none_or(|length| length.parse() == Ok(answer.body.len()));
    whole.then_some(answer)
}

/// A sandbox with `pairs.jsonl`: `count` pairs "prompt i", "a of i", "b of i", with sources.
pub fn with_pairs(count: usize) -> Sandbox {
    let sandbox = Sandbox::new();
    let row = |i: usize| {
        let source = |model: &str| json!({ "model": model, "fingerprint": "00ff", "seed": i, "temperature": 0.7 });
        let row = json!({
            "prompt": format!("prompt {i}"), "a": format!("a of {i}"), "b": format!("b of {i}"),
            "a_source": source("secret-small"), "b_source": source("secret-large"), "topic": i,
        });
        row.as_object().unwrap().clone()
    };
    let rows: Vec<Map<String, Value>> = (1..=count).map(row).collect();
    sandbox.rows("pairs.jsonl", &rows);
    sandbox
}
