//! Judges a guest by its output.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use kho_guest::Event;

use super::complaint::{self, Complaint};
use crate::qemu::{Line, Port};

/// Result of a guest's run, or of another test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Everything passed.
    Pass,
    /// The guest reported a failure, or a comparison on the host failed.
    Fail(String),
    /// The kernel died or complained.
    Panic(String),
    /// The guest stopped sending output, or did not end in time.
    Hang(String),
    /// The harness itself failed.
    Broken(String),
    /// The test could not be tried on this machine.
    Skip(String),
}

impl fmt::Display for End {
    /// One word and the reason.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => formatter.write_str("PASS"),
            Self::Fail(why) => write!(formatter, "FAIL: {why}"),
            Self::Panic(why) => write!(formatter, "PANIC: {why}"),
            Self::Hang(why) => write!(formatter, "HANG: {why}"),
            Self::Broken(why) => write!(formatter, "BROKEN harness: {why}"),
            Self::Skip(why) => write!(formatter, "SKIP: {why}"),
        }
    }
}

/// One kernel, from its first event to the end.
#[derive(Debug, Clone)]
pub struct Life {
    /// Time of the first event of the kernel's PID 1.
    pub booted: Instant,
    /// `uname -r`.
    pub release: String,
    /// Time at which the kernel began to leave for the next one; `None` if it did not.
    pub left: Option<Instant>,
    /// Values that were measured under this kernel, by name.
    pub values: BTreeMap<String, String>,
}

/// Action that follows a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Tell the guest how often it was switched on.
    Lives,
    /// Do the host's step of this name, then let the guest go on.
    Step(String),
    /// Wait a little for the rest of a message, then stop the guest.
    StopSoon,
    /// The guest powers itself off now.
    Off,
}

/// The state of a judgement.
pub struct Judge {
    token: String,
    stages: usize,
    /// The kernels that were reached.
    pub lives: Vec<Life>,
    /// Index in `lives` of the first kernel since power was last switched on.
    since: usize,
    /// Number of times that power was switched on.
    switched_on: usize,
    /// Whether the next boot is expected to come from the firmware, not by kexec.
    cold: bool,
    /// Number of kernels that may still die, each followed by a boot from the firmware.
    may_panic: usize,
    /// Number of kernels that may still die and are then followed by a crash kernel and the next stage.
    may_crash: usize,
    /// Whether a kernel of `may_crash` has died and the next stage has not begun.
    crashed: bool,
    /// Values to compare, by key: the first one, and how often the key was told.
    same: BTreeMap<String, (String, usize)>,
    passed: Vec<bool>,
    skipped: Option<String>,
    trouble: Option<End>,
    warning: Option<String>,
    done: bool,
}

impl Judge {
    /// Returns the judge of a guest with this token and this number of stages.
    pub fn new(token: &str, stages: usize) -> Self {
        Self {
            token: token.to_owned(),
            stages,
            lives: Vec::new(),
            since: 0,
            switched_on: 1,
            cold: false,
            may_panic: 0,
            may_crash: 0,
            crashed: false,
            same: BTreeMap::new(),
            passed: vec![false; stages],
            skipped: None,
            trouble: None,
            warning: None,
            done: false,
        }
    }

    /// Expects `panics` kernels to die.
    pub fn expect_panics(&mut self, panics: usize) {
        self.may_panic = panics;
    }

    /// Expects `crashes` kernels to die right after they left for the next stage.
    pub fn expect_crashes(&mut self, crashes: usize) {
        self.may_crash = crashes;
    }

    /// Expects the first stage again, because power was cut or is about to be cut.
    pub fn expect_cold_boot(&mut self) {
        self.cold = true;
    }

    /// Number of times that power was switched on.
    pub fn switched_on(&self) -> usize {
        self.switched_on
    }

    /// Processes a line. Returns its event, if it has one, and the action that follows.
    pub fn line(&mut self, line: &Line) -> (Option<Event>, Action) {
        if line.port == Port::Console {
            return (None, self.console(&line.text));
        }
        let Some(event) = Event::from_line(&line.text, &self.token) else {
            return (None, Action::None);
        };
        let action = self.event(&event, line.at);
        (Some(event), action)
    }

    /// The judgement after QEMU ended.
    pub fn end(&self) -> End {
        if let Some(trouble) = &self.trouble {
            return trouble.clone();
        }
        if let Some(warning) = &self.warning {
            return End::Panic(format!("the kernel warns: {warning}"));
        }
        match self.passed.iter().position(|passed| !passed) {
            Some(hop) if self.lives.len() - self.since <= hop => {
                End::Panic(format!("the guest ended before stage {hop} began"))
            }
            Some(hop) => End::Panic(format!("the guest ended without a verdict of stage {hop}")),
            None if self.cold => {
                End::Panic("the guest ended where it should have started again".into())
            }
            None if self.may_panic > 0 => End::Fail(format!(
                "{} kernels that should have died did not",
                self.may_panic
            )),
            None if self.may_crash > 0 => End::Fail(format!(
                "{} kernels that should have crashed did not",
                self.may_crash
            )),
            None if !self.done => {
                End::Panic("the guest ended after its last verdict without powering off".into())
            }
            None => self.skipped.clone().map_or(End::Pass, End::Skip),
        }
    }

