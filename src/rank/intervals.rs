//! Confidence intervals: normal ones from standard errors, and percentiles of refits on comparisons that were drawn
//! again. Knows fits and counts; no names, no files.
use super::counts::Grouped;
use super::exists;
use super::fit::{Fit, Model, fit};
use crate::error::{Error, Result};
use crate::seed;
use rand_chacha::rand_core::Rng;
use statrs::distribution::{ContinuousCDF, Normal};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How many standard errors an interval of this confidence (between 0 and 1) reaches to either side.
pub fn deviations(confidence: f64) -> f64 {
    Normal::standard().inverse_cdf(0.5 + 0.5 * confidence)
}

/// Refits of resampled comparisons.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// How many samples were drawn.
    pub samples: usize,
    /// How many of them have no finite ratings: in them an item went unbeaten, or the like.
    pub unbounded: usize,
    /// The centred ratings of each item in the others, rising.
    ratings: Vec<Vec<f64>>,
    /// nu in those, rising; empty without one. 0 where no tie was drawn.
    nu: Vec<f64>,
}

/// The fewest samples whose percentiles reach as far as the interval does.
pub fn fewest_samples(confidence: f64) -> usize {
    (2.0 / (1.0 - confidence) - 1.0 - 1e-9).ceil().max(1.0) as usize
}

impl Bootstrap {
    /// Draws as many comparisons as there are, with replacement, `samples` times, and fits each anew. Which are drawn
    /// depends on `seed` alone. A row of weight w is drawn as one comparison.
    ///
    /// # Errors
    /// Those of a fit.
    pub fn draw(grouped: &Grouped<'_>, model: Model, start: &Fit, samples: usize, seed: u64) -> Result<Self> {
        let (next, done, begun) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
        let told = AtomicUsize::new(0);
        let work = || -> Result<Vec<Fit>> {
            let mut fits = Vec::new();
            loop {
                let sample = next.fetch_add(1, Ordering::Relaxed);
                if sample >= samples {
                    return Ok(fits);
                }
                fits.extend(refit(grouped, model, start, seed, sample as u64)?);
                let (done, seconds) = (done.fetch_add(1, Ordering::Relaxed) + 1, begun.elapsed().as_secs() as usize);
                if seconds / 10 > told.fetch_max(seconds / 10, Ordering::Relaxed) {
                    tracing::info!("bootstrap: {done} of {samples} samples after {seconds} s");
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(samples);
        let found: Vec<Result<Vec<Fit>>> = std::thread::scope(|scope| {
            let started: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            started.into_iter().map(|thread| thread.join().expect("a thread's panic is a fault of its own")).collect()
        });
        let fits: Vec<Fit> = found.into_iter().collect::<Result<Vec<_>>>()?.concat();
        Ok(Self::of(&fits, samples, start))
    }

    fn of(fits: &[Fit], samples: usize, start: &Fit) -> Self {
        let mut ratings = vec![Vec::with_capacity(fits.len()); start.ratings().len()];
        for fit in fits {
            ratings.iter_mut().zip(fit.ratings()).for_each(|(all, rating)| all.push(rating));
        }
        let mut nu: Vec<f64> = match start.log_nu {
            Some(_) => fits.iter().map(|fit| fit.log_nu.map_or(0.0, f64::exp)).collect(),
            None => Vec::new(),
        };
        ratings.iter_mut().chain([&mut nu]).for_each(|all| all.sort_by(f64::total_cmp));
        Self { samples, unbounded: samples - fits.len(), ratings, nu }
    }

    /// The interval of each item's rating: the k-th value from below and from above of `samples + 1` places, k being
    /// `(samples + 1) (1 - confidence) / 2` rounded down. Samples without finite ratings count as lower than all and as
    /// higher than all. None: there are too many of these for that.
    pub fn intervals(&self, confidence: f64) -> Option<Vec<(f64, f64)>> {
        self.ratings.iter().map(|values| self.percentiles(values, confidence)).collect()
    }

    /// The same of nu; None also where there is no nu.
    pub fn nu(&self, confidence: f64) -> Option<(f64, f64)> {
        self.percentiles(&self.nu, confidence)
    }

    fn percentiles(&self, values: &[f64], confidence: f64) -> Option<(f64, f64)> {
        let place = ((self.samples + 1) as f64 * (0.5 - 0.5 * confidence) + 1e-9).floor() as usize;
        let inside = place.checked_sub(self.unbounded + 1)?;
        Some((*values.get(inside)?, *values.get(values.len().checked_sub(inside + 1)?)?))
    }
}

/// The fit of one sample; None where it has no maximum.
fn refit(grouped: &Grouped<'_>, model: Model, start: &Fit, seed: u64, sample: u64) -> Result<Option<Fit>> {
    let mut rng = seed::rng(seed, "bootstrap", &[sample]);
    // The high half of a 128-bit product, as the order of training rows is drawn.
    let draw = |below: usize| ((u128::from(rng.next_u64()) * below as u128) >> 64) as usize;
    let counts = grouped.counts(&grouped.redrawn(draw));
    if exists::missing(&counts, model).is_some() {
        return Ok(None);
    }
    fit(&counts, model, Some(start)).map(Some)
}

/// Refuses fewer samples than an interval needs.
pub fn refuse_few(samples: usize, confidence: f64) -> Result<()> {
    let fewest = fewest_samples(confidence);
    if samples >= fewest {
        return Ok(());
    }
    let message = format!("--bootstrap {samples} is too few for intervals of {}%", 100.0 * confidence);
    Err(Error::usage(message, format!("draw at least {fewest}; 1000 is usual")))
}
