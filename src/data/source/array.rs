//! A JSON array of objects, as pandas and `datasets` write it. Elements are found by their brackets, one in memory at a
//! time.
use super::packed::Text;
use super::{MAX_ROW, Numbered, json};
use crate::error::{Error, Result};

/// The elements of an array.
pub struct Array {
    text: Text,
    row: usize,
    open: bool,
    bytes: Vec<u8>,
}

/// Where in a value the reading stands.
#[derive(Default)]
struct Scan {
    depth: usize,
    string: bool,
    escaped: bool,
}

impl Scan {
    /// How many of `bytes` belong to the value, and whether it ends there.
    fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.string = false,
                    _ => continue,
                }
                continue;
            }
            match byte {
                b'"' => self.string = true,
                b'{' | b'[' => self.depth += 1,
                b',' | b']' | b'}' if self.depth == 0 => return (at, true),
                b']' | b'}' if self.depth == 1 => return (at + 1, true),
                b']' | b'}' => self.depth -= 1,
                _ => {}
            }
        }
        (bytes.len(), false)
    }
}

impl Array {
    /// From a text's start, whose first byte is the bracket.
    pub fn new(text: Text) -> Self {
        Self { text, row: 0, open: false, bytes: Vec::new() }
    }

    /// The next element, with its number from 1.
    pub fn next_row(&mut self) -> Result<Option<Numbered>> {
        if !self.open {
            self.open = true;
            self.next_byte()?;
            self.eat();
            if self.next_byte()? == Some(b']') {
                return self.end();
            }
        } else {
            match self.next_byte()? {
                Some(b',') => self.eat(),
                Some(b']') => return self.end(),
                Some(_) => return Err(self.broken("has no \",\" or \"]\"")),
                None => return Err(self.cut()),
            }
        }
        match self.next_byte()? {
            Some(b']' | b',' | b'}') => return Err(self.broken("has no row")),
            None => return Err(self.cut()),
            Some(_) => {}
        }
        let long = self.read_value()?;
        self.row += 1;
        Ok(Some((self.row, if long { Err(json::too_long()) } else { json::object(&self.bytes, false) })))
    }

    /// Reads a value to its end; `true`: it is too long, and only its start was kept.
    fn read_value(&mut self) -> Result<bool> {
        self.bytes = Vec::with_capacity(self.bytes.len().min(1 << 16));
        let (mut scan, mut long) = (Scan::default(), false);
        loop {
            let place = self.place();
            let found = match self.text.reader().fill_buf() {
                Ok([]) => return Err(self.cut()),
                Ok(bytes) => {
                    let (taken, ended) = scan.take(bytes);
                    long |= self.bytes.len() + taken > MAX_ROW;
                    if !long {
                        self.bytes.extend_from_slice(&bytes[..taken]);
                    }
                    Ok((taken, ended))
                }
                Err(error) => Err(error),
            };
            let (taken, ended) = found.map_err(|error| self.text.fail(error, &place))?;
            self.text.reader().consume(taken);
            if ended {
                return Ok(long);
            }
        }
    }

    /// The next byte that is no white space, left where it is.
    fn next_byte(&mut self) -> Result<Option<u8>> {
        loop {
            let place = self.place();
            let (blank, byte) = match self.text.reader().fill_buf() {
                Ok([]) => return Ok(None),
                Ok(bytes) => {
                    let rest = bytes.trim_ascii_start();
                    (bytes.len() - rest.len(), rest.first().copied())
                }
                Err(error) => return Err(self.text.fail(error, &place)),
            };
            self.text.reader().consume(blank);
            if byte.is_some() {
                return Ok(byte);
            }
        }
    }

    fn eat(&mut self) {
        self.text.reader().consume(1);
    }

    /// Nothing but white space may follow the closing bracket.
    fn end(&mut self) -> Result<Option<Numbered>> {
        self.eat();
        match self.next_byte()? {
            None => Ok(None),
            Some(_) => Err(self.broken("goes on behind its closing bracket")),
        }
    }

    fn place(&self) -> String {
        match self.row {
            0 => "before the first row".to_owned(),
            row => format!("after row {row}"),
        }
    }

    fn broken(&self, what: &str) -> Error {
        let message = format!("the JSON array {what}, {}", self.place());
        Error::file(self.text.file(), message, "correct it, or write one object a line")
    }

    fn cut(&self) -> Error {
        let message = format!("the JSON array ends in the middle, {}", self.place());
        Error::file(self.text.file(), message, "the file is cut short; write or download it again")
    }
}
