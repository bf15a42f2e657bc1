//! From measured points to the marks of a picture: seeds of one setting become a mean with a standard error.
use super::data::Point;
use super::style;
use std::collections::BTreeSet;

/// A KL this far below zero is rounding and counts as zero; further below it is a mistake.
const KL_ROUNDING: f64 = -1e-3;

/// A mean and its standard error; the error is NaN where none is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    pub mean: f64,
    pub se: f64,
}

impl Estimate {
    pub(crate) fn new(mean: f64, se: f64) -> Self {
        Estimate { mean, se: if se.is_finite() && se >= 0.0 { se } else { f64::NAN } }
    }

    /// The difference of two estimates, taken as independent.
    pub(crate) fn minus(self, other: Estimate) -> Estimate {
        Estimate { mean: self.mean - other.mean, se: self.se.hypot(other.se) }
    }

    /// Above zero by more than two standard errors; never so where no error is known.
    pub(crate) fn above(self) -> bool {
        self.mean > 2.0 * self.se
    }

    /// Below zero by more than two standard errors.
    pub(crate) fn below(self) -> bool {
        -self.mean > 2.0 * self.se
    }
}

/// One setting of one method.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    /// In lower case.
    pub method: String,
    /// The setting as shown, without the method; for SFT, `SFT`.
    pub label: String,
    pub value: Option<f64>,
    pub step: u64,
    pub gold: Estimate,
    /// Its mean is NaN where no proxy reward was measured.
    pub proxy: Estimate,
    pub kl: Estimate,
    /// (KL, gold reward) of each run behind the mean.
    pub runs: Vec<(f64, f64)>,
}

/// All that can be drawn, and what could not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    /// SFT, DPO, PPO, then any other; by KL within a method.
    pub all: Vec<Mark>,
    /// Points left out because their gold reward or KL is no usable number.
    pub left_out: usize,
    /// Points with a missing standard error of gold reward or KL.
    pub no_error: usize,
}

impl Marks {
    /// Sorts the points into marks.
    pub(crate) fn new(points: &[Point]) -> Self {
        let mut marks = Marks::default();
        let mut usable: Vec<Point> = Vec::new();
        for point in points {
            match cleaned(point) {
                Some(point) => usable.push(point),
                None => marks.left_out += 1,
            }
        }
        marks.no_error = usable.iter().filter(|p| !(p.gold_reward_se >= 0.0 && p.kl_se >= 0.0)).count();
        let mut done = BTreeSet::new();
        for point in &usable {
            let key = key(point, &usable);
            if done.insert(key.clone()) {
                let group: Vec<&Point> = usable.iter().filter(|p| self::key(p, &usable) == key).collect();
                marks.all.push(mark(&group, &usable));
            }
        }
        let rank = |m: &Mark| ["sft", "dpo", "ppo"].iter().position(|n| *n == m.method).unwrap_or(3);
        marks.all.sort_by(|a, b| (rank(a), &a.method).cmp(&(rank(b), &b.method)).then(a.kl.mean.total_cmp(&b.kl.mean)));
        marks
    }

    /// The marks of a method, by rising KL.
    pub(crate) fn of(&self, method: &str) -> Vec<&Mark> {
        self.all.iter().filter(|m| m.method == method).collect()
    }

    /// The methods other than SFT that have marks, in order.
    pub(crate) fn methods(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.all.iter().map(|m| m.method.as_str()).filter(|m| *m != "sft").collect();
        names.dedup();
        names
    }

    /// The model that all others started from.
    pub(crate) fn sft(&self) -> Option<&Mark> {
        self.all.iter().find(|m| m.method == "sft")
    }
}

/// A point ready to be counted, or none where its place in the picture is unknown.
fn cleaned(point: &Point) -> Option<Point> {
    let mut point = point.clone();
    point.method = point.method.trim().to_lowercase();
    if point.method == "sft" && !point.kl.is_finite() {
        // The distance of a model from itself needs no measurement.
        (point.kl, point.kl_se) = (0.0, 0.0);
    }
    if !(point.gold_reward.is_finite() && point.kl.is_finite() && point.kl >= KL_ROUNDING) {
        return None;
    }
    point.kl = point.kl.max(0.0);
    // An infinite error is as unknown as a missing one.
    for se in [&mut point.gold_reward_se, &mut point.kl_se] {
        *se = if se.is_finite() { *se } else { f64::NAN };
    }
    Some(point)
}

/// What makes two points seeds of one setting. The step counts only where one run was measured at several.
fn key(point: &Point, all: &[Point]) -> (String, String, u64) {
    if point.method == "sft" {
        return (point.method.clone(), String::new(), 0);
    }
    let step = if measured_at_steps(point, all) { point.step } else { 0 };
    (point.method.clone(), style::setting(&point.method, &point.setting, point.value), step)
}

fn measured_at_steps(point: &Point, all: &[Point]) -> bool {
    let like = |p: &&Point| {
        (&p.method, &p.setting, p.value, p.seed) == (&point.method, &point.setting, point.value, point.seed)
    };
    all.iter().filter(like).any(|p| p.step != point.step)
}

fn mark(group: &[&Point], all: &[Point]) -> Mark {
    let first = group[0];
    let mut label = match first.method.as_str() {
        "sft" => "SFT".to_string(),
        method => style::setting(method, &first.setting, first.value),
    };
    if first.method != "sft" && measured_at_steps(first, all) {
        label = format!("{label} step {}", first.step).trim().to_string();
    }
    if label.is_empty() {
        label = style::name(&first.method);
    }
    let over = |of: fn(&Point) -> (f64, f64)| mean(&group.iter().map(|p| of(p)).collect::<Vec<_>>());
    Mark {
        method: first.method.clone(),
        label,
        value: first.value.filter(|v| v.is_finite()),
        step: first.step,
        gold: over(|p| (p.gold_reward, p.gold_reward_se)),
        proxy: over(|p| (p.proxy_reward, p.proxy_reward_se)),
        kl: over(|p| (p.kl, p.kl_se)),
        runs: group.iter().map(|p| (p.kl, p.gold_reward)).collect(),
    }
}

/// Mean over seeds. Its error is the larger of the spread between the seeds and the mean of their own errors: all seeds
/// are measured on the same prompts, so more seeds do not average the choice of prompts away.
fn mean(values: &[(f64, f64)]) -> Estimate {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| v.0).sum::<f64>() / n;
    let own = values.iter().map(|v| v.1).sum::<f64>() / n;
    if values.len() < 2 {
        return Estimate::new(mean, own);
    }
    let spread = values.iter().map(|v| (v.0 - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Estimate::new(mean, (spread / n).sqrt().max(own))
}
