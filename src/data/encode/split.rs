//! Texts of rows -> tokens of prompt and completions: the boundary, the end, truncation. Knows no kinds of rows.
use std::borrow::Cow;
use std::ops::Range;

use super::EncodeOptions;
use crate::data::Boundary;
use crate::data::rows::BadRow;
use crate::error::{Error, Result};
use crate::tokenizer::{Tokenizer, mask_of, unmarked};

/// The texts of a row with N completions.
pub(super) struct Texts<'a, const N: usize> {
    pub prompt: Cow<'a, str>,
    /// Prompt and completion together, each.
    pub wholes: [Cow<'a, str>; N],
    /// Where the completions begin in all wholes, in bytes.
    pub at: usize,
    /// Made by a chat template, which has written special tokens itself: nothing is put in front or behind.
    pub rendered: bool,
    /// Byte ranges of the whole (N = 1) to which targets are restricted.
    pub spans: Option<Vec<Range<usize>>>,
}

impl<'a, const N: usize> Texts<'a, N> {
    /// Strings of a row.
    pub fn plain(prompt: &'a str, completions: [&'a str; N]) -> Self {
        let whole = |completion: &'a str| match prompt {
            "" => Cow::Borrowed(completion),
            _ => Cow::Owned([prompt, completion].concat()),
        };
        Texts { prompt: prompt.into(), wholes: completions.map(whole), at: prompt.len(), rendered: false, spans: None }
    }
}

/// The tokens of a row with N completions.
pub(super) struct Split<const N: usize> {
    pub prompt: Vec<i64>,
    pub completions: [Vec<i64>; N],
    /// The prompt's own last tokens that merged away.
    pub lost: Vec<i64>,
    /// For each token of prompt and completion (N = 1) whether it may be a target; none: all may.
    pub mask: Option<Result<Vec<bool>, BadRow>>,
}

/// A tokenizer with the rules by which rows become tokens.
pub struct Encoder<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) options: &'a EncodeOptions,
    pub(super) eos: Option<i64>,
}

impl<'a> Encoder<'a> {
    /// `least`: fewest tokens that `max_length` may allow.
    ///
    /// # Errors
    /// It allows fewer; no EOS where it is to be appended.
    pub fn new(tokenizer: &'a Tokenizer, options: &'a EncodeOptions, least: usize) -> Result<Self> {
        if options.max_length < least {
            let message = format!("max_length is {}", options.max_length);
            return Err(Error::usage(message, format!("give at least {least}; a target needs a token before it")));
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

    /// Tokens of each row; the rows are all plain or all rendered.
    pub(super) fn split<const N: usize>(&self, rows: &[Texts<'_, N>]) -> Result<Vec<Split<N>>> {
        let rendered = rows.first().is_some_and(|row| row.rendered);
        let ids = |texts: &[&str]| match rendered {
            true => self.tokenizer.encode_batch_bare(texts),
            false => self.tokenizer.encode_batch(texts),
        };
        let prompts = ids(&rows.iter().map(|row| &*row.prompt).collect::<Vec<_>>())?;
        // Where there is no prompt the completion starts the sequence, whatever the boundary.
        let joint = |row: &Texts<'_, N>| self.options.boundary == Boundary::Joint || row.prompt.is_empty();
        let (mut whole, mut alone) = (Vec::new(), Vec::new());
        for row in rows {
            match joint(row) {
                true => whole.extend(row.wholes.iter().map(|text| &**text)),
                false => alone.extend(row.wholes.iter().map(|text| &text[row.at..])),
            }
        }
        let mut whole = ids(&whole)?.into_iter();
        let mut alone = self.tokenizer.encode_continuation_batch(&alone)?.into_iter();
        let split = |(row, prompt): (&Texts<'_, N>, Vec<i64>)| {
            let source = if joint(row) { &mut whole } else { &mut alone };
            let completions = std::array::from_fn(|_| source.next().unwrap_or_default());
            let mut split = match joint(row) {
                true => part(prompt, completions),
                false => Split { prompt, completions, lost: Vec::new(), mask: None },
            };
            split.mask = row.spans.as_ref().map(|spans| self.mask(&row.wholes[0], spans)).transpose()?;
            if !row.rendered {
                self.end(&mut split);
            }
            Ok(split)
        };
        rows.iter().zip(prompts).map(split).collect()
    }

    /// Which tokens of `text` lie in `spans`.
    fn mask(&self, text: &str, spans: &[Range<usize>]) -> Result<Result<Vec<bool>, BadRow>> {
        let (_, offsets) = self.tokenizer.encode_with_offsets(text)?;
        let Some(span) = unmarked(&offsets, spans) else { return Ok(Ok(mask_of(&offsets, spans))) };
        let start: String = text[spans[span].clone()].chars().take(20).collect();
        Ok(Err(BadRow::new(
            "unmarked turn",
            format!("no token holds the first character of an assistant's turn ({start:?})"),
            "mark a turn in the chat template from its first visible character on",
        )))
    }

    /// EOS at the end of each completion of plain text, once.
    fn end<const N: usize>(&self, split: &mut Split<N>) {
        let Some(eos) = self.eos.filter(|_| self.options.append_eos) else { return };
        for completion in &mut split.completions {
            if completion.last() != Some(&eos) {
                completion.push(eos);
            }
        }
    }

    /// Cuts to `max_length`; says whether anything was cut.
    pub(super) fn fit<const N: usize>(&self, split: &mut Split<N>) -> bool {
        let max = self.options.max_length;
        let longest = split.completions.iter().map(Vec::len).max().unwrap_or(0);
        if split.prompt.len() + longest <= max {
            return false;
        }
        let budget = max.saturating_sub(split.prompt.len()).max(max / 2);
        for completion in &mut split.completions {
            completion.truncate(budget);
        }
        let cut = start_to_cut(&split.prompt, max - longest.min(budget), self.tokenizer.lead());
        split.prompt.drain(cut.clone());
        if let Some(Ok(mask)) = &mut split.mask {
            mask.drain(cut);
            mask.truncate(split.prompt.len() + split.completions.iter().map(Vec::len).max().unwrap_or(0));
        }
        true
    }
}

/// The prompt ends where it and all wholes part.
fn part<const N: usize>(mut prompt: Vec<i64>, wholes: [Vec<i64>; N]) -> Split<N> {
    let shared = |whole: &Vec<i64>| prompt.iter().zip(whole).take_while(|(a, b)| a == b).count();
    let at = wholes.iter().map(shared).min().unwrap_or(prompt.len());
    let lost = prompt.split_off(at);
    Split { prompt, completions: wholes.map(|mut whole| whole.split_off(at)), lost, mask: None }
}

/// The ids to drop so that the last `keep` stay, and of these the first ones for what the tokenizer puts in front.
fn start_to_cut(ids: &[i64], keep: usize, lead: &[i64]) -> Range<usize> {
    if ids.len() <= keep {
        return 0..0;
    }
    let lead = if ids.starts_with(lead) && lead.len() < keep { lead.len() } else { 0 };
    lead..lead + ids.len() - keep
}
