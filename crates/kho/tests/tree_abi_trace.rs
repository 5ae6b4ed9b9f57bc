//! `/ftrace`: a reader gets the values that the writer wrote, and names every error in the node.

use kho::abi::ftrace::{
    TraceHopDescription, TraceKind, TracePartDescription, TracesDescription, write_traces,
};
use kho::abi::{Description, Handover, MACHINE_X86_64, measure_handover_with, write_handover_with};
use kho::tree::{Reader, WriteError, Writer, seal};
use kho::{PhysAddr, PhysRange};

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

fn description(mem_cache: &[PhysRange]) -> Description<'_> {
    Description {
        generation: 1,
        hop: 3,
        previous_release: "6.1",
        machine: MACHINE_X86_64,
        time: 5,
        carrier: kho::abi::Carrier::Memory,
        scratch: range(0x1000_0000, 0x100_0000),
        mem_cache,
        blobs: &[],
    }
}

const CACHE: [(u64, u64); 2] = [(0x2000_0000, 0x1000), (0x3000_0000, 0x10_0000)];

fn cpu(array: &str, cpu: u32) -> TraceKind<'_> {
    TraceKind::Cpu {
        array,
        cpu,
        sub_buffer: 0x1000,
    }
}

/// Traces of two kernels; `change` alters the parts.
fn traces(
    w: &mut Writer<'_>,
    change: impl Fn(usize, &mut TracePartDescription<'_>),
) -> Result<(), WriteError> {
    let kinds = [
        TraceKind::Meta,
        TraceKind::Log,
        cpu("", 0),
        cpu("", 11),
        cpu("net", 0),
    ];
    let mems: Vec<[PhysRange; 1]> = (0..10)
        .map(|n| [range(0x3000_0000 + n * 0x4000, 0x2000)])
        .collect();
    let parts: Vec<TracePartDescription<'_>> = kinds
        .iter()
        .chain(&kinds)
        .zip(&mems)
        .enumerate()
        .map(|(index, (kind, mem))| {
            let mut part = TracePartDescription {
                kind: *kind,
                size: 0x2000,
                mem,
                blake3: [7; 32],
            };
            change(index, &mut part);
            part
        })
        .collect();
    let hop = |hop, parts| TraceHopDescription {
        hop,
        release: "6.1.0-50-amd64",
        taken: 9,
        parts,
    };
    write_traces(
        w,
        &TracesDescription {
            limit: 1 << 20,
            keep_hops: 2,
            configured: false,
            hops: &[hop(2, &parts[..5]), hop(3, &parts[5..])],
        },
    )
}

#[test]
fn what_is_written_is_read() {
    let cache = CACHE.map(|(start, len)| range(start, len));
    let write = |w: &mut Writer<'_>| traces(w, |_, _| {});
    let mut buf = vec![0; measure_handover_with(&description(&cache), write).unwrap()];
    write_handover_with(&description(&cache), &mut buf, write).unwrap();
    let reader = Reader::new(&buf).unwrap();
    let handover = Handover::parse(&reader).unwrap();
    assert!(handover.unknown.is_empty());
    let found = handover.traces.unwrap();
    assert_eq!(
        (found.limit, found.keep_hops, found.configured),
        (1 << 20, 2, false)
    );
    assert_eq!(
        found.hops.iter().map(|hop| hop.hop).collect::<Vec<_>>(),
        [2, 3]
    );
    let newest = &found.hops[1];
    assert_eq!((newest.release, newest.taken), ("6.1.0-50-amd64", 9));
    let kinds: Vec<_> = newest.parts.iter().map(|part| part.kind).collect();
    assert_eq!(
        kinds,
        [
            TraceKind::Meta,
            TraceKind::Log,
            cpu("", 0),
            cpu("", 11),
            cpu("net", 0)
        ]
    );
    let mem: Vec<_> = newest.parts[4].ranges().collect();
    assert_eq!(mem, [range(0x3002_4000, 0x2000)]);
}

/// Every problem of a tree with this node.
fn problems(write: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>) -> Vec<String> {
    let cache = CACHE.map(|(start, len)| range(start, len));
    let mut buf = vec![0; measure_handover_with(&description(&cache), &write).unwrap()];
    // The writer refuses a tree with a problem, but leaves its bytes in the buffer.
    let _ = write_handover_with(&description(&cache), &mut buf, &write);
    seal(&mut buf).unwrap();
    let mut found = Vec::new();
    Handover::check_all(&Reader::new(&buf).unwrap(), |problem| {
        found.push(problem.to_string())
    })
    .unwrap();
    found
}

#[test]
fn a_truncated_buffer_is_reported() {
    let short = [range(0x3000_8000, 0x1000)];
    let cut = |w: &mut Writer<'_>| {
        // `size` stays the same and `mem` holds fewer bytes.
        traces(w, |index, part| {
            if index == 2 {
                part.mem = Box::leak(Box::new(short));
            }
        })
    };
    assert_eq!(
        problems(cut),
        [
            "/ftrace/hop-2/array-0/cpu-0: `mem` has 0x1000 bytes, not the 0x2000 of `size` rounded up to pages"
        ]
    );
    let odd = |w: &mut Writer<'_>| {
        traces(w, |index, part| {
            if index == 3 {
                part.size = 0x1fff;
            }
        })
    };
    assert_eq!(
        problems(odd),
        [
            "/ftrace/hop-2/array-0/cpu-11: `size` 0x1fff is not a number of pages of 0x1000 bytes (`sub-buffer`: 0x1000 to 0x80000, a power of two)"
        ]
    );
}

