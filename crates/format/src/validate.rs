//! Validation of a tree: finds everything that is wrong with it, not just the first problem.

use crate::human;
use crate::schema::{self, Violation};
use crate::view;
use kho::abi::kernel_part::{KERNEL_PART_V1, KERNEL_V1, KernelPart, Reference};
use kho::abi::{self, Handover, ProblemKind};
use kho::tree::{Node, Reader};
use kho::{OutOfMemory, PhysRange, RangeSet};
use serde::Serialize;
use std::fmt;

/// The check that found a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// The bytes are not a tree.
    Container,
    /// The tree is of a version that this build does not know.
    Version,
    /// The checksum differs.
    Checksum,
    /// A rule of the contract, between values, is broken.
    Contract,
    /// A rule of a schema is broken.
    Schema,
    /// A range does not fit the memory of the running machine.
    Machine,
}

/// A problem of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Path of the node, `/` for the root and for the bytes as a whole.
    pub node: String,
    /// The check that found the problem.
    pub layer: Layer,
    /// Description of the problem.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.what)
    }
}

/// Memory of the running machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// RAM according to the firmware.
    pub ram: &'a RangeSet,
    /// Pages of RAM that the kernel holds as reserved; `None` if ranges shall not be compared with them.
    pub reserved: Option<&'a RangeSet>,
}

/// Lists everything that is wrong with `bytes`; with a `machine`, also ranges that do not fit its memory.
///
/// # Errors
///
/// [`OutOfMemory`] if memory was refused.
pub fn validate(bytes: &[u8], machine: Option<Machine<'_>>) -> Result<Vec<Problem>, OutOfMemory> {
    let mut found = Vec::new();
    let tree = match Reader::new(bytes) {
        Ok(tree) => tree,
        Err(kho::tree::TreeError::OutOfMemory(error)) => return Err(error),
        Err(error) => {
            found.push(problem("/", Layer::Container, error.to_string()));
            return Ok(found);
        }
    };
    let root = tree.root();
    let version = root.prop(abi::COMPATIBLE).map(|prop| prop.value().str());
    let mut properties: Vec<(String, &'static str)> = Vec::new();
    if version == Some(Ok(KERNEL_V1)) {
        if let Err(error) = KernelPart::parse(&tree) {
            let layer = match error {
                kho::abi::kernel_part::KernelPartError::Checksum(_) => Layer::Checksum,
                _ => Layer::Contract,
            };
            found.push(problem("/", layer, human::chain(&error)));
        }
    } else {
        let mut unknown = false;
        Handover::check_all(&tree, |error| {
            let layer = match error.kind {
                ProblemKind::RootVersion { .. } => Layer::Version,
                ProblemKind::Checksum(_) => Layer::Checksum,
                _ => Layer::Contract,
            };
            unknown |= layer == Layer::Version;
            let text = error.to_string();
            let what = text
                .strip_prefix(&format!("{}: ", error.node))
                .unwrap_or(&text)
                .to_owned();
            if matches!(error.kind, ProblemKind::PageSize { .. }) {
                properties.push((error.node.clone(), abi::PAGE_SIZE_NAME));
            }
            found.push(problem(&error.node, layer, what));
        })?;
        if unknown {
            return Ok(found);
        }
    }
    schemas(root, "", &properties, &mut found);
    if let Some(machine) = machine {
        on_machine(&tree, machine, &mut found);
    }
    Ok(found)
}

fn problem(node: &str, layer: Layer, what: String) -> Problem {
    Problem {
        node: node.to_owned(),
        layer,
        what,
    }
}

/// Checks every node that has a schema. A property that another check has already reported is not reported again.
fn schemas(node: Node<'_>, path: &str, told: &[(String, &'static str)], found: &mut Vec<Problem>) {
    let shown = if path.is_empty() { "/" } else { path };
    if let Some(schema) = schema::of(&node) {
        let value = serde_json::Value::Object(view::properties(&node));
        for violation in schema::check(&schema.document, &value) {
            let name = property_of(&violation);
            let known = told
                .iter()
                .any(|(node, property)| node == shown && *property == name)
                || found.iter().any(|problem| {
                    problem.node == shown
                        && problem.layer != Layer::Schema
                        && problem.what.contains(&format!("`{name}`"))
                });
            if !known {
                let what = if violation.at.is_empty() {
                    violation.what
                } else {
                    format!("`{}` {}", violation.at, violation.what)
                };
                found.push(problem(shown, Layer::Schema, what));
            }
        }
        if schema.compatible == KERNEL_PART_V1
            && Reference::read(&node).is_none()
            && !found.iter().any(|problem| problem.node == shown)
        {
            let what = "the reference to the kernel's part contradicts itself: `size` is more than `mem` holds";
            found.push(problem(shown, Layer::Contract, what.to_owned()));
        }
    }
    for child in node.children() {
        schemas(child, &format!("{path}/{}", child.name()), told, found);
    }
}

/// The property that a violation is about.
fn property_of(violation: &Violation) -> String {
    if violation.at.is_empty() {
        violation.what.split('`').nth(1).unwrap_or("").to_owned()
    } else {
        violation
            .at
            .split(['[', '.'])
            .next()
            .unwrap_or("")
            .to_owned()
    }
}

/// Checks every range against the memory of this machine.
fn on_machine(tree: &Reader<'_>, machine: Machine<'_>, found: &mut Vec<Problem>) {
    let mut paths: Vec<&str> = Vec::new();
    for (depth, node) in tree.nodes() {
        paths.truncate(depth.saturating_sub(1));
        if depth > 0 {
            paths.push(node.name());
        }
        for prop in node.props() {
            let root_only = prop.is(abi::MEM_CACHE) || prop.is(abi::SCRATCH);
            if !(prop.is(abi::MEM) || depth == 0 && root_only) {
                continue;
            }
            let ranges = prop.value().mem().into_iter().flatten();
            for (index, range) in ranges.enumerate() {
                let Ok(range) = range else { continue };
                let reserved = if prop.is(abi::SCRATCH) {
                    None
                } else {
                    machine.reserved
                };
                if let Some(what) = misplaced(range, machine.ram, reserved) {
                    let what = format!("`{}`[{index}] {range} {what}", prop.name());
                    found.push(problem(
                        &format!("/{}", paths.join("/")),
                        Layer::Machine,
                        what,
                    ));
                }
            }
        }
    }
}

fn misplaced(
    range: PhysRange,
    ram: &RangeSet,
    reserved: Option<&RangeSet>,
) -> Option<&'static str> {
    if !ram.contains_range(range) {
        return Some("is not inside RAM");
    }
    reserved
        .is_some_and(|reserved| !reserved.contains_range(range))
        .then_some("is not reserved in this kernel")
}
