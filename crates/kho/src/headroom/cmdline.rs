//! The options of the next kernel's command line that concern memory.
//!
//! This module reads them as the kernel does (`lib/cmdline.c`, `kernel/crash_reserve.c`, `mm/hugetlb.c`,
//! `kernel/dma/swiotlb.c`, `arch/x86/kernel/e820.c`; Linux 6.12, and 7.3 for `,cma`): a value that the kernel ignores
//! with a warning counts as 0 bytes here, and no string is an error. Sums saturate, so an absurd value leads to a
//! refusal for lack of memory rather than to a small number by wrapping.

use super::native::NativeScratch;
use super::words::{memparse, memparse_some, number, params, same_name};
use crate::addr::{PhysAddr, PhysRange};
use crate::ranges::{OutOfMemory, RangeSet};

/// The low part of a crash kernel that lies above 4 GiB, if the command line gives no low part
/// (`crash_low_size_default` in `arch/x86/include/asm/crash_reserve.h`).
pub const DEFAULT_CRASH_LOW: u64 = 256 << 20;

/// `IO_TLB_SHIFT`: bytes in a swiotlb slot, as a power of two.
const IO_TLB_SHIFT: u32 = 11;

/// The size of a huge page, in bytes, if the command line gives none (x86_64; arm64 with 4 KiB pages).
const DEFAULT_HUGE_PAGE: u64 = 2 << 20;

/// Memory that a command line sets aside.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CmdlineMemory {
    /// Bytes for the crash kernel, its low part included.
    pub crash: u64,
    /// Bytes of `crash` that have to be below 4 GiB.
    pub crash_low: u64,
    /// Address at which the crash kernel has to be; `None` if no offset is given.
    pub crash_at: Option<PhysAddr>,
    /// Bytes of huge pages allocated at boot.
    pub hugepages: u64,
    /// Size of the bounce buffer in bytes; `None` if no size is given, `Some(0)` for `noforce`.
    pub swiotlb: Option<u64>,
    /// Whether the bounce buffer is wanted even when all RAM is below 4 GiB.
    pub swiotlb_forced: bool,
    /// RAM from this address on is not used (`mem=`, and `memmap=` without an address).
    pub limit: Option<u64>,
    /// RAM that `memmap=` turns into memory of another type.
    pub taken: RangeSet,
    /// Whether `memmap=exactmap` is given, with which the firmware's map does not count.
    pub exactmap: bool,
    /// Size of the scratch areas of the kernel's own KHO, if that is on.
    pub native_scratch: NativeScratch,
}

impl CmdlineMemory {
    /// Reads `cmdline` for a machine with `ram_bytes` of RAM (which selects the range in
    /// `crashkernel=RANGE:SIZE,...`).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn parse(cmdline: &[u8], ram_bytes: u64) -> Result<Self, OutOfMemory> {
        let mut out = Self::default();
        parse_crashkernel(cmdline, ram_bytes, &mut out);
        let mut huge = HugeState::default();
        for (name, value) in params(cmdline) {
            let value = value.unwrap_or(b"");
            match name {
                n if same_name(n, b"hugepagesz") => huge.size(value),
                n if same_name(n, b"default_hugepagesz") => huge.default_size(value),
                n if same_name(n, b"hugepages") => huge.count(value),
                n if same_name(n, b"swiotlb") => parse_swiotlb(value, &mut out),
                n if same_name(n, b"mem") => {
                    let (bytes, _) = memparse(value);
                    if bytes > 0 {
                        out.lower_limit(bytes);
                    }
                }
                n if same_name(n, b"memmap") => {
                    for part in value.split(|b| *b == b',') {
                        parse_memmap(part, &mut out)?;
                    }
                }
                _ => {}
            }
        }
        out.hugepages = huge.total();
        out.native_scratch = NativeScratch::from_cmdline(cmdline).unwrap_or_default();
        Ok(out)
    }

    fn lower_limit(&mut self, bytes: u64) {
        self.limit = Some(self.limit.unwrap_or(u64::MAX).min(bytes));
    }

    /// Returns the part of the firmware's RAM `ram` that this command line leaves.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn usable(&self, ram: &RangeSet) -> Result<RangeSet, OutOfMemory> {
        let mut usable = ram.subtract(&self.taken)?;
        if let Some(limit) = self.limit
            && let Ok(above) = PhysRange::from_bounds(PhysAddr::new(limit), PhysAddr::new(u64::MAX))
        {
            usable.remove(above)?;
        }
        Ok(usable)
    }
}

