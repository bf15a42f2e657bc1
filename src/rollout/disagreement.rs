//! How far a student's actions are from the expert's in the states of rollouts: what DAgger bounds.
use super::forward::{index, projection, target_hidden, target_logprobs};
use super::mixture::{Check, Rollout, passes};
use super::sampling::{Sampling, probabilities};
use crate::data::{LmBatch, Micro, Sequence, lm_batch};
use crate::error::Result;
use crate::loss::logprobs;
use crate::model::CausalLm;
use tch::{Kind, Tensor};

/// States whose logits are there at once.
const STATES: i64 = 256;

/// What an expert plays in the states of rollouts.
#[derive(Clone, Copy)]
pub enum Play<'a> {
    /// These actions, a list a rollout.
    Actions(&'a [Vec<i64>]),
    /// What is drawn from this model at the student's temperature.
    Drawn(&'a CausalLm),
}

/// For each rollout the total variation distance between the student's and the expert's actions, summed over its states: the
/// expected number of states in which the student does not do what the expert would (of an expert that draws: in the best
/// coupling of the two).
///
/// # Errors
/// Those of the models; what `check` says.
pub fn errors(
    student: &CausalLm,
    sampling: &Sampling,
    rollouts: &[Rollout],
    play: Play<'_>,
    micro: Micro,
    check: Check<'_>,
) -> Result<Vec<f64>> {
    let _guard = tch::no_grad_guard();
    let mut errors = Vec::with_capacity(rollouts.len());
    for range in passes(rollouts, micro) {
        check()?;
        let (first, some) = (range.start, &rollouts[range]);
        let sequences: Vec<Sequence> = some.iter().map(Rollout::sequence).collect();
        let mut batch = lm_batch(&sequences.iter().collect::<Vec<_>>());
        let distances = match play {
            Play::Actions(labels) => {
                batch.targets.tokens = labels[first..first + some.len()].concat();
                from_actions(student, sampling, &batch)?
            }
            Play::Drawn(expert) => from_draws(student, expert, sampling, &batch)?,
        };
        let sequence = index(&batch.targets.sequence, student.device())?;
        let sums = logprobs::sum_by_sequence(&distances, &sequence, some.len() as i64)?;
        errors.extend(Vec::<f32>::try_from(sums)?.into_iter().map(f64::from));
    }
    Ok(errors)
}

/// Mean log p of the actions of rollouts under `model`, logits divided by `temperature`, nats an action.
///
/// # Errors
/// Those of the model; what `check` says.
pub fn mean_logprob(
    model: &CausalLm,
    temperature: f64,
    rollouts: &[Rollout],
    micro: Micro,
    check: Check<'_>,
) -> Result<f64> {
    let _guard = tch::no_grad_guard();
    let (mut sum, mut count) = (0.0, 0);
    for range in passes(rollouts, micro) {
        check()?;
        let some = &rollouts[range];
        let sequences: Vec<Sequence> = some.iter().map(Rollout::sequence).collect();
        let batch = lm_batch(&sequences.iter().collect::<Vec<_>>());
        let logprobs = target_logprobs(model, &batch.flat, &batch.targets, temperature)?;
        sum += f64::try_from(logprobs.f_sum(Kind::Double)?)?;
        count += batch.targets.len();
    }
    Ok(sum / count as f64)
}

/// 1 - pi(action) of each target `[M]`.
fn from_actions(student: &CausalLm, sampling: &Sampling, batch: &LmBatch) -> Result<Tensor> {
    let (hidden, actions) = target_hidden(student, &batch.flat, &batch.targets, 0.0)?;
    let temperature = if sampling.greedy { 1.0 } else { sampling.temperature };
    let said = logprobs::of_targets(&hidden, projection(student), &actions, temperature, sampling.greedy)?;
    let done = if sampling.greedy { said.correct.f_to_kind(Kind::Float)? } else { said.logprobs.f_exp()? };
    Ok(done.f_neg()?.f_add_scalar(1.0)?)
}

/// Half the sum of |pi - expert| over all actions, of each target `[M]`.
fn from_draws(student: &CausalLm, expert: &CausalLm, sampling: &Sampling, batch: &LmBatch) -> Result<Tensor> {
    let (ours, _) = target_hidden(student, &batch.flat, &batch.targets, 0.0)?;
    let (theirs, _) = target_hidden(expert, &batch.flat, &batch.targets, 0.0)?;
    let mut parts = Vec::new();
    for (ours, theirs) in ours.f_split(STATES, 0)?.iter().zip(theirs.f_split(STATES, 0)?) {
        let ours = probabilities(&student.logits(ours)?, sampling)?;
        let theirs = probabilities(&expert.logits(&theirs)?, sampling)?;
        let apart = ours.f_sub(&theirs)?.f_abs()?.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)?;
        parts.push(apart.f_mul_scalar(0.5)?);
    }
    Ok(Tensor::f_cat(&parts, 0)?)
}
