//! Against tests/golden/rank.json (scripts/goldens/rank.py), and what must hold exactly.
#![allow(clippy::unwrap_used)]
use super::{results, uniform};
use crate::support::sandbox::Sandbox;
use crate::support::{assert_number, json, list, number, text};
use collimate::rank::counts::Grouped;
use collimate::rank::exists::{Missing, missing};
use collimate::rank::fit::{Fit, Model, fit};
use collimate::rank::model::{Prior, Ties};
use collimate::rank::ranking::Intervals;
use collimate::rank::read::Comparisons;
use collimate::rank::{rank, show};
use collimate::seed;
use rand_chacha::rand_core::Rng;
use serde_json::Value;

const TOLERANCE: f64 = 1e-6;
const HESSIAN: Intervals = Intervals { confidence: 0.95, bootstrap: None };

fn model(ties: Ties) -> Model {
    Model { ties, prior: None }
}

/// What the program prints for a case's rows.
fn ranked(sandbox: &Sandbox, case: &Value, more: &[&str]) -> Value {
    let rows: Vec<_> = list(case, "rows").iter().map(|row| row.as_object().unwrap().clone()).collect();
    sandbox.rows("rows.jsonl", &rows);
    let mut args = vec!["rank", "rows.jsonl", "--json", "--ties", text(case, "model")];
    if let Some(prior) = case["prior"].as_str() {
        args.extend(["--prior", prior]);
    }
    args.extend(more);
    serde_json::from_str(&sandbox.run(&args).ok().stdout).unwrap()
}

/// The printed item of that name.
fn item<'a>(found: &'a Value, name: &str) -> &'a Value {
    list(found, "items").iter().find(|item| item["item"] == name).unwrap_or_else(|| panic!("{name} is missing"))
}

#[test]
fn ratings_and_their_intervals_are_scipys_and_choixs() {
    let file = json("rank.json");
    let sandbox = Sandbox::new();
    let mut by_choix = 0;
    assert!(list(&file, "cases").len() >= 11);
    for case in list(&file, "cases") {
        let found = ranked(&sandbox, case, &[]);
        assert_eq!(list(&found, "items").len(), list(case, "items").len());
        for (at, name) in list(case, "items").iter().enumerate() {
            let name = name.as_str().unwrap();
            let ours = item(&found, name);
            for (key, theirs) in
                [("rating", "ratings"), ("standard_error", "standard_errors"), ("lower", "lower"), ("upper", "upper")]
            {
                let what = format!("{}: {key} of {name}", text(case, "name"));
                assert_number(&what, number(ours, key), case[theirs][at].as_f64().unwrap(), TOLERANCE);
            }
            if let Some(theirs) = case["choix"].as_array() {
                let what = format!("{}: {name} by choix", text(case, "name"));
                assert_number(&what, number(ours, "rating"), theirs[at].as_f64().unwrap(), TOLERANCE);
                by_choix += 1;
            }
        }
        for key in ["log_likelihood", "nu", "nu_lower", "nu_upper"].iter().filter(|key| case[*key].is_number()) {
            assert_number(&format!("{}: {key}", text(case, "name")), number(&found, key), number(case, key), TOLERANCE);
        }
        for key in ["deviance", "degrees_of_freedom", "p"].iter().filter(|_| case["goodness"].is_object()) {
            let ours = number(&found["goodness_of_fit"], key);
            assert_number(&format!("{}: {key}", text(case, "name")), ours, number(&case["goodness"], key), TOLERANCE);
        }
    }
    assert!(by_choix > 40, "choix was asked about {by_choix} ratings only");
}

#[test]
fn probabilities_are_consistent_and_transitive() {
    let file = json("rank.json");
    let sandbox = Sandbox::new();
    for case in list(&file, "cases") {
        let found = ranked(&sandbox, case, &[]);
        let ratings: Vec<f64> = list(&found, "items").iter().map(|item| number(item, "rating")).collect();
        let n = ratings.len();
        assert!(ratings.is_sorted_by(|a, b| a >= b), "best first");
        assert_number("mean", ratings.iter().sum(), 0.0, 1e-9);
        let win = |i: usize, j: usize| found["probabilities"][i][j].as_f64().unwrap();
        let tie = |i: usize, j: usize| found["tie_probabilities"][i][j].as_f64().unwrap_or(0.0);
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let what = format!("{}: {i} against {j}", text(case, "name"));
            assert_number(&what, win(i, j) + win(j, i) + tie(i, j), 1.0, 1e-12);
            // The odds of a decided comparison, in both models.
            assert_number(&what, (win(i, j) / win(j, i)).ln(), ratings[i] - ratings[j], 1e-9);
            for k in (0..n).filter(|_| win(i, j) >= win(j, i)) {
                if win(j, k) >= win(k, j) {
                    assert!(win(i, k) >= win(i, j).max(win(j, k)) - 1e-12, "{what} against {k}");
                }
            }
        }
        assert_eq!(found["tie_probabilities"].is_array(), text(case, "model") == "davidson");
    }
}

#[test]
fn elo_is_the_same_on_another_scale() {
    let file = json("rank.json");
    let sandbox = Sandbox::new();
    let found = ranked(&sandbox, &file["cases"][0], &["--elo"]);
    for item in list(&found, "items") {
        for (elo, natural) in [("elo", "rating"), ("elo_lower", "lower"), ("elo_upper", "upper")] {
            // 10 to 1 are 400 points.
            let odds = 10f64.powf((number(item, elo) - 1500.0) / 400.0);
            assert_number(elo, odds, number(item, natural).exp(), 1e-9);
        }
    }
    assert!(sandbox.run(&["rank", "rows.jsonl", "--elo"]).ok().stdout.contains("Elo: mean 1500"));
}

