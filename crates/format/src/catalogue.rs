//! The catalogue of a build: the node versions that it reads and writes. Comparing two catalogues shows whether one
//! build understands the trees that the other one writes.

use kho::abi::ftrace;
use kho::abi::kernel_part::{KERNEL_PART_V1, KERNEL_V1};
use kho::abi::late::KERNEL_PART_V2;
use kho::abi::setup_data::{SETUP_KHO_RESERVE, SETUP_KHO_TREE};
use kho::abi::{BLOB_V1, BLOBS_V1, COMPATIBLE, HANDOVER_V1, PAGE_BYTES};
use kho::tree::Reader;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use thiserror::Error;

/// Path inside an initrd of the catalogue of the `kho` in that initrd.
pub const INITRD_PATH: &str = "usr/lib/kho/catalogue.json";

/// Layout version of a catalogue.
const FORMAT: u32 = 1;

/// Largest catalogue that is read, in bytes.
const LIMIT: usize = 1 << 20;

/// Catalogue of a build: its carriers, machines and page size, and the node versions that it reads and writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// The version of this layout: 1.
    #[serde(rename = "kho-catalogue")]
    pub format: u32,
    /// Version of the build, for people.
    pub build: String,
    /// Names of the carriers, the ways in which the state tree reaches the next kernel.
    pub carriers: BTreeSet<String>,
    /// Machines that the build is for, as values of the property `machine`.
    pub machines: BTreeSet<String>,
    /// Page size, in bytes.
    pub page_size: u32,
    /// `compatible`s of the nodes that the build acts on.
    pub reads: BTreeSet<String>,
    /// `compatible`s of the nodes that the build writes.
    pub writes: BTreeSet<String>,
}

/// Why a text is not a catalogue.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// The text is longer than the limit, 1 MiB.
    #[error("a catalogue of {len} bytes is longer than {LIMIT}")]
    TooLong {
        /// Length of the text, in bytes.
        len: usize,
    },
    /// The text is not JSON, or not of the shape of a [`Catalogue`].
    #[error("not a catalogue of node versions")]
    Malformed(#[source] serde_json::Error),
    /// The catalogue has another layout version, such as that of a later build.
    #[error("catalogue version {found} is not known here, only {FORMAT}")]
    Format {
        /// Layout version of the catalogue.
        found: u32,
    },
}

/// A part of the handover that the next side would ignore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// The `compatible`, carrier, machine or page size that the next side does not know.
    pub what: String,
    /// Consequence for the handover, as text for people.
    pub effect: String,
    /// Whether the next side would use nothing of the handover.
    pub everything: bool,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.effect)
    }
}

/// `compatible`s of the nodes of traces.
const TRACE_VERSIONS: [&str; 6] = [
    ftrace::FTRACE_V1,
    ftrace::FTRACE_HOP_V1,
    ftrace::FTRACE_META_V1,
    ftrace::KMSG_V1,
    ftrace::FTRACE_ARRAY_V1,
    ftrace::FTRACE_CPU_V1,
];

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The carrier of the architecture for which this is built.
fn carrier() -> String {
    match std::env::consts::ARCH {
        "aarch64" => "devicetree-chosen".to_owned(),
        _ => format!("x86-setup-data:{SETUP_KHO_TREE:#x},{SETUP_KHO_RESERVE:#x}"),
    }
}

impl Catalogue {
    /// The catalogue of this build.
    pub fn this() -> Self {
        Self {
            format: FORMAT,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            carriers: [carrier()].into(),
            machines: set(&[std::env::consts::ARCH]),
            page_size: PAGE_BYTES,
            reads: set(&[
                HANDOVER_V1,
                BLOBS_V1,
                BLOB_V1,
                KERNEL_PART_V1,
                KERNEL_PART_V2,
                KERNEL_V1,
            ])
            .into_iter()
            .chain(set(&TRACE_VERSIONS))
            .collect(),
            writes: set(&[
                HANDOVER_V1,
                BLOBS_V1,
                BLOB_V1,
                KERNEL_PART_V1,
                KERNEL_PART_V2,
            ])
            .into_iter()
            .chain(set(&TRACE_VERSIONS))
            .collect(),
        }
    }

