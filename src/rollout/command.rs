//! Rewards from a program of the user's: JSON lines in, JSON lines out, kept running. Owns the process.
//!
//! A row goes in as `{"prompt": "...", "completion": "..."}`; one line comes back for each, in order: a number, or an
//! object with `reward` (or `score`). The program is started as an argument list, never through a shell.
use super::scorer::Scorer;
use crate::data::{Located, Row};
use crate::error::{Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Longest line that is read; a program that writes on without a newline must not fill memory.
const LONGEST_LINE: u64 = 1 << 20;

/// How often it is asked whether to go on waiting.
const POLL: Duration = Duration::from_millis(200);

/// How long a program may take to leave once its input is closed.
const FAREWELL: Duration = Duration::from_secs(2);

/// Scores rows by asking a running program.
pub struct CommandScorer {
    command: Vec<String>,
    timeout: Duration,
    running: Option<Running>,
    /// Process group of the running program; 0: none runs.
    group: Arc<AtomicI32>,
}

/// The process with the threads that write to it and read from it, so that neither side can block the other.
struct Running {
    child: Child,
    rows: Option<SyncSender<Vec<u8>>>,
    answers: Receiver<Answer>,
    group: Arc<AtomicI32>,
}

/// What came out of the program.
enum Answer {
    Line(String),
    /// More than [`LONGEST_LINE`] without a newline.
    Endless,
}

/// Why a batch of rows got no scores.
enum Failure {
    /// The process ended; it may be started again.
    Died(String),
    /// Trying again would not help.
    Final(Error),
}

impl CommandScorer {
    /// Starts the program; `timeout` is for the rows of one call.
    ///
    /// # Errors
    /// A program that cannot be started.
    pub fn start(command: &[String], timeout: Duration) -> Result<Self> {
        let mut scorer = Self { command: command.to_vec(), timeout, running: None, group: Arc::default() };
        scorer.running = Some(scorer.spawn()?);
        Ok(scorer)
    }

    /// Kills the program that runs then, with its children, whenever it is called.
    pub fn killer(&self) -> impl Fn() + Send + 'static {
        let group = Arc::clone(&self.group);
        move || kill(group.load(Ordering::SeqCst))
    }

    fn spawn(&self) -> Result<Running> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own: a Ctrl-C is ours to handle, and its children can be ended with it.
        let mut child = command.process_group(0).spawn().map_err(|error| {
            let message = format!("ppo.reward_command: {:?} cannot be started: {error}", self.command[0]);
            Error::usage(message, "give the path of a program and its arguments as a list")
        })?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else { unreachable!("both ends were piped") };
        let (rows, to_write) = sync_channel(1);
        let (read, answers) = sync_channel(1024);
        std::thread::spawn(move || write_rows(stdin, &to_write));
        std::thread::spawn(move || read_answers(stdout, &read));
        let group = Arc::clone(&self.group);
        group.store(i32::try_from(child.id()).unwrap_or(0), Ordering::SeqCst);
        Ok(Running { child, rows: Some(rows), answers, group })
    }

    fn ask(&mut self, text: &[u8], count: usize, check: &dyn Fn() -> Result<()>) -> Result<Vec<f64>, Failure> {
        let deadline = Instant::now() + self.timeout;
        let running = match self.running.take() {
            Some(running) => running,
            None => self.spawn().map_err(Failure::Final)?,
        };
        let running = self.running.insert(running);
        running.nothing_left()?;
        let sent = running.rows.as_ref().is_some_and(|rows| rows.send(text.to_vec()).is_ok());
        if !sent {
            return Err(Failure::Died(running.status()));
        }
        let mut scores = Vec::with_capacity(count);
        while scores.len() < count {
            check().map_err(Failure::Final)?;
            let left = deadline.saturating_duration_since(Instant::now());
            match running.answers.recv_timeout(left.min(POLL)) {
                Ok(answer) => scores.push(parse(&answer)?),
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::Died(running.status())),
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = self.timeout.as_secs_f64();
                    let message = format!("gave {} of {count} rewards in {seconds} s", scores.len());
                    let remedy = "make it faster (and flush every line), or raise ppo.reward_timeout";
                    return Err(Failure::Final(reward_error(message, remedy)));
                }
            }
        }
        running.nothing_left()?;
        Ok(scores)
    }
}

