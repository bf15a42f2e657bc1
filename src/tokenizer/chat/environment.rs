//! The engine as transformers sets jinja2 up: white space, filters, tests and functions. Nothing here can open a file.
//! Owns minijinja's configuration; imports `methods` and `python` of ours.
use super::methods;
use super::python::{Json, to_text};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior};

/// The name under which the one template stands.
pub const NAME: &str = "chat_template";
/// Calls within calls; jinja2 stops at Python's own limit.
const RECURSION: usize = 200;
/// Spaces of one level of `tojson(indent=...)`.
const WIDEST: i64 = 64;

/// The environment of one template.
pub fn new() -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_recursion_limit(RECURSION);
    env.set_debug(false);
    env.set_formatter(|out, _, value| match value.as_str() {
        Some(text) => out.write_str(text).map_err(Error::from),
        None => out.write_str(&to_text(value)?).map_err(Error::from),
    });
    env.set_unknown_method_callback(|_, value, method, args| methods::call(value, method, args));
    // What jinja2 does not have: a template that uses it fails there, and should here.
    ["split", "lines", "bool", "chain", "zip"].iter().for_each(|name| env.remove_filter(name));
    // What jinja2 has, but would put values into others unseen by `held`; no chat template known to us uses it.
    ["batch", "slice", "groupby"].iter().for_each(|name| env.remove_filter(name));
    env.remove_global("debug");
    guard_makers(&mut env);
    add_filters(&mut env);
    add_tests(&mut env);
    env.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, to_text(message)?))
    });
    Ok(env)
}

/// `namespace(...)` and `dict(...)` take values in; what they hold must pass the guard, and no namespace may be in it.
fn guard_makers(env: &mut Environment<'static>) {
    let makers: Vec<(String, Value)> = env
        .globals()
        .filter(|(name, _)| matches!(*name, "namespace" | "dict"))
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    for (name, maker) in makers {
        env.add_function(name, move |state: &mut State, args: Rest<Value>, named: Kwargs| -> Result<Value, Error> {
            let named: Vec<(String, Value)> =
                named.args().map(|key| Ok((key.to_owned(), named.get(key)?))).collect::<Result<_, Error>>()?;
            let mut arguments: Vec<Value> = args.to_vec();
            arguments.extend(named.iter().map(|(_, value)| value.clone()));
            let guard = state.lookup(super::source::HELD);
            for argument in &arguments {
                let held = [Value::from(vec![argument.clone()])];
                guard.as_ref().map(|guard| guard.call(state, &held)).transpose()?;
            }
            arguments.truncate(args.len());
            if !named.is_empty() {
                arguments.push(Value::from(named.into_iter().collect::<Kwargs>()));
            }
            maker.call(state, &arguments)
        });
    }
}

fn add_filters(env: &mut Environment<'static>) {
    env.add_filter("tojson", to_json);
    env.add_filter("string", |value: &Value| to_text(value).map(Value::from));
    env.add_filter("trim", |value: &Value, chars: Option<Value>| -> Result<Value, Error> {
        let text = to_text(value)?;
        Ok(Value::from(methods::strip(&text, chars.as_ref(), true, true)?))
    });
    env.add_filter("upper", |value: &Value| Ok::<_, Error>(Value::from(to_text(value)?.to_uppercase())));
    env.add_filter("lower", |value: &Value| Ok::<_, Error>(Value::from(to_text(value)?.to_lowercase())));
    env.add_filter("capitalize", |value: &Value| Ok::<_, Error>(Value::from(methods::capitalize(&to_text(value)?))));
    let length = |value: &Value| match (value.len(), value.kind()) {
        (Some(length), _) => Ok(Value::from(length)),
        (None, ValueKind::Undefined) => Ok(Value::from(0)),
        (None, ValueKind::Iterable) => Ok(Value::from(value.try_iter()?.count())),
        (None, kind) => Err(Error::new(ErrorKind::InvalidOperation, format!("a value of kind {kind} has no length"))),
    };
    env.add_filter("length", length);
    env.add_filter("count", length);
}

fn add_tests(env: &mut Environment<'static>) {
    // Python's protocols: a text and a mapping have a length and items, too.
    let is_sequence = |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined)
    };
    env.add_test("sequence", is_sequence);
    env.add_test("iterable", |value: &Value| value.is_undefined() || (!value.is_none() && value.try_iter().is_ok()));
    env.add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
}

/// transformers' own `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, which is `json.dumps`.
fn to_json(_: &State, value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let argument = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        let value = match positional.get(index) {
            Some(value) => Some(value.clone()),
            None => named.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|v| !v.is_none()))
    };
    let indent = match argument(1, "indent")? {
        None => None,
        Some(value) => Some(match (value.as_str(), value.as_i64()) {
            (Some(text), _) if text.len() <= WIDEST as usize => text.to_owned(),
            (None, Some(width)) if width <= WIDEST => " ".repeat(usize::try_from(width).unwrap_or(0)),
            _ => return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: indent is over {WIDEST}"))),
        }),
    };
    let separators = match argument(2, "separators")? {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => {
            let parts: Vec<Value> = pair.try_iter()?.collect();
            match parts.iter().map(Value::as_str).collect::<Vec<_>>()[..] {
                [Some(item), Some(key)] => (item.to_owned(), key.to_owned()),
                _ => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators are not two texts")),
            }
        }
    };
    let truth = |value: Option<Value>| value.is_some_and(|v| v.is_true());
    let json = Json {
        ensure_ascii: truth(argument(0, "ensure_ascii")?),
        indent,
        separators,
        sort_keys: truth(argument(3, "sort_keys")?),
    };
    named.assert_all_used()?;
    json.dumps(value).map(Value::from)
}
