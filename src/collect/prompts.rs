//! The prompts: a column of the file, or what a template makes of a row's columns.
use crate::config::collect::CollectSection;
use crate::data::{Content, DataReport, Located, OnBadRow, Row, Wanted, read_rows, source};
use crate::error::{Error, Result};
use crate::hub;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};
use std::path::Path;

/// Instructions that a template may take for one row.
const FUEL: u64 = 1_000_000;

/// Columns of a prompt's row that its pairs have of their own, or that would change what a conversation means.
const OWN: [&str; 20] = [
    "prompt",
    "completion",
    "messages",
    "conversations",
    "chosen",
    "rejected",
    "preference",
    "margin",
    "a",
    "b",
    "a_source",
    "b_source",
    "chosen_source",
    "rejected_source",
    "votes",
    "annotators",
    "tools",
    "image",
    "images",
    "chat_template_kwargs",
];

/// Prompts, and what else stands in their rows.
pub struct Prompts {
    /// The prompts.
    pub rows: Vec<Located>,
    /// Further columns of each one's row, which its pairs keep.
    pub more: Vec<Map<String, Value>>,
}

/// The prompts of `collect.prompts`, in the file's order, at most `collect.limit`.
///
/// # Errors
/// A file that cannot be read or has no prompts; a row that lacks a column of the template.
pub fn read(c: &CollectSection) -> Result<Prompts> {
    let path = hub::resolve_dataset_file(&c.prompts)?;
    let most = c.limit.unwrap_or(usize::MAX);
    let mut prompts = match &c.template {
        Some(template) => filled(&path, template, most)?,
        None => {
            let mut rows = read_rows(&path, Wanted::Prompts, OnBadRow::Error, &mut DataReport::default())?;
            rows.truncate(most);
            Prompts { more: source::whole(&path, &rows)?, rows }
        }
    };
    for object in &mut prompts.more {
        object.retain(|name, _| !OWN.contains(&name.as_str()));
    }
    if prompts.rows.is_empty() {
        return Err(Error::file(&path, "holds no rows", "give a file of rows with a prompt"));
    }
    Ok(prompts)
}

/// The template, filled with each row's columns.
fn filled(path: &Path, template: &str, most: usize) -> Result<Prompts> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build().expect("the usual delimiters");
    environment.set_syntax(syntax);
    let template = environment.template_from_str(template).map_err(|error| {
        Error::usage(format!("collect.template: {error}"), "write columns as {{ name }}, see the example in configs/")
    })?;
    let mut prompts = Prompts { rows: Vec::new(), more: Vec::new() };
    for raw in source::open(path)?.take(most) {
        let raw = raw?;
        let object = raw.object.map_err(|bad| bad.error(&raw.id))?;
        let text = template.render(Serde(&object)).map_err(|error| {
            let columns = object.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let remedy = format!("the row has {columns}; correct the row or collect.template");
            raw.id.error(format!("collect.template cannot be filled: {error}"), remedy)
        })?;
        if text.trim().is_empty() {
            return Err(raw.id.error("collect.template makes an empty prompt of it", "delete the row"));
        }
        prompts.rows.push(Located { row: Row::Prompt(Content::Text(text)), id: raw.id });
        prompts.more.push(object);
    }
    Ok(prompts)
}