/// The value of the last `crashkernel=` whose value passes `wanted`.
///
/// Found as the kernel does, by looking for the string and ending at a blank; not by parameter.
fn last_crashkernel(cmdline: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Option<&[u8]> {
    const NAME: &[u8] = b"crashkernel=";
    let cmdline = cmdline.split(|b| *b == 0).next().unwrap_or(&[]);
    let mut found = None;
    let mut rest = cmdline;
    while let Some(at) = rest.windows(NAME.len()).position(|w| w == NAME) {
        rest = rest.get(at.saturating_add(NAME.len())..).unwrap_or(&[]);
        let value = rest.split(|b| *b == b' ').next().unwrap_or(&[]);
        if wanted(value) {
            found = Some(value);
        }
    }
    found
}

fn parse_crashkernel(cmdline: &[u8], ram_bytes: u64, out: &mut CmdlineMemory) {
    // The system can use memory of `,cma` until a crash, so it costs nothing here.
    const SUFFIXES: [&[u8]; 3] = [b",high", b",low", b",cma"];
    let plain = last_crashkernel(cmdline, |v| !SUFFIXES.iter().any(|s| v.ends_with(s)));
    if let Some(value) = plain {
        let parsed = if value.contains(&b':') {
            crash_by_ram(value, ram_bytes)
        } else {
            crash_simple(value)
        };
        if let Some((size, at)) = parsed {
            out.crash = size;
            out.crash_at = at;
            // The kernel tries below 4 GiB first. A crash kernel above 4 GiB would also need the default low part.
            out.crash_low = match at {
                Some(at) if at.get() >= 1 << 32 => 0,
                Some(_) => size,
                None => size.min(DEFAULT_CRASH_LOW),
            };
        }
        return;
    }
    let with_suffix = |suffix: &'static [u8]| {
        last_crashkernel(cmdline, move |v| v.ends_with(suffix)).map(|value| {
            memparse_some(value)
                .filter(|(_, rest)| *rest == suffix)
                .map(|(size, _)| size)
        })
    };
    let high = with_suffix(b",high").flatten().filter(|size| *size > 0);
    let low = match with_suffix(b",low") {
        None => Some(DEFAULT_CRASH_LOW),
        Some(low) => low, // `None` if malformed: the kernel then reserves nothing
    };
    if let (Some(high), Some(low)) = (high, low) {
        out.crash = high.saturating_add(low);
        out.crash_low = low;
    }
}

/// `SIZE[@OFFSET]`.
fn crash_simple(value: &[u8]) -> Option<(u64, Option<PhysAddr>)> {
    let (size, rest) = memparse_some(value)?;
    match rest {
        [] => Some((size, None)),
        [b'@', offset @ ..] => Some((size, crash_offset(offset))),
        _ => None,
    }
}

/// An offset of zero means none.
fn crash_offset(text: &[u8]) -> Option<PhysAddr> {
    memparse_some(text)
        .map(|(at, _)| PhysAddr::new(at))
        .filter(|at| at.get() > 0)
}

/// `START-[END]:SIZE[,...][@OFFSET]`: the size of the first range that holds the amount of RAM.
fn crash_by_ram(value: &[u8], ram_bytes: u64) -> Option<(u64, Option<PhysAddr>)> {
    // The kernel rounds RAM up, so that memory which the firmware took does not select the wrong range.
    let total = ram_bytes
        .checked_next_multiple_of(128 << 20)
        .unwrap_or(u64::MAX);
    let mut rest = value;
    loop {
        let (start, after) = memparse_some(rest)?;
        let [b'-', after @ ..] = after else {
            return None;
        };
        let (end, after) = match after {
            [b':', ..] => (u64::MAX, after),
            _ => memparse_some(after)?,
        };
        let [b':', after @ ..] = after else {
            return None;
        };
        let (size, after) = memparse_some(after)?;
        if end <= start || size >= total {
            return None;
        }
        if (start..end).contains(&total) {
            let offset = after
                .iter()
                .position(|b| *b == b'@')
                .and_then(|at| after.get(at.saturating_add(1)..));
            return (size > 0).then(|| (size, offset.and_then(crash_offset)));
        }
        match after {
            [b',', more @ ..] => rest = more,
            _ => return None,
        }
    }
}

