//! Statistics behind the sentences: settings against SFT, the methods at equal KL, the order of KLs, proxy and gold.
use super::marks::{Estimate, Mark};

/// How many settings of a method differ from SFT in gold reward by more than two standard errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AgainstSft {
    pub settings: usize,
    pub above: usize,
    pub below: usize,
    /// Settings whose difference has no known error; they count as neither.
    pub unknown: usize,
}

/// Counts the settings of one method against SFT.
pub(crate) fn against_sft(marks: &[&Mark], sft: &Mark) -> AgainstSft {
    let gaps: Vec<Estimate> = marks.iter().map(|m| m.gold.minus(sft.gold)).collect();
    AgainstSft {
        settings: gaps.len(),
        above: gaps.iter().filter(|g| g.above()).count(),
        below: gaps.iter().filter(|g| g.below()).count(),
        unknown: gaps.iter().filter(|g| g.se.is_nan()).count(),
    }
}

/// Two methods at one KL: the gold reward of the first less that of the second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AtKl {
    pub kl: f64,
    pub gap: Estimate,
}

/// The two methods compared wherever one of them was measured inside the KL range of the other; empty where the ranges
/// do not overlap. Both lists are sorted by KL.
pub(crate) fn at_equal_kl(first: &[&Mark], second: &[&Mark]) -> Vec<AtKl> {
    let mut kls: Vec<f64> = first.iter().chain(second).map(|m| m.kl.mean).collect();
    kls.sort_by(f64::total_cmp);
    kls.dedup();
    let both = |kl: f64| Some((gold_at(first, kl)?, gold_at(second, kl)?));
    kls.into_iter().filter_map(|kl| both(kl).map(|(a, b)| AtKl { kl, gap: a.minus(b) })).collect()
}

/// Gold reward at a KL, linearly between the neighbouring marks; none outside their range.
fn gold_at(marks: &[&Mark], kl: f64) -> Option<Estimate> {
    let here: Vec<&&Mark> = marks.iter().filter(|m| m.kl.mean == kl).collect();
    if !here.is_empty() {
        let n = here.len() as f64;
        let squares: f64 = here.iter().map(|m| m.gold.se.powi(2)).sum();
        return Some(Estimate::new(here.iter().map(|m| m.gold.mean).sum::<f64>() / n, squares.sqrt() / n));
    }
    let after = marks.iter().position(|m| m.kl.mean > kl).filter(|i| *i > 0)?;
    let (low, high) = (marks[after - 1], marks[after]);
    let share = (kl - low.kl.mean) / (high.kl.mean - low.kl.mean);
    let mean = low.gold.mean + share * (high.gold.mean - low.gold.mean);
    Some(Estimate::new(mean, (low.gold.se * (1.0 - share)).hypot(high.gold.se * share)))
}

/// Whether KL grows as the knob falls.
#[derive(Debug, Clone)]
pub(crate) enum Order<'a> {
    /// It does: from the setting with the largest value to the one with the smallest.
    Grows(&'a Mark, &'a Mark),
    /// It does not between these neighbours, though it may elsewhere.
    Falls(Vec<(&'a Mark, &'a Mark)>),
}

/// The order of KLs over the settings of one method; none where the settings do not differ by their value alone.
pub(crate) fn order<'a>(marks: &[&'a Mark]) -> Option<Order<'a>> {
    let mut sorted: Vec<&Mark> = Vec::new();
    for mark in marks.iter().filter(|m| m.value.is_some()) {
        match sorted.iter_mut().find(|m| m.value == mark.value) {
            // One run measured at several steps: its end counts.
            Some(seen) if seen.step != mark.step => {
                if mark.step > seen.step {
                    *seen = mark;
                }
            }
            Some(_) => return None,
            None => sorted.push(mark),
        }
    }
    sorted.sort_by(|a, b| b.value.partial_cmp(&a.value).unwrap_or(std::cmp::Ordering::Equal));
    let falls: Vec<_> = sorted.windows(2).map(|w| (w[0], w[1])).filter(|(a, b)| b.kl.mean <= a.kl.mean).collect();
    match (sorted.first(), sorted.last()) {
        (Some(first), Some(last)) if sorted.len() > 1 && falls.is_empty() => Some(Order::Grows(first, last)),
        _ if falls.is_empty() => None,
        _ => Some(Order::Falls(falls)),
    }
}

/// How much more the proxy reward gained over SFT than the gold reward did.
pub(crate) fn overrun(mark: &Mark, sft: &Mark) -> Estimate {
    mark.proxy.minus(sft.proxy).minus(mark.gold.minus(sft.gold))
}

/// How the overrun changes from one mark to another; SFT cancels, so its error does not count.
pub(crate) fn overrun_change(from: &Mark, to: &Mark) -> Estimate {
    to.proxy.minus(to.gold).minus(from.proxy.minus(from.gold))
}

/// The mark with the highest gold reward.
pub(crate) fn best<'a>(marks: &[&'a Mark]) -> Option<&'a Mark> {
    marks.iter().copied().max_by(|a, b| a.gold.mean.total_cmp(&b.gold.mean))
}
