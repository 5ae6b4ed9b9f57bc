//! The state of a kernel with built-in Kexec HandOver, read from its debugfs.
//!
//! `/sys/kernel/debug/kho/in` shows the state that such a kernel found, `/sys/kernel/debug/kho/out` the state that it
//! will leave. Each side has a tree `fdt` and a folder `sub_fdts` with the content that the tree's children point at;
//! `out` also has `scratch_phys` and `scratch_len` (`kernel/liveupdate/kexec_handover_debugfs.c`, Linux 7.3; 6.16 has
//! `finalize` and `abort` files beside them).
//!
//! | version | root | child | preserved memory |
//! | --- | --- | --- | --- |
//! | `kho-v1` | `preserved-memory-map`: u64, address | `fdt`: u64, address of another tree | linked chunks of bitmaps |
//! | `kho-v2` | the same | the same | a radix tree of pages |
//! | `kho-v3` | the same | `preserved-data`: u64, address; `blob-size`: u64; the content may be anything | the same |
//! | `kho-v4` | the same | the same | the same, with blocks of entries (`include/linux/kho/abi/block.h`) |
//!
//! Sources: `include/linux/kho/abi/{kexec_handover,kexec_metadata,luo,memblock}.h` (Linux 7.3) and, for the older ones,
//! `kernel/kexec_handover.c` (6.16). The decoder reads a child's address from either property, `fdt` or
//! `preserved-data`, for every version. The kernel promises no stable format. The decoder does not read the memory
//! behind the addresses.
//!
//! Linux 7.3 fixes the length of `out/fdt` when it makes the file, although subsystems add to the tree later. A 7.3
//! kernel that was handed something does not make the file at all (`kho_init()` in
//! `kernel/liveupdate/kexec_handover.c`). In both cases the decoder takes what it can from the tree's beginning and
//! from `sub_fdts`, and adds a remark. Linux 7.3 also goes on showing `in/sub_fdts/LUO` after the orchestrator has
//! freed that memory, so the file can hold any bytes.

use crate::view;
use crate::{human, text};
use kho::bytes::{u32_at, u64_at};
use kho::tree::{Node, Reader, TreeError};
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::fmt::Write;
use thiserror::Error;

/// `compatible`s of the roots that this module decodes.
pub const VERSIONS: [&str; 4] = ["kho-v1", "kho-v2", "kho-v3", "kho-v4"];

/// Files of one of the two sides, `in` or `out`, as read from debugfs.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Content of the file `fdt`; `None` if the file does not exist.
    pub fdt: Option<Vec<u8>>,
    /// Name and content of every file in `sub_fdts`.
    pub sub: Vec<(String, Vec<u8>)>,
    /// Addresses and lengths, in bytes, of the scratch regions; only `out` shows them.
    pub scratch: Vec<(u64, u64)>,
}

/// Why a side cannot be decoded.
#[derive(Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MainlineError {
    /// The bytes are not a tree.
    #[error("the kernel's `fdt` is no tree")]
    Tree(#[from] TreeError),
    /// The root has another version.
    #[error("the kernel's tree is a {found:?}, known are kho-v1 to kho-v4")]
    Version {
        /// The root's `compatible`.
        found: String,
    },
}

/// A decoded side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct State {
    /// `kho-v1` to `kho-v4`; `None` if the kernel shows no tree.
    pub version: Option<String>,
    /// Address of the first node or chunk that describes preserved memory; 0 if no memory is preserved, `None` if the
    /// kernel does not show the address.
    pub preserved_memory_map: Option<u64>,
    /// Scratch regions: address and length.
    pub scratch: Vec<(u64, u64)>,
    /// State that subsystems left, one entry for each.
    pub entries: Vec<Entry>,
    /// Remarks for people: parts that do not fit the version, and parts that the kernel does not show.
    pub remarks: Vec<String>,
}

