//! A real headless Chromium, driven over the DevTools protocol: pages, keys, clicks, what went wrong in them.
//!
//! COLLIMATE_CHROMIUM names the program, else it is looked for in PATH. Where there is none the tests that need it say
//! so loudly and do nothing else; with COLLIMATE_NEED_CHROMIUM=1 they fail.
#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
const PATIENCE: Duration = Duration::from_secs(30);

/// The program, where there is one.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("COLLIMATE_CHROMIUM").filter(|name| !name.is_empty()) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).flat_map(|dir| NAMES.map(|name| dir.join(name))).find(|file| file.is_file());
    if found.is_none() {
        let needed = std::env::var("COLLIMATE_NEED_CHROMIUM").is_ok_and(|value| value == "1");
        assert!(!needed, "COLLIMATE_NEED_CHROMIUM=1, and none of {NAMES:?} is in PATH");
        eprintln!("NOT TESTED: there is no Chromium here ({NAMES:?} in PATH, or COLLIMATE_CHROMIUM=path)");
    }
    found
}

/// A running browser; ends when dropped.
pub struct Browser {
    child: Child,
    socket: WebSocket<TcpStream>,
    next: u64,
    events: VecDeque<Value>,
    _profile: TempDir,
}

/// A tab with cookies and storage of its own.
#[derive(Debug, Clone)]
pub struct Tab {
    session: String,
    context: String,
}

