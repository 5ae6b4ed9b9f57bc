//! `/proc/kallsyms` of the running kernel.

use crate::files::{TakeError, text};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Lowest kernel address: an entry below it is per-CPU data or not a symbol.
pub(crate) const KERNEL: u64 = 0xffff_8000_0000_0000;

/// Symbols of the running kernel, sorted by address.
pub struct Symbols {
    path: PathBuf,
    text: String,
    /// Address of a symbol, and the range of its line in the text.
    lines: Vec<(u64, std::ops::Range<usize>)>,
}

impl Symbols {
    /// Reads the symbols from the file at `path`.
    ///
    /// # Errors
    ///
    /// [`TakeError::Io`].
    pub fn read(path: &Path) -> Result<Self, TakeError> {
        let text = text(path)?;
        let mut lines = Vec::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let range = at..at + line.len();
            at = range.end;
            if let Some((address, _)) = line.split_once(' ')
                && let Ok(address) = u64::from_str_radix(address, 16)
                && address >= KERNEL
            {
                lines.push((address, range));
            }
        }
        lines.sort_by_key(|(address, range)| (*address, range.start));
        Ok(Self {
            path: path.to_owned(),
            text,
            lines,
        })
    }

    /// The address of a symbol of the kernel itself.
    ///
    /// # Errors
    ///
    /// [`TakeError::Symbol`].
    pub fn address(&self, symbol: &'static str) -> Result<u64, TakeError> {
        self.lines
            .iter()
            .find(|(_, range)| {
                let line = self.text.get(range.clone()).unwrap_or_default();
                let mut words = line.split_whitespace().skip(2);
                // A symbol of a module has the module's name behind it.
                words.next() == Some(symbol) && words.next().is_none()
            })
            .map(|(address, _)| *address)
            .ok_or_else(|| TakeError::Symbol {
                path: self.path.clone(),
                symbol,
            })
    }

    /// The lines of all symbols that contain one of `addresses`, and of the symbols behind them, which show where they
    /// end.
    pub fn lines(&self, addresses: &BTreeSet<u64>) -> String {
        let mut wanted = BTreeSet::new();
        for address in addresses {
            let after = self.lines.partition_point(|(start, _)| start <= address);
            let Some((start, _)) = after.checked_sub(1).and_then(|at| self.lines.get(at)) else {
                continue;
            };
            let Some((next, _)) = self.lines.get(after) else {
                continue;
            };
            for value in [start, next] {
                let from = self.lines.partition_point(|(other, _)| other < value);
                let to = self.lines.partition_point(|(other, _)| other <= value);
                wanted.extend(from..to);
            }
        }
        wanted
            .into_iter()
            .filter_map(|at| self.text.get(self.lines.get(at)?.1.clone()))
            .collect()
    }
}
