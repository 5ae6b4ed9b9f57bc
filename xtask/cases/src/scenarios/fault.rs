//! Faults: commands that are killed, power that fails, kernels that die, memory that goes bad, machines in a bad state.

use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

use crate::scenario::{Keys, Scenario};
use kho_lab::run::{Host, Outcome};

const LIB: &str = include_str!("fault/lib.sh");
const KILL: &str = include_str!("fault/kill.sh");

fn script(text: &str) -> String {
    format!("{LIB}\n{text}")
}

fn both(scenario: Scenario, text: &str) -> Scenario {
    scenario.first(&script(text)).each(&script(text))
}

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let mut all = kill_all();
    all.extend([
        both(
            Scenario::new(
                "fault-kill",
                "every verb is killed at steps that change something: at every third, and at fewer of those that take long",
            ),
            KILL,
        )
        .kernels(&["6.1", "6.12"])
        .timeout_s(1200)
        .check(kills),
        both(
            Scenario::new(
                "fault-power",
                "power is cut in a load, after a load, and in the next kernel: the machine starts from nothing",
            ),
            include_str!("fault/power.sh"),
        )
        .kernels(&["6.1", "6.12"])
        .restarts()
        // A disk that is empty at first and keeps its content as long as QEMU runs.
        .qemu(&[
            "-drive",
            "if=none,id=scratch,snapshot=on,format=raw,file.driver=null-co,file.size=64M,file.read-zeroes=on",
            "-device",
            "virtio-blk-pci,drive=scratch",
        ])
        .step("cut", |host| host.cut_power()),
        both(
            Scenario::new(
                "fault-panic",
                "the next kernel dies early: the machine starts from nothing and can hand over again",
            ),
            include_str!("fault/panic.sh"),
        )
        .kernels(&["6.1", "6.12"])
        .panics(1),
        both(
            Scenario::new(
                "fault-flip",
                "a bit of kept blobs and files flips: found by get, restore and load --verify, carried on without it",
            ),
            include_str!("fault/flip.sh"),
        )
        .kernels(&["6.1", "6.12", "6.1"])
        .memory_in_file()
        .step("flip", flip)
        // A bit of this one flips, and it is refused.
        .told_once(Keys::One("blob"))
        .check(|outcome| {
            let verified = outcome.lives.iter().find_map(|life| life.values.get("verified"));
            verified.cloned().context("what --verify costs")
        }),
        both(
            Scenario::new(
                "security-release",
                "what the module gives back is zeroed before anybody can get it; seen from outside of the machine",
            ),
            include_str!("fault/release.sh"),
        )
        .kernels(&["6.1", "6.12"])
        .kho_module()
        .memory_in_file()
        .step("before", |host| {
            let blob = released(host)?;
            let empty = blob.chunks(4096).filter(|page| page.iter().all(|byte| *byte == 0));
            ensure!(empty.count() == 0, "the blob is not there");
            std::fs::write(host.dir.join("blob"), blob).context("keeping the blob")
        })
        .step("after", |host| {
            let before = std::fs::read(host.dir.join("blob")).context("the kept blob")?;
            let after = released(host)?;
            // A page may have a new owner, but its old content must be gone.
            for (number, (old, new)) in before.chunks(4096).zip(after.chunks(4096)).enumerate() {
                let same = old.iter().zip(new).filter(|(a, b)| a == b && **a != 0).count();
                ensure!(same < 200, "{same} bytes of page {number} are as they were");
            }
            Ok(())
        }),
        both(
            Scenario::new(
                "fault-memory",
                "pages fail by the hundred, in what arrived, and where the next kernel would go: no later kernel uses them",
            ),
            include_str!("fault/memory.sh"),
        )
        .kernels(&["7.3", "6.12", "6.1", "7.3"])
        .kho_modules(&[]),
        both(
            Scenario::new(
                "fault-harsh",
                "two commands at once, full memory, a full file system, a clock that jumps, a read-only root",
            ),
            include_str!("fault/harsh.sh"),
        )
        .mem_mib(2048)
        .kernels(&["6.1", "6.12"]),
    ]);
    all
}

/// Tests that kill commands at every single step. Each runs in a separate guest, because together they take an hour.
fn kill_all() -> Vec<Scenario> {
    let parts = [
        ("load", "keep load unload look"),
        ("arm", "kexec arm"),
        ("capture", "capture"),
        ("start", "reboot exec"),
        ("restore", "restore arrived boot"),
    ];
    let part = |(name, parts): &(&str, &str)| {
        let about = format!("killed at every single step: {parts}");
        let script = format!("EACH=1\nPARTS='{parts}'\n{KILL}");
        both(
            Scenario::new(format!("fault-kill-all-{name}"), about),
            &script,
        )
        .kernels(&["6.12", "7.3"])
        .timeout_s(5400)
        .slow()
        .check(kills)
    };
    parts.iter().map(part).collect()
}

/// Counts how often each verb was killed. Fails if none was killed.
pub fn kills(outcome: &Outcome) -> Result<String> {
    let values = outcome.lives.iter().flat_map(|life| &life.values);
    let kills: Vec<String> = values
        .filter_map(|(key, count)| Some(format!("{} {count}", key.strip_prefix("kills.")?)))
        .collect();
    ensure!(!kills.is_empty(), "nothing was killed");
    Ok(format!("kills: {}", kills.join(", ")))
}

/// All whole pages of the blob that `fault/release.sh` releases. They are in one piece.
fn released(host: &Host<'_>) -> Result<Vec<u8>> {
    let address: u64 = host.value("blob")?.parse().context("the blob's address")?;
    let mut pages = vec![0; 3_000_001 / 4096 * 4096];
    host.memory()?.read_exact_at(&mut pages, address)?;
    Ok(pages)
}

/// Flips a bit of each entry in the guest's memory: in bytes that no program interprets, in an archive's header, and in
/// the content of a file.
fn flip(host: &mut Host<'_>) -> Result<()> {
    for (name, offset) in [("blob", 1000), ("srv-head", 520), ("srv-content", 300_000)] {
        let address: u64 = host.value(name)?.parse().context("an entry's address")?;
        let address = address + offset;
        let memory = host.memory()?;
        let mut byte = [0];
        memory.read_exact_at(&mut byte, address)?;
        // One byte cannot show that the address is right, so check that the bytes there are not all zero.
        let mut page = [0; 512];
        memory.read_exact_at(&mut page, address)?;
        ensure!(
            page.iter().any(|byte| *byte != 0),
            "{name} is not at {address:#x}"
        );
        memory.write_all_at(&[byte[0] ^ 0x10], address)?;
    }
    Ok(())
}
