//! The old kernel's trace in the new kernel.

use crate::scenario::Scenario;
use anyhow::{Context, Result, ensure};
use kho_lab::run::Outcome;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

const LIB: &str = include_str!("trace/lib.sh");

fn script(text: &str) -> String {
    format!("{LIB}\n{text}")
}

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "trace",
            "what 6.1 and 6.12 traced reads in the next kernel as it did there, with trace-cmd and without",
        )
        .kernels(&["6.1", "6.12", "7.3"])
        .smp(8)
        .trace_cmd()
        .first(&script(
            include_str!("trace/first.sh"),
        ))
        // Buffers that wrap: two pages for each CPU, and far more events.
        .at(
            1,
            &script(
                include_str!("trace/wrapped.sh"),
            ),
        )
        .at(
            2,
            &script(include_str!("trace/last.sh"),
            ),
        )
        .timeout_s(600)
        .check(compare),
        Scenario::new(
            "trace-live",
            "a trace is taken while tracing goes on and others consume, for keep.d, at a capture, within the size that was asked for",
        )
        .kernels(&["6.12", "6.12"])
        .smp(4)
        .first(&script(include_str!("trace/live-first.sh")))
        .each(&script(include_str!("trace/live-each.sh")))
        .timeout_s(600),
        Scenario::new(
            "trace-module",
            "a trace beside drivers: tracing goes on in the active phase, abort and unload take nothing, hops stay in place until they are released",
        )
        .kernels(&["6.1", "6.12", "7.3", "6.12"])
        .kho_modules(&["kho", "kho_ring"])
        .first(&script(include_str!("trace/module-first.sh")))
        .each(&script(include_str!("trace/module-each.sh")))
        .timeout_s(480),
        Scenario::new(
            "trace-damaged",
            "a flipped bit, a page that says more than it holds and a buffer that is cut off are told, and not shown",
        )
        .kernels(&["6.1", "6.12", "6.12", "6.1"])
        .smp(4)
        .first(&script(include_str!("trace/damaged.sh")))
        .each(&script(include_str!("trace/damaged.sh")))
        .timeout_s(480)
        .memory_in_file()
        .step("flip", |host| {
            let address: u64 = host.value("traced")?.parse().context("where the buffer is")?;
            let memory = host.memory()?;
            let mut byte = [0];
            memory.read_exact_at(&mut byte, address + 40)?;
            memory.write_all_at(&[byte[0] ^ 0x10], address + 40)?;
            Ok(())
        }),
    ]
}

/// Lines that a kernel printed, by kind of line and number of the kernel.
fn told(log: &str) -> BTreeMap<(usize, String), Vec<String>> {
    let mut told: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let mut kernel = 0;
    for line in log.lines() {
        // Time, kind, text: see the log's first lines.
        let Some((_, text)) = line.split_once(" s ") else {
            continue;
        };
        if text.contains("\"event\":\"boot\"") {
            kernel += 1;
        }
        if let Some((what, text)) = text.split_once(" | ")
            && (what.starts_with("before") || what.starts_with("after"))
        {
            told.entry((kernel, what.to_owned()))
                .or_default()
                .push(text.trim_end().to_owned());
        }
    }
    told
}

/// Compares the lines of each kernel with those of the next.
fn compare(outcome: &Outcome) -> Result<String> {
    let log = std::fs::read_to_string(&outcome.log)
        .with_context(|| format!("reading {}", outcome.log.display()))?;
    let told = told(&log);
    let mut compared = 0;
    for ((kernel, what), before) in &told {
        let Some(kind) = what.strip_prefix("before") else {
            continue;
        };
        let after = told.get(&(kernel + 1, format!("after{kind}")));
        let after =
            after.with_context(|| format!("kernel {} told nothing after{kind}", kernel + 1))?;
        for (number, (old, new)) in before.iter().zip(after).enumerate() {
            ensure!(
                old == new,
                "line {number} of what kernel {kernel} told{kind}\nbefore: {old}\nafter:  {new}"
            );
        }
        ensure!(
            before.len() == after.len(),
            "{} lines before, {} after ({what}, kernel {kernel})",
            before.len(),
            after.len()
        );
        compared += before.len();
    }
    for word in [
        "sched_switch:",
        "opened:",
        "vfs_open <-",
        "tracing_mark_write: marker line 1 of hop 0",
        "net:",
        "sys_openat(dfd: ",
        "sys_openat -> 0x",
        "probed: (syscalls.sys_enter_openat) dfd=-100",
        "# 2a buf: 61 62 63 64",
        " (repeats: ",
    ] {
        let has = |(_, lines): (_, &Vec<String>)| lines.iter().any(|line| line.contains(word));
        ensure!(told.iter().any(has), "nobody told of {word}");
    }
    ensure!(told.len() == 12, "{} lists were told, not 12", told.len());
    Ok(format!("{compared} lines are the same"))
}
