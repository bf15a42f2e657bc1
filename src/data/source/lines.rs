//! JSON lines: one object a line. A BOM, CRLF, blank lines and a missing last newline are accepted.
use super::packed::Text;
use super::{MAX_ROW, Numbered, json};
use crate::error::Result;
use std::io::{BufRead, Read};

/// The lines of a text.
pub struct Lines {
    text: Text,
    line: usize,
    bytes: Vec<u8>,
}

impl Lines {
    /// From a text's start.
    pub fn new(text: Text) -> Self {
        Self { text, line: 0, bytes: Vec::new() }
    }

    /// The next line that is not blank, with its number from 1.
    pub fn next_row(&mut self) -> Result<Option<Numbered>> {
        while let Some(long) = self.read_line()? {
            self.line += 1;
            if long {
                // What was kept of it is given back as well.
                self.bytes = Vec::new();
                return Ok(Some((self.line, Err(json::too_long()))));
            }
            if !self.bytes.trim_ascii().is_empty() {
                return Ok(Some((self.line, json::object(&self.bytes, true))));
            }
        }
        Ok(None)
    }

    /// Reads a line; `true`: it is too long, and only its start was kept. None: there are no more.
    fn read_line(&mut self) -> Result<Option<bool>> {
        self.bytes.clear();
        let reader = self.text.reader();
        let most = MAX_ROW as u64 + 1;
        let read = reader.take(most).read_until(b'\n', &mut self.bytes).and_then(|read| {
            let long = read as u64 == most && self.bytes.last() != Some(&b'\n');
            if long {
                reader.skip_until(b'\n')?;
            }
            Ok((read > 0).then_some(long))
        });
        read.map_err(|error| match self.line {
            0 => self.text.fail(error, "before the first row"),
            line => self.text.fail(error, &format!("after line {line}")),
        })
    }
}
