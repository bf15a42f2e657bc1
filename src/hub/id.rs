//! Hub ids: `owner/name@revision`, checked to be harmless as paths. Owns their form; imports nothing but `error`.
use crate::error::{Error, Result};
use hf_hub::{Cache, Repo, RepoType};
use std::path::{Path, PathBuf};

/// The branch that is meant when none is named.
pub(super) const MAIN: &str = "main";
/// The branch on which the hub keeps its own conversion of a data set.
pub(super) const CONVERTED: &str = "refs/convert/parquet";

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Weights, configuration and tokenizer.
    Model,
    /// Rows in files.
    Dataset,
}

impl Kind {
    /// "model" or "data set".
    pub fn name(self) -> &'static str {
        match self {
            Kind::Model => "model",
            Kind::Dataset => "data set",
        }
    }
}

/// A repository of the hub at a revision.
#[derive(Debug, Clone)]
pub(super) struct Id {
    pub name: String,
    pub revision: String,
    pub kind: Kind,
}

impl Id {
    /// `None` where the text is no hub id: what has other characters or more parts is a path.
    ///
    /// # Errors
    /// Two different revisions, one after the `@` and one beside it.
    pub fn parse(text: &str, revision: Option<&str>, kind: Kind) -> Result<Option<Self>> {
        let (name, inline) = match text.split_once('@') {
            Some((name, inline)) => (name, Some(inline)),
            None => (text, None),
        };
        if let (Some(inline), Some(given)) = (inline, revision)
            && inline != given
        {
            return Err(Error::usage(
                format!("{text} names the revision {inline:?}, and {given:?} is given beside it"),
                "leave one of them out",
            ));
        }
        let revision = inline.or(revision).unwrap_or(MAIN);
        let words = |text: &str| text.split('/').all(is_word);
        if name.split('/').count() > 2 || !words(name) {
            return Ok(None);
        }
        if !words(revision) {
            // After an `@` it may be a path as well.
            return if inline.is_some() {
                Ok(None)
            } else {
                Err(Error::usage(
                    format!("the revision is {revision:?}"),
                    "give a branch, a tag or a commit of letters, digits, '-', '_', '.' and '/'",
                ))
            };
        }
        Ok(Some(Self { name: name.to_owned(), revision: revision.to_owned(), kind }))
    }

    /// `runs/sft` where `runs` is a directory here: a mistyped path rather than a hub id.
    pub fn is_below_a_directory(&self) -> bool {
        self.name.split_once('/').is_some_and(|(first, _)| Path::new(first).is_dir())
    }

    /// The same repository at another revision.
    pub fn at(&self, revision: &str) -> Self {
        Self { revision: revision.to_owned(), ..self.clone() }
    }

    /// As hf-hub has it.
    pub fn repo(&self) -> Repo {
        let kind = match self.kind {
            Kind::Model => RepoType::Model,
            Kind::Dataset => RepoType::Dataset,
        };
        Repo::with_revision(self.name.clone(), kind, self.revision.clone())
    }

    /// Its directory in the cache.
    pub fn folder(&self, cache: &Path) -> PathBuf {
        cache.join(self.repo().folder_name())
    }

    /// The directory of the files of one commit.
    pub fn snapshot(&self, cache: &Path, commit: &str) -> PathBuf {
        Cache::new(cache.to_owned()).repo(self.repo()).pointer_path(commit)
    }

    /// The repository's page.
    pub fn page(&self, endpoint: &str) -> String {
        format!("{endpoint}/{}", self.repo().url())
    }

    /// An error that names the repository, and the revision where it is not the main branch.
    pub fn error(&self, message: impl Into<String>, remedy: impl Into<String>) -> Error {
        let at = if self.revision == MAIN { String::new() } else { format!("@{}", self.revision) };
        Error::Hub { id: format!("{}{at}", self.name), message: message.into(), remedy: remedy.into() }
    }

    /// `, revision="v2"` for a line of Python.
    pub fn python_revision(&self) -> String {
        if self.revision == MAIN { String::new() } else { format!(", revision={:?}", self.revision) }
    }
}

fn is_word(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !part.contains("..")
}
