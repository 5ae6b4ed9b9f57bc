//! Formatting, lints and unit tests.

use std::process::Command;

use kho_lab::cache::Cache;
use kho_lab::kernel::{self, Store};
use kho_lab::run::End;
use kho_lab::workspace::cargo;

use super::tally::Tally;

/// Target of this machine: xtask runs only on this one.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// Environment variable with the paths of whole kernels for the unit tests of `kho-kexec`.
const KERNELS: &str = "KHO_TEST_KERNELS";

/// Runs all tests that need no guest.
pub fn run(filter: &str, tally: &mut Tally) {
    // The kernel modules' Rust halves are a separate workspace, for another target; their tests run here.
    let module = "module/Cargo.toml";
    let checks: [(&str, &str, &[&str]); 4] = [
        (
            "host:fmt-module",
            "fmt",
            &["fmt", "--all", "--check", "--manifest-path", module],
        ),
        (
            "host:clippy-module",
            "clippy",
            &[
                "clippy",
                "--quiet",
                "--workspace",
                "--tests",
                "--locked",
                "--manifest-path",
                module,
                "--target",
                HOST,
                "--",
                "-D",
                "warnings",
            ],
        ),
        ("host:fmt", "fmt", &["fmt", "--all", "--check"]),
        (
            "host:clippy",
            "clippy",
            &[
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        ),
    ];
    for (name, tool, arguments) in checks {
        if !name.contains(filter) {
            continue;
        }
        let (end, output) = match has(tool) {
            true => judge(cargo().args(arguments)),
            false => (
                End::Skip(format!("cargo {tool} is not installed")),
                String::new(),
            ),
        };
        tally.add(name, &end, "", || output);
    }
    unit_tests(filter, tally);
    let mut module_tests = cargo();
    module_tests.args(["test", "--workspace", "--no-fail-fast", "--locked"]);
    module_tests.args(["--manifest-path", module, "--target", HOST, "--"]);
    module_tests.args((!filter.is_empty()).then_some(filter));
    count(
        &mut module_tests,
        "host:tests-module",
        libtest_counts,
        tally,
    );
    crate::fuzz::short(filter, tally);
    if "host:book".contains(filter) {
        let (end, said) = match crate::book::render(None) {
            Ok(_) => (End::Pass, String::new()),
            Err(error) => (
                End::Fail("the book is not rendered whole".into()),
                format!("{error:#}"),
            ),
        };
        tally.add("host:book", &end, "", || said);
    }
}

/// Returns the paths of the guests' kernels, for the tests that read whole kernels. Prints and leaves out each kernel
/// that the store cannot provide.
fn kernels() -> std::ffi::OsString {
    let images = Cache::open().map(|cache| {
        let image = |name: &&str| match Store::new(&cache).kernel(name) {
            Ok(kernel) => Some(kernel.image),
            Err(error) => {
                eprintln!("xtask: no kernel {name} for the unit tests: {error:#}");
                None
            }
        };
        kernel::names().iter().filter_map(image).collect::<Vec<_>>()
    });
    std::env::join_paths(images.unwrap_or_default()).unwrap_or_default()
}

/// Each unit test counts. Those that print a line starting with SKIP count as skipped.
fn unit_tests(filter: &str, tally: &mut Tally) {
    if has("nextest") {
        let mut command = cargo();
        command.args([
            "nextest",
            "run",
            "--workspace",
            "--no-fail-fast",
            "--no-tests=pass",
            "--color=never",
        ]);
        command.env(KERNELS, kernels());
        command.args(["--status-level=none", "--final-status-level=none"]);
        command.args(["--success-output=final", "--failure-output=final"]);
        command.args((!filter.is_empty()).then_some(filter));
        // nextest also counts tests as skipped that the filter leaves out.
        let counts = |output: &str| {
            let counts = nextest_counts(output);
            Counts {
                inner: if filter.is_empty() { counts.inner } else { 0 },
                ..counts
            }
        };
        count(&mut command, "host:tests", counts, tally);
        // nextest does not run the examples in the documentation.
        let mut examples = cargo();
        examples.args([
            "test",
            "--quiet",
            "--workspace",
            "--doc",
            "--no-fail-fast",
            "--",
        ]);
        examples.args((!filter.is_empty()).then_some(filter));
        count(&mut examples, "host:examples", libtest_counts, tally);
    } else {
        let mut command = cargo();
        command.args([
            "test",
            "--workspace",
            "--no-fail-fast",
            "--",
            "--show-output",
        ]);
        command.env(KERNELS, kernels());
        command.args((!filter.is_empty()).then_some(filter));
        count(&mut command, "host:tests", libtest_counts, tally);
    }
}

/// Numbers of tests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    /// Halves of tests that another test runs, in a process or a name space of their own: `#[ignore = "run by …"]`.
    inner: usize,
}

