//! Rollouts of the mixture beta * expert + (1 - beta) * student (Ross, Gordon and Bagnell 2011), in which a coin decides for
//! each token who acts, and the expert's labels of all states that were visited. Owns the order of the draws.
use super::decoder::Decoder;
use super::expert::{Expert, Follower, Said};
use super::sampling::{Sampling, choose, uniform};
use crate::data::{Micro, Prompt, RowId, Sequence};
use crate::error::{Error, Result};
use crate::model::{CausalLm, Decoding};
use crate::seed;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Who chose a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// The expert.
    #[serde(rename = "E")]
    Expert,
    /// The student.
    #[serde(rename = "S")]
    Student,
    /// What answers actions; its tokens are nobody's and have no labels.
    #[serde(rename = "W")]
    World,
}

/// What answers actions with tokens of its own. Text has none: a prefix with an action is the next prefix.
pub trait World {
    /// The token that follows `prefix`, where it is the world's to choose, drawn with a number in `[0, 1)`; none: an action is
    /// due.
    fn next(&self, prefix: &[i64], number: f64) -> Option<i64>;
}

/// A trajectory: states are prefixes, actions the tokens that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// The prompt's ids and what followed.
    pub tokens: Vec<i64>,
    /// How many of them are the prompt's.
    pub prompt_len: usize,
    /// Who chose each of the others.
    pub actors: Vec<Actor>,
    /// The row of the prompt.
    pub id: RowId,
}

/// Rollouts in order, as many at once as fit a forward pass.
pub fn passes(rollouts: &[Rollout], micro: Micro) -> Vec<Range<usize>> {
    micro.split(&rollouts.iter().map(|rollout| rollout.tokens.len()).collect::<Vec<_>>())
}

impl Rollout {
    /// Lengths of the prefixes in which an action was taken, in order: the states.
    pub fn states(&self) -> impl Iterator<Item = usize> + '_ {
        let acted = self.actors.iter().enumerate().filter(|(_, actor)| **actor != Actor::World);
        acted.map(|(place, _)| self.prompt_len + place)
    }

    /// In how many states what was done is what `labels` say.
    pub fn agreements(&self, labels: &[i64]) -> usize {
        self.states().zip(labels).filter(|(state, label)| self.tokens[*state] == **label).count()
    }

    /// The tokens, of which the actions are the targets: hidden states that predict them are those of the states.
    pub fn sequence(&self) -> Sequence {
        let states: Vec<usize> = self.states().collect();
        let targets = states.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..run[run.len() - 1] + 1).collect();
        Sequence { tokens: self.tokens.clone(), targets, id: self.id.clone() }
    }
}

/// How trajectories come about.
#[derive(Clone, Copy)]
pub struct MixtureOptions<'a> {
    /// The probability that the expert acts, for each token on its own.
    pub beta: f64,
    /// How the student acts.
    pub sampling: Sampling,
    /// A trajectory ends after so many tokens behind its prompt at the latest.
    pub max_new_tokens: usize,
    /// The action that ends it.
    pub eos: Option<i64>,
    /// The seed of all draws.
    pub seed: u64,
    /// Trajectories that are decoded at once.
    pub batch_size: usize,
    /// What answers actions.
    pub world: Option<&'a dyn World>,
}

impl MixtureOptions<'_> {
    /// The number that decides what is drawn for `what` at a place of a rollout.
    fn number(&self, what: &str, rollout: usize, place: usize) -> f64 {
        uniform(seed::derive(self.seed, what, &[]), rollout as u64, place as u64)
    }
}

/// Who acts.
#[derive(Clone, Copy)]
pub struct Mixture<'a> {
    /// The learner.
    pub student: &'a CausalLm,
    /// Whom it learns from.
    pub expert: &'a dyn Expert,
    /// How.
    pub options: MixtureOptions<'a>,
}

/// Says why to stop.
pub type Check<'a> = &'a dyn Fn() -> Result<()>;

