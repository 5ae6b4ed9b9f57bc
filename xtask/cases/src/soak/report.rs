//! Results of a soak run, and the report of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::account::Account;
use super::outside::MEM_MIB;
use kho_lab::command::today;
use kho_lab::run::{Life, Outcome, hop_times};

/// Limit, in KiB, by which memory under one kernel may differ between hops: the state, and memory whose amount differs
/// from boot to boot.
const SPREAD_KIB: u64 = 2048;

/// Limit, in KiB, of the memory that stays reserved although no node of a tree names it: the chain and the tree, which
/// have their own pages.
const UNOWNED_KIB: u64 = 64;

/// Limit, in KiB, of the memory that stays reserved after everything was given back: chain, tree, and the kernel's
/// part.
const LEFT_KIB: u64 = 1024;

/// Results of a run.
pub struct Summary {
    /// Hops that arrived.
    hops: usize,
    /// Comparisons of content inside the guest, and the number of compared bytes.
    compared: u64,
    bytes: u64,
    /// Blobs and files of khofs compared from outside.
    outside: (u64, u64),
    /// Traces that equalled those of the previous kernel.
    traces: usize,
    /// Trees of random operations that were compared with the same operations on tmpfs.
    models: u64,
    /// Most bytes reserved at a time, KiB.
    most_reserved: u64,
    /// Largest difference of memory under one kernel, KiB.
    spread: u64,
    /// Most memory that was reserved without an owner, and memory that was left at the end, in KiB.
    unowned: u64,
    left: u64,
    /// Numbers of early reservations, and the memory that they cover beside the handed-over memory, in KiB.
    ranges: Vec<f64>,
    beside: Vec<f64>,
    times: Vec<Duration>,
    loads: Vec<f64>,
    mounts: Vec<f64>,
}

fn number<T: std::str::FromStr>(life: &Life, key: &str) -> Result<T> {
    let text = life
        .values
        .get(key)
        .with_context(|| format!("{} did not report {key}", life.release))?;
    let number = text.trim().parse().ok();
    number.with_context(|| format!("{key} is {text:?}"))
}

fn numbers(lives: &[Life], key: &str) -> Result<Vec<u64>> {
    lives.iter().map(|life| number(life, key)).collect()
}

/// Returns the values of `key` from the kernels that measured it.
fn measured(lives: &[Life], key: &str) -> Vec<f64> {
    let found = |life: &Life| life.values.get(key)?.trim().parse().ok();
    lives.iter().filter_map(found).collect()
}

impl Summary {
    /// Adds up the values that the kernels reported, and judges what shows only over many kernels: whether memory
    /// leaks.
    pub fn of(outcome: &Outcome) -> Result<Self> {
        let lives = &outcome.lives;
        let total = numbers(lives, "MemTotal")?;
        let reserved = numbers(lives, "reserved")?;
        // MemTotal plus the memory reserved for kho is constant under the same kernel.
        let mut extremes: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let last = lives.last().context("nothing booted")?;
        let left: u64 = number(last, "left")?;
        let sums = lives.iter().zip(total.iter().zip(&reserved));
        let sums = sums.map(|(life, (total, reserved))| (life, total + reserved));
        for (life, sum) in sums.chain([(last, number::<u64>(last, "MemTotal-left")? + left)]) {
            let entry = extremes.entry(&life.release).or_insert((sum, sum));
            *entry = (entry.0.min(sum), entry.1.max(sum));
        }
        let spread = extremes
            .values()
            .map(|(least, most)| most - least)
            .max()
            .unwrap_or(0);
        ensure!(
            spread <= SPREAD_KIB,
            "memory differs by {spread} KiB under the same kernel: {extremes:?}"
        );
        ensure!(
            left <= LEFT_KIB,
            "{left} KiB are still reserved after everything was given back"
        );
        let mut unowned = 0;
        let (mut ranges, mut beside) = (Vec::new(), Vec::new());
        for (hop, (life, reserved)) in lives.iter().zip(&reserved).enumerate() {
            let Some(account) = Account::of(life)? else {
                continue;
            };
            let more = reserved.saturating_sub(account.owned - account.claimed);
            ensure!(
                more <= UNOWNED_KIB,
                "hop {hop}: {more} KiB are reserved and belong to nobody: {account:?}"
            );
            unowned = unowned.max(more);
            ranges.push(account.ranges as f64);
            beside.push(account.beside as f64 / 1024.0);
        }
        let arrived = lives.get(1..).unwrap_or_default();
        Ok(Self {
            hops: arrived.len(),
            compared: numbers(lives, "compared")?.iter().sum(),
            bytes: numbers(lives, "compared-bytes")?.iter().sum(),
            outside: (
                numbers(arrived, "entries")?.iter().sum(),
                numbers(arrived, "files")?.iter().sum(),
            ),
            traces: measured(arrived, "traced").len(),
            models: numbers(lives, "models")?.iter().sum(),
            most_reserved: reserved.iter().copied().max().unwrap_or(0),
            spread,
            unowned,
            left,
            ranges,
            beside,
            times: hop_times(lives),
            loads: measured(lives, "load-seconds"),
            mounts: measured(arrived, "mount-seconds"),
        })
    }

