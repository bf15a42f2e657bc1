//! A power law through points: y = c x^k by least squares on logarithms, with Student's confidence interval of k.
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// The fitted law.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PowerLaw {
    /// k.
    pub exponent: f64,
    /// The lower end of k's 95% interval.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
    /// c.
    pub factor: f64,
}

/// Fits `points` (x, y), all above 0; none with fewer than three, or where all have one x.
pub fn power_law(points: &[(f64, f64)]) -> Option<PowerLaw> {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let freedom = count - 2.0;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = logs.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    if freedom < 1.0 || spread <= 0.0 || logs.iter().any(|(x, y)| !(x.is_finite() && y.is_finite())) {
        return None;
    }
    let exponent = logs.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f64>() / spread;
    let intercept = y_mean - exponent * x_mean;
    let rest: f64 = logs.iter().map(|(x, y)| (y - intercept - exponent * x).powi(2)).sum();
    let error = (rest / freedom / spread).sqrt();
    let half = StudentsT::new(0.0, 1.0, freedom).ok()?.inverse_cdf(0.975) * error;
    Some(PowerLaw { exponent, lower: exponent - half, upper: exponent + half, factor: intercept.exp() })
}
