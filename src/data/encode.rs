//! Rows -> token sequences: the boundary between prompt and completion, EOS, truncation. No batches, no tensors.
//!
//! - Joint boundary: prompt and prompt + completion are tokenised; the prompt ends where the two part, which is before
//!   its own end where tokens merge across it (TRL 1.16, `common_prefix_length`). A pair's prompt is what all three
//!   share, so that it can stand once in a batch.
//! - EOS is appended, as an id, to every completion that does not end with it.
//! - Position t is predicted from t - 1, so position 0 is never a target.
//! - Too long: the prompt loses its start (a BOS that the tokenizer put there stays), then the completion its end. The
//!   completion may fill what the prompt leaves, and half of `max_length` in any case.
use super::rows::{BadRow, DataReport, Located, Row, RowId, refuse_empty};
use super::{Boundary, OnBadRow};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Rows whose texts are in memory as prompt + completion at a time.
const CHUNK: usize = 512;

/// How rows become sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Most tokens of a sequence, at least 2.
    pub max_length: usize,
    /// How the boundary is found.
    pub boundary: Boundary,
    /// Only completion tokens are targets; otherwise every token but the first.
    pub completion_only: bool,
    /// Whether completions end with EOS.
    pub append_eos: bool,
}

/// A sequence to learn or score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Ids, prompt first.
    pub tokens: Vec<i64>,
    /// The first position that is a target; at least 1.
    pub prompt_len: usize,
    /// Where the row stands.
    pub id: RowId,
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
    /// By how much `chosen` should win; 0 where the row does not say.
    pub margin: f64,
    /// Where the row stands.
    pub id: RowId,
}

/// What a completion is generated for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Ids, at least one.
    pub tokens: Vec<i64>,
    /// The prompt as text: what stands in the row, or what is left of it where it was cut.
    pub text: String,
    /// The row's own completion, where it has one.
    pub completion: Option<String>,
    /// Where the row stands.
    pub id: RowId,
}

/// Sequences of `text` and `prompt` + `completion` rows, in order. `report` counts on from reading.
///
/// # Errors
/// No EOS where it is to be appended, `max_length` under 2, no row left; with [`OnBadRow::Error`] the first bad row.
pub fn encode_lm(
    tokenizer: &Tokenizer,
    rows: &[Located],
    options: &EncodeOptions,
    on_bad: OnBadRow,
    report: &mut DataReport,
) -> Result<Vec<Sequence>> {
    let encoder = Encoder::new(tokenizer, options)?;
    count_rows(rows, report);
    let mut sequences = Vec::with_capacity(rows.len());
    for chunk in rows.chunks(CHUNK) {
        // A text is a completion of nothing.
        let texts = chunk.iter().map(|located| match &located.row {
            Row::Text(text) => Texts { prompt: "", completions: [text] },
            Row::PromptCompletion { prompt, completion } => Texts { prompt, completions: [completion] },
            Row::Prompt(_) | Row::Preference { .. } => Texts { prompt: "", completions: [""] },
        });
        for (split, located) in encoder.split(&texts.collect::<Vec<_>>())?.into_iter().zip(chunk) {
            match encoder.sequence(split, located, report) {
                Ok(sequence) => sequences.push(sequence),
                Err(bad) => bad.handle(&located.id, on_bad, report)?,
            }
        }
    }
    still_some(rows, sequences.len(), report)?;
    Ok(sequences)
}

/// Pairs of preference rows, in order. A row without a prompt has what its completions begin with alike as prompt.
///
/// # Errors
/// As [`encode_lm`].
pub fn encode_pairs(
    tokenizer: &Tokenizer,
    rows: &[Located],
    options: &EncodeOptions,
    on_bad: OnBadRow,
    report: &mut DataReport,
) -> Result<Vec<Pair>> {
    let encoder = Encoder::new(tokenizer, options)?;
    count_rows(rows, report);
    let mut pairs = Vec::with_capacity(rows.len());
    for chunk in rows.chunks(CHUNK) {
        let texts = chunk.iter().map(|located| match &located.row {
            Row::Preference { prompt: Some(prompt), chosen, rejected, .. } => {
                Texts { prompt, completions: [chosen.as_str(), rejected] }
            }
            Row::Preference { prompt: None, chosen, rejected, .. } => {
                let at = implicit_prompt(chosen, rejected);
                Texts { prompt: &chosen[..at], completions: [&chosen[at..], &rejected[at..]] }
            }
            _ => Texts { prompt: "", completions: ["", ""] },
        });
        for (split, located) in encoder.split(&texts.collect::<Vec<_>>())?.into_iter().zip(chunk) {
            match encoder.pair(split, located, report) {
                Ok(pair) => pairs.push(pair),
                Err(bad) => bad.handle(&located.id, on_bad, report)?,
            }
        }
    }
    still_some(rows, pairs.len(), report)?;
    Ok(pairs)
}

