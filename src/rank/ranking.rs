//! The result: items best first with intervals, probabilities, and how well the model fits. Joins counts, fit and
//! intervals; writes nothing.
use super::counts::{Counts, Grouped, Tally};
use super::fit::{Covariance, Fit, Model, covariance, fit};
use super::intervals::{Bootstrap, deviations};
use super::model::{Ties, outcomes};
use super::read::Comparisons;
use crate::error::{Error, Result};
use crate::loss::bradley_terry::probability;
use statrs::distribution::{ChiSquared, ContinuousCDF};

/// A number with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Lower end of its interval.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// One item.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// Its name.
    pub item: String,
    /// Its natural-log strength; the mean of all items is 0.
    pub rating: Estimate,
    /// Standard error of the rating, from the Hessian.
    pub error: f64,
    /// What it won, lost and tied.
    pub tally: Tally,
}

/// Likelihood ratio against the model in which every pair has probabilities of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goodness {
    /// Twice the difference of log-likelihoods, G squared.
    pub deviance: f64,
    /// Its degrees of freedom.
    pub freedom: f64,
    /// The probability of a G squared as large where the model holds.
    pub p: f64,
}

/// How to make intervals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intervals {
    /// Between 0 and 1.
    pub confidence: f64,
    /// Samples of a bootstrap and its seed; None: from the Hessian.
    pub bootstrap: Option<(usize, u64)>,
}

/// Everything that is known in the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// Best first; of equal ratings by name.
    pub items: Vec<Ranked>,
    /// What was fitted.
    pub model: Model,
    /// Davidson's nu (0 where no tie came up).
    pub nu: Option<Estimate>,
    /// Rows.
    pub comparisons: usize,
    /// Judged pairs left out because both answers were one model's.
    pub same: usize,
    /// Sum of their weights.
    pub weight: f64,
    /// The part of it that are ties.
    pub ties: f64,
    /// Pairs of items that were compared.
    pub pairs: usize,
    /// In nats, without the prior.
    pub log_likelihood: f64,
    /// The same if all items were alike.
    pub log_likelihood_alike: f64,
    /// Where it can be told: see [`goodness`].
    pub goodness: Option<Goodness>,
    /// How intervals were made.
    pub intervals: Intervals,
    /// Samples of the bootstrap without finite ratings.
    pub unbounded: usize,
    /// Newton steps of the fit.
    pub steps: usize,
}

impl Ranking {
    /// Fits the counts of comparisons, which must have a maximum ([`super::exists::missing`]).
    ///
    /// # Errors
    /// Those of the fit; a bootstrap too many of whose samples have no finite ratings.
    pub fn new(grouped: &Grouped<'_>, counts: &Counts, model: Model, intervals: Intervals) -> Result<Self> {
        let comparisons = grouped.comparisons();
        let found = fit(counts, model, None)?;
        let errors = covariance(counts, model, &found)?;
        let drawn =
            intervals.bootstrap.map(|(n, seed)| Bootstrap::draw(grouped, model, &found, n, seed)).transpose()?;
        let ends = match &drawn {
            Some(drawn) => drawn.intervals(intervals.confidence).ok_or_else(|| too_many_unbounded(drawn))?,
            None => normal(&found.ratings(), &errors.errors(counts.items), intervals.confidence),
        };
        let (weight, ties) = counts.totals();
        Ok(Self {
            items: ranked(comparisons.items(), counts, &found, &errors, &ends),
            model,
            nu: nu(model, &found, &errors, drawn.as_ref(), intervals.confidence),
            comparisons: comparisons.rows().len(),
            same: comparisons.same(),
            weight,
            ties,
            pairs: counts.pairs.len(),
            log_likelihood: found.log_likelihood,
            log_likelihood_alike: alike(model, weight, ties),
            goodness: goodness(comparisons, counts, model, &found),
            intervals,
            unbounded: drawn.map_or(0, |drawn| drawn.unbounded),
            steps: found.steps,
        })
    }

    /// The probabilities that the item at place `i` beats the one at place `j`, and that they tie (0 in Bradley-Terry,
    /// where a tie is half a win). Of an item against its like where `i` is `j`.
    pub fn probability(&self, i: usize, j: usize) -> (f64, f64) {
        let d = self.items[i].rating.value - self.items[j].rating.value;
        match self.nu.map(|nu| nu.value) {
            Some(nu) if nu > 0.0 => {
                let (win, _, tie, _) = outcomes(d, nu.ln());
                (win, tie)
            }
            _ => (probability(d), 0.0),
        }
    }
}

