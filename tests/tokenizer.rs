//! The tokenizer module, on byte-level vocabularies that are built here; `Tiny` serves the data tests too.
#![allow(clippy::unwrap_used)]
use collimate::tokenizer::{FILES, Tokenizer};
use serde_json::{Value, json};
use std::path::Path;

/// A byte-level BPE in a directory: 256 bytes, the merges given, then <s> </s> <pad>.
pub struct Tiny {
    pub dir: tempfile::TempDir,
    json: Value,
    config: Value,
}

pub const BYTES: i64 = 256;

impl Tiny {
    /// `merges` as pairs of byte-level strings ("Ġ" is a space); tokens get ids from 256 in that order.
    pub fn new(merges: &[(&str, &str)]) -> Self {
        let mut alphabet: Vec<char> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let mut vocab = serde_json::Map::new();
        for letter in alphabet {
            vocab.insert(letter.to_string(), json!(vocab.len()));
        }
        for (left, right) in merges {
            vocab.insert(format!("{left}{right}"), json!(vocab.len()));
        }
        let first = vocab.len();
        let special = |offset: usize, text: &str| {
            json!({"id": first + offset, "content": text, "special": true, "normalized": false,
                   "single_word": false, "lstrip": false, "rstrip": false})
        };
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [special(0, "<s>"), special(1, "</s>"), special(2, "<pad>")],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                      "vocab": vocab, "merges": merges.iter().map(|(l, r)| format!("{l} {r}")).collect::<Vec<_>>()},
        });
        let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<pad>"});
        Self { dir: tempfile::tempdir().unwrap(), json, config }
    }

    /// The post-processor puts `front` and `back` around a text.
    pub fn post(mut self, front: &[&str], back: &[&str]) -> Self {
        let piece = |token: &&str| json!({"SpecialToken": {"id": token, "type_id": 0}});
        let mut single: Vec<Value> = front.iter().map(piece).collect();
        single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
        single.extend(back.iter().map(piece));
        let first = self.special();
        let token = |text: &str, id: i64| json!({"id": text, "ids": [id], "tokens": [text]});
        self.json["post_processor"] = json!({
            "type": "TemplateProcessing", "single": single, "pair": single,
            "special_tokens": {"<s>": token("<s>", first), "</s>": token("</s>", first + 1)},
        });
        self.json["post_processor"]["pair"]
            .as_array_mut()
            .unwrap()
            .push(json!({"Sequence": {"id": "B", "type_id": 0}}));
        self
    }

    /// Sets a key of tokenizer.json.
    pub fn set(mut self, key: &str, value: Value) -> Self {
        self.json[key] = value;
        self
    }

    /// Replaces tokenizer_config.json.
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// Writes another file beside tokenizer.json.
    pub fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.dir.path().join(name), text).unwrap();
        self
    }

    /// The id of <s>; </s> and <pad> follow.
    pub fn special(&self) -> i64 {
        self.json["model"]["vocab"].as_object().unwrap().len() as i64
    }

    /// Writes the files.
    pub fn write(&self) -> &Path {
        std::fs::write(self.dir.path().join("tokenizer.json"), self.json.to_string()).unwrap();
        if !self.config.is_null() {
            std::fs::write(self.dir.path().join("tokenizer_config.json"), self.config.to_string()).unwrap();
        }
        self.dir.path()
    }

    pub fn load(&self) -> Tokenizer {
        Tokenizer::from_dir(self.write()).unwrap()
    }

    pub fn refusal(&self) -> String {
        Tokenizer::from_dir(self.write()).unwrap_err().to_string().replace(self.dir.path().to_str().unwrap(), "DIR")
    }
}

/// Ids of single bytes.
fn bytes(tokenizer: &Tokenizer, text: &str) -> Vec<i64> {
    text.split("").filter(|s| !s.is_empty()).flat_map(|c| tokenizer.encode_bare(c).unwrap()).collect()
}

#[test]
fn merges_and_round_trip() {
    let tokenizer = Tiny::new(&[("a", "b"), ("Ġ", "ab")]).load();
    assert_eq!(tokenizer.encode("ab ab").unwrap(), [BYTES, BYTES + 1]);
    assert_eq!(tokenizer.encode("a").unwrap().len(), 1);
    let text = "naïve ab ☃\n\tx";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    assert_eq!(tokenizer.encode("").unwrap(), Vec::<i64>::new());
    assert!(tokenizer.decode(&[-1], false).unwrap_err().to_string().contains("cannot decode id -1"));
}

#[test]
fn special_tokens_in_a_text_are_recognised_and_can_be_left_out() {
    let tiny = Tiny::new(&[]);
    let (tokenizer, s) = (tiny.load(), tiny.special());
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (Some(s), Some(s + 1), Some(s + 2)));
    let ids = tokenizer.encode("x</s>").unwrap();
    assert_eq!(ids.last(), Some(&(s + 1)));
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "x");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "x</s>");
    assert_eq!(tokenizer.vocab_size(), s as usize + 3);
}

