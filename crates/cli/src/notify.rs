//! Requests to systemd for more time (sd_notify(3), `EXTEND_TIMEOUT_USEC=`). Without systemd as its parent, a process
//! sends none.

use rustix::time::{ClockId, clock_gettime};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Interval at which the process checks its own progress.
const PERIOD: Duration = Duration::from_secs(5);

/// Time that each message asks for. The next message must come within it.
const GRANT: Duration = Duration::from_secs(60);

/// Asks systemd for this much time from now on.
pub fn extend(time: Duration) {
    if let Some(socket) = socket() {
        ask(&socket, time);
    }
}

fn socket() -> Option<PathBuf> {
    std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from)
}

fn ask(socket: &Path, time: Duration) {
    let text = format!("EXTEND_TIMEOUT_USEC={}", time.as_micros());
    let sent = UnixDatagram::unbound().and_then(|from| from.send_to(text.as_bytes(), socket));
    if let Err(err) = sent {
        // The process goes on, within the time that the unit has.
        eprintln!("<4>kho: {}: {err}", socket.display());
    }
}

/// Asks for more time as long as this process makes progress: it reads, or uses the CPU, also inside a system call. A
/// process that hangs sends no request, and the unit's timeout ends it.
#[derive(Debug)]
pub struct WhileWorking {
    /// Sender whose drop ends the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WhileWorking {
    /// Starts the requests, which end when the value is dropped. `None` if systemd did not set a socket.
    pub fn start() -> Option<Self> {
        Self::telling(socket()?, PERIOD)
    }

    fn telling(socket: PathBuf, period: Duration) -> Option<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = Builder::new()
            .name("notify".to_owned())
            .spawn(move || {
                let mut before = Work::now();
                while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                    let now = Work::now();
                    if now.went_on_since(&before, period) {
                        ask(&socket, GRANT);
                    }
                    before = now;
                }
            })
            .ok()?;
        Some(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for WhileWorking {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // The result of the thread is not used, not even after a panic.
            let _ = thread.join();
        }
    }
}

/// Amount of work that this process has done.
struct Work {
    /// CPU time of all threads, including system calls.
    cpu: Duration,
    /// Number of bytes that the process read.
    read: u64,
}

impl Work {
    fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        // Without CONFIG_TASK_IO_ACCOUNTING only the CPU time shows progress.
        let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        Self {
            cpu: Duration::new(
                u64::try_from(cpu.tv_sec).unwrap_or(0),
                u32::try_from(cpu.tv_nsec).unwrap_or(0),
            ),
            read: io
                .lines()
                .find_map(|line| line.strip_prefix("rchar: ")?.parse().ok())
                .unwrap_or(0),
        }
    }

    /// Whether the process has done more work than this measurement takes.
    fn went_on_since(&self, before: &Self, period: Duration) -> bool {
        self.cpu.saturating_sub(before.cpu) > period / 100
            || self.read.saturating_sub(before.read) > 4096
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_asked_for_while_there_is_work_and_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("notify");
        let heard = UnixDatagram::bind(&socket).unwrap();
        let mut text = [0; 100];
        let asking = WhileWorking::telling(socket, Duration::from_millis(20)).unwrap();
        for _ in 0..3 {
            heard.set_nonblocking(true).unwrap();
            // Works until a message arrives.
            let len = loop {
                match heard.recv(&mut text) {
                    Ok(len) => break len,
                    Err(err) => assert_eq!(err.kind(), std::io::ErrorKind::WouldBlock),
                }
            };
            assert_eq!(&text[..len], b"EXTEND_TIMEOUT_USEC=60000000");
        }
        drop(asking);
        while heard.recv(&mut text).is_ok() {}
        assert!(heard.recv(&mut text).is_err());
    }

    #[test]
    fn what_hangs_makes_no_progress() {
        let work = |cpu, read| Work {
            cpu: Duration::from_millis(cpu),
            read,
        };
        let before = work(1000, 5000);
        for (now, went_on) in [
            (work(1000, 5000), false),
            (work(1049, 5200), false),
            (work(1051, 5000), true),
            (work(1000, 9097), true),
        ] {
            assert_eq!(now.went_on_since(&before, PERIOD), went_on);
        }
    }
}