impl Scorer for CommandScorer {
    /// Asks once; a program that died is started again once and asked again.
    fn score_rows(&mut self, rows: &[Located], check: &dyn Fn() -> Result<()>) -> Result<Vec<f64>> {
        let mut text = Vec::new();
        for located in rows {
            let Row::PromptCompletion { prompt, completion } = &located.row else { continue };
            let line = json!({ "prompt": prompt, "completion": completion });
            serde_json::to_writer(&mut text, &line).expect("strings serialise");
            text.push(b'\n');
        }
        for attempt in 1..=2 {
            match self.ask(&text, rows.len(), check) {
                Ok(scores) => return Ok(scores),
                Err(Failure::Died(status)) if attempt == 1 => {
                    tracing::warn!("the reward command ended ({status}); starting it again");
                    self.running = None;
                }
                Err(Failure::Died(status)) => {
                    self.running = None;
                    let remedy = "run it by hand on a line of {\"prompt\", \"completion\"} to see why";
                    return Err(reward_error(format!("ended twice ({status})"), remedy));
                }
                Err(Failure::Final(error)) => {
                    self.running = None;
                    return Err(error);
                }
            }
        }
        unreachable!("the second attempt returns")
    }
}

impl Running {
    /// Every answer belongs to a row: one too many would shift all that follow.
    fn nothing_left(&self) -> Result<(), Failure> {
        match self.answers.try_recv() {
            Ok(answer) => Err(rubbish(&shown(&answer), "more lines than it was given rows")),
            Err(_) => Ok(()),
        }
    }

    /// How the process ended, after its output did.
    fn status(&mut self) -> String {
        let until = Instant::now() + FAREWELL;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                _ => return "it closed its output".into(),
            }
        }
    }
}

impl Drop for Running {
    /// Closes the program's input and gives it a moment; then it is killed with its children.
    fn drop(&mut self) {
        self.rows = None;
        let until = Instant::now() + FAREWELL;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        kill(self.group.swap(0, Ordering::SeqCst));
        let _ = self.child.wait();
    }
}

/// Kills a process group; 0 is none.
fn kill(group: i32) {
    if let Some(group) = Pid::from_raw(group) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Until the channel or the pipe closes; that the program is gone is seen by whoever waits for its answers.
fn write_rows(mut stdin: ChildStdin, rows: &Receiver<Vec<u8>>) {
    while let Ok(text) = rows.recv() {
        if stdin.write_all(&text).and_then(|()| stdin.flush()).is_err() {
            break;
        }
    }
}

fn read_answers(stdout: ChildStdout, answers: &SyncSender<Answer>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        let answer = match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => Answer::Line(String::from_utf8_lossy(&line).trim_end().to_owned()),
            Ok(length) if length as u64 == LONGEST_LINE => Answer::Endless,
            // The end, or a line that its writer did not live to finish: half a number is none.
            Ok(_) | Err(_) => break,
        };
        if answers.send(answer).is_err() {
            break;
        }
    }
}

fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Line(line) => line.clone(),
        Answer::Endless => "...".into(),
    }
}

/// A finite number, or an object that holds one.
fn parse(answer: &Answer) -> Result<f64, Failure> {
    let Answer::Line(line) = answer else {
        return Err(rubbish("...", &format!("a line longer than {LONGEST_LINE} bytes")));
    };
    let value: Value = serde_json::from_str(line).map_err(|_| rubbish(line, "a line that is not JSON"))?;
    let number = match &value {
        Value::Object(fields) => fields.get("reward").or_else(|| fields.get("score")).and_then(Value::as_f64),
        other => other.as_f64(),
    };
    number.filter(|n| n.is_finite()).ok_or_else(|| rubbish(line, "a line without a number"))
}

fn rubbish(line: &str, what: &str) -> Failure {
    let shown: String = line.chars().take(80).collect();
    let remedy = "it must print one line a row: a finite number, or an object with \"reward\"";
    Failure::Final(reward_error(format!("printed {what}: {shown:?}"), remedy))
}

fn reward_error(what: String, remedy: &str) -> Error {
    Error::Reward { message: format!("ppo.reward_command: the program {what}"), remedy: remedy.into() }
}
