//! The kernel's description of the records of one event: the file `format` in `events/SYSTEM/EVENT`.
//!
//! `field:TYPE NAME;  offset:N;  size:N;  signed:N;` lines and a `print fmt:` line, as
//! `f_show` and `f_next` print them (`kernel/trace/trace_events.c`, 6.1 to 7.3).

use crate::bytes::{array, u32_at, uint_at};
use crate::expr::{self, Print};
use crate::types::size_of_type;
use thiserror::Error;

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type as written, without the name.
    pub kind: String,
    /// Offset in the record, in bytes.
    pub offset: usize,
    /// Size in bytes; 0 if the field reaches to the end of the record.
    pub size: usize,
    /// Whether integers in the field are signed.
    pub signed: bool,
    /// Size of an element, in bytes, if the field is an array; `None` otherwise.
    pub element: Option<usize>,
    /// Way to find the bytes of the field.
    pub place: Place,
}

/// Way to find the bytes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The bytes are at the field's offset.
    Here,
    /// `__data_loc`: a word at the field's offset holds the offset of the bytes in the record.
    DataLoc,
    /// `__rel_loc`: as `__data_loc`, but counted from the end of that word.
    RelLoc,
}

/// A format that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A required line is missing.
    #[error("the format of an event has no `{0}` line")]
    Missing(&'static str),
}

/// Description of one kind of event.
#[derive(Clone, Debug)]
pub struct EventFormat {
    /// `sched`, `ftrace` …
    pub system: String,
    /// `sched_switch` …
    pub name: String,
    /// Number in the records, for this boot of this kernel only.
    pub id: u16,
    /// Fields of the record; the fields that every event has come first.
    pub fields: Vec<Field>,
    /// Template of the line that people see, and its arguments; `None` if they are not understood.
    pub print: Option<Print>,
}

impl Field {
    /// Reads a `field:` line. `None` if `line` is not one.
    pub fn parse(line: &str) -> Option<Self> {
        let rest = line.trim_start().strip_prefix("field:")?;
        let mut parts = rest.split(';').map(str::trim);
        let declaration = parts.next()?;
        let number =
            |part: Option<&str>, key: &str| part?.strip_prefix(key)?.trim().parse::<usize>().ok();
        let offset = number(parts.next(), "offset:")?;
        let size = number(parts.next(), "size:")?;
        let signed = number(parts.next(), "signed:")? != 0;
        let (place, declaration) = match declaration.split_once(' ') {
            Some(("__data_loc", rest)) => (Place::DataLoc, rest.trim()),
            Some(("__rel_loc", rest)) => (Place::RelLoc, rest.trim()),
            _ => (Place::Here, declaration),
        };
        // `char name[16]`; `char[] name` if the bytes lie elsewhere in the record.
        let (before, count) = match declaration.rsplit_once('[') {
            Some((before, count)) if count.trim_end().ends_with(']') => (
                before.trim_end(),
                Some(count.trim_end().trim_end_matches(']')),
            ),
            _ => (declaration, None),
        };
        let at = before
            .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .map_or(0, |at| at + 1);
        let (kind, name) = before.split_at(at);
        if name.is_empty() {
            return None;
        }
        let kind = kind.trim();
        let is_array = count.is_some() || kind.ends_with("[]");
        let element = is_array.then(|| {
            let whole = count.and_then(|count| count.parse::<usize>().ok());
            match whole {
                Some(count) if count > 0 && size > 0 && size.is_multiple_of(count) => size / count,
                _ => size_of_type(kind.trim_end_matches("[]").trim()).unwrap_or(1),
            }
        });
        Some(Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            offset,
            size,
            signed,
            element,
            place,
        })
    }

    /// The bytes of this field in a record.
    pub fn bytes<'r>(&self, record: &'r [u8]) -> Option<&'r [u8]> {
        let (start, len) = match self.place {
            Place::Here if self.size == 0 => return record.get(self.offset..),
            Place::Here => (self.offset, self.size),
            Place::DataLoc | Place::RelLoc => {
                let word = u32_at(record, self.offset)?;
                let base = if self.place == Place::RelLoc {
                    self.offset.checked_add(4)?
                } else {
                    0
                };
                let offset = usize::try_from(word & 0xffff).ok()?;
                (base.checked_add(offset)?, usize::try_from(word >> 16).ok()?)
            }
        };
        record.get(start..start.checked_add(len)?)
    }

    /// The integer of a field of up to 8 bytes, its sign extended.
    pub fn integer(&self, record: &[u8]) -> Option<u64> {
        if self.place != Place::Here {
            return uint_at(record, self.offset, 4);
        }
        element(record.get(self.offset..)?, 0, self.size, self.signed)
    }

    /// Whether the field holds text.
    pub fn is_text(&self) -> bool {
        let kind = self.kind.trim_end_matches("[]").trim_end();
        self.element == Some(1) && (kind == "char" || kind.ends_with(" char"))
    }
}

/// Integer `index` of an array of integers of `size` bytes.
pub fn element(bytes: &[u8], index: usize, size: usize, signed: bool) -> Option<u64> {
    let value = uint_at(bytes, index.checked_mul(size)?, size)?;
    Some(if signed { extend(value, size) } else { value })
}

/// `value` of `size` bytes with its sign extended to 8.
pub fn extend(value: u64, size: usize) -> u64 {
    match size {
        1 => i64::from(i8::from_le_bytes([value.to_le_bytes()[0]])).cast_unsigned(),
        2 => array(&value.to_le_bytes(), 0)
            .map_or(value, |b| i64::from(i16::from_le_bytes(b)).cast_unsigned()),
        4 => array(&value.to_le_bytes(), 0)
            .map_or(value, |b| i64::from(i32::from_le_bytes(b)).cast_unsigned()),
        _ => value,
    }
}

impl EventFormat {
    /// Reads a `format` file.
    ///
    /// # Errors
    ///
    /// [`FormatError`]. A `print fmt` that is not understood is not an error.
    pub fn parse(system: &str, text: &str) -> Result<Self, FormatError> {
        let line = |key: &'static str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key))
                .map(str::trim)
                .ok_or(FormatError::Missing(key))
        };
        let name = line("name:")?.to_owned();
        let id = line("ID:")?
            .parse()
            .map_err(|_| FormatError::Missing("ID:"))?;
        let fields: Vec<Field> = text.lines().filter_map(Field::parse).collect();
        // The template may span several lines.
        let print = text
            .split_once("print fmt:")
            .and_then(|(_, print)| expr::parse_print(print.trim()));
        Ok(Self {
            system: system.to_owned(),
            name,
            id,
            fields,
            print,
        })
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The fields of this event alone.
    pub fn own_fields(&self) -> impl Iterator<Item = &Field> {
        self.fields
            .iter()
            .filter(|field| !field.name.starts_with("common_"))
    }
}