    /// Returns the keys whose value was told only once, and so compared with nothing.
    pub fn told_once(&self) -> Vec<String> {
        let once = self.same.iter().filter(|(_, (_, told))| *told == 1);
        once.map(|(key, _)| key.clone()).collect()
    }

    /// The judgement if the guest hangs; `how` describes the hang.
    pub fn hang(&self, how: &str) -> End {
        match &self.trouble {
            Some(trouble) => trouble.clone(),
            None => End::Hang(format!("{how}, {}", self.progress())),
        }
    }

    /// Describes the stage or the hop that the guest is in.
    pub fn progress(&self) -> String {
        match self.lives.last() {
            None => "before the first kernel reached its init".into(),
            Some(life) if life.left.is_some() => {
                format!("in hop {} from {}", self.lives.len(), life.release)
            }
            Some(life) => format!(
                "in stage {} under {}",
                self.lives.len() - self.since - 1,
                life.release
            ),
        }
    }

    fn console(&mut self, text: &str) -> Action {
        match complaint::find(text) {
            None => Action::None,
            Some(Complaint::Warning) if self.cold || self.crashed => Action::None,
            Some(Complaint::Warning) => {
                if self.warning.is_none() {
                    self.warning = Some(format!("{text:?} {}", self.progress()));
                }
                Action::None
            }
            // A kernel that is expected to die may print anything.
            Some(_) if self.cold || self.crashed => Action::None,
            Some(Complaint::Fatal) if self.may_crash > 0 && self.stage_is_over() => {
                self.may_crash -= 1;
                self.crashed = true;
                Action::None
            }
            Some(Complaint::Fatal) if self.may_panic > 0 => {
                self.may_panic -= 1;
                self.cold = true;
                Action::None
            }
            Some(Complaint::Fatal) => {
                if self.trouble.is_none() {
                    self.trouble = Some(End::Panic(format!("{text:?} {}", self.progress())));
                }
                Action::StopSoon
            }
        }
    }

    /// Whether the running kernel's stage is over.
    fn stage_is_over(&self) -> bool {
        self.lives.last().is_some_and(|life| life.left.is_some())
    }

    fn event(&mut self, event: &Event, at: Instant) -> Action {
        match event {
            Event::Boot { hop, release, .. } => return self.boot(*hop, release, at),
            Event::Verdict {
                hop, pass: true, ..
            } => match self.passed.get_mut(*hop) {
                Some(passed) => *passed = true,
                None => {
                    return self.fail(format!("a verdict of stage {hop}, which does not exist"));
                }
            },
            Event::Verdict { hop, why, .. } => return self.fail(format!("stage {hop}: {why}")),
            Event::Exec { .. } => {
                if let Some(life) = self.lives.last_mut() {
                    life.left = Some(at);
                }
            }
            Event::Same { key, value } => {
                let entry = self.same.entry(key.clone());
                let (first, told) = entry.or_insert_with(|| (value.clone(), 0));
                *told += 1;
                let first = first.clone();
                if first != *value {
                    let why = format!("{key} was {first:?} and is {value:?} {}", self.progress());
                    return self.fail(why);
                }
            }
            Event::Report { key, value } => {
                if let Some(life) = self.lives.last_mut() {
                    life.values.insert(key.clone(), value.clone());
                }
            }
            Event::Mark { name } => return Action::Step(name.clone()),
            Event::Lives => return Action::Lives,
            Event::Skip { why } => self.skipped = Some(why.clone()),
            Event::Done => {
                self.done = true;
                return Action::Off;
            }
        }
        Action::None
    }

    fn boot(&mut self, hop: usize, release: &str, at: Instant) -> Action {
        self.crashed = false;
        if std::mem::take(&mut self.cold) {
            self.since = self.lives.len();
            self.switched_on += 1;
            self.passed.fill(false);
        }
        let due = self.lives.len() - self.since;
        if hop != due || hop >= self.stages {
            return self.fail(format!("stage {hop} began where stage {due} was due"));
        }
        self.lives.push(Life {
            booted: at,
            release: release.to_owned(),
            left: None,
            values: BTreeMap::new(),
        });
        Action::None
    }

    fn fail(&mut self, why: String) -> Action {
        self.trouble.get_or_insert(End::Fail(why));
        // After a verdict of its own the guest powers off; after a failed comparison the host must stop it.
        Action::StopSoon
    }
}

