//! Results of suites on khofs beside those on tmpfs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Tests that pass on tmpfs and fail on khofs, each with the reason: suite, test, reason. The list is exact: a
/// difference that is not in the list must not exist, and a difference in the list must.
pub const STATED: [(&str, &str, &str); 0] = [];

/// Tests that do not pass on tmpfs either, for the report: suite, beginning of the test's name, reason.
const ON_BOTH: [(&str, &str, &str); 2] = [
    (
        "fio",
        "direct",
        "tmpfs takes `O_DIRECT` since 6.6, khofs on every kernel",
    ),
    (
        "pjdfstest",
        "link::link_count_max",
        "the C library knows no limit for either",
    ),
];

/// Result of a test on one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Passed.
    Ok,
    /// Failed.
    Failed,
    /// Not tried, because the file system or the machine lacks the feature that the test is about.
    Skipped,
}

/// Results of one test on both file systems; `None` if the test did not finish there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pair {
    /// On tmpfs.
    pub tmpfs: Option<Verdict>,
    /// On khofs.
    pub khofs: Option<Verdict>,
}

/// All results under one kernel, by suite and test.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Results(pub BTreeMap<String, BTreeMap<String, Pair>>);

impl Results {
    /// Reads `@suite SUITE FILESYSTEM TEST RESULT` lines of a guest's log.
    pub fn read(log: &Path) -> Result<Self> {
        let text = std::fs::read(log).with_context(|| format!("reading {}", log.display()))?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// Release of the first kernel and results of a log, if the guest passed.
    pub fn of_pass(log: &Path) -> Result<(String, Self)> {
        let text = std::fs::read(log).with_context(|| format!("reading {}", log.display()))?;
        let text = String::from_utf8_lossy(&text);
        let end = text.lines().last().unwrap_or_default();
        ensure!(
            end.ends_with(" h Pass"),
            "the guest of {} did not pass: {end}",
            log.display()
        );
        let release = text
            .split_once("\"release\":\"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .map(|(release, _)| release.to_owned());
        let release = release.with_context(|| format!("{} names no kernel", log.display()))?;
        Ok((release, Self::parse(&text)?))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut all = Self::default();
        for line in text.lines() {
            let Some((_, rest)) = line.split_once(" s @suite ") else {
                continue;
            };
            let words: Vec<&str> = rest.split_whitespace().collect();
            let [suite, system, test, result] = words[..] else {
                anyhow::bail!("{line:?} is no result");
            };
            let result = match result {
                "ok" => Verdict::Ok,
                "skipped" => Verdict::Skipped,
                "failed" => Verdict::Failed,
                other => anyhow::bail!("{other:?} is no result"),
            };
            let tests = all.0.entry(suite.to_owned()).or_default();
            let pair = tests.entry(test.to_owned()).or_default();
            let place = match system {
                "tmpfs" => &mut pair.tmpfs,
                "khofs" => &mut pair.khofs,
                other => anyhow::bail!("{other:?} is neither tmpfs nor khofs"),
            };
            ensure!(place.is_none(), "{suite} {test} on {system} came twice");
            *place = Some(result);
        }
        Ok(all)
    }

    /// Fails if a test passes on tmpfs and not on khofs without a reason in `stated`, if a stated reason is not needed
    /// any more, or if a suite is missing. Returns the counts.
    pub fn judge(&self, suites: &[&str], stated: &[(&str, &str, &str)]) -> Result<String> {
        let mut wrong = String::new();
        let mut said = Vec::new();
        for suite in suites {
            let tests = self
                .0
                .get(*suite)
                .with_context(|| format!("{suite} gave no result"))?;
            for (test, pair) in tests {
                let excused = stated
                    .iter()
                    .any(|(of, name, _)| of == suite && name == test);
                let worse = pair.tmpfs == Some(Verdict::Ok) && pair.khofs != Some(Verdict::Ok);
                if worse && !excused {
                    let _ = write!(
                        wrong,
                        "\n{suite} {test} passes on tmpfs, on khofs: {}",
                        word(pair.khofs)
                    );
                }
                if excused && !worse {
                    let _ = write!(wrong, "\n{suite} {test} is excused and passes on khofs");
                }
                if pair.tmpfs.is_none() {
                    let _ = write!(wrong, "\n{suite} {test} did not end on tmpfs");
                }
            }
            said.push(format!(
                "{suite}: {} of {} pass on khofs, {} on tmpfs",
                count(tests, |pair| pair.khofs == Some(Verdict::Ok)),
                tests.len(),
                count(tests, |pair| pair.tmpfs == Some(Verdict::Ok)),
            ));
        }
        ensure!(wrong.is_empty(), "khofs is worse than tmpfs:{wrong}");
        Ok(said.join("; "))
    }
}

/// The results under several kernels as a table, one line for each group of tests (the name up to `::`), and a list of
/// all tests that did not pass under every kernel.
pub fn render(all: &[(String, Results)]) -> String {
    let mut text = String::new();
    let mut suites: Vec<&String> = all
        .iter()
        .flat_map(|(_, results)| results.0.keys())
        .collect();
    suites.sort();
    suites.dedup();
    for suite in suites {
        let _ = write!(text, "\n## {suite}\n\n| |");
        for (kernel, _) in all {
            let _ = write!(text, " tmpfs, {kernel} | khofs, {kernel} |");
        }
        let _ = write!(text, "\n| --- |{}\n", " --- |".repeat(2 * all.len()));
        let mut groups: Vec<&str> = tests(all, suite).iter().map(|test| group(test)).collect();
        groups.dedup();
        for group_name in groups {
            let _ = write!(text, "| {group_name} |");
            for (_, results) in all {
                for system in [|pair: &Pair| pair.tmpfs, |pair: &Pair| pair.khofs] {
                    let counts = Counts::of(results, suite, group_name, system);
                    let _ = write!(text, " {counts} |");
                }
            }
            text.push('\n');
        }
        let _ = write!(text, "| **all** |");
        for (_, results) in all {
            for system in [|pair: &Pair| pair.tmpfs, |pair: &Pair| pair.khofs] {
                let _ = write!(text, " {} |", Counts::of(results, suite, "", system));
            }
        }
        text.push('\n');
        text.push_str(&exceptions(all, suite));
    }
    text
}

/// The tests that did not pass under every kernel.
fn exceptions(all: &[(String, Results)], suite: &str) -> String {
    let mut lines = String::new();
    for test in tests(all, suite) {
        let pairs: Vec<(&String, Pair)> = all
            .iter()
            .map(|(kernel, results)| (kernel, results.pair(suite, test)))
            .collect();
        let good = |pair: &Pair| pair.tmpfs == Some(Verdict::Ok) && pair.khofs == Some(Verdict::Ok);
        if pairs.iter().all(|(_, pair)| good(pair)) {
            continue;
        }
        let each: Vec<String> = pairs
            .iter()
            .map(|(kernel, pair)| format!("{kernel}: {} / {}", word(pair.tmpfs), word(pair.khofs)))
            .collect();
        let why = STATED
            .iter()
            .find(|(of, name, _)| *of == suite && *name == test)
            .or_else(|| {
                ON_BOTH
                    .iter()
                    .find(|(of, name, _)| *of == suite && test.starts_with(name))
            });
        let why = why.map_or_else(String::new, |(_, _, why)| format!(". {why}"));
        let _ = writeln!(lines, "* `{test}`: {}{why}", each.join(", "));
    }
    match lines.is_empty() {
        true => "\nEverything passes on both.\n".to_owned(),
        false => format!("\nNot passed everywhere (tmpfs / khofs):\n\n{lines}"),
    }
}

impl Results {
    fn pair(&self, suite: &str, test: &str) -> Pair {
        let pair = self.0.get(suite).and_then(|tests| tests.get(test));
        pair.copied().unwrap_or_default()
    }
}

/// Passed, failed and skipped tests.
#[derive(Default)]
struct Counts([usize; 3]);

impl Counts {
    fn of(
        results: &Results,
        suite: &str,
        of: &str,
        system: impl Fn(&Pair) -> Option<Verdict>,
    ) -> Self {
        let mut counts = Self::default();
        let tests = results.0.get(suite).into_iter().flatten();
        for (_, pair) in tests.filter(|(test, _)| of.is_empty() || group(test) == of) {
            match system(pair) {
                Some(Verdict::Ok) => counts.0[0] += 1,
                Some(Verdict::Skipped) => counts.0[2] += 1,
                Some(Verdict::Failed) | None => counts.0[1] += 1,
            }
        }
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [passed, failed, skipped] = self.0;
        write!(formatter, "{passed} pass")?;
        if failed > 0 {
            write!(formatter, ", **{failed} fail**")?;
        }
        if skipped > 0 {
            write!(formatter, ", {skipped} skipped")?;
        }
        Ok(())
    }
}

fn tests<'a>(all: &'a [(String, Results)], suite: &str) -> Vec<&'a str> {
    let of_suite = all.iter().filter_map(|(_, results)| results.0.get(suite));
    let mut names: Vec<&str> = of_suite
        .flat_map(|tests| tests.keys().map(String::as_str))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn group(test: &str) -> &str {
    test.split_once("::").map_or(test, |(group, _)| group)
}

fn word(result: Option<Verdict>) -> &'static str {
    match result {
        Some(Verdict::Ok) => "pass",
        Some(Verdict::Failed) => "fail",
        Some(Verdict::Skipped) => "skipped",
        None => "no result",
    }
}

