//! A tree as JSON; the mapping is described at the [crate].

use crate::human;
use crate::schema::{self, Schema, Show, Type};
use kho::abi;
use kho::tree::{Node, Value, ValueError};
use serde_json::{Map, Value as Json, json};

/// Value of a property, read by its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// An integer and its size in bytes.
    Number(u64, usize),
    /// Text.
    Text(&'a str),
    /// Address and length.
    Pairs(Vec<(u64, u64)>),
    /// No bytes: the presence of the property is the value.
    Flag,
    /// Bytes.
    Bytes(&'a [u8]),
    /// Bytes that do not have the type in the schema, and the error as text.
    Wrong(&'a [u8], String),
}

/// Reads the property `name` by its schema, or guesses its type if no schema lists it.
pub fn read<'a>(schema: Option<&Schema>, name: &str, value: Value<'a>) -> Read<'a> {
    let known = schema.and_then(|schema| schema.type_of(name));
    let known = known.or_else(|| (name == abi::MEM).then_some(Type::Mem));
    let Some(known) = known else {
        return guess(value);
    };
    let wrong = |error: ValueError| Read::Wrong(value.bytes(), error.to_string());
    match known {
        Type::U32 => value
            .u32()
            .map_or_else(wrong, |n| Read::Number(n.into(), 4)),
        Type::U64 => value.u64().map_or_else(wrong, |n| Read::Number(n, 8)),
        Type::Str => value.str().map_or_else(wrong, Read::Text),
        Type::Bytes => Read::Bytes(value.bytes()),
        Type::Flag => value.array::<0>().map_or_else(wrong, |_| Read::Flag),
        Type::Mem => match (value.mem(), value.u64s()) {
            (Ok(_), Ok(words)) => {
                let words: Vec<u64> = words.collect();
                Read::Pairs(
                    words
                        .as_chunks::<2>()
                        .0
                        .iter()
                        .map(|[addr, len]| (*addr, *len))
                        .collect(),
                )
            }
            (Err(error), _) | (_, Err(error)) => wrong(error),
        },
    }
}

fn guess(value: Value<'_>) -> Read<'_> {
    if let Ok(text) = value.str()
        && !text.is_empty()
        && !text.contains(char::is_control)
    {
        return Read::Text(text);
    }
    match value.bytes().len() {
        0 => Ok(Read::Flag),
        4 => value.u32().map(|n| Read::Number(n.into(), 4)),
        8 => value.u64().map(|n| Read::Number(n, 8)),
        _ => Ok(Read::Bytes(value.bytes())),
    }
    .unwrap_or(Read::Bytes(value.bytes()))
}

/// The properties of a node, as the schemas see them.
pub fn properties(node: &Node<'_>) -> Map<String, Json> {
    let schema = schema::of(node);
    node.props()
        .map(|prop| {
            let name = prop.name();
            let value = match read(schema, name, prop.value()) {
                Read::Number(n, _) => Json::from(n),
                Read::Text(text) => Json::from(text),
                Read::Flag => Json::from(true),
                Read::Pairs(pairs) => pairs
                    .iter()
                    .map(|(addr, len)| json!({ "addr": addr, "len": len }))
                    .collect(),
                Read::Bytes(bytes)
                    if schema.is_some_and(|schema| schema.show(name) == Show::Path) =>
                {
                    Json::from(human::path(bytes))
                }
                Read::Bytes(bytes) => Json::from(human::hex(bytes)),
                Read::Wrong(bytes, error) => {
                    json!({ "error": error, "bytes": human::hex(bytes) })
                }
            };
            (name.to_owned(), value)
        })
        .collect()
}

/// A node with all below it. Depth is bounded by the reader (`kho::tree::MAX_DEPTH`).
pub fn json(node: Node<'_>) -> Json {
    json!({
        "name": if node.name().is_empty() { "/" } else { node.name() },
        "schema": schema::of(&node).map(|schema| schema.compatible.as_str()),
        "properties": properties(&node),
        "children": node.children().map(json).collect::<Vec<_>>(),
    })
}
