//! Hops on arm64.

use crate::scenario::Scenario;
use kho_lab::Arch;

const FILES: &str = include_str!("arm64/files.sh");

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let chain = |name: &str, about: &str, kernels: &[&'static str]| {
        let mut scenario = Scenario::new(name, about)
            .kernels(kernels)
            .first(FILES)
            .each(FILES)
            .mem_mib(1536)
            .timeout_s(900);
        scenario.machine.arch = Arch::Arm64;
        scenario.limits.slow = true;
        scenario
    };
    vec![
        chain(
            "arm64-files",
            "arm64: a tree and a blob arrive unchanged between 6.1 and 6.12, in every pair",
            &[
                "6.1-cloud-arm64",
                "6.12-cloud-arm64",
                "6.12-cloud-arm64",
                "6.1-cloud-arm64",
                "6.1-cloud-arm64",
            ],
        ),
        chain(
            "arm64-files-7.3",
            "arm64: a tree and a blob arrive unchanged from and in 7.3",
            &["6.12-cloud-arm64", "7.3-cloud-arm64", "6.12-cloud-arm64"],
        ),
    ]
}
