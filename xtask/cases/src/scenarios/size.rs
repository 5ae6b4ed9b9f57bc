//! Large machines, large blobs.

use anyhow::Context;

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
    ]
}
