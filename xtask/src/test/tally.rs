//! Results of tests, counted.

use std::fmt::Write as _;

use kho_lab::run::End;

/// Results so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Whether a skipped test counts as failed.
    no_skips: bool,
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Name, reason and details of every test that did not pass.
    failures: Vec<(String, String, String)>,
}

impl Tally {
    /// Returns an empty tally. With `no_skips`, a test that is skipped fails.
    pub fn new(no_skips: bool) -> Self {
        Self {
            no_skips,
            ..Self::default()
        }
    }

    /// Counts one test and prints its result. `remark` follows its name; `details` are shown at the end if it failed.
    pub fn add(&mut self, name: &str, end: &End, remark: &str, details: impl FnOnce() -> String) {
        match end {
            End::Pass => {
                self.passed += 1;
                println!("PASS {name} {remark}");
            }
            End::Skip(why) => {
                println!("SKIP {name}: {why}");
                self.skip(name, why);
            }
            _ => {
                self.failed += 1;
                let what = end.to_string();
                println!("{name}: {what} {remark}");
                self.failures.push((name.to_owned(), what, details()));
            }
        }
    }

    /// Counts many tests that another program ran and that passed.
    pub fn add_passes(&mut self, passed: usize) {
        self.passed += passed;
    }

    /// Counts a test that could not be tried here. The caller has already printed that.
    pub fn skip(&mut self, name: &str, why: &str) {
        match self.no_skips {
            true => {
                self.failed += 1;
                let what = format!("skipped, which --no-skips does not allow: {why}");
                self.failures.push((name.to_owned(), what, String::new()));
            }
            false => self.skipped += 1,
        }
    }

    /// Number of failed tests.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Returns the failures with their details, then the numbers of passed, failed and skipped tests.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for (name, what, details) in &self.failures {
            let _ = write!(text, "\n==== {name}: {what}\n{}\n", details.trim_end());
        }
        // Repeat the failures in short, for readers who see only the end of the output.
        for (name, what, _) in &self.failures {
            let _ = writeln!(text, "{name}: {}", what.lines().next().unwrap_or_default());
        }
        let _ = write!(
            text,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_and_failures_come_before_it() {
        let mut tally = Tally::default();
        tally.add("a", &End::Pass, "", String::new);
        tally.add("b", &End::Hang("silence".into()), "", || "tail".into());
        tally.add_passes(10);
        // Not by `add`: the line that it prints would count in a run of these tests.
        tally.skip("c", "no KVM");
        assert_eq!(
            tally.summary(),
            "\n==== b: HANG: silence\ntail\nb: HANG: silence\n11 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn what_is_skipped_fails_on_demand() {
        let mut tally = Tally::new(true);
        tally.add("a", &End::Pass, "", String::new);
        tally.skip("b", "no dtc");
        assert_eq!(tally.failed(), 1);
        let summary = tally.summary();
        assert!(summary.contains("\nb: skipped, which --no-skips does not allow: no dtc\n"));
        assert!(summary.ends_with("1 passed, 1 failed, 0 skipped"));
    }
}
