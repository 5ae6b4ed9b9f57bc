//! `cargo xtask soak`: many handovers in a row, everything at once, everything compared.
//!
//! A number (the seed) decides what is kept in each kernel, how large it is, what becomes of it, how much memory is in use
//! while the next kernel is loaded (and with it where things land), and which kernel comes next. After each hop the guest
//! overwrites its free memory, checks that every range is reserved, and compares the hash of everything; then the host
//! reads the kept ranges from the memory of the machine itself and compares them with the hashes in the state tree.

mod model;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::{End, Host, Job, Lab, Life, Outcome, hop_times, log};
use crate::scenarios::Scenario;
use crate::vm::describe_end;

/// Kernels that take turns.
pub const KERNELS: [&str; 3] = ["6.1", "6.12", "7.3"];

/// Memory of the guest: all of it below the hole under 4 GiB, so that an address is an offset in the memory file.
const MEM_MIB: u64 = 768;

/// Memory under one kernel may differ by this much between hops (in KiB): the state, and what boot takes more or less of.
const SPREAD_KIB: u64 = 2048;

/// Hand over again and again between 6.1, 6.12 and 7.3, with content of random sizes at random places.
#[derive(clap::Args)]
pub struct Arguments {
    /// Hops.
    #[arg(long, value_name = "N", default_value_t = 100)]
    hops: usize,
    /// The number from which everything follows; a random one is taken and printed otherwise.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Write a report to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// The guest test for so many hops with this seed.
pub fn scenario(name: &str, hops: usize, seed: u64) -> Scenario {
    let plan = model::Plan::new(hops, seed);
    let mut scenario = Scenario::new(
        name,
        "hops with content of random sizes at random places, checked inside and outside",
    )
    .kernels(&plan.kernels)
    .mem_mib(MEM_MIB)
    .memory_in_file()
    .kho_modules(&["kho", "kho_ring"])
    .timeout_s(120 + 90 * hops as u64)
    .step("outside", outside)
    .check(|outcome| summary(outcome).map(|sum| sum.line()));
    for (hop, script) in plan.scripts.iter().enumerate() {
        scenario = scenario.at(hop, script);
    }
    scenario
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(arguments.hops > 0, "a soak of no hops shows nothing");
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => random()?,
    };
    println!("cargo xtask soak --hops {} --seed {seed}", arguments.hops);
    let lab = Lab::open(None)?;
    let scenario = scenario("soak", arguments.hops, seed);
    let contents = scenario.contents(&lab)?;
    let job = Job {
        name: &scenario.name,
        machine: &scenario.machine,
        contents: &contents,
        timeout: scenario.timeout,
        steps: &scenario.steps,
    };
    let outcome = lab.run(&job, &mut |_, event| {
        if let Some(kho_guest::Event::Boot { hop, release, .. }) = event {
            println!("hop {hop}: {release}");
        }
    });
    let sum = summary(&outcome);
    let text = report(arguments.hops, seed, &outcome, sum.as_ref().ok());
    print!("{text}");
    if let Some(path) = &arguments.report {
        std::fs::write(path, &text).with_context(|| format!("writing {}", path.display()))?;
    }
    if outcome.end != End::Pass {
        println!("{}", log::tail(&outcome.log, 60));
        return Ok(ExitCode::FAILURE);
    }
    sum?;
    Ok(ExitCode::SUCCESS)
}

fn random() -> Result<u64> {
    let mut bytes = [0; 4];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes).into())
}

