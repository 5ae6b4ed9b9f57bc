//! Every command of the book and the READMEs, run in order in guests. `crate::pages::blocks` describes how a page marks
//! its commands.

use crate::pages::blocks::{self, Block};
use crate::scenario::Scenario;

/// Common beginning of the scripts of these guests.
const LIB: &str = include_str!("book/lib.sh");

/// A guest that the pages name.
struct Guest {
    name: &'static str,
    kernels: &'static [&'static str],
    /// Modules of this project that are loaded in each kernel.
    modules: &'static [&'static str],
}

const fn guest(name: &'static str, kernels: &'static [&'static str]) -> Guest {
    Guest {
        name,
        kernels,
        modules: &[],
    }
}

const GUESTS: [Guest; 8] = [
    guest("readme", &["6.1", "6.12"]),
    guest("tutorial", &["6.1", "6.12", "6.1"]),
    guest("operations", &["6.1", "6.12"]),
    guest("when", &["6.1", "6.12", "6.1"]),
    guest("trace", &["6.1", "6.12"]),
    Guest {
        name: "producers",
        kernels: &["6.1", "6.12"],
        modules: &["kho", "kho_ring"],
    },
    Guest {
        name: "khofs",
        kernels: &["6.1", "6.12"],
        modules: &["kho", "khofs"],
    },
    guest("format", &["6.1", "6.12", "6.1"]),
];

/// The tests of this file. If a page cannot be read, its test fails.
pub fn scenarios() -> Vec<Scenario> {
    let blocks = blocks::all();
    let make = |guest: &Guest| {
        let Guest {
            name,
            kernels,
            modules,
        } = guest;
        let scenario = Scenario::new(
            format!("book-{name}"),
            format!("the commands of the book that are marked run={name}"),
        )
        .kernels(kernels);
        let scenario = match modules.is_empty() {
            true => scenario,
            false => scenario.kho_modules(modules),
        };
        match blocks.as_ref().map(|blocks| fit(name, kernels, blocks)) {
            Ok(Ok(scripts)) => scripts
                .iter()
                .enumerate()
                .fold(scenario, |scenario, (hop, script)| {
                    scenario.at(hop, &format!("{LIB}\n{script}"))
                }),
            Ok(Err(error)) => scenario.first(&broken(&error)),
            Err(error) => scenario.first(&broken(error)),
        }
    };
    GUESTS.iter().map(make).collect()
}

fn broken(error: &anyhow::Error) -> String {
    format!("echo '{}'; false", format!("{error:#}").replace('\'', "’"))
}

/// Returns a script for each kernel of a guest.
fn fit(name: &str, kernels: &[&str], blocks: &[Block]) -> anyhow::Result<Vec<String>> {
    let scripts = blocks::scripts(name, blocks)?;
    anyhow::ensure!(
        scripts.len() == kernels.len(),
        "the pages take run={name} through {} kernels, and the guest has {}",
        scripts.len(),
        kernels.len()
    );
    Ok(scripts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::blocks::Fate;
    use crate::pages::read;
    use std::collections::BTreeSet;

    #[test]
    fn every_command_is_run_or_says_why_not() {
        let blocks = blocks::all().unwrap();
        let (mut run, mut not) = (0, Vec::new());
        let mut named = BTreeSet::new();
        for block in &blocks {
            match &block.fate {
                Fate::Run(name) => {
                    named.insert(name.as_str());
                    run += if block.hidden {
                        0
                    } else {
                        block.commands.len()
                    };
                }
                Fate::Not(_) => not.push((block.page.as_str(), block.commands.len())),
            }
        }
        println!("{run} commands of the book are run");
        assert_eq!(named, GUESTS.iter().map(|guest| guest.name).collect());
        for guest in &GUESTS {
            fit(guest.name, guest.kernels, &blocks).unwrap();
        }
        // If you add a block that is not run, add it here with the test that runs similar commands.
        let others_run = [
            // khofs: `book-khofs`.
            ("README.md", 1),
            // These commands run the tests.
            ("README.md", 2),
            // `packages:cargo-install`, and the packages that every full system installs.
            ("README.md", 2),
            // Every scenario with the module runs the same `make`.
            ("module/README.md", 5),
            // `book-khofs`.
            ("module/khofs/README.md", 4),
            // `debian-*-packages`.
            ("docs/src/operations/packages.md", 2),
            // `debian-*-services`; in `debian-*-hostile` kho replaces kexec.
            ("docs/src/operations/systemctl-kexec.md", 3),
            ("docs/src/operations/systemctl-kexec.md", 2),
            // `khofs-late`.
            ("docs/src/operations/late.md", 2),
            // `khofs-qemu`.
            ("docs/src/operations/virtual-machines.md", 3),
            // A build by hand.
            ("docs/src/operations/arm64.md", 4),
            // `packages:dkms-12` and `packages:dkms-13` build a driver outside of this tree.
            ("docs/src/producers/outside.md", 2),
        ];
        assert_eq!(not, others_run);
        assert!(run > 80, "{run} commands are run");
    }

    /// The driver that a page shows is the sample, which is built and tested.
    #[test]
    fn the_driver_in_rust_is_the_sample() {
        let root = kho_lab::workspace::root();
        let sample = read(&root.join("module/samples/note/src/lib.rs")).unwrap();
        let page = read(&root.join("docs/src/producers/README.md")).unwrap();
        let shown: Vec<&str> = page
            .split("```rust,ignore\n")
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap())
            .collect();
        assert_eq!(shown.len(), 2);
        for code in shown {
            assert!(sample.contains(code), "not in the sample:\n{code}");
        }
    }
}
