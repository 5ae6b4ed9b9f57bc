//! Every command of the book and the READMEs, run in order in guests. How a page says so: `crate::book::blocks`.

use super::Scenario;
use crate::book::blocks::{self, Block};

/// What the scripts of these guests begin with.
const LIB: &str = include_str!("book/lib.sh");

/// A guest that pages name, its kernels and its parameters.
const GUESTS: [(&str, &[&str], &str); 3] = [
    ("readme", &["6.1", "6.12"], ""),
    ("tutorial", &["6.1", "6.12", "6.1"], ""),
    ("format", &["6.1", "6.12", "6.1"], ""),
];

/// The tests of this file. A page that cannot be read is one that fails.
pub fn scenarios() -> Vec<Scenario> {
    let blocks = blocks::all();
    let make = |(name, kernels, append): &(&str, &[&'static str], &str)| {
        let scenario = Scenario::new(
            format!("book-{name}"),
            format!("the commands of the book that are marked run={name}"),
        )
        .kernels(kernels)
        .append(append);
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
        assert_eq!(named, GUESTS.iter().map(|(name, ..)| *name).collect());
        for (name, kernels, _) in &GUESTS {
            fit(name, kernels, &blocks).unwrap();
        }
        assert!(run > 10 * not, "{run} commands are run and {not} are not");
    }
}
