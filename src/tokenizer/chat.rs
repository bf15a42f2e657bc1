//! Chat templates: messages to the text that a model was trained on, as transformers' `apply_chat_template` renders it,
//! and which of it `{% generation %}` marks. Owns minijinja; imports nothing of ours but `error`. Must not know tokens.
//!
//! A template is other people's program. It sees the messages and the names of the special tokens, nothing else: no
//! files, no other templates. Its steps, the size of its values and the length of its text are bounded.
mod clock;
mod environment;
mod held;
mod methods;
mod python;
mod source;

use crate::error::{Error, Result};
use chrono::NaiveDateTime;
use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Map, Value as Json};
use std::ops::Range;
use std::path::Path;

/// One message as it stands in a row: `{"role", "content", ...}`; the order of keys is kept.
pub type Message = Map<String, Json>;

/// Steps a template may take whatever the messages; one step is an instruction, or 64 bytes made or read.
const STEPS: u64 = 1_000_000;
/// More steps for every message; and one for every byte of them.
const STEPS_PER_MESSAGE: u64 = 5_000;
/// Bytes of a template; real ones have at most some 30 thousand.
const LONGEST_SOURCE: usize = 100_000;
/// Bytes of stack for compiling one; memory is taken only where it is touched.
const COMPILER_STACK: usize = 1 << 30;
/// What transformers appends to the last message to find its end again.
const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";
/// The names under which a message's reasoning may stand; the first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
/// The special tokens that transformers hands to a template wherever they are named.
const SPECIAL: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What follows the last message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing: the conversation is whole.
    Nothing,
    /// The header of the assistant's next turn (transformers' `add_generation_prompt`).
    GenerationPrompt,
    /// The text stops where the last message's content does (transformers' `continue_final_message`).
    ContinueFinal,
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Byte ranges of `text` that `{% generation %}` blocks made, in order.
    pub generated: Vec<Range<usize>>,
}

/// Why messages cannot be rendered: the template's own words (`raise_exception`), a variable that is missing, too many
/// steps, too much text. One line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ChatError {
    /// What is wrong, without the row's place.
    pub message: String,
}