fn count(command: &mut Command, name: &str, counts: impl Fn(&str) -> Counts, tally: &mut Tally) {
    let (end, output) = judge(command);
    let counts = counts(&output);
    let skips = output
        .lines()
        .filter(|line| line.trim_start().starts_with("SKIP"))
        .collect::<Vec<_>>();
    let skipped = skips.len().min(counts.passed);
    tally.add_passes(counts.passed - skipped);
    for line in skips.iter().take(skipped) {
        println!("{}", line.trim());
        tally.skip(name, line.trim());
    }
    if end == End::Pass {
        println!(
            "PASS {name}: {} tests, {skipped} skipped{}",
            counts.passed - skipped,
            match counts.inner {
                0 => String::new(),
                inner => format!(" ({inner} more are run by others)"),
            }
        );
        return;
    }
    if counts.failed == 0 {
        // The command failed before it ran tests.
        tally.add(name, &end, "", || output);
        return;
    }
    let output = without_passes(&output);
    let end = End::Fail("see below".into());
    for number in 1..counts.failed {
        tally.add(
            &format!("{name} ({number} of {})", counts.failed),
            &end,
            "",
            String::new,
        );
    }
    tally.add(
        &format!("{name} ({0} of {0})", counts.failed),
        &end,
        "",
        || output,
    );
}

/// Returns nextest's report without the output of passing tests, and other reports unchanged.
fn without_passes(output: &str) -> String {
    let mut shown = true;
    let mut text = String::new();
    for line in output.lines() {
        let head = line.trim_start().split_once(" [").map(|(head, _)| head);
        match head {
            Some("PASS") => shown = false,
            Some("FAIL" | "TIMEOUT" | "Summary") => shown = true,
            Some(head) if head.starts_with("SIG") => shown = true,
            _ => {}
        }
        if shown {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn judge(command: &mut Command) -> (End, String) {
    match command.output() {
        Ok(output) => {
            let text = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            let end = match output.status.success() {
                true => End::Pass,
                false => End::Fail(format!("{}", output.status)),
            };
            (end, text)
        }
        Err(error) => (
            End::Broken(format!("cannot start cargo: {error}")),
            String::new(),
        ),
    }
}

fn has(tool: &str) -> bool {
    cargo()
        .args([tool, "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// `Summary [   0.1s] 3 tests run: 2 passed, 1 failed, 4 skipped`; parts that are zero may be missing.
fn nextest_counts(output: &str) -> Counts {
    let Some(line) = output
        .lines()
        .rev()
        .find(|line| line.trim_start().starts_with("Summary ["))
    else {
        return Counts::default();
    };
    let text = line.split_once("run:").map_or("", |(_, text)| text);
    Counts {
        passed: number_before(text, "passed"),
        failed: number_before(text, "failed") + number_before(text, "timed out"),
        inner: number_before(text, "skipped"),
    }
}

/// `test result: ok. 2 passed; 0 failed; 1 ignored; …`, once per program.
fn libtest_counts(output: &str) -> Counts {
    let mut counts = Counts::default();
    for line in output
        .lines()
        .filter(|line| line.starts_with("test result:"))
    {
        counts.passed += number_before(line, "passed");
        counts.failed += number_before(line, "failed");
        counts.inner += number_before(line, "ignored");
    }
    counts
}

fn number_before(text: &str, word: &str) -> usize {
    let before = text
        .split_once(&format!(" {word}"))
        .map_or("", |(before, _)| before);
    before
        .rsplit([' ', '('])
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_tests_are_left_out_of_failures() {
        let output =
            "noise\n        PASS [   0.1s] a\n  SKIP: b\n        FAIL [   0.1s] c\n  panicked\n";
        assert_eq!(
            without_passes(output),
            "noise\n        FAIL [   0.1s] c\n  panicked\n"
        );
    }

    #[test]
    fn summaries_of_both_runners() {
        let nextest =
            "noise\n     Summary [   1.2s] 17 tests run: 15 passed (1 slow), 2 failed, 3 skipped\n";
        assert_eq!(
            nextest_counts(nextest),
            Counts {
                passed: 15,
                failed: 2,
                inner: 3
            }
        );
        let libtest = "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured\n\
                       test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured\n";
        assert_eq!(
            libtest_counts(libtest),
            Counts {
                passed: 3,
                failed: 3,
                inner: 1
            }
        );
        assert_eq!(
            libtest_counts("error: could not compile"),
            Counts::default()
        );
    }
}
