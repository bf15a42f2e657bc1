//! A chat template's text on its way to the engine: line ends, the `{% generation %}` tags that only chat templates have,
//! and a guard around every value that is put into another. Knows jinja's tokens; imports nothing of ours.

/// The variables that stand where generated text begins and ends; the empty text where nobody asks for spans.
pub const BEGIN: &str = "__generation_begin";
/// See [`BEGIN`].
pub const END: &str = "__generation_end";
/// The function that sees what a template puts into lists, tuples, mappings and namespaces (`held`).
pub const HELD: &str = "__held";
/// Words after which a bracket opens a value; after any other it is a call or a subscript.
const KEYWORDS: [&str; 8] = ["in", "not", "and", "or", "if", "elif", "else", "is"];

/// A template as the engine takes it.
pub struct Source {
    /// The text, with every generation block turned into a scope between the two variables.
    pub text: String,
    /// Whether there was such a block.
    pub marks_generation: bool,
}

/// Rewrites a template. A generation block is a scope of its own, as the call block is that transformers makes of it,
/// and keeps its tags' white space control:
///
/// `{%- generation %}` → `{%- with %}{{ begin }}{% if true %}`, `{% endgeneration -%}` → `{% endif %}{{ end }}{% endwith -%}`.
///
/// No line is added or taken away before the first generation tag that spans lines, so errors name the template's lines.
pub fn rewrite(template: &str) -> Source {
    let template = template.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(template.len() + 64);
    let (mut rest, mut marks_generation) = (template.as_str(), false);
    while let Some(at) = next_delimiter(rest) {
        let tag = &rest[at..];
        out.push_str(&rest[..at]);
        let length = match &tag[..2] {
            "{#" => tag.find("#}").map_or(tag.len(), |end| end + 2),
            "{{" => {
                let length = tag_length(tag, "}}");
                out.push_str(&guarded(&tag[..length]));
                rest = &tag[length..];
                continue;
            }
            _ => match generation_tag(tag) {
                Some(found) => {
                    marks_generation = true;
                    out.push_str(&found.replacement);
                    rest = &tag[found.length..];
                    continue;
                }
                None if first_word(tag) == "raw" => raw_length(tag),
                None => {
                    let length = tag_length(tag, "%}");
                    out.push_str(&guarded(&tag[..length]));
                    rest = &tag[length..];
                    continue;
                }
            },
        };
        out.push_str(&tag[..length]);
        rest = &tag[length..];
    }
    out.push_str(rest);
    Source { text: out, marks_generation }
}

fn next_delimiter(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len().saturating_sub(1)).find(|&i| bytes[i] == b'{' && matches!(bytes[i + 1], b'{' | b'%' | b'#'))
}

/// Bytes from the opening delimiter to behind the closing one; strings and braces inside are passed over.
fn tag_length(tag: &str, close: &str) -> usize {
    let bytes = tag.as_bytes();
    let (mut at, mut depth, mut quote) = (2, 0usize, None);
    while at < bytes.len() {
        let byte = bytes[at];
        match quote {
            Some(_) if byte == b'\\' => at += 1,
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None if depth == 0 && bytes[at..].starts_with(close.as_bytes()) => return at + 2,
            None => match byte {
                b'"' | b'\'' => quote = Some(byte),
                b'{' | b'(' | b'[' => depth += 1,
                b'}' | b')' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            },
        }
        at += 1;
    }
    tag.len() // unclosed: the engine says so
}

/// A tag whose literals `[...]`, `{...}` and `(...)` stand in a call of [`HELD`], and whose value for a namespace's
/// attribute (`set ns.x = ...`) does.
fn guarded(tag: &str) -> String {
    let Some(inner) = tag.get(2..tag.len().max(4) - 2) else { return tag.to_owned() };
    let mut words = Words::of(tag);
    let mut out = String::from(&tag[..2]);
    let (mut wrapped, mut set_open, mut at) = (Vec::new(), false, 0);
    while let Some(c) = inner[at..].chars().next() {
        let length = token_length(&inner[at..], c);
        let token = &inner[at..at + length];
        at += length;
        match c {
            '[' | '{' | '(' => {
                let wrap = words.opens_value();
                out.push_str(&if wrap { format!(" {HELD}({token}") } else { token.to_owned() });
                wrapped.push(wrap);
            }
            ']' | '}' | ')' => {
                out.push_str(token);
                out.push_str(if wrapped.pop() == Some(true) { ")" } else { "" });
            }
            '=' if wrapped.is_empty() && words.sets_attribute() && !set_open => {
                set_open = true;
                out.push_str(&format!("= {HELD}(("));
            }
            '-' | '+' if set_open && at == inner.len() => {
                set_open = false;
                out.push_str(&format!("), true){token}"));
            }
            _ => out.push_str(token),
        }
        words.note(token, c);
    }
    out.push_str(if set_open { "), true)" } else { "" });
    out.push_str(&tag[2 + inner.len()..]);
    out
}

