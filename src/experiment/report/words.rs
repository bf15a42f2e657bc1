//! Says in plain English what the points show, and no more than they show.
use super::compare::{self, AtKl, Order};
use super::data::Point;
use super::marks::{Mark, Marks};
use super::style;
use crate::chart::axis::{fixed, with_error};

/// What the points show: the first sentences say how each method stands against SFT and the two against each other at
/// equal KL, the rest tell where each stands, how KL follows the settings and whether proxy reward outruns gold reward.
pub fn sentences(points: &[Point]) -> Vec<String> {
    let marks = Marks::new(points);
    let mut said = Vec::new();
    if marks.all.is_empty() {
        said.push("No model was measured, so there is nothing to compare.".to_string());
    } else {
        said.extend(standing(&marks));
        said.extend(versus(&marks));
        said.extend(marks.methods().iter().filter_map(|m| reached(&marks, m)));
        said.extend(marks.methods().iter().filter_map(|m| kl_order(&marks.of(m), m)));
        said.extend(marks.methods().iter().filter_map(|m| falls_again(&marks.of(m), m)));
        said.extend(marks.methods().iter().filter_map(|m| proxy(&marks, m)));
    }
    if marks.left_out > 0 {
        let n = marks.left_out;
        let points = if n == 1 { "1 point is".to_string() } else { format!("{n} points are") };
        said.push(format!(
            "{points} left out of the picture and of these sentences: gold reward or KL is not a usable number."
        ));
    }
    said
}

/// A KL in nats with the decimals that its size deserves.
fn nats(kl: f64) -> String {
    fixed(
        kl,
        if kl < 0.095 {
            3
        } else if kl < 9.95 {
            2
        } else if kl < 100.0 {
            1
        } else {
            0
        },
    )
}

/// How the methods stand against SFT.
fn standing(marks: &Marks) -> Option<String> {
    let methods = marks.methods();
    if methods.is_empty() {
        return Some("Only SFT was measured, so there is nothing to compare it with.".to_string());
    }
    let Some(sft) = marks.sft() else {
        return Some("SFT itself was not measured, so nothing can be said against it.".to_string());
    };
    let mut clauses: Vec<(Vec<String>, String)> = Vec::new();
    for method in methods {
        let (who, what) = clause(method, compare::against_sft(&marks.of(method), sft));
        match clauses.last_mut() {
            Some((names, same)) if *same == what => names.push(who),
            _ => clauses.push((vec![who], what)),
        }
    }
    let told: Vec<String> = clauses.into_iter().map(|(who, what)| joined(&who, &what)).collect();
    Some(format!("In gold reward, {}. Only differences of more than two standard errors count.", told.join("; ")))
}

/// One clause for all that share a predicate, which is plural where there are several of them.
fn joined(who: &[String], what: &str) -> String {
    let what = match (who.len(), what.split_once(' ')) {
        (2.., Some((verb, rest))) => format!("{} {rest}", verb.trim_end_matches('s')),
        _ => what.to_string(),
    };
    format!("{} {what}", who.join(" and "))
}

/// Subject and predicate of how one method stands against SFT.
fn clause(method: &str, counts: compare::AgainstSft) -> (String, String) {
    let (name, n) = (style::name(method), counts.settings);
    let all = if n == 2 { format!("both settings of {name}") } else { format!("all {n} settings of {name}") };
    let none = if n == 2 { "neither setting".to_string() } else { format!("none of the {n} settings") };
    let none = format!("{none} of {name}");
    let some = |a: usize| format!("{a} of {n} settings of {name}");
    let (who, mut what) = match (counts.above, counts.below) {
        _ if counts.unknown == n => (name, "cannot be told from SFT, since no standard error is known".to_string()),
        (1, _) if n == 1 => (name, "lies above SFT".to_string()),
        (_, 1) if n == 1 => (name, "lies below SFT".to_string()),
        _ if n == 1 => (name, "shows no difference from SFT".to_string()),
        (a, _) if a == n => (all, "lie above SFT".to_string()),
        (_, b) if b == n => (all, "lie below SFT".to_string()),
        (0, 0) => (none, "differs from SFT".to_string()),
        (0, b) => (none, format!("lies above SFT and {b} {} below it", lie(b))),
        (a, 0) => (some(a), format!("{} above SFT and none below it", lie(a))),
        (a, b) => (some(a), format!("{} above SFT and {b} below it", lie(a))),
    };
    if counts.unknown > 0 && counts.unknown < n {
        what.push_str(&format!(" ({} without a known standard error)", counts.unknown));
    }
    (who, what)
}

