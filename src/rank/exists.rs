//! Whether the likelihood has a maximum, and which items are at fault where it has none. Graphs of items; knows no
//! formulas beyond what they imply.
//!
//! Bradley-Terry (Ford 1957): there is one if and only if every item can be reached from every other along comparisons
//! that were won or tied. Davidson's model needs the same, and for nu a circle of wins and ties with more wins than ties.
use super::counts::Counts;
use super::fit::Model;
use super::model::Ties;

/// Groups of items that have no finite rating beside the others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gaps {
    /// Groups that no other item beat or tied, each beaten by nobody outside of it.
    pub unbeaten: Vec<Vec<usize>>,
    /// Groups that beat or tied no item outside.
    pub winless: Vec<Vec<usize>>,
    /// Groups that no chain of comparisons connects with the largest one, which is not listed.
    pub apart: Vec<Vec<usize>>,
}

/// Why there is no maximum.
#[derive(Debug, Clone, PartialEq)]
pub enum Missing {
    /// These items' ratings are infinite or unknown.
    Ratings(Gaps),
    /// Davidson's nu is infinite: no circle of results holds more wins than ties.
    Nu,
}

/// What keeps the likelihood (with a prior: the posterior) of a model from having a maximum; None: it has one.
pub fn missing(counts: &Counts, model: Model) -> Option<Missing> {
    if model.prior.is_none() {
        let groups = Groups::new(counts);
        if groups.count > 1 {
            return Some(Missing::Ratings(groups.gaps(counts)));
        }
    }
    let tied = counts.pairs.iter().any(|pair| pair.ties > 0.0);
    let decided = counts.pairs.iter().any(|pair| pair.wins > 0.0 || pair.losses > 0.0);
    let bounded = match model {
        Model { ties: Ties::BradleyTerry, .. } => true,
        _ if !tied => true,
        // A prior holds the ratings; one win then holds nu.
        Model { prior: Some(_), .. } => decided,
        _ => more_wins_than_ties(counts),
    };
    (!bounded).then_some(Missing::Nu)
}

/// Who beat or tied whom, as (from, to) of all pairs.
fn edges(counts: &Counts) -> impl Iterator<Item = (usize, usize)> + '_ {
    counts.pairs.iter().flat_map(|pair| {
        let down = (pair.wins > 0.0 || pair.ties > 0.0).then_some((pair.first, pair.second));
        let up = (pair.losses > 0.0 || pair.ties > 0.0).then_some((pair.second, pair.first));
        [down, up].into_iter().flatten()
    })
}

/// Edges by where they begin.
struct Graph {
    starts: Vec<usize>,
    ends: Vec<usize>,
}

impl Graph {
    fn new(items: usize, edges: impl Iterator<Item = (usize, usize)> + Clone) -> Self {
        let mut starts = vec![0; items + 1];
        edges.clone().for_each(|(from, _)| starts[from + 1] += 1);
        (0..items).for_each(|i| starts[i + 1] += starts[i]);
        let (mut next, mut ends) = (starts.clone(), vec![0; starts[items]]);
        for (from, to) in edges {
            ends[next[from]] = to;
            next[from] += 1;
        }
        Self { starts, ends }
    }

    fn of(&self, item: usize) -> &[usize] {
        &self.ends[self.starts[item]..self.starts[item + 1]]
    }

    /// Items in the order in which a depth-first walk leaves them; each walk begins at the next of `order`, and hands
    /// `leave` its number with every item.
    fn walk(&self, order: impl Iterator<Item = usize>, mut leave: impl FnMut(usize, usize)) -> usize {
        let mut seen = vec![false; self.starts.len() - 1];
        let mut walks = 0;
        for root in order {
            if std::mem::replace(&mut seen[root], true) {
                continue;
            }
            let mut path = vec![(root, 0)];
            while let Some((item, at)) = path.last_mut() {
                let (item, next) = (*item, self.of(*item).get(*at).copied());
                *at += 1;
                match next {
                    Some(next) if !seen[next] => {
                        seen[next] = true;
                        path.push((next, 0));
                    }
                    Some(_) => {}
                    None => {
                        leave(item, walks);
                        path.pop();
                    }
                }
            }
            walks += 1;
        }
        walks
    }
}

