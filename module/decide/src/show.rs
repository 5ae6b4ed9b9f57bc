//! Formats of the files in `/sys/kernel/kho`: the texts that processes read and write.

use crate::arrival::Nothing;
use crate::errno::{EINVAL, ENODATA, Errno};
use crate::iomem::hex;
use crate::late::Bounds;
use crate::phase::{Drivers, Phase};
use crate::store::Store;
use crate::system::System;
use core::fmt::Write;
use core::ops::ControlFlow;
use kho::{PhysAddr, PhysRange};

/// Parses the text that a process writes to `active`: true to activate, false to abort.
///
/// # Errors
///
/// [`EINVAL`] unless the text is `1` or `0`.
pub fn is_activation(text: &[u8]) -> Result<bool, Errno> {
    match text.trim_ascii() {
        b"1" => Ok(true),
        b"0" => Ok(false),
        _ => Err(EINVAL),
    }
}

/// `active`: 1 or 0.
///
/// # Errors
///
/// `ENOSPC` if `out` has no room; the same holds for the functions below.
pub fn active<S: Drivers>(phase: &Phase<S>, out: &mut impl Write) -> Result<(), Errno> {
    Ok(writeln!(out, "{}", u8::from(phase.generation().is_some()))?)
}

/// `generation`: the generation of the active phase, or 0 outside of it.
///
/// # Errors
///
/// See [`active`].
pub fn generation<S: Drivers>(phase: &Phase<S>, out: &mut impl Write) -> Result<(), Errno> {
    let generation = phase.generation().unwrap_or(0);
    Ok(writeln!(out, "{generation:#018x}")?)
}

/// `late`: the lines "block 0xbase 0xsize", "nonce 0xnumber", "next-nonce 0xnumber" and "state NAME".
///
/// # Errors
///
/// [`ENODATA`] before the first late load; see [`active`].
pub fn late<S: Drivers>(phase: &Phase<S>, out: &mut impl Write) -> Result<(), Errno> {
    let late = phase.late().ok_or(ENODATA)?;
    let block = late.range();
    writeln!(out, "block {} {:#x}", block.start(), block.len())?;
    writeln!(out, "nonce {:#x}", late.nonce())?;
    writeln!(out, "next-nonce {:#x}", late.next_nonce())?;
    Ok(writeln!(out, "state {}", late.state().name())?)
}

/// A step of a late load, see [`crate::late`].
#[derive(Debug)]
pub enum LateStep {
    /// [`Phase::prepare`].
    Prepare,
    /// [`Phase::arm`].
    Arm(Bounds),
    /// [`Phase::publish`].
    Publish,
    /// [`Phase::disarm`].
    Disarm,
}

/// Parses the text that a process writes to `late`.
///
/// # Errors
///
/// [`EINVAL`] for a text that is no step; the errors of [`Bounds::parse`].
pub fn late_step(text: &[u8]) -> Result<LateStep, Errno> {
    if let Some(bounds) = text.strip_prefix(b"arm\n") {
        return Bounds::parse(bounds).map(LateStep::Arm);
    }
    match text.trim_ascii() {
        b"prepare" => Ok(LateStep::Prepare),
        b"publish" => Ok(LateStep::Publish),
        b"disarm" => Ok(LateStep::Disarm),
        _ => Err(EINVAL),
    }
}

/// `scratch`: "0xbase 0xsize".
///
/// # Errors
///
/// [`ENODATA`] while no scratch region is known; see [`active`].
pub fn scratch<S: System>(store: &Store<S>, out: &mut impl Write) -> Result<(), Errno> {
    let scratch = store.scratch().ok_or(ENODATA)?;
    Ok(writeln!(out, "{} {:#x}", scratch.start(), scratch.len())?)
}

/// Parses the text that a process writes to `scratch`.
///
/// # Errors
///
/// [`EINVAL`] unless the text is "0xbase 0xsize".
pub fn told_scratch(text: &[u8]) -> Result<PhysRange, Errno> {
    let mut words = text.trim_ascii().split(|b| *b == b' ');
    let mut next = || words.next()?.strip_prefix(b"0x").and_then(hex);
    let (base, size) = (next().ok_or(EINVAL)?, next().ok_or(EINVAL)?);
    if words.next().is_some() {
        return Err(EINVAL);
    }
    PhysRange::new(PhysAddr::new(base), size).map_err(|_| EINVAL)
}

