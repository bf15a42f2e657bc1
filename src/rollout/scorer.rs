//! Scores for prompts with completions: a scorer is anything that turns rows of text into numbers.
//!
//! Text, not ids: a reward model has its own tokenizer and its own rule for the end of a sequence.
use super::assess::answered;
use super::forward::{action_scores, sequence_rewards};
use crate::data::{Actions, DataReport, EncodeOptions, Flat, Located, OnBadRow, Prompt, Sequence, encode_lm, lm_batch};
use crate::error::{Error, Result};
use crate::model::{LoadOptions, Pooling, RewardModel};
use crate::tokenizer::Tokenizer;
use std::cell::Cell;
use std::path::{Path, PathBuf};

/// Turns rows of text (prompt with completion) into numbers, one each, in order.
pub trait Scorer {
    /// The scores of `rows`; `check` is asked again and again whether to go on.
    fn score_rows(&mut self, rows: &[Located], check: &dyn Fn() -> Result<()>) -> Result<Vec<f64>>;
}

impl Scorer for RewardScorer {
    fn score_rows(&mut self, rows: &[Located], check: &dyn Fn() -> Result<()>) -> Result<Vec<f64>> {
        let mut scores = Vec::with_capacity(rows.len());
        for chunk in rows.chunks(self.batch_size) {
            check()?;
            scores.extend(self.score(chunk, |_| {})?);
        }
        Ok(scores)
    }
}

/// The tokens of a completion, its EOS included where the reward model adds one, and what each adds to the reward.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenRewards {
    /// Ids of what comes before and has no reward: the prompt, or of a text its first token.
    pub before: Vec<i64>,
    /// Ids.
    pub tokens: Vec<i64>,
    /// r(s, a) of each; the model's bias is in none of them.
    pub rewards: Vec<f64>,
}

/// A reward model with its tokenizer.
pub struct RewardScorer {
    dir: PathBuf,
    model: RewardModel,
    tokenizer: Tokenizer,
    batch_size: usize,
    /// Whether it was said that rows are cut.
    warned: Cell<bool>,
}

impl RewardScorer {
    /// Opens a reward model's directory for scoring.
    pub fn open(dir: &Path, options: &LoadOptions, batch_size: usize) -> Result<Self> {
        let model = RewardModel::from_pretrained(dir, options)?;
        let tokenizer = Tokenizer::from_dir(dir)?;
        tokenizer.check_vocab(model.dims().vocab, dir)?;
        Ok(Self::new(dir, model, tokenizer, batch_size))
    }

    /// A model and its tokenizer that are open already; `dir` is what messages name.
    pub fn new(dir: &Path, model: RewardModel, tokenizer: Tokenizer, batch_size: usize) -> Self {
        Self { dir: dir.to_path_buf(), model, tokenizer, batch_size, warned: Cell::new(false) }
    }

    /// Lets the reward model's chat template write this date from here on.
    pub fn set_moment(&mut self, moment: chrono::NaiveDateTime) {
        self.tokenizer.set_moment(moment);
    }

    /// Refuses prompts (one of them is `prompt`) that the reward model cannot read: conversations, where it has no chat
    /// template, or one that refuses them.
    ///
    /// # Errors
    /// Naming the reward model's directory.
    pub fn check_prompt(&self, prompt: &Prompt) -> Result<()> {
        if prompt.messages.is_some() && self.tokenizer.chat()?.is_none() {
            let message = "this reward model has no chat template, and the prompts are conversations";
            return Err(Error::file(&self.dir, message, "put chat_template.jinja beside its tokenizer.json"));
        }
        let options = EncodeOptions::completions(usize::MAX, self.model.append_eos());
        let row = [answered(prompt, "yes")];
        let read = encode_lm(&self.tokenizer, &row, &options, OnBadRow::Error, &mut DataReport::default());
        read.map(drop).map_err(|error| {
            Error::file(&self.dir, format!("this reward model cannot read a prompt: {error}"), "use another one")
        })
    }

    /// The model.
    pub fn model(&self) -> &RewardModel {
        &self.model
    }

