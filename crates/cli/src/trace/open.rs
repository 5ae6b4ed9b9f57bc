//! Access to the bytes of traces that arrived.

use super::arrived::{ArrivedHop, ArrivedPart, Kind};
use crate::exit::{Fail, OrStatus, Status};
use crate::session::Session;
use kho_trace::Taken;
use kho_trace::meta::Meta;
use kho_trace::take::TakenBuffer;

impl ArrivedHop {
    /// Returns the kernel log.
    ///
    /// # Errors
    ///
    /// [`Status::NoSuchEntry`] if the trace has no log, [`Status::BlobCorrupt`] if the log is damaged.
    pub fn log(&self, session: &Session) -> Result<Vec<u8>, Fail> {
        let part = self.part(&Kind::Log).ok_or_else(|| {
            Fail::new(
                Status::NoSuchEntry,
                format!("no kernel log of hop {} arrived", self.hop),
            )
        })?;
        self.read(part, session)
    }

    fn part(&self, kind: &Kind) -> Option<&ArrivedPart> {
        self.parts.iter().find(|part| part.kind == *kind)
    }

    /// Returns the bytes of a part after a check of their hash.
    fn read(&self, part: &ArrivedPart, session: &Session) -> Result<Vec<u8>, Fail> {
        let name = format!("trace of hop {}, {}", self.hop, part.kind.label());
        session.read_checked(&name, &part.mem, part.size, &part.blake3)
    }

    /// Returns the trace, and a failure for each buffer that is left out because it cannot be trusted.
    ///
    /// # Errors
    ///
    /// If the part that describes the buffers is missing or damaged.
    pub fn open(&self, session: &Session) -> Result<(Taken, Vec<Fail>), Fail> {
        let part = self.part(&Kind::Meta).ok_or_else(|| {
            Fail::new(
                Status::UnknownVersion,
                format!("nothing explains the trace of hop {}", self.hop),
            )
            .fix("it was handed over by a newer kho, which can read it")
        })?;
        let meta =
            Meta::from_bytes(&self.read(part, session)?).or_status(Status::UnknownVersion)?;
        let (mut buffers, mut damaged) = (Vec::new(), Vec::new());
        for part in &self.parts {
            let Kind::Cpu {
                array,
                cpu,
                sub_buffer,
            } = &part.kind
            else {
                continue;
            };
            match self.read(part, session) {
                Ok(bytes) => buffers.push(TakenBuffer {
                    array: array.clone(),
                    cpu: *cpu,
                    page_size: usize::try_from(*sub_buffer).unwrap_or(0),
                    bytes,
                }),
                Err(fail) => damaged.push(fail),
            }
        }
        let taken = Taken {
            meta,
            buffers,
            log: Vec::new(),
        };
        Ok((taken, damaged))
    }
}