/// A compiled template with the special tokens that it may name.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    special: Vec<(String, String)>,
    marks_generation: bool,
    /// The date that templates write; none: today's.
    moment: Option<NaiveDateTime>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("bytes", &self.source.len())
            .field("marks_generation", &self.marks_generation)
            .finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// The template of a model directory: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json` (a text,
    /// or a list of named templates, of which "default" is taken). `None` where there is none.
    ///
    /// # Errors
    /// A template that does not compile, with its line; a list without "default"; a broken JSON file.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>> {
        let config_path = dir.join("tokenizer_config.json");
        let config = super::read_object(&config_path)?.unwrap_or_default();
        let own = dir.join("chat_template.jinja");
        let (path, text) = if own.is_file() {
            let text = std::fs::read_to_string(&own).map_err(Error::io(&own, "read"))?;
            (own, text)
        } else {
            match template_of(&config, &config_path)? {
                Some(text) => (config_path, text),
                None => return Ok(None),
            }
        };
        Self::from_text(&text, &path, dir).map(Some)
    }

    /// A template that stands in `path`, with the special tokens of the model directory `dir`.
    ///
    /// # Errors
    /// A template that does not compile, with its line; a broken JSON file.
    pub fn from_text(text: &str, path: &Path, dir: &Path) -> Result<Self> {
        let config = super::read_object(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
        let special = special_tokens(&config, super::read_object(&dir.join("special_tokens_map.json"))?);
        Self::new(text, special).map_err(|e| {
            Error::file(path, format!("the chat template does not compile: {}", e.message), "correct the template")
        })
    }

    /// Compiles a template; `special` are variables, such as `bos_token`, and their texts.
    ///
    /// # Errors
    /// What the template's syntax lacks, and the line.
    pub fn new(template: &str, special: Vec<(String, String)>) -> Result<Self, ChatError> {
        if template.len() > LONGEST_SOURCE {
            let message = format!("{} bytes are more than {LONGEST_SOURCE}, which no template needs", template.len());
            return Err(ChatError { message });
        }
        let source = source::rewrite(template);
        let mut environment = environment::new().map_err(|e| plain(&e))?;
        // The compiler calls itself for every operator of a long expression: a stack that the longest source cannot fill.
        let compile = move || environment.add_template_owned(environment::NAME, source.text).map(|()| environment);
        let thread = std::thread::Builder::new().stack_size(COMPILER_STACK).spawn(compile);
        let compiled = thread.map_err(|e| ChatError { message: format!("no thread to compile it: {e}") })?.join();
        let environment = compiled.map_err(|_| ChatError { message: "its syntax is too deep".to_owned() })?;
        Ok(Self {
            environment: environment.map_err(|e| plain(&e))?,
            source: template.to_owned(),
            special,
            marks_generation: source.marks_generation,
            moment: None,
        })
    }

    /// Whether the template marks what the assistant wrote.
    pub fn marks_generation(&self) -> bool {
        self.marks_generation
    }

    /// Whether the template writes the date, so that it renders another text on another day.
    pub fn writes_the_date(&self) -> bool {
        self.source.contains("strftime_now")
    }

    /// Renders as of this moment from here on.
    pub fn set_moment(&mut self, moment: NaiveDateTime) {
        self.moment = Some(moment);
    }

    /// The text of a conversation, as of the moment that was set, else now.
    ///
    /// # Errors
    /// No message, messages that the template refuses, a last message that cannot be continued.
    pub fn render(&self, messages: &[Message], ending: Ending) -> Result<Rendered, ChatError> {
        self.render_at(messages, ending, self.moment.unwrap_or_else(|| chrono::Local::now().naive_local()))
    }

    /// [`render`](Self::render) at a moment, for templates that write the date.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_at(
        &self,
        messages: &[Message],
        ending: Ending,
        moment: NaiveDateTime,
    ) -> Result<Rendered, ChatError> {
        if messages.is_empty() {
            return Err(refuse("the conversation has no messages"));
        }
        let mut messages: Vec<Message> = messages.iter().map(as_passed).collect();
        let last = match ending {
            Ending::ContinueFinal => Some(self.tag_last(&mut messages)?),
            _ => None,
        };
        let json = serde_json::to_string(&messages).map_err(|e| refuse(e.to_string()))?;
        let steps = STEPS + STEPS_PER_MESSAGE * messages.len() as u64 + json.len() as u64;
        let run = Run { template: self, messages: &messages, json: &json, steps, ending, moment };
        let text = run.text("", "")?;
        let generated = if self.marks_generation { run.spans(&text)? } else { Vec::new() };
        let mut rendered = Rendered { text, generated };
        if let Some(last) = last {
            cut(&mut rendered, &last)?;
        }
        Ok(rendered)
    }

    /// Puts [`TAG`] behind the last message's content; returns the content.
    fn tag_last(&self, messages: &mut [Message]) -> Result<String, ChatError> {
        let content = messages.last_mut().and_then(|message| message.get_mut("content"));
        let Some(content) = content else { return Err(refuse("the last message has no content to continue")) };
        if !self.source.contains("content") {
            return Err(refuse("the chat template does not use a message's content"));
        }
        let text = match content {
            Json::String(text) => Some(text),
            Json::Array(parts) => parts.iter_mut().rev().find_map(|part| match part.get_mut("text") {
                Some(Json::String(text)) => Some(text),
                _ => None,
            }),
            _ => None,
        };
        let Some(text) = text else { return Err(refuse("the last message has no text to continue")) };
        let whole = text.clone();
        text.push_str(TAG);
        Ok(whole)
    }
}

/// One rendering's input.
struct Run<'r> {
    template: &'r ChatTemplate,
    messages: &'r [Message],
    /// The messages.
    json: &'r str,
    steps: u64,
    ending: Ending,
    moment: NaiveDateTime,
}

impl Run<'_> {
    /// Renders with these texts around generated text.
    fn text(&self, begin: &str, end: &str) -> Result<String, ChatError> {
        let moment = self.moment;
        let clock = Value::from_function(move |format: &str| {
            clock::strftime(moment, format).map_err(|e| minijinja::Error::new(ErrorKind::InvalidOperation, e))
        });
        let mut variables = vec![
            ("messages", python::from_json_rows(self.messages)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(self.ending == Ending::GenerationPrompt)),
            ("strftime_now", clock),
            (source::HELD, held::guard(self.json.len())),
            (source::BEGIN, Value::from(begin)),
            (source::END, Value::from(end)),
        ];
        variables.extend(self.template.special.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))));
        let mut environment = self.template.environment.clone();
        environment.set_fuel(Some(self.steps));
        let template = environment.get_template(environment::NAME).map_err(|e| plain(&e))?;
        let text = template.render(Value::from_pairs(variables)).map_err(|e| plain(&e))?;
        if text.len() > python::LONGEST {
            return Err(refuse(format!("the text is longer than {} bytes", python::LONGEST)));
        }
        Ok(text)
    }

    /// Where generated text stands in `plain`: the same text is made with two characters around it that occur nowhere
    /// in the messages or the template, which works in loops, macros and captured text alike. Refused where the template
    /// goes on to change text that it had marked, such as by trimming it.
    fn spans(&self, plain: &str) -> Result<Vec<Range<usize>>, ChatError> {
        let unused = |c: &char| !self.json.contains(*c) && !self.template.source.contains(*c) && !plain.contains(*c);
        let mut free = ('\u{10ff00}'..='\u{10fffd}').filter(unused);
        let (Some(begin), Some(end)) = (free.next(), free.next()) else {
            return Err(refuse("the messages use every character that could mark generated text"));
        };
        let marked = self.text(&begin.to_string(), &end.to_string())?;
        let (mut text, mut open, mut spans) = (String::with_capacity(plain.len()), Vec::new(), Vec::new());
        let changed = || refuse("the chat template changes text that its generation tags have marked");
        for c in marked.chars() {
            match c {
                c if c == begin => open.push(text.len()),
                c if c == end => spans.push(open.pop().ok_or_else(changed)?..text.len()),
                c => text.push(c),
            }
        }
        if text != plain || !open.is_empty() {
            return Err(changed());
        }
        spans.sort_by_key(|span| (span.start, span.end));
        Ok(spans)
    }
}

