//! Chat templates: what a model directory may hold, what a hostile template may not do, what marks generated text.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]
use collimate::tokenizer::chat::{ChatTemplate, Ending, Message, Rendered};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

fn messages(value: Value) -> Vec<Message> {
    serde_json::from_value(value).unwrap()
}

fn talk() -> Vec<Message> {
    messages(json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]))
}

fn compile(template: &str) -> ChatTemplate {
    ChatTemplate::new(template, Vec::new()).unwrap()
}

fn render(template: &str) -> Rendered {
    compile(template).render(&talk(), Ending::Nothing).unwrap()
}

/// The one line with which a template is refused, soon.
#[track_caller]
fn refused(template: &str) -> String {
    let start = Instant::now();
    let error = match ChatTemplate::new(template, Vec::new()) {
        Ok(compiled) => compiled.render(&talk(), Ending::Nothing).expect_err("it was rendered"),
        Err(error) => error,
    };
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(!error.message.contains('\n'), "{}", error.message);
    error.message
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn from_dir(dir: &Path) -> ChatTemplate {
    ChatTemplate::from_dir(dir).unwrap().unwrap()
}

fn text_of(dir: &Path) -> String {
    from_dir(dir).render(&talk(), Ending::Nothing).unwrap().text
}

#[test]
fn loops_without_end_are_stopped() {
    let steps = "the chat template takes too many steps";
    let outer = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}";
    assert!(refused(outer).ends_with(steps), "{}", refused(outer));
    assert!(refused("{% macro again() %}{{ again() }}{{ again() }}{% endmacro %}{{ again() }}").contains("recursion"));
    refused("{% for x in [[[[]]]] recursive %}{{ loop([[[[]]], [[]]]) }}{% endfor %}");
    refused("{% set ns = namespace(x='a') %}{% for i in range(99999) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}");
}

#[test]
fn texts_without_end_are_stopped() {
    refused("{{ 'x' * 1000000000 }}");
    refused("{% for i in range(90000) %}{{ 'x' * 90000 }}{% endfor %}");
    refused("{% set a = 'x' * 60000 %}{{ a.replace('x', a) }}");
    refused("{% set a = 'x' * 60000 %}{{ a.join(a | list) }}");
    refused("{{ [1] | tojson(indent=1000000000) }}");
}

#[test]
fn values_without_end_are_stopped() {
    let large = "the chat template builds too large a value";
    let ns = |start: &str, step: &str| {
        format!(
            "{{% set ns = namespace(a={start}) %}}{{% for i in range(90000) %}}{{% set ns.a = {step} %}}{{% endfor %}}"
        )
    };
    // Deep: freeing it would end the stack. Wide: each value holds the one before it twice.
    for step in
        ["[ns.a]", "(ns.a,)", "{'a': ns.a}", "[ns.a, ns.a]", "[ns.a] * 2", "(ns.a, ns.a)", "ns.a, ns.a", "dict(a=ns.a)"]
    {
        assert_eq!(refused(&ns("['x']", step)), large, "{step}");
    }
    refused(&ns("['x']", "ns.a + ns.a"));
    refused(&ns("['x' * 60000]", "ns.a + ns.a"));
    for held in ["(a, a)", "[a, a]", "dict(x=a, y=a)", "{'x': a, 'y': a}"] {
        assert_eq!(
            refused(&format!("{{% macro f(a) %}}{{{{ f({held}) }}}}{{% endmacro %}}{{{{ f(1) }}}}")),
            large,
            "{held}"
        );
    }
    for itself in [
        "{% set ns.a = ns %}",
        "{% set ns.a = [ns] %}",
        "{% set b = namespace(a=ns) %}",
        "{% set b = {'a': (1, ns)} %}",
    ] {
        let message = refused(&format!("{{% set ns = namespace() %}}{itself}{{{{ 'x' ~ ns }}}}"));
        assert_eq!(message, "a namespace stands in another value", "{itself}");
    }
}

