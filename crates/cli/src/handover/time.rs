//! Duration of a capture, and its limit.

use crate::exit::{Fail, Status};
use crate::hash;
use crate::output;
use crate::session::Session;
use kho_archive::Target;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Number of bytes that are copied and hashed to measure the machine's speed.
const SAMPLE: usize = 32 << 20;

/// Returns the shortest time that a capture of `bytes` takes on this machine: every byte is copied twice (into the
/// image, and by the kernel) and hashed once. Content from a disk or in many small files takes longer.
pub fn at_least(bytes: u64) -> Duration {
    if bytes == 0 {
        return Duration::ZERO;
    }
    let source = vec![1_u8; SAMPLE];
    let mut copy = vec![0_u8; SAMPLE];
    let started = Instant::now();
    copy.copy_from_slice(std::hint::black_box(&source));
    let hashed = hash::written(SAMPLE as u64, vec![&mut copy], |out| out.put(&source));
    // The target has the size of the sample, so the writing cannot fail.
    let _ = std::hint::black_box(hashed);
    scaled(started.elapsed(), bytes)
}

/// Scales the time of a sample to `bytes` bytes.
fn scaled(sample: Duration, bytes: u64) -> Duration {
    let nanos = sample.as_nanos().saturating_mul(u128::from(bytes)) / SAMPLE as u128;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Returns the time that systemd allows for a shutdown with `kexec.target` (`JobTimeoutUSec`,
/// org.freedesktop.systemd1(5)); `None` if there is no limit, or if systemd does not run. The capture's own unit
/// extends its time while it works.
pub fn limit(session: &Session) -> Option<Duration> {
    if !session.has_systemd() {
        return None;
    }
    let output = Command::new("busctl")
        .args([
            "get-property",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1/unit/kexec_2etarget",
            "org.freedesktop.systemd1.Unit",
            "JobTimeoutUSec",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Parses an answer such as `t 1800000000`, in microseconds. All ones, and 0, mean no limit.
fn parse(text: &str) -> Option<Duration> {
    let micros: u64 = text.trim().strip_prefix("t ")?.parse().ok()?;
    (!matches!(micros, 0 | u64::MAX)).then(|| Duration::from_micros(micros))
}

/// Refuses a capture that would take longer than the limit, unless `slow_ok` is set.
///
/// # Errors
///
/// [`Status::TimeLimit`] if the capture would take longer.
pub fn require(time: Duration, limit: Option<Duration>, slow_ok: bool) -> Result<(), Fail> {
    match limit {
        Some(limit) if time > limit && !slow_ok => Err(Fail::new(
            Status::TimeLimit,
            format!(
                "the capture takes {} at least, and the whole shutdown may take {} (JobTimeoutSec= of kexec.target)",
                output::seconds(time),
                output::seconds(limit)
            ),
        )
        .fix("systemctl edit kexec.target sets another limit; keep less, or --slow-ok arms all the same")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_in_time_is_refused() {
        assert_eq!(parse("t 1800000000\n"), Some(Duration::from_secs(1800)));
        for none in ["t 18446744073709551615\n", "t 0", "", "s x", "t -1"] {
            assert_eq!(parse(none), None, "{none:?}");
        }
        let hundred = scaled(Duration::from_millis(32), 100 << 30);
        assert_eq!(hundred.as_secs(), 102);
        assert_eq!(
            scaled(Duration::MAX, u64::MAX),
            Duration::from_nanos(u64::MAX)
        );
        let minute = Some(Duration::from_secs(60));
        let fail = require(hundred, minute, false).unwrap_err();
        assert_eq!(fail.status, Status::TimeLimit);
        assert!(fail.what.contains("102 s at least"), "{}", fail.what);
        for (limit, slow_ok) in [(minute, true), (None, false), (Some(hundred), false)] {
            assert!(require(hundred, limit, slow_ok).is_ok());
        }
        assert!(at_least(1 << 40) > at_least(0));
    }
}
