//! Identity of the loaded image: whether it is the image that kho loaded.
//!
//! `/sys/kernel/kexec_loaded` says only that *some* image is loaded. Before `kho exec` destroys the running system, it
//! must know that kho loaded this image, and that no other program has loaded another image meanwhile. The kernel keeps
//! the list of segments from the call in `struct kimage` (`include/linux/kexec.h`), and root can read the list: the
//! kernel's symbol table has the address of the pointer `kexec_image` (with CONFIG_KALLSYMS_ALL, as in Debian), and
//! `/proc/kcore` has both the pointer and the struct.
//!
//! In 6.1, 6.12 and 7.3 the struct begins with the same members on 64-bit machines:
//!
//! | offset | member |
//! | --- | --- |
//! | 0, 8, 16 | `head`, `entry`, `last_entry` |
//! | 24 | `start`: the entry point |
//! | 32, 40, 48 | `control_code_page`, `swap_page`, `vmcoreinfo_data_copy` |
//! | 56 | `nr_segments` |
//! | 64 | `segment[16]`: `{buf, bufsz, mem, memsz}` of 8 bytes each |
//!
//! A later kernel may move these members, so kho searches the first KiB for the array. Memory that does not look like a
//! `struct kimage` gives [`Identity::CannotTell`], never a match.
//!
//! Two loads of the same files must differ: the loader gives one segment a random `bufsz`, which makes the
//! [`LoadedImage`] unique. The kernel zeroes the memory behind `bufsz` anyway.

use crate::sys::facts::kexec::KexecState;
use crate::sys::physmem::{Kcore, PhysError};
use crate::sys::root::{FactError, Root, in_full};
use crate::sys::symbols;
use crate::sys::syscalls::{SEGMENT_MAX, SegmentRef};
use kho::bytes::u64_at;
use kho::{PAGE_SIZE, PhysAddr};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read};
use std::sync::OnceLock;

/// Symbol of the kernel's pointer to the loaded image.
const IMAGE_POINTER: &str = "kexec_image";
/// Number of bytes of the struct that are read: enough for the array at any offset below 512.
const WINDOW: usize = 1024;
/// Bytes of `struct kexec_segment`.
const SEGMENT: usize = 32;
/// Offset of `start` in 6.1, 6.12 and 7.3; `COUNT` is the offset of `nr_segments`.
const START: usize = 24;
const COUNT: usize = 56;

/// One segment, as the kernel recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedSegment {
    /// Physical destination.
    pub mem: u64,
    /// Bytes occupied at the destination.
    pub memsz: u64,
    /// Bytes given to the kernel.
    pub bufsz: u64,
}

/// An image as the kernel recorded it. The record identifies the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedImage {
    /// Entry point.
    pub start: u64,
    /// The segments, in the order of the call.
    pub segments: Vec<LoadedSegment>,
}

impl LoadedImage {
    /// Returns the record that the kernel will have of an image with these segments.
    pub fn of(entry: PhysAddr, segments: &[SegmentRef<'_>]) -> Self {
        Self {
            start: entry.get(),
            segments: segments
                .iter()
                .map(|s| LoadedSegment {
                    mem: s.dest.get(),
                    memsz: s.memsz,
                    bufsz: s.buf.len() as u64,
                })
                .collect(),
        }
    }
}

/// Answer of [`identify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// No image is loaded.
    Nothing,
    /// The loaded image is the given one.
    Ours,
    /// Another image is loaded: this one.
    SomebodyElses(LoadedImage),
    /// An image is loaded, and its loader cannot be determined, for the reason in the text. The caller must not start
    /// it.
    CannotTell(String),
}

/// Checks that [`identify`] can identify any loaded image.
///
/// # Errors
///
/// The obstacle, in words.
pub fn can_tell(root: &Root) -> Result<(), String> {
    let address = image_pointer(root)?;
    Kcore::open(root)
        .and_then(|kcore| kcore.read_virtual(address, &mut [0; 8]))
        .map_err(|e| in_full(&e))
}

