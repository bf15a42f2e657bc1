//! Tokens of rows -> sequences, pairs and prompts, and what is counted of them.
use super::split::{Encoder, Split, Texts};
use super::texts::{is_conversation, no_target};
use super::{Pair, Prompt, Sequence, chat};
use crate::data::OnBadRow;
use crate::data::rows::{BadRow, Content, DataReport, Located, Row, RowId};
use crate::error::Result;
use crate::tokenizer::ChatTemplate;

impl Encoder<'_> {
    /// What becomes of `rows`: `texts` makes their texts, `finish` takes their tokens.
    pub(super) fn rows<'r, const N: usize, E>(
        &self,
        rows: &'r [Located],
        on_bad: OnBadRow,
        report: &mut DataReport,
        texts: impl Fn(&'r Row, Option<&ChatTemplate>) -> Result<Texts<'r, N>, BadRow>,
        finish: impl Fn(&Self, Split<N>, &Located, &mut DataReport) -> Result<E, BadRow>,
    ) -> Result<Vec<E>> {
        let first = rows.iter().find(|located| is_conversation(&located.row));
        let template = first.map(|located| chat::template(self.tokenizer, &located.id)).transpose()?;
        // Plain texts and rendered ones are tokenised apart, then taken again in the rows' order.
        let mut kinds = [Vec::new(), Vec::new()];
        let mut made = Vec::with_capacity(rows.len());
        for located in rows {
            made.push(texts(&located.row, template).map(|texts| {
                let kind = usize::from(texts.rendered);
                kinds[kind].push(texts);
                kind
            }));
        }
        let [plain, rendered] = kinds;
        let mut splits = [self.split(&plain)?.into_iter(), self.split(&rendered)?.into_iter()];
        let mut encoded = Vec::with_capacity(rows.len());
        for (made, located) in made.into_iter().zip(rows) {
            let split = made.and_then(|kind| splits[kind].next().ok_or_else(no_target));
            match split.and_then(|split| finish(self, split, located, report)) {
                Ok(row) => encoded.push(row),
                Err(bad) => bad.handle(&located.id, on_bad, report)?,
            }
        }
        Ok(encoded)
    }

    pub(super) fn sequence(
        &self,
        mut split: Split<1>,
        located: &Located,
        report: &mut DataReport,
    ) -> Result<Sequence, BadRow> {
        let truncated = self.fit(&mut split);
        let Split { prompt, completions: [completion], lost, mask } = split;
        let prompt_len = if self.options.completion_only { prompt.len().max(1) } else { 1 };
        let mut tokens = prompt;
        tokens.extend(completion);
        let mut sequence = Sequence::new(tokens, prompt_len, located.id.clone());
        if let Some(mask) = mask.transpose()? {
            let wanted: Vec<usize> =
                sequence.target_positions().filter(|&at| mask.get(at).copied().unwrap_or(false)).collect();
            sequence.targets = wanted.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..run[run.len() - 1] + 1).collect();
        }
        if sequence.targets.is_empty() {
            return Err(no_target());
        }
        let targets: Vec<&[i64]> = sequence.targets.iter().map(|range| &sequence.tokens[range.clone()]).collect();
        self.count(&lost, truncated, sequence.tokens.len(), &targets, &located.id, report);
        Ok(sequence)
    }

    pub(super) fn pair(&self, mut split: Split<2>, located: &Located, report: &mut DataReport) -> Result<Pair, BadRow> {
        let Row::Preference { preference, margin, .. } = &located.row else { return Err(no_target()) };
        let truncated = self.fit(&mut split);
        let Split { prompt, completions: [chosen, rejected], lost, .. } = split;
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
        let (preference, margin, id) = (*preference, *margin, located.id.clone());
        Ok(Pair { prompt, chosen, rejected, preference, margin, id })
    }

    pub(super) fn prompt(
        &self,
        mut split: Split<0>,
        located: &Located,
        report: &mut DataReport,
    ) -> Result<Prompt, BadRow> {
        if split.prompt.is_empty() {
            return Err(BadRow::new("empty prompt", "the prompt has no tokens", "write something or delete the row"));
        }
        let cut = self.fit(&mut split);
        self.count(&[], cut, split.prompt.len(), &[], &located.id, report);
        // What is shown and judged is what the model sees.
        let (text, messages) = match &located.row {
            Row::Text(text) => (Some(text.clone()), None),
            Row::Prompt(prompt) | Row::PromptCompletion { prompt, .. } => match prompt {
                Content::Text(text) => (Some(text.clone()), None),
                Content::Messages(messages) => (None, Some(messages.clone())),
            },
            _ => (None, None),
        };
        let text = text.filter(|_| !cut);
        let decoded = || self.tokenizer.decode(&split.prompt, messages.is_none());
        let text = text.map_or_else(decoded, Ok).map_err(|error| {
            BadRow::new("undecodable prompt", error.to_string(), "check the decoder in tokenizer.json")
        })?;
        Ok(Prompt { tokens: split.prompt, text, messages, id: located.id.clone() })
    }

    fn count(&self, lost: &[i64], cut: bool, tokens: usize, targets: &[&[i64]], id: &RowId, report: &mut DataReport) {
        report.truncated += usize::from(cut);
        report.tokens += tokens;
        report.targets += targets.iter().map(|ids| ids.len()).sum::<usize>();
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