    /// The model's own tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Rewards of `rows` (prompt with completion, or text), one each, in order; `progress` hears how many are done.
    ///
    /// The model's own rule decides whether EOS ends the sequence; its bias is included.
    pub fn score(&self, rows: &[Located], mut progress: impl FnMut(usize)) -> Result<Vec<f64>> {
        let _guard = tch::no_grad_guard();
        let sequences = self.sequences(rows)?;
        let mut rewards = Vec::with_capacity(sequences.len());
        for chunk in sequences.chunks(self.batch_size) {
            rewards.extend(self.score_batch(&chunk.iter().collect::<Vec<_>>())?);
            progress(rewards.len());
        }
        Ok(rewards)
    }

    /// What each token of the rows' completions adds to its row's reward, by a model that sums them (Christiano et al. 2017):
    /// the rewards of a row with the model's bias are [`RewardScorer::score`]'s.
    ///
    /// # Errors
    /// [`Error::File`] for a model that looks at the last token only.
    pub fn token_rewards(&self, rows: &[Located], mut progress: impl FnMut(usize)) -> Result<Vec<TokenRewards>> {
        if self.model.pooling() != Pooling::Sum {
            let message = "this reward model scores the last token only: no other token has a reward";
            return Err(Error::file(&self.dir, message, "train one with reward.pooling = \"sum\""));
        }
        let _guard = tch::no_grad_guard();
        let mut all: Vec<TokenRewards> = Vec::with_capacity(rows.len());
        for chunk in self.sequences(rows)?.chunks(self.batch_size) {
            let sequences: Vec<&Sequence> = chunk.iter().collect();
            let flat = lm_batch(&sequences).flat;
            let actions = actions(&flat, &sequences);
            let scores = Vec::<f32>::try_from(action_scores(&self.model, &flat, &actions)?)?;
            let before = all.len();
            all.extend(chunk.iter().map(|sequence| TokenRewards {
                before: sequence.tokens[..sequence.prompt_len()].to_vec(),
                ..TokenRewards::default()
            }));
            for ((&row, &at), score) in actions.sequence.iter().zip(&actions.indices).zip(scores) {
                let own = &mut all[before + row as usize];
                own.tokens.push(flat.tokens[at as usize]);
                own.rewards.push(f64::from(score));
            }
            progress(all.len());
        }
        Ok(all)
    }

    fn sequences(&self, rows: &[Located]) -> Result<Vec<Sequence>> {
        let most = usize::try_from(self.model.dims().context).unwrap_or(usize::MAX);
        let options = EncodeOptions::completions(most, self.model.append_eos());
        let mut report = DataReport::default();
        let sequences = encode_lm(&self.tokenizer, rows, &options, OnBadRow::Error, &mut report)?;
        if report.truncated > 0 && !self.warned.replace(true) {
            let cut = report.truncated;
            tracing::warn!("the reward model holds {most} tokens: {cut} of {} rows are judged cut", rows.len());
        }
        Ok(sequences)
    }

    fn score_batch(&self, sequences: &[&Sequence]) -> Result<Vec<f64>> {
        let batch = lm_batch(sequences);
        let ends: Vec<i64> = batch.flat.rows.iter().filter_map(|row| row.last().copied()).collect();
        let actions = actions(&batch.flat, sequences);
        let values = sequence_rewards(&self.model, &batch.flat, &ends, &actions)?;
        let raw = Vec::<f32>::try_from(values)?;
        Ok(raw.into_iter().map(|value| f64::from(value) + self.model.bias()).collect())
    }
}

/// The tokens of the sequences' completions in a flat batch of them.
fn actions(flat: &Flat, sequences: &[&Sequence]) -> Actions {
    let mut actions = Actions { sequences: sequences.len(), ..Actions::default() };
    for (at, (row, sequence)) in flat.rows.iter().zip(sequences).enumerate() {
        let completion = &row[sequence.prompt_len()..];
        actions.indices.extend(completion);
        actions.sequence.extend(std::iter::repeat_n(at as i64, completion.len()));
    }
    actions
}
