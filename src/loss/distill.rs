//! Divergences from an expert's next-token distribution, of which all or the most probable actions are known. Imports `ffi`
//! and `loss` only.
//!
//! Shapes: M states, V vocabulary, K kept actions, D and E widths of student and expert. Nats.
use super::logprobs::Projection;
use crate::error::Result;
use crate::ffi;
use tch::{Kind, Tensor};

/// Bytes of the float32 numbers, V a state and about six of them, that a chunk of states makes.
const BUDGET: i64 = 256 << 20;
const NUMBERS: i64 = 6;

/// How far a student's distribution q lies from the expert's p.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Divergence {
    /// KL(p || q): the student covers what the expert does.
    ForwardKl,
    /// KL(q || p): the student keeps to what the expert would do. Needs all of p.
    ReverseKl,
    /// w KL(p || m) + (1 - w) KL(q || m) with m = w p + (1 - w) q (Agarwal et al. 2024, generalised Jensen-Shannon).
    JensenShannon {
        /// w, the expert's weight, in (0, 1).
        weight: f64,
    },
}

/// What is known of the expert in M states.
#[derive(Debug)]
pub enum Expert<'a> {
    /// Its model's hidden states `[M, E]` and head: its whole distribution.
    Model {
        /// Hidden states, without gradient.
        hidden: &'a Tensor,
        /// Its head.
        head: Projection<'a>,
    },
    /// Its most probable actions.
    Kept {
        /// Ids `[M, K]`, int64, the most probable first.
        ids: &'a Tensor,
        /// log p `[M, K]`, float32, normalised over the kept ones.
        logprobs: &'a Tensor,
    },
}

/// Sums over states; scalars.
#[derive(Debug)]
pub struct Distilled {
    /// Sum of the divergences, with a gradient.
    pub sum: Tensor,
    /// Sum of the student's entropies.
    pub entropy: Tensor,
    /// Number of states in which the student's most probable action is the expert's.
    pub correct: Tensor,
}

/// log p of the K most probable actions of `logits [M, V]`, normalised over them: ids `[M, K]` and `[M, K]` float32.
///
/// # Errors
/// [`crate::Error::Torch`] for K beyond V.
pub fn keep(logits: &Tensor, count: usize) -> Result<(Tensor, Tensor)> {
    let (values, ids) = logits.f_topk(count as i64, -1, true, true)?;
    Ok((ids, values.f_log_softmax(-1, Kind::Float)?))
}

/// The divergence of each state `[M]` float32: `student` logits `[M, V]`; `logprobs` of the expert, `[M, V]`, or `[M, K]` of
/// the actions `ids [M, K]`.
///
/// # Errors
/// [`crate::Error::Torch`] where shapes do not fit.
pub fn divergence(student: &Tensor, logprobs: &Tensor, ids: Option<&Tensor>, which: Divergence) -> Result<Tensor> {
    from_logprobs(&student.f_log_softmax(-1, Kind::Float)?, logprobs, ids, which)
}

/// The sums over all states of a student's hidden states `[M, D]`; logits of both sides are divided by `temperature` (kept
/// actions have been). In chunks of states, which are computed once more for the gradient.
///
/// # Errors
/// [`crate::Error::Torch`] where shapes do not fit or memory is short.
pub fn distill(
    hidden: &Tensor,
    head: Projection,
    expert: &Expert<'_>,
    temperature: f64,
    which: Divergence,
) -> Result<Distilled> {
    let (states, vocab) = (hidden.size2()?.0, head.weight.size2()?.0);
    let rows = (BUDGET / (4 * NUMBERS * vocab)).max(1);
    let mut sums: Option<Tensor> = None;
    let mut from = 0;
    while from < states {
        let count = rows.min(states - from);
        let target = Target::of(expert, from, count)?;
        let (weight, compute) = (head.weight.shallow_clone(), head.compute);
        let chunk = ffi::checkpoint(&hidden.f_narrow(0, from, count)?, false, move |x| {
            figures(&logits(x, &weight, compute, temperature)?, &target, temperature, which)
        })?;
        sums = Some(match sums {
            None => chunk,
            Some(sums) => sums.f_add(&chunk)?,
        });
        from += count;
    }
    let sums = sums.map_or_else(|| Ok(Tensor::f_zeros([3], (Kind::Float, hidden.device()))?), Ok::<_, crate::Error>)?;
    let [sum, entropy, correct] = [sums.f_get(0)?, sums.f_get(1)?.f_detach()?, sums.f_get(2)?.f_detach()?];
    Ok(Distilled { sum, entropy, correct })
}

