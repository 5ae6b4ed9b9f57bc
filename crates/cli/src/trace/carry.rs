//! Traces that a load hands over.

use super::arrived::{ArrivedPart, Kind};
use super::take;
use super::wish::{self, Wish};
use crate::arrived::Arrived;
use crate::exit::Fail;
use crate::handover::placed::Placed;
use crate::session::Session;
use crate::state::KeepFile;
use kho::RangeSet;
use kho::abi::ftrace::{TraceHopDescription, TracePartDescription, TracesDescription};

/// Content of the node `/ftrace`.
pub struct Carry {
    wish: Wish,
    hops: Vec<CarryHop>,
    /// Number and release of the traces that are not carried on, because their memory was released in this boot or
    /// failed.
    pub given_back: Vec<(u64, String)>,
}

/// The trace of one kernel.
struct CarryHop {
    hop: u64,
    release: String,
    taken: u64,
    parts: Vec<TracePart>,
}

/// A part of a trace.
pub struct TracePart {
    /// Kind of the bytes.
    pub kind: Kind,
    /// Number of bytes.
    pub size: u64,
    /// Source of the bytes.
    pub supply: Supply,
}

/// Source of the bytes of a [`TracePart`].
pub enum Supply {
    /// Bytes that the load read: of the running kernel, or of a part that arrived and cannot stay where it is.
    Taken(Vec<u8>),
    /// A part that arrived. It stays at its address, and the next tree names that address.
    Stays(ArrivedPart),
}

impl CarryHop {
    /// Takes the running kernel's trace.
    fn take(wish: &Wish, hop: u64, session: &Session) -> Result<Self, Fail> {
        let taken = take::take(wish.limit, session)?;
        let meta = take::meta_bytes(&taken.meta)?;
        let part = |kind, bytes: Vec<u8>| TracePart {
            kind,
            size: bytes.len() as u64,
            supply: Supply::Taken(bytes),
        };
        let mut parts = vec![part(Kind::Meta, meta), part(Kind::Log, taken.log)];
        for buffer in taken.buffers {
            let kind = Kind::Cpu {
                array: buffer.array,
                cpu: buffer.cpu,
                sub_buffer: u32::try_from(buffer.page_size).unwrap_or(0),
            };
            parts.push(part(kind, buffer.bytes));
        }
        Ok(Self {
            hop,
            release: taken.meta.release,
            taken: taken.meta.taken,
            parts,
        })
    }
}

impl TracePart {
    /// Makes the part for one that arrived, which stays in place if `stays` is set.
    fn arrived(part: &ArrivedPart, stays: bool, session: &Session) -> Result<Self, Fail> {
        let supply = match stays {
            true => Supply::Stays(part.clone()),
            false => Supply::Taken(session.read_checked(
                "a trace that arrived",
                &part.mem,
                part.size,
                &part.blake3,
            )?),
        };
        Ok(Self {
            kind: part.kind.clone(),
            size: part.size,
            supply,
        })
    }

    /// Whether the load copies the part.
    pub fn is_copied(&self) -> bool {
        matches!(self.supply, Supply::Taken(_))
    }
}

impl Carry {
    /// Takes the running kernel's trace, for handover number `hop`. Adds the traces that arrived and are to be carried
    /// on: in place, if their memory is still in `reserved`, or copied if `reserved` is `None`. `None` if no trace is kept. With `without_this`, takes no trace, and
    /// carries on the request and the traces that arrived.
    ///
    /// # Errors
    ///
    /// The errors of [`take::take`].
    pub fn gather(
        session: &Session,
        keep: &KeepFile,
        arrived: Option<&Arrived>,
        hop: u64,
        reserved: Option<&RangeSet>,
        without_this: bool,
    ) -> Result<Option<Self>, Fail> {
        let Some(wish) = wish::effective(arrived, keep) else {
            return Ok(None);
        };
        let this = if without_this {
            None
        } else {
            Some(CarryHop::take(&wish, hop, session)?)
        };
        let (mut hops, mut given_back) = (Vec::new(), Vec::new());
        let before = arrived
            .and_then(|a| a.traces.as_ref())
            .map(|t| t.hops.as_slice());
        let before = before.unwrap_or_default();
        // The running kernel's trace counts as one of the kept traces.
        let room = wish.hops.saturating_sub(u32::from(this.is_some()));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        for old in before.iter().skip(before.len().saturating_sub(room)) {
            // Memory that was released in this boot may hold other data now.
            let mut ranges = old.parts.iter().flat_map(|part| &part.mem);
            if reserved.is_some_and(|set| !ranges.all(|range| set.contains_range(*range))) {
                given_back.push((old.hop, old.release.clone()));
                continue;
            }
            hops.push(CarryHop {
                hop: old.hop,
                release: old.release.clone(),
                taken: old.taken,
                parts: old
                    .parts
                    .iter()
                    .map(|part| TracePart::arrived(part, reserved.is_some(), session))
                    .collect::<Result<_, Fail>>()?,
            });
        }
        hops.extend(this);
        Ok(Some(Self {
            wish,
            hops,
            given_back,
        }))
    }

