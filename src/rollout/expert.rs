//! Experts: whoever says what is to be done in a state. A language model, a rule; a program of the user's stands in
//! `expert_command`. Must not know what is learnt from them.
use super::decoder::Decoder;
use super::forward::target_hidden;
use super::mixture::{Check, Rollout, passes};
use super::sampling::{Sampling, choose};
use crate::data::{Micro, Sequence, lm_batch};
use crate::error::Result;
use crate::loss::distill::keep;
use crate::model::CausalLm;
use serde::{Deserialize, Serialize};

/// States whose logits are there at once.
const STATES: i64 = 256;

/// Numbers in `[0, 1)` by rollout and place behind the prompt; whoever draws an action draws it with that state's.
pub type Numbers<'a> = &'a dyn Fn(usize, usize) -> f64;

/// Says what is to be done. Its action in a state depends on the state, and on the number where it draws.
pub trait Expert {
    /// Follows rows that begin as `prompts` and get at most `new_tokens` more, to act in some of them.
    ///
    /// # Errors
    /// Memory is short.
    fn follow<'e>(&'e self, prompts: &[&[i64]], new_tokens: usize) -> Result<Box<dyn Follower + 'e>>;

    /// What it says of every state of whole rollouts.
    ///
    /// # Errors
    /// It fails; what `check` says.
    fn label(&self, rollouts: &[Rollout], numbers: Numbers<'_>, check: Check<'_>) -> Result<Vec<Said>>;

    /// The model that it plays by, where it has a distribution.
    fn model(&self) -> Option<&CausalLm> {
        None
    }
}

/// What an expert says of a rollout's states.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Its action in each state.
    pub actions: Vec<i64>,
    /// Its most probable actions in each, where they are asked for.
    pub kept: Option<Kept>,
}

/// The K most probable actions of each state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Ids, the most probable first; K of each state, one state after the other.
    pub ids: Vec<i64>,
    /// log p of each, nats, normalised over the K.
    pub logprobs: Vec<f32>,
}

impl From<Vec<i64>> for Said {
    fn from(actions: Vec<i64>) -> Self {
        Said { actions, kept: None }
    }
}

