//! What `[data]` names: found, read, encoded, held in memory or on disk. Must not know models or tensors.
use super::encode::{Encode, EncodeOptions, encode_files};
use super::fingerprint::{Encoded, fingerprint};
use super::loader::Loader;
use super::rows::DataReport;
use super::store::Rows;
use crate::config::{DataConfig, DataFile, DataFiles, ModelConfig, TrainConfig};
use crate::error::Result;
use crate::hub::{self, DatasetSpec};
use crate::tokenizer::Tokenizer;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Training and evaluation rows.
pub struct Data<E> {
    /// Training rows, at least one.
    pub train: Set<E>,
    /// Evaluation rows; there may be none.
    pub eval: Set<E>,
}

/// Encoded rows of several sources, one after the other.
pub struct Set<E> {
    rows: Rows<E>,
    /// Rows of each source and how often an epoch takes one.
    weights: Vec<(usize, f64)>,
    sources: Vec<Source>,
}

/// What became of the rows of one entry of `[data]`.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path or id as configured.
    pub name: String,
    /// Its rows.
    pub report: DataReport,
}

impl<E: Encode + Encoded> Data<E> {
    /// Reads and encodes everything that `[data]` names; `alter` sees each row before it is kept.
    ///
    /// # Errors
    /// A file that cannot be read or has no usable row; with `data.on_bad_row = "error"` the first bad row.
    pub fn load(
        config: &DataConfig,
        tokenizer: &Tokenizer,
        options: &EncodeOptions,
        alter: impl Fn(&mut E),
    ) -> Result<Self> {
        let load = |files: &DataFiles| Set::load(config, files, tokenizer, options, &alter);
        let train = load(&config.train)?;
        let nothing = DataFiles::default();
        Ok(Data { train, eval: load(config.eval.as_ref().unwrap_or(&nothing))? })
    }

    /// What resume checks of the rows: they are those that the run began with.
    ///
    /// # Errors
    /// Rows on disk that cannot be read back.
    pub fn fact(&self) -> Result<String> {
        Ok(self.fingerprint()?.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// SHA-256 of all rows.
    ///
    /// # Errors
    /// As [`Data::fact`].
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        fingerprint(&[&self.train.rows, &self.eval.rows])
    }

    /// Refuses rows of more tokens (as `length` has it) than the model can hold: `most`, where there is such a limit.
    ///
    /// # Errors
    /// Naming the first such row.
    pub fn check_lengths(&self, most: Option<i64>, length: impl Fn(&E) -> usize) -> Result<()> {
        let Some(most) = most.and_then(|most| usize::try_from(most).ok()) else { return Ok(()) };
        for row in self.train.rows.iter().chain(self.eval.rows.iter()) {
            let row = row?;
            let tokens = length(&row);
            if tokens > most {
                let message = format!("is {tokens} tokens long, the model holds {most}");
                let remedy = format!("set data.max_length={most} to cut such rows");
                return Err(row.id().error(message, remedy));
            }
        }
        Ok(())
    }
}

impl<E> From<Vec<E>> for Set<E> {
    /// Rows that come from no file, each once an epoch.
    fn from(rows: Vec<E>) -> Self {
        Set { weights: vec![(rows.len(), 1.0)], rows: Rows::from(rows), sources: Vec::new() }
    }
}

impl<E: Encoded> Set<E> {
    fn load(
        config: &DataConfig,
        files: &DataFiles,
        tokenizer: &Tokenizer,
        options: &EncodeOptions,
        alter: &impl Fn(&mut E),
    ) -> Result<Self>
    where
        E: Encode,
    {
        let mut rows = if config.streaming { Rows::on_disk()? } else { Rows::in_memory() };
        let (mut weights, mut sources) = (Vec::new(), Vec::new());
        for file in files.files() {
            let mut report = DataReport::default();
            let before = rows.len();
            let paths = resolve(file)?;
            let rules = (config.on_bad_row, None);
            encode_files(tokenizer, &paths, options, rules, &mut report, |encoded: Vec<E>| {
                encoded.into_iter().try_for_each(|mut row| {
                    alter(&mut row);
                    rows.push(row)
                })
            })?;
            report.announce(Path::new(&file.path), options.append_eos);
            weights.push((rows.len() - before, file.weight));
            sources.push(Source { name: file.path.clone(), report });
        }
        rows.finish()?;
        Ok(Set { rows, weights, sources })
    }

    /// What became of each source's rows.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows of these numbers, in their order.
    ///
    /// # Errors
    /// Rows on disk that cannot be read back.
    pub fn take(&self, numbers: &[usize]) -> Result<Vec<Cow<'_, E>>> {
        numbers.iter().map(|&number| self.rows.get(number)).collect()
    }

    /// All rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Cow<'_, E>>> {
        self.rows.iter()
    }

    /// The order in which training takes them.
    pub fn loader(&self, train: &TrainConfig) -> Loader {
        Loader::weighted(&self.weights, train.batch_size, train.shuffle, train.seed)
    }
}

/// The tokenizer that `[model]` names, or the model's own, with the chat template that `[data]` names.
///
/// # Errors
/// One that cannot be read.
pub fn open_tokenizer(model: &ModelConfig, data: &DataConfig, model_dir: &Path) -> Result<Tokenizer> {
    let dir = match &model.tokenizer {
        Some(path) => hub::resolve_model(path)?,
        None => model_dir.to_owned(),
    };
    let mut tokenizer = Tokenizer::from_dir(&dir)?;
    if let Some(template) = &data.chat_template {
        tokenizer.set_chat_template(template.as_ref(), &dir)?;
    }
    Ok(tokenizer)
}

/// The files of an entry of `[data]`, in order.
///
/// # Errors
/// No such file or data set, or one that cannot be read.
pub fn resolve(file: &DataFile) -> Result<Vec<PathBuf>> {
    let DataFile { path, split, config, revision, .. } = file.clone();
    hub::resolve_dataset(&DatasetSpec { path, config, split, revision })
}
