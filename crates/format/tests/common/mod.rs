//! A handover for the tests, and the folder of the golden files.
#![allow(dead_code, reason = "every test uses a part")]

use kho::abi::ftrace::{
    TraceHopDescription, TraceKind, TracePartDescription, TracesDescription, write_traces,
};
use kho::abi::kernel_part::Reference;
use kho::abi::{
    BlobDescription, Content, Description, Label, LeaveOut, MACHINE_X86_64, measure_handover_with,
    write_handover_with,
};
use kho::tree::{WriteError, Writer, seal};
use kho::{PhysAddr, PhysRange};
use std::path::{Path, PathBuf};

pub const MIB: u64 = 1 << 20;

pub fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

/// A handover as the loader writes it: files in two pieces, a raw blob, an empty blob, the kernel's part and a node of
/// an unknown producer.
pub fn handover() -> Vec<u8> {
    handover_with(0x4000, |_| Ok(()))
}

/// The handover of [`handover`] with a trace.
pub fn traced() -> Vec<u8> {
    handover_with(0x8000, traces)
}

/// The handover of [`handover`], with `len` bytes of memory for the small nodes, and with further nodes.
fn handover_with(
    len: u64,
    more: impl Copy + Fn(&mut Writer<'_>) -> Result<(), WriteError>,
) -> Vec<u8> {
    let (first, second) = (
        [range(0x4000_0000, MIB), range(0x5000_0000, 0x1000)],
        [range(0x4010_0000, 0x3000)],
    );
    let blob = |label, content, size, mem, arrived_hop| BlobDescription {
        label: Label::new(label).unwrap(),
        content,
        size,
        mem,
        blake3: [7; 32],
        taken: 1_763_000_000_000_000_000,
        arrived_hop,
    };
    let blobs = [
        blob(
            "srv-data",
            Content::Files {
                path: b"/srv/d\xff*/ \"x\"\\",
                leave_out: LeaveOut {
                    special: true,
                    other_file_systems: false,
                },
            },
            MIB + 1,
            &first,
            2,
        ),
        blob("état \"1\"", Content::Raw, 0x2001, &second, 3),
        blob("empty", Content::Raw, 0, &[], 1),
    ];
    let description = Description {
        generation: 0x0123_4567_89ab_cdef,
        hop: 3,
        previous_release: "6.1.0-42-amd64",
        machine: MACHINE_X86_64,
        time: 1_763_000_000_000_000_001,
        carrier: kho::abi::Carrier::Memory,
        scratch: range(0x1000_0000, 512 * MIB),
        mem_cache: &[
            range(0x6000_0000, 0x10_0000),
            range(0x4000_0000, MIB + 0x3000),
            range(0x5000_0000, len),
        ],
        blobs: &blobs,
    };
    let others = |w: &mut Writer<'_>| -> Result<(), WriteError> {
        Reference {
            mem: range(0x5000_1000, 0x1000),
            size: 0x7c0,
            generation: 0xfeed_face_cafe_f00d,
        }
        .write(w)?;
        more(w)?;
        w.begin_node("ring")?;
        w.prop_str("compatible", "example-ring-v1")?;
        w.prop_u32("entries", 1)?;
        w.prop_empty("armed")?;
        w.prop_bytes("odd", &[1, 2, 3])?;
        w.prop_mem("mem", [range(0x5000_2000, 0x1000)])?;
        w.end_node()
    };
    let mut buf = vec![0; measure_handover_with(&description, others).unwrap()];
    write_handover_with(&description, &mut buf, others).unwrap();
    buf
}

/// The trace of the previous kernel: formats, log, and the buffers of one CPU at the top level and in an instance.
fn traces(w: &mut Writer<'_>) -> Result<(), WriteError> {
    let mem = [0x4000, 0x5000, 0x6000, 0x7000].map(|at| [range(0x5000_0000 + at, 0x1000)]);
    let cpu = |array| TraceKind::Cpu {
        array,
        cpu: 1,
        sub_buffer: 0x1000,
    };
    let kinds = [
        (TraceKind::Meta, 0x765),
        (TraceKind::Log, 0x432),
        (cpu(""), 0x1000),
        (cpu("net"), 0x1000),
    ];
    let parts: Vec<_> = kinds
        .into_iter()
        .zip(&mem)
        .map(|((kind, size), mem)| TracePartDescription {
            kind,
            size,
            mem,
            blake3: [9; 32],
        })
        .collect();
    write_traces(
        w,
        &TracesDescription {
            limit: 16 * MIB,
            keep_hops: 2,
            configured: true,
            hops: &[TraceHopDescription {
                hop: 3,
                release: "6.1.0-42-amd64",
                taken: 1_763_000_000_000_000_000,
                parts: &parts,
            }],
        },
    )
}

/// A kernel's part as the module writes it.
pub fn kernel_part() -> Vec<u8> {
    let mut buf = vec![0; 4096];
    let mut w = Writer::new(&mut buf);
    w.begin_node("").unwrap();
    w.prop_str("compatible", "kho-kernel-v1").unwrap();
    w.prop_u64("generation", 0xfeed_face_cafe_f00d).unwrap();
    w.prop_str("release", "6.12.95-cloud-amd64").unwrap();
    w.prop_u32("checksum", 0).unwrap();
    w.prop_mem("mem", [range(0x5000_1000, 0x1000)]).unwrap();
    w.begin_node("ring").unwrap();
    w.prop_str("compatible", "example-ring-v1").unwrap();
    w.prop_mem("mem", [range(0x5000_3000, 0x1000)]).unwrap();
    w.end_node().unwrap();
    w.begin_node("khofs").unwrap();
    w.prop_str("compatible", "khofs-v1").unwrap();
    w.begin_node("vm").unwrap();
    w.prop_str("compatible", "khofs-instance-v1").unwrap();
    w.prop_str("instance", "vm").unwrap();
    w.prop_u64("size-limit", 1 << 30).unwrap();
    w.prop_u64("inode-limit", 1000).unwrap();
    w.prop_u64("inodes", 3).unwrap();
    w.prop_mem("mem", [range(0x5020_0000, 0x20_0000)]).unwrap();
    w.begin_node("tree").unwrap();
    w.prop_str("compatible", "khofs-tree-v1").unwrap();
    w.prop_u64("size", 300).unwrap();
    w.prop_u32("checksum", 0x1234_5678).unwrap();
    w.prop_mem("mem", [range(0x5000_4000, 0x1000)]).unwrap();
    for _ in 0..4 {
        w.end_node().unwrap();
    }
    let len = w.finish().unwrap();
    buf.truncate(len);
    seal(&mut buf).unwrap();
    buf
}

/// The workspace's root.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares with a file that is kept in the repository; `KHO_BLESS=1` writes it instead.
pub fn golden(path: &Path, found: &str) {
    if std::env::var_os("KHO_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, found).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        wanted == found,
        "{} is not what comes out now; KHO_BLESS=1 writes it anew.\n--- now ---\n{found}",
        path.display()
    );
}
