//! The kernel module: producers, memory in place, consumers.

mod hostile;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::scenario::Scenario;
use kho_lab::qemu::Firmware;
use kho_lab::run::Outcome;

const KERNELS: [&str; 3] = ["6.1", "6.12", "7.3"];

/// Kernels in an order in which each one hands over to each other one.
const PAIRS: [&str; 7] = ["6.1", "6.12", "7.3", "6.1", "7.3", "6.12", "6.1"];

/// Shell functions of these tests.
const LIB: &str = include_str!("lib.sh");

fn script(text: &str) -> String {
    format!("{LIB}\n{text}")
}

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let phases = KERNELS.map(phase);
    let rest = [
        ring(6),
        ring(20).slow(),
        scattered(),
        faults(),
        forged(),
        hostile_trees(),
        crash(),
        given_away(),
        left(),
        versions(),
        kill(),
        kill_all(),
        abort_then_exec(),
        kernel_without(),
        somebody_elses_image(),
        event_log("6.1", "6.12"),
        event_log("6.12", "7.3"),
        huge_pages(),
        note(),
        phase("debug").slow(),
    ];
    phases.into_iter().chain(rest).collect()
}

fn phase(kernel: &'static str) -> Scenario {
    Scenario::new(
        format!("module-phase-{kernel}"),
        "active and abort, failing producers, wrong calls, two writers, nobody but root, unloading",
    )
    .kernels(&[kernel])
    .mem_mib(512)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(include_str!("phase.sh")))
}

fn scattered() -> Scenario {
    let each = include_str!("scattered.sh");
    Scenario::new(
        "module-scattered-2000",
        "2,000 scattered pages, a vmapped area and a ring in place, each kernel to each, memory filled",
    )
    .kernels(&PAIRS)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(each))
    .each(&script(each))
    .check(memory_came_back)
    .timeout_s(900)
}

fn faults() -> Scenario {
    Scenario::new(
        "module-faults",
        "every allocation of the module fails once, on arrival, on claim, and on activation",
    )
    .kernels(&["6.12", "6.1", "7.3"])
    .mem_mib(512)
    .kho_modules(&[])
    .first(&script(include_str!("faults.sh")))
    .each(&script(include_str!("faults.sh")))
    .timeout_s(600)
}

fn forged() -> Scenario {
    let kernels = ["6.1", "6.12", "7.3"].repeat(3);
    Scenario::new(
        "module-forged",
        "kernel's parts of other versions, damaged ones, and one in the firmware's memory, as early boot was told",
    )
    .kernels(&kernels)
    .mem_mib(512)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(include_str!("forged.sh")))
    .each(&script(include_str!("forged.sh")))
    .timeout_s(900)
}

fn hostile_trees() -> Scenario {
    Scenario::new(
        "module-hostile",
        "trees forged in memory: kernel text, memory map, firmware, scratch, twice the same page …; then put right again",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.1"])
    .mem_mib(512)
    .kho_modules(&[])
    .memory_in_file()
    .first(&script(include_str!("hostile.sh")))
    .each(&script(include_str!("hostile.sh")))
    .step("forge", hostile::forge)
    .step("heal", hostile::heal)
    .timeout_s(600)
}

fn crash() -> Scenario {
    Scenario::new(
        "module-crash",
        "panic and power cut while active and with an image loaded: ordinary boots, stated as such",
    )
    .kernels(&["6.12", "6.1"])
    .mem_mib(512)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(include_str!("crash.sh")))
    .each(&script(include_str!("crash.sh")))
    .panics(2)
    .step("cut", |host| host.cut_power())
    .timeout_s(480)
}

fn given_away() -> Scenario {
    Scenario::new(
        "module-given-away",
        "what drivers left is never left out silently: a module that gave it away and is gone, a part that is not believed",
    )
    .kernels(&["6.12", "6.1", "7.3", "6.12", "6.1", "7.3"])
    .mem_mib(512)
    .kho_modules(&[])
    .first(&script(include_str!("given-away.sh")))
    .each(&script(include_str!("given-away.sh")))
    .timeout_s(480)
}