impl Mixture<'_> {
    /// A trajectory from every prompt, in order. What is drawn depends on (seed, number of the prompt, place) alone. `check` is
    /// asked after every token whether to go on.
    ///
    /// # Errors
    /// Those of the models and of the expert; what `check` says.
    pub fn roll_out(&self, prompts: &[Prompt], check: Check<'_>) -> Result<Vec<Rollout>> {
        let _part = part!("generation").entered();
        let (_no_grad, _decoding) = (tch::no_grad_guard(), Decoding::begin());
        if self.options.batch_size == 0 || self.options.max_new_tokens == 0 {
            return Err(Error::usage("rollouts of no tokens, or none at a time", "ask for at least one"));
        }
        let begin = |prompt: &Prompt| Rollout {
            tokens: prompt.tokens.clone(),
            prompt_len: prompt.tokens.len(),
            actors: Vec::new(),
            id: prompt.id.clone(),
        };
        let mut rollouts: Vec<Rollout> = prompts.iter().map(begin).collect();
        let numbers: Vec<usize> = (0..rollouts.len()).collect();
        for numbers in numbers.chunks(self.options.batch_size) {
            let mut batch = Batch::begin(self, &rollouts, numbers)?;
            loop {
                batch.act(&mut rollouts, check)?;
                check()?;
                if !batch.go_on()? {
                    break;
                }
            }
        }
        Ok(rollouts)
    }

    /// What the expert says of every state of every rollout, whoever acted there. Where it acted itself, its action is what it
    /// did.
    ///
    /// # Errors
    /// Those of the expert; what `check` says.
    pub fn label(&self, rollouts: &[Rollout], check: Check<'_>) -> Result<Vec<Said>> {
        let _guard = tch::no_grad_guard();
        let number = |rollout: usize, place: usize| self.options.number(EXPERT, rollout, place);
        let mut labels = self.expert.label(rollouts, &number, check)?;
        for (rollout, said) in rollouts.iter().zip(&mut labels) {
            for (state, label) in rollout.states().zip(&mut said.actions) {
                if rollout.actors[state - rollout.prompt_len] == Actor::Expert {
                    *label = rollout.tokens[state];
                }
            }
        }
        Ok(labels)
    }
}

const COIN: &str = "dagger coin";
const EXPERT: &str = "dagger expert";
const STUDENT: &str = "dagger student";
const WORLD: &str = "dagger world";

/// The trajectories that are decoded together.
struct Batch<'a> {
    options: &'a MixtureOptions<'a>,
    /// Whoever never acts is not there.
    student: Option<Decoder<'a>>,
    expert: Option<Box<dyn Follower + 'a>>,
    /// A row's rollout, or None once it has ended.
    rows: Vec<Option<usize>>,
    /// Each row's next token.
    tokens: Vec<i64>,
    /// Tokens chosen so far.
    place: usize,
}

impl<'a> Batch<'a> {
    fn begin(mixture: &'a Mixture<'a>, rollouts: &[Rollout], numbers: &[usize]) -> Result<Self> {
        let options = &mixture.options;
        let prompts: Vec<&[i64]> = numbers.iter().map(|&number| rollouts[number].tokens.as_slice()).collect();
        let student = match options.beta < 1.0 {
            true => Some(Decoder::prefill(mixture.student, &prompts, options.max_new_tokens)?),
            false => None,
        };
        let expert = match options.beta > 0.0 {
            true => Some(mixture.expert.follow(&prompts, options.max_new_tokens)?),
            false => None,
        };
        let rows = numbers.iter().copied().map(Some).collect();
        Ok(Batch { options, student, expert, rows, tokens: vec![0; numbers.len()], place: 0 })
    }