#[test]
fn bos_is_neither_doubled_nor_dropped_and_eos_is_left_to_the_encoder() {
    let tiny = Tiny::new(&[("a", "b")]).post(&["<s>"], &["</s>"]);
    let (tokenizer, s) = (tiny.load(), tiny.special());
    assert_eq!(tokenizer.lead(), [s]);
    assert_eq!(tokenizer.encode("ab").unwrap(), [s, BYTES]);
    assert_eq!(tokenizer.encode("<s>ab").unwrap(), [s, BYTES]);
    assert_eq!(tokenizer.encode("").unwrap(), [s]);
    assert_eq!(tokenizer.encode_bare("ab").unwrap(), [BYTES]);
    assert_eq!(tokenizer.encode_batch(&["ab", "<s>ab", ""]).unwrap(), [vec![s, BYTES], vec![s, BYTES], vec![s]]);
}

#[test]
fn the_post_processor_decides_about_bos_and_add_bos_token_does_not() {
    let told = Tiny::new(&[]).config(json!({"bos_token": "<s>", "add_bos_token": true}));
    assert!(told.load().lead().is_empty());
    let untold = Tiny::new(&[]).post(&["<s>"], &[]).config(json!({"bos_token": "<s>", "add_bos_token": false}));
    assert_eq!(untold.load().lead(), [untold.special()]);
    let neox = json!({"bos_token": "<s>", "tokenizer_class": "GPTNeoXTokenizerFast"});
    assert!(Tiny::new(&[]).post(&["<s>"], &[]).config(neox).load().lead().is_empty());
}

#[test]
fn added_tokens_of_the_config_replace_flags_and_never_ids() {
    let first = Tiny::new(&[]).special();
    let listed = |id: i64, content: &str| {
        let entry = json!({"content": content, "special": false, "lstrip": true, "normalized": false});
        Tiny::new(&[]).config(json!({"added_tokens_decoder": {id.to_string(): entry}}))
    };
    let greedy = listed(first, "<s>").load();
    assert_eq!(greedy.encode_bare("  <s>").unwrap(), [first]);
    assert_eq!(
        listed(first, "</s>").refusal(),
        format!(
            "DIR/tokenizer_config.json: added_tokens_decoder lists \"</s>\" as id {first}, but tokenizer.json gives it id {}; \
             use the tokenizer_config.json that belongs to tokenizer.json",
            first + 1
        )
    );
    assert!(listed(first + 3, "<new>").refusal().contains("but tokenizer.json has no such token; "));
    let split = Tiny::new(&[]).config(json!({"split_special_tokens": true})).load();
    assert_eq!(split.encode_bare("<s>").unwrap().len(), 3);
}

#[test]
fn a_chat_template_comes_with_its_tokenizer() {
    assert!(Tiny::new(&[]).load().chat().unwrap().is_none());
    let with = Tiny::new(&[]).file("chat_template.jinja", "{{ bos_token }}{{ messages[0].content }}").load();
    let messages = [serde_json::from_value(json!({"role": "user", "content": "q"})).unwrap()];
    let rendered =
        with.chat().unwrap().unwrap().render(&messages, collimate::tokenizer::chat::Ending::Nothing).unwrap();
    assert_eq!(rendered.text, "<s>q");
    // Only what needs the template fails for it.
    let broken = Tiny::new(&[]).file("chat_template.jinja", "{% if %}");
    let message = broken.load().chat().unwrap_err().to_string();
    assert!(message.contains("chat_template.jinja: the chat template does not compile: line 1"), "{message}");
    let (dir, file) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(file.path(), "{{ messages[0].content }}{{ eos_token }}").unwrap();
    let mut other = broken.load();
    other.set_chat_template(file.path(), dir.path()).unwrap();
    let rendered =
        other.chat().unwrap().unwrap().render(&messages, collimate::tokenizer::chat::Ending::Nothing).unwrap();
    assert_eq!(rendered.text, "q");
    other.save(dir.path()).unwrap();
    let saved = std::fs::read_to_string(dir.path().join("chat_template.jinja")).unwrap();
    assert_eq!(saved, "{{ messages[0].content }}{{ eos_token }}");
}