/// `release`: a line "PATH BYTES" for each node with unclaimed memory, followed by the name of the producer that holds
/// the node, if one does. Writes as many lines as fit.
///
/// # Errors
///
/// No memory.
pub fn leftovers<S: System>(store: &Store<S>, out: &mut impl Write) -> Result<(), Errno> {
    store.leftovers(|path, bytes, holder| {
        let line = match holder {
            Some(producer) => writeln!(out, "{path} {bytes} {producer}"),
            None => writeln!(out, "{path} {bytes}"),
        };
        line.map_or(ControlFlow::Break(()), ControlFlow::Continue)
    })
}

/// `status`: the lines "name: value" about the active phase.
///
/// # Errors
///
/// See [`active`].
pub fn phase_status<S: Drivers>(phase: &Phase<S>, out: &mut impl Write) -> Result<(), Errno> {
    writeln!(out, "active: {}", u8::from(phase.generation().is_some()))?;
    writeln!(out, "producers: {}", phase.producers())?;
    if let Some(name) = phase.failed() {
        writeln!(out, "failed-producer: {name}")?;
    }
    Ok(())
}

/// `status`: the lines "name: value" about the handover that arrived and about memory.
///
/// # Errors
///
/// See [`active`].
pub fn store_status<S: System>(store: &Store<S>, out: &mut impl Write) -> Result<(), Errno> {
    writeln!(out, "lent: {}", store.lent())?;
    match store.arrival() {
        Ok(arrival) => {
            writeln!(out, "arrival: handover")?;
            writeln!(out, "hop: {}", arrival.hop)?;
            writeln!(out, "previous-release: {}", arrival.previous)?;
            let part = match (&arrival.kernel, arrival.refused) {
                (Some(_), _) => "arrived",
                (None, Some(why)) => why,
                (None, None) => "none",
            };
            writeln!(out, "kernel-part: {part}")?;
            writeln!(out, "unclaimed: {}", store.unclaimed())?;
            writeln!(out, "untouched-nodes: {}", store.untouched()?)?;
            writeln!(out, "slack-released: {}", arrival.slack)?;
            writeln!(out, "not-reserved-pages: {}", arrival.missing)?;
        }
        Err(Nothing::Ordinary) => writeln!(out, "arrival: none, an ordinary boot")?,
        Err(Nothing::Refused(why)) => writeln!(out, "arrival: refused, {why}")?,
        Err(Nothing::Failed(error)) => writeln!(out, "arrival: failed, error {}", error.0)?,
    }
    Ok(())
}

/// Copies the bytes from byte `offset` on into `buf`, as many as fit. Returns the number of bytes copied.
pub fn piece(bytes: &[u8], buf: &mut [u8], offset: u64) -> usize {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = bytes.get(from..).unwrap_or(&[]);
    let count = rest.len().min(buf.len());
    for (to, from) in buf.iter_mut().zip(rest) {
        *to = *from;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn what_is_written_is_understood_or_refused() {
        assert_eq!(is_activation(b"1\n"), Ok(true));
        assert_eq!(is_activation(b" 0"), Ok(false));
        for bad in [&b""[..], b"2", b"10", b"1 1"] {
            assert_eq!(is_activation(bad), Err(EINVAL));
        }
        let range = told_scratch(b"0x1000 0x2000\n").unwrap();
        assert_eq!((range.start().get(), range.len()), (0x1000, 0x2000));
        for bad in [
            &b"0x1000"[..],
            b"1000 2000",
            b"0x1000 0x2000 0x1",
            b"0x1000  0x2000",
            b"0x1000 0x0",
            b"0xffffffffffffffff 0x2000",
            b"0x+1 0x2000",
        ] {
            assert_eq!(told_scratch(bad), Err(EINVAL));
        }
    }

    #[test]
    fn pieces_are_the_whole() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut buf = [0; 64];
        assert_eq!(piece(&bytes, &mut buf, 0), 64);
        assert_eq!(buf[..], bytes[..64]);
        assert_eq!(piece(&bytes, &mut buf, 64), 36);
        assert_eq!(buf[..36], bytes[64..]);
        for behind in [100, 101, u64::MAX] {
            assert_eq!(piece(&bytes, &mut buf, behind), 0);
        }
    }

    #[test]
    fn the_status_says_why_nothing_arrived() {
        let mut out = String::new();
        store_status(&Store::<Fake>::new(), &mut out).unwrap();
        assert_eq!(out, "lent: 0\narrival: none, an ordinary boot\n");
    }
}
