//! The differences between two state trees.

use crate::schema::{self, Show};
use crate::view::{Read, read};
use crate::{human, text};
use kho::tree::{Node, Prop, Reader};
use serde::Serialize;
use std::fmt;

/// One difference between two trees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Path of the node.
    pub node: String,
    /// The property; `None` when the whole node came or went.
    pub property: Option<String>,
    /// Value of the property in the first tree, as text; of a whole node its `compatible`. `None` if only the second
    /// tree has it.
    pub old: Option<String>,
    /// Value of the property in the second tree, as text; of a whole node its `compatible`. `None` if only the first
    /// tree has it.
    pub new: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match (&self.old, &self.new) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        };
        write!(f, "{sign} {}", self.node)?;
        if let Some(property) = &self.property {
            write!(f, " {property}")?;
        }
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, ": {old} -> {new}"),
            (Some(value), None) | (None, Some(value)) if !value.is_empty() => {
                write!(f, ": {value}")
            }
            _ => Ok(()),
        }
    }
}

/// Lists every difference between `a` and `b`. Nodes are matched by path, properties by name; the order of nodes and of
/// properties does not matter.
pub fn diff(a: &Reader<'_>, b: &Reader<'_>) -> Vec<Change> {
    let mut changes = Vec::new();
    nodes(a.root(), b.root(), "", &mut changes);
    changes
}

/// Compares two nodes and everything below them. The reader bounds the depth (`kho::tree::MAX_DEPTH`).
fn nodes(a: Node<'_>, b: Node<'_>, path: &str, out: &mut Vec<Change>) {
    let shown = if path.is_empty() { "/" } else { path };
    for old in a.props() {
        let new = b.prop(old.name());
        if new.map(|new| new.value().bytes()) != Some(old.value().bytes()) {
            out.push(Change {
                node: shown.to_owned(),
                property: Some(old.name().to_owned()),
                old: Some(value(&a, &old)),
                new: new.map(|new| value(&b, &new)),
            });
        }
    }
    for new in b.props().filter(|new| a.prop(new.name()).is_none()) {
        out.push(Change {
            node: shown.to_owned(),
            property: Some(new.name().to_owned()),
            old: None,
            new: Some(value(&b, &new)),
        });
    }
    let whole = |node: &Node<'_>, old: bool| {
        let text = node
            .prop(kho::abi::COMPATIBLE)
            .and_then(|prop| prop.value().str().ok())
            .unwrap_or("")
            .to_owned();
        let (old, new) = if old {
            (Some(text), None)
        } else {
            (None, Some(text))
        };
        Change {
            node: format!("{path}/{}", node.name()),
            property: None,
            old,
            new,
        }
    };
    for old in a.children() {
        match b.child(old.name()) {
            Some(new) => nodes(old, new, &format!("{path}/{}", old.name()), out),
            None => out.push(whole(&old, true)),
        }
    }
    for new in b.children().filter(|new| a.child(new.name()).is_none()) {
        out.push(whole(&new, false));
    }
}

fn value(node: &Node<'_>, prop: &Prop<'_>) -> String {
    let schema = schema::of(node);
    let show = schema.map_or(Show::Plain, |schema| schema.show(prop.name()));
    match (read(schema, prop.name(), prop.value()), show) {
        (Read::Number(n, _), Show::Hex) => format!("{n:#x}"),
        (Read::Number(n, _), Show::Time) => human::time(n),
        (Read::Number(n, _), _) => n.to_string(),
        (Read::Text(text), _) => format!("{text:?}"),
        (Read::Pairs(pairs), _) => {
            let ranges: Vec<String> = pairs.iter().map(|pair| text::range(*pair)).collect();
            format!("[{}]", ranges.join(", "))
        }
        (Read::Flag, _) => String::new(),
        (Read::Bytes(bytes), Show::Path) => format!("\"{}\"", human::path(bytes)),
        (Read::Bytes(bytes) | Read::Wrong(bytes, _), _) => human::hex(bytes),
    }
}
