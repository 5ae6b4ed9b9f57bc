//! The kernel's resource map: `/proc/iomem`.

use crate::sys::root::{FactError, LISTING_LIMIT, Root, parse_hex};
use kho::{OutOfMemory, PhysAddr, PhysRange, RangeSet};

const FILE: &str = "proc/iomem";

/// One line: a range, its depth of nesting, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Range of the resource.
    pub range: PhysRange,
    /// Depth of nesting: 0 at the root; each level is two blanks of indentation (`r_show`, `kernel/resource.c`).
    pub depth: usize,
    /// Name that the kernel or the driver gives the resource.
    pub name: String,
}

/// `/proc/iomem`, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Iomem {
    resources: Vec<Resource>,
}

impl Iomem {
    /// Reads `/proc/iomem`.
    ///
    /// # Errors
    ///
    /// [`FactError::Hidden`] without CAP_SYS_ADMIN (the kernel then prints zeros), [`FactError::Malformed`] with the
    /// first line that is not in the file's format.
    pub fn read(root: &Root) -> Result<Self, FactError> {
        let text = root.text(FILE, LISTING_LIMIT)?;
        let path = root.path(FILE);
        let zeros = |line: &str| {
            line.split_once(" : ").is_some_and(|(range, _)| {
                range
                    .chars()
                    .all(|c| matches!(c, '0' | '-') || c.is_whitespace())
            })
        };
        if !text.trim().is_empty() && text.lines().all(zeros) {
            return Err(FactError::Hidden { path });
        }
        Self::parse(&text).map_err(|line| {
            FactError::malformed(
                &path,
                "a line such as 00100000-7ffdcfff : System RAM",
                &line,
            )
        })
    }

    /// Parses the text of the file.
    ///
    /// # Errors
    ///
    /// The first line that is not in the file's format.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut resources = Vec::new();
        for line in text.lines() {
            let resource = parse_line(line).ok_or_else(|| line.to_owned())?;
            resources.extend(resource);
        }
        Ok(Self { resources })
    }

    /// Returns all lines.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// Returns the ranges of every resource with this name, at any depth.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = PhysRange> + 'a {
        self.resources
            .iter()
            .filter(move |r| r.name == name)
            .map(|r| r.range)
    }

    /// Returns all RAM that the kernel uses, RAM that drivers added included.
    ///
    /// Up to 6.12 setup_data reservations split "System RAM" into several lines of that name
    /// (`E820_TYPE_RESERVED_KERN`); these lines touch, so the set has one range.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn system_ram(&self) -> Result<RangeSet, OutOfMemory> {
        RangeSet::from_ranges(
            self.resources
                .iter()
                .filter(|r| r.name == "System RAM" || managed_by(&r.name).is_some())
                .map(|r| r.range),
        )
    }

    /// Returns the RAM added by drivers ("System RAM (virtio_mem)", "System RAM (kmem)"), with the driver's name.
    pub fn driver_managed(&self) -> Vec<(PhysRange, String)> {
        self.resources
            .iter()
            .filter_map(|r| Some((r.range, managed_by(&r.name)?.to_owned())))
            .collect()
    }

    /// Returns the memory that `crashkernel=` took (there may be a second piece below 4 GiB).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn crash_kernel(&self) -> Result<RangeSet, OutOfMemory> {
        RangeSet::from_ranges(self.named("Crash kernel"))
    }
}

fn managed_by(name: &str) -> Option<&str> {
    name.strip_prefix("System RAM (")?.strip_suffix(')')
}

/// Parses one line. `None` if the line is not in the file's format. `Some(None)` if a [`PhysRange`] cannot express the
/// range, because it ends with the last byte of the address space; such a range is not memory.
fn parse_line(line: &str) -> Option<Option<Resource>> {
    let body = line.trim_start_matches(' ');
    let depth = line.len().checked_sub(body.len())? / 2;
    let (range, name) = body.split_once(" : ")?;
    let (start, last) = range.split_once('-')?;
    let (start, last) = (parse_hex(start)?, parse_hex(last)?);
    if last < start {
        return None;
    }
    let Some(end) = PhysAddr::new(last).checked_add(1) else {
        return Some(None);
    };
    let range = PhysRange::from_bounds(PhysAddr::new(start), end).ok()?;
    Some(Some(Resource {
        range,
        depth,
        name: name.to_owned(),
    }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    /// Debian 12, 2 GiB, crashkernel=192M, after one handover (note the split "System RAM" of 6.1).
    pub(crate) const DEBIAN: &str = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
0009fc00-0009ffff : Reserved
000f0000-000fffff : Reserved
  000f0000-000fffff : System ROM
00100000-2f9fffff : System RAM
  2a000000-2acfffff : Kernel code
2fa00000-2fbfffff : System RAM
2fc00000-7ffdcfff : System RAM
  63000000-6effffff : Crash kernel
7ffdd000-7fffffff : Reserved
80000000-afffffff : PCI Bus 0000:00
fed00000-fed003ff : HPET 0
  fed00000-fed003ff : PNP0103:00
fffc0000-ffffffff : Reserved
";

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
    }

    #[test]
    fn reads_debian() {
        let f = Fixture::new();
        f.put("proc/iomem", DEBIAN);
        let map = Iomem::read(&f.root()).unwrap();
        assert_eq!(
            map.system_ram().unwrap().as_slice(),
            [range(0x1000, 0x9_fc00), range(0x10_0000, 0x7ffd_d000)]
        );
        assert_eq!(
            map.crash_kernel().unwrap().as_slice(),
            [range(0x6300_0000, 0x6f00_0000)]
        );
        assert_eq!(map.resources()[4].depth, 1);
        assert!(map.driver_managed().is_empty());
    }

    #[test]
    fn hidden_addresses_are_not_an_empty_map() {
        let f = Fixture::new();
        f.put(
            "proc/iomem",
            "00000000-00000000 : Reserved\n  00000000-00000000 : System RAM\n",
        );
        assert!(matches!(
            Iomem::read(&f.root()),
            Err(FactError::Hidden { .. })
        ));
    }

    #[test]
    fn lines_that_are_none_are_named() {
        for bad in [
            "nonsense",
            "00100000-0009ffff : System RAM",
            "0x100-0x200 : System RAM",
            "100-200: System RAM",
            "00000000-1ffffffffffffffff : System RAM",
            "+1-2 : x",
        ] {
            assert_eq!(Iomem::parse(&format!("{DEBIAN}{bad}\n")), Err(bad.into()));
        }
        let top = Iomem::parse("fff0000000000000-ffffffffffffffff : odd\n").unwrap();
        assert!(top.resources().is_empty());
    }
}
