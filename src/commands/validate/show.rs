//! What `collimate validate` shows: an encoded row with its loss mask, lengths, memory. Owns the words.
use crate::data::{Pair, Prompt, Sequence};
use crate::error::Result;
use crate::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::fmt::Write;
use std::ops::Range;

/// Bytes of a float32 weight in training: itself, its gradient and two moments.
const BYTES_A_WEIGHT: u64 = 16;
/// Bytes of a logit in training: itself, its log-softmax and its gradient, float32.
const BYTES_A_LOGIT: u64 = 12;

/// How large a row is.
pub struct Shape {
    /// Tokens of its longest sequence.
    pub tokens: usize,
    /// Targets of all its sequences.
    pub targets: usize,
}

/// A row that can be shown.
pub trait Shown {
    /// How large it is.
    fn shape(&self) -> Shape;

    /// Whether it is a prompt that stands in the file as a conversation.
    fn is_conversation(&self) -> bool {
        false
    }

    /// The row with its loss mask: an object of columns, each a list of runs of tokens that are targets or not.
    ///
    /// # Errors
    /// Ids that cannot be decoded.
    fn example(&self, tokenizer: &Tokenizer) -> Result<Value>;
}

impl Shown for Sequence {
    fn shape(&self) -> Shape {
        Shape { tokens: self.tokens.len(), targets: self.target_positions().count() }
    }

    fn example(&self, tokenizer: &Tokenizer) -> Result<Value> {
        Ok(json!({ "row": self.id.to_string(), "columns": {
            "sequence": runs(&self.tokens, &self.targets, tokenizer)?,
        }}))
    }
}

impl Shown for Pair {
    fn shape(&self) -> Shape {
        let (chosen, rejected) = (self.chosen.len(), self.rejected.len());
        Shape { tokens: self.prompt.len() + chosen.max(rejected), targets: chosen + rejected }
    }

    fn example(&self, tokenizer: &Tokenizer) -> Result<Value> {
        let column = |completion: &[i64]| {
            let tokens = [&self.prompt, completion].concat();
            let targets = self.prompt.len().max(1)..tokens.len();
            runs(&tokens, &[targets], tokenizer)
        };
        Ok(json!({
            "row": self.id.to_string(), "preference": self.preference, "margin": self.margin,
            "columns": { "chosen": column(&self.chosen)?, "rejected": column(&self.rejected)? },
        }))
    }
}

impl Shown for Prompt {
    fn shape(&self) -> Shape {
        Shape { tokens: self.tokens.len(), targets: 0 }
    }

    fn is_conversation(&self) -> bool {
        self.messages.is_some()
    }

    fn example(&self, tokenizer: &Tokenizer) -> Result<Value> {
        Ok(json!({ "row": self.id.to_string(), "columns": { "prompt": runs(&self.tokens, &[], tokenizer)? } }))
    }
}

/// The tokens in runs that are targets or not.
fn runs(tokens: &[i64], targets: &[Range<usize>], tokenizer: &Tokenizer) -> Result<Value> {
    let mut edges = vec![0, tokens.len()];
    edges.extend(targets.iter().flat_map(|range| [range.start, range.end]));
    edges.sort_unstable();
    edges.dedup();
    let run = |edge: &[usize]| -> Result<Value> {
        let (start, end) = (edge[0], edge[1]);
        let is_target = targets.iter().any(|range| range.start <= start && end <= range.end);
        let text = tokenizer.decode(&tokens[start..end], false)?;
        Ok(json!({ "target": is_target, "text": text, "ids": tokens[start..end] }))
    };
    Ok(Value::Array(edges.windows(2).map(run).collect::<Result<_>>()?))
}

/// Quantiles of the rows' tokens.
pub fn lengths(shapes: &[Shape]) -> Value {
    let mut tokens: Vec<usize> = shapes.iter().map(|shape| shape.tokens).collect();
    tokens.sort_unstable();
    let at = |share: f64| tokens[((tokens.len() - 1) as f64 * share).round() as usize];
    json!({ "median": at(0.5), "p95": at(0.95), "longest": at(1.0) })
}

