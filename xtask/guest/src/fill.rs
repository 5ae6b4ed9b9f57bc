//! `kho-guest fill`

use anyhow::{Context, Result, bail};

/// Bytes allocated at a time: small enough to stop in time.
const CHUNK: usize = 8 << 20;

const PAGE: usize = 4096;

/// Allocates memory until only `leave` MiB are available, writes to each page of it, then frees it.
///
/// The kernel clears a page before it gives the page to a process. So writing one word to a page is enough to erase the
/// former content of the whole page.
pub fn fill(leave: u64) -> Result<()> {
    let before = available()?;
    let mut held: Vec<Vec<u64>> = Vec::new();
    while available()? > leave + (CHUNK as u64 >> 20) {
        let mut chunk = vec![0_u64; CHUNK / 8];
        for (index, word) in (0_u64..).zip(chunk.iter_mut().step_by(PAGE / 8)) {
            *word = pattern(held.len(), index);
        }
        held.push(chunk);
    }
    let filled = held.len() * (CHUNK >> 20);
    let wrong = held
        .iter()
        .enumerate()
        .flat_map(|(number, chunk)| {
            (0_u64..)
                .zip(chunk.iter().step_by(PAGE / 8))
                .filter(move |(index, word)| **word != pattern(number, *index))
        })
        .count();
    drop(held);
    if wrong != 0 {
        bail!("{wrong} pages of this process's own memory changed under it");
    }
    println!("filled {filled} MiB of {before} MiB available");
    Ok(())
}

/// A different word for each page, to find a page that is handed out twice.
fn pattern(chunk: usize, page: u64) -> u64 {
    0xa5a5_0000_0000_0000 | ((chunk as u64) << 16) | page
}

/// `MemAvailable` in MiB.
pub fn available() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map(|kib| kib / 1024)
        .context("/proc/meminfo has no MemAvailable")
}
