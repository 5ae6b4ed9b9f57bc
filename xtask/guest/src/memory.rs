//! What /proc/kpageflags says about physical memory.

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

/// Fails at the first page of the range that is not reserved; gives the number of pages.
pub fn reserved(start: u64, len: u64) -> Result<u64> {
    let Some(end) = start.checked_add(len).filter(|_| len > 0) else {
        bail!("{start:#x}+{len:#x} is not a range");
    };
    let flags = File::open("/proc/kpageflags").context("opening /proc/kpageflags")?;
    let mut buffer = vec![0; 64 << 10];
    let (first, past) = (start / PAGE, end.div_ceil(PAGE));
    let mut page = first;
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
            let bits = u64::from_ne_bytes(*entry);
            if bits & RESERVED == 0 {
                bail!(
                    "the page at {:#x} is not reserved (flags {bits:#x})",
                    page * PAGE
                );
            }
            page += 1;
        }
    }
    Ok(past - first)
}

fn number(text: &str) -> Result<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.with_context(|| format!("{text:?} is not a number"))
}
