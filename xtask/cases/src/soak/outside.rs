//! Comparison of the arrived content from outside, in the file that holds the machine's memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use kho_lab::run::Host;

/// Memory of the guest: all of it below the hole under 4 GiB, so that an address is an offset in the memory file.
pub const MEM_MIB: u64 = 768;

/// Compares every blob with its hash in the guest's state tree, and every file of khofs with the size and the hash
/// that the previous kernel reported, at the addresses that the file had under that kernel.
pub fn compare(host: &mut Host<'_>) -> Result<()> {
    let memory = host.memory()?;
    let tree: Value =
        serde_json::from_str(host.value("tree")?).context("the guest's state tree")?;
    let blobs = children(&tree)
        .iter()
        .find(|node| node.get("name").and_then(Value::as_str) == Some("blobs"));
    let blobs = children(blobs.context("the tree has no blobs")?);
    for blob in blobs {
        let properties = blob.get("properties");
        same(&memory, properties.context("a blob without properties")?)?;
    }
    expect(host, "entries", blobs.len())?;
    let files: Vec<Value> =
        serde_json::from_str(host.value("where")?).context("where the files are")?;
    for file in &files {
        same(&memory, file)?;
    }
    expect(host, "files", files.len())
}

/// The children of a node of a tree in JSON.
pub fn children(node: &Value) -> &[Value] {
    let list = node.get("children").and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// Reads a list of ranges: start and length of each, in bytes.
pub fn ranges(list: &Value) -> Result<Vec<(u64, u64)>> {
    let list = list.as_array().context("no list of ranges")?;
    list.iter()
        .map(|range| Ok((number(range, "addr")?, number(range, "len")?)))
        .collect()
}

fn number(of: &Value, name: &str) -> Result<u64> {
    of.get(name)
        .and_then(Value::as_u64)
        .with_context(|| format!("no {name} in {of}"))
}

/// Checks that the content in the ranges of `what` has the size and the hash that `what` names.
fn same(memory: &File, what: &Value) -> Result<()> {
    let size = number(what, "size")?;
    let mut hasher = blake3::Hasher::new();
    let mut left = size;
    for (addr, len) in ranges(what.get("mem").context("no ranges")?)? {
        let len = len.min(left);
        ensure!(
            addr.checked_add(len)
                .is_some_and(|end| end <= MEM_MIB << 20),
            "{addr:#x} is outside of the machine"
        );
        let mut bytes = vec![0; usize::try_from(len)?];
        memory
            .read_exact_at(&mut bytes, addr)
            .context("reading the machine's memory")?;
        hasher.update(&bytes);
        left -= len;
    }
    let want = what.get("blake3").and_then(Value::as_str);
    ensure!(
        left == 0 && want == Some(hasher.finalize().to_hex().as_str()),
        "{size:#x} bytes in the machine's memory are not what they were: {what}"
    );
    Ok(())
}

/// Checks that `found` is the number that the guest reported under the name `what`.
fn expect(host: &Host<'_>, what: &str, found: usize) -> Result<()> {
    let said: usize = host
        .value(what)?
        .trim()
        .parse()
        .with_context(|| format!("the number of {what}"))?;
    ensure!(found == said, "{found} {what} where {said} are kept");
    Ok(())
}
