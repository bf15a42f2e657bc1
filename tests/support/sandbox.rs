//! Runs the program in a directory of its own: configurations, rows, child processes, snapshots of what they leave.
//!
//! Children, not calls: libtorch's generator and the signal handlers belong to the process.
use super::{device_name, golden, program};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// How a child ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit status.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Fails unless it ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stderr: {}", self.stderr);
        self
    }

    /// The one line of a refusal; fails unless it ended with `code` and said just that line, without a panic's text.
    #[track_caller]
    pub fn refused(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "", "a refusal prints nothing on standard output");
        let errors: Vec<&str> = self.stderr.lines().filter(|line| !line.starts_with(" INFO ")).collect();
        assert_eq!(errors.len(), 1, "not one line: {}", self.stderr);
        assert!(errors[0].starts_with("error: "), "{}", self.stderr);
        errors[0].to_owned()
    }

    fn of(output: std::process::Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        let ran =
            Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) };
        for sign in ["panicked", "RUST_BACKTRACE", "terminate called", "frame #"] {
            assert!(!ran.stderr.contains(sign), "a panic's or C++ trace's text: {}", ran.stderr);
        }
        ran
    }
}

/// A directory for one test, gone afterwards.
pub struct Sandbox {
    dir: TempDir,
}

impl Sandbox {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// One with `sft.jsonl` and `pairs.jsonl` (10 rows each, of uneven lengths) and a configuration for every stage on
    /// the tiny GPT-2, in `sft.toml`, `reward.toml`, `dpo.toml` and `ppo.toml` (the prompts of the pairs, 12 new
    /// tokens, the tiny reward model in `rewarder`). Runs go to `run`. An epoch has 3 steps: 4, 4, 2 rows.
    pub fn with_stages() -> Self {
        let sandbox = Self::new();
        sandbox.rows("sft.jsonl", &golden_rows("sft.jsonl", 10));
        sandbox.rows("pairs.jsonl", &golden_rows("preferences.jsonl", 10));
        for (model, file) in [
            ("gpt2-tiny-reward", "config.json"),
            ("gpt2-tiny-reward", "model.safetensors"),
            ("gpt2-tiny", "tokenizer.json"),
            ("gpt2-tiny", "tokenizer_config.json"),
        ] {
            let content = std::fs::read(golden("models").join(model).join(file)).unwrap();
            sandbox.write(&format!("rewarder/{file}"), content);
        }
        for stage in ["sft", "reward", "dpo", "ppo"] {
            let data = if stage == "sft" { "sft.jsonl" } else { "pairs.jsonl" };
            let model = golden("models/gpt2-tiny");
            let mut text = format!(
                "[model]\npath = {model:?}\ndevice = \"{device}\"\n\n[data]\ntrain = \"{data}\"\nmax_length = 64\n\n\
                 [train]\noutput = \"run\"\nbatch_size = 4\nlearning_rate = 1e-3\nlog_every = 3\n",
                device = device_name(),
            );
            if stage == "ppo" {
                text += "\n[ppo]\nreward_model = \"rewarder\"\nmax_new_tokens = 12\n";
            }
            sandbox.write(&format!("{stage}.toml"), text);
        }
        sandbox
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file; its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Writes JSON lines.
    pub fn rows(&self, name: &str, rows: &[Map<String, Value>]) -> PathBuf {
        let lines: Vec<String> = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
        self.write(name, lines.concat())
    }

    /// The program in this directory, on one thread, without the hub.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = program();
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        for (name, value) in [("OMP_NUM_THREADS", "1"), ("MKL_NUM_THREADS", "1"), ("HF_HUB_OFFLINE", "1")] {
            command.env(name, value);
        }
        command.env("HF_HOME", self.path("no-cache")).env_remove("HF_HUB_CACHE");
        command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Runs `collimate STAGE STAGE.toml OVERRIDES`.
    pub fn stage(&self, stage: &str, overrides: &[&str]) -> Ran {
        self.run(&stage_args(stage, overrides).iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts a stage without waiting for it.
    pub fn start(&self, stage: &str, overrides: &[&str]) -> Started {
        let args = stage_args(stage, overrides);
        self.start_any(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts the program without waiting for it.
    pub fn start_any(&self, args: &[&str]) -> Started {
        Started(Some(self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    /// Every file in it with its content.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(self.dir.path(), &mut files);
        files
    }
}

fn stage_args(stage: &str, overrides: &[&str]) -> Vec<String> {
    [stage.to_owned(), format!("{stage}.toml")].into_iter().chain(overrides.iter().map(|o| (*o).to_owned())).collect()
}

/// A child that runs; killed when dropped.
pub struct Started(Option<Child>);

impl Started {
    /// Its process number.
    pub fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Sends a signal by name ("TERM").
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.id())]).status().unwrap();
        assert!(sent.success(), "kill -{name}");
    }

    /// Waits until `ready`; fails if it ends before.
    #[track_caller]
    pub fn wait_for(&mut self, mut ready: impl FnMut() -> bool) {
        while !ready() {
            assert!(!self.ended(), "ended too early: {:?}", self.finish());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Waits for its end.
    pub fn finish(&mut self) -> Ran {
        Ran::of(self.0.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn collect(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.insert(path.clone(), Vec::new());
            collect(&path, files);
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
}

/// The first rows of a file under tests/golden/curves.
pub fn golden_rows(name: &str, count: usize) -> Vec<Map<String, Value>> {
    json_lines(&golden("curves").join(name)).into_iter().take(count).collect()
}

/// The objects of a JSON lines file.
pub fn json_lines(path: &Path) -> Vec<Map<String, Value>> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// The lines of a run's metrics.jsonl as they stand, without the fields that tell time or memory.
pub fn metrics(run: &Path) -> Vec<String> {
    let untimed = |mut line: Map<String, Value>| {
        line.retain(|name, _| !collimate::train::metrics::TIMING_FIELDS.contains(&name.as_str()));
        serde_json::to_string(&line).unwrap()
    };
    json_lines(&run.join("metrics.jsonl")).into_iter().map(untimed).collect()
}

/// Copies a directory with all it holds.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy_dir(&entry.path(), &target) } else { drop(std::fs::copy(entry.path(), target)) }
    }
}

/// An object of the given columns.
pub fn row(columns: Value) -> Map<String, Value> {
    let Value::Object(row) = columns else { panic!("not an object: {columns}") };
    row
}

/// Rows that `collimate score` reads: every chosen, then every rejected completion.
pub fn completions(pairs: &[Map<String, Value>]) -> Vec<Map<String, Value>> {
    let side =
        |side: &'static str| pairs.iter().map(move |p| row(json!({"prompt": p["prompt"], "completion": p[side]})));
    side("chosen").chain(side("rejected")).collect()
}
