//! Conversations -> texts, by the tokenizer's chat template. Knows no tokens.
use std::borrow::Cow;
use std::ops::Range;

use super::split::Texts;
use crate::data::rows::{BadRow, Message, RowId};
use crate::error::Result;
use crate::tokenizer::{ChatError, ChatTemplate, Ending, Tokenizer};

/// The template of a tokenizer, for rows that are conversations, of which `row` is the first.
///
/// # Errors
/// There is none.
pub(super) fn template<'a>(tokenizer: &'a Tokenizer, row: &RowId) -> Result<&'a ChatTemplate> {
    tokenizer.chat()?.ok_or_else(|| {
        row.error(
            "is a conversation, but the tokenizer has no chat template",
            "name one in data.chat_template, put chat_template.jinja beside tokenizer.json, or give strings",
        )
    })
}

/// A row of N conversations that begin with `prompt`, with the assistant's answer after it.
pub(super) fn completions<'a, const N: usize>(
    template: &ChatTemplate,
    prompt: &[Message],
    completions: [&[Message]; N],
) -> Result<Texts<'a, N>, BadRow> {
    let beginning = match prompt {
        [] => String::new(),
        _ => template.render(prompt, Ending::GenerationPrompt).map_err(refused)?.text,
    };
    let mut wholes = [const { Cow::Borrowed("") }; N];
    for (whole, completion) in wholes.iter_mut().zip(completions) {
        let messages: Vec<Message> = prompt.iter().chain(completion).cloned().collect();
        *whole = template.render(&messages, Ending::Nothing).map_err(refused)?.text.into();
    }
    let at = wholes.iter().map(|whole| common_prefix(&beginning, whole)).min().unwrap_or(0);
    Ok(Texts { prompt: beginning.into(), wholes, at, rendered: true, spans: None })
}

/// A whole conversation, or one with a prompt: the ranges of its text that the assistant wrote.
///
/// Where the template marks them with `{% generation %}`, as it does; else what each of the assistant's messages adds to
/// the conversation before it and the header of its turn, for templates whose text only grows.
pub(super) fn assistant_spans(template: &ChatTemplate, messages: &[Message]) -> Result<Vec<Range<usize>>, BadRow> {
    let whole = template.render(messages, Ending::Nothing).map_err(refused)?;
    if template.marks_generation() {
        return if whole.generated.is_empty() { Err(no_turn()) } else { Ok(whole.generated) };
    }
    let mut spans = Vec::new();
    for (at, _) in messages.iter().enumerate().filter(|(_, message)| is_assistants(message)) {
        if at == 0 {
            return Err(BadRow::new(
                "chat template",
                "the conversation begins with the assistant, and the chat template marks nothing with {% generation %}",
                "begin with another role, or mark the assistant's turns in the template",
            ));
        }
        let before = template.render(&messages[..at], Ending::GenerationPrompt).map_err(refused)?.text;
        let after = template.render(&messages[..=at], Ending::Nothing).map_err(refused)?.text;
        if !after.starts_with(&before) || !whole.text.starts_with(&after) {
            return Err(BadRow::new(
                "chat template",
                format!("the chat template writes message {} differently in the middle of a conversation", at + 1),
                "mark the assistant's turns with {% generation %} in the template, or unset data.assistant_only",
            ));
        }
        spans.push(before.len()..after.len());
    }
    if spans.is_empty() { Err(no_turn()) } else { Ok(spans) }
}

/// The text that a completion is generated for. A conversation that ends with the assistant's words goes on there.
pub(super) fn prompt(template: &ChatTemplate, messages: &[Message]) -> Result<String, BadRow> {
    let goes_on = messages.last().is_some_and(is_assistants);
    let ending = if goes_on { Ending::ContinueFinal } else { Ending::GenerationPrompt };
    Ok(template.render(messages, ending).map_err(refused)?.text)
}

fn is_assistants(message: &Message) -> bool {
    message.get("role").and_then(|role| role.as_str()) == Some("assistant")
}

/// Bytes that both begin with, up to a character's start.
fn common_prefix(a: &str, b: &str) -> usize {
    a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map_or(a.len().min(b.len()), |((at, _), _)| at)
}

fn refused(error: ChatError) -> BadRow {
    let message = format!("the chat template refuses the conversation: {}", error.message);
    BadRow::new("chat template", message, "correct the roles and their order, or use another template")
}

fn no_turn() -> BadRow {
    BadRow::new(
        "no assistant turn",
        "the assistant says nothing in this conversation (data.assistant_only)",
        "add an assistant message or delete the row",
    )
}
