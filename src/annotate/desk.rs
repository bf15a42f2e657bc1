//! What the page asks for: the next pair, a vote, an undo, the statistics. Ties pairs, plan, votes and log together;
//! must not know HTTP.
use super::log::{self, Log};
use super::pairs::Pairs;
use super::plan::{History, Plan, Showing};
use super::stats;
use super::view;
use super::votes::{Book, Choice, Known, Record, Side, Undo, Vote};
use crate::error::Error;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a pair that is on somebody's screen is kept from the others after that page was last heard of.
const KEPT: Duration = Duration::from_secs(600);
/// Longest name of an annotator, in characters.
const LONGEST_NAME: usize = 64;

/// Why a request is not carried out: an HTTP status, and words for the page.
#[derive(Debug)]
pub struct Refusal {
    /// 400 the request is at fault, 409 it does not fit what stands, 500 the log.
    pub status: u16,
    /// What is said.
    pub message: String,
}

impl Refusal {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::new(500, error.to_string())
    }
}

/// Asks for what is to be judged now.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Who.
    pub annotator: String,
    /// The showing that the page has got already.
    #[serde(default)]
    pub have: Option<String>,
}

/// A vote as the page sends it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ballot {
    /// Who.
    pub annotator: String,
    /// The page's own id of this vote.
    pub vote: String,
    /// The showing that was on the screen.
    pub key: String,
    /// What was pressed.
    pub choice: Pressed,
    /// How long it took.
    pub seconds: f64,
    /// The showing that the page has got already.
    #[serde(default)]
    pub have: Option<String>,
}

/// What was pressed, in terms of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pressed {
    /// The left answer is better.
    Left,
    /// The right one is.
    Right,
    /// Neither is better.
    Tie,
    /// Neither will do.
    BothBad,
    /// No judgement.
    Skip,
}

/// An undo as the page sends it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeBack {
    /// Who.
    pub annotator: String,
    /// The page's own id of this undo.
    pub undo: String,
    /// The showing that the page has got already.
    #[serde(default)]
    pub have: Option<String>,
}

/// A pair on somebody's screen, or next to come there.
struct Lease {
    annotator: String,
    on_screen: bool,
    since: Instant,
}

/// Everything that the page works on.
pub struct Desk {
    pairs: Pairs,
    plan: Plan,
    book: Book,
    log: Log,
    leases: HashMap<usize, Lease>,
    sequences: HashMap<String, Vec<usize>>,
    session: String,
}

impl Desk {
    /// Goes on with a log.
    pub fn new(pairs: Pairs, plan: Plan, log: Log, book: Book, session: String) -> Self {
        Self { pairs, plan, book, log, leases: HashMap::new(), sequences: HashMap::new(), session }
    }

    /// What an annotator is to see now, what comes after it, and how far the work has come.
    ///
    /// # Errors
    /// A name that is none.
    pub fn ask(&mut self, ask: &Ask) -> Result<Value, Refusal> {
        check_name(&ask.annotator)?;
        Ok(self.state(&ask.annotator, ask.have.as_deref()))
    }

    /// Logs a vote, then answers as [`Desk::ask`]. A vote that is sent again is answered alike and counts once.
    ///
    /// # Errors
    /// A request that makes no sense or does not fit what stands; the log cannot be written.
    pub fn vote(&mut self, ballot: Ballot) -> Result<Value, Refusal> {
        check_name(&ballot.annotator)?;
        check_id(&ballot.vote)?;
        let showing = self.showing(&ballot.key)?;
        let left = self.plan.left_side(&ballot.annotator, showing);
        let vote = Vote {
            pair: self.pairs.list[showing.place].number,
            choice: choice(ballot.choice, left),
            left,
            showing: showing.showing,
            seconds: (ballot.seconds * 1000.0).round() / 1000.0,
            time: log::now(),
            session: self.session.clone(),
            vote: ballot.vote,
            annotator: ballot.annotator,
        };
        let annotator = vote.annotator.clone();
        match self.book.known(&vote.vote) {
            Some(Known::Vote(old)) if is_same(old, &vote) => return Ok(self.state(&annotator, ballot.have.as_deref())),
            Some(_) => return Err(Refusal::new(409, "this vote's id was used for something else")),
            None => {}
        }
        if !self.plan.accepts(&self.history(&annotator), showing) {
            return Err(Refusal::new(409, "this pair was judged in another window; here is where that one stands"));
        }
        self.enter(Record::Vote(vote))?;
        Ok(self.state(&annotator, ballot.have.as_deref()))
    }

    /// Logs that the annotator's last vote is taken back, then answers as [`Desk::ask`].
    ///
    /// # Errors
    /// There is no vote to take back; the log cannot be written.
    pub fn undo(&mut self, request: TakeBack) -> Result<Value, Refusal> {
        check_name(&request.annotator)?;
        check_id(&request.undo)?;
        match self.book.known(&request.undo) {
            Some(Known::Undo(old)) if old.annotator == request.annotator => {
                return Ok(self.state(&request.annotator, request.have.as_deref()));
            }
            Some(_) => return Err(Refusal::new(409, "this undo's id was used for something else")),
            None => {}
        }
        let Some(last) = self.book.stack(&request.annotator).last() else {
            return Err(Refusal::new(409, "there is no vote to take back"));
        };
        let undo = Undo {
            of: last.vote.clone(),
            undo: request.undo,
            annotator: request.annotator.clone(),
            time: log::now(),
            session: self.session.clone(),
        };
        self.enter(Record::Undo(undo))?;
        // What is on the screen makes room for the pair that is judged anew.
        self.leases.retain(|_, lease| lease.annotator != request.annotator);
        Ok(self.state(&request.annotator, request.have.as_deref()))
    }

