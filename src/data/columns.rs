//! The columns of one row -> a typed row, by TRL's conventions. Owns column names and types; must not know files or
//! tokens.
//!
//! `null` is an absent column. Columns that are not asked for are ignored, as TRL does, but for those of a conversation
//! that would change what its template renders: `tools`, `images`, `chat_template_kwargs` are refused by name.
use super::messages::{conversation, empty_turn, turns_of_values};
use super::rows::{BadRow, Content, Message, Row};
use serde_json::{Map, Value};

/// Which columns a stage needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// `prompt` and `completion`, or `messages`, or `text`.
    Lm,
    /// `prompt` (with or without more), or `text` taken as the prompt.
    Prompts,
    /// `chosen` and `rejected`, with `prompt`, `preference` and `margin` where they are there.
    Preference,
}

/// Every column that is looked at; the others of a Parquet file are never read.
pub(super) const COLUMNS: [&str; 14] = [
    "text",
    "messages",
    "conversations",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "preference",
    "margin",
    "label",
    "tools",
    "image",
    "images",
    "chat_template_kwargs",
];

impl Wanted {
    fn expected(self) -> &'static str {
        match self {
            Wanted::Lm => "\"text\", or \"messages\", or \"prompt\" and \"completion\"",
            Wanted::Prompts => "\"prompt\" (or \"text\")",
            Wanted::Preference => {
                "\"chosen\" and \"rejected\" (and where there are such \"prompt\", \"preference\", \"margin\")"
            }
        }
    }
}

/// The row that an object's columns make.
pub(super) fn typed(object: Map<String, Value>, wanted: Wanted) -> Result<Row, BadRow> {
    let columns = Columns { object, wanted };
    match wanted {
        Wanted::Lm => columns.lm(),
        Wanted::Prompts => columns.prompts(),
        Wanted::Preference => columns.preference(),
    }
}

/// Why a row of two equal sides is refused.
pub const EQUAL_SIDES: &str = "chosen equal to rejected";