    /// Reads a catalogue.
    ///
    /// # Errors
    ///
    /// [`CatalogueError`].
    pub fn parse(text: &[u8]) -> Result<Self, CatalogueError> {
        if text.len() > LIMIT {
            return Err(CatalogueError::TooLong { len: text.len() });
        }
        let catalogue: Self = serde_json::from_slice(text).map_err(CatalogueError::Malformed)?;
        if catalogue.format == FORMAT {
            Ok(catalogue)
        } else {
            Err(CatalogueError::Format {
                found: catalogue.format,
            })
        }
    }

    /// Lists the nodes that this build may write and `next` would ignore.
    pub fn ignored_by(&self, next: &Self) -> Vec<Ignored> {
        let mut out = self.carried_to(next);
        out.extend(versions(self.writes.iter().map(String::as_str), next));
        out
    }

    /// Lists the nodes of `tree`, which this build wrote, that `next` would ignore.
    pub fn ignored_of(&self, tree: &Reader<'_>, next: &Self) -> Vec<Ignored> {
        let used: BTreeSet<&str> = tree
            .nodes()
            // A producer's driver reads the nodes that producers put below their own node.
            .filter_map(|(_, node)| node.prop(COMPATIBLE)?.value().str().ok())
            .filter(|compatible| self.writes.contains(*compatible))
            .collect();
        let mut out = self.carried_to(next);
        out.extend(versions(used.into_iter(), next));
        out
    }

    fn carried_to(&self, next: &Self) -> Vec<Ignored> {
        let all = |what: String, effect: &str| Ignored {
            what,
            effect: effect.to_owned(),
            everything: true,
        };
        let mut out = Vec::new();
        if self.carriers.is_disjoint(&next.carriers) {
            let names: Vec<&str> = self.carriers.iter().map(String::as_str).collect();
            out.push(all(
                format!("carrier {}", names.join(", ")),
                "the next side does not look there, so it finds nothing",
            ));
        }
        if self.machines.is_disjoint(&next.machines) {
            let names: Vec<&str> = self.machines.iter().map(String::as_str).collect();
            out.push(all(
                format!("machine {}", names.join(", ")),
                "the next side is for another kind of machine",
            ));
        }
        if self.page_size != next.page_size {
            out.push(all(
                format!("pages of {:#x} bytes", self.page_size),
                "the next side has pages of another size and refuses the tree",
            ));
        }
        out
    }
}

fn versions<'a>(used: impl Iterator<Item = &'a str>, next: &Catalogue) -> Vec<Ignored> {
    used.filter(|compatible| !next.reads.contains(*compatible))
        .map(|compatible| Ignored {
            what: compatible.to_owned(),
            effect: if compatible == HANDOVER_V1 {
                "the next side refuses the whole tree; its ranges stay reserved".to_owned()
            } else {
                "the next side leaves nodes of this version alone; their ranges stay reserved"
                    .to_owned()
            },
            everything: compatible == HANDOVER_V1,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_build_understands_itself() {
        let this = Catalogue::this();
        assert_eq!(this.ignored_by(&this), []);
        assert!(this.writes.is_subset(&this.reads));
        let text = serde_json::to_vec(&this).unwrap();
        assert_eq!(Catalogue::parse(&text).unwrap(), this);
    }

    #[test]
    fn what_is_not_read_is_named() {
        let this = Catalogue::this();
        let mut next = this.clone();
        next.reads.remove(BLOB_V1);
        next.reads.insert("kho-blob-v2".to_owned());
        let found = this.ignored_by(&next);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, BLOB_V1);
        assert!(!found[0].everything);
        next.reads.remove(HANDOVER_V1);
        next.carriers = set(&["arm64-chosen"]);
        next.page_size = 65536;
        next.machines = set(&["aarch64"]);
        let found = this.ignored_by(&next);
        assert_eq!(found.iter().filter(|ignored| ignored.everything).count(), 4);
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn other_texts_are_refused() {
        let refused = |text: &[u8]| Catalogue::parse(text).unwrap_err().to_string();
        assert_eq!(refused(b"{}"), "not a catalogue of node versions");
        let mut later = Catalogue::this();
        later.format = 2;
        assert_eq!(
            refused(&serde_json::to_vec(&later).unwrap()),
            "catalogue version 2 is not known here, only 1"
        );
        assert_eq!(
            refused(&vec![b' '; LIMIT + 1]),
            "a catalogue of 1048577 bytes is longer than 1048576"
        );
    }
}
