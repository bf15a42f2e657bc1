//! File name patterns of data sets' cards: `*`, `?`, `[a-z]`, `[!a]` within a component, `**` for any components.
//! Imports nothing of ours.

/// Whether a relative path matches.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    let mut parts: Vec<&str> = pattern.split('/').collect();
    if parts.last() == Some(&"**") {
        // At the end it stands for at least one component.
        parts.push("*");
    }
    let path: Vec<&str> = path.split('/').collect();
    wild(&parts, &path, |part| *part == "**", |part, name| component(part, name))
}

fn component(pattern: &str, name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    wild(&tokens(pattern), &name, |token| matches!(token, Token::Run), Token::accepts)
}

/// Matches with patterns any number of items of which a "star" stands for. Going back to the last star is enough, which
/// bounds the work by the product of the lengths whatever a card says.
fn wild<P, T>(pattern: &[P], items: &[T], star: impl Fn(&P) -> bool, one: impl Fn(&P, &T) -> bool) -> bool {
    let (mut p, mut i, mut back) = (0, 0, None);
    while i < items.len() {
        if p < pattern.len() && star(&pattern[p]) {
            back = Some((p, i));
            p += 1;
        } else if p < pattern.len() && one(&pattern[p], &items[i]) {
            (p, i) = (p + 1, i + 1);
        } else if let Some((at, from)) = back {
            back = Some((at, from + 1));
            (p, i) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(star)
}

enum Token {
    Run,
    Any,
    One(char),
    Class { not: bool, ranges: Vec<(char, char)> },
}

impl Token {
    fn accepts(&self, c: &char) -> bool {
        match self {
            Token::Run => false,
            Token::Any => true,
            Token::One(own) => own == c,
            Token::Class { not, ranges } => ranges.iter().any(|(from, to)| (from..=to).contains(&c)) != *not,
        }
    }
}

fn tokens(pattern: &str) -> Vec<Token> {
    let chars: Vec<char> = pattern.chars().collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let token = match chars[at] {
            '*' => Token::Run,
            '?' => Token::Any,
            '[' => match class(&chars[at + 1..]) {
                Some((class, length)) => {
                    at += length;
                    class
                }
                None => Token::One('['),
            },
            c => Token::One(c),
        };
        found.push(token);
        at += 1;
    }
    found
}

/// What follows a `[`: the class and the number of characters up to its `]`, if there is one.
fn class(rest: &[char]) -> Option<(Token, usize)> {
    let not = rest.first() == Some(&'!');
    let start = usize::from(not);
    // A `]` that comes first is meant itself.
    let end = start + 1 + rest.get(start + 1..)?.iter().position(|c| *c == ']')?;
    let (mut ranges, mut at) = (Vec::new(), start);
    while at < end {
        if at + 2 < end && rest[at + 1] == '-' {
            ranges.push((rest[at], rest[at + 2]));
            at += 3;
        } else {
            ranges.push((rest[at], rest[at]));
            at += 1;
        }
    }
    Some((Token::Class { not, ranges }, end + 1))
}
