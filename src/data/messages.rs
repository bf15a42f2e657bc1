//! The messages of a conversational column: which are accepted, and what is said of the others. Must not know columns'
//! meaning, files or templates.
//!
//! A message is an object with `role`, a string, and `content`: a string, a list of text parts, or null beside other
//! keys (an assistant's `tool_calls`). Everything else in it stays as it is for the template.
use super::columns::kind;
use super::rows::{BadRow, Message};
use serde_json::{Map, Value};

/// The messages of a list, at least one.
pub(super) fn conversation(column: &str, turns: Vec<Value>) -> Result<Vec<Message>, BadRow> {
    if turns.is_empty() {
        let message = format!("{column:?} is a conversation without messages");
        return Err(BadRow::new("no messages", message, "write at least one message or delete the row"));
    }
    let checked = |(at, turn)| message(turn).map_err(|what| bad(column, at, what));
    turns.into_iter().enumerate().map(checked).collect()
}

/// `from` and `value` by the names that templates know (TRL's `maybe_convert_to_chatml`).
pub(super) fn turns_of_values(turns: Vec<Value>) -> Vec<Value> {
    let rename = |(key, value): (String, Value)| match key.as_str() {
        "from" => ("role".to_owned(), value),
        "value" => ("content".to_owned(), value),
        _ => (key, value),
    };
    let turn = |turn| match turn {
        Value::Object(fields) => Value::Object(fields.into_iter().map(rename).collect::<Map<_, _>>()),
        other => other,
    };
    turns.into_iter().map(turn).collect()
}

/// The first message of the assistant that says nothing and calls nothing.
pub(super) fn empty_turn(messages: &[Message]) -> Option<usize> {
    messages.iter().position(|message| {
        let assistant = message.get("role").and_then(Value::as_str) == Some("assistant");
        let acts = ["tool_calls", "function_call", "reasoning_content"].iter().any(|key| !is_void(message.get(*key)));
        assistant && is_silent(message.get("content")) && !acts
    })
}

fn message(turn: Value) -> Result<Message, String> {
    let Value::Object(message) = turn else {
        return Err(format!("must be an object with \"role\" and \"content\", found {}", kind(&turn)));
    };
    match message.get("role") {
        Some(Value::String(role)) if !role.is_empty() => {}
        Some(Value::String(_)) => return Err("has an empty \"role\"".to_owned()),
        None => return Err(format!("has no \"role\"; it has {}", keys(&message))),
        Some(other) => return Err(format!("has a \"role\" that must be a string, found {}", kind(other))),
    }
    match message.get("content") {
        Some(Value::String(_)) => {}
        Some(Value::Array(parts)) => parts.iter().try_for_each(text_part)?,
        None | Some(Value::Null) if has_more(&message) => {}
        None | Some(Value::Null) => return Err("has no \"content\"".to_owned()),
        Some(other) => {
            return Err(format!("has a \"content\" that must be a string or a list of parts, found {}", kind(other)));
        }
    }
    Ok(message)
}

/// Parts that are no text would leave a mark in the rendered text and nothing behind it.
fn text_part(part: &Value) -> Result<(), String> {
    let kind_of_part = part.get("type").and_then(Value::as_str);
    match part {
        Value::String(_) => Ok(()),
        Value::Object(fields) if kind_of_part == Some("text") && fields.get("text").is_some_and(Value::is_string) => {
            Ok(())
        }
        _ => match kind_of_part {
            Some(name) if name != "text" => Err(format!("has a part of type {name:?}; only text is supported")),
            _ => Err("has a part that is no {\"type\": \"text\", \"text\": \"...\"}".to_owned()),
        },
    }
}

/// Whether a message has anything besides role and content.
fn has_more(message: &Message) -> bool {
    message.iter().any(|(key, value)| key != "role" && key != "content" && !is_void(Some(value)))
}

fn is_void(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    }
}

fn is_silent(content: Option<&Value>) -> bool {
    match content {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(parts)) => parts.iter().all(|part| {
            let text = if part.is_string() { Some(part) } else { part.get("text") };
            text.and_then(Value::as_str).is_some_and(str::is_empty)
        }),
        Some(_) => false,
    }
}

fn keys(message: &Message) -> String {
    let keys: Vec<String> = message.keys().map(|key| format!("{key:?}")).collect();
    if keys.is_empty() { "no keys".to_owned() } else { keys.join(", ") }
}

fn bad(column: &str, at: usize, what: String) -> BadRow {
    BadRow::new("bad message", format!("message {} of {column:?} {what}", at + 1), "correct the message")
}
