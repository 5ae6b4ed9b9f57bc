//! The resource tree as `/proc/iomem` prints it: RAM, and the ranges of this kernel.
//!
//! Format (`r_show()` in `kernel/resource.c`, Linux 6.1 to 7.3): two spaces for each level, then `START-END : NAME`,
//! both addresses in hexadecimal and the last one included. A process without the right to see addresses reads zeros.

use kho::{OutOfMemory, PAGE_SIZE, PhysAddr, PhysRange, RangeSet};

/// Memory of this machine.
#[derive(Default, Debug)]
pub struct Map {
    /// System RAM in whole pages, without the memory that the firmware or ACPI keeps. kho.ko may read this memory.
    pub readable: RangeSet,
    /// The part of `readable` above the first MiB. Drivers may hand over this memory.
    pub ram: RangeSet,
    /// Ranges of this kernel's image and of the crash kernel's reservation: kho.ko never uses them.
    pub taken: RangeSet,
}

/// End of real-mode and firmware memory, in which nothing is ever handed over.
const LOW: u64 = 1 << 20;

/// Parses the text of `/proc/iomem`. Skips lines in another format.
///
/// # Errors
///
/// [`OutOfMemory`].
pub fn parse(text: &[u8]) -> Result<Map, OutOfMemory> {
    let mut map = Map::default();
    // In kernels before 6.10 a new line begins where a range of setup_data begins or ends, in the middle of a page.
    let mut bytes = RangeSet::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some((range, name, top)) = line_parts(line) else {
            continue;
        };
        if name == b"System RAM" && top {
            bytes.insert(range)?;
        } else if (name.starts_with(b"Kernel ") || name.starts_with(b"Crash kernel"))
            && let Some(outer) = range.page_outer()
        {
            map.taken.insert(outer)?;
        }
    }
    map.readable = bytes.align_inner(PAGE_SIZE)?;
    map.ram = map.readable.try_clone()?;
    if let Ok(low) = PhysRange::new(PhysAddr::new(0), LOW) {
        map.ram.remove(low)?;
    }
    Ok(map)
}

/// Range, name, and whether the line is at the top level.
fn line_parts(line: &[u8]) -> Option<(PhysRange, &[u8], bool)> {
    let trimmed = line.trim_ascii_start();
    let colon = trimmed.windows(3).position(|w| w == b" : ")?;
    let (bounds, name) = trimmed.split_at_checked(colon)?;
    let dash = bounds.iter().position(|byte| *byte == b'-')?;
    let (start, last) = bounds.split_at_checked(dash)?;
    let start = hex(start)?;
    let end = hex(last.get(1..)?)?.checked_add(1)?;
    let range = PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).ok()?;
    Some((range, name.get(3..)?, trimmed.len() == line.len()))
}

/// The value of a number in hexadecimal digits; `None` if it has other characters.
pub fn hex(digits: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(digits).ok()?;
    if text.starts_with('+') {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"00000000-00000fff : Reserved\n\
        00001000-0009fbff : System RAM\n\
        00100000-3ffdffff : System RAM\n\
        \x20 01000000-01ffffff : Kernel code\n\
        \x20 2a000000-2fffffff : Crash kernel\n\
        feffc000-feffffff : Reserved\n\
        100000000-13fffffff : System RAM\n\
        garbage\n-: \n1-0 : System RAM\n";

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
    }

    #[test]
    fn ram_is_the_top_level_above_one_mib() {
        let map = parse(TEXT).unwrap();
        assert_eq!(
            map.ram.as_slice(),
            &[range(0x100000, 0x3ffe0000), range(0x100000000, 0x140000000)]
        );
        assert_eq!(
            map.readable.as_slice(),
            &[
                range(0x1000, 0x9f000),
                range(0x100000, 0x3ffe0000),
                range(0x100000000, 0x140000000)
            ]
        );
        assert_eq!(
            map.taken.as_slice(),
            &[range(0x1000000, 0x2000000), range(0x2a000000, 0x30000000)]
        );
    }

    #[test]
    fn lines_that_meet_within_a_page_are_one() {
        let map =
            parse(b"00100000-0010407f : System RAM\n00104080-001fffff : System RAM\n").unwrap();
        assert_eq!(map.ram.as_slice(), &[range(0x100000, 0x200000)]);
    }

    #[test]
    fn hidden_addresses_give_no_ram() {
        let map = parse(b"00000000-00000000 : System RAM\n").unwrap();
        assert!(map.ram.is_empty());
    }
}