/// A lower bound of what training holds at once, in bytes: weights with gradients and moments, and the logits of the
/// `micro` rows that have the most targets. Activations come on top.
pub fn memory(shapes: &[Shape], weights: u64, vocab: u64, micro: usize) -> Value {
    let mut targets: Vec<usize> = shapes.iter().map(|shape| shape.targets).collect();
    targets.sort_unstable_by(|a, b| b.cmp(a));
    let most: usize = targets.iter().take(micro).sum();
    let (fixed, logits) = (BYTES_A_WEIGHT * weights, BYTES_A_LOGIT * vocab * most as u64);
    json!({ "weights_bytes": fixed, "logits_bytes": logits, "at_least_bytes": fixed + logits })
}

/// The report for people.
pub fn text(report: &Value) -> String {
    let mut out = String::new();
    line(&mut out, "stage", plain(&report["stage"]));
    for model in report["models"].as_array().into_iter().flatten() {
        let parameters = match model["parameters"].as_f64() {
            Some(count) => format!("{:.1} M parameters", count / 1e6),
            None => "random weights".into(),
        };
        let shared = match model["same_tokenizer"].as_bool() {
            Some(false) => ", another tokenizer: it reads the text",
            _ => "",
        };
        let (path, kind) = (plain(&model["path"]), plain(&model["model_type"]));
        let sizes = format!("vocabulary {}, context {}{shared}", model["vocab_size"], model["context"]);
        line(&mut out, &plain(&model["key"]), format!("{path}: {kind}, {parameters}, {sizes}"));
    }
    for key in ["data.train", "data.eval"] {
        let Some(entry) = report.get(key) else { continue };
        for source in entry["sources"].as_array().into_iter().flatten() {
            describe(&mut out, key, source);
        }
        let lengths = &entry["lengths"];
        let quantiles = format!(
            "tokens a row: median {}, 95% {}, longest {}",
            lengths["median"], lengths["p95"], lengths["longest"]
        );
        line(&mut out, "", quantiles);
        example(&mut out, &entry["example"]);
    }
    if let Some(memory) = report.get("memory") {
        let gb = |key: &str| memory[key].as_f64().unwrap_or_default() / 1e9;
        let parts = format!(
            "at least {:.2} GB: weights, gradients and moments {:.2}, logits of the largest micro-batch {:.2}; \
             activations come on top",
            gb("at_least_bytes"),
            gb("weights_bytes"),
            gb("logits_bytes")
        );
        line(&mut out, "memory", parts);
    }
    out
}

fn describe(out: &mut String, key: &str, source: &Value) {
    let count = |name: &str| source[name].as_u64().unwrap_or_default();
    let mut first = format!("{}: {} rows", plain(&source["name"]), count("rows"));
    if count("rows") > count("usable") {
        let skipped = source["skipped"].as_object().into_iter().flatten();
        let reasons: Vec<String> = skipped.map(|(reason, n)| format!("{n} {reason}")).collect();
        let _ = write!(first, ", {} skipped ({})", count("rows") - count("usable"), reasons.join(", "));
    }
    line(out, key, first);
    let targets = match count("targets") {
        0 => String::new(),
        targets => format!(", {targets} of them targets"),
    };
    line(out, "", format!("{} tokens{targets}; {} rows truncated", count("tokens"), count("truncated")));
    if count("targets") > 0 {
        line(out, "", format!("EOS is among the targets of {} rows", count("with_eos_target")));
    }
    let moved = count("boundary_moved");
    match source["boundary_example"].as_str() {
        Some(example) => line(out, "", format!("{moved} rows with tokens across the boundary, such as {example}")),
        None => line(out, "", "no tokens across the boundary of prompt and completion".into()),
    }
}

fn example(out: &mut String, example: &Value) {
    line(out, "example", plain(&example["row"]));
    for (name, runs) in example["columns"].as_object().into_iter().flatten() {
        for (at, run) in runs.as_array().into_iter().flatten().enumerate() {
            let label = if at == 0 { name.as_str() } else { "" };
            let mark = if run["target"] == true { "target " } else { "context" };
            let ids: Vec<String> = run["ids"].as_array().into_iter().flatten().map(Value::to_string).collect();
            let _ = writeln!(out, "  {label:<9} {mark}  {}", run["text"]);
            let _ = writeln!(out, "  {:<9} {:<7}  {}", "", "", ids.join(" "));
        }
    }
}

fn line(out: &mut String, name: &str, text: String) {
    let _ = writeln!(out, "{name:<17} {text}");
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
