//! Drawing of a map of physical memory with characters.

use kho::{PhysAddr, PhysRange, RangeSet};
use std::fmt::Write;

/// Use of a range of memory, in ascending precedence: a cell that several ranges share shows the last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Ordinary memory.
    Ram,
    /// The scratch region.
    Scratch,
    /// Reserved without content that is handed over.
    Slack,
    /// Handed over in place.
    InPlace,
    /// A blob that is copied.
    Blob,
    /// Chain and state tree.
    State,
    /// The next kernel's initrd.
    Initrd,
    /// The next kernel.
    Kernel,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Ram,
        Self::Scratch,
        Self::Slack,
        Self::InPlace,
        Self::Blob,
        Self::State,
        Self::Initrd,
        Self::Kernel,
    ];

    /// Returns the character of a cell, and its legend.
    pub const fn legend(self) -> (char, &'static str) {
        match self {
            Self::Ram => ('.', "free for the next kernel"),
            Self::Scratch => ('s', "scratch"),
            Self::Slack => ('~', "slack"),
            Self::InPlace => ('=', "kept in place"),
            Self::Blob => ('B', "blobs"),
            Self::State => ('T', "state tree"),
            Self::Initrd => ('I', "initrd"),
            Self::Kernel => ('K', "kernel"),
        }
    }
}

impl Kind {
    /// Returns the colour of a cell in an image.
    pub const fn colour(self) -> &'static str {
        match self {
            Self::Ram => "#e4e7eb",
            Self::Scratch => "#ffe3ae",
            Self::Slack => "#d9b8e8",
            Self::InPlace => "#2e9e6b",
            Self::Blob => "#2f7ed8",
            Self::State => "#d64545",
            Self::Initrd => "#f0932b",
            Self::Kernel => "#8d4f19",
        }
    }
}

/// Draws `parts` over the memory in `ram`, in at most `rows` rows of `width` cells. Leaves out holes of at least the
/// size of a row. Within a row, cells without RAM are blank.
pub fn draw(ram: &RangeSet, parts: &[(PhysRange, Kind)], rows: usize, width: usize) -> String {
    let (rows, width) = (rows.max(1) as u64, width.max(1) as u64);
    let Some(span) = ram.span() else {
        return String::new();
    };
    // A cell is a power of two of at least a page, so that rows begin at round addresses.
    let mut cell = kho::PAGE_SIZE;
    while occupied_rows(ram, cell, width) > rows {
        match cell.checked_mul(2) {
            Some(next) => cell = next,
            None => break,
        }
    }
    let row_bytes = cell.saturating_mul(width);
    let mut text = format!("one character is {}\n", crate::output::bytes(cell));
    let mut seen = vec![false; Kind::ALL.len()];
    let mut skipped = false;
    let mut at = span.start().get() / row_bytes * row_bytes;
    while at < span.end().get() {
        let Ok(row) = PhysRange::new(PhysAddr::new(at), row_bytes) else {
            break;
        };
        if ram.overlaps(row) {
            if skipped {
                text.push_str("             ...\n");
            }
            skipped = false;
            let _ = write!(text, "{at:#12x} ");
            for column in 0..width {
                text.push(match cell_kind(ram, parts, at + column * cell, cell) {
                    Some(kind) => {
                        seen[kind as usize] = true;
                        kind.legend().0
                    }
                    None => ' ',
                });
            }
            while text.ends_with(' ') {
                text.pop();
            }
            text.push('\n');
        } else {
            skipped = true;
        }
        match at.checked_add(row_bytes) {
            Some(next) => at = next,
            None => break,
        }
    }
    let legend: Vec<String> = Kind::ALL
        .into_iter()
        .filter(|kind| seen[*kind as usize])
        .map(|kind| format!("{} {}", kind.legend().0, kind.legend().1))
        .collect();
    let _ = writeln!(text, "{:13}{}", "", legend.join("   "));
    text
}

fn occupied_rows(ram: &RangeSet, cell: u64, width: u64) -> u64 {
    let row = cell.saturating_mul(width);
    let mut rows = 0;
    let mut counted_to = 0;
    for range in ram.iter() {
        let first = (range.start().get() / row).max(counted_to);
        let end = range.end().get().div_ceil(row);
        rows += end.saturating_sub(first);
        counted_to = counted_to.max(end);
    }
    rows
}

fn cell_kind(ram: &RangeSet, parts: &[(PhysRange, Kind)], start: u64, len: u64) -> Option<Kind> {
    let cell = PhysRange::new(PhysAddr::new(start), len).ok()?;
    let top = parts
        .iter()
        .filter(|(range, _)| range.overlaps(cell))
        .map(|(_, kind)| *kind)
        .max();
    top.or_else(|| ram.overlaps(cell).then_some(Kind::Ram))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    #[test]
    fn every_part_is_visible_and_holes_are_left_out() {
        let ram = RangeSet::from_ranges([
            range(0, 0xa_0000),
            range(0x10_0000, 0x7ff0_0000),
            range(1 << 32, 1 << 30),
        ])
        .unwrap();
        let parts = [
            (range(0x100_0000, 0x1000_0000), Kind::Scratch),
            (range(0x100_0000, 0x400_0000), Kind::Kernel),
            (range((1 << 32) + 4096, 4096), Kind::State),
        ];
        let text = draw(&ram, &parts, 12, 64);
        assert!(
            text.contains('K') && text.contains('s') && text.contains('T') && text.contains("..."),
            "{text}"
        );
        assert!(text.lines().count() <= 15, "{text}");
        assert!(!text.contains('~'));
    }
}
