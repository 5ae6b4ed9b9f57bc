//! Files to which processes can write through memory.
//!
//! No time stamp shows such a write: the kernel updates the time when a page becomes writable
//! (`fault_dirty_shared_page` in `mm/memory.c`, 6.1 to 7.3), and not again while the page stays writable. So content
//! that kho has read from such a file may be out of date although the file's attributes are the same.

use super::root::{Root, parse_hex};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Largest number of bytes that are read of the mappings of one process: a line has about 100 bytes, and a process at
/// most 65530 mappings (`vm.max_map_count`) unless its administrator raises the limit.
const MAPS_LIMIT: u64 = 256 << 20;

/// Largest number of processes, and of threads of one process, that are examined: the kernel's own limit
/// (`PID_MAX_LIMIT`).
const PROCESSES: usize = 1 << 22;

/// Identity of a file, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Major and minor number of the file's device.
    pub device: (u32, u32),
    /// Inode number of the file.
    pub inode: u64,
}

/// A shared mapping through which a process can write now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Number of the process.
    pub process: u32,
    /// Name of the process's program, as the kernel shortens it.
    pub program: String,
    /// The file in the mapping. Some file systems (btrfs, overlayfs) show another device here than in stat(2).
    pub mapped: FileId,
    /// The file in stat(2); `None` if the mapping no longer existed.
    pub stat: Option<FileId>,
}

/// Mappings that were found, and processes that could not be examined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    /// Shared, writable mappings of files, each file of a process once.
    pub writable: Vec<Mapping>,
    /// Processes whose mappings the kernel hides from this process.
    pub hidden: Vec<u32>,
}

impl Mappings {
    /// Examines every process. A process that ends meanwhile has no mappings.
    pub fn read(root: &Root) -> Self {
        let mut found = Self::default();
        for process in root.numbered("proc", PROCESSES).unwrap_or_default() {
            found.process(root, process);
        }
        found
    }

    fn process(&mut self, root: &Root, process: u32) {
        let dir = format!("proc/{process}");
        let mut maps = root.bytes(&format!("{dir}/maps"), MAPS_LIMIT);
        if maps.as_ref().is_ok_and(Vec::is_empty) {
            // This is a kernel thread, or a process whose first thread has ended: the other threads still have the
            // memory.
            maps = root
                .numbered(&format!("{dir}/task"), PROCESSES)
                .unwrap_or_default()
                .into_iter()
                .filter(|thread| *thread != process)
                .filter_map(|thread| {
                    root.bytes(&format!("{dir}/task/{thread}/maps"), MAPS_LIMIT)
                        .ok()
                })
                .find(|maps| !maps.is_empty())
                .ok_or_else(|| {
                    super::root::FactError::io(
                        &root.path(&dir),
                        std::io::ErrorKind::NotFound.into(),
                    )
                });
        }
        let maps = match maps {
            Ok(maps) => maps,
            Err(error) => {
                if error.is_denied() {
                    self.hidden.push(process);
                }
                return;
            }
        };
        let mut program = None;
        for line in maps.split(|byte| *byte == b'\n') {
            let Some((start, end, mapped)) = writable_shared(line) else {
                continue;
            };
            let stat = stat(root, &format!("{dir}/map_files/{start:x}-{end:x}"));
            let known = |other: &Mapping| {
                other.process == process && other.mapped == mapped && other.stat == stat
            };
            if self
                .writable
                .iter()
                .rev()
                .take_while(|other| other.process == process)
                .any(known)
            {
                continue;
            }
            let program = program.get_or_insert_with(|| name(root, &dir));
            self.writable.push(Mapping {
                process,
                program: program.clone(),
                mapped,
                stat,
            });
        }
    }
}

/// Parses a line of `/proc/<pid>/maps` (`show_map_vma` in `fs/proc/task_mmu.c`, 6.1 to 7.3). Returns start and end of
/// the mapping and its file; `None` unless the mapping is a shared, writable mapping of a file.
fn writable_shared(line: &[u8]) -> Option<(u64, u64, FileId)> {
    let mut fields = line.split(|byte| *byte == b' ').map(std::str::from_utf8);
    let mut field = || fields.next()?.ok();
    let (start, end) = field()?.split_once('-')?;
    let flags = field()?.as_bytes();
    if flags.get(1) != Some(&b'w') || flags.get(3) != Some(&b's') {
        return None;
    }
    let _offset = field()?;
    let (major, minor) = field()?.split_once(':')?;
    let inode: u64 = field()?.parse().ok()?;
    let number = |text| u32::try_from(parse_hex(text)?).ok();
    (inode != 0).then_some((
        parse_hex(start)?,
        parse_hex(end)?,
        FileId {
            device: (number(major)?, number(minor)?),
            inode,
        },
    ))
}