    /// A token for every row, by whoever is to choose it.
    fn act(&mut self, rollouts: &mut [Rollout], check: Check<'_>) -> Result<()> {
        let answer = |row: &Option<usize>| row.and_then(|number| self.answer(number, &rollouts[number]));
        let answers: Vec<Option<i64>> = self.rows.iter().map(answer).collect();
        let actor = |(row, answer): (&Option<usize>, &Option<i64>)| row.map(|number| self.actor(number, *answer));
        let actors: Vec<Option<Actor>> = self.rows.iter().zip(&answers).map(actor).collect();
        let students = self.drawn(&actors)?;
        let experts = self.asked(&actors, rollouts, check)?;
        self.place += 1;
        for (row, actor) in actors.into_iter().enumerate() {
            let (Some(number), Some(actor)) = (self.rows[row], actor) else { continue };
            let rollout = &mut rollouts[number];
            let token = match actor {
                Actor::Student => students[row],
                Actor::Expert => experts[row],
                Actor::World => answers[row].unwrap_or_default(),
            };
            rollout.tokens.push(token);
            rollout.actors.push(actor);
            self.tokens[row] = token;
            let ended = actor != Actor::World && Some(token) == self.options.eos;
            if ended || self.place == self.options.max_new_tokens {
                self.rows[row] = None;
            }
        }
        Ok(())
    }

    fn actor(&self, number: usize, answer: Option<i64>) -> Actor {
        if answer.is_some() {
            Actor::World
        } else if self.options.number(COIN, number, self.place) < self.options.beta {
            Actor::Expert
        } else {
            Actor::Student
        }
    }

    fn answer(&self, number: usize, rollout: &Rollout) -> Option<i64> {
        let drawn = || self.options.number(WORLD, number, self.place);
        self.options.world.and_then(|world| world.next(&rollout.tokens, drawn()))
    }

    /// Numbers for every row's draw; ended rows have 0.
    fn numbers(&self, what: &str) -> Vec<f64> {
        let number = |row: &Option<usize>| row.map_or(0.0, |number| self.options.number(what, number, self.place));
        self.rows.iter().map(number).collect()
    }

    /// The student's actions, where any are wanted.
    fn drawn(&self, actors: &[Option<Actor>]) -> Result<Vec<i64>> {
        match &self.student {
            Some(student) if actors.contains(&Some(Actor::Student)) => {
                Ok(choose(&student.logits()?, &self.options.sampling, &self.numbers(STUDENT))?.tokens)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The expert's actions, where any are wanted.
    fn asked(&mut self, actors: &[Option<Actor>], rollouts: &[Rollout], check: Check<'_>) -> Result<Vec<i64>> {
        let numbers = self.numbers(EXPERT);
        let asked = |(row, actor): (&Option<usize>, &Option<Actor>)| {
            row.filter(|_| *actor == Some(Actor::Expert)).map(|number| rollouts[number].tokens.as_slice())
        };
        let states: Vec<Option<&[i64]>> = self.rows.iter().zip(actors).map(asked).collect();
        match &mut self.expert {
            Some(expert) if states.iter().any(Option::is_some) => expert.act(&states, &numbers, check),
            _ => Ok(Vec::new()),
        }
    }

    /// Runs the chosen tokens through whoever may act; false when no row is left.
    fn go_on(&mut self) -> Result<bool> {
        let live: Vec<usize> = (0..self.rows.len()).filter(|&row| self.rows[row].is_some()).collect();
        if live.is_empty() {
            return Ok(false);
        }
        let rows = self.rows.len();
        if self.student.as_ref().map_or(4 * live.len() <= 3 * rows, |student| student.sheds(live.len(), rows)) {
            self.tokens = live.iter().map(|&row| self.tokens[row]).collect();
            self.rows = live.iter().map(|&row| self.rows[row]).collect();
            if let Some(student) = &mut self.student {
                student.keep(&live)?;
            }
            if let Some(expert) = &mut self.expert {
                expert.keep(&live)?;
            }
        }
        if let Some(student) = &mut self.student {
            student.feed(&self.tokens)?;
        }
        if let Some(expert) = &mut self.expert {
            expert.feed(&self.tokens)?;
        }
        Ok(true)
    }
}
