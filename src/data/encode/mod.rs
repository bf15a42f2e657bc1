//! Rows -> token sequences: the boundary between prompt and completion, EOS, truncation. No batches, no tensors.
//!
//! - Joint boundary: prompt and prompt + completion are tokenised; the prompt ends where the two part, which is before
//!   its own end where tokens merge across it (TRL 1.16, `common_prefix_length`). A pair's prompt is what all three
//!   share, so that it can stand once in a batch.
//! - Conversations go through the tokenizer's chat template first; it writes special tokens itself.
//! - EOS is appended, as an id, to every completion that does not end with it; not to conversations, which end as their
//!   template ends them, in training and when they are scored.
//! - Position t is predicted from t - 1, so position 0 is never a target.
//! - Too long: the prompt loses its start (a BOS that the tokenizer put there stays), then the completion its end. The
//!   completion may fill what the prompt leaves, and half of `max_length` in any case.
mod chat;
mod finish;
mod split;
mod texts;

use std::ops::Range;
use std::path::PathBuf;

use super::columns::Wanted;
use super::read::{CHUNK, for_each_chunk};
use super::rows::{DataReport, Located, Message, RowId, refuse_empty};
use super::{Boundary, OnBadRow};
use crate::config::DataConfig;
use crate::error::{Error, Result};
use crate::tokenizer::{ChatTemplate, Tokenizer};
use texts::{lm_texts, pair_texts, prompt_texts};

pub use split::Encoder;

/// How rows become sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Most tokens of a sequence, at least 2.
    pub max_length: usize,
    /// How the boundary is found.
    pub boundary: Boundary,
    /// Only completion tokens are targets; otherwise every token but the first.
    pub completion_only: bool,
    /// SFT: only what the assistant says in a conversation is a target.
    pub assistant_only: bool,
    /// Whether completions end with EOS.
    pub append_eos: bool,
}

impl EncodeOptions {
    /// As `[data]` has it, for rows that are learnt.
    pub fn of(config: &DataConfig) -> Self {
        EncodeOptions {
            boundary: config.boundary,
            completion_only: config.completion_only,
            assistant_only: config.assistant_only,
            ..EncodeOptions::completions(config.max_length, true)
        }
    }

    /// As `[data]` has it, for prompts that get `new_tokens` more.
    pub fn prompts(config: &DataConfig, new_tokens: usize) -> Self {
        let max_length = config.max_length.saturating_sub(new_tokens);
        EncodeOptions { max_length, append_eos: false, ..Self::of(config) }
    }

    /// Completions to learn or score, at most `max_length` tokens, with the configuration's defaults.
    pub fn completions(max_length: usize, append_eos: bool) -> Self {
        EncodeOptions {
            max_length,
            boundary: Boundary::Joint,
            completion_only: true,
            assistant_only: false,
            append_eos,
        }
    }
}

/// A sequence to learn or score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Ids, prompt first.
    pub tokens: Vec<i64>,
    /// Ranges of positions that are targets, in order, none empty; the first starts at 1 or later.
    pub targets: Vec<Range<usize>>,
    /// Where the row stands.
    pub id: RowId,
}

impl Sequence {
    /// A sequence whose tokens from position `prompt_len` on are targets.
    pub fn new(tokens: Vec<i64>, prompt_len: usize, id: RowId) -> Self {
        let range = prompt_len.max(1)..tokens.len();
        let targets = if range.is_empty() { Vec::new() } else { vec![range] };
        Sequence { tokens, targets, id }
    }

    /// The first position that is a target, or the length where none is.
    pub fn prompt_len(&self) -> usize {
        self.targets.first().map_or(self.tokens.len(), |range| range.start)
    }

    /// Positions that are targets.
    pub fn target_positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.targets.iter().cloned().flatten()
    }
}

/// Two completions of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Ids that both sequences start with; may be empty.
    pub prompt: Vec<i64>,
    /// Ids of the better completion.
    pub chosen: Vec<i64>,
    /// Ids of the worse completion.
    pub rejected: Vec<i64>,
    /// The probability that `chosen` is better.
    pub preference: f64,
    /// By how much `chosen` should win, where the row says so.
    pub margin: Option<f64>,
    /// Where the row stands.
    pub id: RowId,
}

/// What a completion is generated for.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Ids, at least one.
    pub tokens: Vec<i64>,
    /// The prompt as text: what stands in the row (a conversation as its template writes it), or what is left of it where
    /// it was cut.
    pub text: String,
    /// The conversation, where the row holds one: the whole of it, also where the tokens were cut. What scores an answer
    /// has a length of its own.
    pub messages: Option<Vec<Message>>,
    /// Where the row stands.
    pub id: RowId,
}

/// What rows become.
pub trait Encode: Sized {
    /// The columns it is made of.
    const WANTED: Wanted;
    /// Fewest tokens that `max_length` may allow.
    const LEAST: usize = 2;