    /// The statistics of all votes that stand.
    pub fn statistics(&self) -> Value {
        json!(stats::of(&self.book))
    }

    /// How many votes stand, and by how many people.
    pub fn counts(&self) -> (usize, usize) {
        (self.book.len(), self.book.stacks().count())
    }

    /// First the disk, then what the next answer is made of.
    fn enter(&mut self, record: Record) -> Result<(), Refusal> {
        self.book.check(&record).map_err(|why| Refusal::new(400, why))?;
        self.log.append(&record)?;
        self.book.enter(record);
        Ok(())
    }

    fn history(&self, annotator: &str) -> History {
        History::of(self.book.stack(annotator), |number| self.pairs.place(number))
    }

    fn state(&mut self, annotator: &str, have: Option<&str>) -> Value {
        let sequence = self.sequences.remove(annotator).unwrap_or_else(|| self.plan.sequence(annotator));
        let history = self.history(annotator);
        let kept = self.leases.iter().find(|(_, lease)| lease.annotator == annotator && lease.on_screen);
        let kept = kept.map(|(&place, _)| Showing { place, showing: 1 });
        self.leases.retain(|_, lease| lease.annotator != annotator && lease.since.elapsed() < KEPT);
        // A pair that only comes next on another's screen is still to be had where nothing else is.
        let not_judged = |place: usize| !self.book.judged_by_another(self.pairs.list[place].number, annotator);
        let free = |place: usize| not_judged(place) && !self.leases.contains_key(&place);
        let not_on_screen =
            |place: usize| not_judged(place) && !self.leases.get(&place).is_some_and(|lease| lease.on_screen);
        let next = |free: &dyn Fn(usize) -> bool, history: &History| self.plan.next(&sequence, history, free);
        let mut current = next(&free, &history).or_else(|| next(&not_on_screen, &history));
        // Asked again, the page goes on with the pair that it has, whatever the others have left meanwhile.
        if current.is_some_and(|showing| showing.showing == 1) {
            current = kept.filter(|kept| self.plan.accepts(&history, *kept) && not_judged(kept.place)).or(current);
        }
        let upcoming = current.and_then(|showing| {
            let mut assumed = history.clone();
            assumed.add(showing.place, true);
            next(&free, &assumed)
        });
        let left = self.plan.left(&sequence, &history, not_on_screen);
        for (showing, on_screen) in [(upcoming, false), (current, true)] {
            if let Some(showing) = showing.filter(|showing| !self.plan.is_shared(showing.place)) {
                let lease = Lease { annotator: annotator.to_owned(), on_screen, since: Instant::now() };
                self.leases.insert(showing.place, lease);
            }
        }
        let pace = stats::pace(self.book.stack(annotator));
        let shown = |showing: Option<Showing>, have| showing.map(|showing| self.show(annotator, showing, have));
        let answer = json!({
            "done": history.len(),
            "left": left,
            "pace": pace,
            "current": shown(current, have),
            "upcoming": shown(upcoming, None),
        });
        self.sequences.insert(annotator.to_owned(), sequence);
        answer
    }

    /// What the page shows; nothing in it tells where a side came from. Only the key where the page has got the rest.
    fn show(&self, annotator: &str, showing: Showing, have: Option<&str>) -> Value {
        let pair = &self.pairs.list[showing.place];
        let key = format!("{}.{}", pair.number, showing.showing);
        if have == Some(key.as_str()) {
            return json!({ "key": key });
        }
        let (left, right) = match self.plan.left_side(annotator, showing) {
            Side::A => (&pair.a, &pair.b),
            Side::B => (&pair.b, &pair.a),
        };
        let prompt = pair.prompt.as_ref().map(view::content);
        json!({ "key": key, "prompt": prompt, "left": view::content(left), "right": view::content(right) })
    }

    /// What the page needs to know once.
    pub fn about(&self) -> Value {
        json!({
            "pairs": self.pairs.path.file_name().unwrap_or_default().to_string_lossy(),
            "count": self.pairs.list.len(),
            "prompts": view::prompts(&self.pairs.list),
            "annotators": self.book.stacks().map(|(name, _)| name).collect::<Vec<_>>(),
        })
    }

    fn showing(&self, key: &str) -> Result<Showing, Refusal> {
        let parsed = key.split_once('.').and_then(|(number, showing)| {
            let place = self.pairs.place(number.parse().ok()?)?;
            Some(Showing { place, showing: showing.parse().ok()? })
        });
        parsed.ok_or_else(|| Refusal::new(400, format!("there is no pair {key:?}")))
    }
}

fn choice(pressed: Pressed, left: Side) -> Choice {
    match (pressed, left) {
        (Pressed::Left, Side::A) | (Pressed::Right, Side::B) => Choice::A,
        (Pressed::Left, Side::B) | (Pressed::Right, Side::A) => Choice::B,
        (Pressed::Tie, _) => Choice::Tie,
        (Pressed::BothBad, _) => Choice::BothBad,
        (Pressed::Skip, _) => Choice::Skip,
    }
}

/// Whether a vote is the one that was logged, sent again.
fn is_same(old: &Vote, new: &Vote) -> bool {
    let what = |vote: &Vote| (vote.pair, vote.showing, vote.choice, vote.annotator.clone());
    what(old) == what(new)
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let length = name.chars().count();
    if name.trim() == name && (1..=LONGEST_NAME).contains(&length) && !name.contains(char::is_control) {
        return Ok(());
    }
    let message =
        format!("a name has 1 to {LONGEST_NAME} characters, none of them a control character, no space around");
    Err(Refusal::new(400, message))
}

fn check_id(id: &str) -> Result<(), Refusal> {
    if (16..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(Refusal::new(400, "an id has 16 to 64 letters and digits"))
}
