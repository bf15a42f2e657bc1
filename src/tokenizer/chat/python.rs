//! Values as Python writes them: `str`, `repr` and `json.dumps`. Imports nothing of ours.
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Values nested deeper than this are refused; Python gives up, too.
const DEPTH: usize = 200;
/// A text longer than this is refused: values that share parts can be far larger written than held.
pub const LONGEST: usize = 64 << 20;

/// Rows of JSON as the engine's values; the order of keys is kept.
pub fn from_json_rows(rows: &[serde_json::Map<String, serde_json::Value>]) -> Value {
    Value::from(rows.iter().map(from_json_object).collect::<Vec<_>>())
}

fn from_json_object(object: &serde_json::Map<String, serde_json::Value>) -> Value {
    Value::from_pairs(object.iter().map(|(key, value)| (key.as_str(), from_json(value))))
}

fn from_json(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::from(()),
        Json::Bool(truth) => Value::from(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::from(whole),
            (_, Some(whole)) => Value::from(whole),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(from_json).collect::<Vec<_>>()),
        Json::Object(object) => from_json_object(object),
    }
}

/// What Python's `str(value)` gives.
pub fn to_text(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Ok(String::new()),
        None => {
            let mut out = String::new();
            repr(value, 0, &mut out)?;
            Ok(out)
        }
    }
}

/// White space as `str.strip` and `str.split` see it.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

fn repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    grown(out, depth)?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::String => repr_text(value.as_str().unwrap_or_default(), out),
        ValueKind::Number => number(value, out)?,
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.is_tuple();
            out.push(if tuple { '(' } else { '[' });
            let mut count = 0;
            for item in value.try_iter()? {
                if count > 0 {
                    out.push_str(", ");
                }
                repr(&item, depth + 1, out)?;
                count += 1;
            }
            out.push_str(match (tuple, count) {
                (true, 1) => ",)",
                (true, _) => ")",
                (false, _) => "]",
            });
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                repr(&key, depth + 1, out)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, depth + 1, out)?;
            }
            out.push('}');
        }
        // None, True, False, and what has no text of its own (a macro, a function).
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn grown(out: &str, depth: usize) -> Result<(), Error> {
    if depth > DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("a value is nested more than {DEPTH} deep")));
    }
    if out.len() > LONGEST {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value's text is too long"));
    }
    Ok(())
}

fn repr_text(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&match c as u32 {
                code @ ..=0xff => format!("\\x{code:02x}"),
                code @ ..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    out.push(quote);
}

/// Whether `repr` leaves the character as it is. Behind another character, Rust escapes the same kinds: controls,
/// formats, surrogates, private use, unassigned, and separators but the space.
fn is_printable(c: char) -> bool {
    let pair = ['x', c];
    let text: String = pair.iter().collect();
    text.escape_debug().skip(1).eq([c])
}

fn number(value: &Value, out: &mut String) -> Result<(), Error> {
    if value.is_integer() {
        out.push_str(&value.to_string());
    } else {
        out.push_str(&float(f64::try_from(value.clone())?, "nan", "inf"));
    }
    Ok(())
}

/// Python's `repr` of a float: the shortest digits that give it back, an exponent below 1e-4 and from 1e16 on.
fn float(value: f64, nan: &str, infinity: &str) -> String {
    if value.is_nan() {
        return nan.to_owned();
    }
    if value.is_infinite() {
        return format!("{}{infinity}", if value < 0.0 { "-" } else { "" });
    }
    let shortest = format!("{value:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let power: i32 = exponent.parse().unwrap_or_default();
    if value != 0.0 && !(-4..16).contains(&power) {
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", power.abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// How `json.dumps` is to write.
pub struct Json {
    /// Characters beyond ASCII as `\uXXXX`.
    pub ensure_ascii: bool,
    /// One level of indentation; `None` writes one line.
    pub indent: Option<String>,
    /// Between elements, between key and value.
    pub separators: (String, String),
    /// Keys in order.
    pub sort_keys: bool,
}

impl Json {
    /// `json.dumps(value)`.
    pub fn dumps(&self, value: &Value) -> Result<String, Error> {
        let mut out = String::new();
        self.write(value, 0, &mut out)?;
        Ok(out)
    }

    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        grown(out, depth)?;
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
            ValueKind::Number => out.push_str(&float(f64::try_from(value.clone())?, "NaN", "Infinity")),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.between(index, depth + 1, out);
                    self.write(item, depth + 1, out)?;
                }
                self.close(items.is_empty(), depth, ']', out);
            }
            ValueKind::Map => self.object(value, depth, out)?,
            kind => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("tojson cannot write a value of kind {kind}"),
                ));
            }
        }
        Ok(())
    }

    fn object(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        out.push('{');
        for (index, key) in keys.iter().enumerate() {
            self.between(index, depth + 1, out);
            match key.as_str() {
                Some(text) => self.string(text, out),
                None => {
                    let mut text = String::new();
                    self.write(key, depth + 1, &mut text)?;
                    self.string(&text, out);
                }
            }
            out.push_str(&self.separators.1);
            self.write(&value.get_item(key)?, depth + 1, out)?;
        }
        self.close(keys.is_empty(), depth, '}', out);
        Ok(())
    }

    /// What stands before element `index`.
    fn between(&self, index: usize, depth: usize, out: &mut String) {
        if index > 0 {
            out.push_str(&self.separators.0);
        }
        self.new_line(depth, out);
    }

    fn close(&self, empty: bool, depth: usize, bracket: char, out: &mut String) {
        if !empty {
            self.new_line(depth, out);
        }
        out.push(bracket);
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x08' => out.push_str("\\b"),
                '\x0c' => out.push_str("\\f"),
                ' '..='~' => out.push(c),
                c if c < ' ' || self.ensure_ascii => {
                    c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}
