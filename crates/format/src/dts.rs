//! A tree as source text for `dtc`.
//!
//! `dtc` takes integers for big-endian, and the integers of a state tree are native endian. So this module writes every
//! value except text as bytes in memory order, with the meaning in a comment. `dtc -I dts -O dtb` makes a tree of the
//! same nodes and values.

use crate::human;
use crate::schema;
use crate::text::range;
use crate::view::{Read, read};
use kho::tree::{Node, Reader};
use std::fmt::Write;

/// Number of ranges, or of bytes, on one line.
const PER_LINE: usize = 16;

/// Returns the whole tree as source for `dtc`.
pub fn dts(tree: &Reader<'_>) -> String {
    let order = if cfg!(target_endian = "little") {
        "little"
    } else {
        "big"
    };
    let mut out = format!(
        "/dts-v1/;\n\n/* A kho state tree, no description of hardware. Integers are {order}-endian. */\n\n"
    );
    node(tree.root(), 0, &mut out);
    out
}

/// Writes a node and everything below it. The reader bounds the depth (`kho::tree::MAX_DEPTH`). Writing to a `String`
/// cannot fail.
fn node(of: Node<'_>, depth: usize, out: &mut String) {
    let pad = "\t".repeat(depth);
    let schema = schema::of(&of);
    let name = if of.name().is_empty() { "/" } else { of.name() };
    let _ = writeln!(out, "{pad}{name} {{");
    for prop in of.props() {
        let bytes = prop.value().bytes();
        let name = prop.name();
        if bytes.is_empty() {
            let _ = writeln!(out, "{pad}\t{name};");
            continue;
        }
        let _ = match read(schema, name, prop.value()) {
            Read::Flag => Ok(()),
            Read::Text(text) => writeln!(out, "{pad}\t{name} = \"{}\";", escaped(text)),
            Read::Number(n, size) => writeln!(
                out,
                "{pad}\t{name} = [{}]; /* u{} {n:#x} */",
                spaced(bytes),
                size * 8
            ),
            Read::Pairs(pairs) => {
                let lines: Vec<String> = bytes
                    .chunks(PER_LINE)
                    .zip(pairs)
                    .map(|(bytes, pair)| {
                        format!("{pad}\t\t{} /* {} */", spaced(bytes), range(pair))
                    })
                    .collect();
                writeln!(out, "{pad}\t{name} = [\n{}\n{pad}\t];", lines.join("\n"))
            }
            Read::Bytes(bytes) | Read::Wrong(bytes, _) => {
                let lines: Vec<String> = bytes.chunks(PER_LINE).map(spaced).collect();
                if let [line] = lines.as_slice() {
                    writeln!(
                        out,
                        "{pad}\t{name} = [{line}];{}",
                        path_comment(schema, name, bytes)
                    )
                } else {
                    let joined = lines.join(&format!("\n{pad}\t\t"));
                    let comment = path_comment(schema, name, bytes);
                    writeln!(
                        out,
                        "{pad}\t{name} = [\n{pad}\t\t{joined}\n{pad}\t];{comment}"
                    )
                }
            }
        };
    }
    for child in of.children() {
        node(child, depth + 1, out);
    }
    let _ = writeln!(out, "{pad}}};");
}

fn path_comment(schema: Option<&schema::Schema>, name: &str, bytes: &[u8]) -> String {
    if schema.is_some_and(|schema| schema.show(name) == schema::Show::Path) {
        // The end mark of a comment must not occur inside it.
        format!(" /* {} */", human::path(bytes).replace("*/", "*\\x2f"))
    } else {
        String::new()
    }
}

fn spaced(bytes: &[u8]) -> String {
    let words: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    words.join(" ")
}

/// Text inside quotes, in the form that C accepts; every byte beyond ASCII as `\x..`.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out
}