/// What a chunk's graph owns of the expert.
enum Target {
    Model { hidden: Tensor, weight: Tensor, compute: Kind },
    Kept { ids: Tensor, logprobs: Tensor },
}

impl Target {
    fn of(expert: &Expert<'_>, from: i64, count: i64) -> Result<Self> {
        Ok(match expert {
            Expert::Model { hidden, head } => Target::Model {
                hidden: hidden.f_narrow(0, from, count)?,
                weight: head.weight.f_detach()?,
                compute: head.compute,
            },
            Expert::Kept { ids, logprobs } => {
                Target::Kept { ids: ids.f_narrow(0, from, count)?, logprobs: logprobs.f_narrow(0, from, count)? }
            }
        })
    }

    /// log p, the actions that it is of (none: all), and the most probable one.
    fn known(&self, temperature: f64) -> Result<(Tensor, Option<&Tensor>, Tensor)> {
        let _guard = tch::no_grad_guard();
        Ok(match self {
            Target::Model { hidden, weight, compute } => {
                let logits = logits(hidden, weight, *compute, temperature)?;
                let best = logits.f_argmax(-1, false)?;
                (logits.f_log_softmax(-1, Kind::Float)?, None, best)
            }
            Target::Kept { ids, logprobs } => (logprobs.shallow_clone(), Some(ids), ids.f_select(1, 0)?),
        })
    }
}

/// `[M, V]` float32, divided by the temperature.
fn logits(hidden: &Tensor, weight: &Tensor, compute: Kind, temperature: f64) -> Result<Tensor> {
    let (hidden, weight) = (hidden.f_to_kind(compute)?, weight.f_to_kind(compute)?);
    let logits = hidden.f_linear(&weight, None::<&Tensor>)?.f_to_kind(Kind::Float)?;
    if temperature == 1.0 { Ok(logits) } else { Ok(logits.f_div_scalar(temperature)?) }
}

/// [3]: sum of divergences, of entropies, number of agreements.
fn figures(student: &Tensor, target: &Target, temperature: f64, which: Divergence) -> Result<Tensor> {
    let (logprobs, ids, best) = target.known(temperature)?;
    let q = student.f_log_softmax(-1, Kind::Float)?;
    let sum = from_logprobs(&q, &logprobs, ids, which)?.f_sum(Kind::Float)?;
    let guard = tch::no_grad_guard();
    let entropy = q.f_exp()?.f_mul(&q)?.f_sum(Kind::Float)?.f_neg()?;
    let correct = q.f_argmax(-1, false)?.f_eq_tensor(&best)?.f_sum(Kind::Float)?;
    drop(guard);
    Ok(Tensor::f_stack(&[sum, entropy, correct], 0)?)
}

fn from_logprobs(q: &Tensor, logprobs: &Tensor, ids: Option<&Tensor>, which: Divergence) -> Result<Tensor> {
    let kept = match ids {
        Some(ids) => q.f_gather(-1, ids, false)?,
        None => q.shallow_clone(),
    };
    let sum = |x: Tensor| -> Result<Tensor> { Ok(x.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)?) };
    // An action of probability 0 adds nothing, and 0 times minus infinity would be no number.
    let p = logprobs.f_clamp_min(f64::from(f32::MIN))?;
    match which {
        Divergence::ForwardKl => sum(logprobs.f_exp()?.f_mul(&p.f_sub(&kept)?)?),
        Divergence::ReverseKl => sum(kept.f_exp()?.f_mul(&kept.f_sub(logprobs)?)?),
        Divergence::JensenShannon { weight } => {
            let rest = (1.0 - weight).ln();
            let mixture = p.f_add_scalar(weight.ln())?.f_logaddexp(&kept.f_add_scalar(rest)?)?;
            let expert = sum(logprobs.f_exp()?.f_mul(&p.f_sub(&mixture)?)?)?;
            let mass = kept.f_exp()?;
            let mut student = sum(mass.f_mul(&kept.f_sub(&mixture)?)?)?;
            if ids.is_some() {
                // Where the expert's kept actions end, the mixture is (1 - w) q.
                let left = sum(mass)?.f_neg()?.f_add_scalar(1.0)?;
                student = student.f_sub(&left.f_mul_scalar(rest)?)?;
            }
            Ok(expert.f_mul_scalar(weight)?.f_add(&student.f_mul_scalar(1.0 - weight)?)?)
        }
    }
}