    /// Summary in one line, for the list of tests.
    pub fn line(&self) -> String {
        format!(
            "{} hops, {} contents of {} MiB compared inside and {} outside, memory differs by at most {} KiB, {} KiB are left",
            self.hops,
            self.compared,
            self.bytes >> 20,
            self.outside.0 + self.outside.1,
            self.spread,
            self.left
        )
    }
}

fn middle(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    format!(
        "{:.1} / {:.1} / {:.1}",
        at(0),
        at(sorted.len() / 2),
        at(sorted.len().saturating_sub(1))
    )
}

/// The report.
pub fn text(
    hops: usize,
    seed: u64,
    outcome: &Outcome,
    sum: Result<&Summary, &anyhow::Error>,
) -> String {
    let mut text = format!(
        "# Soak\n\nWritten by `cargo xtask soak --hops {hops} --seed {seed} --report …` on {}. One QEMU guest of {MEM_MIB} MiB \
         under TCG; the kernels are stock Debian kernels.\n\nResult: **{}**, {} of {hops} hops arrived, {:.0} min in all.\n\n",
        today(),
        outcome.end,
        outcome.lives.len().saturating_sub(1),
        outcome.took.as_secs_f64() / 60.0
    );
    let mut kernels: BTreeMap<&str, usize> = BTreeMap::new();
    for life in &outcome.lives {
        *kernels.entry(&life.release).or_default() += 1;
    }
    let kernels: Vec<String> = kernels
        .iter()
        .map(|(release, times)| format!("{release} {times} times"))
        .collect();
    let mut row = |what: &str, value: String| {
        let _ = writeln!(text, "| {what} | {value} |");
    };
    row("what", String::new());
    row("---", "---".to_owned());
    row("kernels", kernels.join(", "));
    let sum = match sum {
        Ok(sum) => sum,
        Err(error) => {
            row("judged", format!("{error:#}"));
            return text;
        }
    };
    row(
        "carried",
        "blobs, restored and carried on in place; directories with all kinds of entries; the sample driver's ring of pages; \
         files on khofs, new, overwritten (also in the active phase) and removed, a mapping that is written to up to the \
         jump, random operations; the trace and the log of each kernel"
            .to_owned(),
    );
    row(
        "contents compared by hash in the guests, after their free memory was overwritten",
        format!("{} with {} MiB", sum.compared, sum.bytes >> 20),
    );
    row(
        "contents compared from outside, in the machine's memory, before anybody touched them",
        format!("{} blobs, {} files of khofs", sum.outside.0, sum.outside.1),
    );
    row(
        "trees of random operations compared with the same operations on tmpfs",
        sum.models.to_string(),
    );
    row(
        "traces and logs that were, line by line, those of the kernel before",
        sum.traces.to_string(),
    );
    row(
        "most memory reserved at a time",
        format!("{} MiB", sum.most_reserved >> 10),
    );
    row(
        "leak check: `MemTotal` and reservations together, under the same kernel, differ over all hops by at most",
        format!("{} KiB", sum.spread),
    );
    row(
        "leak check: reserved beyond the pages that a node of the trees names, at most",
        format!("{} KiB", sum.unowned),
    );
    row(
        "leak check: still reserved after everything was given back in the last kernel",
        format!("{} KiB", sum.left),
    );
    row(
        "early reservations (least / median / most)",
        middle(&sum.ranges),
    );
    row(
        "MiB that they cover beside what is handed over, given back right after boot (least / median / most)",
        middle(&sum.beside),
    );
    let times: Vec<f64> = sum.times.iter().map(Duration::as_secs_f64).collect();
    row(
        "seconds from exec to init (least / median / most)",
        middle(&times),
    );
    row(
        "seconds of `kho load` in the guest (least / median / most)",
        middle(&sum.loads),
    );
    row(
        "seconds of mounting khofs (least / median / most)",
        middle(&sum.mounts),
    );
    text
}
