//! Intervals by simulation, all draws seeded: how often they hold the truth, and the bootstrap against closed forms.
#![allow(clippy::unwrap_used)]
use super::uniform;
use crate::support::assert_number;
use collimate::rank::fit::Model;
use collimate::rank::model::Ties;
use collimate::rank::rank;
use collimate::rank::ranking::{Intervals, Ranking};
use collimate::rank::read::Comparisons;
use collimate::seed;

const TRUTH: [f64; 5] = [1.0, 0.5, 0.0, -0.4, -1.1];

/// Every pair of items with those true ratings compared `each` times; a tie has Davidson's probability for `nu`.
fn tournament(each: usize, nu: f64, sample: u64) -> Comparisons {
    let mut rng = seed::rng(1952, "tournament", &[sample]);
    let mut all = Comparisons::default();
    for (a, rating) in TRUTH.iter().enumerate() {
        for (b, other) in TRUTH.iter().enumerate().skip(a + 1) {
            let (win, loss) = ((0.5 * (rating - other)).exp(), (0.5 * (other - rating)).exp());
            for _ in 0..each {
                let at = uniform(&mut rng) * (win + loss + nu);
                let preference = if at < win { 1.0 } else { if at < win + loss { 0.0 } else { 0.5 } };
                all.add(&a.to_string(), &b.to_string(), preference, 1.0);
            }
        }
    }
    all
}

fn ranking(all: &Comparisons, ties: Ties, confidence: f64, bootstrap: Option<(usize, u64)>) -> Ranking {
    rank(all, Model { ties, prior: None }, Intervals { confidence, bootstrap }).unwrap()
}

/// How many of the intervals hold the truth, and how many there are.
fn held(ranking: &Ranking) -> (usize, usize) {
    let holds = |item: &&collimate::rank::ranking::Ranked| {
        let truth = TRUTH[item.item.parse::<usize>().unwrap()];
        item.rating.lower <= truth && truth <= item.rating.upper
    };
    (ranking.items.iter().filter(holds).count(), ranking.items.len())
}

fn share(samples: impl Iterator<Item = (usize, usize)>) -> f64 {
    let (held, all) = samples.fold((0, 0), |(held, all), (h, n)| (held + h, all + n));
    held as f64 / all as f64
}

/// 4,000 intervals each: the share that holds the truth has a standard error of 0.5% and less.
#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    for (confidence, ties, nu) in
        [(0.95, Ties::BradleyTerry, 0.0), (0.8, Ties::BradleyTerry, 0.0), (0.95, Ties::Davidson, 0.8)]
    {
        let found = share((0..800).map(|sample| held(&ranking(&tournament(40, nu, sample), ties, confidence, None))));
        assert_number(&format!("coverage at {confidence} of {ties:?}"), found, confidence, 0.013);
    }
}

#[test]
fn davidsons_nu_is_found_with_its_interval() {
    let held = (0..400).filter(|sample| {
        let nu = ranking(&tournament(30, 0.8, *sample), Ties::Davidson, 0.9, None).nu.unwrap();
        nu.lower <= 0.8 && 0.8 <= nu.upper
    });
    assert_number("coverage", held.count() as f64 / 400.0, 0.9, 0.045);
}

/// Of two items the centred rating is half the logit of the share won; its variance by the delta method is that of a
/// result over n p^2 q^2 and 4. Ties make results vary less than the model's p q, which the Hessian cannot know and the
/// bootstrap can.
#[test]
fn the_bootstrap_sees_what_the_results_vary() {
    let (wins, losses, ties, n) = (700, 500, 800, 2000.0);
    let mut all = Comparisons::default();
    for (count, preference) in [(wins, 1.0), (losses, 0.0), (ties, 0.5)] {
        (0..count).for_each(|_| all.add("x", "y", preference, 1.0));
    }
    let p: f64 = (700.0 + 400.0) / n;
    let variance = (700.0 + 0.25 * 800.0) / n - p * p;
    let half_width = |ranking: Ranking| {
        assert_number("rating", ranking.items[0].rating.value, 0.5 * (p / (1.0 - p)).ln(), 1e-9);
        0.5 * (ranking.items[0].rating.upper - ranking.items[0].rating.lower)
    };
    let z = 1.959_963_984_540_054;
    let drawn = half_width(ranking(&all, Ties::BradleyTerry, 0.95, Some((1999, 5))));
    let hessian = half_width(ranking(&all, Ties::BradleyTerry, 0.95, None));
    assert_number("by the model", hessian, z * 0.5 / (n * p * (1.0 - p)).sqrt(), 1e-9);
    let expected = z * 0.5 * variance.sqrt() / (n.sqrt() * p * (1.0 - p));
    assert!((drawn / expected - 1.0).abs() < 0.06, "bootstrap {drawn}, delta method {expected}");
    assert!(drawn < 0.85 * hessian, "{drawn} {hessian}");
}

/// Where the model holds the two agree, a weight of a row included: rows are drawn, not weights.
#[test]
fn the_bootstrap_agrees_with_the_hessian_where_the_model_holds() {
    let all = tournament(150, 0.8, 1);
    let drawn = ranking(&all, Ties::Davidson, 0.9, Some((399, 0)));
    let hessian = ranking(&all, Ties::Davidson, 0.9, None);
    let ratio = |(drawn, hessian): (&_, &_)| {
        let width = |item: &collimate::rank::ranking::Ranked| item.rating.upper - item.rating.lower;
        width(drawn) / width(hessian)
    };
    let ratios: Vec<f64> = drawn.items.iter().zip(&hessian.items).map(ratio).collect();
    assert!(ratios.iter().all(|ratio| (0.85..1.15).contains(ratio)), "{ratios:?}");
    let (drawn_nu, nu) = (drawn.nu.unwrap(), hessian.nu.unwrap());
    let ratio = (drawn_nu.upper / drawn_nu.lower).ln() / (nu.upper / nu.lower).ln();
    assert!((0.85..1.15).contains(&ratio), "nu: {ratio}");
}

#[test]
fn the_seed_decides_the_bootstrap() {
    let all = tournament(20, 0.0, 3);
    let of = |seed| ranking(&all, Ties::BradleyTerry, 0.9, Some((99, seed)));
    assert_eq!(of(1), of(1));
    assert_ne!(of(1).items, of(2).items);
}
