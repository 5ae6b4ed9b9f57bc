//! Traces that arrived.

use super::wish::Wish;
use crate::exit::{Fail, OrStatus, Status};
use crate::session::Session;
use kho::PhysRange;
use kho::abi::ftrace::{TraceKind, TracePart, Traces};
use kho_trace::Taken;
use kho_trace::meta::Meta;
use kho_trace::take::TakenBuffer;

/// `/ftrace`, taken apart.
#[derive(Clone, Debug)]
pub struct ArrivedTraces {
    /// What was wanted, and holds until something else is said.
    pub wish: Wish,
    /// One per kernel, oldest first.
    pub hops: Vec<ArrivedHop>,
}

/// The trace of one kernel.
#[derive(Clone, Debug)]
pub struct ArrivedHop {
    /// The handover that it ended with.
    pub hop: u64,
    /// Its release.
    pub release: String,
    /// When it was taken, nanoseconds since the epoch.
    pub taken: u64,
    /// Its parts.
    pub parts: Vec<ArrivedPart>,
}

/// Bytes of a trace.
#[derive(Clone, Debug)]
pub struct ArrivedPart {
    /// What they are.
    pub kind: Kind,
    /// How many.
    pub size: u64,
    /// Where.
    pub mem: Vec<PhysRange>,
    /// BLAKE3 of them.
    pub blake3: [u8; 32],
}

/// What a part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What explains the pages.
    Meta,
    /// The kernel log.
    Log,
    /// The buffer of one CPU.
    Cpu {
        /// Name of the array, empty for the top level.
        array: String,
        /// The CPU.
        cpu: u32,
        /// Bytes of a page.
        sub_buffer: u32,
    },
}

impl Kind {
    /// For the state tree.
    pub fn describe(&self) -> TraceKind<'_> {
        match self {
            Self::Meta => TraceKind::Meta,
            Self::Log => TraceKind::Log,
            Self::Cpu {
                array,
                cpu,
                sub_buffer,
            } => TraceKind::Cpu {
                array,
                cpu: *cpu,
                sub_buffer: *sub_buffer,
            },
        }
    }

    /// For people.
    pub fn label(&self) -> String {
        match self {
            Self::Meta => "formats and names".to_owned(),
            Self::Log => "kernel log".to_owned(),
            Self::Cpu { array, cpu, .. } if array.is_empty() => format!("CPU {cpu}"),
            Self::Cpu { array, cpu, .. } => format!("instance {array}, CPU {cpu}"),
        }
    }
}

impl From<&TracePart<'_>> for ArrivedPart {
    fn from(part: &TracePart<'_>) -> Self {
        let kind = match part.kind {
            TraceKind::Meta => Kind::Meta,
            TraceKind::Log => Kind::Log,
            TraceKind::Cpu {
                array,
                cpu,
                sub_buffer,
            } => Kind::Cpu {
                array: array.to_owned(),
                cpu,
                sub_buffer,
            },
        };
        Self {
            kind,
            size: part.size,
            mem: part.ranges().collect(),
            blake3: part.blake3,
        }
    }
}

impl From<&Traces<'_>> for ArrivedTraces {
    fn from(traces: &Traces<'_>) -> Self {
        Self {
            wish: Wish {
                limit: traces.limit,
                hops: traces.keep_hops,
                configured: traces.configured,
            },
            hops: traces
                .hops
                .iter()
                .map(|hop| ArrivedHop {
                    hop: hop.hop,
                    release: hop.release.to_owned(),
                    taken: hop.taken,
                    parts: hop.parts.iter().map(ArrivedPart::from).collect(),
                })
                .collect(),
        }
    }
}

impl ArrivedTraces {
    /// The newest trace, or that of one hop.
    ///
    /// # Errors
    ///
    /// [`Status::NoSuchEntry`].
    pub fn hop(&self, wanted: Option<u64>) -> Result<&ArrivedHop, Fail> {
        let found = match wanted {
            Some(wanted) => self.hops.iter().find(|hop| hop.hop == wanted),
            None => self.hops.last(),
        };
        found.ok_or_else(|| {
            let have: Vec<String> = self.hops.iter().map(|hop| hop.hop.to_string()).collect();
            let what = match wanted {
                Some(hop) => format!("no trace of hop {hop} arrived"),
                None => "no trace arrived".to_owned(),
            };
            let fix = if have.is_empty() {
                "kho keep --trace before the handover".to_owned()
            } else {
                format!("hops with a trace: {}", have.join(", "))
            };
            Fail::new(Status::NoSuchEntry, what).fix(fix)
        })
    }
}

impl ArrivedHop {
    /// Bytes of all parts.
    pub fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.size).sum()
    }

    /// The kernel log.
    ///
    /// # Errors
    ///
    /// [`Status::NoSuchEntry`] when there is none, [`Status::BlobCorrupt`] when it is damaged.
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

    /// The bytes of a part, checked.
    fn read(&self, part: &ArrivedPart, session: &Session) -> Result<Vec<u8>, Fail> {
        let name = format!("trace of hop {}, {}", self.hop, part.kind.label());
        session.read_checked(&name, &part.mem, part.size, &part.blake3)
    }

    /// The trace, and what could not be trusted: those buffers are left out.
    ///
    /// # Errors
    ///
    /// When what explains the buffers is damaged.
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
