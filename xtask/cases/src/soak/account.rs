//! Account of the reserved memory, by owner: reserved memory without an owner has leaked.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::outside::{children, ranges};
use kho_lab::run::Life;

/// Memory that a kernel received, in KiB.
#[derive(Debug, PartialEq, Eq)]
pub struct Account {
    /// Memory in the `mem` of all nodes, of the loader's tree and of the drivers' tree.
    pub owned: u64,
    /// Part of `owned` that a driver claims when it is loaded, so that it is no longer reserved.
    pub claimed: u64,
    /// Memory that early boot reserved beside `owned`: chain, tree, and slack between merged ranges.
    pub beside: u64,
    /// Number of early reservations.
    pub ranges: usize,
}

/// The node of the sample driver.
const CLAIMED: &str = "ring";

impl Account {
    /// Returns the account of the trees that a kernel reported. `None` if it reported none, as the first kernel does.
    pub fn of(life: &Life) -> Result<Option<Self>> {
        let Some(tree) = life.values.get("tree") else {
            return Ok(None);
        };
        let tree: Value = serde_json::from_str(tree).context("a state tree")?;
        let drivers = life.values.get("drivers").context("no tree of drivers")?;
        let drivers: Value = serde_json::from_str(drivers).context("a tree of drivers")?;
        Self::add(&tree, &drivers).map(Some)
    }

    fn add(tree: &Value, drivers: &Value) -> Result<Self> {
        // By first address: both trees name the pages of the kernel's part.
        let (mut owned, mut claimed) = (BTreeMap::new(), BTreeMap::new());
        collect(tree, &mut owned)?;
        collect(drivers, &mut owned)?;
        for driver in children(drivers) {
            if driver.get("name").and_then(Value::as_str) == Some(CLAIMED) {
                collect(driver, &mut claimed)?;
            }
        }
        let cache = tree.pointer("/properties/mem-cache");
        let cache = ranges(cache.context("a tree without a mem cache")?)?;
        let (owned, claimed): (u64, u64) = (owned.values().sum(), claimed.values().sum());
        let all: u64 = cache.iter().map(|(_, len)| len).sum();
        let beside = all
            .checked_sub(owned)
            .context("less is reserved than is handed over")?;
        Ok(Self {
            owned: owned >> 10,
            claimed: claimed >> 10,
            beside: beside >> 10,
            ranges: cache.len(),
        })
    }
}

fn collect(node: &Value, into: &mut BTreeMap<u64, u64>) -> Result<()> {
    if let Some(mem) = node.pointer("/properties/mem") {
        for (addr, len) in ranges(mem)? {
            let before = into.insert(addr, len);
            ensure!(
                before.is_none_or(|before| before == len),
                "two lengths at {addr:#x}"
            );
        }
    }
    children(node)
        .iter()
        .try_for_each(|child| collect(child, into))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_named_twice_counts_once() {
        let mem = |addr: u64, len: u64| json!([{ "addr": addr, "len": len }]);
        let tree = json!({
            "properties": { "mem-cache": [
                { "addr": 0x9000, "len": 0x2000 }, { "addr": 0x10_0000, "len": 0x1_0000 }
            ] },
            "children": [
                { "name": "kernel", "properties": { "mem": mem(0x10_0000, 0x1000) } },
                { "name": "blobs", "children": [{ "properties": { "mem": mem(0x10_2000, 0x3000) } }] },
            ],
        });
        let drivers = json!({
            "properties": { "mem": mem(0x10_0000, 0x1000) },
            "children": [
                { "name": "ring", "properties": { "mem": mem(0x10_8000, 0x2000) } },
                { "name": "khofs", "properties": { "mem": mem(0x10_a000, 0x6000) } },
            ],
        });
        let account = Account::add(&tree, &drivers).expect("all is there");
        assert_eq!(
            account,
            Account {
                owned: 4 + 12 + 32,
                claimed: 8,
                beside: 8 + 16,
                ranges: 2
            }
        );
        let none = json!({ "properties": { "mem": mem(0x10_8000, 0x9_0000) } });
        assert!(Account::add(&tree, &none).is_err());
    }
}
