//! Large machines, large blobs.

use anyhow::{Context, Result, ensure};
use kho_lab::run::Outcome;

use crate::scenario::Scenario;

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("above-4g", "a guest with 6 GiB, of which a part lies above 4 GiB")
            .kernels(&["6.1", "6.12"])
            .mem_mib(6144)
            .first("keep_tree_and_blob 64")
            .each("check_tree_and_blob"),
        Scenario::new("blobs-1g", "1 GiB of blobs in a guest with 4 GiB; the load time is shown")
            .kernels(&["6.1", "6.12"])
            .mem_mib(4096)
            .first(
                include_str!("size/load-times.sh"),
            )
            .each(
                "kho-guest ranges --at-least 1
                 kho-guest fill
                 for number in 1 2 3 4; do kho get blob$number | kho-guest hash --same blob$number; done",
            )
            .timeout_s(480)
            .slow()
            .check(|outcome| {
                let first = outcome.lives.first().context("a first kernel")?;
                let seconds = |size: &str| {
                    let value = first.values.get(&format!("load-seconds-{size}"));
                    value.with_context(|| format!("a load time for {size} MiB"))
                };
                Ok(format!(
                    "kho load took {} s for 256 MiB and {} s for 1 GiB in the guest",
                    seconds("256")?,
                    seconds("1024")?
                ))
            }),
        Scenario::new(
            "growth",
            "plan, load, status and doctor take as many instructions with 256 GiB of memory as with 4 GiB",
        )
        .kernels(&["6.12"])
        .mem_mib(4096)
        .also_mem_mib(256 << 10)
        // The kernel's descriptions of pages take 64 bytes for each page.
        .touched_mib((256 << 10) / 64 + 1536)
        .counting()
        .first(include_str!("size/costs.sh"))
        .timeout_s(900)
        .check(costs_are_equal),
    ]
}

/// Commands whose instructions are counted, and by how much (in percent) the large machine may exceed the small one.
const COUNTED: [(&str, u64); 4] = [("plan", 10), ("load", 10), ("status", 10), ("doctor", 10)];

fn costs_are_equal(outcome: &Outcome) -> Result<String> {
    let [small, large] = &outcome.lives[..] else {
        anyhow::bail!("{} kernels ran in place of two", outcome.lives.len());
    };
    let mut all = Vec::new();
    for (command, percent) in COUNTED {
        let cost = |life: &kho_lab::run::Life| -> Result<u64> {
            let value = life.values.get(&format!("instructions-{command}"));
            Ok(value
                .with_context(|| format!("no cost of {command}"))?
                .parse()?)
        };
        let (small, large) = (cost(small)?, cost(large)?);
        all.push(format!(
            "{command} {} and {} M",
            small / 1_000_000,
            large / 1_000_000
        ));
        ensure!(
            large <= small + small / 100 * percent,
            "kho {command} takes {small} instructions with 4 GiB of memory and {large} with 256 GiB"
        );
    }
    Ok(format!("instructions: {}", all.join(", ")))
}