/// A message as `apply_chat_template` hands it on: keys that are null are left out, and reasoning stands under the old
/// name and the new.
fn as_passed(message: &Message) -> Message {
    let kept = message.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone()));
    let kept: Message = kept.collect();
    let Some(reasoning) = REASONING.iter().find_map(|name| kept.get(*name)).cloned() else { return kept };
    let mut passed = Message::new();
    passed.insert("thinking".to_owned(), reasoning.clone());
    passed.extend(kept);
    passed.insert("reasoning_content".to_owned(), reasoning);
    passed
}

/// Ends the text where the last message's content ends. Where the template has trimmed what followed the content, what
/// precedes it is trimmed, too.
fn cut(rendered: &mut Rendered, last: &str) -> Result<(), ChatError> {
    let tag = TAG.trim_end();
    let text = &rendered.text;
    let at = text.rfind(tag).filter(|_| text.contains(last.trim_matches(python::is_space)));
    let Some(at) = at else { return Err(refuse("the chat template does not write the last message as it is")) };
    let kept = &text[..at];
    let length = if text[at..].starts_with(TAG) { at } else { kept.trim_end_matches(python::is_space).len() };
    rendered.text.truncate(length);
    rendered.generated.retain(|span| span.start < length);
    rendered.generated.iter_mut().for_each(|span| span.end = span.end.min(length));
    Ok(())
}

fn template_of(config: &Map<String, Json>, path: &Path) -> Result<Option<String>> {
    let bad = |message: &str| Err(Error::file(path, message, "write the template into chat_template.jinja"));
    let text = |value: &Json| value.as_str().map(str::to_owned);
    match config.get("chat_template") {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(template)) => Ok(Some(template.clone())),
        Some(Json::Array(list)) => {
            // Of several with one name, the last, as where a list becomes a dictionary.
            let named = list.iter().rev().find(|entry| entry["name"] == "default");
            match named.and_then(|entry| text(&entry["template"])) {
                Some(template) => Ok(Some(template)),
                None => bad("chat_template is a list without a template named \"default\""),
            }
        }
        Some(_) => bad("chat_template is neither a text nor a list of named templates"),
    }
}

/// Names and texts as transformers' `special_tokens_map`: `special_tokens_map.json` comes before
/// `tokenizer_config.json` unless the latter lists its added tokens; other keys that end in `_token` count, too.
fn special_tokens(config: &Map<String, Json>, map: Option<Map<String, Json>>) -> Vec<(String, String)> {
    let mut merged = config.clone();
    if !config.contains_key("added_tokens_decoder") {
        merged.extend(map.unwrap_or_default());
    }
    let mut found = Vec::new();
    let mut add = |name: &str, value: &Json| {
        // Either the token, or an AddedToken object with its text under "content".
        if let Some(text) = value.get("content").unwrap_or(value).as_str() {
            found.push((name.to_owned(), text.to_owned()));
        }
    };
    for (name, value) in &merged {
        if SPECIAL.contains(&name.as_str()) || name.ends_with("_token") {
            add(name, value);
        }
    }
    for key in ["extra_special_tokens", "model_specific_special_tokens"] {
        merged.get(key).and_then(Json::as_object).into_iter().flatten().for_each(|(name, value)| add(name, value));
    }
    found
}

fn refuse(message: impl Into<String>) -> ChatError {
    ChatError { message: message.into() }
}

/// The engine's error in one line: the template's own words where it raised one, else what happened, and the line.
fn plain(error: &minijinja::Error) -> ChatError {
    let kind = error.kind();
    let what = match (kind, error.detail()) {
        (ErrorKind::OutOfFuel, _) => "the chat template takes too many steps".to_owned(),
        (ErrorKind::InvalidOperation, Some(detail)) => return refuse(one_line(detail)),
        (_, Some(detail)) => format!("{kind}: {}", one_line(detail)),
        (_, None) => kind.to_string(),
    };
    refuse(match error.line() {
        Some(line) => format!("line {line} of the chat template: {what}"),
        None => what,
    })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
