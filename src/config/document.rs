//! A configuration file as the user typed it: sections taken out one by one, problems collected with file and line.
use crate::error::{Error, Result};
use serde::de::{DeserializeOwned, Deserializer, Visitor, value};
use std::path::{Path, PathBuf};

/// Problems found so far, one line each.
#[derive(Clone)]
pub struct Problems {
    path: PathBuf,
    text: String,
    /// What stands before every key: empty, or the part of a larger file that is read ("dpo.").
    prefix: String,
    /// Keys from the command line, with their values as they were typed.
    overridden: Vec<(String, String)>,
    /// Keys and sections of which nothing could be read: what is said of their defaults would mislead.
    unreadable: Vec<String>,
    lines: Vec<String>,
}

impl Problems {
    fn new(path: &Path, text: String, overridden: Vec<(String, String)>) -> Self {
        Self { path: path.into(), text, prefix: String::new(), overridden, unreadable: Vec::new(), lines: Vec::new() }
    }

    /// Adds a problem at `key` ("section.key"): what is wrong and the remedy, in one line.
    pub fn at(&mut self, key: &str, message: impl std::fmt::Display) {
        let key = format!("{}{key}", self.prefix);
        let place = if self.overridden.iter().any(|(k, _)| *k == key) {
            "on the command line".to_owned()
        } else {
            match line_of(&self.text, &key) {
                Some(line) => format!("{}:{line}", self.path.display()),
                None => self.path.display().to_string(),
            }
        };
        self.lines.push(format!("{place}: {key}: {message}"));
    }

    /// Adds a problem at `key` unless `ok`; not where the key's own value could not be read, which was said already.
    pub fn require(&mut self, ok: bool, key: &str, message: impl std::fmt::Display) {
        let section = key.split('.').next().unwrap_or(key);
        if !ok && !self.unreadable.iter().any(|bad| bad == key || bad == section) {
            self.at(key, message);
        }
    }

    /// The last value of a key on the command line, as it was typed.
    fn typed(&self, key: &str) -> Option<&str> {
        let key = format!("{}{key}", self.prefix);
        self.overridden.iter().rev().find(|(k, _)| *k == key).map(|(_, value)| value.as_str())
    }

    /// Adds a problem with a value that cannot be read as what it should be.
    fn unreadable(&mut self, key: &str, message: impl std::fmt::Display) {
        self.at(key, message);
        self.unreadable.push(key.to_owned());
    }
}

/// A configuration file with its overrides applied.
#[derive(Clone)]
pub struct Document {
    table: toml::Table,
    taken: Vec<&'static str>,
    problems: Problems,
}