/// Items that reach each other along won or tied comparisons (Kosaraju's algorithm).
struct Groups {
    of: Vec<usize>,
    count: usize,
}

impl Groups {
    fn new(counts: &Counts) -> Self {
        let all: Vec<(usize, usize)> = edges(counts).collect();
        let mut left = Vec::with_capacity(counts.items);
        let forth = Graph::new(counts.items, all.iter().copied());
        forth.walk(0..counts.items, |item, _| left.push(item));
        let back = Graph::new(counts.items, all.iter().map(|&(from, to)| (to, from)));
        let mut of = vec![0; counts.items];
        let count = back.walk(left.into_iter().rev(), |item, walk| of[item] = walk);
        Self { of, count }
    }

    fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.count];
        self.of.iter().enumerate().for_each(|(item, group)| members[*group].push(item));
        members
    }

    fn gaps(&self, counts: &Counts) -> Gaps {
        let (mut beaten, mut won) = (vec![false; self.count], vec![false; self.count]);
        for (from, to) in edges(counts).map(|(from, to)| (self.of[from], self.of[to])).filter(|(a, b)| a != b) {
            won[from] = true;
            beaten[to] = true;
        }
        let islands = Islands::new(counts);
        let members = self.members();
        // A group that is a whole island is told by that.
        let alone = |group: usize| members[group].len() == islands.members[islands.of[members[group][0]]].len();
        let those = |which: &[bool]| -> Vec<Vec<usize>> {
            let mut found: Vec<_> =
                (0..self.count).filter(|&g| !which[g] && !alone(g)).map(|g| members[g].clone()).collect();
            found.sort_unstable();
            found
        };
        let (mut unbeaten, mut winless) = (those(&beaten), those(&won));
        if let ([top], [bottom], 2) = (&unbeaten[..], &winless[..], self.count) {
            // Two groups: what is said of the one says it of the other.
            if top.len() <= bottom.len() { winless.clear() } else { unbeaten.clear() }
        }
        Gaps { unbeaten, winless, apart: islands.but_the_largest() }
    }
}

/// Items that comparisons connect, whoever won.
struct Islands {
    of: Vec<usize>,
    members: Vec<Vec<usize>>,
}

impl Islands {
    fn new(counts: &Counts) -> Self {
        let both = counts.pairs.iter().flat_map(|pair| [(pair.first, pair.second), (pair.second, pair.first)]);
        let mut of = vec![0; counts.items];
        let count = Graph::new(counts.items, both).walk(0..counts.items, |item, walk| of[item] = walk);
        let mut members = vec![Vec::new(); count];
        of.iter().enumerate().for_each(|(item, island)| members[*island].push(item));
        Self { of, members }
    }

    fn but_the_largest(mut self) -> Vec<Vec<usize>> {
        let sizes = self.members.iter().map(Vec::len);
        // The first of the largest.
        let largest = sizes.enumerate().rev().max_by_key(|(_, size)| *size).map_or(0, |(at, _)| at);
        self.members.remove(largest);
        self.members
    }
}

/// Whether a circle of results, each going from an item to one that it beat or tied, holds more wins than ties. Without
/// one there are ratings with every win's difference at least 2 and every tie's at most 2 (times any factor): along
/// them, with nu growing alike, no result becomes less probable.
fn more_wins_than_ties(counts: &Counts) -> bool {
    if counts.pairs.iter().any(|pair| pair.wins > 0.0 && pair.losses > 0.0) {
        return true;
    }
    // Bellman and Ford: a win costs -1, a tie 1; there is such a circle where distances never stop falling.
    let mut distance = vec![0i64; counts.items];
    for _ in 0..=counts.items {
        let before = distance.clone();
        for pair in &counts.pairs {
            let (i, j) = (pair.first, pair.second);
            if pair.wins > 0.0 {
                distance[j] = distance[j].min(distance[i] - 1);
            }
            if pair.losses > 0.0 {
                distance[i] = distance[i].min(distance[j] - 1);
            }
            if pair.ties > 0.0 {
                distance[j] = distance[j].min(distance[i] + 1);
                distance[i] = distance[i].min(distance[j] + 1);
            }
        }
        if before == distance {
            return false;
        }
    }
    true
}
