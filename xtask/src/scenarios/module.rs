//! The kernel module: producers, memory in place, consumers.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::Scenario;
use crate::lab::Outcome;

const KERNELS: [&str; 3] = ["6.1", "6.12", "7.3"];

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let loads = KERNELS.map(loads);
    loads.into_iter().chain([ring_20()]).collect()
}

fn loads(kernel: &'static str) -> Scenario {
    Scenario::new(
        format!("module-loads-{kernel}"),
        "the module loads, enters and leaves the active phase, unloads and loads again",
    )
    .kernels(&[kernel])
    .kho_modules(&["kho", "kho_ring"])
    .first(
        "cd /sys/kernel/kho
         cat status
         for round in 1 2; do
             [ \"$(cat active)\" = 0 ] && [ ! -e dt ]
             echo 1 >active
             [ \"$(cat active)\" = 1 ] && [ \"$(wc -c <dt)\" -ge 100 ]
             echo 0 >active
         done
         [ ! -e in ] || [ ! -e in/dt ]
         cd /
         rmmod kho_ring
         rmmod kho
         [ ! -e /sys/kernel/kho ]
         insmod /lib/modules/$KHO_RELEASE/updates/kho.ko
         [ -e /sys/kernel/kho/active ]",
    )
}

/// Checks that the ring of the sample driver holds what earlier kernels added, then adds two records.
const RING: &str = "
    ring=/sys/kernel/kho_ring
    records=$((2 * KHO_HOP))
    [ \"$(cat $ring/counter)\" = $records ]
    [ \"$(wc -l <$ring/ring)\" = $records ]
    number=0
    while read -r found text; do
        [ \"$found $text\" = \"$number record of hop $((number / 2))\" ]
        number=$((number + 1))
    done <$ring/ring
    echo \"record of hop $KHO_HOP\" >$ring/add
    echo \"record of hop $KHO_HOP\" >$ring/add
    awk '/^MemTotal/ {print $2}' /proc/meminfo | kho-guest report MemTotal
    cat /sys/kernel/kho/status";

fn ring_20() -> Scenario {
    let kernels = ["6.1", "6.12", "7.3"].repeat(7);
    Scenario::new(
        "module-ring-20",
        "a driver's ring of pages and its counter through twenty hops, memory filled after each",
    )
    .kernels(&kernels)
    .mem_mib(640)
    .kho_modules(&["kho", "kho_ring"])
    .first(RING)
    .each(&format!(
        "kho-guest fill
         case $(cat /sys/kernel/kho_ring/origin) in 'inherited from '*) ;; *) exit 1 ;; esac
         {RING}"
    ))
    .check(memory_came_back)
    .timeout_s(1200)
}

/// The system's memory under each kernel is what it was the first time, but for the pages of the state (chain and
/// trees), which the kernel reads for as long as it runs.
fn memory_came_back(outcome: &Outcome) -> Result<String> {
    const STATE_KIB: u64 = 128;
    let mut first: BTreeMap<&str, u64> = BTreeMap::new();
    let mut worst = 0;
    for (hop, life) in outcome.lives.iter().enumerate() {
        let value = life
            .values
            .get("MemTotal")
            .context("no MemTotal was reported")?;
        let kib: u64 = value.trim().parse()?;
        let before = *first.entry(&life.release).or_insert(kib);
        let lost = before.saturating_sub(kib);
        ensure!(
            lost <= STATE_KIB,
            "{lost} KiB of memory are lost under {} at hop {hop}",
            life.release
        );
        worst = worst.max(lost);
    }
    Ok(format!(
        "MemTotal is at most {worst} KiB below its first value"
    ))
}
