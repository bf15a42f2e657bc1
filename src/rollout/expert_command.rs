//! An expert that is a program of the user's: prefixes in, actions out. Owns the form of its lines; the process stands in
//! `program`.
//!
//! A rollout goes in as `{"tokens": [ids], "prefixes": [lengths]}`; back comes a list with the action (an id) after each of
//! these prefixes of the tokens. What it does may depend on the prefix alone.
use super::expert::{Expert, Follower, Numbers, Said};
use super::mixture::{Check, Rollout};
use super::program::{Names, Program};
use crate::error::Result;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::time::Duration;

const NAMES: Names = Names {
    key: "dagger.expert_command",
    timeout_key: "dagger.expert_timeout",
    answers: "answers",
    line: "one line a line of input: a list of ids, one for each of \"prefixes\"",
    question: "{\"tokens\", \"prefixes\"}",
};

/// Rollouts that are asked about at once.
const ROLLOUTS: usize = 256;

/// Asks a running program what to do.
pub struct CommandExpert {
    program: RefCell<Program>,
    /// Ids must be below it.
    vocab: i64,
}

impl CommandExpert {
    /// Starts the program; `timeout` is for what it is asked at once, `vocab` the number of actions.
    ///
    /// # Errors
    /// A program that cannot be started.
    pub fn start(command: &[String], timeout: Duration, vocab: i64) -> Result<Self> {
        Ok(Self { program: RefCell::new(Program::start(command, timeout, NAMES)?), vocab })
    }

    /// Kills the program that runs then, with its children, whenever it is called.
    pub fn killer(&self) -> impl Fn() + Send + use<> {
        self.program.borrow().killer()
    }

    /// The actions after prefixes of these lengths, for each of the sequences.
    fn ask(&self, asked: &[(&[i64], Vec<usize>)], check: Check<'_>) -> Result<Vec<Vec<i64>>> {
        let mut text = Vec::new();
        for (tokens, prefixes) in asked {
            serde_json::to_writer(&mut text, &json!({ "tokens": tokens, "prefixes": prefixes })).expect("numbers");
            text.push(b'\n');
        }
        let answers = self.program.borrow_mut().ask(&text, asked.len(), |value| actions(value, self.vocab), check)?;
        for ((_, prefixes), answer) in asked.iter().zip(&answers) {
            if prefixes.len() != answer.len() {
                return Err(NAMES.error(
                    &format!("gave {} actions for {} prefixes", answer.len(), prefixes.len()),
                    "it must print a list with one action for each prefix",
                ));
            }
        }
        Ok(answers)
    }
}

impl Expert for CommandExpert {
    fn follow<'e>(&'e self, _prompts: &[&[i64]], _new_tokens: usize) -> Result<Box<dyn Follower + 'e>> {
        Ok(Box::new(Asking(self)))
    }

    fn label(&self, rollouts: &[Rollout], _numbers: Numbers<'_>, check: Check<'_>) -> Result<Vec<Said>> {
        let mut labels = Vec::with_capacity(rollouts.len());
        for some in rollouts.chunks(ROLLOUTS) {
            let asked = |rollout: &'_ Rollout| rollout.states().collect();
            let asked: Vec<(&[i64], Vec<usize>)> = some.iter().map(|r| (r.tokens.as_slice(), asked(r))).collect();
            labels.extend(self.ask(&asked, check)?.into_iter().map(Said::from));
        }
        Ok(labels)
    }
}

struct Asking<'a>(&'a CommandExpert);

impl Follower for Asking<'_> {
    fn act(&mut self, states: &[Option<&[i64]>], _numbers: &[f64], check: Check<'_>) -> Result<Vec<i64>> {
        let asked: Vec<(&[i64], Vec<usize>)> = states.iter().flatten().map(|s| (*s, vec![s.len()])).collect();
        let mut actions = self.0.ask(&asked, check)?.into_iter().flatten();
        Ok(states.iter().map(|state| state.and_then(|_| actions.next()).unwrap_or_default()).collect())
    }
}

/// A list of ids.
fn actions(value: &Value, vocab: i64) -> Result<Vec<i64>, &'static str> {
    let ids = value.as_array().ok_or("a line that is not a list")?;
    let id = |id: &Value| id.as_i64().filter(|id| (0..vocab).contains(id));
    ids.iter().map(id).collect::<Option<_>>().ok_or("an action that is not an id of the vocabulary")
}
