//! Whose memory it is that stays reserved: what nobody owns has leaked.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::outside::{children, ranges};
use crate::lab::Life;

/// What a kernel was given, in KiB.
#[derive(Debug, PartialEq, Eq)]
pub struct Account {
    /// In the `mem` of all nodes, of the loader's tree and of the drivers'.
    pub owned: u64,
    /// Chain and tree.
    pub state: u64,
    /// Reserved in early boot beside those, because ranges are few.
    pub slack: u64,
    /// Early reservations.
    pub ranges: usize,
}

impl Account {
    /// Of the trees that a kernel reported; `None` for the first.
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
        // By first address: the pages of the drivers' tree itself are named in both.
        let mut owned = BTreeMap::new();
        collect(tree, &mut owned)?;
        collect(drivers, &mut owned)?;
        let cache = tree.pointer("/properties/mem-cache");
        let cache = ranges(cache.context("a tree without a mem cache")?)?;
        let (_, state) = *cache.first().context("an empty mem cache")?;
        let owned: u64 = owned.values().sum();
        let all: u64 = cache.iter().map(|(_, len)| len).sum();
        let slack = all
            .checked_sub(owned + state)
            .context("less is reserved than is handed over")?;
        Ok(Self {
            owned: owned >> 10,
            state: state >> 10,
            slack: slack >> 10,
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
            "children": [{ "properties": { "mem": mem(0x10_8000, 0x8000) } }],
        });
        let account = Account::add(&tree, &drivers).expect("all is there");
        assert_eq!(
            account,
            Account {
                owned: 4 + 12 + 32,
                state: 8,
                slack: 16,
                ranges: 2
            }
        );
        let none = json!({ "properties": { "mem": mem(0x10_8000, 0x9_0000) } });
        assert!(Account::add(&tree, &none).is_err());
    }
}
