//! A pair as the page gets it: plain text, in turns where it is a conversation. Must not know HTML: the page sets every
//! string as text.
use super::pairs::Pair;
use crate::data::rows::{Content, Message};
use serde_json::{Value, json};

/// Most characters of a prompt that needs little room.
const SHORT: usize = 280;

/// `{"text"}`, or `{"turns": [{"role", "text", "more"?}]}`; `more` is what a message has besides its text, as JSON.
pub fn content(content: &Content) -> Value {
    match content {
        Content::Text(text) => json!({ "text": text }),
        Content::Messages(messages) => json!({ "turns": messages.iter().map(turn).collect::<Vec<_>>() }),
    }
}

fn turn(message: &Message) -> Value {
    let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
    let more: serde_json::Map<String, Value> = message
        .iter()
        .filter(|(key, value)| !matches!(key.as_str(), "role" | "content") && !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut turn = json!({ "role": role, "text": text(message) });
    if !more.is_empty() {
        turn["more"] = serde_json::to_string_pretty(&more).expect("JSON values serialise").into();
    }
    turn
}

/// The text of a message; parts are put together.
fn text(message: &Message) -> String {
    match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| part.as_str().or(part["text"].as_str()).unwrap_or_default().to_owned();
            parts.iter().map(text).collect()
        }
        _ => String::new(),
    }
}

/// How much room the prompts of all pairs need, so that the page keeps one layout: "none", "short" or "long".
pub fn prompts(pairs: &[Pair]) -> &'static str {
    let mut lengths: Vec<usize> = pairs.iter().filter_map(|pair| pair.prompt.as_ref()).map(room).collect();
    if lengths.is_empty() {
        return "none";
    }
    lengths.sort_unstable();
    if lengths[lengths.len() * 9 / 10] <= SHORT { "short" } else { "long" }
}

/// Characters, a line break and a message's role counted as a line.
fn room(content: &Content) -> usize {
    const LINE: usize = 90;
    let of_text = |text: &str| text.chars().count() + LINE * text.matches('\n').count();
    match content {
        Content::Text(text) => of_text(text),
        Content::Messages(messages) => messages.iter().map(|message| LINE + of_text(&text(message))).sum(),
    }
}
