//! The methods of Python's strings, dictionaries and lists that templates call. Those that change a value are refused, as
//! transformers' sandbox refuses them. Imports nothing of ours but `python`.
use super::python::{LONGEST, is_space};
use minijinja::value::{Kwargs, Rest, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind};

/// Calls a method that the engine itself does not have.
pub fn call(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => on_text(value.as_str().unwrap_or_default(), method, args),
        ValueKind::Map => on_map(value, method, args),
        ValueKind::Seq => on_list(value, method, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn texts(parts: Vec<&str>) -> Value {
    Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>())
}

fn on_text(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let none = |made: String| from_args::<()>(args).map(|()| Value::from(made));
    Ok(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<Value>,) = from_args(args)?;
            Value::from(strip(text, chars.as_ref(), method != "rstrip", method != "lstrip")?)
        }
        "split" | "rsplit" => split(text, method == "rsplit", args)?,
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            texts(lines(text, keep.unwrap_or(false)))
        }
        "startswith" => affix(args, |prefix| text.starts_with(prefix))?,
        "endswith" => affix(args, |suffix| text.ends_with(suffix))?,
        "removeprefix" => from_args(args).map(|(x,): (&str,)| Value::from(text.strip_prefix(x).unwrap_or(text)))?,
        "removesuffix" => from_args(args).map(|(x,): (&str,)| Value::from(text.strip_suffix(x).unwrap_or(text)))?,
        "replace" => replace(text, args)?,
        "find" | "rfind" | "index" | "rindex" => find(text, method, args)?,
        "count" => {
            let (part,): (&str,) = from_args(args)?;
            Value::from(if part.is_empty() { text.chars().count() + 1 } else { text.matches(part).count() })
        }
        "partition" | "rpartition" => partition(text, method == "rpartition", args)?,
        "join" => {
            let (items,): (Value,) = from_args(args)?;
            join(text, &items)?
        }
        "lower" => none(text.to_lowercase())?,
        "upper" => none(text.to_uppercase())?,
        "capitalize" => none(capitalize(text))?,
        "title" => none(title(text))?,
        _ if method.starts_with("is") => {
            from_args::<()>(args)?;
            Value::from(is(text, method)?)
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

/// `str.isspace` and its like. What is a letter or a digit beyond ASCII, Python's tables say, which are not here: a text
/// that only such characters decide is refused.
fn is(text: &str, method: &str) -> Result<bool, Error> {
    let any = |test: fn(char) -> bool| text.chars().any(test);
    let member: fn(&u8) -> bool = match method {
        "isspace" => return Ok(!text.is_empty() && text.chars().all(is_space)),
        "isascii" => return Ok(text.is_ascii()),
        "isupper" => return Ok(any(char::is_uppercase) && !any(char::is_lowercase)),
        "islower" => return Ok(any(char::is_lowercase) && !any(char::is_uppercase)),
        "isalpha" => u8::is_ascii_alphabetic,
        "isdigit" | "isdecimal" | "isnumeric" => u8::is_ascii_digit,
        "isalnum" => u8::is_ascii_alphanumeric,
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    };
    match text.bytes().filter(u8::is_ascii).all(|byte| member(&byte)) {
        true if text.is_ascii() => Ok(!text.is_empty()),
        true => Err(wrong(format!("{method}() is not known for characters beyond ASCII"))),
        false => Ok(false),
    }
}

/// `str.strip` and its halves; `chars` as Python takes it, `None` for white space.
pub fn strip<'t>(text: &'t str, chars: Option<&Value>, left: bool, right: bool) -> Result<&'t str, Error> {
    let set: Option<Vec<char>> = match chars {
        None => None,
        Some(value) if value.is_none() => None,
        Some(value) => Some(value.as_str().ok_or_else(|| wrong("strip wants a text"))?.chars().collect()),
    };
    let out = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.contains(&c));
    let text = if left { text.trim_start_matches(out) } else { text };
    Ok(if right { text.trim_end_matches(out) } else { text })
}

fn split(text: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let (separator, most, named): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = separator.or(named.get("sep")?).filter(|s| !s.is_none());
    let most = most.or(named.get("maxsplit")?).unwrap_or(-1);
    named.assert_all_used()?;
    let pieces = usize::try_from(most).map_or(usize::MAX, |n| n.saturating_add(1));
    let mut parts: Vec<&str> = match &separator {
        Some(separator) => {
            let by = separator.as_str().ok_or_else(|| wrong("split wants a text"))?;
            match (by.is_empty(), from_right) {
                (true, _) => return Err(wrong("empty separator")),
                (_, true) => text.rsplitn(pieces, by).collect(),
                (_, false) => text.splitn(pieces, by).collect(),
            }
        }
        None => words(text, from_right, pieces),
    };
    if from_right {
        parts.reverse();
    }
    Ok(texts(parts))
}

