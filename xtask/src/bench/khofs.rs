//! `cargo xtask bench khofs`: what the usual things cost on khofs and on tmpfs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use kho_cases::{Scenario, Stock};
use kho_lab::run::End;
use kho_lab::workspace;

/// Path of the report, relative to the workspace.
const REPORT: &str = "docs/reports/khofs-speed.md";

/// Number of pairs of runs; the median of the pairs counts.
const ROUNDS: usize = 5;

/// Count what the usual things cost on khofs and on tmpfs under each kernel.
#[derive(clap::Args)]
pub struct Arguments {
    /// Kernels; without all of them no report is written.
    #[arg(long, default_values_t = ["6.1", "6.12", "7.3"].map(str::to_owned))]
    kernel: Vec<String>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let stock = Stock::open(None)?;
    let mut all = Vec::new();
    for kernel in ["6.1", "6.12", "7.3"] {
        if !arguments.kernel.iter().any(|wanted| wanted == kernel) {
            continue;
        }
        let outcome = scenario(kernel).run(&stock, &mut |_, _| {});
        ensure!(
            matches!(outcome.end, End::Pass),
            "{kernel}: {:?}, see {}",
            outcome.end,
            outcome.log.display()
        );
        let log = std::fs::read(&outcome.log)
            .with_context(|| format!("reading {}", outcome.log.display()))?;
        let speeds = Speeds::parse(&String::from_utf8_lossy(&log))?;
        let outcome = mounts(kernel).run(&stock, &mut |_, _| {});
        ensure!(
            matches!(outcome.end, End::Pass),
            "{kernel}, mounts: {:?}, see {}",
            outcome.end,
            outcome.log.display()
        );
        let mounts = outcome.lives.iter().flat_map(|life| &life.values);
        let mounts = mounts
            .filter_map(|(key, value)| Some(format!("{} {value}", key.strip_prefix("mount-")?)))
            .collect::<Vec<_>>();
        println!("{kernel}\n{}\n{}", speeds.table(), mounts.join(", "));
        all.push((kernel, speeds, mounts));
    }
    if all.len() == 3 {
        let mut text = String::from(include_str!("khofs-head.md"));
        for (kernel, speeds, mounts) in &all {
            let _ = write!(
                text,
                "\n## {kernel}\n\n{}\nThe first mount after a hop, by the size of the instance's one file: {}.\n",
                speeds.table(),
                mounts.join(", ")
            );
        }
        write_report(Path::new(REPORT), &text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_report(path: &Path, text: &str) -> Result<()> {
    std::fs::write(workspace::root().join(path), text)
        .with_context(|| format!("writing {}", path.display()))?;
    println!("{} is written", path.display());
    Ok(())
}

/// Guest that measures the two file systems alternately.
fn scenario(kernel: &'static str) -> Scenario {
    Scenario::new(format!("bench-khofs-{kernel}"), "khofs beside tmpfs")
        .kernels(&[kernel])
        .kho_modules(&["kho", "khofs"])
        .counting()
        .first(&format!(
            "rounds={ROUNDS}\n{}",
            include_str!("khofs-speed.sh")
        ))
        .timeout_s(1800)
}

/// Guest that measures the cost of mounting an instance that arrived with one file, small or large. The very first
/// mount does not count.
fn mounts(kernel: &'static str) -> Scenario {
    Scenario::new(format!("bench-khofs-mount-{kernel}"), "mounts after a hop")
        .kernels(&[kernel, kernel])
        .kho_modules(&["kho", "khofs"])
        .counting()
        .first(include_str!("khofs-mounts-first.sh"))
        .each(include_str!("khofs-mounts-each.sh"))
        .timeout_s(1800)
}

/// Cost of each work in each round, in instructions per page or file: on tmpfs and on khofs.
#[derive(Debug, Default, PartialEq)]
struct Speeds {
    /// Names of the works, in the order of their first lines.
    works: Vec<String>,
    costs: BTreeMap<(String, String), Vec<u64>>,
}

impl Speeds {
    /// Reads `@speed FILESYSTEM WORK NANOSECONDS PARTS` lines of a guest's log.
    fn parse(text: &str) -> Result<Self> {
        let mut all = Self::default();
        for line in text.lines() {
            let Some((_, rest)) = line.split_once(" s @speed ") else {
                continue;
            };
            let words: Vec<&str> = rest.split_whitespace().collect();
            let [system, work, cost, parts] = words[..] else {
                anyhow::bail!("{line:?} is no result");
            };
            let number = |word: &str| {
                word.parse::<u64>()
                    .with_context(|| format!("{line:?} has no numbers"))
            };
            if !all.works.iter().any(|known| known == work) {
                all.works.push(work.to_owned());
            }
            let costs = all
                .costs
                .entry((work.to_owned(), system.to_owned()))
                .or_default();
            costs.push(number(cost)? / number(parts)?.max(1));
        }
        for work in &all.works {
            for system in ["tmpfs", "khofs"] {
                let found = all.costs(work, system).len();
                ensure!(found == ROUNDS, "{work} on {system} came {found} times");
            }
        }
        Ok(all)
    }

    fn costs(&self, work: &str, system: &str) -> &[u64] {
        self.costs
            .get(&(work.to_owned(), system.to_owned()))
            .map_or(&[], Vec::as_slice)
    }

    /// A line for each work: medians, the median of the ratios of pairs, and the smallest and the largest of these.
    fn table(&self) -> String {
        let mut text = String::from(
            "| | tmpfs | khofs | khofs / tmpfs | from – to |\n| --- | ---: | ---: | ---: | --- |\n",
        );
        for work in &self.works {
            let (tmpfs, khofs) = (self.costs(work, "tmpfs"), self.costs(work, "khofs"));
            let mut ratios: Vec<f64> = tmpfs
                .iter()
                .zip(khofs)
                .map(|(tmpfs, khofs)| *khofs as f64 / (*tmpfs).max(1) as f64)
                .collect();
            ratios.sort_by(f64::total_cmp);
            let _ = writeln!(
                text,
                "| {work} | {} | {} | {:.2} | {:.2} – {:.2} |",
                median(tmpfs),
                median(khofs),
                ratios[ratios.len() / 2],
                ratios[0],
                ratios[ratios.len() - 1],
            );
        }
        text
    }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_pairs() {
        let mut log = String::new();
        for (tmpfs, khofs) in [(10, 20), (10, 10), (20, 10), (10, 90), (10, 15)] {
            let _ = write!(
                log,
                "  1.0 s @speed tmpfs a {}0 10\n  1.1 s @speed khofs a {}0 10\n",
                tmpfs, khofs
            );
        }
        let table = Speeds::parse(&log).expect("good lines").table();
        assert!(
            table.ends_with("| a | 10 | 15 | 1.50 | 0.50 – 9.00 |\n"),
            "{table}"
        );
    }

    #[test]
    fn what_did_not_come_to_an_end_is_no_result() {
        assert!(Speeds::parse("  1.0 s @speed tmpfs a 10 10\n").is_err());
        assert!(Speeds::parse("  1.0 s @speed tmpfs a 10\n").is_err());
    }
}