/// Bytes of the token at the start: a string, a word or number, or one character.
fn token_length(text: &str, first: char) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if first == '"' || first == '\'' {
        let mut escaped = false;
        let close = text.char_indices().skip(1).find(|&(_, c)| {
            let ends = c == first && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        close.map_or(text.len(), |(at, _)| at + 1)
    } else if is_word(first) {
        text.find(|c: char| !is_word(c)).unwrap_or(text.len())
    } else {
        first.len_utf8()
    }
}

/// The tokens before the one at hand, as far as they tell what a bracket means.
struct Words<'t> {
    /// The last three, white space left out; the latest last.
    last: [&'t str; 3],
    is_block: bool,
    /// Those before the first `=` of a `set` tag.
    target: Option<Vec<&'t str>>,
    count: usize,
}

impl<'t> Words<'t> {
    fn of(tag: &str) -> Self {
        Self { last: [""; 3], is_block: tag.starts_with("{%"), target: None, count: 0 }
    }

    fn note(&mut self, token: &'t str, first: char) {
        if first.is_whitespace() || (self.count == 0 && matches!(first, '-' | '+')) {
            return;
        }
        self.count += 1;
        self.last = [self.last[1], self.last[2], token];
        if self.is_block && self.count == 1 && token == "set" {
            self.target = Some(Vec::new());
        } else if let Some(target) = &mut self.target {
            target.push(token);
        }
    }

    /// Whether a bracket that comes now opens a literal or a group.
    fn opens_value(&self) -> bool {
        let [before, negation, last] = self.last;
        if self.is_block && self.count == 1 {
            return matches!(last, "if" | "elif");
        }
        // `is in [...]`: a test and its argument.
        if last == "in" && (negation == "is" || (negation == "not" && before == "is")) {
            return false;
        }
        let operand =
            last.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '"' | '\'' | ')' | ']' | '}'));
        !operand || KEYWORDS.contains(&last)
    }

    /// Whether the tag so far is `set name.attribute`.
    fn sets_attribute(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.contains(&".") && !target.contains(&"="))
    }
}

/// Bytes of a raw block, from its tag to behind its end tag.
fn raw_length(tag: &str) -> usize {
    let mut at = tag_length(tag, "%}");
    while let Some(found) = tag[at..].find("{%") {
        at += found;
        if first_word(&tag[at..]) == "endraw" {
            return at + tag_length(&tag[at..], "%}");
        }
        at += 2;
    }
    tag.len()
}

fn first_word(tag: &str) -> &str {
    let inner = tag[2..].trim_start_matches(['-', '+']).trim_start();
    &inner[..inner.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inner.len())]
}

struct Found {
    length: usize,
    replacement: String,
}

/// A `{% generation %}` or `{% endgeneration %}` at the start of `tag`.
fn generation_tag(tag: &str) -> Option<Found> {
    let word = first_word(tag);
    if word != "generation" && word != "endgeneration" {
        return None;
    }
    let length = tag_length(tag, "%}");
    let inner = tag[2..].get(..length.checked_sub(4)?)?;
    let (left, inner) = control(inner, inner.starts_with(['-', '+']), |s| s.split_at(1));
    let (right, inner) = control(inner, inner.ends_with(['-', '+']), |s| {
        let (inner, sign) = s.split_at(s.len() - 1);
        (sign, inner)
    });
    if inner.trim() != word {
        return None; // the engine will name the unknown tag
    }
    let replacement = match word {
        "generation" => format!("{{%{left} with %}}{{{{ {BEGIN} }}}}{{% if true {right}%}}"),
        _ => format!("{{%{left} endif %}}{{{{ {END} }}}}{{% endwith {right}%}}"),
    };
    Some(Found { length, replacement })
}

/// The sign that `split` takes off where there is one, and what is left.
fn control(text: &str, there: bool, split: impl Fn(&str) -> (&str, &str)) -> (&str, &str) {
    if there { split(text) } else { ("", text) }
}