/// An expert at the side of rows that are being decoded.
pub trait Follower {
    /// Its actions in the states that are given; where there is none, any token.
    ///
    /// # Errors
    /// It fails; what `check` says.
    fn act(&mut self, states: &[Option<&[i64]>], numbers: &[f64], check: Check<'_>) -> Result<Vec<i64>>;

    /// What was done in each row.
    ///
    /// # Errors
    /// It fails.
    fn feed(&mut self, _tokens: &[i64]) -> Result<()> {
        Ok(())
    }

    /// Only these rows stay.
    ///
    /// # Errors
    /// It fails.
    fn keep(&mut self, _rows: &[usize]) -> Result<()> {
        Ok(())
    }
}

/// A causal language model as expert.
pub struct Teacher {
    model: CausalLm,
    sampling: Sampling,
    top_k: usize,
    micro: Micro,
}

impl Teacher {
    /// One that acts by `sampling` and reads so many rollouts at once. It also says its `top_k` most probable actions at that
    /// temperature; 0: none.
    pub fn new(model: CausalLm, sampling: Sampling, top_k: usize, micro: Micro) -> Self {
        Self { model, sampling, top_k, micro }
    }
}

impl Expert for Teacher {
    fn follow<'e>(&'e self, prompts: &[&[i64]], new_tokens: usize) -> Result<Box<dyn Follower + 'e>> {
        let decoder = Decoder::prefill(&self.model, prompts, new_tokens)?;
        Ok(Box::new(Decoding { decoder, sampling: self.sampling }))
    }

    /// Forward passes over whole rollouts.
    fn label(&self, rollouts: &[Rollout], numbers: Numbers<'_>, check: Check<'_>) -> Result<Vec<Said>> {
        let mut labels = Vec::with_capacity(rollouts.len());
        for range in passes(rollouts, self.micro) {
            check()?;
            let (first, some) = (range.start, &rollouts[range]);
            let mut drawn = Vec::new();
            for (at, rollout) in some.iter().enumerate() {
                let number = |state: usize| numbers(first + at, state - rollout.prompt_len);
                drawn.extend(rollout.states().map(number));
            }
            let mut actions = Vec::with_capacity(drawn.len());
            let sequences: Vec<Sequence> = some.iter().map(Rollout::sequence).collect();
            let batch = lm_batch(&sequences.iter().collect::<Vec<_>>());
            let (hidden, _) = target_hidden(&self.model, &batch.flat, &batch.targets, 0.0)?;
            let mut kept = Kept::default();
            for (states, drawn) in hidden.f_split(STATES, 0)?.iter().zip(drawn.chunks(STATES as usize)) {
                let logits = self.model.logits(states)?;
                actions.extend(choose(&logits, &self.sampling, drawn)?.tokens);
                if self.top_k > 0 {
                    let (ids, logprobs) = keep(&logits.f_div_scalar(self.sampling.temperature)?, self.top_k)?;
                    kept.ids.extend(Vec::<i64>::try_from(ids.f_flatten(0, -1)?)?);
                    kept.logprobs.extend(Vec::<f32>::try_from(logprobs.f_flatten(0, -1)?)?);
                }
            }
            let (mut actions, mut ids, mut logprobs) =
                (actions.into_iter(), kept.ids.into_iter(), kept.logprobs.into_iter());
            labels.extend(some.iter().map(|rollout| {
                let states = rollout.states().count();
                let (ids, logprobs) =
                    (ids.by_ref().take(states * self.top_k), logprobs.by_ref().take(states * self.top_k));
                let kept = (self.top_k > 0).then(|| Kept { ids: ids.collect(), logprobs: logprobs.collect() });
                Said { actions: actions.by_ref().take(states).collect(), kept }
            }));
        }
        Ok(labels)
    }

    fn model(&self) -> Option<&CausalLm> {
        Some(&self.model)
    }
}

struct Decoding<'a> {
    decoder: Decoder<'a>,
    sampling: Sampling,
}

impl Follower for Decoding<'_> {
    fn act(&mut self, _states: &[Option<&[i64]>], numbers: &[f64], _check: Check<'_>) -> Result<Vec<i64>> {
        Ok(choose(&self.decoder.logits()?, &self.sampling, numbers)?.tokens)
    }

    fn feed(&mut self, tokens: &[i64]) -> Result<()> {
        self.decoder.feed(tokens)
    }

    fn keep(&mut self, rows: &[usize]) -> Result<()> {
        self.decoder.keep(rows)
    }
}

/// An expert that goes by a rule: the action in a state.
pub struct Rule<F>(pub F);

impl<F: Fn(&[i64]) -> i64> Expert for Rule<F> {
    fn follow<'e>(&'e self, _prompts: &[&[i64]], _new_tokens: usize) -> Result<Box<dyn Follower + 'e>> {
        Ok(Box::new(Ruled(&self.0)))
    }

    fn label(&self, rollouts: &[Rollout], _numbers: Numbers<'_>, _check: Check<'_>) -> Result<Vec<Said>> {
        let actions = |rollout: &Rollout| -> Vec<i64> {
            rollout.states().map(|state| (self.0)(&rollout.tokens[..state])).collect()
        };
        Ok(rollouts.iter().map(|rollout| actions(rollout).into()).collect())
    }
}

struct Ruled<'a, F>(&'a F);

impl<F: Fn(&[i64]) -> i64> Follower for Ruled<'_, F> {
    fn act(&mut self, states: &[Option<&[i64]>], _numbers: &[f64], _check: Check<'_>) -> Result<Vec<i64>> {
        Ok(states.iter().map(|state| state.map_or(0, self.0)).collect())
    }
}
