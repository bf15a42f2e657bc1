//! Renders conversations with the chat templates of model directories, for comparison with other implementations
//! (scripts/parity/chat.py).
//!
//!     cargo run --example render-chat < REQUESTS.jsonl
//!
//! Reads lines `{"dir", "messages", "ending"}`, where ending is "nothing", "generation_prompt" or "continue_final", and
//! writes for each a line `{"text", "generated"}` (byte ranges) or `{"error"}`.
use anyhow::{Context, Result, bail};
use collimate::tokenizer::chat::{ChatTemplate, Ending, Message};
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    dir: PathBuf,
    messages: Vec<Message>,
    ending: String,
}

fn main() -> Result<()> {
    let mut templates: HashMap<PathBuf, ChatTemplate> = HashMap::new();
    let mut out = std::io::stdout().lock();
    for (index, line) in std::io::stdin().lock().lines().enumerate() {
        let request: Request = serde_json::from_str(&line?).with_context(|| format!("line {}", index + 1))?;
        if !templates.contains_key(&request.dir) {
            templates.insert(request.dir.clone(), load(&request.dir)?);
        }
        let answer = match templates[&request.dir].render(&request.messages, ending(&request.ending)?) {
            Ok(rendered) => {
                let spans: Vec<[usize; 2]> = rendered.generated.iter().map(|span| [span.start, span.end]).collect();
                json!({"text": rendered.text, "generated": spans})
            }
            Err(e) => json!({"error": e.message}),
        };
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

fn load(dir: &Path) -> Result<ChatTemplate> {
    ChatTemplate::from_dir(dir)?.with_context(|| format!("{} has no chat template", dir.display()))
}

fn ending(name: &str) -> Result<Ending> {
    Ok(match name {
        "nothing" => Ending::Nothing,
        "generation_prompt" => Ending::GenerationPrompt,
        "continue_final" => Ending::ContinueFinal,
        other => bail!("no such ending: {other:?}"),
    })
}