impl Document {
    /// Reads `path` and applies `overrides` ("section.key=value"; a value that is no TOML value is a string).
    ///
    /// # Errors
    /// An unreadable file, broken TOML (with its line), an override without `=` or without a section.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => {
                Error::file(path, "no such configuration file", "give the path of a .toml file; configs/ has examples")
            }
            std::io::ErrorKind::InvalidData => Error::file(path, "not valid UTF-8", "save the file as UTF-8"),
            std::io::ErrorKind::IsADirectory => Error::file(path, "is a directory", "give the path of a .toml file"),
            _ => Error::Io { path: path.into(), action: "read", source },
        })?;
        let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            Error::Config(vec![format!("{}:{line}: broken TOML: {}", path.display(), error.message())])
        })?;
        let mut overridden = Vec::new();
        for item in overrides {
            overridden.push(apply_override(&mut table, item)?);
        }
        Ok(Self { table, taken: Vec::new(), problems: Problems::new(path, text, overridden) })
    }

    /// Takes section `name` out as a document of its own, whose sections it holds; with problems of its own.
    pub fn part(&mut self, name: &'static str) -> Document {
        self.taken.push(name);
        let problems = Problems {
            prefix: format!("{}{name}.", self.problems.prefix),
            ..Problems::new(&self.problems.path, self.problems.text.clone(), self.problems.overridden.clone())
        };
        let table = match self.table.remove(name) {
            None => toml::Table::new(),
            Some(toml::Value::Table(table)) => table,
            Some(_) => {
                self.problems
                    .unreadable(name, format!("must be a section: write [{name}.train] and its keys below it"));
                toml::Table::new()
            }
        };
        Document { table, taken: Vec::new(), problems }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The names of its sections.
    pub fn sections(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    /// The value of a key as it stands, if there is one.
    pub fn value(&self, section: &str, key: &str) -> Option<&toml::Value> {
        self.table.get(section)?.get(key)
    }

    /// Gives a key a value, whatever stood there.
    pub fn decide(&mut self, section: &str, key: &str, value: toml::Value) {
        let entry = self.table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let toml::Value::Table(section) = entry {
            section.insert(key.to_owned(), value);
        }
    }

    /// Takes over another document's problems, those that it has not yet.
    pub fn absorb(&mut self, other: Document) {
        for line in other.problems.lines {
            if !self.problems.lines.contains(&line) {
                self.problems.lines.push(line);
            }
        }
    }

    /// Gives a key a value where the user gave none.
    pub fn set_default(&mut self, section: &str, key: &str, value: f64) {
        let entry = self.table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let toml::Value::Table(section) = entry {
            section.entry(key).or_insert(toml::Value::Float(value));
        }
    }

    /// Refuses sections that nothing has taken out.
    pub fn only_known_sections(&mut self, stage: &str) {
        let known: Vec<&str> = self.taken.clone();
        for key in self.table.keys().cloned().collect::<Vec<_>>() {
            let hint = suggestion(&key, &known);
            self.problems.at(&key, format!("unknown section for {stage}{hint}; it reads [{}]", known.join("], [")));
            self.table.remove(&key);
        }
    }

    /// Takes section `name` out, defaults where keys are missing; every bad key is a problem of its own.
    pub fn section<T: DeserializeOwned + Default>(&mut self, name: &'static str) -> T {
        self.taken.push(name);
        let mut section = match self.table.remove(name) {
            None => return T::default(),
            Some(toml::Value::Table(section)) => section,
            Some(_) => {
                self.problems.unreadable(name, format!("must be a section: write [{name}] and its keys below it"));
                return T::default();
            }
        };
        let known = fields_of::<T>();
        let keys: Vec<String> = section.keys().cloned().collect();
        for key in keys {
            let full = format!("{name}.{key}");
            if !known.contains(&key.as_str()) {
                let hint = suggestion(&key, known);
                self.problems.at(&full, format!("unknown key{hint}; [{name}] has {}", known.join(", ")));
                section.remove(&key);
                continue;
            }
            let fits = |value: toml::Value| toml::Table::from_iter([(key.clone(), value)]).try_into::<T>();
            if let Err(error) = fits(section[&key].clone()) {
                // On the command line quotes are lost: train.output=2026 names a directory.
                let typed = self.problems.typed(&full).filter(|text| !text.starts_with(['[', '{']));
                let typed = typed.map(|text| toml::Value::String(text.to_owned()));
                if let Some(text) = typed.filter(|text| fits(text.clone()).is_ok()) {
                    section.insert(key, text);
                    continue;
                }
                self.problems.unreadable(&full, error.message().trim_end().replace('\n', " "));
                section.remove(&key);
            }
        }
        section.try_into().unwrap_or_default()
    }

    /// Where `validate` functions put what they find.
    pub fn problems(&mut self) -> &mut Problems {
        &mut self.problems
    }

    /// All problems at once, if there are any.
    pub fn finish(self) -> Result<()> {
        if self.problems.lines.is_empty() { Ok(()) } else { Err(Error::Config(self.problems.lines)) }
    }
}

fn apply_override(table: &mut toml::Table, item: &str) -> Result<(String, String)> {
    let remedy = "overrides look like train.learning_rate=1e-5";
    let Some((key, value)) = item.split_once('=') else {
        return Err(Error::usage(format!("override {item:?} has no \"=\""), remedy));
    };
    let (key, value) = (key.trim(), value.trim());
    let parts: Vec<&str> = key.split('.').collect();
    if parts.len() < 2 || parts.iter().any(|p| p.is_empty()) {
        return Err(Error::usage(format!("override {item:?} names no section"), remedy));
    }
    let parsed = format!("x = {value}")
        .parse::<toml::Table>()
        .ok()
        .filter(|t| t.len() == 1)
        .and_then(|mut t| t.remove("x"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut at = table;
    for part in &parts[..parts.len() - 1] {
        let entry = at.entry(part.to_string()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = match entry {
            toml::Value::Table(inner) => inner,
            _ => return Err(Error::usage(format!("override {item:?}: {part} is not a section"), remedy)),
        };
    }
    at.insert(parts[parts.len() - 1].to_string(), parsed);
    Ok((key.to_owned(), value.to_owned()))
}

/// `, did you mean "x"?` where one of `known` is close to `key`.
pub(super) fn suggestion(key: &str, known: &[&str]) -> String {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(key, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| format!(", did you mean \"{candidate}\"?"))
        .unwrap_or_default()
}

/// The line (from 1) on which `section.key`, or the section's header, stands.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let (section, name) = key.rsplit_once('.').unwrap_or((key, ""));
    let mut current = String::new();
    let mut header = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            // [section], or [[section.key]] for one of several tables.
            current = line.trim_start_matches('[').split(']').next().unwrap_or_default().trim().to_owned();
            if current == key {
                return Some(number + 1);
            }
            if current == section {
                header = Some(number + 1);
            }
        } else if let Some((left, _)) = line.split_once('=') {
            let left = left.trim().trim_matches('"');
            if (current == section && left == name) || (current.is_empty() && left == key) {
                return Some(number + 1);
            }
        }
    }
    header
}

/// The field names of a derived `Deserialize` struct, taken from the derive itself so that no list can drift.
fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Probe<'a>(&'a mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = value::Error;
        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
            Err(serde::de::Error::custom("not a struct"))
        }
        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, value::Error> {
            *self.0 = fields;
            Err(serde::de::Error::custom("only the names were wanted"))
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut fields: &'static [&'static str] = &[];
    let _ = T::deserialize(Probe(&mut fields));
    fields
}