/// Compares every blob that the guest says has arrived with its hash, in the memory of the machine.
fn outside(host: &mut Host<'_>) -> Result<()> {
    let tree: Value =
        serde_json::from_str(host.value("tree")?).context("the guest's state tree")?;
    let memory = host.memory()?;
    let children = |node: &Value| {
        node.get("children")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let blobs = children(&tree)
        .into_iter()
        .find(|node| node.get("name").and_then(Value::as_str) == Some("blobs"));
    let mut compared = 0;
    for blob in children(&blobs.context("the tree has no blobs")?) {
        let properties = blob
            .get("properties")
            .context("a blob without properties")?;
        let number = |of: &Value, name: &str| {
            of.get(name)
                .and_then(Value::as_u64)
                .with_context(|| format!("no {name}"))
        };
        let size = number(properties, "size")?;
        let want = properties
            .get("blake3")
            .and_then(Value::as_str)
            .context("no hash")?;
        let mut hasher = blake3::Hasher::new();
        let mut left = size;
        for range in properties
            .get("mem")
            .and_then(Value::as_array)
            .unwrap_or(&Vec::new())
        {
            let (addr, len) = (number(range, "addr")?, number(range, "len")?.min(left));
            ensure!(
                addr + len <= MEM_MIB << 20,
                "{addr:#x} is outside of the machine"
            );
            let mut bytes = vec![0; usize::try_from(len)?];
            memory
                .read_exact_at(&mut bytes, addr)
                .context("reading the machine's memory")?;
            hasher.update(&bytes);
            left -= len;
        }
        let found = hasher.finalize().to_hex();
        ensure!(
            left == 0 && found.as_str() == want,
            "a blob of {size:#x} bytes is not what the tree says: {properties}"
        );
        compared += 1;
    }
    let said: usize = host
        .value("entries")?
        .trim()
        .parse()
        .context("a number of entries")?;
    ensure!(
        compared == said,
        "the tree has {compared} blobs, {said} are kept"
    );
    Ok(())
}

/// What a run came to.
struct Summary {
    /// Hops that arrived.
    hops: usize,
    /// Comparisons of content inside of the guest, and the bytes of them.
    compared: u64,
    bytes: u64,
    /// Blobs compared from outside.
    outside: u64,
    /// Most bytes reserved at a time, KiB.
    most_reserved: u64,
    /// Largest difference of memory under one kernel, KiB.
    spread: u64,
    times: Vec<Duration>,
    loads: Vec<f64>,
    driver: bool,
}

fn numbers(lives: &[Life], key: &str) -> Result<Vec<u64>> {
    let value = |life: &Life| {
        let text = life
            .values
            .get(key)
            .with_context(|| format!("{} did not report {key}", life.release))?;
        text.trim()
            .parse()
            .with_context(|| format!("{key} is {text:?}"))
    };
    lives.iter().map(value).collect()
}

/// Adds up what the kernels reported, and judges what only shows over many of them: whether memory leaks.
fn summary(outcome: &Outcome) -> Result<Summary> {
    let lives = &outcome.lives;
    let total = numbers(lives, "MemTotal")?;
    let reserved = numbers(lives, "reserved")?;
    // MemTotal and what is reserved for us make up the same under the same kernel.
    let mut extremes: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (life, (total, reserved)) in lives.iter().zip(total.iter().zip(&reserved)) {
        let sum = total + reserved;
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
    let loads = lives
        .iter()
        .filter_map(|life| life.values.get("load-seconds")?.trim().parse().ok());
    Ok(Summary {
        hops: lives.len().saturating_sub(1),
        compared: numbers(lives, "compared")?.iter().sum(),
        bytes: numbers(lives, "compared-bytes")?.iter().sum(),
        outside: numbers(lives, "entries")?.iter().skip(1).sum(),
        most_reserved: reserved.iter().copied().max().unwrap_or(0),
        spread,
        times: hop_times(lives),
        loads: loads.collect(),
        driver: lives.iter().all(|life| life.values.contains_key("driver")),
    })
}

impl Summary {
    fn line(&self) -> String {
        format!(
            "{} hops, {} contents of {} MiB compared inside and {} outside, memory differs by at most {} KiB",
            self.hops,
            self.compared,
            self.bytes >> 20,
            self.outside,
            self.spread
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

fn report(hops: usize, seed: u64, outcome: &Outcome, sum: Option<&Summary>) -> String {
    let mut text = format!(
        "# Soak\n\nWritten by `cargo xtask soak --hops {hops} --seed {seed} --report …` on {}. One QEMU guest of {MEM_MIB} MiB \
         under TCG; the kernels are stock Debian kernels.\n\nResult: **{}**, {} of {hops} hops arrived, {:.0} min in all.\n\n",
        crate::fuzz::today(),
        describe_end(&outcome.end),
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
    let _ = writeln!(
        text,
        "| what | |\n| --- | --- |\n| kernels | {} |",
        kernels.join(", ")
    );
    if let Some(sum) = sum {
        let times: Vec<f64> = sum.times.iter().map(Duration::as_secs_f64).collect();
        let driver = if sum.driver {
            "the sample driver's ring of pages, in place (kho.ko)"
        } else {
            ""
        };
        let parts = [
            "blobs, restored and carried on in place",
            "directories with all kinds of entries",
            driver,
        ];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let mut row = |what: &str, value: String| {
            let _ = writeln!(text, "| {what} | {value} |");
        };
        row("carried", parts.join("; "));
        row(
            "contents compared by hash in the guests, after their free memory was overwritten",
            format!("{} with {} MiB", sum.compared, sum.bytes >> 20),
        );
        row(
            "contents compared from outside, in the machine's memory",
            sum.outside.to_string(),
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
            "seconds from exec to init (least / median / most)",
            middle(&times),
        );
        row(
            "seconds of `kho load` in the guest (least / median / most)",
            middle(&sum.loads),
        );
    }
    text
}
