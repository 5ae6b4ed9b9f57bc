//! Access to khofs through `/sys/fs/khofs`: lists and ends instances.

use crate::exit::{Fail, OrStatus, Status, chain};
use crate::output::bytes;
use kho_kexec::sys::root::Root;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;

/// Folder of khofs in sysfs.
const DIR: &str = "sys/fs/khofs";

/// Start of the path of an instance's node in the state tree.
const NODE: &str = "/khofs/";

/// One instance.
#[derive(Debug, PartialEq, Eq)]
pub struct Instance {
    name: String,
    /// Other `key=value` pairs of the instance's line.
    words: BTreeMap<String, String>,
}

impl Instance {
    /// Parses a line `NAME key=value …`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        let words = words
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Some(Self { name, words })
    }

    fn number(&self, key: &str) -> u64 {
        let word = self.words.get(key).map(|word| word.parse().ok());
        word.flatten().unwrap_or(0)
    }

    /// Returns the path of the instance's node in the state tree.
    pub fn node(&self) -> String {
        format!("{NODE}{}", self.name)
    }

    /// Whether `node` is the node of this instance.
    pub fn is_at(&self, node: &str) -> bool {
        node.strip_prefix(NODE) == Some(&self.name)
    }

    fn arrived(&self) -> bool {
        self.words
            .get("state")
            .is_some_and(|state| state == "arrived")
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "state": self.words.get("state"),
            "inodes": self.number("inodes"),
            "bytes": self.number("bytes"),
            "ranges": self.number("ranges"),
            "slack": self.number("slack"),
            "unclaimed": self.number("unclaimed"),
            "limit": self.number("limit"),
            "huge": self.number("huge"),
        })
    }

    fn print(&self) {
        let (name, ranges) = (&self.name, self.number("ranges"));
        println!(
            "khofs     {name}  {} inodes, {} of {} in {ranges} {}, {} in huge pages, {} of slack; {}",
            self.number("inodes"),
            bytes(self.number("bytes")),
            bytes(self.number("limit")),
            if ranges == 1 { "range" } else { "ranges" },
            bytes(self.number("huge")),
            bytes(self.number("slack")),
            if self.arrived() {
                format!("arrived: mount -t khofs -o name={name} none /PLACE shows it")
            } else {
                format!("umount keeps it, kho release {NODE}{name} ends it")
            }
        );
    }
}

/// Returns the node of the instance that `path` belongs to; `None` if it belongs to no instance.
pub fn instance_node(path: &str) -> Option<&str> {
    let name = path.strip_prefix(NODE)?.split('/').next()?;
    path.get(..NODE.len() + name.len())
}

/// Returns the instances; `None` if khofs is not loaded.
///
/// # Errors
///
/// If khofs is loaded and its list of instances cannot be read.
pub fn instances(root: &Root) -> Result<Option<Vec<Instance>>, Fail> {
    let file = format!("{DIR}/status");
    if !root.exists(&file) {
        return Ok(None);
    }
    let text = root
        .attribute(&file)
        .or_status(Status::NotPermitted)
        .map_err(|fail| fail.root(""))?;
    Ok(Some(text.lines().filter_map(Instance::parse).collect()))
}

/// Returns the instances, for scripts; null if khofs is not loaded.
pub fn json(instances: Option<&[Instance]>) -> Value {
    instances.map_or(Value::Null, |list| {
        list.iter().map(Instance::json).collect()
    })
}

/// Prints the instances, for people. `single` is the reason why their files are in single pages, if they are.
pub fn print(instances: Option<&[Instance]>, single: Option<&str>) {
    instances.into_iter().flatten().for_each(Instance::print);
    if let (Some([_, ..]), Some(why)) = (instances, single) {
        println!("khofs     without huge pages in this kernel: {why}");
    }
}

/// Ends the instance with the node `path`; false if `path` is not a node of khofs.
///
/// # Errors
///
/// [`Status::Module`] with the kernel's error; usually the instance is mounted. [`Status::NoSuchEntry`] if `path` is a
/// part of an instance: without that part, the other parts would be lost.
pub fn release(root: &Root, path: &str) -> Result<bool, Fail> {
    let Some(name) = path.strip_prefix(NODE) else {
        return Ok(false);
    };
    match instance_node(path) {
        Some(node) if node != path => {
            return Err(Fail::new(
                Status::NoSuchEntry,
                format!("{path} is a part of {node} and cannot be released alone"),
            )
            .fix(format!("kho release {node}")));
        }
        _ => {}
    }
    let known = instances(root)?.is_some_and(|list| list.iter().any(|i| i.name == name));
    if !known {
        return Ok(false);
    }
    let file = root.path(&format!("{DIR}/release"));
    std::fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .and_then(|mut file| file.write_all(name.as_bytes()))
        .map_err(|err| {
            Fail::new(
                Status::Module,
                format!("{name} to {}: {}", file.display(), chain(&err)),
            )
            .fix("umount it everywhere first; in the active phase, kho abort")
        })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_an_instance() {
        assert_eq!(instance_node("/khofs/vm"), Some("/khofs/vm"));
        assert_eq!(instance_node("/khofs/vm/tree"), Some("/khofs/vm"));
        assert_eq!(instance_node("/khofs"), None);
        assert_eq!(instance_node("/ring/vm"), None);
        let line = "vm state=live inodes=1 bytes=0 ranges=0 slack=0";
        let instance = Instance::parse(line).unwrap();
        assert!(instance.is_at("/khofs/vm"));
        assert!(!instance.is_at("/khofs/vm2") && !instance.is_at("/khofs/v"));
    }

    #[test]
    fn part_of_an_instance_is_not_released_alone() {
        let fail = release(&Root::at("/nonexistent"), "/khofs/vm/tree").unwrap_err();
        assert_eq!(fail.status, Status::NoSuchEntry);
        assert!(fail.what.contains("part of /khofs/vm"), "{}", fail.what);
    }

    #[test]
    fn a_line_of_the_module() {
        let line = "vm state=live inodes=12 bytes=4096 ranges=1 slack=8192 unclaimed=0 limit=1048576 inode-limit=5 huge=0";
        let instance = Instance::parse(line).unwrap();
        assert!(!instance.arrived());
        assert_eq!(instance.json()["bytes"], 4096);
        assert_eq!(instance.json()["name"], "vm");
        assert_eq!(Instance::parse(""), None);
    }
}