/// `rating +- z error` for each.
fn normal(ratings: &[f64], errors: &[f64], confidence: f64) -> Vec<(f64, f64)> {
    let z = deviations(confidence);
    ratings.iter().zip(errors).map(|(rating, error)| (rating - z * error, rating + z * error)).collect()
}

fn ranked(names: &[String], counts: &Counts, fit: &Fit, errors: &Covariance, ends: &[(f64, f64)]) -> Vec<Ranked> {
    let (ratings, errors, tallies) = (fit.ratings(), errors.errors(counts.items), counts.tallies());
    let one = |i: usize| Ranked {
        item: names[i].clone(),
        rating: Estimate { value: ratings[i], lower: ends[i].0, upper: ends[i].1 },
        error: errors[i],
        tally: tallies[i],
    };
    let mut items: Vec<Ranked> = (0..counts.items).map(one).collect();
    items.sort_by(|a, b| b.rating.value.total_cmp(&a.rating.value).then_with(|| a.item.cmp(&b.item)));
    items
}

fn nu(model: Model, fit: &Fit, errors: &Covariance, drawn: Option<&Bootstrap>, confidence: f64) -> Option<Estimate> {
    if model.ties == Ties::BradleyTerry {
        return None;
    }
    let (Some(log_nu), Some(variance)) = (fit.log_nu, errors.log_nu) else {
        return Some(Estimate { value: 0.0, lower: 0.0, upper: 0.0 });
    };
    let reach = deviations(confidence) * variance.max(0.0).sqrt();
    let normal = ((log_nu - reach).exp(), (log_nu + reach).exp());
    let (lower, upper) = drawn.and_then(|drawn| drawn.nu(confidence)).unwrap_or(normal);
    Some(Estimate { value: log_nu.exp(), lower, upper })
}

fn too_many_unbounded(drawn: &Bootstrap) -> Error {
    let message = format!(
        "in {} of {} bootstrap samples an item went unbeaten or without a win: there the ratings are infinite, and so \
         are the percentiles",
        drawn.unbounded, drawn.samples
    );
    Error::usage(message, "add --prior 1, or leave --bootstrap out")
}

/// Log-likelihood of the same comparisons where all ratings are equal.
fn alike(model: Model, weight: f64, ties: f64) -> f64 {
    let part = |count: f64, probability: f64| if count > 0.0 { count * probability.ln() } else { 0.0 };
    match model.ties {
        Ties::BradleyTerry => part(weight, 0.5),
        Ties::Davidson => part(ties, ties / weight) + part(weight - ties, 0.5 * (weight - ties) / weight),
    }
}

/// Whether one rating an item is enough. Told where its distribution is known: whole results and weights, no prior, more
/// pairs than ratings, and enough of each expected result (Cochran's rule: 5 on average, none below 1).
pub fn goodness(comparisons: &Comparisons, counts: &Counts, model: Model, fit: &Fit) -> Option<Goodness> {
    let whole = |preference: f64| [0.0, 1.0].contains(&preference) || model.ties == Ties::Davidson;
    let known = comparisons.cells().iter().all(|cell| whole(cell.preference) && cell.weight.fract() == 0.0);
    let (results, fitted) = match fit.log_nu {
        Some(_) => (2 * counts.pairs.len(), counts.items),
        None => (counts.pairs.len(), counts.items - 1),
    };
    if !known || model.prior.is_some() || results <= fitted {
        return None;
    }
    let (ratings, mut deviance, mut expected) = (fit.ratings(), 0.0, Vec::new());
    for pair in &counts.pairs {
        let d = ratings[pair.first] - ratings[pair.second];
        let seen = [pair.wins, pair.losses, pair.ties];
        let share = match fit.log_nu {
            Some(log_nu) => outcomes(d, log_nu),
            None => (probability(d), probability(-d), 0.0, 0.0),
        };
        for (seen, share) in seen.into_iter().zip([share.0, share.1, share.2]).filter(|(_, share)| *share > 0.0) {
            let wanted = pair.total() * share;
            expected.push(wanted);
            deviance += if seen > 0.0 { 2.0 * seen * (seen / wanted).ln() } else { 0.0 };
        }
    }
    let mean = expected.iter().sum::<f64>() / expected.len() as f64;
    if mean < 5.0 || expected.iter().any(|wanted| *wanted < 1.0) {
        return None;
    }
    let freedom = (results - fitted) as f64;
    let p = ChiSquared::new(freedom).ok()?.sf(deviance.max(0.0));
    Some(Goodness { deviance, freedom, p })
}
