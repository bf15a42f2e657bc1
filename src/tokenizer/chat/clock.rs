//! `strftime_now`: the local time as Python's `datetime.now().strftime(format)` writes it in the C locale.
//! Imports nothing of ours.
use chrono::NaiveDateTime;
use std::fmt::Write;

/// Letters that mean the same in Python (glibc) and in chrono.
const LETTERS: &str = "aAwdbBmyYHIMSpjUWcxXGuVeDFTRrklPhCgnt%";

/// Writes `moment` by a format of strftime.
///
/// # Errors
/// A code that is not known here: what, in words.
pub fn strftime(moment: NaiveDateTime, format: &str) -> Result<String, String> {
    let (mut out, mut chars) = (String::new(), format.chars());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut letter = chars.next();
        let flag = letter.filter(|c| matches!(c, '-' | '_' | '0'));
        if flag.is_some() {
            letter = chars.next();
        }
        match letter {
            Some('f') if flag.is_none() => out.push_str(&moment.format("%6f").to_string()),
            Some('z' | 'Z') => {} // a time without zone has none to write
            Some(letter) if LETTERS.contains(letter) => {
                let flag = flag.map_or_else(String::new, String::from);
                write!(out, "{}", moment.format(&format!("%{flag}{letter}")))
                    .map_err(|_| format!("strftime_now cannot write %{flag}{letter}"))?;
            }
            Some(other) => return Err(format!("strftime_now does not know %{other}")),
            None => return Err("strftime_now: the format ends with %".to_owned()),
        }
    }
    Ok(out)
}