/// Returns the file to which a link in `map_files` leads.
fn stat(root: &Root, link: &str) -> Option<FileId> {
    let stat =
        rustix::fs::statx(CWD, root.path(link), AtFlags::NO_AUTOMOUNT, StatxFlags::INO).ok()?;
    Some(FileId {
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
    })
}

/// Returns the name of a program, escaped: the name may hold any bytes.
fn name(root: &Root, dir: &str) -> String {
    let bytes = root.bytes(&format!("{dir}/comm"), 64).unwrap_or_default();
    let text = OsString::from_vec(bytes.strip_suffix(b"\n").unwrap_or(&bytes).to_vec());
    let text = text.to_string_lossy();
    text.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::root::fixture::Fixture;
    use super::*;

    fn file(major: u32, minor: u32, inode: u64) -> FileId {
        FileId {
            device: (major, minor),
            inode,
        }
    }

    #[test]
    fn shared_and_writable_is_what_counts() {
        let line = |text: &str| writable_shared(text.as_bytes());
        assert_eq!(
            line(
                "7f0012345000-7f0012346000 rw-s 00000000 00:1a 4321                       /dev/shm/a b"
            ),
            Some((0x7f00_1234_5000, 0x7f00_1234_6000, file(0, 0x1a, 4321)))
        );
        assert_eq!(
            line("00400000-00401000 rwxs 00001000 fd:02 7 /srv/x (deleted)").map(|found| found.2),
            Some(file(0xfd, 2, 7))
        );
        for other in [
            "7f0012345000-7f0012346000 r--s 00000000 00:1a 4321 /dev/shm/a",
            "7f0012345000-7f0012346000 rw-p 00000000 00:1a 4321 /dev/shm/a",
            // A mapping without a file.
            "7f0012345000-7f0012346000 rw-s 00000000 00:00 0 ",
            "7f0012345000-7f0012346000 rw-s",
            "7f0012345000 rw-s 00000000 00:1a 4321 /a",
            "x-y rw-s 00000000 00:1a 4321 /a",
            "1-2 rw-s 00000000 00:fffffffff 1 /a",
            "",
        ] {
            assert_eq!(line(other), None, "{other}");
        }
    }

    #[test]
    fn every_process_is_looked_at_and_each_file_named_once() {
        let f = Fixture::new();
        let two = "1000-2000 rw-s 00000000 08:01 11 /a\n2000-3000 rw-s 00001000 08:01 11 /a\n\
                   3000-4000 rw-s 00000000 08:01 12 /b\n";
        f.put("proc/7/maps", two)
            .put("proc/7/comm", "post\x1bgres\n")
            .put("proc/8/maps", "1000-2000 r-xp 00000000 08:01 13 /c\n")
            // The first thread has ended.
            .put("proc/9/maps", "")
            .put("proc/9/task/9/maps", "")
            .put(
                "proc/9/task/10/maps",
                "1000-2000 rw-s 00000000 08:01 13 /c\n",
            )
            .put("proc/9/comm", "late\n")
            .put("proc/self/maps", two);
        let found = Mappings::read(&f.root());
        let seen: Vec<_> = found
            .writable
            .iter()
            .map(|m| (m.process, m.program.as_str(), m.mapped.inode))
            .collect();
        assert_eq!(
            seen,
            [
                (7, "post\\u{1b}gres", 11),
                (7, "post\\u{1b}gres", 12),
                (9, "late", 13)
            ]
        );
        assert!(found.hidden.is_empty());
    }

    #[test]
    fn the_file_is_the_one_that_stat_shows() {
        use std::os::unix::fs::MetadataExt;
        let f = Fixture::new();
        f.put("srv/file", "x")
            .put("proc/7/maps", "001000-2000 rw-s 00000000 00:99 11 /a\n")
            .put(
                "proc/7/map_files/1000-2000",
                "stands in for a link to the file",
            );
        let found = Mappings::read(&f.root());
        let link = f.root().path("proc/7/map_files/1000-2000");
        let meta = std::fs::metadata(link).unwrap();
        let [mapping] = found.writable.as_slice() else {
            panic!("{found:?}")
        };
        let stat = mapping.stat.unwrap();
        assert_eq!(stat.inode, meta.ino());
        assert_eq!(
            (mapping.mapped, mapping.stat),
            (file(0, 0x99, 11), Some(stat))
        );
    }
}
