//! Maximum likelihood by Newton's method on sparse counts, and the covariance at the optimum. Knows no files and no
//! names; that a maximum exists is `exists`' affair.
use super::counts::{Counts, Pair};
use super::linear::Factor;
use super::model::{self, Prior, Term, Ties};
use crate::error::{Error, Result};

/// A step whose largest part is below this is the last one: the next would be about its square.
const SETTLED: f64 = 1e-9;
/// Steps below this that no longer shrink are rounding.
const ROUNDING: f64 = 1e-6;
/// Steps up to this size need no line search: log sigma is close to its parabola there.
const SAFE: f64 = 0.25;
/// No step moves a rating by more than this.
const LONGEST: f64 = 4.0;
const MOST_STEPS: usize = 200;

/// What is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Model {
    /// What a tie says.
    pub ties: Ties,
    /// What is believed beforehand.
    pub prior: Option<Prior>,
}

/// The optimum.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// Natural-log strengths, as the prior sees them; without a prior their mean is 0.
    strengths: Vec<f64>,
    /// Davidson's log nu; None without one (Bradley-Terry, or no tie came up: nu = 0).
    pub log_nu: Option<f64>,
    /// Of the comparisons, without the prior, in nats.
    pub log_likelihood: f64,
    /// Newton steps taken.
    pub steps: usize,
}

impl Fit {
    /// Natural-log strengths whose mean is 0.
    pub fn ratings(&self) -> Vec<f64> {
        let mean = self.strengths.iter().sum::<f64>() / self.strengths.len() as f64;
        self.strengths.iter().map(|rating| rating - mean).collect()
    }
}

/// Squares of the standard errors, and what they come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Covariance {
    /// Of the centred ratings `[items, items]`: the pseudo-inverse of the Hessian.
    pub ratings: Vec<f64>,
    /// Variance of log nu.
    pub log_nu: Option<f64>,
}

impl Covariance {
    /// Standard error of each item's centred rating.
    pub fn errors(&self, items: usize) -> Vec<f64> {
        (0..items).map(|i| self.ratings[i * items + i].max(0.0).sqrt()).collect()
    }
}

/// Ratings of the highest likelihood (with a prior: of the highest posterior density), to rounding. `start` is a fit of
/// similar counts.
///
/// # Errors
/// [`Error::Usage`] where Newton's method does not settle: counts of wildly different sizes.
pub fn fit(counts: &Counts, model: Model, start: Option<&Fit>) -> Result<Fit> {
    let problem = Problem::new(counts, model);
    let mut at = problem.start(start);
    let mut last = f64::INFINITY;
    for steps in 1..=MOST_STEPS {
        let slopes = problem.slopes(&at);
        let Some(factor) = Factor::of(&slopes.hessian, at.len())? else { break };
        let mut step = factor.solve(&slopes.gradient)?;
        let longest = step.iter().fold(0.0f64, |most, part| most.max(part.abs()));
        if !longest.is_finite() {
            break;
        }
        let settled = longest <= SETTLED || (longest <= ROUNDING && longest > 0.5 * last);
        last = longest;
        if longest > LONGEST {
            step.iter_mut().for_each(|part| *part *= LONGEST / longest);
        }
        let share = if longest <= SAFE { Some(1.0) } else { problem.share(&at, &step, &slopes) };
        let Some(share) = share else { break };
        at.iter_mut().zip(&step).for_each(|(at, part)| *at -= share * part);
        if settled {
            return Ok(problem.finish(at, steps));
        }
    }
    let message = "the fit does not settle: some counts are too small beside others for the arithmetic";
    Err(Error::usage(message, "give weights of a size with each other, or add --prior 1"))
}

/// The covariance of a fit's ratings from the Hessian of these counts.
///
/// # Errors
/// [`Error::Usage`] where rounding leaves the Hessian singular.
pub fn covariance(counts: &Counts, model: Model, fit: &Fit) -> Result<Covariance> {
    let problem = Problem::new(counts, model);
    let at = problem.start(Some(fit));
    let (items, side) = (counts.items, at.len());
    let Some(factor) = Factor::of(&problem.slopes(&at).hessian, side)? else {
        let message = "the Hessian is singular to rounding, so that there are no intervals";
        return Err(Error::usage(message, "add --prior 1, or more comparisons of the outer items"));
    };
    let inverse = factor.inverse()?;
    let part = |i: usize| &inverse[i * side..i * side + items];
    // C X C with C = I - 1/K: means of rows (and, by symmetry, of columns) off, the mean of all back on.
    let means: Vec<f64> = (0..items).map(|i| part(i).iter().sum::<f64>() / items as f64).collect();
    let mean = means.iter().sum::<f64>() / items as f64;
    let centred = |i: usize| part(i).iter().zip(&means).map(|(v, column)| v - means[i] - column + mean).collect();
    let ratings: Vec<Vec<f64>> = (0..items).map(centred).collect();
    let log_nu = (side > items).then(|| inverse[items * side + items]);
    Ok(Covariance { ratings: ratings.concat(), log_nu })
}

