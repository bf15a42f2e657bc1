//! The ranking as a table to read and as JSON. Owns wording, columns and keys; computes nothing but scales.
use super::model::{Prior, Ties};
use super::ranking::{Estimate, Ranked, Ranking};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use unicode_width::UnicodeWidthStr;

/// The most items whose probabilities the table shows.
pub const MATRIX_IN_TABLE: usize = 12;
/// The most items whose probabilities JSON holds: a million numbers.
pub const MATRIX_IN_JSON: usize = 1000;
/// A name's place in the table.
const WIDEST_NAME: usize = 40;

/// In what ratings are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Natural-log strengths about 0.
    Natural,
    /// 1500 + 400 / ln 10 times the strength: 400 points more are odds of 10 to 1.
    Elo,
}

impl Scale {
    /// A rating on this scale.
    pub fn of(self, rating: f64) -> f64 {
        match self {
            Scale::Natural => rating,
            Scale::Elo => 1500.0 + 400.0 / std::f64::consts::LN_10 * rating,
        }
    }

    /// Decimals worth showing.
    pub fn decimals(self) -> usize {
        if self == Scale::Elo { 0 } else { 3 }
    }

    fn text(self, rating: f64) -> String {
        let (decimals, value) = (self.decimals(), self.of(rating));
        let text = format!("{value:.decimals$}");
        // No minus before a zero.
        if text.trim_start_matches('-').chars().all(|c| matches!(c, '0' | '.')) {
            return text.trim_start_matches('-').to_owned();
        }
        text
    }
}

/// The whole text for a reader.
pub fn table(ranking: &Ranking, scale: Scale) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(headline(ranking));
    line(fit_line(ranking));
    line(String::new());
    rows(ranking, scale).into_iter().for_each(&mut line);
    line(String::new());
    notes(ranking, scale).into_iter().for_each(&mut line);
    if ranking.items.len() <= MATRIX_IN_TABLE {
        line(String::new());
        matrix(ranking).into_iter().for_each(&mut line);
    }
    out
}

/// Model, comparisons, items.
pub fn headline(ranking: &Ranking) -> String {
    let ties = match ranking.model.ties {
        _ if ranking.ties == 0.0 => "no ties".to_owned(),
        Ties::BradleyTerry => format!("{} of ties, each half a win", percent(ranking.ties / ranking.weight)),
        Ties::Davidson => format!("{} of ties", percent(ranking.ties / ranking.weight)),
    };
    let weight = if ranking.weight == ranking.comparisons as f64 {
        String::new()
    } else {
        format!(" of weight {}", count(ranking.weight))
    };
    format!(
        "{} model, {}{weight} of {} items ({}), {ties}",
        ranking.model.ties.title(),
        counted(ranking.comparisons, "comparison"),
        grouped(ranking.items.len()),
        counted(ranking.pairs, "pair"),
    )
}

fn fit_line(ranking: &Ranking) -> String {
    let mut text =
        format!("log-likelihood {:.2} (all alike: {:.2})", ranking.log_likelihood, ranking.log_likelihood_alike);
    if let Some(nu) = ranking.nu {
        let _ = write!(text, "; nu {:.3} [{:.3}, {:.3}]", nu.value, nu.lower, nu.upper);
    }
    if let Some(goodness) = ranking.goodness {
        let _ = write!(
            text,
            "; G2 {:.1} on {} degrees of freedom, p = {:.2}",
            goodness.deviance, goodness.freedom, goodness.p
        );
    }
    if let Some(prior) = ranking.model.prior {
        let _ = write!(text, "; {}", prior.words());
    }
    text
}