/// State that one subsystem left.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Name of the subsystem.
    pub name: String,
    /// Address of the content; `None` if the tree does not state it.
    pub addr: Option<u64>,
    /// Length of the content, in bytes: from the tree, or the length of the file if the tree was not read. `None` if
    /// the tree does not state it.
    pub size: Option<u64>,
    /// Format of the content, such as `kexec-metadata version 1` or `unknown bytes`.
    pub format: String,
    /// Decoded content; null if the file does not exist.
    pub content: Json,
}

/// Decodes one side.
///
/// # Errors
///
/// [`MainlineError`].
pub fn decode(files: &Files) -> Result<State, MainlineError> {
    let Some(fdt) = &files.fdt else {
        let remark = "the kernel does not show its tree; the entries are the files in sub_fdts";
        return Ok(without_tree(files, None, None, remark.to_owned()));
    };
    match Reader::new(fdt) {
        Ok(tree) => whole(&tree, files),
        Err(TreeError::Truncated { needed, available }) if available >= HEADER => {
            let (version, map) = beginning(fdt);
            let version = known(version.unwrap_or_default())?.to_owned();
            let remark = format!(
                "the kernel shows {available:#x} of the {needed:#x} bytes of its tree; the entries are the files in sub_fdts"
            );
            Ok(without_tree(files, Some(version), map, remark))
        }
        Err(err) => Err(err.into()),
    }
}

fn known(version: &str) -> Result<&str, MainlineError> {
    match VERSIONS.contains(&version) {
        true => Ok(version),
        false => Err(MainlineError::Version {
            found: version.to_owned(),
        }),
    }
}

/// Builds the state from the files beside the tree, for a kernel that does not show its whole tree.
fn without_tree(
    files: &Files,
    version: Option<String>,
    preserved_memory_map: Option<u64>,
    remark: String,
) -> State {
    let entries = files.sub.iter().map(|(name, bytes)| {
        let (format, content) = entry(name, bytes);
        Entry {
            name: name.clone(),
            addr: None,
            size: u64::try_from(bytes.len()).ok(),
            format,
            content,
        }
    });
    State {
        version,
        preserved_memory_map,
        scratch: files.scratch.clone(),
        entries: entries.collect(),
        remarks: vec![remark],
    }
}

/// Length of a container's header, in bytes.
const HEADER: usize = 40;

/// Reads `compatible` and `preserved-memory-map` of the root of a tree whose end is missing. The names of properties
/// are in the missing end, so the values distinguish the two: the root has one string and one u64.
fn beginning(fdt: &[u8]) -> (Option<&str>, Option<u64>) {
    const BEGIN_NODE: u32 = 1;
    const PROP: u32 = 3;
    let word = |at: usize| {
        let bytes = fdt.get(at..)?.first_chunk()?;
        Some(u32::from_be_bytes(*bytes))
    };
    let size = |at: usize| usize::try_from(word(at)?).ok();
    let (mut version, mut map) = (None, None);
    let Some(mut at) = size(8).filter(|at| word(*at) == Some(BEGIN_NODE)) else {
        return (None, None);
    };
    // Skip the token and the root's empty name.
    at = at.saturating_add(8);
    while word(at) == Some(PROP) {
        let (start, len) = (at.saturating_add(12), size(at.saturating_add(4)));
        let Some(end) = len.and_then(|len| start.checked_add(len)) else {
            break;
        };
        let Some(value) = fdt.get(start..end) else {
            break;
        };
        match value {
            [text @ .., 0] if text.starts_with(b"kho-") => {
                version = core::str::from_utf8(text).ok()
            }
            _ => map = map.or(value.try_into().ok().map(u64::from_ne_bytes)),
        }
        at = end.next_multiple_of(4);
    }
    (version, map)
}