#[test]
fn special_ids_come_from_the_first_file_that_names_them() {
    let id = |n: i64| Tiny::new(&[]).special() + n;
    let only_config =
        Tiny::new(&[]).config(Value::Null).file("config.json", r#"{"eos_token_id": 7, "bos_token_id": -1}"#);
    let loaded = only_config.load();
    assert_eq!((loaded.bos(), loaded.eos(), loaded.pad()), (None, Some(7), None));
    let generation = only_config.file("generation_config.json", r#"{"eos_token_id": [9, 10]}"#);
    assert_eq!(generation.load().eos(), Some(9));
    let map = generation.file("special_tokens_map.json", r#"{"eos_token": {"content": "<pad>"}, "bos_token": null}"#);
    assert_eq!(map.load().eos(), Some(id(2)));
    assert_eq!(map.config(json!({"eos_token": "</s>"})).load().eos(), Some(id(1)));
}

#[test]
fn special_tokens_outside_the_vocabulary_are_refused() {
    let named = Tiny::new(&[]).config(json!({"eos_token": "<end>"}));
    assert_eq!(
        named.refusal(),
        "DIR/tokenizer_config.json: eos_token is \"<end>\", which is not in the vocabulary of tokenizer.json; \
         correct eos_token or use the tokenizer.json that belongs to it"
    );
    let numbered = Tiny::new(&[]).config(Value::Null).file("config.json", r#"{"eos_token_id": 50256}"#);
    assert!(numbered.refusal().starts_with("DIR/config.json: eos_token_id is 50256, which is not in the vocabulary"));
    let shadowed = Tiny::new(&[]).file("config.json", r#"{"eos_token_id": 50256}"#);
    assert!(shadowed.load().eos().is_some());
}

#[test]
fn a_directory_without_tokenizer_or_with_a_broken_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let say = || Tokenizer::from_dir(dir.path()).unwrap_err().to_string().replace(dir.path().to_str().unwrap(), "DIR");
    assert_eq!(
        say(),
        "DIR: has no tokenizer.json; copy tokenizer.json and tokenizer_config.json there from the model that it was made from"
    );
    std::fs::write(dir.path().join("tokenizer.model"), "x").unwrap();
    assert!(say().contains("has no tokenizer.json; make one from the files there: python -c '"), "{}", say());
    std::fs::write(dir.path().join("tokenizer.json"), "{\"version\": 1").unwrap();
    assert!(say().starts_with("DIR/tokenizer.json: is not a tokenizer: "), "{}", say());
    let missing = Tokenizer::from_dir(&dir.path().join("no")).unwrap_err();
    assert!(missing.to_string().contains("is not a directory"));
    assert_eq!(missing.exit_code(), 2);
    assert!(Tiny::new(&[]).file("config.json", "[1]").refusal().starts_with("DIR/config.json: is not a JSON object"));
    assert!(Tiny::new(&[]).file("config.json", "{").refusal().starts_with("DIR/config.json: is not JSON"));
}

#[test]
fn padding_and_truncation_of_the_file_are_switched_off() {
    let tiny = Tiny::new(&[])
        .set("truncation", json!({"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}))
        .set(
            "padding",
            json!({"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                              "pad_id": 258, "pad_type_id": 0, "pad_token": "<pad>"}),
        );
    let tokenizer = tiny.load();
    assert_eq!(tokenizer.encode("abcdefghijkl").unwrap().len(), 12);
    assert_eq!(tokenizer.encode("a").unwrap().len(), 1);
    assert_eq!(
        tokenizer.encode_batch(&["a", "abcdefghijkl"]).unwrap().iter().map(Vec::len).collect::<Vec<_>>(),
        [1, 12]
    );
}

#[test]
fn a_continuation_has_no_leading_mark() {
    let plain = Tiny::new(&[("a", "b")]).load();
    assert_eq!(plain.encode_continuation("ab").unwrap(), plain.encode_bare("ab").unwrap());
    let pre = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let spaced = Tiny::new(&[("Ġ", "a")]).set("pre_tokenizer", pre).load();
    assert_eq!(spaced.encode_bare("ab").unwrap()[0], BYTES);
    for text in ["ab", "a\nb", "\n\nab", " ab", ".", "x", ""] {
        let ids = spaced.encode_continuation(text).unwrap();
        assert_eq!(spaced.decode(&ids, false).unwrap(), text);
    }
    assert_eq!(spaced.encode_continuation("ab").unwrap(), bytes(&plain, "ab"));
}

#[test]
fn ids_beyond_the_embedding_are_refused() {
    let tiny = Tiny::new(&[]);
    let (tokenizer, size) = (tiny.load(), tiny.special() + 3);
    tokenizer.check_vocab(size, Path::new("m")).unwrap();
    tokenizer.check_vocab(size + 61, Path::new("m")).unwrap();
    assert_eq!(
        tokenizer.check_vocab(size - 1, Path::new("m")).unwrap_err().to_string(),
        "m: the tokenizer has ids up to 258 but the model has 258 embedding rows; use the tokenizer that the model was trained with"
    );
}

#[test]
fn saving_copies_the_files_byte_for_byte_even_when_the_source_is_gone() {
    let tiny = Tiny::new(&[]).file("chat_template.jinja", "{{ x }}").file("notes.txt", "no");
    let tokenizer = tiny.load();
    let read = |dir: &Path| FILES.map(|name| std::fs::read(dir.join(name)).ok());
    let before = read(tiny.dir.path());
    drop(tiny);
    let out = tempfile::tempdir().unwrap();
    tokenizer.save(out.path()).unwrap();
    assert_eq!(read(out.path()), before);
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 3);
}
