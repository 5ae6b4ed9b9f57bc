//! Runs guest tests, several at a time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use kho_cases::{Scenario, Stock, scenarios};
use kho_lab::run::{End, Outcome, log};

use super::tally::Tally;

/// Memory that QEMU needs besides the guest's own, in MiB.
const OVERHEAD_MIB: u64 = 300;

/// Returns the tests to run. Prints the names of the slow ones that it leaves out.
pub fn choose(filter: &str, slow_too: bool) -> Vec<Scenario> {
    let matching = scenarios::all()
        .into_iter()
        .filter(|scenario| scenario.name.contains(filter));
    let (chosen, left): (Vec<_>, Vec<_>) =
        matching.partition(|scenario| slow_too || !scenario.limits.slow);
    if !left.is_empty() {
        let names: Vec<_> = left.iter().map(|scenario| scenario.name.as_str()).collect();
        println!("not run without --all, because slow: {}", names.join(", "));
    }
    chosen
}

/// Runs the tests and counts them.
pub fn run(stock: &Stock, scenarios: Vec<Scenario>, jobs: Option<usize>, tally: &mut Tally) {
    // Build before any guest runs: a build beside guests would make them exceed their limits.
    let built: BTreeSet<_> = scenarios.iter().flat_map(Scenario::built_kernels).collect();
    for name in built {
        if let Err(error) = stock.lab.build_kernel(name) {
            eprintln!("xtask: {error:#}");
        }
    }
    if scenarios.iter().any(Scenario::needs_next_command)
        && let Err(error) = stock.lab.next_command()
    {
        eprintln!("xtask: {error:#}");
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = jobs
        .unwrap_or(processors.min(4))
        .clamp(1, scenarios.len().max(1));
    let memory = Memory::new(available_mib() * 85 / 100);
    // The longest first: a long test that begins last would leave the other processors idle.
    let mut scenarios = scenarios;
    scenarios.sort_by_key(|scenario| std::cmp::Reverse(scenario.length()));
    let queue = Mutex::new(VecDeque::from(scenarios));
    let (sender, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let sender = sender.clone();
            let (queue, memory) = (&queue, &memory);
            // The thread that waits for a guest starts it, because the kernel kills the guest when that thread ends.
            scope.spawn(move || {
                // Not `while let`: that would hold the queue's lock while a guest runs, so that only one guest runs at
                // a time.
                loop {
                    let Some(scenario) = lock(queue).pop_front() else {
                        return;
                    };
                    let result = run_one(stock, &scenario, memory);
                    if sender.send((scenario, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (scenario, (outcome, remark)) in results {
            let took = format!("{:.1} s {remark}", outcome.took.as_secs_f64());
            tally.add(&scenario.name, &outcome.end, took.trim_end(), || {
                format!(
                    "{}\n(all of it: {})",
                    log::tail(&outcome.log, 40),
                    outcome.log.display()
                )
            });
        }
    });
}

/// Runs one test. Returns its outcome and the remark of its check, empty if there is none.
fn run_one(stock: &Stock, scenario: &Scenario, memory: &Memory) -> (Outcome, String) {
    let machine = &scenario.machine;
    let mib = machine.touched_mib.unwrap_or(machine.mem_mib) + OVERHEAD_MIB;
    let Some(_claim) = memory.claim(mib) else {
        let why = format!(
            "it needs {mib} MiB of memory where {} MiB are available",
            memory.total
        );
        return (Outcome::without_guest(End::Skip(why)), String::new());
    };
    let mut outcome = scenario.run(stock, &mut |_, _| {});
    if outcome.end != End::Pass {
        return (outcome, String::new());
    }
    match scenario.host.check.map(|check| check(&outcome)) {
        None => (outcome, String::new()),
        Some(Ok(remark)) => (outcome, remark),
        Some(Err(error)) => {
            outcome.end = End::Fail(format!("{error:#}"));
            (outcome, String::new())
        }
    }
}

/// The host's memory, which guests share.
struct Memory {
    total: u64,
    free: Mutex<u64>,
    returned: Condvar,
}

/// Memory of one guest; released when dropped.
struct Claim<'a>(&'a Memory, u64);

impl Memory {
    fn new(total: u64) -> Self {
        Self {
            total,
            free: Mutex::new(total),
            returned: Condvar::new(),
        }
    }

    /// Waits until `mib` MiB are free, then claims them. `None` if the host does not have that much memory in all.
    fn claim(&self, mib: u64) -> Option<Claim<'_>> {
        if mib > self.total {
            return None;
        }
        let mut free = lock(&self.free);
        while *free < mib {
            free = self
                .returned
                .wait(free)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *free -= mib;
        Some(Claim(self, mib))
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += self.1;
        self.0.returned.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn available_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back() {
        let memory = Memory::new(100);
        assert!(memory.claim(101).is_none());
        let first = memory.claim(60);
        assert!(first.is_some());
        assert_eq!(*lock(&memory.free), 40);
        drop(first);
        assert_eq!(*lock(&memory.free), 100);
    }
}
