//! A bound on what a template's values hold. The engine counts a template's steps, but a value that holds itself twice,
//! sixty times over, is small to make and endless to write, compare or free; and one nested deep enough ends the stack.
//! So `source` sends every value that a template puts into another through the guard made here. Imports `python`.
use super::python::LONGEST;
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Values within a value, whatever the messages' size.
const WITHIN: usize = 20_000;
/// Values looked at in one rendering, as a multiple of the largest value.
const LOOKS: usize = 1_000;
/// Levels of nesting.
const DEPTH: usize = 150;

/// The function that gives back its argument, or refuses it, in a rendering whose messages are `bytes` long. A second
/// argument says that the first is to stand in another value.
pub fn guard(bytes: usize) -> Value {
    let most = WITHIN + bytes;
    let looked = AtomicUsize::new(0);
    Value::from_function(move |value: &Value, inner: Option<bool>| {
        let mut size = Size { values: 0, bytes: 0, most };
        size.add(value, usize::from(inner == Some(true)))?;
        if looked.fetch_add(size.values, Ordering::Relaxed) > most.saturating_mul(LOOKS) {
            return Err(too_much("the chat template takes too many steps"));
        }
        Ok(value.clone())
    })
}

struct Size {
    values: usize,
    bytes: usize,
    most: usize,
}

impl Size {
    /// Counts the value and all within it, as often as they are there.
    fn add(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.values += 1;
        self.bytes = self.bytes.saturating_add(value.as_str().map_or(0, str::len));
        if self.values > self.most || self.bytes > LONGEST || depth > DEPTH {
            return Err(too_much("the chat template builds too large a value"));
        }
        match value.kind() {
            // A namespace in another value could hold itself.
            ValueKind::Map if is_namespace(value) && depth > 0 => Err(too_much("a namespace stands in another value")),
            ValueKind::Map if is_namespace(value) => Ok(()),
            ValueKind::Map => value.try_iter()?.try_for_each(|key| {
                self.add(&key, depth + 1)?;
                self.add(&value.get_item(&key)?, depth + 1)
            }),
            ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.try_for_each(|item| self.add(&item, depth + 1)),
            _ => Ok(()),
        }
    }
}

/// Whether the value is what `namespace()` gives.
pub fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

fn too_much(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
