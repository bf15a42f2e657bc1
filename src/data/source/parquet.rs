//! Parquet: rows page by page. Lists and structs come out as JSON, JSON-typed strings as what they hold.
use super::Numbered;
use crate::data::rows::BadRow;
use crate::error::{Error, Result, caught};
use parquet::basic::{ConvertedType, LogicalType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row, reader::RowIter};
use parquet::schema::types::Type;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

const AGAIN: &str = "the file is damaged or cut short; copy or download it again";

/// The smallest file: two magic words and the footer's length.
const LEAST: u64 = 12;

/// The rows of a file.
pub struct Rows {
    file: Arc<Path>,
    rows: RowIter<'static>,
    /// The schema of what is read.
    schema: Type,
    /// The columns that are not read.
    left_out: Vec<String>,
    row: usize,
}

impl Rows {
    /// Opens a file whose first bytes are Parquet's; reads the columns in `keep`, or all of them.
    pub fn open(path: Arc<Path>, mut file: File, keep: Option<&[&str]>) -> Result<Self> {
        check_footer(&path, &mut file)?;
        let damaged = |text: String| Error::file(&path, format!("the Parquet metadata is damaged ({text})"), AGAIN);
        let opened = guarded(|| {
            let reader = SerializedFileReader::new(file)?;
            let whole = reader.metadata().file_metadata().schema().clone();
            let (schema, left_out) = project(&whole, keep)?;
            let projection = (!left_out.is_empty()).then(|| schema.clone());
            let rows = RowIter::from_file_into(Box::new(reader)).project(projection)?;
            Ok((rows, schema, left_out))
        });
        let (rows, schema, left_out) = opened.map_err(damaged)?;
        Ok(Self { file: path, rows, schema, left_out, row: 0 })
    }

    /// The next row, with its number from 1.
    pub fn next_row(&mut self) -> Result<Option<Numbered>> {
        let next = guarded(|| self.rows.next().transpose());
        let Some(row) = next.map_err(|text| self.damaged(&text))? else { return Ok(None) };
        self.row += 1;
        Ok(Some((self.row, self.object(row))))
    }

    fn object(&self, row: Row) -> Result<Map<String, Value>, BadRow> {
        let types = self.schema.get_fields();
        let mut object = Map::new();
        for ((name, field), kind) in row.into_columns().into_iter().zip(types) {
            let value = value(&field, kind).map_err(|what| {
                BadRow::new("unreadable value", format!("column {name:?} holds {what}"), "correct the value")
            })?;
            object.insert(name, value);
        }
        object.extend(self.left_out.iter().map(|name| (name.clone(), Value::Null)));
        Ok(object)
    }

    fn damaged(&self, text: &str) -> Error {
        let row = self.row + 1;
        if text.contains("as String") {
            let message = format!("row {row}: a string is not UTF-8");
            return Error::file(&self.file, message, "write the file again with strings in UTF-8");
        }
        Error::file(&self.file, format!("the Parquet data is damaged at row {row} ({text})"), AGAIN)
    }
}

/// What the end of the file must look like, said in plainer words than the reader's.
fn check_footer(path: &Path, file: &mut File) -> Result<()> {
    let length = file.metadata().map_err(Error::io(path, "read"))?.len();
    if length < LEAST {
        let message = format!("begins as Parquet, but is only {length} bytes long");
        return Err(Error::file(path, message, AGAIN));
    }
    let mut tail = [0u8; 8];
    let read = file.seek(SeekFrom::End(-8)).and_then(|_| file.read_exact(&mut tail)).and_then(|()| file.rewind());
    read.map_err(Error::io(path, "read"))?;
    let footer = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if &tail[4..] == b"PARE" {
        return Err(Error::file(path, "is encrypted Parquet", "decrypt it first"));
    }
    if &tail[4..] != b"PAR1" {
        return Err(Error::file(path, "begins as Parquet, but has no Parquet footer at its end", AGAIN));
    }
    if footer > length - LEAST {
        let message = format!("its Parquet footer claims {footer} bytes, the file has {length}");
        return Err(Error::file(path, message, AGAIN));
    }
    Ok(())
}

