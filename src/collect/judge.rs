//! Labels of pairs by a reward model or a program, by the Bradley-Terry probability of its rewards.
use super::completions::Completion;
use super::pairs::Pair;
use crate::config::collect::{CollectSection, Judge, JudgeLabels};
use crate::data::{Located, Prompt, Row};
use crate::error::Result;
use crate::loss::bradley_terry::probability;
use crate::model::LoadOptions;
use crate::rollout::assess::answered;
use crate::rollout::command::CommandScorer;
use crate::rollout::scorer::{RewardScorer, Scorer};
use crate::train::progress::Progress;
use crate::{hub, seed};
use rand::RngExt;
use std::time::Duration;

/// What was said of a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Label {
    /// Which side is `chosen`.
    pub a_wins: bool,
    /// The probability that `chosen` is better, where it is not taken as certain.
    pub preference: Option<f64>,
    /// The judge's rewards of a and b.
    pub rewards: [f64; 2],
}

/// Somebody who scores rows.
pub struct Opened {
    scorer: Box<dyn Scorer>,
}

/// The configured judge; None where pairs stay unjudged. `first`: a prompt that it must be able to read.
///
/// # Errors
/// A reward model that cannot be opened, a program that cannot be started.
pub fn open(c: &CollectSection, first: &Located, options: &LoadOptions) -> Result<Option<Opened>> {
    let scorer: Box<dyn Scorer> = match &c.judge {
        judge if judge.is_none() => return Ok(None),
        Judge::Named(path) => {
            let scorer = RewardScorer::open(&hub::resolve_model(path)?, options, c.batch_size)?;
            scorer.check_prompt(&question(first))?;
            Box::new(scorer)
        }
        Judge::Program(command) => {
            let keys = ("collect.judge", "collect.judge_timeout");
            let mut scorer = CommandScorer::start(command, Duration::from_secs_f64(c.judge_timeout), keys)?;
            // Its answer to this one row is not used; a program that gives none is not to cost hours of sampling.
            scorer.score_rows(&[answered(&question(first), "yes")], &|| Ok(()))?;
            Box::new(scorer)
        }
    };
    Ok(Some(Opened { scorer }))
}

/// A row's prompt, for a judge, who needs no tokens of it.
fn question(row: &Located) -> Prompt {
    let content = match &row.row {
        Row::Prompt(content) | Row::PromptCompletion { prompt: content, .. } => Some(content),
        _ => None,
    };
    let text = content.and_then(|content| content.text()).unwrap_or_default().to_owned();
    let messages = content.and_then(|content| content.messages()).map(<[_]>::to_vec);
    Prompt { tokens: Vec::new(), text, messages, id: row.id.clone() }
}

impl Opened {
    /// A label for each pair.
    ///
    /// # Errors
    /// A prompt that the judge cannot read, a program that fails.
    pub fn label(&mut self, c: &CollectSection, completions: &[Completion], pairs: &[Pair]) -> Result<Vec<Label>> {
        // Each completion once, though it may stand in several pairs.
        let mut used: Vec<usize> = pairs.iter().flat_map(|pair| [pair.a, pair.b]).collect();
        used.sort_unstable();
        used.dedup();
        let mut rewards = vec![f64::NAN; completions.len()];
        let mut progress = Progress::new("judging", used.len() as u64, 0);
        for (at, chunk) in used.chunks(c.batch_size).enumerate() {
            let rows: Vec<Located> = chunk.iter().map(|&at| completions[at].row.clone()).collect();
            let scores = self.scorer.score_rows(&rows, &|| Ok(()))?;
            chunk.iter().zip(scores).for_each(|(&at, score)| rewards[at] = score);
            progress.set((at * c.batch_size + chunk.len()) as u64, "");
        }
        let labels = pairs.iter().enumerate();
        Ok(labels.map(|(at, pair)| label(c, at, [rewards[pair.a], rewards[pair.b]])).collect())
    }
}

/// The label of pair `at` by its rewards.
fn label(c: &CollectSection, at: usize, rewards: [f64; 2]) -> Label {
    let p = probability(rewards[0] - rewards[1]);
    let a_is_higher = rewards[0] >= rewards[1];
    let (a_wins, preference) = match c.labels {
        JudgeLabels::Hard => {
            let tie = rewards[0] == rewards[1] || (p - 0.5).abs() < c.tie;
            (a_is_higher, tie.then_some(0.5))
        }
        JudgeLabels::Sampled => (seed::rng(c.seed, "labels", &[at as u64]).random::<f64>() < p, None),
        JudgeLabels::Mu => (a_is_higher, Some(if a_is_higher { p } else { 1.0 - p })),
    };
    Label { a_wins, preference, rewards }
}