/// `SLOTS[,AREAS][,force|noforce]`.
fn parse_swiotlb(value: &[u8], out: &mut CmdlineMemory) {
    for (index, part) in value.split(|b| *b == b',').enumerate() {
        match part {
            b"force" => out.swiotlb_forced = true,
            b"noforce" => out.swiotlb = Some(0),
            _ if index == 0 && part.first().is_some_and(u8::is_ascii_digit) => {
                let slot = 1u64.checked_shl(IO_TLB_SHIFT).unwrap_or(0);
                out.swiotlb = Some(number(part).0.saturating_mul(slot));
            }
            _ => {}
        }
    }
}

/// One part of `memmap=`.
fn parse_memmap(part: &[u8], out: &mut CmdlineMemory) -> Result<(), OutOfMemory> {
    if part.starts_with(b"exactmap") {
        out.exactmap = true;
        return Ok(());
    }
    let Some((size, rest)) = memparse_some(part) else {
        return Ok(());
    };
    match rest {
        // kho does not use RAM that `memmap=` adds to the firmware's map.
        [b'@', ..] => {}
        [b'#' | b'$' | b'!' | b'%', at @ ..] => {
            let (start, _) = memparse(at);
            let start = PhysAddr::new(start);
            let end = start.checked_add(size).unwrap_or(PhysAddr::new(u64::MAX));
            if let Ok(range) = PhysRange::from_bounds(start, end) {
                out.taken.insert(range)?;
            }
        }
        _ => out.lower_limit(size),
    }
    Ok(())
}

/// The state that `hugepagesz=`, `default_hugepagesz=` and `hugepages=` share in the order they are given.
struct HugeState {
    /// Pages asked for per size, indexed by the size's power of two.
    pages: [u64; 64],
    /// Pages given before any size: they are of the default size.
    default_pages: u64,
    default_size: u64,
    /// The size that the next `hugepages=` applies to; `None` before the first.
    current: Option<u64>,
    /// False after an impossible size, until the `hugepages=` that belongs to that size has been skipped.
    valid: bool,
}

impl Default for HugeState {
    fn default() -> Self {
        Self {
            pages: [0; 64],
            default_pages: 0,
            default_size: DEFAULT_HUGE_PAGE,
            current: None,
            valid: true,
        }
    }
}

impl HugeState {
    fn parse_size(value: &[u8]) -> Option<u64> {
        let (size, _) = memparse(value);
        // The smallest huge page of any known architecture has 64 KiB, the largest 16 GiB.
        ((64 << 10)..=(16 << 30))
            .contains(&size)
            .then_some(size)
            .filter(|s| s.is_power_of_two())
    }

    fn size(&mut self, value: &[u8]) {
        match Self::parse_size(value) {
            Some(size) => (self.current, self.valid) = (Some(size), true),
            None => self.valid = false,
        }
    }

    fn default_size(&mut self, value: &[u8]) {
        match Self::parse_size(value) {
            Some(size) => {
                self.default_size = size;
                (self.current, self.valid) = (Some(size), true);
            }
            None => self.valid = false,
        }
    }

    fn count(&mut self, value: &[u8]) {
        if !core::mem::replace(&mut self.valid, true) {
            return;
        }
        // The value is one number, or a list of NODE:NUMBER separated by commas.
        let mut pages = 0u64;
        for part in value.split(|b| *b == b',') {
            let (first, rest) = number(part);
            let count = match rest {
                [b':', count @ ..] => number(count).0,
                _ => first,
            };
            pages = pages.saturating_add(count);
        }
        match self.current {
            None => self.default_pages = pages,
            Some(size) => {
                let index = usize::try_from(size.trailing_zeros()).unwrap_or(0);
                if let Some(slot) = self.pages.get_mut(index) {
                    *slot = pages;
                }
            }
        }
    }

    /// Bytes of all huge pages.
    fn total(&self) -> u64 {
        let by_size = self.pages.iter().zip(0u32..).map(|(pages, power)| {
            pages.saturating_mul(1u64.checked_shl(power).unwrap_or(u64::MAX))
        });
        by_size.fold(
            self.default_pages.saturating_mul(self.default_size),
            u64::saturating_add,
        )
    }
}

#[cfg(test)]
mod tests;
