//! Blobs, paths and memory that are kept over many hops.

use crate::scenario::Scenario;
use kho_lab::run::hop_times;

/// Address of the kernel's text that it is linked for.
const LINKED: &str = "ffffffff81000000";

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "hop-6.1-6.12-7.3-6.1",
            "a tree and a blob over three hops, memory filled after each; by a unified kernel image, by the boot loader's \
             default entry, and by name; every kernel is entered directly, at a random physical and virtual address, the last one with nokaslr",
        )
        .kernels(&["6.1", "6.12", "7.3", "6.1"])
        .first(concat!("keep_tree_and_blob 32
", include_str!("chain/unified.sh")))
        .at(
            1,
            concat!(
                "check_tree_and_blob
text | kho-guest report text
",
                include_str!("chain/entry.sh")
            ),
        )
        .at(
            2,
            concat!(
                "check_tree_and_blob
text | kho-guest report text
",
                include_str!("chain/places.sh"),
                "KHO_NEXT_CMDLINE=\"$KHO_NEXT_CMDLINE nokaslr\"
directly"
            ),
        )
        .at(3, &format!("check_tree_and_blob
[ \"$(text)\" = {LINKED} ]"))
        .check(|outcome| {
            let moved = |hop: usize| {
                let text = outcome.lives.get(hop).and_then(|life| life.values.get("text"));
                text.is_some_and(|text| text != LINKED)
            };
            // One address in some five hundred is that without randomization.
            anyhow::ensure!(moved(1) || moved(2), "no kernel was moved");
            let times: Vec<_> = hop_times(&outcome.lives)
                .iter()
                .map(|time| format!("{:.1} s", time.as_secs_f64()))
                .collect();
            Ok(format!("hops took {}", times.join(", ")))
        }),
        Scenario::new(
            "5.10",
            "to 5.10 and back on a processor with five-level paging, which Debian's 5.10 is built without",
        )
        .kernels(&["6.12", "5.10", "7.3", "5.10", "5.10"])
        .emulated()
        .first("grep -qw la57 /proc/cpuinfo\nkeep_tree_and_blob 16")
        .each("fails grep -qw la57 /proc/cpuinfo\ncheck_tree_and_blob")
        .at(
            2,
            // The command line of the last hop has a byte that is not UTF-8.
            include_str!("chain/five-level.sh"),
        )
        .at(
            3,
            "fails grep -qw la57 /proc/cpuinfo
             grep -q \"note=gr$(printf '\\374')n\" /proc/cmdline
             check_tree_and_blob
             directly",
        ),
        Scenario::new("nokaslr", "the same without address space randomization")
            .kernels(&["6.1", "7.3", "6.12"])
            .append("nokaslr")
            .first("keep_tree_and_blob 16")
            .each("check_tree_and_blob"),
        Scenario::new(
            "reload",
            "a second load on a first boot keeps scratch although the first one's pages are reserved",
        )
        .kernels(&["6.1", "6.12"])
        .first(
            include_str!("chain/reload.sh"),
        )
        .each("check_tree_and_blob"),
        Scenario::new(
            "hops-20",
            "twenty hops with a blob that grows by a MiB each time, without the module (with it: module-ring-20)",
        )
        .kernels(&["6.1", "6.12"].repeat(11)[..21])
        .first("kho-guest bytes 1048576 --seed 0 | kho keep --name growing -")
        .each(
            include_str!("chain/growing.sh"),
        )
        .timeout_s(900)
        .slow(),
    ]
}
