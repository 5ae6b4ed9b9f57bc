//! Facts that the kernel module reports.

use crate::exit::{Fail, Status};
use crate::khofs;
use crate::module;
use crate::output::bytes;
use crate::session::Session;
use kho::tree::{MAX_SIZE, Reader};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A node with memory: its path, the number of bytes and of ranges.
struct Node {
    path: String,
    bytes: u64,
    ranges: usize,
}

/// The module's side of a handover.
pub struct Drivers {
    facts: BTreeMap<String, String>,
    generation: u64,
    /// Frozen nodes with memory.
    frozen: Vec<Node>,
    /// Nodes that arrived, with memory that no consumer claimed.
    unclaimed: Vec<module::Unclaimed>,
}

impl Drivers {
    /// Asks the module for its state; `None` if the module is not loaded.
    ///
    /// # Errors
    ///
    /// If the module does not answer.
    pub fn ask(session: &Session) -> Result<Option<Self>, Fail> {
        let root = &session.root;
        if !module::present(root) {
            return Ok(None);
        }
        // The file disappears at the end of the active phase, also between two reads.
        let tree = root
            .bytes("sys/kernel/kho/dt", MAX_SIZE as u64)
            .unwrap_or_default();
        Ok(Some(Self {
            facts: module::facts(root)?,
            generation: module::generation(root)?,
            frozen: if tree.is_empty() {
                Vec::new()
            } else {
                nodes(&tree)?
            },
            unclaimed: module::unclaimed(root)?,
        }))
    }

    fn fact(&self, name: &str) -> &str {
        self.facts.get(name).map_or("", String::as_str)
    }

    /// Returns the module's side, for scripts.
    pub fn json(&self) -> Value {
        let frozen: Vec<Value> = self
            .frozen
            .iter()
            .map(|n| json!({ "node": n.path, "bytes": n.bytes, "ranges": n.ranges }))
            .collect();
        let unclaimed: Vec<Value> = self
            .unclaimed
            .iter()
            .map(|u| json!({ "node": u.node, "bytes": u.bytes, "producer": u.producer }))
            .collect();
        json!({
            "active": self.generation != 0,
            "generation": format!("{:#x}", self.generation),
            "facts": self.facts,
            "in_place": frozen,
            "unclaimed": unclaimed,
        })
    }

    /// Prints the module's side, for people. Leaves out the nodes of `instances`, which have lines of their own.
    pub fn print(&self, instances: &[khofs::Instance]) {
        let active = if self.generation == 0 {
            "not active"
        } else {
            "ACTIVE, drivers are frozen"
        };
        let producers = self.fact("producers");
        println!(
            "module    {active}; {producers} {}; arrival: {}",
            if producers == "1" {
                "producer"
            } else {
                "producers"
            },
            self.fact("arrival"),
        );
        if let Some(part) = self.facts.get("kernel-part")
            && part != "arrived"
            && part != "none"
        {
            println!("          what drivers left is ignored and stays reserved: {part}");
        }
        for node in &self.frozen {
            println!(
                "in place  {}  {} in {} {}",
                node.path,
                bytes(node.bytes),
                node.ranges,
                if node.ranges == 1 { "range" } else { "ranges" }
            );
        }
        let mut unclaimed: Vec<(&str, u64, Option<&str>)> = Vec::new();
        for one in &self.unclaimed {
            let node = khofs::instance_node(&one.node).unwrap_or(&one.node);
            match unclaimed.last_mut() {
                _ if instances.iter().any(|instance| instance.is_at(node)) => {}
                Some((last, sum, _)) if *last == node => *sum = sum.saturating_add(one.bytes),
                _ => unclaimed.push((node, one.bytes, one.producer.as_deref())),
            }
        }
        for (node, size, producer) in unclaimed {
            let size = bytes(size);
            match producer {
                Some(name) => println!("unclaimed {node}  {size}; the producer {name} has it"),
                None => println!("unclaimed {node}  {size}; kho release {node} gives it back"),
            }
        }
    }
}

/// Returns the nodes of a sealed tree that keep memory, without the pages of the tree itself, which its root names.
fn nodes(tree: &[u8]) -> Result<Vec<Node>, Fail> {
    let wrong = |err: &dyn std::fmt::Display| {
        Fail::new(
            Status::Module,
            format!("/sys/kernel/kho/dt is no state tree: {err}"),
        )
    };
    let tree = Reader::new(tree).map_err(|err| wrong(&err))?;
    let mut path: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for (depth, node) in tree.nodes() {
        path.truncate(depth.saturating_sub(1));
        if depth == 0 {
            continue;
        }
        path.push(node.name());
        let Some(mem) = node.prop(kho::abi::MEM) else {
            continue;
        };
        let ranges: Vec<_> = mem
            .value()
            .mem()
            .map_err(|err| wrong(&err))?
            .flatten()
            .collect();
        found.push(Node {
            path: format!("/{}", path.join("/")),
            bytes: ranges.iter().map(|range| range.len()).sum(),
            ranges: ranges.len(),
        });
    }
    Ok(found)
}
