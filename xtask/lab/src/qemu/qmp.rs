//! A small client of QEMU's monitor protocol.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The monitor of one guest.
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Opens the monitor: exchanges the greetings of the protocol.
    pub fn open(stream: UnixStream) -> Result<Self> {
        stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .context("setting a time limit")?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
        };
        let greeting = qmp.receive()?;
        if greeting.get("QMP").is_none() {
            bail!("QEMU's monitor greets with {greeting}");
        }
        qmp.run("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its result.
    pub fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = format!(
            "{}\n",
            json!({ "execute": command, "arguments": arguments })
        );
        self.reader
            .get_ref()
            .write_all(line.as_bytes())
            .with_context(|| format!("sending {command} to QEMU"))?;
        loop {
            let mut answer = self
                .receive()
                .with_context(|| format!("waiting for QEMU's answer to {command}"))?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Writes guest-physical memory to a file of the host.
    pub fn save_memory(&mut self, start: u64, len: u64, to: &Path) -> Result<()> {
        self.run(
            "pmemsave",
            json!({ "val": start, "size": len, "filename": to }),
        )?;
        Ok(())
    }

    /// Receives one message; events are messages too.
    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self
            .reader
            .read_line(&mut line)
            .context("reading from QEMU's monitor")?
            == 0
        {
            bail!("QEMU's monitor was closed");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU's monitor says {line:?}"))
    }
}
