//! Axes: from values to places in the picture, ticks at round numbers, and numbers as readers like them.

/// How an axis spreads its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    Even,
    /// By the square root: room for small values beside large ones; only for values from zero up.
    Root,
    /// By the logarithm; only for values above zero.
    Log,
}

/// One axis. `from` and `to` are places in the picture of `low` and `high`; they may run backwards, as y does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    pub low: f64,
    pub high: f64,
    pub from: f64,
    pub to: f64,
    pub spread: Spread,
}

impl Axis {
    /// The place of a value; values outside the axis are held at its ends.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let bend = |v: f64| match self.spread {
            Spread::Even => v,
            Spread::Root => v.max(0.0).sqrt(),
            Spread::Log => v.ln(),
        };
        let (low, high) = (bend(self.low), bend(self.high));
        let share = (bend(value.clamp(self.low, self.high)) - low) / (high - low);
        self.from + share * (self.to - self.from)
    }

    /// Round values to mark, about `wanted` of them and never closer than `apart` units of the picture.
    pub(crate) fn ticks(&self, wanted: usize, apart: f64) -> Vec<f64> {
        let all = match self.spread {
            Spread::Even => even_ticks(self.low, self.high, wanted),
            Spread::Root => root_ticks(self.high, wanted),
            Spread::Log => log_ticks(self.low, self.high),
        };
        let mut kept: Vec<f64> = Vec::new();
        for tick in all {
            if kept.last().is_none_or(|last| (self.place(tick) - self.place(*last)).abs() >= apart) {
                kept.push(tick);
            }
        }
        kept
    }
}

/// A range with a margin on both sides, never empty.
pub(crate) fn padded(low: f64, high: f64, margin: f64) -> (f64, f64) {
    let span = high - low;
    // Values that are equal but for rounding must not be blown up into a picture of rounding errors.
    if span <= 1e-9 * high.abs().max(low.abs()).max(1e-6) {
        let half = (high.abs() * 0.1).max(0.5);
        return (low - half, high + half);
    }
    (low - span * margin, high + span * margin)
}

fn even_ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let rough = (high - low) / wanted.max(1) as f64;
    let step = nice(rough);
    if !(step.is_finite() && step > 0.0) {
        return vec![low];
    }
    let first = (low / step - 1e-9).ceil() as i64;
    // Counting in whole steps keeps 0 exactly 0 and 0.3 free of a tail of digits.
    (0..=(4 * wanted as i64))
        .map(|i| (first + i) as f64 * step)
        .take_while(|v| *v <= high + step * 1e-9)
        .map(|v| if v == 0.0 { 0.0 } else { v })
        .collect()
}

/// Ticks evenly spaced to the eye on a square-root axis, each at a round number.
fn root_ticks(high: f64, wanted: usize) -> Vec<f64> {
    let mut ticks = vec![0.0];
    for i in 1..=wanted {
        let share = i as f64 / wanted as f64;
        let value = rounded_down(high * share * share);
        if ticks.last().is_some_and(|last| value > *last) {
            ticks.push(value);
        }
    }
    ticks
}

/// Powers of ten within a range, with 2 and 5 times those where there are few of them.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let digits: &[f64] = if last - first <= 4 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let times = |power: i32| digits.iter().map(move |digit| digit * 10f64.powi(power));
    (first..=last).flat_map(times).filter(|v| (low..=high).contains(v)).collect()
}

/// The largest number of one round digit that is no larger than a value.
fn rounded_down(value: f64) -> f64 {
    let power = value.log10().floor();
    // Dividing by a whole power is exact where multiplying by 0.1 is not.
    let times = |digit: f64| if power < 0.0 { digit / 10f64.powf(-power) } else { digit * 10f64.powf(power) };
    [8.0, 6.0, 5.0, 4.0, 3.0, 2.0].map(times).into_iter().find(|v| *v <= value).unwrap_or(times(1.0))
}

/// The smallest of 1, 2, 2.5 and 5 times a power of ten that is no smaller than a step.
fn nice(rough: f64) -> f64 {
    let unit = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].iter().map(|m| m * unit).find(|s| *s >= rough * (1.0 - 1e-9)).unwrap_or(rough)
}

/// Tick labels: on an even axis all with as many decimals as the closest two need, on a square-root axis each with
/// its own.
pub(crate) fn tick_labels(ticks: &[f64], spread: Spread) -> Vec<String> {
    if spread != Spread::Even && ticks.len() > 1 {
        return ticks.iter().flat_map(|t| tick_labels(&[*t], spread)).collect();
    }
    let largest = ticks.iter().fold(0.0f64, |m, t| m.max(t.abs()));
    if largest >= 1e6 || (largest > 0.0 && largest < 1e-3) {
        return ticks.iter().map(|t| if *t == 0.0 { "0".into() } else { format!("{t:.1e}") }).collect();
    }
    let decimals = (0..6)
        .find(|d| {
            let scale = 10f64.powi(*d);
            ticks.iter().all(|t| (t * scale - (t * scale).round()).abs() < 1e-6 * scale.max(1.0))
        })
        .unwrap_or(6) as usize;
    ticks.iter().map(|t| minus(&format!("{t:.decimals$}"))).collect()
}

/// A real minus sign, and none before zero.
pub(crate) fn minus(number: &str) -> String {
    match number.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.')) => rest.to_string(),
        Some(rest) => format!("−{rest}"),
        None => number.to_string(),
    }
}

/// A number with a given count of decimals, or a dash where it is not finite.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    if value.is_finite() { minus(&format!("{value:.decimals$}")) } else { "–".to_string() }
}

/// A value and its error with the decimals that the error deserves: two digits of the error, one to four decimals.
pub(crate) fn with_error(value: f64, se: f64) -> String {
    if !value.is_finite() {
        return "–".to_string();
    }
    if !(se.is_finite() && se >= 0.0) {
        return format!("{} ± unknown", fixed(value, 2));
    }
    let decimals = if se > 0.0 { (1.0 - se.log10().floor()).clamp(1.0, 4.0) as usize } else { 2 };
    format!("{} ± {}", fixed(value, decimals), fixed(se, decimals))
}
