//! D, the aggregated data: labelled rollouts of all rounds so far, a file a round in the run directory. Owns the files.
use crate::data::{RowId, Unit};
use crate::durable::{self, hex};
use crate::error::{Error, Result};
use crate::rollout::expert::Kept;
use crate::rollout::mixture::{Actor, Rollout};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The directory of the rounds' files in a run directory.
const DIRECTORY: &str = "dataset";

/// A rollout with what the expert says of its states.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson {
    /// The round that it was rolled out in, from 1.
    pub round: usize,
    /// The trajectory.
    pub rollout: Rollout,
    /// The expert's action in each state.
    pub labels: Vec<i64>,
    /// The expert's most probable actions in each state, where they are what is learnt.
    pub kept: Option<Kept>,
}

/// A line of a round's file.
#[derive(Serialize, Deserialize)]
struct Line {
    round: usize,
    /// Where the prompt stands.
    file: PathBuf,
    number: usize,
    lines: bool,
    /// Ids of the prompt and of what followed.
    tokens: Vec<i64>,
    prompt_len: usize,
    /// Who chose each token behind the prompt: E the expert, S the student, W the world.
    actors: Vec<Actor>,
    labels: Vec<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<Kept>,
    /// The rollout as text, for people.
    text: String,
}

/// The rounds' rows, in memory and on disk.
pub struct Dataset {
    directory: PathBuf,
    lessons: Vec<Lesson>,
    /// SHA-256 over the files of the rounds so far.
    digest: Sha256,
}

impl Dataset {
    /// No rows yet, of a run directory.
    pub fn new(run: &Path) -> Self {
        Dataset { directory: run.join(DIRECTORY), lessons: Vec::new(), digest: Sha256::new() }
    }

    /// Everything so far, round after round.
    pub fn lessons(&self) -> &[Lesson] {
        &self.lessons
    }

    /// How many labels there are.
    pub fn labels(&self) -> usize {
        self.lessons.iter().map(|lesson| lesson.labels.len()).sum()
    }

    /// What tells these rows from others.
    pub fn fingerprint(&self) -> String {
        hex(&self.digest.clone().finalize())
    }

    /// Adds a round's rows and leaves them on disk; `text` writes a rollout for people.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, round: usize, lessons: Vec<Lesson>, text: impl Fn(&Rollout) -> Result<String>) -> Result<()> {
        let mut content = Vec::new();
        for lesson in &lessons {
            let Lesson { round, rollout, labels, kept } = lesson.clone();
            let Rollout { tokens, prompt_len, actors, id } = rollout;
            let (file, number, lines) = (id.file.to_path_buf(), id.number, id.unit == Unit::Line);
            let text = text(&lesson.rollout)?;
            let line = Line { round, file, number, lines, tokens, prompt_len, actors, labels, kept, text };
            serde_json::to_writer(&mut content, &line).expect("plain data serialises");
            content.push(b'\n');
        }
        std::fs::create_dir_all(&self.directory).map_err(Error::io(&self.directory, "create"))?;
        durable::write_file(&self.path(round), &content)?;
        self.take(lessons, &content);
        Ok(())
    }

    /// Reads the files of rounds 1 to `rounds` back, which must have this fingerprint; those of later rounds are removed.
    ///
    /// # Errors
    /// A file is missing, or is not what was written.
    pub fn read(&mut self, rounds: usize, fingerprint: &str) -> Result<()> {
        for round in 1..=rounds {
            let path = self.path(round);
            let content = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
            let lessons = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
                serde_json::from_slice::<Line>(line)
                    .map(Lesson::from)
                    .map_err(|error| altered(&path, &error.to_string()))
            });
            let lessons = lessons.collect::<Result<Vec<_>>>()?;
            self.take(lessons, &content);
        }
        if self.fingerprint() != fingerprint {
            return Err(altered(&self.directory, "other rows than the checkpoint was trained on"));
        }
        let mut later = rounds + 1;
        while self.path(later).exists() {
            std::fs::remove_file(self.path(later)).map_err(Error::io(self.path(later), "remove"))?;
            later += 1;
        }
        Ok(())
    }

    fn take(&mut self, lessons: Vec<Lesson>, content: &[u8]) {
        self.digest.update((content.len() as u64).to_le_bytes());
        self.digest.update(content);
        self.lessons.extend(lessons);
    }

    fn path(&self, round: usize) -> PathBuf {
        self.directory.join(format!("round-{round}.jsonl"))
    }
}

impl From<Line> for Lesson {
    fn from(line: Line) -> Self {
        let Line { round, file, number, lines, tokens, prompt_len, actors, labels, kept, .. } = line;
        let id = if lines { RowId::line(file, number) } else { RowId::row(file, number) };
        Lesson { round, rollout: Rollout { tokens, prompt_len, actors, id }, labels, kept }
    }
}

fn altered(path: &Path, what: &str) -> Error {
    Error::file(path, format!("is not what the run wrote there: {what}"), "put it back, or start a new run")
}