fn count(tests: &BTreeMap<String, Pair>, wanted: impl Fn(&Pair) -> bool) -> usize {
    tests.values().filter(|pair| wanted(pair)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "    1.0 s @suite a tmpfs x::1 ok\n    1.1 s @suite a khofs x::1 failed\n\
                       1.2 k @suite a khofs x::1 failed\n    1.3 s @suite a tmpfs y ok\n    1.4 s @suite a khofs y ok\n\
                       1.5 s @suite a tmpfs z failed\n    1.6 s @suite a khofs z failed\n";

    #[test]
    fn worse_than_tmpfs_needs_a_reason_and_a_reason_needs_a_failure() {
        let results = Results::parse(LOG).expect("good lines");
        let error = results
            .judge(&["a"], &[])
            .expect_err("x::1 is worse")
            .to_string();
        assert!(
            error.contains("a x::1") && !error.contains("a z"),
            "{error}"
        );
        let counts = results.judge(&["a"], &[("a", "x::1", "so be it")]);
        assert_eq!(
            counts.expect("excused"),
            "a: 1 of 3 pass on khofs, 2 on tmpfs"
        );
        let both = [("a", "x::1", ""), ("a", "y", "")];
        assert!(results.judge(&["a"], &both).is_err(), "y needs no reason");
        assert!(results.judge(&["b"], &[]).is_err(), "no suite b");
    }

    #[test]
    fn a_test_without_an_end_counts_as_failed() {
        let results = Results::parse("0 s @suite a tmpfs x ok\n").expect("a good line");
        assert!(results.judge(&["a"], &[]).is_err());
    }

    #[test]
    fn tables() {
        let results = Results::parse(LOG).expect("good lines");
        let text = render(&[("6.1".to_owned(), results)]);
        assert!(
            text.contains("| x | 1 pass | 0 pass, **1 fail** |"),
            "{text}"
        );
        assert!(text.contains("* `x::1`: 6.1: pass / fail\n"), "{text}");
        assert!(!text.contains("`y`"), "{text}");
    }
}