/// Prompts to generate for, in order, cut from their start to `options.max_length` tokens. Nothing is appended.
///
/// # Errors
/// `max_length` of 0, no row left; with [`OnBadRow::Error`] the first prompt without a token.
pub fn encode_prompts(
    tokenizer: &Tokenizer,
    rows: &[Located],
    options: &EncodeOptions,
    on_bad: OnBadRow,
    report: &mut DataReport,
) -> Result<Vec<Prompt>> {
    if options.max_length == 0 {
        return Err(Error::usage("prompts of at most 0 tokens cannot be", "raise data.max_length"));
    }
    count_rows(rows, report);
    let mut prompts = Vec::with_capacity(rows.len());
    for chunk in rows.chunks(CHUNK) {
        let texts: Vec<(&str, Option<&str>)> = chunk.iter().map(|located| prompt_of(&located.row)).collect();
        let ids = tokenizer.encode_batch(&texts.iter().map(|(prompt, _)| *prompt).collect::<Vec<_>>())?;
        for ((mut tokens, (text, completion)), located) in ids.into_iter().zip(texts).zip(chunk) {
            if tokens.is_empty() {
                let bad = BadRow::new("empty prompt", "the prompt has no tokens", "write something or delete the row");
                bad.handle(&located.id, on_bad, report)?;
                continue;
            }
            let cut = tokens.len() > options.max_length;
            report.truncated += usize::from(cut);
            cut_start(&mut tokens, options.max_length, tokenizer.lead());
            report.tokens += tokens.len();
            // What is shown and judged is what the model sees.
            let text = if cut { tokenizer.decode(&tokens, true)? } else { text.to_owned() };
            let completion = completion.map(str::to_owned);
            prompts.push(Prompt { tokens, text, completion, id: located.id.clone() });
        }
    }
    still_some(rows, prompts.len(), report)?;
    Ok(prompts)
}

fn prompt_of(row: &Row) -> (&str, Option<&str>) {
    match row {
        Row::Text(text) | Row::Prompt(text) => (text, None),
        Row::PromptCompletion { prompt, completion } => (prompt, Some(completion)),
        Row::Preference { prompt, .. } => (prompt.as_deref().unwrap_or_default(), None),
    }
}

/// The prompt of a preference row that has none: what both begin with, less the space before they part, and never the
/// whole of one of them (TRL's `extract_prompt`). Returns its length in bytes.
fn implicit_prompt(chosen: &str, rejected: &str) -> usize {
    let pairs = || chosen.char_indices().zip(rejected.chars());
    let at = match pairs().find(|((_, a), b)| a != b) {
        Some(((at, _), _)) => at,
        // One begins with the whole of the other: its last character stays a completion.
        None => return pairs().last().map_or(0, |((at, _), _)| at),
    };
    if chosen[..at].ends_with(' ') { at - 1 } else { at }
}

/// Rows that no file was read for have not been counted yet.
fn count_rows(rows: &[Located], report: &mut DataReport) {
    if report.rows == 0 {
        report.rows = rows.len();
    }
}

fn still_some(rows: &[Located], left: usize, report: &DataReport) -> Result<()> {
    match rows.first() {
        Some(first) => refuse_empty(&first.id.file, left, report),
        None => Err(Error::usage("there are no rows to encode", "give a data file with rows")),
    }
}

/// The texts of a row with N completions.
struct Texts<'a, const N: usize> {
    prompt: &'a str,
    completions: [&'a str; N],
}

/// The tokens of a row with N completions.
struct Split<const N: usize> {
    prompt: Vec<i64>,
    completions: [Vec<i64>; N],
    /// The prompt's own last tokens that merged away.
    lost: Vec<i64>,
}

struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    options: &'a EncodeOptions,
    eos: Option<i64>,
}

impl<'a> Encoder<'a> {
    fn new(tokenizer: &'a Tokenizer, options: &'a EncodeOptions) -> Result<Self> {
        if options.max_length < 2 {
            let message = format!("max_length is {}", options.max_length);
            return Err(Error::usage(message, "give at least 2: a token and the one before it"));
        }
        let eos = tokenizer.eos();
        if options.append_eos && eos.is_none() {
            return Err(Error::usage(
                "the tokenizer names no EOS token, so completions cannot be ended",
                "add \"eos_token\" to the model's tokenizer_config.json",
            ));
        }
        Ok(Self { tokenizer, options, eos })
    }

