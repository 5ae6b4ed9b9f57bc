//! khofs: a RAM file system whose files survive.

use kho_lab::programs::Foreign;

use crate::scenario::Scenario;

/// Shell functions that the scripts of this file have.
const PRELUDE: &str = include_str!("khofs/prelude.sh");

const KERNELS: [&str; 3] = ["6.1", "6.12", "7.3"];

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let mut all: Vec<_> = KERNELS.into_iter().map(as_tmpfs).collect();
    all.extend([
        hops(6),
        hops(10).slow(),
        status(),
        acl(),
        tree(2_000, 768),
        tree(100_000, 3072).slow(),
        frozen(),
        late(),
        fallback(),
        poison(),
        memory(128, 768, 20),
        memory(2048, 4096, 55).slow(),
    ]);
    all
}

/// A test with khofs loaded in every kernel.
fn khofs(name: String, about: &str) -> Scenario {
    Scenario::new(name, about).kho_modules(&["kho", "khofs"])
}

fn script(text: &str) -> String {
    format!("{PRELUDE}\n{text}")
}

fn as_tmpfs(kernel: &'static str) -> Scenario {
    khofs(
        format!("khofs-behaves-{kernel}"),
        "the same operations on khofs and on tmpfs leave the same; limits, options, instances, memory given back",
    )
    .kernels(&[kernel])
    .modules(&["overlay"])
    .first(&script(include_str!("khofs/behaves.sh")))
}

/// So many hops; the first six are one of each pair of kernels.
fn hops(hops: usize) -> Scenario {
    let kernels = [
        "6.1", "6.12", "7.3", "6.12", "6.1", "7.3", "6.1", "6.12", "7.3", "6.1", "7.3",
    ];
    khofs(
        format!("khofs-hops-{hops}"),
        "every pair of kernels: a tree, a large file, a mapping written to up to kexec, a round of random operations \
         in each, compared with tmpfs, an instance that is not mounted; all memory comes back",
    )
    .kernels(kernels.get(..=hops).unwrap_or(&kernels))
    .first(&script(include_str!("khofs/hops-first.sh")))
    .each(&script(include_str!("khofs/hops-each.sh")))
    .timeout_s(600)
}

fn status() -> Scenario {
    khofs(
        "khofs-status".to_owned(),
        "what kho status and doctor say of khofs; kho release of instances; what nobody mounts stays reserved",
    )
    .kernels(&["6.12", "6.1", "7.3"])
    .first(&script(include_str!("khofs/status-first.sh")))
    .each(&script(include_str!("khofs/status-each.sh")))
}

/// In each kernel the same operations on khofs and on tmpfs; then what the former kernel left.
fn acl() -> Scenario {
    khofs(
        "khofs-acl".to_owned(),
        "ACLs and idmapped mounts on khofs and on tmpfs: inheritance, masks, permissions, owners, errors; all ACLs of the \
         former kernel are there",
    )
    .kernels(&["6.12", "6.1", "7.3"])
    .foreign(&[Foreign::Acl, Foreign::Mount])
    .first(&script(include_str!("khofs/acl.sh")))
    .each(&script(include_str!("khofs/acl.sh")))
}

/// Scenario with `entries` entries on a machine of `machine` MiB.
fn tree(entries: u64, machine: u64) -> Scenario {
    let with_entries = |text: &str| script(&format!("KHO_ENTRIES={entries}\n{text}"));
    khofs(
        format!("khofs-tree-{entries}"),
        "a tree of mixed kinds, compared entry by entry after each of five hops",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.1", "7.3", "6.12"])
    .mem_mib(machine)
    .first(&with_entries(include_str!("khofs/tree-first.sh")))
    .each(&with_entries(include_str!("khofs/tree-each.sh")))
    .timeout_s(300 + entries / 10)
    .check(|outcome| {
        let all = |key: &str| {
            let values = outcome.lives.iter().filter_map(|life| life.values.get(key));
            values.cloned().collect::<Vec<_>>().join(" ")
        };
        Ok(format!(
            "mounts {} s, loads {} s, early ranges {}",
            all("mount-seconds"),
            all("load-seconds"),
            all("early-ranges")
        ))
    })
}

fn frozen() -> Scenario {
    khofs(
        "khofs-frozen".to_owned(),
        "what goes on and what is refused in the active phase; abort and go on, then hop; two NUMA nodes",
    )
    .kernels(&KERNELS)
    .mem_mib(1024)
    .qemu(&[
        "-object",
        "memory-backend-ram,id=node0,size=512M",
        "-object",
        "memory-backend-ram,id=node1,size=512M",
        "-numa",
        "node,nodeid=0,memdev=node0",
        "-numa",
        "node,nodeid=1,memdev=node1",
    ])
    .first(&script(include_str!("khofs/frozen.sh")))
    .each(&script(include_str!("khofs/frozen-each.sh")))
}

fn late() -> Scenario {
    khofs(
        "khofs-late".to_owned(),
        "kho load --late: files come, grow and go until the jump; kho exec, a start without it, an active phase that \
         root began; second loads, aborts, an unload",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.1"])
    .mem_mib(1024)
    .first(&script(include_str!("khofs/late.sh")))
    .each(&script(include_str!("khofs/late.sh")))
    .timeout_s(600)
}

/// Scenario in which kernels with folios of 2 MiB and kernels without them alternate.
fn fallback() -> Scenario {
    khofs(
        "khofs-fallback".to_owned(),
        "folios of 2 MiB switched off, or found to be made wrong, bit by bit: what arrived as folios is read as single \
         pages and becomes folios again; kho doctor and status say why",
    )
    .kho_modules(&["kho"])
    .kernels(&["6.12", "6.1", "7.3", "6.1"])
    .first(&script(include_str!("khofs/fallback.sh")))
    .each(&script(include_str!("khofs/fallback.sh")))
    .timeout_s(400)
}

/// Test of pages whose memory failed. 6.1, as configured here, does not handle memory failures, but it has to know
/// which pages earlier kernels lost.
fn poison() -> Scenario {
    khofs(
        "khofs-poison".to_owned(),
        "pages whose memory failed are errors, in this kernel and in those after it, and never used again",
    )
    .kernels(&["6.12", "7.3", "6.12", "6.1"])
    .first(&script(include_str!("khofs/poison.sh")))
    .each(&script(include_str!("khofs/poison.sh")))
}

/// Scenario with a file of `file` MiB on a machine of `machine` MiB. The instance may hold `percent` of memory: more
/// than the file, but less than the same percentage of the memory that the file leaves.
fn memory(file: u64, machine: u64, percent: u64) -> Scenario {
    let with_size = |text: &str| {
        script(&format!(
            "KHO_BIG={file} KHO_MACHINE={machine} KHO_PERCENT={percent}\n{text}"
        ))
    };
    khofs(
        format!("khofs-memory-{file}"),
        "a file that fills much of memory is few ranges; a part of memory is the same on each hop; a task with little \
         memory that reads it pays nothing; direct reads into it; it comes into the page cache by itself; rm gives all of it back, also as huge pages",
    )
    .kernels(&["6.12", "6.1", "7.3"])
    .mem_mib(machine)
    .first(&with_size(include_str!("khofs/memory-first.sh")))
    .each(&with_size(include_str!("khofs/memory-each.sh")))
    .timeout_s(1200)
}
