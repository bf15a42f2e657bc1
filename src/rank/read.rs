//! Rows of files -> comparisons, equal ones counted together. Owns the columns of comparisons; must not know how
//! strengths are fitted.
use super::model::Ties;
use crate::data::columns::wrong_type;
use crate::data::rows::BadRow;
use crate::data::source;
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

const COLUMNS: [&str; 8] =
    ["a", "b", "winner", "preference", "weight", "annotators", "chosen_source", "rejected_source"];
/// Between a model's name and its fingerprint, where an item has both.
const PRINT: char = '\0';
const EXPECTED: &str = "\"a\", \"b\" and \"winner\" (\"a\", \"b\" or \"tie\"), or \"a\", \"b\" and \"preference\" (the \
    probability that a is better; \"weight\" where there is one)";

/// Rows that say the same of the same two items.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// An item's number.
    pub first: u32,
    /// Another's, which is larger.
    pub second: u32,
    /// The probability that `first` is better; 0.5 is a tie.
    pub preference: f64,
    /// How many comparisons each of these rows counts for.
    pub weight: f64,
}

/// What makes two rows one cell: the items, and the bits of preference and weight.
type Key = (u32, u32, u64, u64);

/// Comparisons of items, which are numbered in the order in which they came up.
#[derive(Debug, Clone, Default)]
pub struct Comparisons {
    items: Vec<String>,
    cells: Vec<Cell>,
    rows: Vec<u32>,
    numbers: HashMap<String, u32>,
    index: HashMap<Key, u32>,
    same: usize,
}

impl Comparisons {
    /// Those of files, one after the other; a row at a time is in memory.
    ///
    /// # Errors
    /// A file that cannot be read or holds no rows; a bad row, by file and line.
    pub fn read(files: &[PathBuf], ties: Ties) -> Result<Self> {
        let mut all = Self::default();
        for file in files {
            let mut empty = true;
            for raw in source::open_columns(file, Some(&COLUMNS))? {
                let raw = raw?;
                empty = false;
                let added = raw.object.and_then(|object| {
                    let row = judgment(&object)?;
                    refuse_doubt(&row, ties)?;
                    match row.a == row.b {
                        true => all.same += 1,
                        false => all.add(&row.a, &row.b, row.preference, row.weight),
                    }
                    Ok(())
                });
                added.map_err(|bad| raw.id.error(bad.message, bad.remedy))?;
            }
            if empty {
                return Err(Error::file(
                    file,
                    "holds no rows",
                    format!("expected are rows with the columns {EXPECTED}"),
                ));
            }
        }
        if all.rows.is_empty() {
            let message = format!("its pairs ({}) are all of one model with itself", all.same);
            return Err(Error::file(named(files), message, "give pairs of different models"));
        }
        all.refuse_overflow(files)?;
        all.name_items();
        Ok(all)
    }

    /// Adds one: `a` beat `b` with probability `preference`, in [0, 1]; it counts `weight` times, which is above 0.
    pub fn add(&mut self, a: &str, b: &str, preference: f64, weight: f64) {
        let (a, b) = (self.number(a), self.number(b));
        let (first, second, preference) = if a < b { (a, b, preference) } else { (b, a, 1.0 - preference) };
        let next = u32::try_from(self.cells.len()).expect("fewer than 2^32 different rows");
        let key = (first, second, preference.to_bits(), weight.to_bits());
        let cell = *self.index.entry(key).or_insert(next);
        if cell == next {
            self.cells.push(Cell { first, second, preference, weight });
        }
        self.rows.push(cell);
    }

    /// The items' names.
    pub fn items(&self) -> &[String] {
        &self.items
    }

    /// The different rows.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The cell of each row, in the order of the files.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// How many judged pairs were left out because both answers are one model's.
    pub fn same(&self) -> usize {
        self.same
    }

    /// Models by their names, with the beginning of the fingerprint where several have one name.
    fn name_items(&mut self) {
        let mut models: HashMap<String, usize> = HashMap::new();
        for item in &self.items {
            *models.entry(model_of(item).to_owned()).or_default() += 1;
        }
        for item in &mut self.items {
            let Some((model, print)) = item.split_once(PRINT) else { continue };
            let alone = models.get(model) == Some(&1);
            let short: String = print.chars().take(8).collect();
            *item = if alone { model.to_owned() } else { format!("{model}@{short}") };
        }
        self.numbers = (0..).zip(&self.items).map(|(number, item)| (item.clone(), number)).collect();
    }

    fn number(&mut self, item: &str) -> u32 {
        if let Some(number) = self.numbers.get(item) {
            return *number;
        }
        let number = u32::try_from(self.items.len()).expect("fewer than 2^32 items");
        self.items.push(item.to_owned());
        self.numbers.insert(item.to_owned(), number);
        number
    }

    /// Weights so large that their sum is no number, or so uneven that the small ones vanish in it.
    fn refuse_overflow(&self, files: &[PathBuf]) -> Result<()> {
        let sum: f64 = self.rows.iter().map(|cell| self.cells[*cell as usize].weight).sum();
        let least = self.cells.iter().map(|cell| cell.weight).fold(f64::INFINITY, f64::min);
        if sum.is_finite() && sum * f64::EPSILON < least {
            return Ok(());
        }
        let message = format!("\"weight\" goes from {least:e} up to a sum of {sum:e}, where the small ones are lost");
        Err(Error::file(named(files), message, "give weights of a size with each other, such as counts"))
    }
}

/// Files as an error names them.
pub(super) fn named(files: &[PathBuf]) -> PathBuf {
    match files {
        [] => PathBuf::new(),
        [one] => one.clone(),
        [first, rest @ ..] => PathBuf::from(format!("{} (and {} more)", first.display(), rest.len())),
    }
}

