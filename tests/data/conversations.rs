//! Conversational columns, as TRL 1.16 has them.
#![allow(clippy::unwrap_used)]
use collimate::data::{Content, DataReport, Message, OnBadRow, Row, Wanted, read_rows};
use serde_json::{Value, json};

fn read(row: &Value, wanted: Wanted) -> Row {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.jsonl");
    std::fs::write(&path, row.to_string()).unwrap();
    read_rows(&path, wanted, OnBadRow::Error, &mut DataReport::default()).unwrap().remove(0).row
}

fn messages(turns: &Value) -> Vec<Message> {
    turns.as_array().unwrap().iter().map(|turn| turn.as_object().unwrap().clone()).collect()
}

fn content(turns: &Value) -> Content {
    Content::Messages(messages(turns))
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

#[test]
fn messages_keep_all_their_keys_in_order() {
    let call = json!([{"type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": 2}}}]);
    let turns = json!([
        {"role": "system", "content": [{"type": "text", "text": "x"}, "y"]},
        {"content": "q", "role": "user", "name": null},
        {"role": "assistant", "content": null, "tool_calls": call},
        {"role": "tool", "content": "", "tool_call_id": "1"},
        {"role": "assistant", "content": "", "reasoning_content": "hm"},
    ]);
    let Row::Messages(read) = read(&json!({"messages": turns, "text": "t", "tools": [], "id": 3}), Wanted::Lm) else {
        panic!("messages go before text")
    };
    assert_eq!(json!(read).to_string(), turns.to_string());
}

#[test]
fn columns_of_prompts_and_completions() {
    let (ask, answer) = (json!([user("q")]), json!([assistant("a")]));
    let both = json!({"prompt": ask, "completion": answer, "messages": [user("z")], "label": 1});
    let want = Row::PromptCompletion { prompt: content(&ask), completion: content(&answer) };
    assert_eq!(read(&both, Wanted::Lm), want);
    assert_eq!(read(&both, Wanted::Prompts), want);
    for empty in [json!(null), json!([]), json!("")] {
        let row = json!({"prompt": ask, "completion": empty});
        assert_eq!(read(&row, Wanted::Prompts), Row::Prompt(content(&ask)), "{row}");
    }
    assert_eq!(read(&json!({"prompt": ask}), Wanted::Prompts), Row::Prompt(content(&ask)));
    let whole = json!([user("q"), assistant("a")]);
    let with_prompt = json!({"prompt": "q", "messages": whole});
    assert_eq!(read(&with_prompt, Wanted::Lm), Row::Messages(messages(&whole)), "a prompt alone is no SFT row");
}

#[test]
fn from_and_value_are_role_and_content() {
    let row = json!({"conversations": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]});
    assert_eq!(read(&row, Wanted::Lm), Row::Messages(messages(&json!([user("q"), assistant("a")]))));
}

/// Prompt, chosen and rejected of a row.
fn parts(row: &Value) -> (Option<Content>, Content, Content) {
    let Row::Preference { prompt, chosen, rejected, .. } = read(row, Wanted::Preference) else { panic!("{row}") };
    (prompt, chosen, rejected)
}

#[test]
fn the_implicit_prompt_is_what_both_conversations_begin_with() {
    // Expected values: TRL 1.16's extract_prompt on the same rows, where it has a prompt at all.
    let cases: Value = serde_json::from_str(EXTRACTED).unwrap();
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let (prompt, chosen, rejected) = parts(&json!({"chosen": case["chosen"], "rejected": case["rejected"]}));
        let want = &case["extracted"];
        let want_prompt = Some(&want["prompt"]).filter(|turns| turns.as_array().is_some_and(|turns| !turns.is_empty()));
        assert_eq!(prompt, want_prompt.map(content), "{case}");
        assert_eq!((chosen, rejected), (content(&want["chosen"]), content(&want["rejected"])), "{case}");
    }
}

#[test]
fn an_explicit_prompt_stays() {
    let (ask, a, b) = (json!([user("q")]), json!([assistant("a")]), json!([assistant("b")]));
    let row = json!({"prompt": ask, "chosen": a, "rejected": b});
    assert_eq!(parts(&row), (Some(content(&ask)), content(&a), content(&b)));
    // A string that repeats the question which both conversations begin with.
    let row = json!({"prompt": "q", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]});
    assert_eq!(parts(&row), (Some(content(&ask)), content(&a), content(&b)));
}

/// Rows and what `trl.data_utils.extract_prompt` returns for them.
const EXTRACTED: &str = r#"[
    {"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "y"}], "extracted": {"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "assistant", "content": "x"}], "rejected": [{"role": "assistant", "content": "y"}]}},
    {"chosen": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "1"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "x"}], "rejected": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "1"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "z"}, {"role": "assistant", "content": "w"}], "extracted": {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "1"}, {"role": "user", "content": "r"}], "chosen": [{"role": "assistant", "content": "x"}], "rejected": [{"role": "assistant", "content": "y"}, {"role": "user", "content": "z"}, {"role": "assistant", "content": "w"}]}},
    {"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "more"}, {"role": "assistant", "content": "y"}], "extracted": {"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "assistant", "content": "x"}], "rejected": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "more"}, {"role": "assistant", "content": "y"}]}},
    {"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}], "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "y"}], "extracted": {"prompt": [], "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}], "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "y"}]}},
    {"chosen": [{"role": "assistant", "content": "x"}], "rejected": [{"role": "assistant", "content": "y"}], "extracted": {"prompt": [], "chosen": [{"role": "assistant", "content": "x"}], "rejected": [{"role": "assistant", "content": "y"}]}}
]"#;