impl Browser {
    /// Starts one; none where there is no Chromium.
    pub fn start() -> Option<Self> {
        let program = program()?;
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(&program);
        command.args(["--headless=new", "--remote-debugging-port=0", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.args([
            "--no-first-run",
            "--disable-background-networking",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        // Root and containers cannot have its sandbox, and the pages are our own.
        command.arg("--no-sandbox");
        command.arg("about:blank").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let (port, path) = port_of(&mut child, profile.path());
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = tungstenite::client(format!("ws://127.0.0.1:{port}{path}"), stream).unwrap();
        Some(Self { child, socket, next: 0, events: VecDeque::new(), _profile: profile })
    }

    /// A command of the protocol; its result.
    #[track_caller]
    pub fn call(&mut self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        self.try_call(session, method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn try_call(&mut self, session: Option<&str>, method: &str, parameters: Value) -> Result<Value, Value> {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": parameters });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        self.socket.send(Message::text(message.to_string())).unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap_or_else(|e| panic!("{method}: {e}")) else { continue };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == self.next {
                return if answer["error"].is_null() {
                    Ok(answer["result"].clone())
                } else {
                    Err(answer["error"].clone())
                };
            }
            self.events.push_back(answer);
        }
    }

    /// A tab that shares nothing with the others.
    pub fn tab(&mut self) -> Tab {
        let context = self.call(None, "Target.createBrowserContext", json!({}))["browserContextId"].clone();
        self.tab_of(context.as_str().unwrap())
    }

    /// A further tab with the cookies of `tab`.
    pub fn beside(&mut self, tab: &Tab) -> Tab {
        self.tab_of(&tab.context)
    }

    fn tab_of(&mut self, context: &str) -> Tab {
        let target =
            self.call(None, "Target.createTarget", json!({ "url": "about:blank", "browserContextId": context }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.call(None, "Target.attachToTarget", attach)["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            self.call(Some(&session), domain, json!({}));
        }
        let tab = Tab { session, context: context.to_owned() };
        self.look(&tab, 1280, 800, false, "light");
        tab
    }

    /// Size, whether it is a phone, and the system's theme.
    pub fn look(&mut self, tab: &Tab, width: u32, height: u32, phone: bool, theme: &str) {
        let scale = if phone { 2 } else { 1 };
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone });
        self.call(Some(&tab.session), "Emulation.setDeviceMetricsOverride", metrics);
        self.call(Some(&tab.session), "Emulation.setTouchEmulationEnabled", json!({ "enabled": phone }));
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.call(Some(&tab.session), "Emulation.setEmulatedMedia", features);
    }

    /// Goes to an address and waits until the page says `ready`.
    #[track_caller]
    pub fn open(&mut self, tab: &Tab, url: &str, ready: &str) {
        self.call(Some(&tab.session), "Page.navigate", json!({ "url": url }));
        self.wait(tab, ready);
    }

    /// What an expression of JavaScript is.
    #[track_caller]
    pub fn eval(&mut self, tab: &Tab, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let found = self.call(Some(&tab.session), "Runtime.evaluate", parameters);
        assert!(found.get("exceptionDetails").is_none(), "{expression}: {}", found["exceptionDetails"]);
        found["result"]["value"].clone()
    }

    /// The text of the elements of a selector.
    #[track_caller]
    pub fn text(&mut self, tab: &Tab, selector: &str) -> String {
        let expression = format!("[...document.querySelectorAll({selector:?})].map((e) => e.textContent).join('|')");
        self.eval(tab, &expression).as_str().unwrap().to_owned()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn wait(&mut self, tab: &Tab, condition: &str) {
        let since = Instant::now();
        let expression = format!("(() => {{ try {{ return Boolean({condition}) }} catch {{ return false }} }})()");
        loop {
            // While a page is being left there is nothing to ask.
            let parameters = json!({ "expression": expression, "returnByValue": true });
            let found = self.try_call(Some(&tab.session), "Runtime.evaluate", parameters);
            if found.is_ok_and(|found| found["result"]["value"] == true) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{condition} never came: {}", self.text(tab, "body"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Presses a key: a character, or a name such as "ArrowLeft".
    pub fn key(&mut self, tab: &Tab, key: &str) {
        self.key_with(tab, key, 0);
    }

    /// Presses a key with modifiers: 2 is control, 8 is shift.
    pub fn key_with(&mut self, tab: &Tab, key: &str, modifiers: u32) {
        let code = match key {
            "Backspace" => 8,
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            " " => 32,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            other => u32::from(other.to_ascii_uppercase().as_bytes()[0]),
        };
        let text = match key {
            "Enter" => "\r",
            one if one.chars().count() == 1 && modifiers & 2 == 0 => one,
            _ => "",
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call(Some(&tab.session), "Input.dispatchKeyEvent", event);
        }
    }

    /// Types a text where the focus is.
    pub fn type_text(&mut self, tab: &Tab, text: &str) {
        self.call(Some(&tab.session), "Input.insertText", json!({ "text": text }));
    }

    /// Clicks in the middle of an element.
    #[track_caller]
    pub fn click(&mut self, tab: &Tab, selector: &str) {
        let expression = format!(
            "(() => {{ const e = document.querySelector({selector:?}); e.scrollIntoView({{ block: 'nearest' }}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] }})()"
        );
        let place = self.eval(tab, &expression);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call(Some(&tab.session), "Input.dispatchMouseEvent", event);
        }
    }

    /// Loads the page again, as F5 does.
    pub fn call_reload(&mut self, tab: &Tab) {
        self.eval(tab, "document.documentElement.dataset.screen = 'leaving'");
        self.call(Some(&tab.session), "Page.reload", json!({}));
    }

    /// Role and name of what a screen reader meets, in its order.
    pub fn tree(&mut self, tab: &Tab) -> Vec<(String, String)> {
        let found = self.call(Some(&tab.session), "Accessibility.getFullAXTree", json!({}));
        let heard = |node: &&Value| node["ignored"] != true;
        let word = |node: &Value, key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
        found["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .filter(heard)
            .map(|node| (word(node, "role"), word(node, "name")))
            .collect()
    }

    /// Lets the machine have no network, or have it again.
    pub fn offline(&mut self, tab: &Tab, offline: bool) {
        let none = json!({ "offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
        self.call(Some(&tab.session), "Network.emulateNetworkConditions", none);
    }

    /// Fails if a page threw, complained, or asked anybody but `address`.
    #[track_caller]
    pub fn nothing_went_wrong(&mut self, tab: &Tab, address: &str) {
        self.eval(tab, "0");
        for event in &self.events {
            let parameters = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Runtime.exceptionThrown" => panic!("{parameters}"),
                "Log.entryAdded" if parameters["entry"]["level"] == "error" => panic!("{parameters}"),
                "Runtime.consoleAPICalled" if parameters["type"] == "error" => panic!("{parameters}"),
                "Network.requestWillBeSent" => {
                    let url = parameters["request"]["url"].as_str().unwrap();
                    assert!(url.starts_with(&format!("http://{address}/")) || url == "about:blank", "asked {url}");
                }
                _ => {}
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Chromium writes where it listens into its profile.
fn port_of(child: &mut Child, profile: &Path) -> (u16, String) {
    let since = Instant::now();
    loop {
        let text = std::fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
        if let Some((port, path)) = text.split_once('\n')
            && path.starts_with("/devtools")
        {
            return (port.parse().unwrap(), path.trim().to_owned());
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("Chromium ended at once: {status}");
        }
        assert!(since.elapsed() < PATIENCE, "Chromium does not say where it listens");
        std::thread::sleep(Duration::from_millis(20));
    }
}
