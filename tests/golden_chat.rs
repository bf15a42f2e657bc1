//! Rendered conversations against transformers (scripts/goldens/chat.py); the templates are ours.
#![allow(clippy::unwrap_used)]
use crate::support::{golden, json, list, text};
use collimate::tokenizer::chat::{ChatTemplate, Ending, Message};
use serde_json::Value;

const TEMPLATES: [&str; 12] =
    ["chatml", "dated", "flags", "headers", "inst", "parts", "phi", "python", "reasoning", "tagged", "turns", "zephyr"];
/// Those whose `{% generation %}` blocks mark the assistant's turns.
const MARKED: [&str; 5] = ["chatml", "headers", "phi", "reasoning", "tagged"];

fn load(name: &str, cases: &Value) -> ChatTemplate {
    let source = std::fs::read_to_string(golden("chat").join(format!("{name}.jinja"))).unwrap();
    let special = cases["special"].as_object().unwrap().iter();
    ChatTemplate::new(&source, special.map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect()).unwrap()
}

fn ending(case: &Value) -> Ending {
    match text(case, "ending") {
        "nothing" => Ending::Nothing,
        "generation_prompt" => Ending::GenerationPrompt,
        "continue_final" => Ending::ContinueFinal,
        other => panic!("{other}"),
    }
}

/// transformers counts characters.
fn in_characters(text: &str, spans: &[std::ops::Range<usize>]) -> Vec<[usize; 2]> {
    let at = |byte: usize| text[..byte].chars().count();
    spans.iter().map(|span| [at(span.start), at(span.end)]).collect()
}

#[test]
fn texts_and_spans() {
    let cases = json("chat/cases.json");
    let moment = text(&cases, "moment").parse().unwrap();
    let conversations: Vec<Vec<Message>> = serde_json::from_value(cases["conversations"].clone()).unwrap();
    for name in TEMPLATES {
        let template = load(name, &cases);
        let mut spans_seen = 0;
        for case in list(&cases, name) {
            let messages = &conversations[case["conversation"].as_u64().unwrap() as usize];
            let what = format!("{name}: {case}");
            match (template.render_at(messages, ending(case), moment), case.get("text")) {
                (Ok(rendered), Some(expected)) => {
                    assert_eq!(rendered.text, expected.as_str().unwrap(), "{what}");
                    if let Some(spans) = case.get("spans") {
                        let expected: Vec<[usize; 2]> = serde_json::from_value(spans.clone()).unwrap();
                        assert_eq!(in_characters(&rendered.text, &rendered.generated), expected, "{what}");
                        spans_seen += expected.len();
                    }
                }
                (Err(error), None) => {
                    assert!(!error.message.is_empty() && !error.message.contains('\n'), "{what}: {error}");
                    if let Some(words) = case["refused"].as_str() {
                        assert_eq!(error.message, words, "{what}");
                    }
                }
                (ours, _) => panic!("{what}: ours is {ours:?}"),
            }
        }
        assert_eq!(template.marks_generation(), MARKED.contains(&name), "{name}");
        assert_eq!(spans_seen > 0, MARKED.contains(&name), "{name}: spans");
    }
}

#[test]
fn every_template_there_is_tested() {
    let files = std::fs::read_dir(golden("chat")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|e| e == "jinja"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    assert_eq!(found, TEMPLATES);
}