/// Time from the start of a hop to the next kernel's init, for each hop.
pub fn hop_times(lives: &[Life]) -> Vec<Duration> {
    lives
        .windows(2)
        .map(|pair| {
            pair[1]
                .booted
                .saturating_duration_since(pair[0].left.unwrap_or(pair[1].booted))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(judge: &mut Judge, port: Port, text: &str) -> Action {
        judge
            .line(&Line {
                at: Instant::now(),
                port,
                text: text.into(),
            })
            .1
    }

    fn tell(judge: &mut Judge, event: &Event) -> Action {
        say(judge, Port::Control, &event.to_line("t"))
    }

    fn boot(hop: usize) -> Event {
        Event::Boot {
            hop,
            release: "r".into(),
            uptime_ms: 1,
        }
    }

    fn pass(hop: usize) -> Event {
        Event::Verdict {
            hop,
            pass: true,
            why: String::new(),
        }
    }

    #[test]
    fn everything_must_have_been_said() {
        let mut judge = Judge::new("t", 2);
        assert!(matches!(judge.end(), End::Panic(_)));
        for event in [boot(0), pass(0), Event::Exec { hop: 0 }, boot(1), pass(1)] {
            assert_eq!(tell(&mut judge, &event), Action::None);
            assert!(matches!(judge.end(), End::Panic(_)));
        }
        assert_eq!(tell(&mut judge, &Event::Done), Action::Off);
        assert_eq!(judge.end(), End::Pass);
        assert_eq!(hop_times(&judge.lives).len(), 1);
    }

    #[test]
    fn a_kernel_warning_spoils_a_pass_and_a_panic_stops() {
        let mut judge = Judge::new("t", 1);
        tell(&mut judge, &boot(0));
        assert_eq!(
            say(&mut judge, Port::Console, "[ 1.0] WARNING: CPU: 0"),
            Action::None
        );
        tell(&mut judge, &pass(0));
        tell(&mut judge, &Event::Done);
        assert!(matches!(judge.end(), End::Panic(why) if why.contains("WARNING")));
        assert_eq!(
            say(&mut judge, Port::Console, "Kernel panic - x"),
            Action::StopSoon
        );
    }

    #[test]
    fn scripts_may_say_what_they_like() {
        let mut judge = Judge::new("t", 1);
        assert_eq!(say(&mut judge, Port::Control, "Kernel panic"), Action::None);
        assert_eq!(
            say(&mut judge, Port::Control, &Event::Done.to_line("other")),
            Action::None
        );
        assert!(matches!(judge.end(), End::Panic(_)));
    }

    #[test]
    fn values_are_compared_over_hops() {
        let mut judge = Judge::new("t", 2);
        let same = |value: &str| Event::Same {
            key: "tree".into(),
            value: value.into(),
        };
        tell(&mut judge, &boot(0));
        assert_eq!(tell(&mut judge, &same("a")), Action::None);
        assert_eq!(judge.told_once(), ["tree"]);
        tell(&mut judge, &boot(1));
        assert_eq!(tell(&mut judge, &same("b")), Action::StopSoon);
        assert!(judge.told_once().is_empty());
        assert!(matches!(judge.end(), End::Fail(why) if why.contains("tree")));
    }

    #[test]
    fn a_cold_boot_in_the_middle_is_no_hop() {
        let mut judge = Judge::new("t", 2);
        tell(&mut judge, &boot(0));
        tell(&mut judge, &boot(0));
        assert!(matches!(judge.end(), End::Fail(_)));
    }

    #[test]
    fn a_crash_is_followed_by_the_next_stage() {
        let panic = "Kernel panic - not syncing: sysrq triggered crash";
        let mut judge = Judge::new("t", 2);
        judge.expect_crashes(1);
        tell(&mut judge, &boot(0));
        tell(&mut judge, &pass(0));
        tell(&mut judge, &Event::Exec { hop: 0 });
        for text in [panic, "Call Trace:", "BUG: in the crash kernel too"] {
            assert_eq!(say(&mut judge, Port::Console, text), Action::None);
        }
        tell(&mut judge, &boot(1));
        tell(&mut judge, &pass(1));
        tell(&mut judge, &Event::Done);
        assert_eq!(judge.end(), End::Pass);
        // A crash is allowed only once, and not in the middle of a stage.
        assert_eq!(say(&mut judge, Port::Console, panic), Action::StopSoon);
        let mut judge = Judge::new("t", 2);
        judge.expect_crashes(1);
        tell(&mut judge, &boot(0));
        assert_eq!(say(&mut judge, Port::Console, panic), Action::StopSoon);
        // An expected crash must happen.
        let mut judge = Judge::new("t", 1);
        judge.expect_crashes(1);
        for event in [boot(0), pass(0), Event::Done] {
            tell(&mut judge, &event);
        }
        assert!(matches!(judge.end(), End::Fail(why) if why.contains("should have crashed")));
    }
}
