//! The schemas, and the keywords of JSON Schema that they use.
//!
//! The schemas are written by hand in `schemas/*.yaml` and shipped as one JSON document. A test keeps the document
//! equal to the files.

mod check;

pub use check::{KEYWORDS, Violation, check};

use kho::tree::Node;
use serde_json::Value as Json;
use std::sync::LazyLock;

/// The shipped schemas: an object from `compatible` to schema.
pub const SCHEMAS_JSON: &str = include_str!("schemas.json");

static SCHEMAS: LazyLock<Vec<Schema>> = LazyLock::new(|| {
    let all: serde_json::Map<String, Json> = serde_json::from_str(SCHEMAS_JSON).unwrap_or_default();
    all.into_iter()
        .map(|(compatible, document)| Schema {
            compatible,
            document,
        })
        .collect()
});

/// Type of a property, by which its bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A 32-bit integer.
    U32,
    /// A 64-bit integer.
    U64,
    /// One UTF-8 string with a NUL at its end.
    Str,
    /// Bytes of any content.
    Bytes,
    /// Pairs of address and length.
    Mem,
    /// No bytes: the presence of the property is the value.
    Flag,
}

/// Form in which a value is shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// The usual form of the value's type.
    Plain,
    /// An integer in hexadecimal digits.
    Hex,
    /// Nanoseconds since the epoch, as a date too.
    Time,
    /// Bytes of a path.
    Path,
}

/// The schema of one node type.
#[derive(Debug)]
pub struct Schema {
    /// The `compatible` of the nodes that the schema is for.
    pub compatible: String,
    /// The JSON Schema.
    pub document: Json,
}

impl Schema {
    /// The schema of a node property.
    fn property(&self, name: &str) -> Option<&Json> {
        self.document.get("properties")?.get(name)
    }

    /// The type of a property; `None` if the schema does not list it.
    pub fn type_of(&self, name: &str) -> Option<Type> {
        Some(match self.property(name)?.get("x-kho-type")?.as_str()? {
            "u32" => Type::U32,
            "u64" => Type::U64,
            "str" => Type::Str,
            "bytes" => Type::Bytes,
            "mem" => Type::Mem,
            "flag" => Type::Flag,
            _ => return None,
        })
    }

    /// The form in which a property is shown.
    pub fn show(&self, name: &str) -> Show {
        match self
            .property(name)
            .and_then(|schema| schema.get("x-kho-show")?.as_str())
        {
            Some("hex") => Show::Hex,
            Some("time") => Show::Time,
            Some("path") => Show::Path,
            _ => Show::Plain,
        }
    }
}

/// Every schema, by `compatible`.
pub fn all() -> &'static [Schema] {
    &SCHEMAS
}

/// The schema of this `compatible`.
pub fn find(compatible: &str) -> Option<&'static Schema> {
    all().iter().find(|schema| schema.compatible == compatible)
}

/// The schema of `node` by its `compatible`.
pub fn of(node: &Node<'_>) -> Option<&'static Schema> {
    find(node.prop(kho::abi::COMPATIBLE)?.value().str().ok()?)
}