/// What is minimised: minus log-likelihood plus minus log prior, over the strengths and, last, log nu.
struct Problem<'a> {
    counts: &'a Counts,
    prior: Option<Prior>,
    /// Whether there is a nu: in Davidson's model, as soon as one tie came up.
    nu: bool,
}

/// Derivatives at a place; `hessian [n, n]`.
struct Slopes {
    value: f64,
    gradient: Vec<f64>,
    hessian: Vec<f64>,
}

impl<'a> Problem<'a> {
    fn new(counts: &'a Counts, model: Model) -> Self {
        let nu = model.ties == Ties::Davidson && counts.pairs.iter().any(|pair| pair.ties > 0.0);
        Self { counts, prior: model.prior, nu }
    }

    fn start(&self, from: Option<&Fit>) -> Vec<f64> {
        let mut at = from.map_or_else(|| vec![0.0; self.counts.items], |fit| fit.strengths.clone());
        if self.nu {
            let (all, ties) = self.counts.totals();
            // The nu of items that are all alike.
            let alike = || (2.0 * ties / (all - ties)).clamp(1e-3, 1e3).ln();
            at.push(from.and_then(|fit| fit.log_nu).unwrap_or_else(alike));
        }
        at
    }

    fn term(&self, pair: &Pair, at: &[f64]) -> Term {
        let d = at[pair.first] - at[pair.second];
        if self.nu { model::davidson(pair, d, at[self.counts.items]) } else { model::bradley_terry(pair, d) }
    }

    fn comparisons(&self, at: &[f64]) -> f64 {
        self.counts.pairs.iter().map(|pair| self.term(pair, at).value).sum()
    }

    fn value(&self, at: &[f64]) -> f64 {
        let prior = |prior: Prior| at[..self.counts.items].iter().map(|r| prior.penalty(*r)[0]).sum::<f64>();
        self.comparisons(at) + self.prior.map_or(0.0, prior)
    }

    fn slopes(&self, at: &[f64]) -> Slopes {
        let (items, n) = (self.counts.items, at.len());
        let (mut value, mut gradient, mut hessian) = (0.0, vec![0.0; n], vec![0.0; n * n]);
        for pair in &self.counts.pairs {
            let (i, j, term) = (pair.first, pair.second, self.term(pair, at));
            value += term.value;
            gradient[i] += term.d;
            gradient[j] -= term.d;
            hessian[i * n + i] += term.dd;
            hessian[j * n + j] += term.dd;
            hessian[i * n + j] -= term.dd;
            hessian[j * n + i] -= term.dd;
            if self.nu {
                gradient[items] += term.t;
                for (item, slope) in [(i, term.dt), (j, -term.dt)] {
                    hessian[item * n + items] += slope;
                    hessian[items * n + item] += slope;
                }
                hessian[items * n + items] += term.tt;
            }
        }
        match self.prior {
            Some(prior) => {
                for item in 0..items {
                    let [own, slope, bend] = prior.penalty(at[item]);
                    value += own;
                    gradient[item] += slope;
                    hessian[item * n + item] += bend;
                }
            }
            None => self.anchor(&mut hessian, n),
        }
        Slopes { value, gradient, hessian }
    }

    /// Without a prior only differences of ratings matter and the Hessian knows nothing of their mean. A multiple of the
    /// all-ones matrix holds the mean still and changes no other direction.
    fn anchor(&self, hessian: &mut [f64], n: usize) {
        let items = self.counts.items;
        let size = (0..items).map(|i| hessian[i * n + i]).sum::<f64>() / (items * items) as f64;
        for row in hessian.chunks_mut(n).take(items) {
            row[..items].iter_mut().for_each(|value| *value += size);
        }
    }

    /// How much of a step to take: half, and half again, until the value falls as the slope promises.
    fn share(&self, at: &[f64], step: &[f64], slopes: &Slopes) -> Option<f64> {
        let slope: f64 = slopes.gradient.iter().zip(step).map(|(g, s)| g * s).sum();
        let lower = |share: &f64| {
            let tried: Vec<f64> = at.iter().zip(step).map(|(at, part)| at - share * part).collect();
            self.value(&tried) <= slopes.value - 1e-4 * share * slope
        };
        (0..40).map(|halves| 0.5f64.powi(halves)).find(lower)
    }

    fn finish(&self, at: Vec<f64>, steps: usize) -> Fit {
        let log_likelihood = -self.comparisons(&at);
        let mut strengths = at;
        let log_nu = if self.nu { strengths.pop() } else { None };
        Fit { strengths, log_nu, log_likelihood, steps }
    }
}