#[test]
fn other_rules() {
    let node = |keep: u32, hops: &'static [u64]| {
        move |w: &mut Writer<'_>| {
            let hops: Vec<_> = hops
                .iter()
                .map(|hop| TraceHopDescription {
                    hop: *hop,
                    release: "x",
                    taken: 0,
                    parts: &[],
                })
                .collect();
            write_traces(
                w,
                &TracesDescription {
                    limit: 0,
                    keep_hops: keep,
                    configured: true,
                    hops: &hops,
                },
            )
        }
    };
    assert_eq!(problems(node(1, &[1, 2, 3])), Vec::<String>::new());
    assert_eq!(
        problems(node(0, &[])),
        ["/ftrace: `keep-hops` is 0; without traces there is no such node"]
    );
    assert_eq!(
        problems(node(1, &[4])),
        ["/ftrace/hop-4: `hop` is 4, not within 1 and 3"]
    );
    assert_eq!(
        problems(node(1, &[0])),
        ["/ftrace/hop-0: `hop` is 0, not within 1 and 3"]
    );
    assert_eq!(
        problems(node(1, &[3, 2])),
        ["/ftrace/hop-2: the trace of hop 2 does not come after that of an earlier hop"]
    );
    let named = |w: &mut Writer<'_>| {
        traces(w, |index, part| {
            if index == 4 {
                part.kind = cpu("a/b", 0);
            }
        })
    };
    assert_eq!(
        problems(named),
        [
            "/ftrace/hop-2/array-1: `instance` of 3 bytes is no name of one: up to 255 without `/` and control characters"
        ]
    );
}

#[test]
fn nodes_of_later_versions_are_left_alone() {
    let cache = CACHE.map(|(start, len)| range(start, len));
    let write = |w: &mut Writer<'_>| -> Result<(), WriteError> {
        w.begin_node("ftrace")?;
        w.prop_str("compatible", "kho-ftrace-v1")?;
        w.prop_u64("limit", 1)?;
        w.prop_u32("keep-hops", 1)?;
        w.begin_node("hop-9")?;
        w.prop_str("compatible", "kho-ftrace-hop-v2")?;
        w.prop_mem("mem", [range(0x3000_0000, 0x1000)])?;
        w.end_node()?;
        w.end_node()
    };
    let mut buf = vec![0; measure_handover_with(&description(&cache), write).unwrap()];
    write_handover_with(&description(&cache), &mut buf, write).unwrap();
    let handover = Handover::parse(&Reader::new(&buf).unwrap()).unwrap();
    assert_eq!(handover.traces.unwrap().hops.len(), 0);
    assert_eq!(handover.unknown[0].compatible, "kho-ftrace-hop-v2");
}
