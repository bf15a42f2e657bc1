//! The files that name special and added tokens beside `tokenizer.json`. Imports `error` only.
//!
//! transformers puts the tokens that it finds there into the tokenizer, with the flags that stand there, which decides
//! what is kept whole in a text and what decoding may leave out. So do we; but where it would give a token a new id, which
//! no weights know, we refuse.
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;
use tokenizers::AddedToken;

/// The keys under which transformers looks for special tokens.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Lists of further special tokens: the new name and the old.
const LISTS: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];
const CONFIG: &str = "tokenizer_config.json";

/// The four files that may name special tokens, parsed.
pub struct SpecialSources {
    /// (file name, content), in order of precedence.
    named: Vec<(&'static str, Map<String, Value>)>,
    numbered: Vec<(&'static str, Map<String, Value>)>,
}

impl SpecialSources {
    /// Reads what there is in a model directory.
    pub fn read(dir: &Path) -> Result<Self> {
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
            named: read([CONFIG, "special_tokens_map.json"])?,
            numbered: read(["generation_config.json", "config.json"])?,
        })
    }

    fn config(&self) -> Option<&Map<String, Value>> {
        self.named.iter().find(|(name, _)| *name == CONFIG).map(|(_, config)| config)
    }

    /// Whether the class that transformers takes makes its post-processor anew, whatever `tokenizer.json` says: GPT-NeoX's
    /// does, without BOS and without trimming offsets.
    pub fn class_forgets_post_processor(&self) -> bool {
        let class = self.config().and_then(|config| config.get("tokenizer_class")?.as_str());
        class.is_some_and(|class| class.trim_end_matches("Fast") == "GPTNeoXTokenizer")
    }

    /// Puts the tokens and flags of these files into the tokenizer, in transformers' order.
    ///
    /// # Errors
    /// A token listed under an id that `tokenizer.json` does not give it; a broken list.
    pub fn apply(&self, dir: &Path, inner: &mut tokenizers::Tokenizer) -> Result<()> {
        let path = dir.join(CONFIG);
        if let Some(config) = self.config() {
            if let Some(listed) = config.get("added_tokens_decoder") {
                add_listed(&path, listed, inner)?;
            }
            inner.set_encode_special_tokens(config.get("split_special_tokens").and_then(Value::as_bool) == Some(true));
        }
        let mut extra = Vec::new();
        for (_, object) in &self.named {
            let named = NAMED.iter().filter_map(|key| object.get(*key));
            let lists = LISTS.iter().filter_map(|key| object.get(*key)?.as_array()).flatten();
            extra.extend(named.chain(lists).filter_map(special_token));
        }
        for token in extra {
            // One that is no token at all is refused by who needs it, not here: a model may never use its mask token.
            let known = inner.get_added_tokens_decoder().values().any(|have| have.content == token.content);
            if !known && inner.token_to_id(&token.content).is_some() {
                add(&path, token, inner)?;
            }
        }
        Ok(())
    }

    /// The id of "bos", "eos" or "pad"; the first file that names one decides.
    ///
    /// # Errors
    /// A token or an id outside the vocabulary, whose largest id is `largest`.
    pub fn find(&self, dir: &Path, which: &str, inner: &tokenizers::Tokenizer, largest: i64) -> Result<Option<i64>> {
        let key = format!("{which}_token");
        for (file, object) in &self.named {
            // Either the token, or an AddedToken object with its text under "content".
            let value = object.get(&key).map(|v| v.get("content").unwrap_or(v));
            if let Some(token) = value.and_then(Value::as_str) {
                let id = inner.token_to_id(token).map(i64::from);
                return id.map(Some).ok_or_else(|| outside(&dir.join(file), &key, &format!("{token:?}")));
            }
        }
        let key = format!("{which}_token_id");
        for (file, object) in &self.numbered {
            // Several EOS ids may stand in a list; the first is the one that ends a text.
            let value = object.get(&key).map(|v| v.get(0).unwrap_or(v));
            let Some(value) = value.filter(|value| !value.is_null()) else { continue };
            let Some(id) = value.as_i64() else {
                let message = format!("{key} is {value}, which is no id");
                return Err(Error::file(dir.join(file), message, format!("correct {key}: a whole number")));
            };
            if id < 0 {
                continue; // the old way to say "none"
            }
            if id > largest {
                return Err(outside(&dir.join(file), &key, &id.to_string()));
            }
            return Ok(Some(id));
        }
        Ok(None)
    }
}

/// The tokens of `added_tokens_decoder`, `{"id": {"content", flags}}`, by id: flags that differ from those in
/// `tokenizer.json` replace them.
fn add_listed(path: &Path, listed: &Value, inner: &mut tokenizers::Tokenizer) -> Result<()> {
    let bad = || {
        Error::file(
            path,
            "added_tokens_decoder is not a table of ids and tokens",
            "take the file from the model's source again",
        )
    };
    let mut tokens = Vec::new();
    for (id, entry) in listed.as_object().ok_or_else(bad)? {
        let id: u32 = id.parse().map_err(|_| bad())?;
        tokens.push((id, added_token(entry, false).ok_or_else(bad)?));
    }
    tokens.sort_by_key(|(id, _)| *id);
    for (id, token) in tokens {
        match inner.token_to_id(&token.content) {
            Some(own) if own == id => add(path, token, inner)?,
            own => {
                let own = own.map_or_else(|| "has no such token".to_owned(), |own| format!("gives it id {own}"));
                return Err(Error::file(
                    path,
                    format!("added_tokens_decoder lists {:?} as id {id}, but tokenizer.json {own}", token.content),
                    "use the tokenizer_config.json that belongs to tokenizer.json",
                ));
            }
        }
    }
    Ok(())
}

fn add(path: &Path, token: AddedToken, inner: &mut tokenizers::Tokenizer) -> Result<()> {
    let content = token.content.clone();
    inner.add_tokens([token]).map(|_| ()).map_err(|e| {
        Error::file(
            path,
            format!("cannot add the token {content:?}: {e}"),
            "take the file from the model's source again",
        )
    })
}

/// A special token as a text or an object.
fn special_token(value: &Value) -> Option<AddedToken> {
    match value.as_str() {
        Some(text) => Some(AddedToken::from(text, true)),
        None => added_token(value, true),
    }
}

fn added_token(entry: &Value, special: bool) -> Option<AddedToken> {
    let flag = |name: &str| entry.get(name).and_then(Value::as_bool);
    let special = special || flag("special") == Some(true);
    let token = AddedToken::from(entry.get("content")?.as_str()?, special)
        .single_word(flag("single_word") == Some(true))
        .lstrip(flag("lstrip") == Some(true))
        .rstrip(flag("rstrip") == Some(true));
    Some(match flag("normalized") {
        Some(normalized) => token.normalized(normalized),
        None => token,
    })
}

/// A JSON file that holds an object; `None` where there is no such file.
pub fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
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

fn outside(path: &Path, key: &str, value: &str) -> Error {
    Error::file(
        path,
        format!("{key} is {value}, which is not in the vocabulary of tokenizer.json"),
        format!("correct {key} or use the tokenizer.json that belongs to it"),
    )
}
