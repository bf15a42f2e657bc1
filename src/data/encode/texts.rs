//! Rows -> the texts that are tokenised. Knows no tokens.
use super::chat;
use super::split::Texts;
use crate::data::rows::{BadRow, Content, Message, Row};
use crate::tokenizer::ChatTemplate;

/// The texts of a row to learn or score. A text is a completion of nothing.
pub(super) fn lm_texts<'a>(row: &'a Row, template: Option<&ChatTemplate>, only: bool) -> Result<Texts<'a, 1>, BadRow> {
    let plain = |prompt: &'a str, completion: &'a str| match only {
        false => Ok(Texts::plain(prompt, [completion])),
        true => Err(BadRow::new(
            "no conversation",
            "data.assistant_only asks for conversations, and this row holds strings",
            "give \"messages\", or unset data.assistant_only",
        )),
    };
    let conversation = |prompt: &[Message], completion: &[Message]| {
        let template = template.ok_or_else(no_target)?;
        let mut texts = chat::completions(template, prompt, [completion])?;
        if only {
            let messages: Vec<Message> = prompt.iter().chain(completion).cloned().collect();
            texts.spans = Some(chat::assistant_spans(template, &messages)?);
        }
        Ok(texts)
    };
    match row {
        Row::Text(text) => plain("", text),
        Row::Messages(messages) => conversation(&[], messages),
        Row::PromptCompletion { prompt, completion } => match (prompt, completion) {
            (Content::Text(prompt), Content::Text(completion)) => plain(prompt, completion),
            (Content::Messages(prompt), Content::Messages(completion)) => conversation(prompt, completion),
            _ => Err(no_target()),
        },
        Row::Prompt(_) | Row::Preference { .. } => Err(no_target()),
    }
}

pub(super) fn pair_texts<'a>(row: &'a Row, template: Option<&ChatTemplate>) -> Result<Texts<'a, 2>, BadRow> {
    let Row::Preference { prompt, chosen, rejected, .. } = row else { return Err(no_target()) };
    match (prompt, chosen, rejected) {
        (Some(Content::Text(prompt)), Content::Text(chosen), Content::Text(rejected)) => {
            Ok(Texts::plain(prompt, [chosen, rejected]))
        }
        (None, Content::Text(chosen), Content::Text(rejected)) => {
            let at = implicit_prompt(chosen, rejected);
            Ok(Texts::plain(&chosen[..at], [&chosen[at..], &rejected[at..]]))
        }
        (prompt, Content::Messages(chosen), Content::Messages(rejected)) => {
            let prompt = prompt.as_ref().and_then(Content::messages).unwrap_or_default();
            chat::completions(template.ok_or_else(no_target)?, prompt, [chosen, rejected])
        }
        _ => Err(no_target()),
    }
}

pub(super) fn prompt_texts<'a>(row: &'a Row, template: Option<&ChatTemplate>) -> Result<Texts<'a, 0>, BadRow> {
    let text = |text: &'a str| Ok(Texts::plain(text, []));
    match row {
        Row::Text(prompt) => text(prompt),
        Row::Prompt(prompt) | Row::PromptCompletion { prompt, .. } => match prompt {
            Content::Text(prompt) => text(prompt),
            Content::Messages(messages) => {
                let prompt = chat::prompt(template.ok_or_else(no_target)?, messages)?;
                Ok(Texts { prompt: prompt.into(), wholes: [], at: 0, rendered: true, spans: None })
            }
        },
        Row::Messages(_) | Row::Preference { .. } => Err(no_target()),
    }
}

/// Whether the row needs a chat template.
pub(super) fn is_conversation(row: &Row) -> bool {
    match row {
        Row::Text(_) => false,
        Row::Messages(_) => true,
        Row::PromptCompletion { prompt: content, .. }
        | Row::Prompt(content)
        | Row::Preference { chosen: content, .. } => content.messages().is_some(),
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

pub(super) fn no_target() -> BadRow {
    BadRow::new(
        "no target",
        "the row has no token to learn (the first token of a sequence has nothing before it)",
        "give a prompt or a longer completion, or delete the row",
    )
}
