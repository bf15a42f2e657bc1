//! A Hugging Face tokenizer directory: text to ids and back, special tokens, its chat template, the files to hand on.
//! Owns the `tokenizers` crate; imports nothing of ours but `error`. Must not know rows, boundaries or models.
//!
//! What the tokenizer's own post-processor puts in front of a text (BOS) is kept and never doubled. What it would put
//! behind (some add EOS) is left out: EOS is appended by one rule, in `data::encode`.
pub mod chat;
mod mask;
mod special;

use crate::error::{Error, Result, caught};
pub use chat::{ChatError, ChatTemplate, Ending};
pub use mask::{mask_of, unmarked};
use special::{SpecialSources, read_object};
use std::path::{Path, PathBuf};

/// A chat template in a file of its own; where there is one, it counts.
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// The files of a tokenizer that are read at loading and written, byte for byte, by [`Tokenizer::save`].
pub const FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    CHAT_TEMPLATE,
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// Texts handed to the threads of the tokenizers crate at a time; bounds the memory of its verbose encodings.
const CHUNK: usize = 512;

/// Start and end of each token, in bytes of the text.
pub type Offsets = Vec<(usize, usize)>;

/// A tokenizer with its special ids. Ids are `i64`, as libtorch wants them.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    files: Vec<(&'static str, Vec<u8>)>,
    bos: Option<i64>,
    eos: Option<i64>,
    pad: Option<i64>,
    /// What stands in front of every text.
    lead: Vec<i64>,
    /// Whether a text that is encoded alone gets a mark or space in front (SentencePiece, `add_prefix_space`).
    marks_start: bool,
    largest_id: i64,
    vocab_size: usize,
    /// The chat template, or why it does not compile: only a run that needs it says so.
    chat: Result<Option<ChatTemplate>>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .field("pad", &self.pad)
            .field("lead", &self.lead)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` and the special tokens of a model directory.
    ///
    /// EOS, BOS and pad come from `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json` and
    /// `config.json`, the first that names one. The post-processor in `tokenizer.json` decides what stands in front of a
    /// text; `add_bos_token` in `tokenizer_config.json` is not asked, as transformers 5 does not where there is a
    /// `tokenizer.json`. Flags of added tokens in `tokenizer_config.json` replace those in `tokenizer.json`.
    ///
    /// # Errors
    /// No `tokenizer.json`, a broken file, a special token outside the vocabulary.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for name in FILES {
            let path = dir.join(name);
            if path.is_file() {
                files.push((name, std::fs::read(&path).map_err(Error::io(&path, "read"))?));
            }
        }
        let Some((_, json)) = files.iter().find(|(name, _)| *name == "tokenizer.json") else {
            return Err(no_tokenizer(dir));
        };
        // The crate panics on some files that are no whole tokenizer: when it reads them, or at the first text.
        let read = caught(|| {
            let inner = tokenizers::Tokenizer::from_bytes(json)?;
            inner.encode_fast("a\n", true).map(|_| inner)
        });
        let mut inner = read.map_err(|panic| broken(dir, &panic))?.map_err(|e| broken(dir, &e.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| broken(dir, &e.to_string()))?;
        let largest = inner.get_vocab(true).into_values().max();
        let Some(largest) = largest else { return Err(broken(dir, "the vocabulary is empty")) };
        let sources = SpecialSources::read(dir)?;
        sources.apply(dir, &mut inner)?;
        let id = |which: &str| sources.find(dir, which, &inner, i64::from(largest));
        let (bos, eos, pad) = (id("bos")?, id("eos")?, id("pad")?);
        if sources.class_forgets_post_processor() {
            inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        }
        let mut tokenizer = Self {
            inner,
            files,
            bos,
            eos,
            pad,
            lead: Vec::new(),
            marks_start: false,
            largest_id: i64::from(largest),
            vocab_size: largest as usize + 1,
            chat: ChatTemplate::from_dir(dir),
        };
        tokenizer.lead = tokenizer.post_processor_lead()?;
        if let Some(id) = tokenizer.lead.iter().find(|&&id| id > tokenizer.largest_id) {
            return Err(broken(dir, &format!("its post-processor adds id {id}, which the vocabulary does not have")));
        }
        tokenizer.marks_start = tokenizer.finds_start_mark()?;
        Ok(tokenizer)
    }

    /// Ids of a text that starts a sequence: BOS (where the tokenizer adds one, and the text does not bring it) and the
    /// text. Special tokens written in the text are recognised. No EOS is added.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>> {
        Ok(self.with_lead(self.encode_bare(text)?))
    }

    /// Ids of the text alone, nothing added.
    pub fn encode_bare(&self, text: &str) -> Result<Vec<i64>> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| cannot_encode(&e.to_string()))?;
        Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
    }

    /// Ids of the text alone, and where in it each token stands: byte ranges of whole characters. Tokens that share a
    /// character have overlapping ranges. Whether white space at a token's start belongs to it, the tokenizer says.
    pub fn encode_with_offsets(&self, text: &str) -> Result<(Vec<i64>, Offsets)> {
        let encoding = self.inner.encode(text, false).map_err(|e| cannot_encode(&e.to_string()))?;
        Ok((encoding.get_ids().iter().map(|&id| i64::from(id)).collect(), encoding.get_offsets().to_vec()))
    }

    /// [`encode`](Self::encode) for many texts, on all threads, in order.
    pub fn encode_batch(&self, texts: &[&str]) -> Result<Vec<Vec<i64>>> {
        let bare = self.encode_batch_bare(texts)?;
        Ok(bare.into_iter().map(|ids| self.with_lead(ids)).collect())
    }

    /// Ids of a text that continues another, encoded on its own: nothing added, and no mark or space in front of it
    /// where the tokenizer would put one at the start of a text.
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<i64>> {
        if self.marks_start {
            for anchor in ["\n", ".", "x"] {
                let alone = self.encode_bare(anchor)?;
                let both = self.encode_bare(&format!("{anchor}{text}"))?;
                if let Some(rest) = both.strip_prefix(alone.as_slice()) {
                    return Ok(rest.to_vec());
                }
            }
        }
        self.encode_bare(text)
    }

    /// [`encode_continuation`](Self::encode_continuation) for many texts, in order.
    pub fn encode_continuation_batch(&self, texts: &[&str]) -> Result<Vec<Vec<i64>>> {
        if self.marks_start {
            return texts.iter().map(|text| self.encode_continuation(text)).collect();
        }
        self.encode_batch_bare(texts)
    }

    /// Text of the ids; `skip_special` leaves special tokens out.
    ///
    /// # Errors
    /// An id that no tokenizer can have (negative, or above 2^32).
    pub fn decode(&self, ids: &[i64], skip_special: bool) -> Result<String> {
        let ids: Vec<u32> =
            ids.iter().map(|&id| u32::try_from(id).map_err(|_| bad_id(id))).collect::<Result<Vec<u32>>>()?;
        self.inner
            .decode(&ids, skip_special)
            .map_err(|e| Error::usage(format!("cannot decode: {e}"), "check the decoder in tokenizer.json"))
    }

    /// Beginning of sequence.
    pub fn bos(&self) -> Option<i64> {
        self.bos
    }

    /// End of sequence.
    pub fn eos(&self) -> Option<i64> {
        self.eos
    }

    /// Padding, as other tools need it named; we never pad.
    pub fn pad(&self) -> Option<i64> {
        self.pad
    }

    /// What [`encode`](Self::encode) puts in front of a text: usually nothing or BOS.
    pub fn lead(&self) -> &[i64] {
        &self.lead
    }

    /// The directory's chat template, where it has one.
    ///
    /// # Errors
    /// One that does not compile.
    pub fn chat(&self) -> Result<Option<&ChatTemplate>> {
        match &self.chat {
            Ok(template) => Ok(template.as_ref()),
            Err(Error::File { path, message, remedy }) => Err(Error::file(path, message, remedy)),
            Err(other) => Err(Error::usage(other.to_string(), "correct the chat template")),
        }
    }

    /// Lets the chat template write this date from here on.
    pub fn set_moment(&mut self, moment: chrono::NaiveDateTime) {
        if let Ok(Some(template)) = &mut self.chat {
            template.set_moment(moment);
        }
    }

    /// Takes another chat template, which [`save`](Self::save) then writes; it may name the special tokens of `dir`.
    ///
    /// # Errors
    /// A file that cannot be read, a template that does not compile.
    pub fn set_chat_template(&mut self, file: &Path, dir: &Path) -> Result<()> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Error::file(file, format!("is no chat template: {error}"), "name a text file with a Jinja template")
        })?;
        self.chat = Ok(Some(ChatTemplate::from_text(&text, file, dir)?));
        self.files.retain(|(name, _)| *name != CHAT_TEMPLATE);
        self.files.push((CHAT_TEMPLATE, text.into_bytes()));
        Ok(())
    }

    /// Largest id + 1, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Refuses a tokenizer whose ids lie beyond the model's `rows` embedding rows. More rows than ids is common and fine.
    pub fn check_vocab(&self, rows: i64, model: &Path) -> Result<()> {
        if self.largest_id < rows {
            return Ok(());
        }
        Err(Error::file(
            model,
            format!("the tokenizer has ids up to {} but the model has {rows} embedding rows", self.largest_id),
            "use the tokenizer that the model was trained with",
        ))
    }

    /// Whether both give the same ids: their tokenizer.json are the same bytes.
    pub fn same_ids(&self, other: &Self) -> bool {
        let json =
            |t: &Self| t.files.iter().find(|(name, _)| *name == "tokenizer.json").map(|(_, bytes)| bytes.clone());
        json(self) == json(other)
    }

    /// Writes the tokenizer's files as they were read.
    pub fn save(&self, dir: &Path) -> Result<()> {
        for (name, bytes) in &self.files {
            let path = dir.join(name);
            std::fs::write(&path, bytes).map_err(Error::io(&path, "write"))?;
        }
        Ok(())
    }

    /// [`encode_bare`](Self::encode_bare) for many texts, on all threads, in order.
    pub fn encode_batch_bare(&self, texts: &[&str]) -> Result<Vec<Vec<i64>>> {
        let mut all = Vec::with_capacity(texts.len());
        for chunk in texts.chunks(CHUNK) {
            let encodings =
                self.inner.encode_batch_fast(chunk.to_vec(), false).map_err(|e| cannot_encode(&e.to_string()))?;
            all.extend(encodings.iter().map(|e| e.get_ids().iter().map(|&id| i64::from(id)).collect::<Vec<i64>>()));
        }
        Ok(all)
    }

    fn with_lead(&self, ids: Vec<i64>) -> Vec<i64> {
        if self.lead.is_empty() || ids.starts_with(&self.lead) {
            return ids;
        }
        let mut with = Vec::with_capacity(self.lead.len() + ids.len() + 1);
        with.extend_from_slice(&self.lead);
        with.extend(ids);
        with
    }

    /// What the post-processor puts in front: the ids before the bare ids of a probe.
    fn post_processor_lead(&self) -> Result<Vec<i64>> {
        let bare = self.encode_bare("a")?;
        let encoding = self.inner.encode_fast("a", true).map_err(|e| cannot_encode(&e.to_string()))?;
        let full: Vec<i64> = encoding.get_ids().iter().map(|&id| i64::from(id)).collect();
        if bare.is_empty() {
            return Ok(Vec::new());
        }
        let at = full.windows(bare.len()).position(|window| window == bare.as_slice());
        Ok(full[..at.unwrap_or(0)].to_vec())
    }

    fn finds_start_mark(&self) -> Result<bool> {
        let (alone, after, anchor) = (self.encode_bare("a")?, self.encode_bare("\na")?, self.encode_bare("\n")?);
        Ok(after.strip_prefix(anchor.as_slice()).is_some_and(|rest| rest != alone))
    }
}

fn no_tokenizer(dir: &Path) -> Error {
    if !dir.is_dir() {
        return Error::file(dir, "is not a directory", "name a model directory in Hugging Face layout");
    }
    let old: Option<PathBuf> =
        ["tokenizer.model", "vocab.json", "spiece.model"].iter().map(|name| dir.join(name)).find(|path| path.exists());
    let remedy = match old {
        Some(_) => format!(
            "make one from the files there: python -c 'from transformers import AutoTokenizer as T; d = {:?}; T.from_pretrained(d).save_pretrained(d)'",
            dir.display().to_string()
        ),
        None => "copy tokenizer.json and tokenizer_config.json there from the model that it was made from".into(),
    };
    Error::file(dir, "has no tokenizer.json", remedy)
}

fn broken(dir: &Path, why: &str) -> Error {
    let why = why.lines().next().unwrap_or_default();
    Error::file(
        dir.join("tokenizer.json"),
        format!("is not a tokenizer: {why}"),
        "take the file from the model's source again",
    )
}

fn cannot_encode(why: &str) -> Error {
    let why = why.lines().next().unwrap_or_default();
    Error::usage(
        format!("the tokenizer cannot encode a text: {why}"),
        "check tokenizer.json (an unk token is missing?)",
    )
}

fn bad_id(id: i64) -> Error {
    Error::usage(format!("cannot decode id {id}"), "ids are whole numbers from 0 up to the vocabulary's size")
}
