//! The guest's end of the control port.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};

use anyhow::{Context, Result, bail};
use kho_guest::{CONTROL_PORT, Event, LIVES, TOKEN_PARAMETER, go, parameter};
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};

/// The control port, and the token that identifies its events.
pub struct Control {
    port: File,
    token: String,
}

impl Control {
    /// Opens the port, takes the token from the kernel command line.
    pub fn open() -> Result<Self> {
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .open(CONTROL_PORT)
            .with_context(|| format!("opening {CONTROL_PORT}"))?;
        let cmdline = std::fs::read("/proc/cmdline").context("reading /proc/cmdline")?;
        let cmdline = String::from_utf8_lossy(&cmdline);
        let token = parameter(&cmdline, TOKEN_PARAMETER)
            .unwrap_or_default()
            .to_owned();
        Ok(Self { port, token })
    }

    /// Switches off echo and line editing, because a program writes here, not a person.
    pub fn make_raw(&self) -> Result<()> {
        let mut settings = tcgetattr(&self.port).context("reading the control port's settings")?;
        settings.make_raw();
        tcsetattr(&self.port, OptionalActions::Now, &settings)
            .context("making the control port raw")
    }

    /// Sends one event in one write, so that no other output gets between its bytes.
    pub fn send(&self, event: &Event) -> Result<()> {
        self.line(event.to_line(&self.token).as_bytes())?;
        // The next action may be a kexec, which does not wait for the FIFO.
        tcdrain(&self.port).context("draining the control port")
    }

    /// Prints one line: an event, or a line of a command's output.
    pub fn line(&self, line: &[u8]) -> Result<()> {
        let mut whole = line.to_vec();
        whole.push(b'\n');
        (&self.port)
            .write_all(&whole)
            .context("writing to the control port")
    }
}

/// `kho-guest same`
pub fn same(key: String, value: Option<String>) -> Result<()> {
    Control::open()?.send(&Event::Same {
        key,
        value: or_stdin(value)?,
    })
}

/// `kho-guest report`
pub fn report(key: String, value: Option<String>) -> Result<()> {
    Control::open()?.send(&Event::Report {
        key,
        value: or_stdin(value)?,
    })
}

/// `kho-guest skip`
pub fn skip(why: String) -> Result<()> {
    Control::open()?.send(&Event::Skip { why })
}

/// `kho-guest mark`
pub fn mark(name: String) -> Result<()> {
    let control = Control::open()?;
    let answer = go(&name);
    control.send(&Event::Mark { name: name.clone() })?;
    for line in BufReader::new(&control.port).lines() {
        if line.context("waiting for the host")?.trim() == answer {
            return Ok(());
        }
    }
    bail!("the host went away at mark {name:?}")
}

/// `kho-guest lives`
pub fn lives() -> Result<()> {
    let control = Control::open()?;
    control.send(&Event::Lives)?;
    for line in BufReader::new(&control.port).lines() {
        if let Some(number) = line
            .context("waiting for the host")?
            .trim()
            .strip_prefix(LIVES)
        {
            println!("{number}");
            return Ok(());
        }
    }
    bail!("the host went away")
}

fn or_stdin(value: Option<String>) -> Result<String> {
    if let Some(value) = value {
        return Ok(value);
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("reading standard input")?;
    Ok(text.trim().to_owned())
}