#[test]
fn brackets_mean_what_they_mean() {
    for (template, expected) in [
        ("{{ (1 + 2) * 3 }}{{ [1, [2]][1][0] }}{{ {'a': {'b': 1}}.a.b }}{{ {'a': 1}['a'] }}{{[1]}}", "9211[1]"),
        (
            "{{ 'a' is in ['a'] }}{{ 'a' is not in ['b'] }}{{ 'a' in('a', 'b') }}{{ not('a' in ['a']) }}",
            "TrueTrueTrueFalse",
        ),
        ("{% if(1 == 1)and(2 > 1) %}y{% elif(1) %}n{% else %}n{% endif %}{{ 'y' if(1)else('n') }}", "yy"),
        (
            "{% for k, v in {'x': (1, 2)}.items() %}{{ k }}{{ v }}{% endfor %}{% for (a, b) in [(1, 2)] %}{{ a + b }}{% endfor %}",
            "x(1, 2)3",
        ),
        (
            "{% set ns = namespace(x=1) %}{%- set ns.x = 'a' if false else '=]' -%}{{ ns.x }}{% set ns.x=(1,2) %}{{ ns.x[1] }}",
            "=]2",
        ),
        (
            r#"{% set (p, q) = (1, 2) %}{{ p + q }}{% set x = 'it\'s]' ~ "[(" %}{{ x }}{{ x[0] }}{{ x.split(']')[1] }}"#,
            "3it's][(i[(",
        ),
        (
            "{% set x %}[{{ '(' }}]{% endset %}{{ x }}{% macro f(a=[1], b={}) %}{{ a }}{{ b }}{% endmacro %}{{ f() }}",
            "[(][1]{}",
        ),
        (
            "{% for x in [1, 2, 3] if (x > 1) %}{{ x }}{% endfor %}{% for x in (1, 2) recursive %}{{ x }}{% endfor %}",
            "2312",
        ),
    ] {
        assert_eq!(render(template).text, expected, "{template}");
    }
}

#[test]
fn files_and_other_templates_are_out_of_reach() {
    for template in [
        "{% include 'chat_template' %}",
        "{% include '/etc/hostname' %}",
        "{% import 'x' as x %}{{ x.y() }}",
        "{% from 'x' import y %}{{ y() }}",
        "{% extends 'x' %}",
        "{{ open('/etc/hostname') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__init__ }}",
        "{{ messages.append({}) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
    ] {
        refused(template);
    }
}

#[test]
fn what_jinja_refuses_is_refused() {
    assert_eq!(refused("{{ raise_exception('two\nlines') }}"), "two lines");
    assert!(refused("a\n\n{{ messages[0].none.such }}").starts_with("line 3 of the chat template: "));
    for template in [
        "{{ nothing.at.all }}",
        "{{ nothing() }}",
        "{{ 'a' + nothing }}",
        "{{ 'a' + 1 }}",
        "{{ 'a' + none }}",
        "{{ none | length }}",
        "{{ 5 | length }}",
        "{{ none.strip() }}",
        "{{ 'a'.no_such_method() }}",
        "{{ 'a' | no_such_filter }}",
        "{{ 'a b' | split }}",
        "{{ 'a'.split('') }}",
        "{{ nothing | tojson }}",
        "{{ 'a'.startswith(1) }}",
        "{{ ','.join([1]) }}",
        "{{ strftime_now('%Q') }}",
        "{{ 'é'.isalpha() }}",
    ] {
        refused(template);
    }
}

#[test]
fn errors_of_syntax_name_file_and_line() {
    let broken = "{{ messages }}\n{% if %}\n";
    let in_file = directory(&[("chat_template.jinja", broken)]);
    let message = ChatTemplate::from_dir(in_file.path()).unwrap_err().to_string();
    let start = format!(
        "{}: the chat template does not compile: line 2 of the chat template: ",
        in_file.path().join("chat_template.jinja").display()
    );
    assert!(message.starts_with(&start) && message.ends_with("; correct the template"), "{message}");
    let config = json!({"chat_template": broken}).to_string();
    let in_config = directory(&[("tokenizer_config.json", &config)]);
    let message = ChatTemplate::from_dir(in_config.path()).unwrap_err().to_string();
    assert!(message.contains("tokenizer_config.json: the chat template does not compile: line 2"), "{message}");
    for template in
        ["{% generation %}", "{% endgeneration %}", "{% generation x %}{% endgeneration %}", "{{ 'a", "{% for %}"]
    {
        refused(template);
    }
}

#[test]
fn the_template_of_a_directory_is_found_as_transformers_finds_it() {
    assert!(ChatTemplate::from_dir(directory(&[]).path()).unwrap().is_none());
    assert!(ChatTemplate::from_dir(directory(&[("tokenizer_config.json", "{}")]).path()).unwrap().is_none());
    let list = r#"{"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}"#;
    assert_eq!(text_of(directory(&[("tokenizer_config.json", list)]).path()), "D");
    assert_eq!(text_of(directory(&[("tokenizer_config.json", list), ("chat_template.jinja", "J\n")]).path()), "J");
    for wrong in [r#"{"chat_template": [{"name": "tool_use", "template": "T"}]}"#, r#"{"chat_template": 5}"#] {
        let dir = directory(&[("tokenizer_config.json", wrong)]);
        let message = ChatTemplate::from_dir(dir.path()).unwrap_err().to_string();
        assert!(message.contains("tokenizer_config.json: chat_template is"), "{message}");
    }
}