/// Returns the loaded image as the kernel recorded it; `None` if the image cannot be read.
pub fn current(root: &Root) -> Option<LoadedImage> {
    let kcore = Kcore::open(root).ok()?;
    let window = read_image(&kcore, image_pointer(root).ok()?).ok()??;
    Some(LoadedImage {
        start: u64_at(&window, START)?,
        segments: array_at(&window, COUNT)?,
    })
}

/// Compares the loaded image with `ours`. Never fails: an obstacle to the comparison gives [`Identity::CannotTell`]
/// with the reason.
pub fn identify(root: &Root, ours: &LoadedImage) -> Identity {
    match KexecState::read(root) {
        Ok(state) if state.loaded == Some(true) => {}
        Ok(_) => return Identity::Nothing,
        Err(e) => return Identity::CannotTell(in_full(&e)),
    }
    let address = match image_pointer(root) {
        Ok(address) => address,
        Err(why) => return Identity::CannotTell(why),
    };
    let kcore = match Kcore::open(root) {
        Ok(kcore) => kcore,
        Err(e) => return Identity::CannotTell(in_full(&e)),
    };
    match read_image(&kcore, address) {
        Ok(None) => Identity::Nothing,
        Ok(Some(window)) => judge(&window, ours),
        Err(e) => Identity::CannotTell(in_full(&e)),
    }
}

/// Reads the beginning of `*kexec_image`; `None` if the pointer is null.
fn read_image(kcore: &Kcore, address: u64) -> Result<Option<[u8; WINDOW]>, PhysError> {
    let pointer = || -> Result<u64, PhysError> {
        let mut word = [0; 8];
        kcore.read_virtual(address, &mut word)?;
        Ok(u64::from_le_bytes(word))
    };
    let mut at = pointer()?;
    // Another program may load an image meanwhile: the bytes count only if the pointer has not changed. Four tries
    // bound the loop; a program that loads in a loop makes all of them fail.
    for _ in 0..4 {
        if at == 0 {
            return Ok(None);
        }
        let mut window = [0; WINDOW];
        kcore.read_virtual(at, &mut window)?;
        let now = pointer()?;
        if now == at {
            return Ok(Some(window));
        }
        at = now;
    }
    Err(PhysError::NotMappedVirtual {
        path: "/proc/kcore (kexec_image keeps changing)".into(),
        addr: at,
    })
}

/// Reads `nr_segments` and the array behind it at this offset; `None` if the values are implausible.
fn array_at(window: &[u8], at: usize) -> Option<Vec<LoadedSegment>> {
    let count = usize::try_from(u64_at(window, at)?).ok()?;
    if !(1..=SEGMENT_MAX).contains(&count) {
        return None;
    }
    (0..count)
        .map(|i| {
            let base = at + 8 + i * SEGMENT;
            let segment = LoadedSegment {
                bufsz: u64_at(window, base + 8)?,
                mem: u64_at(window, base + 16)?,
                memsz: u64_at(window, base + 24)?,
            };
            let whole = |n: u64| n.is_multiple_of(PAGE_SIZE);
            let sane = whole(segment.mem)
                && whole(segment.memsz)
                && segment.memsz > 0
                && segment.bufsz <= segment.memsz
                && segment.mem.checked_add(segment.memsz).is_some();
            sane.then_some(segment)
        })
        .collect()
}

fn judge(window: &[u8], ours: &LoadedImage) -> Identity {
    // The known offset comes first, then any other offset where the array equals kho's own segments.
    if let Some(segments) = array_at(window, COUNT) {
        let start = u64_at(window, START).unwrap_or(0);
        let found = LoadedImage { start, segments };
        return if found == *ours {
            Identity::Ours
        } else {
            Identity::SomebodyElses(found)
        };
    }
    let moved = (0..WINDOW)
        .step_by(8)
        .find(|at| array_at(window, *at).is_some_and(|s| s == ours.segments));
    match moved {
        // The entry point is before the array in every version up to 7.3.
        Some(at) if (0..at).step_by(8).any(|o| u64_at(window, o) == Some(ours.start)) => {
            Identity::Ours
        }
        _ => Identity::CannotTell(
            "the running kernel's struct kimage is not laid out as in 6.1 to 7.3, and our segments are \
             not in its first KiB"
                .into(),
        ),
    }
}