    /// Returns remarks for people: one for each trace that is not carried on.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        self.given_back.iter().map(|(hop, release)| {
            format!(
                "the trace of {release} (hop {hop}) is not carried on: its memory was given back in this boot, or failed"
            )
        })
    }

    /// Returns all parts, those of the oldest kernel first.
    pub fn parts(&self) -> impl Iterator<Item = &TracePart> {
        self.hops.iter().flat_map(|hop| &hop.parts)
    }

    /// Returns a row for the trace of each kernel: number, release, whether the load copies it, and the bytes of the
    /// buffers, of the log and of the rest.
    pub fn rows(&self) -> Vec<Row> {
        self.hops
            .iter()
            .map(|hop| Row {
                hop: hop.hop,
                release: hop.release.clone(),
                copied: hop.parts.iter().all(TracePart::is_copied),
                buffers: sum(&hop.parts, |kind| matches!(kind, Kind::Cpu { .. })),
                log: sum(&hop.parts, |kind| *kind == Kind::Log),
                other: sum(&hop.parts, |kind| *kind == Kind::Meta),
            })
            .collect()
    }

    /// Calls `with` with the description for the node `/ftrace`. `placed` is in the order of [`Carry::parts`].
    pub fn describe<T>(
        &self,
        placed: &[Placed],
        with: impl FnOnce(&TracesDescription<'_>) -> T,
    ) -> T {
        let mut placed = placed.iter();
        let parts: Vec<Vec<TracePartDescription<'_>>> = self
            .hops
            .iter()
            .map(|hop| {
                hop.parts
                    .iter()
                    .zip(&mut placed)
                    .map(|(part, placed)| TracePartDescription {
                        kind: part.kind.describe(),
                        size: part.size,
                        mem: match &part.supply {
                            Supply::Stays(part) => &part.mem,
                            Supply::Taken(_) => &placed.mem,
                        },
                        blake3: match &part.supply {
                            Supply::Stays(part) => part.blake3,
                            Supply::Taken(_) => placed.blake3,
                        },
                    })
                    .collect()
            })
            .collect();
        let hops: Vec<TraceHopDescription<'_>> = self
            .hops
            .iter()
            .zip(&parts)
            .map(|(hop, parts)| TraceHopDescription {
                hop: hop.hop,
                release: &hop.release,
                taken: hop.taken,
                parts,
            })
            .collect();
        with(&TracesDescription {
            limit: self.wish.limit,
            keep_hops: self.wish.hops,
            configured: self.wish.configured,
            hops: &hops,
        })
    }
}

/// The cost of the trace of one kernel.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    /// Number of the handover at the end of the kernel.
    pub hop: u64,
    /// Release of the kernel.
    pub release: String,
    /// Whether the load copies the trace; otherwise it stays in place.
    pub copied: bool,
    /// Bytes of ring buffer pages.
    pub buffers: u64,
    /// Bytes of the kernel log.
    pub log: u64,
    /// Bytes of formats, symbols and names.
    pub other: u64,
}

fn sum(parts: &[TracePart], of: impl Fn(&Kind) -> bool) -> u64 {
    parts
        .iter()
        .filter(|part| of(&part.kind))
        .map(|part| part.size)
        .sum()
}
