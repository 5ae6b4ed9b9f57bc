//! Faults: commands that are killed, power that fails, kernels that die, memory that goes bad, machines in a bad state.

use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

use super::Scenario;
use crate::lab::{Host, Outcome};

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
                "every verb is killed at every step that changes something; of those that take long, at some",
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
                "a bit of a kept blob flips: found by get, restore and load --verify, carried on without it",
            ),
            include_str!("fault/flip.sh"),
        )
        .kernels(&["6.1", "6.12", "6.1"])
        .memory_in_file()
        .step("flip", flip)
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
            let page = first_page(host)?;
            ensure!(page.iter().any(|byte| *byte != 0), "the blob is not there");
            std::fs::write(host.dir.join("page"), page).context("keeping a page")
        })
        .step("after", |host| {
            let before = std::fs::read(host.dir.join("page")).context("the kept page")?;
            let page = first_page(host)?;
            // Somebody else may have it by now; nobody has what was in it.
            let same = page.iter().zip(&before).filter(|(a, b)| a == b && **a != 0).count();
            ensure!(same < 200, "{same} bytes of the page are as they were");
            Ok(())
        }),
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

/// The same at every single step, in guests that can be run one by one: together they take an hour.
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

/// How often each verb was killed.
pub fn kills(outcome: &Outcome) -> Result<String> {
    let values = outcome.lives.iter().flat_map(|life| &life.values);
    let kills: Vec<String> = values
        .filter_map(|(key, count)| Some(format!("{} {count}", key.strip_prefix("kills.")?)))
        .collect();
    ensure!(!kills.is_empty(), "nothing was killed");
    Ok(format!("kills: {}", kills.join(", ")))
}

/// The first page of the blob, in the machine's memory.
fn first_page(host: &Host<'_>) -> Result<Vec<u8>> {
    let address: u64 = host.value("blob")?.parse().context("the blob's address")?;
    let mut page = vec![0; 4096];
    host.memory()?.read_exact_at(&mut page, address)?;
    Ok(page)
}

/// Flips a bit of the blob in the guest's memory.
fn flip(host: &mut Host<'_>) -> Result<()> {
    let address: u64 = host.value("blob")?.parse().context("the blob's address")?;
    let address = address + 1000;
    let memory = host.memory()?;
    let mut byte = [0];
    memory.read_exact_at(&mut byte, address)?;
    // The blob is `kho-guest bytes 3000001 --seed 2`: noise, so one byte says little, but the page is not empty.
    let mut page = [0; 512];
    memory.read_exact_at(&mut page, address)?;
    ensure!(
        page.iter().any(|byte| *byte != 0),
        "the blob is not at {address:#x}"
    );
    memory.write_all_at(&[byte[0] ^ 0x10], address)?;
    Ok(())
}