fn rows(ranking: &Ranking, scale: Scale) -> Vec<String> {
    let rating = if scale == Scale::Elo { "Elo" } else { "rating" };
    let interval = format!("{} interval", percent(ranking.intervals.confidence));
    let head = ["", "item", rating, &interval, "wins", "losses", "ties"].map(str::to_owned);
    let mut cells = vec![head];
    for (place, item) in ranking.items.iter().enumerate() {
        let Estimate { value, lower, upper } = item.rating;
        cells.push([
            (place + 1).to_string(),
            name(&item.item, WIDEST_NAME),
            scale.text(value),
            format!("[{}, {}]", scale.text(lower), scale.text(upper)),
            count(item.tally.wins),
            count(item.tally.losses),
            count(item.tally.ties),
        ]);
    }
    aligned(&cells, 1)
}

/// Columns under each other, numbers to the right and the column `words` to the left.
fn aligned<const N: usize>(cells: &[[String; N]], words: usize) -> Vec<String> {
    let width = |column: usize| cells.iter().map(|row| row[column].width()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let cell = |(column, text): (usize, &String)| {
        let space = " ".repeat(widths[column] - text.width());
        if column == words { format!("{text}{space}") } else { format!("{space}{text}") }
    };
    let row = |row: &[String; N]| format!(" {}", row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  "));
    cells.iter().map(row).collect()
}

fn notes(ranking: &Ranking, scale: Scale) -> Vec<String> {
    let mut notes = Vec::new();
    notes.push(match scale {
        Scale::Natural => {
            "rating: natural-log strength, mean 0; a difference of 1 is odds of e to 1 (73.1%)".to_owned()
        }
        Scale::Elo => "Elo: mean 1500; a difference of 400 is odds of 10 to 1 (90.9%)".to_owned(),
    });
    notes.push(match (ranking.intervals.bootstrap, ranking.model.prior) {
        (Some((samples, seed)), _) => {
            let infinite = match ranking.unbounded {
                0 => String::new(),
                n => format!("; {n} of them without finite ratings, counted as beyond both ends"),
            };
            format!("intervals: percentiles of {} bootstrap samples, seed {seed}{infinite}", grouped(samples))
        }
        (None, Some(_)) => "intervals: normal, from the Hessian of the posterior density".to_owned(),
        (None, None) => "intervals: normal, from the Hessian of the log-likelihood".to_owned(),
    });
    let fractions = ranking.items.iter().any(|item| item.tally.wins.fract() != 0.0);
    let halves = ranking.model.ties == Ties::BradleyTerry && ranking.ties > 0.0;
    if ranking.intervals.bootstrap.is_none() && (fractions || halves) {
        notes.push(
            "ties and fractions vary less than wins and losses: intervals are too wide for them, see --bootstrap"
                .into(),
        );
    }
    if ranking.same > 0 {
        notes.push(format!("left out: {} of one model with itself", counted(ranking.same, "pair")));
    }
    if fractions {
        notes.push("wins and losses: weights times preferences; ties: preferences of exactly 0.5".to_owned());
    }
    if ranking.model.ties == Ties::Davidson && ranking.ties == 0.0 {
        notes.push("nu is 0: no comparison was a tie, and the model is Bradley-Terry's".to_owned());
    }
    notes
}

fn matrix(ranking: &Ranking) -> Vec<String> {
    let of = |i: usize, j: usize| match i == j {
        true => "-".to_owned(),
        false => format!("{:.1}", 100.0 * ranking.probability(i, j).0),
    };
    let items = ranking.items.len();
    let names: Vec<String> = ranking.items.iter().map(|item| name(&item.item, WIDEST_NAME)).collect();
    let widest = names.iter().map(|name| name.width()).max().unwrap_or(0);
    let rest =
        if ranking.ties > 0.0 && ranking.model.ties == Ties::Davidson { "; the rest to 100 is a tie" } else { "" };
    let mut lines = vec![format!("probability that the row beats the column, %{rest}")];
    let head: String = (1..=items).map(|place| format!("{place:>6}")).collect();
    let digits = items.to_string().len();
    lines.push(format!(" {:digits$}  {:widest$}{head}", "", ""));
    for (i, name) in names.iter().enumerate() {
        let space = " ".repeat(widest - name.width());
        let row: String = (0..items).map(|j| format!("{:>6}", of(i, j))).collect();
        lines.push(format!(" {:>digits$}  {name}{space}{row}", i + 1));
    }
    lines
}

/// A name as it may stand in a terminal: control characters escaped, long ones cut.
pub fn name(name: &str, most: usize) -> String {
    let shown: String =
        name.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect();
    if shown.width() <= most {
        return shown;
    }
    let mut cut = String::new();
    for c in shown.chars() {
        cut.push(c);
        if cut.width() + 3 > most {
            cut.pop();
            break;
        }
    }
    cut + "..."
}

/// A sum of weights: whole numbers as such.
fn count(value: f64) -> String {
    if (value - value.round()).abs() < 1e-6 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// A share or confidence: 95%, 99.9%, 12.5%.
pub fn percent(share: f64) -> String {
    let text = format!("{:.2}", 100.0 * share);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn counted(count: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// A count with commas.
pub fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// One JSON object with everything, in the order of the ranking.
pub fn json(ranking: &Ranking, scale: Scale) -> Value {
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
    put("items", ranking.items.iter().map(|item| item_json(item, scale)).collect());
    put("model", json!(ranking.model.ties.name()));
    if let Some(nu) = ranking.nu {
        put("nu", json!(nu.value));
        put("nu_lower", json!(nu.lower));
        put("nu_upper", json!(nu.upper));
    }
    put("comparisons", json!(ranking.comparisons));
    put("same_model_pairs", json!(ranking.same));
    put("weight", json!(ranking.weight));
    put("ties", json!(ranking.ties));
    put("pairs", json!(ranking.pairs));
    put("log_likelihood", json!(ranking.log_likelihood));
    put("log_likelihood_alike", json!(ranking.log_likelihood_alike));
    let goodness = ranking.goodness.map(|g| json!({"deviance": g.deviance, "degrees_of_freedom": g.freedom, "p": g.p}));
    put("goodness_of_fit", json!(goodness));
    put("prior", json!(ranking.model.prior.map(prior_json)));
    let confidence = ranking.intervals.confidence;
    put(
        "intervals",
        match ranking.intervals.bootstrap {
            Some((samples, seed)) => json!({"method": "bootstrap", "confidence": confidence, "samples": samples,
            "without_finite_ratings": ranking.unbounded, "seed": seed}),
            None => json!({"method": "hessian", "confidence": confidence}),
        },
    );
    put("newton_steps", json!(ranking.steps));
    if ranking.items.len() <= MATRIX_IN_JSON {
        put("probabilities", square(ranking, |(win, _)| win));
        if ranking.model.ties == Ties::Davidson {
            put("tie_probabilities", square(ranking, |(_, tie)| tie));
        }
    }
    Value::Object(all)
}

fn prior_json(prior: Prior) -> Value {
    match prior {
        Prior::Pseudo(comparisons) => json!({"kind": "pseudo", "comparisons": comparisons}),
        Prior::Gaussian(deviation) => json!({"kind": "gaussian", "standard_deviation": deviation}),
    }
}

fn item_json(item: &Ranked, scale: Scale) -> Value {
    let Estimate { value, lower, upper } = item.rating;
    let mut row = json!({
        "item": item.item, "rating": value, "lower": lower, "upper": upper, "wins": item.tally.wins,
        "losses": item.tally.losses, "ties": item.tally.ties, "standard_error": item.error,
    });
    if scale == Scale::Elo {
        for (name, rating) in [("elo", value), ("elo_lower", lower), ("elo_upper", upper)] {
            row[name] = json!(scale.of(rating));
        }
    }
    row
}

fn square(ranking: &Ranking, of: impl Fn((f64, f64)) -> f64) -> Value {
    let items = ranking.items.len();
    let row = |i: usize| -> Value { (0..items).map(|j| json!(of(ranking.probability(i, j)))).collect() };
    (0..items).map(row).collect()
}
