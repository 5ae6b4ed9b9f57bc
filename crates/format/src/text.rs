//! A tree as text for people.

use crate::human;
use crate::schema::{self, Show};
use crate::view::{Read, read};
use kho::tree::{Node, Reader};
use std::fmt::Write;

/// Number of bytes of a long value that are shown.
const SHOWN: usize = 64;

/// The whole tree, one property a line, ranges one a line.
pub fn text(tree: &Reader<'_>) -> String {
    let mut out = String::new();
    node(tree.root(), 0, &mut out);
    out
}

/// Writes a node and everything below it. The reader bounds the depth (`kho::tree::MAX_DEPTH`). Writing to a `String`
/// cannot fail.
fn node(of: Node<'_>, depth: usize, out: &mut String) {
    let pad = "    ".repeat(depth);
    let schema = schema::of(&of);
    let name = if of.name().is_empty() { "/" } else { of.name() };
    let _ = writeln!(out, "{pad}{name} {{");
    for prop in of.props() {
        let name = prop.name();
        let show = schema.map_or(Show::Plain, |schema| schema.show(name));
        let value = match (read(schema, name, prop.value()), show) {
            (Read::Number(n, _), Show::Hex) => format!("{n:#x}"),
            (Read::Number(n, _), Show::Time) => format!("{n}  ({})", human::time(n)),
            (Read::Number(n, _), _) => n.to_string(),
            (Read::Text(text), _) => format!("{text:?}"),
            (Read::Flag, _) => {
                let _ = writeln!(out, "{pad}    {name}");
                continue;
            }
            (Read::Bytes(bytes), Show::Path) => format!("\"{}\"", human::path(bytes)),
            (Read::Bytes(bytes), _) => shortened(bytes),
            (Read::Wrong(bytes, error), _) => format!("{}  (wrong: {error})", shortened(bytes)),
            (Read::Pairs(pairs), _) => {
                let lines: Vec<String> = pairs.iter().map(|pair| range(*pair)).collect();
                lines.join(&format!("\n{pad}    {:1$}", "", name.len() + 3))
            }
        };
        let _ = writeln!(out, "{}", format!("{pad}    {name} = {value}").trim_end());
    }
    for child in of.children() {
        node(child, depth + 1, out);
    }
    let _ = writeln!(out, "{pad}}}");
}

/// Returns a pair as text, a range and its size; for a pair that is not a valid range, the text says that.
pub fn range((addr, len): (u64, u64)) -> String {
    match addr.checked_add(len) {
        Some(end) if len > 0 => format!("[{addr:#x}-{end:#x}) {}", human::bytes(len)),
        _ => format!("bad: {addr:#x} with {len:#x} bytes"),
    }
}

fn shortened(bytes: &[u8]) -> String {
    match bytes.get(..SHOWN) {
        Some(first) if bytes.len() > SHOWN => {
            format!("{}... ({} bytes)", human::hex(first), bytes.len())
        }
        _ => human::hex(bytes),
    }
}