/// The schema with the columns in `keep`, and the names of the others. All columns where none is to be kept, so that
/// what is there can be named.
fn project(whole: &Type, keep: Option<&[&str]>) -> Result<(Type, Vec<String>), ParquetError> {
    let kept = |field: &Arc<Type>| keep.is_none_or(|keep| keep.contains(&field.name()));
    let (fields, left_out): (Vec<_>, Vec<_>) = whole.get_fields().iter().cloned().partition(kept);
    if fields.is_empty() || left_out.is_empty() {
        return Ok((whole.clone(), Vec::new()));
    }
    let schema = Type::group_type_builder(whole.name()).with_fields(fields).build()?;
    Ok((schema, left_out.iter().map(|field| field.name().to_owned()).collect()))
}

/// A field as JSON; the error says what it is that JSON cannot hold.
fn value(field: &Field, kind: &Type) -> Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(v) => Value::from(*v),
        Field::Byte(v) => Value::from(*v),
        Field::Short(v) => Value::from(*v),
        Field::Int(v) | Field::Date(v) | Field::TimeMillis(v) => Value::from(*v),
        Field::Long(v) | Field::TimeMicros(v) | Field::TimestampMillis(v) | Field::TimestampMicros(v) => {
            Value::from(*v)
        }
        Field::UByte(v) => Value::from(*v),
        Field::UShort(v) => Value::from(*v),
        Field::UInt(v) => Value::from(*v),
        Field::ULong(v) => Value::from(*v),
        Field::Float16(v) => number(v.to_f64())?,
        Field::Float(v) => number(f64::from(*v))?,
        Field::Double(v) => number(*v)?,
        Field::Decimal(_) => number(field.to_string().parse().unwrap_or(f64::NAN))?,
        Field::Str(text) if is_json(kind) => {
            serde_json::from_str(text).map_err(|e| format!("JSON that cannot be read ({e})"))?
        }
        Field::Str(text) => Value::from(text.as_str()),
        // Old writers leave out that bytes are text; what is no text is no string.
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Value::from(text),
            Err(_) => Value::Object(Map::from_iter([("bytes".to_owned(), Value::from(bytes.len()))])),
        },
        Field::Group(row) => {
            let mut object = Map::new();
            for ((name, field), kind) in row.get_column_iter().zip(kind.get_fields()) {
                object.insert(name.clone(), value(field, kind)?);
            }
            Value::Object(object)
        }
        Field::ListInternal(list) => {
            let kind = element(kind);
            Value::Array(list.elements().iter().map(|v| value(v, kind)).collect::<Result<_, _>>()?)
        }
        Field::MapInternal(map) => {
            let kind = map_value(kind);
            let entry = |(key, v): &(Field, Field)| match key {
                Field::Str(key) => Ok((key.clone(), value(v, kind)?)),
                _ => Err("a map whose keys are no strings".to_owned()),
            };
            Value::Object(map.entries().iter().map(entry).collect::<Result<_, _>>()?)
        }
    })
}

fn number(v: f64) -> Result<Value, String> {
    serde_json::Number::from_f64(v).map(Value::Number).ok_or_else(|| format!("{v}, which is no finite number"))
}

fn is_json(kind: &Type) -> bool {
    let info = kind.get_basic_info();
    info.converted_type() == ConvertedType::JSON || info.logical_type_ref() == Some(&LogicalType::Json)
}

/// The type of a list's elements, in the layouts that the format allows.
fn element(list: &Type) -> &Type {
    let is_list = list.get_basic_info().converted_type() == ConvertedType::LIST
        || list.get_basic_info().logical_type_ref() == Some(&LogicalType::List);
    if !is_list || list.is_primitive() {
        return list;
    }
    let Some(repeated) = list.get_fields().first() else { return list };
    let alone = repeated.is_group() && repeated.get_fields().len() == 1;
    if !alone || repeated.name() == "array" || repeated.name() == format!("{}_tuple", list.name()) {
        return repeated;
    }
    &repeated.get_fields()[0]
}

/// The type of a map's values.
fn map_value(map: &Type) -> &Type {
    let entry = if map.is_group() { map.get_fields().first() } else { None };
    entry.filter(|entry| entry.is_group()).and_then(|entry| entry.get_fields().get(1)).map_or(map, |value| value)
}

/// Runs the reader, which panics on some damaged files; what it would print of that is an error here like any other.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    let what = match caught(read) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic,
    };
    let line = what.lines().next().unwrap_or_default();
    Err(line.chars().take(160).collect())
}