    /// What becomes of each of `rows`, in order, without those that `on_bad` leaves out.
    ///
    /// # Errors
    /// Conversations without a chat template; with [`OnBadRow::Error`] the first bad row.
    fn encode(encoder: &Encoder<'_>, rows: &[Located], on_bad: OnBadRow, report: &mut DataReport) -> Result<Vec<Self>>;
}

/// Reads and encodes the rows of files, a chunk at a time; `keep` takes what each chunk becomes.
///
/// # Errors
/// As [`for_each_chunk`] and [`encode_rows`].
pub fn encode_files<E: Encode>(
    tokenizer: &Tokenizer,
    files: &[PathBuf],
    options: &EncodeOptions,
    (on_bad, limit): (OnBadRow, Option<usize>),
    report: &mut DataReport,
    mut keep: impl FnMut(Vec<E>) -> Result<()>,
) -> Result<()> {
    let encoder = Encoder::new(tokenizer, options, E::LEAST)?;
    let mut count = 0;
    for_each_chunk(files, E::WANTED, on_bad, report, limit, |rows, report| {
        let encoded = E::encode(&encoder, rows, on_bad, report)?;
        count += encoded.len();
        keep(encoded)
    })?;
    match files.first() {
        Some(first) => refuse_empty(first, count, report),
        None => Err(Error::usage("no data file is named", "name one in data.train")),
    }
}

impl Encode for Sequence {
    const WANTED: Wanted = Wanted::Lm;

    fn encode(encoder: &Encoder<'_>, rows: &[Located], on_bad: OnBadRow, report: &mut DataReport) -> Result<Vec<Self>> {
        let only = encoder.options.assistant_only;
        let texts = |row, template: Option<&ChatTemplate>| lm_texts(row, template, only);
        encoder.rows(rows, on_bad, report, texts, Encoder::sequence)
    }
}

impl Encode for Pair {
    const WANTED: Wanted = Wanted::Preference;

    fn encode(encoder: &Encoder<'_>, rows: &[Located], on_bad: OnBadRow, report: &mut DataReport) -> Result<Vec<Self>> {
        encoder.rows(rows, on_bad, report, pair_texts, Encoder::pair)
    }
}

impl Encode for Prompt {
    const WANTED: Wanted = Wanted::Prompts;
    const LEAST: usize = 1;

    fn encode(encoder: &Encoder<'_>, rows: &[Located], on_bad: OnBadRow, report: &mut DataReport) -> Result<Vec<Self>> {
        encoder.rows(rows, on_bad, report, prompt_texts, Encoder::prompt)
    }
}

/// What `rows` become, in order; a pair without a prompt has what its completions begin with alike as prompt, a prompt is
/// cut from its start and nothing is appended. `report` counts on from reading.
///
/// # Errors
/// No EOS where it is to be appended, `max_length` too small, no row left; otherwise as [`Encode::encode`].
pub fn encode_rows<E: Encode>(
    tokenizer: &Tokenizer,
    rows: &[Located],
    options: &EncodeOptions,
    on_bad: OnBadRow,
    report: &mut DataReport,
) -> Result<Vec<E>> {
    let encoder = Encoder::new(tokenizer, options, E::LEAST)?;
    // Rows that no file was read for have not been counted yet.
    if report.rows == 0 {
        report.rows = rows.len();
    }
    let mut encoded = Vec::with_capacity(rows.len());
    for chunk in rows.chunks(CHUNK) {
        encoded.extend(E::encode(&encoder, chunk, on_bad, report)?);
    }
    match rows.first() {
        Some(first) => refuse_empty(&first.id.file, encoded.len(), report).map(|()| encoded),
        None => Err(Error::usage("there are no rows to encode", "give a data file with rows")),
    }
}

/// [`encode_rows`] for sequences.
///
/// # Errors
/// As [`encode_rows`].
pub fn encode_lm(
    tokenizer: &Tokenizer,
    rows: &[Located],
    options: &EncodeOptions,
    on_bad: OnBadRow,
    report: &mut DataReport,
) -> Result<Vec<Sequence>> {
    encode_rows(tokenizer, rows, options, on_bad, report)
}

/// [`encode_rows`] for pairs.
///
/// # Errors
/// As [`encode_rows`].
pub fn encode_pairs(
    tokenizer: &Tokenizer,
    rows: &[Located],
    options: &EncodeOptions,
    on_bad: OnBadRow,
    report: &mut DataReport,
) -> Result<Vec<Pair>> {
    encode_rows(tokenizer, rows, options, on_bad, report)
}

/// [`encode_rows`] for prompts.
///
/// # Errors
/// As [`encode_rows`].
pub fn encode_prompts(
    tokenizer: &Tokenizer,
    rows: &[Located],
    options: &EncodeOptions,
    on_bad: OnBadRow,
    report: &mut DataReport,
) -> Result<Vec<Prompt>> {
    encode_rows(tokenizer, rows, options, on_bad, report)
}
