//! The two models of a comparison and the priors: their log-likelihoods with derivatives. Owns the formulas; knows
//! counts of pairs and nothing of items, files or matrices.
use super::counts::Pair;
use crate::loss::bradley_terry::probability;
use clap::ValueEnum;
use std::str::FromStr;

/// What a tie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ties {
    /// Half a win for each: the Bradley-Terry likelihood with mu = 0.5.
    BradleyTerry,
    /// An outcome of its own: Davidson's model, with one more parameter nu for all pairs.
    Davidson,
}

impl Ties {
    /// The model's name in a sentence.
    pub fn title(self) -> &'static str {
        match self {
            Ties::BradleyTerry => "Bradley-Terry",
            Ties::Davidson => "Davidson",
        }
    }

    /// Its name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Ties::BradleyTerry => "bradley-terry",
            Ties::Davidson => "davidson",
        }
    }
}

/// What is believed of every rating before the comparisons, independently of each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Prior {
    /// So many comparisons more, half of them won, with one item of rating 0: density `(sigma(r) sigma(-r))^(n/2)`.
    Pseudo(f64),
    /// Normal, with mean 0 and this standard deviation in natural-log units.
    Gaussian(f64),
}

impl Prior {
    /// Minus log density of a rating (without its constant), its first and its second derivative.
    pub(super) fn penalty(self, rating: f64) -> [f64; 3] {
        match self {
            Prior::Pseudo(n) => {
                let (won, lost) = (probability(rating), probability(-rating));
                [0.5 * n * (softplus(rating) + softplus(-rating)), 0.5 * n * (won - lost), n * won * lost]
            }
            Prior::Gaussian(deviation) => {
                let precision = deviation.powi(-2);
                [0.5 * precision * rating * rating, precision * rating, precision]
            }
        }
    }

    /// As a sentence has it.
    pub fn words(self) -> String {
        match self {
            Prior::Pseudo(1.0) => "prior: 1 comparison of each item, half won, with one of rating 0".to_owned(),
            Prior::Pseudo(n) => format!("prior: {n} comparisons of each item, half won, with one of rating 0"),
            Prior::Gaussian(deviation) => format!("prior: ratings normal about 0 with standard deviation {deviation}"),
        }
    }
}

impl FromStr for Prior {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (make, number): (fn(f64) -> Prior, &str) = match text.split_once(':') {
            Some(("gaussian", deviation)) => (Prior::Gaussian, deviation),
            Some(("pseudo", count)) => (Prior::Pseudo, count),
            _ => (Prior::Pseudo, text),
        };
        match number.parse::<f64>() {
            Ok(value) if (1e-6..=1e6).contains(&value) => Ok(make(value)),
            _ => Err(
                "give a number of pseudo-comparisons such as 1, or gaussian:SD such as gaussian:2, from 1e-6 to 1e6; \
                      files stand before --prior or after its value"
                    .to_owned(),
            ),
        }
    }
}

/// Minus log-likelihood of a pair's comparisons and its derivatives by the difference of ratings, d, and by log nu, t.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Term {
    pub value: f64,
    pub d: f64,
    pub dd: f64,
    pub t: f64,
    pub dt: f64,
    pub tt: f64,
}

/// `-[w log sigma(d) + l log sigma(-d)]`, ties being half a win and half a loss (Bradley and Terry 1952).
pub(super) fn bradley_terry(pair: &Pair, d: f64) -> Term {
    let (won, lost) = (pair.wins + 0.5 * pair.ties, pair.losses + 0.5 * pair.ties);
    let (p, q) = (probability(d), probability(-d));
    Term {
        value: won * softplus(-d) + lost * softplus(d),
        // (won + lost) p - won without the difference of two large numbers.
        d: lost * p - won * q,
        dd: (won + lost) * p * q,
        ..Term::default()
    }
}

/// With h = d/2 and Z = e^h + e^-h + nu: a win has probability e^h / Z, a loss e^-h / Z, a tie nu / Z (Davidson 1970, eq.
/// 2.4, in log strengths).
pub(super) fn davidson(pair: &Pair, d: f64, log_nu: f64) -> Term {
    let (p, q, tie, log_z) = outcomes(d, log_nu);
    let (n, h) = (pair.total(), 0.5 * d);
    Term {
        value: n * log_z - (pair.wins - pair.losses) * h - pair.ties * log_nu,
        // n (p - q) - (wins - losses), its variance and n tie - ties, without differences of large numbers: these are exact
        // however close to 0 or 1 a probability is.
        d: 0.5 * (pair.losses * (2.0 * p + tie) - pair.wins * (2.0 * q + tie) + pair.ties * (p - q)),
        dd: 0.25 * n * (4.0 * p * q + tie * (p + q)),
        t: (pair.wins + pair.losses) * tie - pair.ties * (p + q),
        dt: -0.5 * n * (p - q) * tie,
        tt: n * tie * (p + q),
    }
}

/// Davidson's probabilities of win, loss and tie, and log Z.
pub(super) fn outcomes(d: f64, log_nu: f64) -> (f64, f64, f64, f64) {
    let h = 0.5 * d;
    let most = h.abs().max(log_nu);
    let (win, loss, tie) = ((h - most).exp(), (-h - most).exp(), (log_nu - most).exp());
    let z = win + loss + tie;
    (win / z, loss / z, tie / z, most + z.ln())
}

/// log(1 + e^x), exact to rounding on both sides.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