fn whole(tree: &Reader<'_>, files: &Files) -> Result<State, MainlineError> {
    let root = tree.root();
    let found = known(string(&root, "compatible").unwrap_or_default())?;
    let mut remarks = Vec::new();
    let map = number(&root, "preserved-memory-map");
    if map.is_none() {
        remarks.push("/: there is no 64-bit `preserved-memory-map`".to_owned());
    }
    let sized = matches!(found, "kho-v3" | "kho-v4");
    let entries = root
        .children()
        .map(|node| {
            let name = node.name();
            let addr = number(&node, if sized { "preserved-data" } else { "fdt" });
            let addr = addr.or_else(|| number(&node, if sized { "fdt" } else { "preserved-data" }));
            if addr.is_none() {
                remarks.push(format!("/{name}: there is no 64-bit address"));
            }
            let size = number(&node, "blob-size");
            if sized && size.is_none() {
                remarks.push(format!("/{name}: there is no 64-bit `blob-size`"));
            }
            let content = files.sub.iter().find(|(file, _)| file == name);
            let (format, content) = content.map_or_else(
                || ("not shown by the kernel".to_owned(), Json::Null),
                |(_, bytes)| entry(name, bytes),
            );
            Entry {
                name: name.to_owned(),
                addr,
                size,
                format,
                content,
            }
        })
        .collect();
    for (name, _) in &files.sub {
        if root.child(name).is_none() {
            remarks.push(format!("sub_fdts/{name} belongs to no child of the root"));
        }
    }
    Ok(State {
        version: Some(found.to_owned()),
        preserved_memory_map: map,
        scratch: files.scratch.clone(),
        entries,
        remarks,
    })
}

/// Returns the format and the decoded content of the entry `name`.
fn entry(name: &str, bytes: &[u8]) -> (String, Json) {
    if let Ok(tree) = Reader::new(bytes) {
        let version = string(&tree.root(), "compatible").unwrap_or("tree without a version");
        return (version.to_owned(), view::json(tree.root()));
    }
    let known = match name {
        "kexec-metadata" => metadata(bytes),
        "LUO" => luo(bytes),
        _ => None,
    };
    known.unwrap_or_else(|| {
        let shown = bytes.get(..64).unwrap_or(bytes);
        (
            "unknown bytes".to_owned(),
            json!({ "len": bytes.len(), "first": human::hex(shown) }),
        )
    })
}

/// `struct kho_kexec_metadata`, packed: u32 version, 65 bytes of release, u32 count.
fn metadata(bytes: &[u8]) -> Option<(String, Json)> {
    const RELEASE: usize = 65;
    let version = u32_at(bytes, 0)?;
    let release = c_string(bytes.get(4..4 + RELEASE)?)?;
    let count = u32_at(bytes, 4 + RELEASE)?;
    (version == 1).then(|| {
        (
            "kexec-metadata version 1".to_owned(),
            json!({ "previous_release": release, "kexec_count": count }),
        )
    })
}

/// `struct luo_ser`, packed, from `luo-v3` on: a string of 8 bytes, then three u64. Older versions have a tree.
fn luo(bytes: &[u8]) -> Option<(String, Json)> {
    let version = c_string(bytes.get(..8)?)?;
    let [number, sessions, flbs] = [8, 16, 24].map(|at| u64_at(bytes, at));
    version.starts_with("luo-v").then(|| {
        (
            version.to_owned(),
            json!({ "liveupdate_num": number, "sessions_pa": sessions, "flbs_pa": flbs }),
        )
    })
}

/// Returns a decoded side as text.
pub fn show(state: &State) -> String {
    let version = state.version.as_deref();
    let mut out = format!(
        "{}\n",
        version.unwrap_or("a version that the kernel does not show")
    );
    // Writing to a String cannot fail.
    if let Some(map) = state.preserved_memory_map {
        let _ = match map {
            0 => writeln!(out, "  preserved memory: none"),
            _ => writeln!(out, "  preserved memory: described at {map:#x}"),
        };
    }
    for pair in &state.scratch {
        // A machine without memory of a kind has an empty region for it.
        let _ = match *pair {
            (addr, 0) => writeln!(out, "  scratch: empty, at {addr:#x}"),
            pair => writeln!(out, "  scratch: {}", text::range(pair)),
        };
    }
    for entry in &state.entries {
        let at = entry
            .addr
            .map_or(String::new(), |addr| format!(" at {addr:#x}"));
        let size = entry
            .size
            .map_or(String::new(), |size| format!(", {}", human::bytes(size)));
        let _ = writeln!(out, "  {}: {}{at}{size}", entry.name, entry.format);
        lines(&entry.content, 2, &mut out);
    }
    for remark in &state.remarks {
        let _ = writeln!(out, "  ! {remark}");
    }
    out
}