/// The name of a model with or without its fingerprint.
fn model_of(item: &str) -> &str {
    item.split_once(PRINT).map_or(item, |(model, _)| model)
}

/// What one row says; of a judged pair whose answers are one model's, `a` and `b` are the same.
struct Judgment<'a> {
    a: Cow<'a, str>,
    b: Cow<'a, str>,
    preference: f64,
    weight: f64,
}

fn judgment(row: &Map<String, Value>) -> Result<Judgment<'_>, BadRow> {
    let column = |name: &str| row.get(name).filter(|value| !value.is_null());
    if let (Some(chosen), Some(rejected)) = (column("chosen_source"), column("rejected_source")) {
        let (a, b) = (source_model("chosen_source", chosen)?, source_model("rejected_source", rejected)?);
        let preference = column("preference").map_or(Ok(1.0), of_preference)?;
        // An exported pair's preference is the mean of so many people's.
        let weight = column("weight").or(column("annotators")).map_or(Ok(1.0), of_weight)?;
        return Ok(Judgment { a, b, preference, weight });
    }
    let (Some(a), Some(b)) = (column("a"), column("b")) else { return Err(missing(row)) };
    let (a, b) = (item("a", a)?, item("b", b)?);
    if a == b {
        let message = format!("\"a\" and \"b\" are both {a:?}");
        return Err(BadRow::new("an item against itself", message, "delete the row, or correct one of them"));
    }
    let preference = match (column("winner"), column("preference")) {
        (Some(winner), None) => of_winner(winner, &a, &b)?,
        (None, Some(preference)) => of_preference(preference)?,
        (None, None) => return Err(missing(row)),
        (Some(_), Some(_)) => {
            let message = "has both \"winner\" and \"preference\"";
            return Err(BadRow::new("two outcomes", message, "leave one of them out"));
        }
    };
    let weight = column("weight").map_or(Ok(1.0), of_weight)?;
    Ok(Judgment { a, b, preference, weight })
}

/// An item's name: a string, or a whole number as its digits.
fn item<'a>(column: &str, value: &'a Value) -> Result<Cow<'a, str>, BadRow> {
    match value {
        Value::String(name) if name.is_empty() => {
            Err(BadRow::new("no name", format!("{column:?} is empty"), "name the item or delete the row"))
        }
        Value::String(name) if name.contains(PRINT) => {
            Err(BadRow::new("bad name", format!("{column:?} holds a NUL character"), "name the item otherwise"))
        }
        Value::String(name) => Ok(Cow::Borrowed(name)),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(Cow::Owned(number.to_string())),
        other => Err(wrong_type(column, "an item's name (a string)", other)),
    }
}

/// The model that an answer of a judged pair came from.
fn source_model<'a>(column: &str, source: &'a Value) -> Result<Cow<'a, str>, BadRow> {
    match source.get("model") {
        Some(model) => {
            let model = item(column, model)?;
            let print = source.get("fingerprint").and_then(Value::as_str);
            Ok(print.map_or(model.clone(), |print| Cow::Owned(format!("{model}{PRINT}{print}"))))
        }
        None => Err(BadRow::new(
            "no model",
            format!("{column:?} names no \"model\""),
            "add it, or write rows of \"a\", \"b\" and \"winner\"",
        )),
    }
}

fn of_winner(value: &Value, a: &str, b: &str) -> Result<f64, BadRow> {
    let Value::String(winner) = value else {
        return Err(wrong_type("winner", "\"a\", \"b\" or \"tie\"", value));
    };
    let remedy = match winner.as_str() {
        "a" => return Ok(1.0),
        "b" => return Ok(0.0),
        "tie" => return Ok(0.5),
        name if name == a => "write \"a\": the winner is told by its column",
        name if name == b => "write \"b\": the winner is told by its column",
        _ => "correct the value",
    };
    Err(BadRow::new("unknown winner", format!("\"winner\" is {winner:?}, not \"a\", \"b\" or \"tie\""), remedy))
}

fn of_preference(value: &Value) -> Result<f64, BadRow> {
    let preference = value.as_f64().ok_or_else(|| wrong_type("preference", "a number", value))?;
    if (0.0..=1.0).contains(&preference) {
        return Ok(preference);
    }
    let message = format!("\"preference\" is {preference}, outside [0, 1]");
    Err(BadRow::new("preference out of range", message, "give the probability that \"a\" is better: 0.5 is a tie"))
}

fn of_weight(value: &Value) -> Result<f64, BadRow> {
    let weight = value.as_f64().ok_or_else(|| wrong_type("weight", "a number", value))?;
    if weight > 0.0 && weight.is_finite() {
        return Ok(weight);
    }
    let remedy = "give the number of comparisons that the row counts for, or delete the row";
    Err(BadRow::new("weight", format!("\"weight\" is {weight}; it must be above 0"), remedy))
}

/// Davidson's model knows wins, losses and ties: what lies between them may be the mean of any of these.
fn refuse_doubt(row: &Judgment<'_>, ties: Ties) -> Result<(), BadRow> {
    if ties == Ties::BradleyTerry || [0.0, 0.5, 1.0].contains(&row.preference) {
        return Ok(());
    }
    let message = format!("\"preference\" is {}, which is neither win nor loss nor tie", row.preference);
    let remedy = "--ties davidson wants a row a judgment with 0, 0.5 or 1; leave --ties out to fit fractions";
    Err(BadRow::new("a fraction of a win", message, remedy))
}

fn missing(row: &Map<String, Value>) -> BadRow {
    let found: Vec<String> = row.iter().filter(|(_, v)| !v.is_null()).map(|(name, _)| format!("{name:?}")).collect();
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    let message = format!("expected the columns {EXPECTED}; found {found}");
    BadRow::new("missing column", message, "rename or add the columns")
}
