//! What a data set's card says about its files: `configs` in the YAML before README.md's text. Imports nothing of ours.
use serde::Deserialize;

/// One configuration of a data set.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    pub name: String,
    /// Splits in the card's order with their patterns; `None` leaves it to the file names.
    pub splits: Option<Vec<(String, Vec<String>)>>,
    /// Where patterns and file names begin, without a slash at its end; empty for the whole repository.
    pub dir: String,
    /// Taken where none is asked for.
    pub default: bool,
}

/// The configurations that a README.md names; none where it has no front matter or no `configs`.
///
/// # Errors
/// What is wrong with the YAML, in words.
pub(super) fn configs(readme: &str) -> Result<Vec<Config>, String> {
    let Some(yaml) = front_matter(readme) else { return Ok(Vec::new()) };
    if yaml.trim().is_empty() {
        return Ok(Vec::new());
    }
    let front: Front =
        yaml_serde::from_str(&yaml).map_err(|e| e.to_string().lines().next().unwrap_or_default().to_owned())?;
    front.configs.unwrap_or_default().into_iter().map(Entry::checked).collect()
}

/// The lines between the first two lines `---`, the first of which begins the file.
fn front_matter(readme: &str) -> Option<String> {
    let mut lines = readme.strip_prefix('\u{feff}').unwrap_or(readme).lines();
    if lines.next() != Some("---") {
        return None;
    }
    let lines: Vec<&str> = lines.collect();
    let end = lines.iter().position(|line| *line == "---")?;
    Some(lines[..end].join("\n"))
}

// Only these keys are read; whatever else a card holds may have any form.
#[derive(Deserialize)]
struct Front {
    configs: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    config_name: Option<Scalar>,
    data_files: Option<Files>,
    data_dir: Option<String>,
    default: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Whole(i64),
    Number(f64),
    Truth(bool),
}

impl Scalar {
    fn text(self) -> String {
        match self {
            Scalar::Text(text) => text,
            Scalar::Whole(number) => number.to_string(),
            Scalar::Number(number) => number.to_string(),
            Scalar::Truth(truth) => truth.to_string(),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Files {
    One(String),
    Many(Vec<Item>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Pattern(String),
    Split { split: Scalar, path: Paths },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Paths {
    One(String),
    Many(Vec<String>),
}

impl Entry {
    fn checked(self) -> Result<Config, String> {
        let name = self.config_name.ok_or("a configuration has no config_name")?.text();
        let splits = match self.data_files {
            None => None,
            // Without splits, everything is the training split.
            Some(Files::One(pattern)) => Some(vec![("train".to_owned(), vec![pattern])]),
            Some(Files::Many(items)) => Some(splits(items).map_err(|e| format!("configuration {name}: {e}"))?),
        };
        let dir = self.data_dir.unwrap_or_default();
        let dir = dir.trim_start_matches("./").trim_matches('/').to_owned();
        Ok(Config { default: self.default.unwrap_or(false) || name == "default", name, splits, dir })
    }
}

fn splits(items: Vec<Item>) -> Result<Vec<(String, Vec<String>)>, String> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut bare = Vec::new();
    for item in items {
        match item {
            Item::Pattern(pattern) => bare.push(pattern),
            Item::Split { split, path } => {
                let split = split.text();
                if found.iter().any(|(name, _)| *name == split) {
                    return Err(format!("data_files names the split {split} twice"));
                }
                found.push((
                    split,
                    match path {
                        Paths::One(pattern) => vec![pattern],
                        Paths::Many(patterns) => patterns,
                    },
                ));
            }
        }
    }
    match (found.is_empty(), bare.is_empty()) {
        (false, false) => Err("data_files has entries with and without a split".into()),
        (true, _) => Ok(vec![("train".to_owned(), bare)]),
        (false, true) => Ok(found),
    }
}
