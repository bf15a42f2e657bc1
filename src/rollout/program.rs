//! A program of the user's that answers questions: JSON lines in, JSON lines out, kept running. Owns the process; must not
//! know what is asked.
//!
//! One line comes back for each that goes in, in order. The program is started as an argument list, never through a shell.
use crate::error::{Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
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

/// What a program is called in messages.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// The key that names the program: `ppo.reward_command`.
    pub key: &'static str,
    /// The key of its time limit.
    pub timeout_key: &'static str,
    /// What it gives: `rewards`.
    pub answers: &'static str,
    /// What a line of its output must be.
    pub line: &'static str,
    /// What a line of its input is.
    pub question: &'static str,
}

/// A running program.
pub struct Program {
    names: Names,
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

/// Why questions got no answers.
enum Failure {
    /// The process ended; it may be started again.
    Died(String),
    /// Trying again would not help.
    Final(Error),
}

impl Program {
    /// Starts the program; `timeout` is for the questions of one call.
    ///
    /// # Errors
    /// A program that cannot be started.
    pub fn start(command: &[String], timeout: Duration, names: Names) -> Result<Self> {
        let mut program = Self { names, command: command.to_vec(), timeout, running: None, group: Arc::default() };
        program.running = Some(program.spawn()?);
        Ok(program)
    }

    /// The answers to `count` questions, lines of `text`; `check` is asked again and again whether to go on. A program that
    /// died is started again once and asked again.
    ///
    /// # Errors
    /// It died twice, took too long, or said what `parse` finds no answer in (which says why).
    pub fn ask<T>(
        &mut self,
        text: &[u8],
        count: usize,
        parse: impl Fn(&Value) -> Result<T, &'static str>,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<T>> {
        for attempt in 1..=2 {
            match self.ask_once(text, count, &parse, check) {
                Ok(answers) => return Ok(answers),
                Err(Failure::Died(status)) if attempt == 1 => {
                    tracing::warn!("{}: the program ended ({status}); starting it again", self.names.key);
                    self.running = None;
                }
                Err(Failure::Died(status)) => {
                    self.running = None;
                    let remedy = format!("run it by hand on a line of {} to see why", self.names.question);
                    return Err(self.names.error(&format!("ended twice ({status})"), &remedy));
                }
                Err(Failure::Final(error)) => {
                    self.running = None;
                    return Err(error);
                }
            }
        }
        unreachable!("the second attempt returns")
    }

    /// Kills the program that runs then, with its children, whenever it is called.
    pub fn killer(&self) -> impl Fn() + Send + use<> {
        let group = Arc::clone(&self.group);
        move || kill(group.load(Ordering::SeqCst))
    }

    fn spawn(&self) -> Result<Running> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own: a Ctrl-C is ours to handle, and its children can be ended with it.
        let mut child = command.process_group(0).spawn().map_err(|error| {
            let message = format!("{}: {:?} cannot be started: {error}", self.names.key, self.command[0]);
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

    fn ask_once<T>(
        &mut self,
        text: &[u8],
        count: usize,
        parse: &impl Fn(&Value) -> Result<T, &'static str>,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<T>, Failure> {
        let (deadline, names) = (Instant::now() + self.timeout, self.names);
        let running = match self.running.take() {
            Some(running) => running,
            None => self.spawn().map_err(Failure::Final)?,
        };
        let running = self.running.insert(running);
        running.nothing_left(names)?;
        let sent = running.rows.as_ref().is_some_and(|rows| rows.send(text.to_vec()).is_ok());
        if !sent {
            return Err(Failure::Died(running.status()));
        }
        let mut found = Vec::with_capacity(count);
        while found.len() < count {
            check().map_err(Failure::Final)?;
            let left = deadline.saturating_duration_since(Instant::now());
            match running.answers.recv_timeout(left.min(POLL)) {
                Ok(answer) => found.push(names.read(&answer, parse)?),
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::Died(running.status())),
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                Err(RecvTimeoutError::Timeout) => {
                    let (seconds, what) = (self.timeout.as_secs_f64(), names.answers);
                    let message = format!("gave {} of {count} {what} in {seconds} s", found.len());
                    let remedy = format!("make it faster (and flush every line), or raise {}", names.timeout_key);
                    return Err(Failure::Final(names.error(&message, &remedy)));
                }
            }
        }
        running.nothing_left(names)?;
        Ok(found)
    }
}

impl Running {
    /// Every answer belongs to a question: one too many would shift all that follow.
    fn nothing_left(&self, names: Names) -> Result<(), Failure> {
        match self.answers.try_recv() {
            Ok(answer) => Err(names.rubbish(&shown(&answer), "more lines than it was given rows")),
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

impl Names {
    fn read<T>(self, answer: &Answer, parse: &impl Fn(&Value) -> Result<T, &'static str>) -> Result<T, Failure> {
        let Answer::Line(line) = answer else {
            return Err(self.rubbish("...", &format!("a line longer than {LONGEST_LINE} bytes")));
        };
        let value: Value = serde_json::from_str(line).map_err(|_| self.rubbish(line, "a line that is not JSON"))?;
        parse(&value).map_err(|what| self.rubbish(line, what))
    }

    fn rubbish(self, line: &str, what: &str) -> Failure {
        let shown: String = line.chars().take(80).collect();
        Failure::Final(self.error(&format!("printed {what}: {shown:?}"), &format!("it must print {}", self.line)))
    }

    /// The program did `what`.
    pub(super) fn error(self, what: &str, remedy: &str) -> Error {
        Error::Reward { message: format!("{}: the program {what}", self.key), remedy: remedy.into() }
    }
}
