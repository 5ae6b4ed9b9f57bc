//! `kho dump`: a state tree as text, JSON or bytes.

use crate::exit::{Fail, OrStatus, Status};
use crate::output::{self, Output};
use crate::session::Session;
use kho::abi;
use kho::tree::{Node, Reader, Value};
use serde_json::{Map, Value as Json, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// Largest tree that is read from a file.
const LIMIT: u64 = kho::tree::MAX_SIZE as u64;

/// Runs `kho dump`.
///
/// # Errors
///
/// [`Status::NothingArrived`], [`Status::TreeCorrupt`], or what reading the file says.
pub fn run(file: Option<&Path>, raw: bool, session: &Session, out: Output) -> Result<(), Fail> {
    let bytes = match file {
        Some(path) => read_file(path)?,
        None => session.tree_bytes()?.ok_or_else(crate::session::nothing_arrived)?,
    };
    if raw {
        return std::io::stdout().write_all(&bytes).or_status(Status::Failed);
    }
    let tree = Reader::new(&bytes).or_status(Status::TreeCorrupt).map_err(|fail| {
        fail.fix("what arrived stays reserved; kho dump --raw writes the bytes for a closer look")
    })?;
    out.result(&to_json(tree.root()), || print!("{}", to_text(&tree)));
    match kho::tree::verify(&tree) {
        Ok(_) => Ok(()),
        Err(err) => Err(Fail::new(Status::TreeCorrupt, err)),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Fail> {
    use std::io::Read;
    let fail = |err: std::io::Error| Fail::new(Status::Failed, format!("cannot read {}: {err}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(fail)?.take(LIMIT + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > LIMIT {
        return Err(Fail::new(Status::TreeCorrupt, format!("{} is larger than any state tree ({LIMIT:#x} bytes)", path.display())));
    }
    Ok(bytes)
}

/// How a value is shown. Values carry no type, so known names decide and the rest is guessed.
enum Shown {
    Text(String),
    Number(u64),
    Hex(u64),
    Ranges(Vec<String>),
    Bytes(Vec<u8>),
}

fn shown(name: &str, value: Value<'_>) -> Shown {
    let bytes = value.bytes();
    if name == abi::PATH
        && let Ok(text) = core::str::from_utf8(bytes)
    {
        return Shown::Text(text.to_owned());
    }
    if matches!(name, abi::MEM | abi::MEM_CACHE | abi::SCRATCH)
        && let Ok(ranges) = value.mem()
    {
        let ranges = ranges.map(|range| match range {
            Ok(range) => format!("{range} {}", output::bytes(range.len())),
            Err(err) => format!("bad: {err}"),
        });
        return Shown::Ranges(ranges.collect());
    }
    if matches!(name, abi::GENERATION) {
        if let Ok(n) = value.u64() {
            return Shown::Hex(n);
        }
    }
    if name == abi::CHECKSUM
        && let Ok(n) = value.u32()
    {
        return Shown::Hex(n.into());
    }
    let printable = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
    if let Ok(text) = value.str()
        && printable(text)
    {
        return Shown::Text(text.to_owned());
    }
    match bytes.len() {
        4 => value.u32().map_or_else(|_| Shown::Bytes(bytes.to_vec()), |n| Shown::Number(n.into())),
        8 => value.u64().map_or_else(|_| Shown::Bytes(bytes.to_vec()), Shown::Number),
        _ => Shown::Bytes(bytes.to_vec()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

/// A node with all below it. Properties keep their order; numbers above 2^53 stay exact as integers.
fn to_json(node: Node<'_>) -> Json {
    let mut props = Map::new();
    for prop in node.props() {
        let value = match shown(prop.name(), prop.value()) {
            Shown::Text(text) => Json::from(text),
            Shown::Number(n) => Json::from(n),
            Shown::Hex(n) => Json::from(format!("{n:#x}")),
            Shown::Ranges(_) => prop
                .value()
                .mem()
                .map(|ranges| {
                    ranges
                        .map(|r| match r {
                            Ok(r) => json!({ "addr": format!("{:#x}", r.start().get()), "len": r.len() }),
                            Err(err) => json!({ "error": err.to_string() }),
                        })
                        .collect()
                })
                .unwrap_or(Json::Null),
            Shown::Bytes(bytes) => Json::from(hex(&bytes)),
        };
        props.insert(prop.name().to_owned(), value);
    }
    json!({
        "name": if node.name().is_empty() { "/" } else { node.name() },
        "properties": props,
        "children": node.children().map(to_json).collect::<Vec<_>>(),
    })
}

fn to_text(tree: &Reader<'_>) -> String {
    let mut text = String::new();
    node_text(tree.root(), 0, &mut text);
    text
}

/// Depth is bounded by the reader (`kho::tree::MAX_DEPTH`).
fn node_text(node: Node<'_>, depth: usize, text: &mut String) {
    let pad = "    ".repeat(depth);
    let name = if node.name().is_empty() { "/" } else { node.name() };
    let _ = writeln!(text, "{pad}{name} {{");
    for prop in node.props() {
        let value = match shown(prop.name(), prop.value()) {
            Shown::Text(value) => format!("{value:?}"),
            Shown::Number(n) if prop.name() == abi::TIME || prop.name() == abi::TAKEN => {
                format!("{n}  ({})", crate::output::time(n))
            }
            Shown::Number(n) => n.to_string(),
            Shown::Hex(n) => format!("{n:#x}"),
            Shown::Ranges(ranges) if ranges.len() > 1 => ranges.join(&format!("\n{pad}    {:1$}", "", prop.name().len() + 3)),
            Shown::Ranges(ranges) => ranges.concat(),
            Shown::Bytes(bytes) if bytes.len() > 64 => format!("{}... ({} bytes)", hex(&bytes[..64]), bytes.len()),
            Shown::Bytes(bytes) => hex(&bytes),
        };
        let _ = writeln!(text, "{pad}    {} = {value}", prop.name());
    }
    for child in node.children() {
        node_text(child, depth + 1, text);
    }
    let _ = writeln!(text, "{pad}}}");
}
