//! `data.train` and `data.eval`: a path or id, a list of them, or tables with weights. Imports `Problems` only.
use super::Problems;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The keys of a table, in the order in which they are written.
const KEYS: [&str; 5] = ["path", "weight", "split", "config", "revision"];

/// An epoch holds a row at most this often; more would be a mistake that ends in memory.
const MOST: f64 = 1000.0;

/// A file or data set, and how often its rows are seen.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// A local file, or a data set of the hub.
    pub path: String,
    /// How often a row is seen in an epoch: 2 twice, 0.5 every other epoch.
    pub weight: f64,
    /// Of a data set of the hub: which split; none: the stage's own choice.
    pub split: Option<String>,
    /// Of a data set of the hub: which configuration, where it has several.
    pub config: Option<String>,
    /// Of a data set of the hub: branch, tag or commit.
    pub revision: Option<String>,
}

/// The files of a key, in order. None where the key is missing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DataFiles(Vec<DataFile>);

impl DataFile {
    /// A path or id with nothing else said of it.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), weight: 1.0, split: None, config: None, revision: None }
    }

    fn is_plain(&self) -> bool {
        *self == Self::new(self.path.as_str())
    }

    fn set(&mut self, key: &str, value: toml::Value) -> Result<(), String> {
        let found = value.type_str();
        match (key, value) {
            ("weight", toml::Value::Float(weight)) => self.weight = weight,
            ("weight", toml::Value::Integer(weight)) => self.weight = weight as f64,
            ("weight", _) => return Err(format!("\"weight\" must be a number, found {}", with_article(found))),
            ("path", toml::Value::String(text)) => self.path = text,
            ("split", toml::Value::String(text)) => self.split = Some(text),
            ("config", toml::Value::String(text)) => self.config = Some(text),
            ("revision", toml::Value::String(text)) => self.revision = Some(text),
            _ if KEYS.contains(&key) => {
                return Err(format!("{key:?} must be a string, found {}", with_article(found)));
            }
            _ => {
                let hint = super::document::suggestion(key, &KEYS);
                return Err(format!("unknown key {key:?}{hint}; a file has {}", KEYS.join(", ")));
            }
        }
        Ok(())
    }
}

impl DataFiles {
    /// The files, at least one where the configuration was checked.
    pub fn files(&self) -> &[DataFile] {
        &self.0
    }

    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What can be said without opening them. `key`: "data.train"; `weighted`: whether weights are read there.
    pub fn check(&self, key: &str, weighted: bool, problems: &mut Problems) {
        for (at, file) in self.0.iter().enumerate() {
            let name = match self.0.len() {
                1 => String::new(),
                _ => format!("file {}: ", at + 1),
            };
            problems.require(!file.path.is_empty(), key, format!("{name}\"path\" is empty; name a file or data set"));
            let ok = file.weight.is_finite() && file.weight > 0.0 && file.weight <= MOST;
            let message = format!("{name}\"weight\" is {}; give a number above 0, {MOST} at most", file.weight);
            problems.require(ok, key, message);
            let message = format!("{name}\"weight\" is only read in data.train; remove it");
            problems.require(!ok || weighted || file.weight == 1.0, key, message);
        }
    }
}

impl From<&str> for DataFiles {
    fn from(path: &str) -> Self {
        Self(vec![DataFile::new(path)])
    }
}

impl From<String> for DataFiles {
    fn from(path: String) -> Self {
        Self(vec![DataFile::new(path)])
    }
}

impl From<Vec<DataFile>> for DataFiles {
    fn from(files: Vec<DataFile>) -> Self {
        Self(files)
    }
}

impl fmt::Display for DataFiles {
    /// `a.jsonl, b.jsonl (weight 0.5, split "test")`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, file) in self.0.iter().enumerate() {
            let mut more = Vec::new();
            if file.weight != 1.0 {
                more.push(format!("weight {}", file.weight));
            }
            for (key, value) in [("config", &file.config), ("split", &file.split), ("revision", &file.revision)] {
                more.extend(value.iter().map(|value| format!("{key} {value:?}")));
            }
            let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join(", ")) };
            write!(f, "{}{}{more}", if at > 0 { ", " } else { "" }, file.path)?;
        }
        Ok(())
    }
}

impl Serialize for DataFile {
    /// The path alone where that says it all.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_plain() {
            return serializer.serialize_str(&self.path);
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("path", &self.path)?;
        if self.weight != 1.0 {
            map.serialize_entry("weight", &self.weight)?;
        }
        for (key, value) in [("split", &self.split), ("config", &self.config), ("revision", &self.revision)] {
            if let Some(value) = value {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

impl Serialize for DataFiles {
    /// A single file stands without a list; none is an empty string, as an unset key has always been saved.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [] => serializer.serialize_str(""),
            [file] => file.serialize(serializer),
            files => {
                let mut list = serializer.serialize_seq(Some(files.len()))?;
                files.iter().try_for_each(|file| list.serialize_element(file))?;
                list.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for DataFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = DataFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path as a string, or a table { path = \"...\", weight = ... }")
            }

            fn visit_str<E: serde::de::Error>(self, path: &str) -> Result<DataFile, E> {
                Ok(DataFile::new(path))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DataFile, A::Error> {
                let mut file = DataFile::new("");
                let mut named = false;
                while let Some((key, value)) = map.next_entry::<String, toml::Value>()? {
                    named |= key == "path";
                    file.set(&key, value).map_err(A::Error::custom)?;
                }
                if named { Ok(file) } else { Err(A::Error::custom("\"path\" is missing; name a file or data set")) }
            }
        }
        deserializer.deserialize_any(One)
    }
}

impl<'de> Deserialize<'de> for DataFiles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Files;
        impl<'de> Visitor<'de> for Files {
            type Value = DataFiles;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path as a string, a list of paths, or tables { path = \"...\", weight = ... }")
            }

            fn visit_str<E: serde::de::Error>(self, path: &str) -> Result<DataFiles, E> {
                // An unset key is saved as an empty string.
                Ok(if path.is_empty() { DataFiles::default() } else { path.into() })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<DataFiles, A::Error> {
                let mut files = Vec::new();
                while let Some(value) = list.next_element::<toml::Value>()? {
                    let file = value.try_into().map_err(|error: toml::de::Error| {
                        let message = error.message().trim_end().replace('\n', " ");
                        A::Error::custom(format!("file {}: {message}", files.len() + 1))
                    });
                    files.push(file?);
                }
                if files.is_empty() {
                    Err(A::Error::custom("is an empty list; name at least one file"))
                } else {
                    Ok(DataFiles(files))
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DataFiles, A::Error> {
                DataFile::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(|file| DataFiles(vec![file]))
            }
        }
        deserializer.deserialize_any(Files)
    }
}

fn with_article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}
