//! A kernel with built-in Kexec HandOver: the decoded state is compared with the kernel's own reports.

use crate::scenario::Scenario;
use kho_lab::kernel::peer;

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "mainline",
            "kho dump --mainline decodes what a mainline kernel with KHO leaves and what its successors find",
        )
        .kernels(&[peer::NAME; 3])
        .append("kho=on liveupdate=on test_kho.max_mem=1048576")
        .first(concat!(include_str!("mainline/each.sh"), include_str!("mainline/first.sh"), include_str!("mainline/first-with-test.sh"), include_str!("mainline/go.sh")))
        .at(
            1,
            concat!(include_str!("mainline/each.sh"), include_str!("mainline/arrived.sh"), include_str!("mainline/arrived-with-test.sh"), include_str!("mainline/go.sh")),
        )
        .at(2, concat!(include_str!("mainline/each.sh"), include_str!("mainline/arrived.sh"))),
        Scenario::new(
            "mainline-out",
            "kho dump --mainline decodes a tree that a mainline kernel with KHO shows as a whole",
        )
        .kernels(&[peer::NAME])
        // The test module would add to the tree.
        .append("kho=on initcall_blacklist=kho_test_init")
        .first(concat!(include_str!("mainline/each.sh"), include_str!("mainline/first.sh"), include_str!("mainline/out.sh"))),
        Scenario::new(
            "mainline-large",
            "a next kernel with KHO of its own sets no memory aside for 400 MiB that it is handed, with kho=on and without",
        )
        .kernels(&["6.12", peer::NAME, peer::NAME])
        .mem_mib(2048)
        .timeout_s(480)
        .first(include_str!("mainline/large-first.sh"))
        .at(1, include_str!("mainline/large-on.sh"))
        .at(2, include_str!("mainline/large-off.sh")),
    ]
}