/// Returns the address of the pointer `kexec_image`. The address in the running kernel is searched for only once.
fn image_pointer(root: &Root) -> Result<u64, String> {
    static RUNNING: OnceLock<u64> = OnceLock::new();
    if *root != Root::system() {
        return symbol(root, IMAGE_POINTER);
    }
    if let Some(address) = RUNNING.get() {
        return Ok(*address);
    }
    symbol(root, IMAGE_POINTER).map(|address| *RUNNING.get_or_init(|| address))
}

/// Returns the address of a symbol of the kernel itself: from the kernel's own table, or, if that cannot be read, from
/// `/proc/kallsyms`. If the administrator hides addresses from all users (`kernel.kptr_restrict=2`), kho does not get
/// them either.
fn symbol(root: &Root, name: &str) -> Result<u64, String> {
    let hidden = root.number("proc/sys/kernel/kptr_restrict");
    let shown = !hidden.is_ok_and(|level| level > 1);
    let packed = Kcore::open(root).ok().filter(|_| shown);
    if let Some(address) = packed.and_then(|kcore| symbols::find(&kcore, name)) {
        return Ok(address);
    }
    let path = root.path("proc/kallsyms");
    let file = std::fs::File::open(&path)
        .map_err(|e| in_full(&FactError::io(&path, e)))?
        // The file has about 200,000 lines of 60 bytes. The bound stops a file that never ends.
        .take(256 << 20);
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line);
        if read.map_err(|e| in_full(&FactError::io(&path, e)))? == 0 {
            break;
        }
        // In the line of a module's symbol the name of the module follows.
        if !line.trim_ascii_end().ends_with(name.as_bytes()) {
            continue;
        }
        let text = String::from_utf8_lossy(&line);
        let mut words = text.split_whitespace();
        let (Some(address), Some(_), Some(found)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if found != name {
            continue;
        }
        return match crate::sys::root::parse_hex(address) {
            Some(0) => Err(format!(
                "{} hides addresses: kernel.kptr_restrict is 2, or CAP_SYSLOG is missing",
                path.display()
            )),
            Some(address) => Ok(address),
            None => Err(format!(
                "{}: {name} has the address {address:?}",
                path.display()
            )),
        };
    }
    Err(format!(
        "{} does not name {name} (CONFIG_KALLSYMS_ALL)",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::physmem::core_file_for_tests as core_file;
    use crate::sys::root::fixture::Fixture;

    const SYMBOL: u64 = 0xffff_ffff_8300_0100;
    const IMAGE: u64 = 0xffff_8880_0010_0800;

    fn ours() -> LoadedImage {
        LoadedImage {
            start: 0x10_0000,
            segments: vec![
                LoadedSegment {
                    mem: 0x100_0000,
                    memsz: 0x80_0000,
                    bufsz: 0x7f_1234,
                },
                LoadedSegment {
                    mem: 0x10_0000,
                    memsz: 0x3000,
                    bufsz: 0x2f01,
                },
            ],
        }
    }

    /// Makes a `struct kimage` with `pad` bytes of new members in front.
    fn kimage(image: &LoadedImage, pad: usize) -> Vec<u8> {
        let mut words = vec![0xffff_8880_dead_b000u64; pad / 8];
        words.extend([0x1000 | 2, IMAGE, IMAGE, image.start, 1, 2, 0]);
        words.push(image.segments.len() as u64);
        for s in &image.segments {
            words.extend([0x7f00_0000_1000, s.bufsz, s.mem, s.memsz]);
        }
        words.resize(WINDOW / 8, 0);
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    fn machine(pointer: u64, kimage: &[u8]) -> Fixture {
        let f = Fixture::new();
        let mut data = vec![0u8; 0x1000];
        data[0x100..0x108].copy_from_slice(&pointer.to_le_bytes());
        let mut page = vec![0u8; 0x1000];
        page[0x800..0x800 + kimage.len()].copy_from_slice(kimage);
        f.put(
            "proc/kcore",
            core_file(&[
                (SYMBOL - 0x100, 0x300_0000, data),
                (IMAGE - 0x800, 0x10_0000, page),
            ]),
        )
        .put("sys/kernel/kexec_loaded", "1\n")
        .put(
            "proc/kallsyms",
            format!(
                "{:016x} d kexec_image\t[evil]\n{SYMBOL:016x} B kexec_image\n",
                1
            ),
        );
        f
    }

    fn ask(f: &Fixture) -> Identity {
        identify(&f.root(), &ours())
    }

    #[test]
    fn ours_and_somebody_elses() {
        assert_eq!(ask(&machine(IMAGE, &kimage(&ours(), 0))), Identity::Ours);
        let mut other = ours();
        other.segments[1].bufsz += 1;
        assert_eq!(
            ask(&machine(IMAGE, &kimage(&other, 0))),
            Identity::SomebodyElses(other)
        );
        let mut other = ours();
        other.start += 8;
        assert_eq!(
            ask(&machine(IMAGE, &kimage(&other, 0))),
            Identity::SomebodyElses(other)
        );
        let mut fewer = ours();
        fewer.segments.pop();
        assert_eq!(
            ask(&machine(IMAGE, &kimage(&fewer, 0))),
            Identity::SomebodyElses(fewer)
        );
    }

    #[test]
    fn another_layout_is_a_match_only_when_everything_is_there() {
        assert_eq!(ask(&machine(IMAGE, &kimage(&ours(), 24))), Identity::Ours);
        let mut other = ours();
        other.segments[0].bufsz -= 1;
        for layout in [kimage(&other, 24), vec![0; WINDOW], vec![0xff; WINDOW]] {
            assert!(matches!(
                ask(&machine(IMAGE, &layout)),
                Identity::CannotTell(_)
            ));
        }
    }

    #[test]
    fn what_prevents_an_answer_is_said() {
        let f = machine(0, &[]);
        assert_eq!(ask(&f), Identity::Nothing);
        f.put("sys/kernel/kexec_loaded", "0\n");
        assert_eq!(ask(&f), Identity::Nothing);
        let reason = |f: &Fixture| match ask(f) {
            Identity::CannotTell(why) => why,
            other => panic!("{other:?}"),
        };
        let f = machine(0x1234, &kimage(&ours(), 0));
        assert!(reason(&f).contains("0x1234"));
        f.put("proc/kallsyms", "0000000000000000 B kexec_image\n");
        assert!(reason(&f).contains("kptr_restrict"));
        f.put("proc/kallsyms", "ffffffff81000000 T _text\n");
        assert!(reason(&f).contains("KALLSYMS_ALL"));
        assert!(can_tell(&f.root()).unwrap_err().contains("KALLSYMS_ALL"));
        f.put("proc/kallsyms", "xyz B kexec_image\n");
        assert!(reason(&f).contains("xyz"));
        let f = machine(IMAGE, &kimage(&ours(), 0));
        assert_eq!(can_tell(&f.root()), Ok(()));
        f.remove("proc/kcore");
        assert!(reason(&f).contains("kcore"));
        assert!(can_tell(&f.root()).unwrap_err().contains("kcore"));
    }

    #[test]
    fn what_the_kernel_will_remember() {
        let buf = [0u8; 5];
        let segments = [SegmentRef {
            buf: &buf,
            dest: PhysAddr::new(0x1000),
            memsz: 4096,
        }];
        assert_eq!(
            LoadedImage::of(PhysAddr::new(7), &segments),
            LoadedImage {
                start: 7,
                segments: vec![LoadedSegment {
                    mem: 0x1000,
                    memsz: 4096,
                    bufsz: 5
                }]
            }
        );
    }
}