    fn split<const N: usize>(&self, rows: &[Texts<'_, N>]) -> Result<Vec<Split<N>>> {
        let prompts = self.tokenizer.encode_batch(&rows.iter().map(|row| row.prompt).collect::<Vec<_>>())?;
        // Where there is no prompt the completion starts the sequence, whatever the boundary.
        let joint = |row: &Texts<'_, N>| self.options.boundary == Boundary::Joint || row.prompt.is_empty();
        let (mut whole, mut alone) = (Vec::new(), Vec::new());
        for row in rows {
            match joint(row) {
                true => whole.extend(row.completions.map(|completion| [row.prompt, completion].concat())),
                false => alone.extend(row.completions),
            }
        }
        let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
        let mut whole = self.tokenizer.encode_batch(&whole)?.into_iter();
        let mut alone = self.tokenizer.encode_continuation_batch(&alone)?.into_iter();
        let splits = rows.iter().zip(prompts).map(|(row, prompt)| {
            let source = if joint(row) { &mut whole } else { &mut alone };
            let completions = std::array::from_fn(|_| source.next().unwrap_or_default());
            if joint(row) { part(prompt, completions) } else { Split { prompt, completions, lost: Vec::new() } }
        });
        Ok(splits.map(|split| self.end(split)).collect())
    }

    /// EOS at the end of each completion, once.
    fn end<const N: usize>(&self, mut split: Split<N>) -> Split<N> {
        if let Some(eos) = self.eos.filter(|_| self.options.append_eos) {
            for completion in &mut split.completions {
                if completion.last() != Some(&eos) {
                    completion.push(eos);
                }
            }
        }
        split
    }

    fn sequence(&self, mut split: Split<1>, located: &Located, report: &mut DataReport) -> Result<Sequence, BadRow> {
        let (Row::Text(_) | Row::PromptCompletion { .. }) = &located.row else { return Err(no_target()) };
        let truncated = self.fit(&mut split);
        let Split { prompt, completions: [completion], lost } = split;
        let prompt_len = if self.options.completion_only { prompt.len().max(1) } else { 1 };
        let mut tokens = prompt;
        tokens.extend(completion);
        if tokens.len() <= prompt_len {
            return Err(no_target());
        }
        self.count(&lost, truncated, tokens.len(), &[&tokens[prompt_len..]], &located.id, report);
        Ok(Sequence { tokens, prompt_len, id: located.id.clone() })
    }

    fn pair(&self, mut split: Split<2>, located: &Located, report: &mut DataReport) -> Result<Pair, BadRow> {
        let Row::Preference { preference, margin, .. } = &located.row else { return Err(no_target()) };
        let truncated = self.fit(&mut split);
        let Split { prompt, completions: [chosen, rejected], lost } = split;
        // Without a prompt the first token has nothing before it.
        let first = usize::from(prompt.is_empty());
        if chosen.len() <= first || rejected.len() <= first {
            return Err(no_target());
        }
        if chosen == rejected {
            return Err(BadRow::new(
                "chosen equal to rejected",
                format!(
                    "\"chosen\" and \"rejected\" have the same tokens{}",
                    if truncated { " after truncation to data.max_length" } else { "" }
                ),
                "raise data.max_length, or delete the row",
            ));
        }
        let tokens = prompt.len() + chosen.len() + rejected.len();
        self.count(&lost, truncated, tokens, &[&chosen[first..], &rejected[first..]], &located.id, report);
        let (preference, margin, id) = (*preference, margin.unwrap_or(0.0), located.id.clone());
        Ok(Pair { prompt, chosen, rejected, preference, margin, id })
    }

    /// Cuts to `max_length`; says whether anything was cut.
    fn fit<const N: usize>(&self, split: &mut Split<N>) -> bool {
        let max = self.options.max_length;
        let longest = split.completions.iter().map(Vec::len).max().unwrap_or(0);
        if split.prompt.len() + longest <= max {
            return false;
        }
        let budget = max.saturating_sub(split.prompt.len()).max(max / 2);
        for completion in &mut split.completions {
            completion.truncate(budget);
        }
        cut_start(&mut split.prompt, max - longest.min(budget), self.tokenizer.lead());
        true
    }

    fn count(&self, lost: &[i64], cut: bool, tokens: usize, targets: &[&[i64]], id: &RowId, report: &mut DataReport) {
        report.truncated += usize::from(cut);
        report.tokens += tokens;
        let ends = self.eos.is_some_and(|eos| targets.iter().any(|ids| ids.contains(&eos)));
        report.with_eos_target += usize::from(ends);
        if lost.is_empty() {
            return;
        }
        report.boundary_moved += 1;
        if report.boundary_example.is_none() {
            let lost = self.tokenizer.decode(lost, false).unwrap_or_default();
            report.boundary_example =
                Some(format!("{id}: the end of the prompt, {lost:?}, merges with the start of the completion"));
        }
    }
}

/// The prompt ends where it and all wholes part.
fn part<const N: usize>(mut prompt: Vec<i64>, wholes: [Vec<i64>; N]) -> Split<N> {
    let shared = |whole: &Vec<i64>| prompt.iter().zip(whole).take_while(|(a, b)| a == b).count();
    let at = wholes.iter().map(shared).min().unwrap_or(0);
    let lost = prompt.split_off(at);
    Split { prompt, completions: wholes.map(|mut whole| whole.split_off(at)), lost }
}

/// Keeps the last `keep` ids, and of these the first ones for what the tokenizer puts in front.
fn cut_start(ids: &mut Vec<i64>, keep: usize, lead: &[i64]) {
    if ids.len() <= keep {
        return;
    }
    let lead = if ids.starts_with(lead) && lead.len() < keep { lead.len() } else { 0 };
    let drop = ids.len() - keep;
    ids.drain(lead..lead + drop);
}

fn no_target() -> BadRow {
    BadRow::new(
        "no target",
        "the row has no token to learn (the first token of a sequence has nothing before it)",
        "give a prompt or a longer completion, or delete the row",
    )
}
