//! `collimate rank`: strengths against SciPy and choix, intervals by simulation, what cannot be ranked, what is read.
mod exact;
mod files;
mod simulated;

use collimate::rank::read::Comparisons;
use rand_chacha::rand_core::Rng;

/// A number in [0, 1) from a generator.
fn uniform(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Comparisons of items named by letters: "a>b" was won by a, "a=b" is a tie.
fn results(text: &str) -> Comparisons {
    let mut all = Comparisons::default();
    for result in text.split_whitespace() {
        let at = result.find(['>', '=']).expect("a result");
        let preference = if &result[at..=at] == ">" { 1.0 } else { 0.5 };
        all.add(&result[..at], &result[at + 1..], preference, 1.0);
    }
    all
}