fn lie(count: usize) -> &'static str {
    if count == 1 { "lies" } else { "lie" }
}

/// DPO against PPO at equal KL.
fn versus(marks: &Marks) -> Option<String> {
    let (dpo, ppo) = (marks.of("dpo"), marks.of("ppo"));
    if marks.methods().is_empty() {
        return None;
    }
    if dpo.is_empty() || ppo.is_empty() {
        let missing = if dpo.is_empty() { "DPO" } else { "PPO" };
        let both = dpo.is_empty() && ppo.is_empty();
        let missing = if both { "DPO or PPO" } else { missing };
        return Some(format!("No point of {missing} was measured, so the two methods cannot be compared."));
    }
    let compared = compare::at_equal_kl(&dpo, &ppo);
    let span = |m: &[&Mark]| match (m.first(), m.last()) {
        (Some(a), Some(b)) if a.kl.mean < b.kl.mean => format!("{} to {} nats", nats(a.kl.mean), nats(b.kl.mean)),
        (Some(a), _) => format!("{} nats", nats(a.kl.mean)),
        _ => String::new(),
    };
    match (compared.first(), compared.last()) {
        (Some(low), Some(high)) => Some(verdict(&compared, low.kl, high.kl)),
        _ => Some(format!(
            "DPO and PPO cannot be compared at equal KL: their ranges do not overlap (DPO {}, PPO {}).",
            span(&dpo),
            span(&ppo)
        )),
    }
}

fn verdict(compared: &[AtKl], low: f64, high: f64) -> String {
    let n = compared.len();
    let count = |f: fn(&AtKl) -> bool| compared.iter().filter(|c| f(c)).count();
    let (dpo, ppo) = (count(|c| c.gap.above()), count(|c| c.gap.below()));
    let at = if n == 1 {
        format!("At a KL of {} nats", nats(low))
    } else {
        format!("At equal KL ({} to {} nats)", nats(low), nats(high))
    };
    let largest = widest(compared);
    match (dpo, ppo) {
        (0, 0) => format!(
            "{at} there is no difference in gold reward between DPO and PPO that these samples can show; the \
             largest gap is {largest}."
        ),
        (d, p) if d > 0 && p > 0 => format!(
            "{at} neither method is ahead throughout: of {n} KLs compared DPO is higher in gold reward at {d} and \
             PPO at {p}, each by \
             more than two standard errors; the largest gap is {largest}."
        ),
        (d, p) => {
            let (name, wins) = if d > 0 { ("DPO", d) } else { ("PPO", p) };
            let by = "by more than two standard errors";
            if wins == n && n == 1 {
                format!("{at} {name} has the higher gold reward, {by}: {largest}.")
            } else if wins == n {
                format!(
                    "{at} {name} has the higher gold reward {by} at all {n} KLs compared; the largest gap is \
                     {largest}."
                )
            } else {
                format!(
                    "{at} {name} has the higher gold reward {by} at {wins} of {n} KLs compared; at the others \
                     there is no difference \
                     that these samples can show. The largest gap is {largest}."
                )
            }
        }
    }
}

fn widest(compared: &[AtKl]) -> String {
    let Some(widest) = compared.iter().max_by(|a, b| a.gap.mean.abs().total_cmp(&b.gap.mean.abs())) else {
        return String::new();
    };
    let gap = with_error(widest.gap.mean.abs(), widest.gap.se);
    let ahead = if widest.gap.mean > 0.0 { "DPO" } else { "PPO" };
    let favour = if widest.gap.mean == 0.0 { String::new() } else { format!(" in favour of {ahead}") };
    // One comparison has named its KL already.
    let place = if compared.len() == 1 { String::new() } else { format!(" at a KL of {} nats", nats(widest.kl)) };
    format!("{gap}{favour}{place}")
}

/// Where a method's best setting stands.
fn reached(marks: &Marks, method: &str) -> Option<String> {
    let settings = marks.of(method);
    let best = compare::best(&settings)?;
    let name = style::name(method);
    let gold = with_error(best.gold.mean, best.gold.se);
    let kl = with_error(best.kl.mean, best.kl.se);
    let sft = marks.sft().map_or(String::new(), |s| format!("; SFT has {}", with_error(s.gold.mean, s.gold.se)));
    let which = if best.label == name { String::new() } else { format!(" with {}", best.label) };
    let verb = if settings.len() == 1 {
        format!("{name} reaches a gold reward of")
    } else {
        format!("The highest gold reward of {name} is")
    };
    Some(format!("{verb} {gold}{which}, at a KL of {kl} nats{sft}."))
}