#[test]
fn special_tokens_come_from_both_files() {
    let template = "{{ bos_token }},{{ eos_token }},{{ pad_token }},{{ image_token }},{{ unk_token is defined }}";
    let config = r#"{"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>"}, "unk_token": null}"#;
    let map = r#"{"bos_token": {"content": "<b>"}, "pad_token": "<p>", "image_token": "<i>"}"#;
    let files = [("chat_template.jinja", template), ("tokenizer_config.json", config)];
    assert_eq!(text_of(directory(&files).path()), "<s>,</s>,,,False");
    let both = [files[0], files[1], ("special_tokens_map.json", map)];
    assert_eq!(text_of(directory(&both).path()), "<b>,</s>,<p>,<i>,False");
    let listed = r#"{"bos_token": "<s>", "added_tokens_decoder": {}}"#;
    let ignored = [files[0], ("tokenizer_config.json", listed), ("special_tokens_map.json", map)];
    assert_eq!(text_of(directory(&ignored).path()), "<s>,,,,False");
}

#[test]
fn generation_blocks_are_found_where_they_come_out() {
    let spans = |template: &str| {
        let Rendered { text, generated } = render(template);
        (text.clone(), generated.into_iter().map(|span| text[span].to_owned()).collect::<Vec<_>>())
    };
    let found =
        |text: &str, parts: &[&str]| (text.to_owned(), parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
    let macro_ = "{% macro say(m) %}é{{ m.role }}:{% generation %}{{ m.content }}é{% endgeneration %};{% endmacro %}";
    let looped = "{% for m in messages %}<{{ say(m) }}>{% endfor %}";
    assert_eq!(spans(&format!("{macro_}{looped}")), found("<éuser:qé;><éassistant:aé;>", &["qé", "aé"]));
    let captured = "x{% set all %}1{% generation %}2{% endgeneration %}3{% endset %}{{ all }}{{ all }}";
    assert_eq!(spans(captured), found("x123123", &["2", "2"]));
    let tested = "{% if messages %}{% generation %}in{% endgeneration %}{% else %}{% generation %}out{% endgeneration %}{% endif %}";
    assert_eq!(spans(tested), found("in", &["in"]));
    assert_eq!(spans("a{% generation %}{% endgeneration %}b"), found("ab", &[""]));
    let scoped = "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}";
    assert_eq!(spans(scoped), found("21", &["2"]));
    let quoted = "{{ '{% generation %}' }}{# {% generation %} #}{% raw %}{% generation %}{% endraw %}";
    assert_eq!(spans(quoted), found("{% generation %}{% generation %}", &[]));
    assert!(!compile(quoted).marks_generation());
}

#[test]
fn marked_text_that_the_template_changes_is_refused() {
    let trimmed = "{% set all %}{% generation %} a {% endgeneration %}{% endset %}{{ all | trim }}";
    assert_eq!(refused(trimmed), "the chat template changes text that its generation tags have marked");
    let cut = "{% set all %}{% generation %}abc{% endgeneration %}{% endset %}{{ all[1:] }}";
    assert_eq!(refused(cut), "the chat template changes text that its generation tags have marked");
}

#[test]
fn characters_that_could_mark_text_may_stand_in_messages() {
    let all: String = ('\u{10ff00}'..='\u{10fff0}').collect();
    let talk = messages(json!([{"role": "assistant", "content": all}]));
    let template = compile("{% generation %}{{ messages[0].content }}{% endgeneration %}!");
    let rendered = template.render(&talk, Ending::Nothing).unwrap();
    assert_eq!((rendered.text.as_str(), &rendered.generated[..]), (format!("{all}!").as_str(), &[0..all.len()][..]));
}

#[test]
fn a_continued_message_ends_where_its_content_does() {
    let template =
        compile("{% for m in messages %}{% generation %}{{ m.content | trim }}{% endgeneration %};{% endfor %}");
    let continued = |content: Value| {
        template.render(&messages(json!([{"role": "assistant", "content": content}])), Ending::ContinueFinal)
    };
    let rendered = continued(json!(" so far ")).unwrap();
    assert_eq!((rendered.text.as_str(), &rendered.generated[..]), ("so far", &[0..6][..]));
    assert_eq!(continued(json!(null)).unwrap_err().message, "the last message has no content to continue");
    assert_eq!(continued(json!(5)).unwrap_err().message, "the last message has no text to continue");
    let deaf = compile("{{ messages[0].role }}{# content #}").render(&talk(), Ending::ContinueFinal);
    assert_eq!(deaf.unwrap_err().message, "the chat template does not write the last message as it is");
    assert!(template.render(&[], Ending::Nothing).is_err());
}

#[test]
fn the_clock_is_the_local_time_now() {
    let before = chrono::Local::now().naive_local();
    let text = render("{{ strftime_now('%Y-%m-%dT%H:%M:%S.%f') }}").text;
    let said: chrono::NaiveDateTime = text.parse().unwrap();
    let after = chrono::Local::now().naive_local();
    assert!(before - chrono::TimeDelta::milliseconds(1) <= said && said <= after, "{before} {said} {after}");
}
