//! QEMU: starts a machine and delivers all its output, line by line, through one channel.

mod machine;
mod qmp;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

pub use machine::{Accelerator, Firmware, MEMORY_FILE, Machine, Media};
pub use qmp::Qmp;

use machine::Sockets;

/// Serial port of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// The kernel's console (and the firmware's before it).
    Console,
    /// Scripts and events.
    Control,
}

/// A line that a guest printed.
#[derive(Debug, Clone)]
pub struct Line {
    /// Time at which the end of the line arrived.
    pub at: Instant,
    /// Serial port on which the guest printed the line.
    pub port: Port,
    /// Text of the line, without its end and without control characters.
    pub text: String,
}

/// A running guest. Dropping it kills the guest.
pub struct Guest {
    qemu: Child,
    companions: Vec<Child>,
    lines: Receiver<Line>,
    control: UnixStream,
    /// The monitor.
    pub qmp: Qmp,
    errors: Receiver<String>,
}

/// Result of [`Guest::next`].
pub enum Next {
    /// A line.
    Line(Line),
    /// No line came before the deadline.
    Silence,
    /// QEMU ended, and all its output has been read.
    Ended(ExitStatus),
}

/// A folder for sockets, with a short name: the system limits the length of sockets' paths. Removed when dropped.
struct SocketDir(PathBuf);

impl SocketDir {
    fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("kho-vm-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        // A left-over folder in the temporary directory does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Guest {
    /// Starts a machine. The thread that calls this must live as long as the guest.
    pub fn start(
        machine: &Machine,
        accelerator: Accelerator,
        media: &Media,
        dir: &Path,
    ) -> Result<Self> {
        let folder = SocketDir::new()?;
        let path = |name: &str| folder.0.join(name);
        let sockets = Sockets {
            console: path("console"),
            control: path("control"),
            qmp: path("qmp"),
        };
        let listen = |path: &Path| {
            UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))
        };
        let listeners = [
            listen(&sockets.console)?,
            listen(&sockets.control)?,
            listen(&sockets.qmp)?,
        ];

        let mut children = Children(machine.companions(dir)?);
        let mut command = machine.command(accelerator, media, &sockets, dir)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut qemu = command.spawn().context("starting QEMU")?;
        let stderr = qemu.stderr.take().context("QEMU has no standard error")?;
        // From here on every return from this function ends both processes.
        children.0.push(qemu);
        let errors = read_all(stderr);

        let mut streams = Vec::new();
        for listener in &listeners {
            let qemu = children.0.last_mut().context("QEMU was just started")?;
            streams.push(accept(listener, qemu, &errors)?);
        }
        let [console, control, qmp] = <[UnixStream; 3]>::try_from(streams)
            .ok()
            .context("three sockets")?;
        let (sender, lines) = mpsc::channel();
        read_lines(console, Port::Console, sender.clone());
        read_lines(
            control.try_clone().context("copying a socket")?,
            Port::Control,
            sender,
        );
        let qmp = Qmp::open(qmp).map_err(|error| {
            // If QEMU dies this early, standard error has the reason.
            let said = errors
                .recv_timeout(Duration::from_secs(1))
                .unwrap_or_default();
            match said.trim().lines().last() {
                Some(said) => anyhow!("QEMU did not start: {said}"),
                None => error.context("QEMU did not start"),
            }
        })?;
        let qemu = children.0.pop().context("QEMU was just started")?;
        let companions = std::mem::take(&mut children.0);
        Ok(Self {
            qemu,
            companions,
            lines,
            control,
            qmp,
            errors,
        })
    }

    /// Waits for the next line until `deadline`.
    pub fn next(&mut self, deadline: Instant) -> Result<Next> {
        match self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(line) => Ok(Next::Line(line)),
            Err(RecvTimeoutError::Timeout) => Ok(Next::Silence),
            Err(RecvTimeoutError::Disconnected) => {
                Ok(Next::Ended(self.qemu.wait().context("waiting for QEMU")?))
            }
        }
    }

    /// Sends a line to the control port.
    pub fn say(&mut self, text: &str) -> Result<()> {
        self.control
            .write_all(format!("{text}\n").as_bytes())
            .context("writing to the guest")
    }

    /// Returns the complaints of QEMU itself, from its standard error.
    pub fn complaints(&self) -> String {
        self.errors
            .recv_timeout(Duration::from_secs(1))
            .unwrap_or_default()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        kill(&mut self.qemu);
        self.companions.iter_mut().for_each(kill);
    }
}

/// Child processes that are killed when dropped.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(kill);
    }
}

fn kill(child: &mut Child) {
    // Both calls fail only for a child that has already ended.
    let _ = child.kill();
    let _ = child.wait();
}

fn accept(
    listener: &UnixListener,
    qemu: &mut Child,
    errors: &Receiver<String>,
) -> Result<UnixStream> {
    listener
        .set_nonblocking(true)
        .context("preparing a socket")?;
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream
                    .set_nonblocking(false)
                    .context("preparing a socket")?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("waiting for QEMU's sockets"),
        }
        if let Some(status) = qemu.try_wait().context("looking after QEMU")? {
            let said = errors
                .recv_timeout(Duration::from_secs(1))
                .unwrap_or_default();
            bail!("QEMU ended at once ({status}): {}", said.trim());
        }
        if Instant::now() > patience {
            bail!("QEMU did not open its sockets in 30 s");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

fn read_lines(from: impl Read + Send + 'static, port: Port, to: Sender<Line>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut bytes = Vec::new();
        while reader
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|len| len > 0)
        {
            let line = Line {
                at: Instant::now(),
                port,
                text: printable(&bytes),
            };
            bytes.clear();
            if to.send(line).is_err() {
                return;
            }
        }
    });
}

/// Returns a line's text without its end and without the escape sequences that firmware prints.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut clean = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' && letters.next_if_eq(&'[').is_some() {
            // A control sequence ends at its first letter.
            while letters
                .next()
                .is_some_and(|inside| !inside.is_ascii_alphabetic())
            {}
        } else if letter == '\t' || !letter.is_control() {
            clean.push(letter);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_go() {
        assert_eq!(
            printable(b"\x1b[2J\x1b[01;01H[    0.0] Linux\tx\r\n"),
            "[    0.0] Linux\tx"
        );
        assert_eq!(printable(b"\x1b"), "");
    }
}