fn left() -> Scenario {
    Scenario::new(
        "module-left",
        "what nobody took goes on beside a driver of its name, what was taken in part does not; a module that cannot find out",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.1"])
    .mem_mib(512)
    .kho_modules(&[])
    .first(&script(include_str!("left.sh")))
    .each(&script(include_str!("left.sh")))
}

fn versions() -> Scenario {
    Scenario::new(
        "module-versions",
        "command and module of this contract and of the next: what one left stays reserved and whole under the other",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.1"])
    .mem_mib(512)
    .kho_modules(&[])
    .next_command()
    .first(&script(include_str!("versions.sh")))
    .each(&script(include_str!("versions.sh")))
}

fn kill() -> Scenario {
    let about =
        "activate, abort, load, exec and release are killed on the way, with drivers taking part";
    kills("module-kill", about, "").kernels(&["6.1", "6.12"])
}

fn kill_all() -> Scenario {
    let about = "the same, a load at every single step too";
    kills("module-kill-all", about, "EACH=1")
        .kernels(&["6.12", "7.3"])
        .timeout_s(5400)
        .slow()
}

fn kills(name: &str, about: &str, more: &str) -> Scenario {
    let text = format!(
        "{more}\n{}\n{LIB}\n{}",
        include_str!("../fault/lib.sh"),
        include_str!("kill.sh")
    );
    Scenario::new(name, about)
        .kho_modules(&["kho", "kho_ring"])
        .first(&text)
        .each(&text)
        .timeout_s(1200)
        .check(super::fault::kills)
}

fn abort_then_exec() -> Scenario {
    Scenario::new(
        "module-abort-exec",
        "abort with an image loaded, then a bare kexec: nothing is handed over, nothing is corrupted",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.1"])
    .mem_mib(512)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(
        include_str!("abort-first.sh"),
    ))
    .at(1, &script(
        include_str!("abort-next.sh"),
    ))
    .each(&script("kho-guest fill; ring_is 0 4; kho status"))
}

fn kernel_without() -> Scenario {
    Scenario::new(
        "module-kernel-without",
        "kernels without the module and with another kernel's: refused by default, carried on when told to",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.1"])
    .mem_mib(512)
    .kho_modules(&["kho", "kho_ring"])
    .without_module(1)
    .first(&script(
        include_str!("without-first.sh"),
    ))
    .at(1, &script(
        include_str!("without-it.sh"),
    ))
    .each(&script(
        include_str!("without-each.sh"),
    ))
}

fn somebody_elses_image() -> Scenario {
    Scenario::new(
        "module-plain-kexec",
        "an image without a handover, started while active: an ordinary boot, stated as such",
    )
    .kernels(&["6.12", "6.1"])
    .mem_mib(512)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(include_str!("plain-kexec-first.sh")))
    .each(&script(include_str!("plain-kexec-each.sh")))
}

fn event_log(first: &'static str, next: &'static str) -> Scenario {
    let each = include_str!("event-log.sh");
    Scenario::new(
        format!("module-event-log-{first}-{next}"),
        "UEFI with a TPM: its log lies between kept pages, and slack is released on both sides of it",
    )
    .kernels(&[first, next])
    .firmware(Firmware::UefiTpm)
    .kho_module()
    .first(&script(each))
    .each(&script(each))
    .timeout_s(480)
}

fn note() -> Scenario {
    Scenario::new(
        "module-note",
        "a driver in Rust: its note survives in place, is frozen while active, and is lost with the driver",
    )
    .kernels(&["6.1", "6.12", "7.3"])
    .mem_mib(512)
    .kho_modules(&["kho", "kho_note"])
    .first(&script(
        include_str!("note-first.sh"),
    ))
    .each(&script(
        "text=/sys/kernel/kho_note/text
         kho-guest fill
         [ \"$(cat $text)\" = \"hop $((KHO_HOP - 1))\" ]
         echo \"hop $KHO_HOP\" >$text",
    ))
}

fn huge_pages() -> Scenario {
    Scenario::new(
        "module-huge-pages",
        "huge pages can be had again out of what was kept and released",
    )
    .kernels(&["6.1", "6.12", "7.3", "6.12"])
    .kho_module()
    .first(&script("insmod $modules/kho_test.ko blocks=128"))
    .each(&script(include_str!("huge-pages.sh")))
    .timeout_s(480)
}

/// Checks that the ring of the sample driver holds what earlier kernels added, then adds two records.
const RING: &str = include_str!("ring.sh");

/// So many hops: six go through the kernels twice and end at the first.
fn ring(hops: usize) -> Scenario {
    let kernels: Vec<_> = KERNELS.into_iter().cycle().take(hops + 1).collect();
    Scenario::new(
        format!("module-ring-{hops}"),
        "a driver's ring of pages, its counter, and a blob that grows by a MiB, memory filled after each hop",
    )
    .kernels(&kernels)
    .mem_mib(640)
    .kho_modules(&["kho", "kho_ring"])
    .first(&script(RING))
    .each(&script(concat!(
        include_str!("ring-each.sh"),
        include_str!("ring.sh")
    )))
    .check(memory_came_back)
    .timeout_s(1200)
}

/// Under each kernel the system's memory is the same as the first time, except for the pages of the state (chain and
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