/// Writes decoded content, indented. The reader bounds the depth.
fn lines(content: &Json, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    let Json::Object(object) = content else {
        return;
    };
    if let (Some(Json::Object(properties)), Some(Json::Array(children))) =
        (object.get("properties"), object.get("children"))
    {
        for (name, value) in properties {
            let _ = writeln!(out, "{pad}{name} = {value}");
        }
        for child in children {
            let name = child.get("name").and_then(Json::as_str).unwrap_or("");
            let _ = writeln!(out, "{pad}{name}");
            lines(child, depth + 1, out);
        }
        return;
    }
    for (name, value) in object {
        let _ = writeln!(out, "{pad}{name} = {value}");
    }
}

fn string<'a>(node: &Node<'a>, name: &str) -> Option<&'a str> {
    node.prop(name)?.value().str().ok()
}

fn number(node: &Node<'_>, name: &str) -> Option<u64> {
    node.prop(name)?.value().u64().ok()
}

fn c_string(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    core::str::from_utf8(bytes.get(..end)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kho::tree::{WriteError, Writer};

    fn tree(fill: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>) -> Vec<u8> {
        let mut buf = vec![0; 8192];
        let mut w = Writer::new(&mut buf);
        w.begin_node("").unwrap();
        fill(&mut w).unwrap();
        w.end_node().unwrap();
        let len = w.finish().unwrap();
        buf.truncate(len);
        buf
    }

    #[test]
    fn version_1_points_at_trees() {
        let sub = tree(|w| {
            w.prop_str("compatible", "memblock-v1")?;
            w.begin_node("trace")?;
            w.prop_str("compatible", "reserve-mem-v1")?;
            w.prop_u64("start", 0xc06b_0000)?;
            w.prop_u64("size", 0x4000)?;
            w.end_node()
        });
        let fdt = tree(|w| {
            w.prop_str("compatible", "kho-v1")?;
            w.prop_u64("preserved-memory-map", 0x1000)?;
            w.begin_node("memblock")?;
            w.prop_u64("fdt", 0x2000)?;
            w.end_node()
        });
        let files = Files {
            fdt: Some(fdt),
            sub: vec![("memblock".into(), sub)],
            scratch: vec![(0x10_0000, 0x20_0000), (0x30_0000, 0)],
        };
        let state = decode(&files).unwrap();
        assert_eq!(
            show(&state),
            "kho-v1\n  preserved memory: described at 0x1000\n  scratch: [0x100000-0x300000) 2.00 MiB\n  \
             scratch: empty, at 0x300000\n  memblock: memblock-v1 at 0x2000\n    compatible = \"memblock-v1\"\n    trace\n      \
             compatible = \"reserve-mem-v1\"\n      size = 16384\n      start = 3228237824\n"
        );
        assert_eq!(state.remarks, Vec::<String>::new());
    }

    #[test]
    fn version_4_points_at_anything() {
        let mut metadata = 1_u32.to_ne_bytes().to_vec();
        metadata.extend(b"7.3.4-peer");
        metadata.resize(4 + 65, 0);
        metadata.extend(3_u32.to_ne_bytes());
        let mut luo = b"luo-v5\0\0".to_vec();
        for word in [7_u64, 0x5000, 0] {
            luo.extend(word.to_ne_bytes());
        }
        let fdt = tree(|w| {
            w.prop_str("compatible", "kho-v4")?;
            w.prop_u64("preserved-memory-map", 0)?;
            for name in ["LUO", "kexec-metadata", "mystery", "gone"] {
                w.begin_node(name)?;
                w.prop_u64("preserved-data", 0x2000)?;
                if name != "gone" {
                    w.prop_u64("blob-size", 73)?;
                }
                w.end_node()?;
            }
            Ok(())
        });
        let files = Files {
            fdt: Some(fdt),
            sub: vec![
                ("LUO".into(), luo),
                ("kexec-metadata".into(), metadata),
                ("mystery".into(), vec![0xab; 3]),
                ("stray".into(), Vec::new()),
            ],
            scratch: Vec::new(),
        };
        let state = decode(&files).unwrap();
        let formats: Vec<&str> = state.entries.iter().map(|e| e.format.as_str()).collect();
        assert_eq!(
            formats,
            [
                "luo-v5",
                "kexec-metadata version 1",
                "unknown bytes",
                "not shown by the kernel"
            ]
        );
        assert_eq!(state.entries[0].content["liveupdate_num"], 7);
        assert_eq!(state.entries[1].content["previous_release"], "7.3.4-peer");
        assert_eq!(state.entries[1].content["kexec_count"], 3);
        assert_eq!(
            state.remarks,
            [
                "/gone: there is no 64-bit `blob-size`",
                "sub_fdts/stray belongs to no child of the root"
            ]
        );
    }

    #[test]
    fn other_roots_are_refused() {
        let ours = tree(|w| w.prop_str("compatible", "kho-handover-v1"));
        let files = Files {
            fdt: Some(ours),
            ..Files::default()
        };
        assert_eq!(
            decode(&files).unwrap_err().to_string(),
            "the kernel's tree is a \"kho-handover-v1\", known are kho-v1 to kho-v4"
        );
        for bytes in [&b""[..], &[0; 64]] {
            let files = Files {
                fdt: Some(bytes.to_vec()),
                ..Files::default()
            };
            assert!(matches!(decode(&files), Err(MainlineError::Tree(_))));
        }
    }

    #[test]
    fn a_tree_that_the_kernel_cuts_short_is_told_of() {
        let fdt = |version: &str| {
            tree(|w| {
                w.prop_str("compatible", version)?;
                w.prop_u64("preserved-memory-map", 0x7000)?;
                w.begin_node("LUO")?;
                w.prop_u64("preserved-data", 0x2000)?;
                w.prop_u64("blob-size", 32)?;
                w.end_node()
            })
        };
        let files = |fdt| Files {
            fdt,
            sub: vec![("thing".into(), vec![0xab; 3])],
            scratch: Vec::new(),
        };
        let whole = fdt("kho-v4");
        // For every length: a tree that is cut must not cause a panic or pass for a whole one.
        for len in 0..whole.len() {
            match decode(&files(Some(whole[..len].to_vec()))) {
                Ok(state) => {
                    assert!(len > HEADER);
                    assert_eq!(state.version.as_deref(), Some("kho-v4"));
                    assert_eq!(state.remarks.len(), 1);
                }
                Err(_) => assert!(len < 0x60, "{len:#x}"),
            }
        }
        let state = decode(&files(Some(whole[..0x80].to_vec()))).unwrap();
        assert_eq!(
            show(&state),
            format!(
                "kho-v4\n  preserved memory: described at 0x7000\n  thing: unknown bytes, 3 B\n    first = \"ababab\"\n    \
                 len = 3\n  ! the kernel shows 0x80 of the {:#x} bytes of its tree; the entries are the files in sub_fdts\n",
                whole.len()
            )
        );
        assert!(matches!(
            decode(&files(Some(fdt("kho-v9")[..0x80].to_vec()))),
            Err(MainlineError::Version { found }) if found == "kho-v9"
        ));
        let none = decode(&files(None)).unwrap();
        assert_eq!(
            (none.version, none.entries.len(), none.remarks.len()),
            (None, 1, 1)
        );
    }
}
