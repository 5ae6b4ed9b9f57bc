//! Steps that the loads by every carrier share, and their result.

use super::content::Item;
use super::enter::Way;
use super::payload::{Payload, Payloads};
use crate::exit::{Fail, Status};
use crate::hash;
use crate::output::{self, Output};
use crate::session::Session;
use crate::trace::carry::Carry;
use serde::Serialize;

/// Result of a load.
#[derive(Serialize)]
pub struct Loaded {
    /// Release that the image states.
    pub release: String,
    /// Carrier of the content: `memory` or `initrd`.
    pub carrier: &'static str,
    /// Place at which the next kernel is entered; `None` if the running kernel decides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<Way>,
    /// Hop count that the next kernel will see.
    pub hop: u64,
    /// Entries handed over.
    pub entries: usize,
    /// Bytes of content that were copied.
    pub copied: u64,
    /// Bytes of content that stay where they are.
    pub in_place: u64,
    /// Bytes that drivers keep in place.
    pub drivers: u64,
    /// Early reservations of the next kernel.
    pub ranges: usize,
    /// Bytes of memory that failed since this kernel started. The map for the next kernel marks them as unusable.
    pub failed: u64,
    /// Duration of the load, in seconds.
    pub seconds: f64,
    /// Duration of the `kexec_load` system call, in seconds; included in `seconds`.
    pub kexec_load_seconds: f64,
}

impl Loaded {
    /// Returns the amounts and the duration, for people.
    pub fn amounts(&self) -> String {
        let drivers = match self.drivers {
            0 => String::new(),
            bytes => format!(", {} of drivers and khofs", output::bytes(bytes)),
        };
        let failed = match self.failed {
            0 => String::new(),
            bytes => format!(", {} of memory that failed left out", output::bytes(bytes)),
        };
        format!(
            "{} copied, {} in place{drivers}, {}{failed}; {:.1} s",
            output::bytes(self.copied),
            output::bytes(self.in_place),
            output::count(self.ranges, "early range", "early ranges"),
            self.seconds
        )
    }
}

/// Warns of content that is not carried on, or not in full.
pub fn warn_of_content(payloads: &Payloads, out: Output) {
    for remark in payloads.traces.iter().flat_map(Carry::remarks) {
        out.warn(&remark);
    }
    for lost in payloads.items.iter().filter_map(Item::not_kept) {
        out.warn(&lost);
    }
}

/// Writes the content of a payload into `memory`. Returns its hash.
///
/// # Errors
///
/// The errors of [`Payload::write`]; [`Status::SourceChanged`] if the size is not the measured one.
pub fn copied(
    payload: Payload<'_>,
    memory: Vec<&mut [u8]>,
    session: &Session,
    out: Output,
) -> Result<[u8; 32], Fail> {
    let (label, size) = (payload.label(), payload.size());
    let bar = label.map(|label| out.progress(&format!("reading {label}"), size));
    let (hash, written) = hash::written(size, memory, |out| {
        payload.write(out, session, &mut |n| {
            bar.iter().for_each(|bar| bar.set_position(n));
        })
    })?;
    bar.iter().for_each(|bar| bar.finish_and_clear());
    if written != size {
        return Err(Fail::new(
            Status::SourceChanged,
            format!(
                "{}: {written:#x} bytes came, {size:#x} were measured",
                label.unwrap_or("the trace")
            ),
        ));
    }
    Ok(*hash.as_bytes())
}