/// The two sides of a pair that nobody has judged yet, in columns of other names: read as a preference pair is, the
/// first as the chosen side, and what is said of them names `sides`.
///
/// # Errors
/// What makes a preference pair unfit for training.
pub fn pair(mut object: Map<String, Value>, sides: [&'static str; 2]) -> Result<Row, BadRow> {
    for (name, read_as) in sides.iter().zip(["chosen", "rejected"]) {
        if let Some(value) = object.remove(*name) {
            object.insert(read_as.to_owned(), value);
        }
    }
    typed(object, Wanted::Preference).map_err(|mut bad| {
        if sides != ["chosen", "rejected"] {
            for (name, read_as) in sides.iter().zip(["chosen", "rejected"]) {
                bad.message = bad.message.replace(&format!("{read_as:?}"), &format!("{name:?}"));
            }
            if bad.remedy.contains("\"chosen\"") {
                bad.remedy = "remove \"prompt\", or take its messages off both sides";
            }
        }
        bad
    })
}

/// The columns of one row.
struct Columns {
    object: Map<String, Value>,
    wanted: Wanted,
}

impl Columns {
    fn lm(mut self) -> Result<Row, BadRow> {
        if self.has("prompt") && self.has("completion") {
            if self.get("label").is_some_and(Value::is_boolean) {
                return Err(self.unpaired("\"completion\" alone, without \"label\": only completions to learn from"));
            }
            let (prompt, completion) = (self.content("prompt")?, self.content("completion")?);
            self.alike(&[("prompt", &prompt), ("completion", &completion)])?;
            not_empty("completion", &completion)?;
            return Ok(Row::PromptCompletion { prompt, completion });
        }
        for column in ["messages", "conversations"] {
            if self.has(column) {
                return Ok(Row::Messages(self.whole(column)?));
            }
        }
        match self.has("text") {
            true => Ok(Row::Text(self.text()?)),
            false => Err(self.missing()),
        }
    }

    fn prompts(mut self) -> Result<Row, BadRow> {
        if !self.has("prompt") {
            return if self.has("text") { Ok(Row::Prompt(self.string("text")?.into())) } else { Err(self.missing()) };
        }
        let prompt = self.content("prompt")?;
        self.alike(&[("prompt", &prompt)])?;
        if !self.has("completion") || is_empty(&self.object["completion"]) {
            return Ok(Row::Prompt(prompt));
        }
        let completion = self.content("completion")?;
        self.alike(&[("prompt", &prompt), ("completion", &completion)])?;
        Ok(Row::PromptCompletion { prompt, completion })
    }

    fn preference(mut self) -> Result<Row, BadRow> {
        if !self.has("chosen") || !self.has("rejected") {
            let is_unpaired = self.has("label") && self.has("completion");
            return Err(if is_unpaired { self.unpaired(self.wanted.expected()) } else { self.missing() });
        }
        let prompt = if self.has("prompt") { Some(self.content("prompt")?) } else { None };
        let (chosen, rejected) = (self.content("chosen")?, self.content("rejected")?);
        self.alike(&[("chosen", &chosen), ("rejected", &rejected)])?;
        let (prompt, chosen, rejected) = self.split(prompt, chosen, rejected)?;
        not_empty("chosen", &chosen)?;
        not_empty("rejected", &rejected)?;
        let preference = self.number("preference")?.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&preference) {
            return Err(BadRow::new(
                "preference out of range",
                format!("\"preference\" is {preference}, outside [0, 1]"),
                "give the probability that \"chosen\" is better: 1 certain, 0.5 a tie",
            ));
        }
        let margin = self.number("margin")?;
        Ok(Row::Preference { prompt, chosen, rejected, preference, margin })
    }

    /// Prompt and completions. Conversations without a prompt have the messages that both begin with as their prompt.
    fn split(
        &self,
        prompt: Option<Content>,
        chosen: Content,
        rejected: Content,
    ) -> Result<(Option<Content>, Content, Content), BadRow> {
        if chosen == rejected {
            let what = if chosen.text().is_some() { "text" } else { "conversation" };
            return Err(BadRow::new(
                EQUAL_SIDES,
                format!("\"chosen\" and \"rejected\" are the same {what}"),
                "delete the row, or correct one of them",
            ));
        }
        let (chosen, rejected) = match (chosen, rejected) {
            (Content::Messages(chosen), Content::Messages(rejected)) => (chosen, rejected),
            (chosen, rejected) => {
                if let Some(prompt) = &prompt {
                    self.alike(&[("prompt", prompt), ("chosen", &chosen)])?;
                }
                return Ok((prompt, chosen, rejected));
            }
        };
        match prompt {
            Some(Content::Messages(prompt)) => {
                refuse_doubled(&prompt, &chosen, &rejected)?;
                Ok((Some(Content::Messages(prompt)), Content::Messages(chosen), Content::Messages(rejected)))
            }
            // Some data sets repeat the last question of the conversations beside them.
            Some(Content::Text(text)) if !asks(&chosen, &rejected, &text) => Err(mixed("prompt", "chosen")),
            _ => Ok(implicit_prompt(chosen, rejected)),
        }
    }

    /// Rows have few columns: to look at each is faster than to hash names.
    fn get(&self, column: &str) -> Option<&Value> {
        self.object.iter().find(|(name, _)| *name == column).map(|(_, value)| value)
    }

    fn has(&self, column: &str) -> bool {
        self.get(column).is_some_and(|value| !value.is_null())
    }

    /// A string or a conversation.
    fn content(&mut self, column: &'static str) -> Result<Content, BadRow> {
        match self.object.remove(column) {
            Some(Value::String(text)) => Ok(Content::Text(text)),
            Some(Value::Array(turns)) => Ok(Content::Messages(conversation(column, turns)?)),
            other => Err(wrong_type(column, "a string or a list of messages", &other.unwrap_or_default())),
        }
    }

    /// A conversation that is learnt from.
    fn whole(&mut self, column: &'static str) -> Result<Vec<Message>, BadRow> {
        let messages = match self.object.remove(column) {
            Some(Value::Array(turns)) if column == "conversations" => conversation(column, turns_of_values(turns))?,
            Some(Value::Array(turns)) => conversation(column, turns)?,
            other => return Err(wrong_type(column, "a list of messages", &other.unwrap_or_default())),
        };
        let content = Content::Messages(messages);
        self.alike(&[(column, &content)])?;
        not_empty(column, &content)?;
        let Content::Messages(messages) = content else { unreachable!("it was made of messages") };
        Ok(messages)
    }

    fn string(&mut self, column: &'static str) -> Result<String, BadRow> {
        match self.object.remove(column) {
            Some(Value::String(text)) => Ok(text),
            other => Err(wrong_type(column, "a string", &other.unwrap_or_default())),
        }
    }

    /// `text` is learnt from, so it must hold something.
    fn text(&mut self) -> Result<String, BadRow> {
        let text = self.string("text")?;
        if !text.is_empty() {
            return Ok(text);
        }
        Err(BadRow::new("empty text", "\"text\" is empty", "fill it or delete the row"))
    }

    fn number(&self, column: &'static str) -> Result<Option<f64>, BadRow> {
        match self.get(column) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| wrong_type(column, "a number", value)),
        }
    }

    /// Refuses strings beside conversations, and what conversations cannot be rendered with.
    fn alike(&self, columns: &[(&'static str, &Content)]) -> Result<(), BadRow> {
        let (first, others) = columns.split_first().expect("at least one column is compared");
        let strings = first.1.text().is_some();
        if let Some((other, _)) = others.iter().find(|(_, content)| content.text().is_some() != strings) {
            return Err(if strings { mixed(first.0, other) } else { mixed(other, first.0) });
        }
        for column in ["tools", "images", "image", "chat_template_kwargs"] {
            if !strings && self.has(column) && !is_empty(&self.object[column]) {
                return Err(BadRow::new(
                    "unsupported column",
                    format!("the conversation comes with {column:?}, which is not supported"),
                    "render the row with transformers' apply_chat_template into strings, or remove the column",
                ));
            }
        }
        Ok(())
    }

    fn unpaired(&self, expected: &'static str) -> BadRow {
        BadRow::new(
            "unpaired preference",
            format!("is an unpaired preference (\"completion\" with \"label\"); expected {expected}"),
            "put a good and a bad completion of one prompt into one row as \"chosen\" and \"rejected\"",
        )
    }

    fn missing(&self) -> BadRow {
        let expected = self.wanted.expected();
        if let Some(column) = ["messages", "conversations"].into_iter().find(|column| self.has(column)) {
            let remedy = match self.wanted {
                Wanted::Prompts => "write the messages up to the one to generate as \"prompt\"",
                _ => "write whole conversations as \"chosen\" and \"rejected\"",
            };
            let message = format!("expected the columns {expected}; found {column:?}, which only SFT reads");
            return BadRow::new("missing column", message, remedy);
        }
        let found: Vec<String> = self.object.keys().map(|key| format!("{key:?}")).collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        BadRow::new(
            "missing column",
            format!("expected the columns {expected}; found {found}"),
            "rename or add the columns",
        )
    }
}

/// The prompt that two conversations share: the messages they begin with alike, and never the whole of one of them
/// (TRL's `extract_prompt`). None where they differ from the first message on.
fn implicit_prompt(mut chosen: Vec<Message>, mut rejected: Vec<Message>) -> (Option<Content>, Content, Content) {
    let alike = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
    let at = alike.min(chosen.len() - 1).min(rejected.len() - 1);
    let chosen_end = chosen.split_off(at);
    let rejected_end = rejected.split_off(at);
    let prompt = (at > 0).then_some(Content::Messages(chosen));
    (prompt, Content::Messages(chosen_end), Content::Messages(rejected_end))
}

/// Whether the last message that both conversations begin with says `text`.
fn asks(chosen: &[Message], rejected: &[Message], text: &str) -> bool {
    let shared = chosen.iter().zip(rejected).take_while(|(a, b)| a == b).last();
    shared.is_some_and(|(message, _)| message.get("content").and_then(Value::as_str) == Some(text))
}

/// A prompt that stands in front of the completions as well would be learnt twice.
fn refuse_doubled(prompt: &[Message], chosen: &[Message], rejected: &[Message]) -> Result<(), BadRow> {
    if !chosen.starts_with(prompt) || !rejected.starts_with(prompt) {
        return Ok(());
    }
    Err(BadRow::new(
        "prompt twice",
        "\"chosen\" and \"rejected\" begin with all messages of \"prompt\" again",
        "remove \"prompt\", or take its messages off \"chosen\" and \"rejected\"",
    ))
}

fn not_empty(column: &'static str, content: &Content) -> Result<(), BadRow> {
    let (reason, message) = match content {
        Content::Text(text) if text.is_empty() => ("empty completion", format!("{column:?} is empty")),
        Content::Messages(messages) => match empty_turn(messages) {
            Some(at) => ("empty completion", format!("message {} of {column:?}, the assistant's, is empty", at + 1)),
            None => return Ok(()),
        },
        Content::Text(_) => return Ok(()),
    };
    Err(BadRow::new(reason, message, "fill it or delete the row"))
}

fn mixed(string: &str, conversation: &str) -> BadRow {
    BadRow::new(
        "mixed columns",
        format!("{string:?} is a string, {conversation:?} a conversation"),
        "write all columns of a row as strings, or all as lists of messages",
    )
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(Value::is_null),
        _ => false,
    }
}

pub(crate) fn wrong_type(column: &str, expected: &str, value: &Value) -> BadRow {
    let message = format!("{column:?} must be {expected}, found {}", kind(value));
    BadRow::new("wrong type", message, "correct the value")
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