/// Split at runs of white space, from one side, into at most `pieces`; the last piece keeps its inner white space.
fn words(text: &str, from_right: bool, pieces: usize) -> Vec<&str> {
    let (mut rest, mut parts) = (text, Vec::new());
    loop {
        rest = if from_right { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
        if rest.is_empty() {
            return parts;
        }
        let at = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let (Some(at), true) = (at, parts.len() + 1 < pieces) else {
            parts.push(if from_right { rest.trim_start_matches(is_space) } else { rest.trim_end_matches(is_space) });
            // Python strips the far end of the last piece only where no limit stopped it.
            if at.is_some() {
                parts.pop();
                parts.push(rest);
            }
            return parts;
        };
        let width = rest[at..].chars().next().map_or(1, char::len_utf8);
        let (piece, left) = if from_right { (&rest[at + width..], &rest[..at]) } else { (&rest[..at], &rest[at..]) };
        parts.push(piece);
        rest = left;
    }
}

fn lines(text: &str, keep: bool) -> Vec<&str> {
    let breaks =
        |c: char| matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(breaks) {
        let width =
            if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        found.push(&rest[..if keep { at + width } else { at }]);
        rest = &rest[at + width..];
    }
    if !rest.is_empty() {
        found.push(rest);
    }
    found
}

/// `startswith` and `endswith`: one text, or a tuple of them.
fn affix(args: &[Value], test: impl Fn(&str) -> bool) -> Result<Value, Error> {
    let (wanted,): (Value,) = from_args(args)?;
    if let Some(text) = wanted.as_str() {
        return Ok(Value::from(test(text)));
    }
    if !wanted.is_tuple() {
        return Err(wrong("startswith and endswith want a text or a tuple of texts"));
    }
    let mut found = false;
    for item in wanted.try_iter()? {
        found |= test(item.as_str().ok_or_else(|| wrong("startswith and endswith want texts"))?);
    }
    Ok(Value::from(found))
}

fn replace(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
    let most = count.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let times = text.matches(old).take(most).count();
    if times.saturating_mul(new.len()).saturating_add(text.len()) > LONGEST {
        return Err(wrong("a text grows too long in replace"));
    }
    Ok(Value::from(text.replacen(old, new, most)))
}

fn find(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (part,): (&str,) = from_args(args)?;
    let at = if method.starts_with('r') { text.rfind(part) } else { text.find(part) };
    match at {
        Some(at) => Ok(Value::from(text[..at].chars().count())),
        None if method.ends_with("find") => Ok(Value::from(-1)),
        None => Err(wrong("substring not found")),
    }
}

fn partition(text: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let (by,): (&str,) = from_args(args)?;
    if by.is_empty() {
        return Err(wrong("empty separator"));
    }
    let cut = if from_right { text.rsplit_once(by) } else { text.split_once(by) };
    let parts = match (cut, from_right) {
        (Some((before, after)), _) => [before, by, after],
        (None, true) => ["", "", text],
        (None, false) => [text, "", ""],
    };
    Ok(Value::from(minijinja::value::Tuple::from(parts.map(Value::from))))
}

fn join(by: &str, items: &Value) -> Result<Value, Error> {
    let mut out = String::new();
    for (index, item) in items.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(by);
        }
        out.push_str(item.as_str().ok_or_else(|| wrong("join wants texts"))?);
        if out.len() > LONGEST {
            return Err(wrong("a text grows too long in join"));
        }
    }
    Ok(Value::from(out))
}

/// `str.capitalize`.
pub fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars.as_str().to_lowercase().chars()).collect(),
        None => String::new(),
    }
}

/// `str.title`: a capital at the start of every run of letters.
fn title(text: &str) -> String {
    let (mut out, mut inside) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphabetic();
    }
    out
}

fn on_map(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let pairs = || -> Result<Vec<(Value, Value)>, Error> {
        value.try_iter()?.map(|key| value.get_item(&key).map(|item| (key, item))).collect()
    };
    match method {
        "items" => {
            from_args::<()>(args)?;
            let tuple = |(key, item): (Value, Value)| Value::from(minijinja::value::Tuple::from([key, item]));
            Ok(Value::from(pairs()?.into_iter().map(tuple).collect::<Vec<_>>()))
        }
        "keys" => {
            from_args::<()>(args)?;
            Ok(Value::from(pairs()?.into_iter().map(|(key, _)| key).collect::<Vec<_>>()))
        }
        "values" => {
            from_args::<()>(args)?;
            Ok(Value::from(pairs()?.into_iter().map(|(_, item)| item).collect::<Vec<_>>()))
        }
        "copy" => {
            from_args::<()>(args)?;
            Ok(value.clone())
        }
        "get" => {
            let (key, default): (Value, Option<Value>) = from_args(args)?;
            let found = value.get_item(&key)?;
            Ok(if found.is_undefined() { default.unwrap_or(Value::from(())) } else { found })
        }
        "update" | "pop" | "popitem" | "clear" | "setdefault" => Err(changes(method)),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn on_list(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "count" => {
            let (wanted,): (Value,) = from_args(args)?;
            Ok(Value::from(value.try_iter()?.filter(|item| *item == wanted).count()))
        }
        "index" => {
            let (wanted,): (Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|item| item == wanted);
            at.map(Value::from).ok_or_else(|| wrong("the value is not in the list"))
        }
        "copy" => {
            from_args::<()>(args)?;
            Ok(value.clone())
        }
        "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort" | "reverse" => {
            let (_,): (Rest<Value>,) = from_args(args)?;
            Err(changes(method))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn changes(method: &str) -> Error {
    wrong(format!("{method}() would change a value, which templates may not"))
}
