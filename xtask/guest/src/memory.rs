//! Flags of physical pages, from /proc/kpageflags.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};

const PAGE: u64 = 4096;

/// `KPF_RESERVED`: include/linux/kernel-page-flags.h, 6.1 to 7.3.
const RESERVED: u64 = 1 << 32;

/// `kho-guest reserved`
pub fn print_reserved(start: &str, len: &str) -> Result<()> {
    let pages = reserved(number(start)?, number(len)?)?;
    println!("reserved: {pages} pages from {start}");
    Ok(())
}

/// Returns the number of pages of the range. Fails at the first page that is not reserved.
pub fn reserved(start: u64, len: u64) -> Result<u64> {
    let mut count = 0;
    flags(start, len, |page, bits| {
        count += 1;
        if bits & RESERVED == 0 {
            bail!(
                "the page at {:#x} is not reserved (flags {bits:#x})",
                page * PAGE
            );
        }
        Ok(())
    })?;
    Ok(count)
}

/// Collects the pages of the range that are reserved, by number.
pub fn still_reserved(start: u64, len: u64, pages: &mut BTreeSet<u64>) -> Result<()> {
    flags(start, len, |page, bits| {
        if bits & RESERVED != 0 {
            pages.insert(page);
        }
        Ok(())
    })
}

/// Calls `each` with the number and the flags of each page of the range.
fn flags(start: u64, len: u64, mut each: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
    let Some(end) = start.checked_add(len).filter(|_| len > 0) else {
        bail!("{start:#x}+{len:#x} is not a range");
    };
    let flags = File::open("/proc/kpageflags").context("opening /proc/kpageflags")?;
    let mut buffer = vec![0; 64 << 10];
    let (mut page, past) = (start / PAGE, end.div_ceil(PAGE));
    while page < past {
        let want = usize::try_from((past - page) * 8)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let chunk = &mut buffer[..want];
        flags.read_exact_at(chunk, page * 8).with_context(|| {
            format!(
                "reading the flags of the page at {:#x}: is it RAM?",
                page * PAGE
            )
        })?;
        for entry in chunk.as_chunks::<8>().0 {
            each(page, u64::from_ne_bytes(*entry))?;
            page += 1;
        }
    }
    Ok(())
}

fn number(text: &str) -> Result<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.with_context(|| format!("{text:?} is not a number"))
}
