//! What annotators said: the records of a log, and what stands after all of them. Owns the records' form and the rule
//! that undo takes back the last vote of its annotator; must not know files or the page.
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// What was said of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Side a is better.
    A,
    /// Side b is better.
    B,
    /// Neither is better.
    Tie,
    /// Neither will do.
    BothBad,
    /// Nothing was said.
    Skip,
}

/// A side of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The first of the file.
    A,
    /// The second.
    B,
}

/// A vote, as it is logged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    /// Made by the page, so that a vote that is sent again is known again.
    pub vote: String,
    /// Line of the pair.
    pub pair: usize,
    /// Who.
    pub annotator: String,
    /// What.
    pub choice: Choice,
    /// The side that was shown on the left.
    pub left: Side,
    /// 1, or 2 where the pair was shown again.
    pub showing: u8,
    /// From showing to vote, while the page was visible.
    pub seconds: f64,
    /// When it was logged, in UTC.
    pub time: String,
    /// Which run of the program.
    pub session: String,
}

/// An undo, as it is logged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Undo {
    /// Made by the page, as a vote's.
    pub undo: String,
    /// The vote that is taken back.
    pub of: String,
    /// Who.
    pub annotator: String,
    /// When it was logged, in UTC.
    pub time: String,
    /// Which run of the program.
    pub session: String,
}

/// What a log begins with: the pairs that it belongs to, and what decides who sees what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// Of the log's form.
    pub version: u32,
    /// Name of the pairs' file, for people.
    pub pairs: String,
    /// Of the pairs.
    pub fingerprint: String,
    /// How many pairs.
    pub count: usize,
    /// Of sides, order and shares.
    pub seed: u64,
    /// Share of the pairs that an annotator sees twice.
    pub repeat: f64,
    /// Share of the pairs that every annotator sees.
    pub overlap: f64,
    /// When it was made, in UTC.
    pub time: String,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// The first.
    Begin(Begin),
    /// A vote.
    Vote(Vote),
    /// An undo.
    Undo(Undo),
}

/// What an id stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// A vote, whether or not it was taken back since.
    Vote(Box<Vote>),
    /// An undo.
    Undo(Box<Undo>),
}

/// What stands after all records: for each annotator a stack of votes.
#[derive(Debug, Default)]
pub struct Book {
    stacks: BTreeMap<String, Vec<Vote>>,
    known: HashMap<String, Known>,
    /// Annotators with a vote that says something, by pair and how many such votes.
    judged: HashMap<usize, BTreeMap<String, usize>>,
}

impl Book {
    /// Whether `record` fits what stands.
    ///
    /// # Errors
    /// Why it does not, in words.
    pub fn check(&self, record: &Record) -> Result<(), String> {
        match record {
            Record::Begin(_) => Err("a log has one beginning, in its first line".to_owned()),
            Record::Vote(vote) => {
                self.check_new(&vote.vote)?;
                if !vote.seconds.is_finite() || vote.seconds < 0.0 {
                    return Err(format!("{} is no time in seconds", vote.seconds));
                }
                let before = self.stack(&vote.annotator).iter().filter(|old| old.pair == vote.pair).count();
                if before + 1 != usize::from(vote.showing) || vote.showing > 2 {
                    let message = format!("showing {} of pair {} after {before} votes on it", vote.showing, vote.pair);
                    return Err(message);
                }
                Ok(())
            }
            Record::Undo(undo) => {
                self.check_new(&undo.undo)?;
                match self.stack(&undo.annotator).last() {
                    Some(last) if last.vote == undo.of => Ok(()),
                    _ => Err(format!("the undo of {:?}, which is not that annotator's last vote", undo.of)),
                }
            }
        }
    }

    /// Enters a record that [`Book::check`] let pass.
    pub fn enter(&mut self, record: Record) {
        match record {
            Record::Begin(_) => {}
            Record::Vote(vote) => {
                if vote.choice != Choice::Skip {
                    *self.judged.entry(vote.pair).or_default().entry(vote.annotator.clone()).or_default() += 1;
                }
                self.known.insert(vote.vote.clone(), Known::Vote(Box::new(vote.clone())));
                self.stacks.entry(vote.annotator.clone()).or_default().push(vote);
            }
            Record::Undo(undo) => {
                if let Some(vote) = self.stacks.get_mut(&undo.annotator).and_then(Vec::pop) {
                    self.forget(&vote);
                }
                self.known.insert(undo.undo.clone(), Known::Undo(Box::new(undo)));
            }
        }
    }

    fn forget(&mut self, vote: &Vote) {
        if vote.choice == Choice::Skip {
            return;
        }
        let Some(judges) = self.judged.get_mut(&vote.pair) else { return };
        if let Some(count) = judges.get_mut(&vote.annotator) {
            *count -= 1;
            if *count == 0 {
                judges.remove(&vote.annotator);
            }
        }
    }

    fn check_new(&self, id: &str) -> Result<(), String> {
        if self.known.contains_key(id) { Err(format!("the id {id:?} a second time")) } else { Ok(()) }
    }

    /// The votes of an annotator that stand, oldest first.
    pub fn stack(&self, annotator: &str) -> &[Vote] {
        self.stacks.get(annotator).map_or(&[], Vec::as_slice)
    }

    /// Everybody's votes that stand, by name.
    pub fn stacks(&self) -> impl Iterator<Item = (&str, &[Vote])> {
        self.stacks.iter().filter(|(_, votes)| !votes.is_empty()).map(|(name, votes)| (name.as_str(), votes.as_slice()))
    }

    /// How many votes stand.
    pub fn len(&self) -> usize {
        self.stacks.values().map(Vec::len).sum()
    }

    /// Whether no vote stands.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What an id was used for.
    pub fn known(&self, id: &str) -> Option<&Known> {
        self.known.get(id)
    }

    /// Whether somebody other than `annotator` judged a pair; a skip is no judgement.
    pub fn judged_by_another(&self, pair: usize, annotator: &str) -> bool {
        self.judged.get(&pair).is_some_and(|judges| judges.keys().any(|name| name != annotator))
    }
}
