//! The prompts: a column of the file, or what a template makes of a row's columns.
use crate::config::collect::CollectSection;
use crate::data::{Content, DataReport, Located, OnBadRow, Row, Wanted, read_rows, source};
use crate::error::{Error, Result};
use crate::hub;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use std::path::Path;

/// Instructions that a template may take for one row.
const FUEL: u64 = 1_000_000;

/// The prompts of `collect.prompts`, in the file's order, at most `collect.limit`.
///
/// # Errors
/// A file that cannot be read or has no prompts; a row that lacks a column of the template.
pub fn read(c: &CollectSection) -> Result<Vec<Located>> {
    let path = hub::resolve_dataset_file(&c.prompts)?;
    let most = c.limit.unwrap_or(usize::MAX);
    let rows = match &c.template {
        Some(template) => filled(&path, template, most)?,
        None => {
            let mut rows = read_rows(&path, Wanted::Prompts, OnBadRow::Error, &mut DataReport::default())?;
            rows.truncate(most);
            rows
        }
    };
    if rows.is_empty() {
        return Err(Error::file(&path, "holds no rows", "give a file of rows with a prompt"));
    }
    Ok(rows)
}

/// The template, filled with each row's columns.
fn filled(path: &Path, template: &str, most: usize) -> Result<Vec<Located>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build().expect("the usual delimiters");
    environment.set_syntax(syntax);
    let template = environment.template_from_str(template).map_err(|error| {
        Error::usage(format!("collect.template: {error}"), "write columns as {{ name }}, see the example in configs/")
    })?;
    let mut rows = Vec::new();
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
        rows.push(Located { row: Row::Prompt(Content::Text(text)), id: raw.id });
    }
    Ok(rows)
}
