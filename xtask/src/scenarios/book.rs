//! Every command of the book and the READMEs, run in order in guests. How a page says so: `crate::book::blocks`.

use super::Scenario;
use crate::book::blocks::{self, Block};

/// What the scripts of these guests begin with.
const LIB: &str = include_str!("book/lib.sh");

/// A guest that pages name.
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

const GUESTS: [Guest; 7] = [
    guest("readme", &["6.1", "6.12"]),
    guest("tutorial", &["6.1", "6.12", "6.1"]),
    guest("operations", &["6.1", "6.12"]),
    guest("when", &["6.1", "6.12", "6.1"]),
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

/// The tests of this file. A page that cannot be read is one that fails.
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

/// A script for each kernel.
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
    use crate::book::blocks::Fate;
    use std::collections::BTreeSet;

    #[test]
    fn every_command_is_run_or_says_why_not() {
        let blocks = blocks::all().unwrap();
        let (mut run, mut not) = (0, 0);
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
                Fate::Not(why) => {
                    not += block.commands.len();
                    println!("not run: {}:{}: {why}", block.page, block.commands[0].line);
                }
            }
        }
        println!("{run} commands of the book are run, {not} are not");
        assert_eq!(named, GUESTS.iter().map(|guest| guest.name).collect());
        for guest in &GUESTS {
            fit(guest.name, guest.kernels, &blocks).unwrap();
        }
        assert!(run > 4 * not, "{run} commands are run and {not} are not");
    }
}
