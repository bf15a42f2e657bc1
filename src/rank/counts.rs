//! Comparisons -> sparse counts: what every pair of items won, lost and tied. All that a fit needs; imports no model.
use super::read::Comparisons;

/// What was found about two items, in weights of comparisons. A preference that is no tie counts as that fraction of a
/// win and the rest of a loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// An item's number.
    pub first: usize,
    /// Another's, which is larger.
    pub second: usize,
    /// Wins of `first` over `second`.
    pub wins: f64,
    /// Wins of `second` over `first`.
    pub losses: f64,
    /// Ties: preferences of exactly 0.5.
    pub ties: f64,
}

impl Pair {
    /// All comparisons of the two.
    pub fn total(&self) -> f64 {
        self.wins + self.losses + self.ties
    }
}

/// Counts of all pairs that were compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// How many items there are.
    pub items: usize,
    /// The pairs, by rising numbers.
    pub pairs: Vec<Pair>,
}

/// What an item won, lost and tied against all others.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// Wins.
    pub wins: f64,
    /// Losses.
    pub losses: f64,
    /// Ties.
    pub ties: f64,
}

impl Counts {
    /// What each item won, lost and tied.
    pub fn tallies(&self) -> Vec<Tally> {
        let mut all = vec![Tally::default(); self.items];
        for pair in &self.pairs {
            let (first, second) = (pair.first, pair.second);
            all[first].wins += pair.wins;
            all[first].losses += pair.losses;
            all[first].ties += pair.ties;
            all[second].wins += pair.losses;
            all[second].losses += pair.wins;
            all[second].ties += pair.ties;
        }
        all
    }

    /// All comparisons, and how many of them were ties.
    pub fn totals(&self) -> (f64, f64) {
        self.pairs.iter().fold((0.0, 0.0), |(all, ties), pair| (all + pair.total(), ties + pair.ties))
    }
}

/// Comparisons with their pairs worked out, so that they can be counted again and again.
pub struct Grouped<'a> {
    comparisons: &'a Comparisons,
    pairs: Vec<(u32, u32)>,
    /// The pair of each cell.
    pair_of: Vec<u32>,
}

impl<'a> Grouped<'a> {
    /// Finds the pairs.
    pub fn new(comparisons: &'a Comparisons) -> Self {
        let mut pairs: Vec<(u32, u32)> = comparisons.cells().iter().map(|cell| (cell.first, cell.second)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        let place = |cell: &super::read::Cell| {
            let found = pairs.binary_search(&(cell.first, cell.second)).expect("every cell's pair is among them");
            u32::try_from(found).expect("fewer than 2^32 pairs")
        };
        let pair_of = comparisons.cells().iter().map(place).collect();
        Self { comparisons, pairs, pair_of }
    }

    /// What was grouped.
    pub fn comparisons(&self) -> &'a Comparisons {
        self.comparisons
    }

    /// How often each cell came up.
    pub fn times(&self) -> Vec<u32> {
        let mut times = vec![0; self.comparisons.cells().len()];
        self.comparisons.rows().iter().for_each(|cell| times[*cell as usize] += 1);
        times
    }

    /// As many rows as there are, drawn with replacement by `draw`, which gives a number below the one it is given.
    pub fn redrawn(&self, mut draw: impl FnMut(usize) -> usize) -> Vec<u32> {
        let rows = self.comparisons.rows();
        let mut times = vec![0; self.comparisons.cells().len()];
        (0..rows.len()).for_each(|_| times[rows[draw(rows.len())] as usize] += 1);
        times
    }

    /// The counts where each cell came up so many times; pairs that did not come up are left out.
    pub fn counts(&self, times: &[u32]) -> Counts {
        let new = |&(first, second): &(u32, u32)| {
            let (first, second) = (first as usize, second as usize);
            Pair { first, second, wins: 0.0, losses: 0.0, ties: 0.0 }
        };
        let mut pairs: Vec<Pair> = self.pairs.iter().map(new).collect();
        for ((cell, pair), times) in self.comparisons.cells().iter().zip(&self.pair_of).zip(times) {
            let (pair, weight) = (&mut pairs[*pair as usize], cell.weight * f64::from(*times));
            if cell.preference == 0.5 {
                pair.ties += weight;
            } else {
                pair.wins += weight * cell.preference;
                pair.losses += weight * (1.0 - cell.preference);
            }
        }
        pairs.retain(|pair| pair.total() > 0.0);
        Counts { items: self.comparisons.items().len(), pairs }
    }
}
