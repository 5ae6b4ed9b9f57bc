//! Bad input: each kind gets its own message and exit status, and changes nothing.

use crate::scenario::Scenario;

const LIB: &str = include_str!("bad/lib.sh");

fn script(text: &str) -> String {
    format!("{LIB}\n{text}")
}

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let lockdown = ["integrity", "confidentiality"].map(|level| {
        let text = format!("level={level}\n{}", include_str!("bad/lockdown.sh"));
        Scenario::new(
            format!("bad-lockdown-{level}"),
            "a kernel that is locked down loads nothing, and what arrived can be used",
        )
        .kernels(&["6.1", "6.12"])
        .first(&script(&text))
        .each(&script(&text))
    });
    let input = Scenario::new(
        "bad-input",
        "what keep, load, exec and restore refuse, on 6.1 and after a hop to 6.12",
    )
    .kernels(&["6.1", "6.12"])
    // Too small for any kernel: loads on the first boot give another size, and later loads ignore it. Without KASLR,
    // because whether an image fits must not depend on the kernel's address.
    .append("kho_scratch=1M nokaslr")
    .first(&script(include_str!("bad/input.sh")))
    .each(&script(include_str!("bad/restore.sh")))
    .timeout_s(600);
    let tree = include_str!("bad/tree.sh");
    let trees = Scenario::new(
        "bad-tree",
        "ten kernels that each find a state tree damaged in another way",
    )
    .kernels(&["6.1", "6.12"].repeat(6))
    .first(&script(tree))
    .each(&script(tree))
    .timeout_s(600);
    [input, trees].into_iter().chain(lockdown).collect()
}