/// A row of weight 3 is three rows; (a, b, mu) is (b, a, 1 - mu); the order of rows says nothing.
#[test]
fn rows_that_say_the_same_give_the_same() {
    let rows = [("x", "y", 0.8, 3.0), ("y", "z", 0.5, 2.0), ("z", "x", 0.25, 1.0), ("x", "z", 1.0, 2.0)];
    let (mut once, mut repeated) = (Comparisons::default(), Comparisons::default());
    for (a, b, mu, weight) in rows {
        once.add(a, b, mu, weight);
    }
    for (a, b, mu, weight) in rows.into_iter().rev() {
        (0..weight as usize).for_each(|_| repeated.add(b, a, 1.0 - mu, 1.0));
    }
    let [once, repeated] = [once, repeated].map(|all| rank(&all, model(Ties::BradleyTerry), HESSIAN).unwrap());
    for (ours, theirs) in once.items.iter().zip(&repeated.items) {
        assert_eq!(ours.item, theirs.item);
        assert_number("rating", ours.rating.value, theirs.rating.value, 1e-12);
        assert_number("error", ours.error, theirs.error, 1e-12);
        assert_number("wins", ours.tally.wins, theirs.tally.wins, 1e-12);
        assert_number("ties", ours.tally.ties, theirs.tally.ties, 1e-12);
    }
    assert_eq!((once.comparisons, repeated.comparisons, once.weight), (4, 8, 8.0));
    let y = once.items.iter().find(|item| item.item == "y").unwrap();
    assert_number("y won 0.2 of three", y.tally.wins, 0.6, 1e-12);
    assert_eq!((y.tally.ties, y.tally.losses), (2.0, 3.0 * 0.8));
}

#[test]
fn davidson_without_a_tie_is_bradley_terry() {
    let all = results("a>b b>c c>a a>b b>c a>c");
    let [ours, theirs] = [Ties::Davidson, Ties::BradleyTerry].map(|ties| rank(&all, model(ties), HESSIAN).unwrap());
    for (ours, theirs) in ours.items.iter().zip(&theirs.items) {
        assert_eq!((&ours.item, ours.rating), (&theirs.item, theirs.rating));
    }
    assert_eq!(ours.nu.unwrap().value, 0.0);
    assert_eq!(ours.probability(0, 1), theirs.probability(0, 1));
    assert!(show::table(&ours, show::Scale::Natural).contains("nu is 0: no comparison was a tie"));
}

/// The rule that says whether there is a maximum against the fit itself, which goes on for ever where there is none.
#[test]
fn a_fit_settles_exactly_where_a_maximum_exists() {
    let mut seen = [[0; 2]; 4];
    for sample in 0..400u64 {
        let mut rng = seed::rng(7, "existence", &[sample]);
        let mut all = Comparisons::default();
        let items = 2 + sample % 3;
        for _ in 0..items + rng.next_u64() % 6 {
            let a = rng.next_u64() % items;
            let b = (a + 1 + rng.next_u64() % (items - 1)) % items;
            let preference = if uniform(&mut rng) < 0.4 { 0.5 } else { 1.0 };
            all.add(&a.to_string(), &b.to_string(), preference, 1.0);
        }
        let grouped = Grouped::new(&all);
        let counts = grouped.counts(&grouped.times());
        for (at, (ties, prior)) in [
            (Ties::BradleyTerry, None),
            (Ties::Davidson, None),
            (Ties::BradleyTerry, Some(Prior::Gaussian(1.0))),
            (Ties::Davidson, Some(Prior::Pseudo(1.0))),
        ]
        .into_iter()
        .enumerate()
        {
            let model = Model { ties, prior };
            let (gap, fitted) = (missing(&counts, model), fit(&counts, model, None));
            // Far out the slope is rounding and the fit stands still; no ten results lead there by themselves.
            let far = |x: f64| x.abs() > 12.0;
            let settled = |fit: &Fit| !fit.ratings().into_iter().chain(fit.log_nu).any(far);
            assert_eq!(
                gap.is_none(),
                fitted.as_ref().is_ok_and(settled),
                "sample {sample}, {model:?}: {gap:?}, {fitted:?}, {counts:?}"
            );
            seen[at][usize::from(gap.is_none())] += 1;
        }
    }
    assert!(seen[0].iter().chain(&seen[1]).all(|n| *n > 40), "both kinds came up: {seen:?}");
    assert_eq!(seen[2][0], 0, "a prior holds every rating");
    assert!(seen[3][0] > 0, "only ties: nu is infinite even with a prior");
}

#[test]
fn davidsons_nu_needs_a_circle_of_more_wins_than_ties() {
    let gap = |text: &str| {
        let all = results(text);
        let grouped = Grouped::new(&all);
        missing(&grouped.counts(&grouped.times()), model(Ties::Davidson))
    };
    // Won and tied: a circle of one and one.
    assert_eq!(gap("a>b a>b a=b"), Some(Missing::Nu));
    assert_eq!(gap("a=b b=c"), Some(Missing::Nu));
    // a > b > c, and a tie back: two wins and one tie.
    assert_eq!(gap("a>b b>c a=c"), None);
    assert_eq!(gap("a>b b=c c=a"), Some(Missing::Nu));
    assert_eq!(gap("a>b b>a a=b"), None);
}
