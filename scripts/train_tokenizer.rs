//! Trains the byte-level BPE tokenizer of the embedded corpus and writes it as transformers reads it.
//!
//!     cargo run --example train-tokenizer [-- CORPUS.jsonl DIRECTORY VOCABULARY]
//!
//! Defaults: data/sft.jsonl, data/tokenizer, 2048. It owns nothing of the library and imports nothing of it.
//! The result depends on the corpus and the vocabulary size alone.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};

const EOS: &str = "<|endoftext|>";
const PAD: &str = "<|pad|>";
/// What the models in configs/ can hold (`n_positions`).
const MAX_LENGTH: usize = 128;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |index: usize, default: &str| arguments.get(index).cloned().unwrap_or_else(|| default.to_owned());
    let (corpus, output) = (argument(0, "data/sft.jsonl"), argument(1, "data/tokenizer"));
    let vocabulary: usize = argument(2, "2048").parse().context("VOCABULARY is not a whole number")?;
    let texts = read_texts(Path::new(&corpus))?;
    let rows = train(&texts, vocabulary, Path::new(&output))?;
    println!("{} texts -> {output}: {rows} tokens", texts.len());
    Ok(())
}

/// The `text` column of a JSONL file.
fn read_texts(path: &Path) -> Result<Vec<String>> {
    let file = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut texts = Vec::new();
    for (index, line) in file.lines().enumerate() {
        let place = || format!("{}:{}", path.display(), index + 1);
        let row: Value = serde_json::from_str(line).with_context(place)?;
        match row.get("text").and_then(Value::as_str) {
            Some(text) => texts.push(text.to_owned()),
            None => bail!("{}: no string column `text`", place()),
        }
    }
    Ok(texts)
}

/// Trains on `texts`, writes tokenizer.json and tokenizer_config.json into `output`; returns the vocabulary's size.
fn train(texts: &[String], vocabulary: usize, output: &Path) -> Result<usize> {
    // As GPT-2 has it: no space is put before the first word, so "The" and " The" are different tokens.
    let byte_level = ByteLevel::new(false, true, true);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None::<tokenizers::NormalizerWrapper>)
        .with_pre_tokenizer(Some(byte_level))
        .with_post_processor(Some(ByteLevel::new(false, false, true)))
        .with_decoder(Some(byte_level))
        .build()
        .map_err(anyhow::Error::msg)?;
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(vocabulary)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(EOS, true), AddedToken::from(PAD, true)])
        .build();
    tokenizer.train(&mut trainer, texts.iter().map(String::as_str)).map_err(anyhow::Error::msg)?;

    fs::create_dir_all(output).with_context(|| format!("cannot make {}", output.display()))?;
    tokenizer.save(output.join("tokenizer.json"), true).map_err(anyhow::Error::msg)?;
    let config = json!({
        "clean_up_tokenization_spaces": false,
        "eos_token": EOS,
        "model_max_length": MAX_LENGTH,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    let text = serde_json::to_string_pretty(&config)? + "\n";
    fs::write(output.join("tokenizer_config.json"), text)?;
    Ok(tokenizer.get_vocab_size(true))
}