/// Whether KL grows as the knob falls.
fn kl_order(marks: &[&Mark], method: &str) -> Option<String> {
    let (name, knob) = (style::name(method), style::knob(method));
    Some(match compare::order(marks)? {
        Order::Grows(first, last) => format!(
            "For {name} the KL grows as {knob} falls: from {} nats with {} to {} nats with {}.",
            nats(first.kl.mean),
            first.label,
            nats(last.kl.mean),
            last.label
        ),
        Order::Falls(falls) => {
            let told: Vec<String> = falls.iter().map(|(a, b)| fall(a, b)).collect();
            format!("For {name} the KL does not always grow as {knob} falls: {}.", told.join("; "))
        }
    })
}

fn fall(from: &Mark, to: &Mark) -> String {
    let gap = from.kl.minus(to.kl);
    let weight = if gap.se.is_nan() {
        "no standard error known"
    } else if gap.above() {
        "more than two standard errors"
    } else {
        "within two standard errors"
    };
    let (a, b) = (with_error(from.kl.mean, from.kl.se), with_error(to.kl.mean, to.kl.se));
    format!("with {} it is {a} nats and with {} {b} nats ({weight})", from.label, to.label)
}

/// Gold reward that falls beyond its peak: the sign of over-optimisation that needs no proxy.
fn falls_again(marks: &[&Mark], method: &str) -> Option<String> {
    let (best, last) = (compare::best(marks)?, marks.last()?);
    let drop = best.gold.minus(last.gold);
    (drop.above() && best.kl.mean < last.kl.mean).then(|| {
        format!(
            "Past its peak the gold reward of {} falls again, from {} at a KL of {} nats to {} at {} nats.",
            style::name(method),
            with_error(best.gold.mean, best.gold.se),
            nats(best.kl.mean),
            with_error(last.gold.mean, last.gold.se),
            nats(last.kl.mean)
        )
    })
}

/// Whether the proxy reward outruns the gold reward as KL grows.
fn proxy(marks: &Marks, method: &str) -> Option<String> {
    let sft = marks.sft().filter(|s| s.proxy.mean.is_finite())?;
    let known: Vec<&Mark> = marks.of(method).into_iter().filter(|m| m.proxy.mean.is_finite()).collect();
    let (low, high) = (*known.first()?, *known.last()?);
    let (name, over) = (style::name(method), |m: &Mark| compare::overrun(m, sft));
    let told = |m: &Mark| with_error(over(m).mean, over(m).se);
    // Only PPO is trained on the proxy, so only it can be said to exploit it.
    let sign = if method == "ppo" { "a sign of reward hacking" } else { "a sign of over-optimisation" };
    if low.kl.mean == high.kl.mean {
        let verdict = if over(high).above() {
            format!("the proxy reward gained more than the gold reward, {sign}")
        } else {
            "the proxy reward did not gain more than the gold reward by two standard errors".to_string()
        };
        return Some(format!("For {name} {verdict}: the gains over SFT differ by {}.", told(high)));
    }
    let change = compare::overrun_change(low, high);
    let numbers = format!(
        "the proxy gain over SFT less the gold gain is {} at a KL of {} nats and {} at {} nats",
        told(low),
        nats(low.kl.mean),
        told(high),
        nats(high.kl.mean)
    );
    Some(if change.above() && over(high).above() {
        format!("For {name} the proxy reward outruns the gold reward as KL grows, {sign}: {numbers}.")
    } else if change.above() {
        format!(
            "For {name} the proxy reward gains on the gold reward as KL grows but is not ahead by more than two \
             standard errors: {numbers}."
        )
    } else if change.below() {
        format!(
            "For {name} the proxy reward does not outrun the gold reward but falls behind it as KL grows: {numbers}."
        )
    } else if over(high).above() {
        format!(
            "For {name} the proxy reward gained more than the gold reward, {sign}, and about as much so at small \
             KL as at large: {numbers}."
        )
    } else {
        format!(
            "For {name} the gap between proxy and gold reward does not change with KL by more than two standard \
             errors: {numbers}."
        )
    })
}
