//! A Hugging Face tokenizer directory: text to ids and back, special tokens, the files to hand on.
//! Owns the `tokenizers` crate; imports nothing of ours but `error`. Must not know rows, boundaries or models.
//!
//! What the tokenizer's own post-processor puts in front of a text (BOS) is kept and never doubled. What it would put
//! behind (some add EOS) is left out: EOS is appended by one rule, in `data::encode`.
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The files of a tokenizer that are read at loading and written, byte for byte, by [`Tokenizer::save`].
pub const FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// Texts handed to the threads of the tokenizers crate at a time; bounds the memory of its verbose encodings.
const CHUNK: usize = 512;

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
    /// `config.json`, the first that names one. An explicit `add_bos_token` in `tokenizer_config.json` decides whether
    /// BOS stands in front, as in transformers; otherwise the post-processor in `tokenizer.json` does.
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
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|e| broken(dir, &e.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| broken(dir, &e.to_string()))?;
        let largest = inner.get_vocab(true).into_values().max();
        let Some(largest) = largest else { return Err(broken(dir, "the vocabulary is empty")) };
        let mut tokenizer = Self {
            inner,
            files,
            bos: None,
            eos: None,
            pad: None,
            lead: Vec::new(),
            marks_start: false,
            largest_id: i64::from(largest),
            vocab_size: largest as usize + 1,
        };
        let sources = SpecialSources::read(dir)?;
        tokenizer.bos = sources.find(dir, "bos", &tokenizer)?;
        tokenizer.eos = sources.find(dir, "eos", &tokenizer)?;
        tokenizer.pad = sources.find(dir, "pad", &tokenizer)?;
        tokenizer.lead = match (sources.add_bos(), tokenizer.bos) {
            (Some(true), Some(bos)) => vec![bos],
            (Some(_), _) => Vec::new(),
            (None, _) => tokenizer.post_processor_lead()?,
        };
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

    fn encode_batch_bare(&self, texts: &[&str]) -> Result<Vec<Vec<i64>>> {
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

/// The four files that may name special tokens, parsed.
struct SpecialSources {
    /// (file name, content), in order of precedence.
    named: Vec<(&'static str, Map<String, Value>)>,
    numbered: Vec<(&'static str, Map<String, Value>)>,
}

impl SpecialSources {
    fn read(dir: &Path) -> Result<Self> {
        let read = |names: [&'static str; 2]| -> Result<Vec<_>> {
            let mut found = Vec::new();
            for name in names {
                if let Some(object) = read_object(&dir.join(name))? {
                    found.push((name, object));
                }
            }
            Ok(found)
        };
        Ok(Self {
            named: read(["tokenizer_config.json", "special_tokens_map.json"])?,
            numbered: read(["generation_config.json", "config.json"])?,
        })
    }

    /// `add_bos_token` where `tokenizer_config.json` says it.
    fn add_bos(&self) -> Option<bool> {
        let (_, config) = self.named.iter().find(|(name, _)| *name == "tokenizer_config.json")?;
        config.get("add_bos_token")?.as_bool()
    }

    /// The id of "bos", "eos" or "pad"; the first file that names one decides.
    fn find(&self, dir: &Path, which: &str, tokenizer: &Tokenizer) -> Result<Option<i64>> {
        let key = format!("{which}_token");
        for (file, object) in &self.named {
            // Either the token, or an AddedToken object with its text under "content".
            let value = object.get(&key).map(|v| v.get("content").unwrap_or(v));
            if let Some(token) = value.and_then(Value::as_str) {
                let id = tokenizer.inner.token_to_id(token).map(i64::from);
                return id.map(Some).ok_or_else(|| outside(&dir.join(file), &key, &format!("{token:?}")));
            }
        }
        let key = format!("{which}_token_id");
        for (file, object) in &self.numbered {
            // Several EOS ids may stand in a list; the first is the one that ends a text.
            let value = object.get(&key).map(|v| v.get(0).unwrap_or(v));
            let Some(id) = value.and_then(Value::as_i64) else { continue };
            if id < 0 {
                continue; // the old way to say "none"
            }
            if id > tokenizer.largest_id {
                return Err(outside(&dir.join(file), &key, &id.to_string()));
            }
            return Ok(Some(id));
        }
        Ok(None)
    }
}

fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err(Error::file(path, "is not a JSON object", "take the file from the model's source again")),
        Err(e) => Err(Error::file(path, format!("is not JSON: {e}"), "take the file from the model's source again")),
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

fn outside(path: &Path, key: &str, value: &str) -> Error {
    Error::file(
        path,
        format!("{key} is {value}, which is not in the vocabulary of tokenizer.json"),
        format!("correct {key} or use the tokenizer.json that belongs to it"),
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
