//! Takes the trace of the running kernel.

use crate::btf;
use crate::expr::constants;
use crate::files::{names, read, text, text_if_there};
use crate::live::{KernelMemory, Live, LiveError, Offsets};
use crate::meta::{ArrayMeta, CpuMeta, EventText, Meta, VERSION, time_base};
use crate::read::Buffer;
use crate::ring::{Page, PageLayout};
use crate::symbols::{KERNEL, Symbols};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use crate::files::TakeError;

/// Most attempts to read all arrays, if instances come and go meanwhile.
const TRIES: usize = 10;

/// Paths of the files in which a kernel shows its state.
#[derive(Clone, Debug)]
pub struct Paths {
    /// tracefs.
    pub tracefs: PathBuf,
    /// `/proc/kallsyms`.
    pub kallsyms: PathBuf,
    /// `/sys/kernel/btf/vmlinux`.
    pub btf: PathBuf,
    /// `/dev/kmsg`.
    pub kmsg: PathBuf,
}

impl Paths {
    /// Returns the paths below `root`, which is `/` for the running system.
    pub fn below(root: &Path) -> Self {
        Self {
            tracefs: root.join("sys/kernel/tracing"),
            kallsyms: root.join("proc/kallsyms"),
            btf: root.join("sys/kernel/btf/vmlinux"),
            kmsg: root.join("dev/kmsg"),
        }
    }
}

/// Facts about the present moment, which the caller gets from the system.
#[derive(Clone, Debug)]
pub struct Moment {
    /// `uname -r`.
    pub release: String,
    /// `uname -m`.
    pub machine: String,
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub uptime: u64,
}

/// Limits of the size of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of pages of all buffers together; the newest pages are taken. If arrays have clocks that cannot be
    /// compared, each clock has the same share, and room that one clock does not need goes to the others.
    pub pages: u64,
    /// Most bytes of the kernel log; the newest are taken.
    pub log: usize,
}

/// The pages of one CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenBuffer {
    /// Name of the array; empty for the top level.
    pub array: String,
    /// The CPU.
    pub cpu: u32,
    /// Bytes of a page.
    pub page_size: usize,
    /// Pages, oldest first.
    pub bytes: Vec<u8>,
}

/// A trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Description that explains the buffers.
    pub meta: Meta,
    /// Every buffer that holds events.
    pub buffers: Vec<TakenBuffer>,
    /// Records of the kernel log.
    pub log: Vec<u8>,
}

impl Taken {
    /// The buffers for a reader.
    pub fn views(&self) -> Vec<Buffer<'_>> {
        self.buffers
            .iter()
            .map(|buffer| Buffer {
                array: &buffer.array,
                cpu: buffer.cpu,
                page_size: buffer.page_size,
                bytes: &buffer.bytes,
            })
            .collect()
    }
}

/// Takes the trace. Does not change the running kernel.
///
/// # Errors
///
/// [`TakeError`].
pub fn take(
    paths: &Paths,
    memory: &dyn KernelMemory,
    moment: Moment,
    limits: Limits,
) -> Result<Taken, TakeError> {
    let tracefs = &paths.tracefs;
    if !tracefs.join("events/header_page").exists() {
        return Err(TakeError::NoTracefs {
            path: tracefs.clone(),
        });
    }
    let header_page = text(&tracefs.join("events/header_page"))?;
    let layout = PageLayout::parse(&header_page)?;
    let symbols = Symbols::read(&paths.kallsyms)?;
    let btf = read(&paths.btf)?;
    let offsets = Offsets::new(&btf).map_err(LiveError::from)?;
    let live = Live::new(memory, offsets, layout);
    let list = symbols.address("ftrace_trace_arrays")?;
    let global = symbols.address("global_trace")?;
    let mut meta = Meta {
        version: VERSION,
        release: moment.release,
        machine: moment.machine,
        taken: moment.time,
        uptime: moment.uptime,
        header_event: text(&tracefs.join("events/header_event"))?,
        header_page,
        ..Meta::default()
    };
    let mut tries = 0;
    let pages = loop {
        tries += 1;
        let before = folders(tracefs)?;
        match arrays(&live, [list, global], &before, limits.pages) {
            Ok((arrays, pages)) => {
                meta.arrays = arrays;
                break pages;
            }
            // An instance was added or removed meanwhile: its pointers may lead to another instance or to freed memory.
            Err(_) if tries < TRIES && folders(tracefs)? != before => {}
            Err(err) => return Err(err),
        }
    };
    let buffers = newest(pages, limits.pages, &mut meta);
    // Read names after the pages, so that they include tasks that were named meanwhile.
    meta.cmdlines = text(&tracefs.join("saved_cmdlines"))?;
    meta.tgids = text_if_there(&tracefs.join("saved_tgids"));
    meta.printk_formats = text_if_there(&tracefs.join("printk_formats"));
    meta.probes = text_if_there(&tracefs.join("dynamic_events"));
    let (used, addresses) = mentioned(&buffers, &layout);
    meta.symbols = symbols.lines(&addresses);
    meta.events = formats(tracefs, &used)?;
    name_constants(&mut meta.events, &btf)?;
    Ok(Taken {
        meta,
        buffers,
        log: log(&paths.kmsg, limits.log)?,
    })
}

/// Pages of one CPU of one array, before the size limit is applied.
struct Found {
    name: String,
    /// Base that the times of the array count from.
    base: String,
    cpu: u32,
    page_size: usize,
    pages: Vec<crate::live::LivePage>,
    /// Number of older pages that were dropped already.
    dropped: u64,
}

/// Reads every array that has one of these folders. Returns the descriptions of the arrays, and their pages.
fn arrays(
    live: &Live<'_>,
    [list, global]: [u64; 2],
    folders: &[(String, PathBuf)],
    limit: u64,
) -> Result<(Vec<ArrayMeta>, Vec<Found>), TakeError> {
    let known = live.arrays(list, global)?;
    let (mut described, mut pages) = (Vec::new(), Vec::new());
    for (name, folder) in folders {
        let Some(one) = known.iter().find(|array| array.name == *name) else {
            return Err(TakeError::NoArray(name.clone()));
        };
        let from = From { folder, name };
        described.push(array(live, &from, one.buffer, limit, &mut pages)?);
        // List a snapshot only if it holds events: most kernels have room for one, and few hold a snapshot.
        if let Some(buffer) = one.snapshot {
            let name = &snapshot_name(name, folders);
            let before = pages.len();
            let array = array(live, &From { folder, name }, buffer, limit, &mut pages)?;
            let found = pages.get(before..).unwrap_or_default();
            if found.iter().any(|found| !found.pages.is_empty()) {
                described.push(array);
            } else {
                pages.truncate(before);
            }
        }
    }
    Ok((described, pages))
}

/// Name for an array's snapshot: one that no other array has and that the state tree accepts.
fn snapshot_name(name: &str, folders: &[(String, PathBuf)]) -> String {
    const END: &str = ":snapshot";
    let cut = (0..=255 - END.len())
        .rev()
        .find_map(|len| name.get(..len.min(name.len())));
    let mut found = cut.unwrap_or_default().to_owned() + END;
    while folders.iter().any(|(other, _)| *other == found) {
        found.pop();
    }
    found
}

/// Folder that describes an array, and the name under which the array is handed over.
struct From<'a> {
    folder: &'a Path,
    name: &'a str,
}

fn array(
    live: &Live<'_>,
    from: &From<'_>,
    buffer: u64,
    limit: u64,
    found: &mut Vec<Found>,
) -> Result<ArrayMeta, TakeError> {
    let From { folder, name } = *from;
    let line = |file: &str| text_if_there(&folder.join(file)).trim().to_owned();
    let clocks = line("trace_clock");
    let clock = clocks
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("local", |(clock, _)| clock);
    let mut cpus = Vec::new();
    for cpu in cpu_folders(&folder.join("per_cpu"))? {
        let pages = live
            .cpu(buffer, cpu, limit)
            .map_err(|cause| TakeError::Buffer {
                array: name.to_owned(),
                cpu,
                cause,
            })?;
        let pages = pages.unwrap_or_default();
        cpus.push(CpuMeta {
            cpu,
            stats: text_if_there(&folder.join(format!("per_cpu/cpu{cpu}/stats"))),
            left_out: pages.left_out,
        });
        found.push(Found {
            name: name.to_owned(),
            base: time_base(clock).to_owned(),
            cpu,
            page_size: pages.page_size,
            pages: pages.pages,
            dropped: 0,
        });
        // Each CPU may fill the whole limit, so on a host with many CPUs the pages would take many times the limit.
        if found.iter().map(Found::size).sum::<u64>() > limit.saturating_mul(2) {
            trim(found, limit);
        }
    }
    Ok(ArrayMeta {
        name: name.to_owned(),
        clock: clock.to_owned(),
        tracer: line("current_tracer"),
        options: text_if_there(&folder.join("trace_options")),
        on: line("tracing_on") == "1",
        cpus,
    })
}

impl Found {
    fn size(&self) -> u64 {
        self.page_size as u64 * self.pages.len() as u64
    }
}

/// Drops all pages but the newest that fit, of any CPU and array. Each clock has its share.
fn trim(found: &mut [Found], limit: u64) {
    /// Time of the newest event of a page, and index of the page's buffer.
    type Dated = (u64, usize);
    // For each clock: bytes of its pages that are kept, and the pages that are not decided yet, oldest first.
    let mut clocks: BTreeMap<&str, (u64, Vec<Dated>)> = BTreeMap::new();
    for (index, buffer) in found.iter().enumerate() {
        let (_, pages) = clocks.entry(&buffer.base).or_default();
        pages.extend(buffer.pages.iter().map(|page| (page.newest, index)));
    }
    let mut clocks: Vec<_> = clocks.into_values().collect();
    for (_, pages) in &mut clocks {
        pages.sort_unstable();
    }
    let mut kept = vec![0usize; found.len()];
    let mut left = limit;
    // The clock with the fewest kept bytes takes its turn.
    while let Some((used, pages)) = clocks
        .iter_mut()
        .filter(|(_, pages)| !pages.is_empty())
        .min_by_key(|(used, _)| *used)
    {
        let Some((_, index)) = pages.pop() else { break };
        let size = found.get(index).map_or(0, |buffer| buffer.page_size as u64);
        // A clock ends with its first page that does not fit: an older page in its place would leave a gap.
        let Some(rest) = left.checked_sub(size) else {
            pages.clear();
            continue;
        };
        left = rest;
        *used += size;
        if let Some(count) = kept.get_mut(index) {
            *count += 1;
        }
    }
    for (buffer, kept) in found.iter_mut().zip(kept) {
        let skip = buffer.pages.len().saturating_sub(kept);
        buffer.pages.drain(..skip);
        buffer.dropped += skip as u64;
    }
}

/// The newest pages that fit, as buffers; `meta` counts the dropped ones.
fn newest(mut found: Vec<Found>, limit: u64, meta: &mut Meta) -> Vec<TakenBuffer> {
    trim(&mut found, limit);
    let mut buffers = Vec::new();
    for buffer in found {
        let left_out = meta
            .arrays
            .iter_mut()
            .find(|array| array.name == buffer.name)
            .and_then(|array| array.cpus.iter_mut().find(|cpu| cpu.cpu == buffer.cpu));
        if let Some(cpu) = left_out {
            cpu.left_out += buffer.dropped;
        }
        let bytes: Vec<u8> = buffer
            .pages
            .into_iter()
            .flat_map(|page| page.bytes)
            .collect();
        if !bytes.is_empty() {
            buffers.push(TakenBuffer {
                array: buffer.name,
                cpu: buffer.cpu,
                page_size: buffer.page_size,
                bytes,
            });
        }
    }
    buffers
}

/// Kinds of events that are in the buffers, and every number in them that may be the address of a symbol.
fn mentioned(buffers: &[TakenBuffer], layout: &PageLayout) -> (BTreeSet<u16>, BTreeSet<u64>) {
    let (mut kinds, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for buffer in buffers {
        for page in buffer.bytes.chunks(buffer.page_size) {
            let Ok(page) = Page::new(page, layout) else {
                continue;
            };
            for event in page.events().map_while(Result::ok) {
                kinds.extend(crate::read::kind(event.data));
                let words = (0..event.data.len())
                    .step_by(4)
                    .filter_map(|at| crate::bytes::u64_at(event.data, at));
                addresses.extend(words.filter(|word| *word >= KERNEL));
            }
        }
    }
    (kinds, addresses)
}

/// Whether an instance holds the text of an earlier kernel's trace (`kho-N`), which is carried on separately.
fn is_ours(name: &str) -> bool {
    name.strip_prefix("kho-")
        .is_some_and(|hop| !hop.is_empty() && hop.bytes().all(|digit| digit.is_ascii_digit()))
}

/// The top level and the instances.
fn folders(tracefs: &Path) -> Result<Vec<(String, PathBuf)>, TakeError> {
    let mut folders = vec![(String::new(), tracefs.to_owned())];
    let mut names = names(&tracefs.join("instances"))?;
    names.retain(|name| !is_ours(name));
    names.sort();
    folders.extend(names.into_iter().map(|name| {
        let path = tracefs.join("instances").join(&name);
        (name, path)
    }));
    Ok(folders)
}

fn cpu_folders(dir: &Path) -> Result<Vec<u32>, TakeError> {
    let mut cpus: Vec<u32> = names(dir)?
        .iter()
        .filter_map(|name| name.strip_prefix("cpu")?.parse().ok())
        .collect();
    cpus.sort_unstable();
    Ok(cpus)
}

fn formats(tracefs: &Path, used: &BTreeSet<u16>) -> Result<Vec<EventText>, TakeError> {
    let events = tracefs.join("events");
    let mut found = Vec::new();
    for system in names(&events)? {
        let folder = events.join(&system);
        for event in names(&folder)? {
            let path = folder.join(event).join("format");
            // A file such as `enable`, or an event that was removed meanwhile.
            let Ok(format) = fs::read_to_string(&path) else {
                continue;
            };
            let id = format
                .lines()
                .find_map(|line| line.strip_prefix("ID:")?.trim().parse::<u16>().ok());
            if system == "ftrace" || id.is_some_and(|id| used.contains(&id)) {
                found.push(EventText {
                    system: system.clone(),
                    format,
                });
            }
        }
    }
    found.sort_by(|a, b| (&a.system, &a.format).cmp(&(&b.system, &b.format)));
    Ok(found)
}

/// Puts the numbers of constants into formats, as the kernel itself does for the constants that it knows
/// (`TRACE_DEFINE_ENUM`): a reader cannot know the numbers.
fn name_constants(events: &mut [EventText], btf: &[u8]) -> Result<(), TakeError> {
    let names: BTreeSet<String> = events
        .iter()
        .flat_map(|event| constants(&event.format))
        .map(|(name, _)| name.to_owned())
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let known = btf::constants(btf, &names).map_err(LiveError::from)?;
    for event in events {
        let found: Vec<(String, usize, i64)> = constants(&event.format)
            .into_iter()
            .filter_map(|(name, at)| Some((name.to_owned(), at, *known.get(name)?)))
            .collect();
        for (name, at, value) in found.into_iter().rev() {
            let number = match value {
                0.. => value.to_string(),
                _ => format!("({value})"),
            };
            event.format.replace_range(at..at + name.len(), &number);
        }
    }
    Ok(())
}

/// Most bytes of `/dev/kmsg` that are read: twice the largest buffer (`LOG_BUF_LEN_MAX`, `kernel/printk/printk.c`, 6.1
/// to 7.3). If a log exceeds this, the kernel writes it as fast as kho reads it.
const MAX_LOG: u64 = 4 << 30;

/// The records that `/dev/kmsg` holds now, the newest `limit` bytes.
fn log(path: &Path, limit: usize) -> Result<Vec<u8>, TakeError> {
    let failed = |cause| TakeError::Io {
        path: path.to_owned(),
        cause,
    };
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(failed)?;
    newest_records(&mut file, limit).map_err(failed)
}

/// Returns the newest `limit` bytes of whole records. Holds at most about twice as many bytes in memory.
fn newest_records(from: &mut impl Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    // A record has at most 8 KiB with its properties (`PRINTKRB_RECORD_MAX`, and the escapes).
    let mut record = vec![0; 32 << 10];
    let mut total = 0u64;
    while total < MAX_LOG {
        match from.read(&mut record) {
            Ok(0) => break,
            Ok(len) => {
                out.extend_from_slice(record.get(..len).unwrap_or_default());
                total += len as u64;
            }
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => break,
            // The kernel overwrote records before they were read: the next read continues after them.
            Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
        if out.len() > limit.saturating_mul(2).max(1 << 20) {
            out = crate::kmsg::newest(&out, limit).to_vec();
        }
    }
    Ok(crate::kmsg::newest(&out, limit).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::LivePage;

    /// Returns pages whose newest events have these times. Each page began at the first of the times, which must not
    /// matter.
    fn found(cpu: u32, times: &[u64]) -> Found {
        Found {
            name: String::new(),
            base: "local".to_owned(),
            cpu,
            page_size: 4096,
            pages: times
                .iter()
                .map(|time| LivePage {
                    time: times[0],
                    newest: *time,
                    bytes: vec![u8::try_from(*time).unwrap(); 4096],
                })
                .collect(),
            dropped: 0,
        }
    }

    /// A module that is unloaded at shutdown removes its folder of events between the listing and the read.
    #[test]
    fn a_folder_that_vanished_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let event = dir.path().join("events/sched/switch");
        fs::create_dir_all(&event).unwrap();
        fs::write(event.join("format"), "name: switch\nID: 7\n").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("events/gone")).unwrap();
        let found = formats(dir.path(), &BTreeSet::from([7])).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].system, "sched");
        assert!(cpu_folders(&dir.path().join("per_cpu")).unwrap().is_empty());
    }

    /// A source of as many records as the kernel's largest buffer holds.
    struct Records {
        next: u32,
        count: u32,
    }

    impl Read for Records {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            if self.next == self.count {
                return Err(std::io::ErrorKind::WouldBlock.into());
            }
            let text = "x".repeat(8000);
            let record = format!("6,{},{},-;{text}\n KEY=value\n", self.next, self.next);
            self.next += 1;
            buf[..record.len()].copy_from_slice(record.as_bytes());
            Ok(record.len())
        }
    }

    #[test]
    fn a_snapshot_has_a_name_that_no_other_array_has() {
        let folders = |name: &str| vec![(name.to_owned(), PathBuf::new())];
        assert_eq!(snapshot_name("", &folders("")), ":snapshot");
        assert_eq!(snapshot_name("net", &folders("net")), "net:snapshot");
        let taken = snapshot_name("net", &folders("net:snapshot"));
        assert_eq!(taken, "net:snapsho");
        let long = snapshot_name(&"é".repeat(127), &[]);
        assert_eq!((long.len(), long.ends_with("é:snapshot")), (255, true));
    }

    /// BTF with two enumerations; the second gives one of the first's names another number.
    fn enumerations() -> Vec<u8> {
        let strings = b"\0MODE_ABS\0MODE_REL\0TWICE\0";
        let words =
            |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
        // btf_type: name, kind and count, size; then name and value of each constant.
        let mut types = words(&[0, (6 << 24) | 2, 4, 1, 3, 19, 7]);
        types.extend(words(&[
            0,
            (1 << 31) | (6 << 24) | 2,
            4,
            10,
            u32::MAX,
            19,
            8,
        ]));
        let mut out = vec![0x9f, 0xeb, 1, 0];
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        out.extend(words(&[24, 0, len(&types), len(&types), len(strings)]));
        out.extend(types);
        out.extend(strings);
        out
    }

    #[test]
    fn constants_of_formats_get_their_numbers() {
        let format = "name: x\nID: 1\nformat:\n\tfield:int MODE_ABS;\n\nprint fmt: \"MODE_ABS %s\", __print_symbolic(REC->m, { MODE_ABS, \"MODE_REL\" }, { MODE_REL, \"R\" }, { TWICE, \"T\" }, { NONE, \"N\" }), MODE_ABS(1)\n";
        let mut events = [EventText {
            system: "x".to_owned(),
            format: format.to_owned(),
        }];
        name_constants(&mut events, &enumerations()).unwrap();
        assert_eq!(
            events[0].format,
            format
                .replace("{ MODE_ABS", "{ 3")
                .replace("{ MODE_REL", "{ (-1)")
        );
    }

    #[test]
    fn the_newest_part_of_a_large_log_is_kept() {
        let count = 10_000;
        let mut records = Records { next: 0, count };
        let log = newest_records(&mut records, 100_000).unwrap();
        assert_eq!(records.next, count);
        assert!((80_000..=100_000).contains(&log.len()), "{}", log.len());
        assert!(log.starts_with(b"6,99"));
        let last = crate::kmsg::parse(&log).pop().unwrap();
        assert_eq!(last.sequence, u64::from(count) - 1);
    }

    #[test]
    fn the_newest_pages_of_all_cpus_are_kept() {
        let mut meta = Meta {
            arrays: vec![ArrayMeta {
                cpus: (0..3)
                    .map(|cpu| CpuMeta {
                        cpu,
                        left_out: 1,
                        ..CpuMeta::default()
                    })
                    .collect(),
                ..ArrayMeta::default()
            }],
            ..Meta::default()
        };
        let all = vec![found(0, &[1, 5, 9]), found(1, &[2, 3]), found(2, &[8])];
        let kept = newest(all, 4 * 4096 + 4095, &mut meta);
        let first = |buffer: &TakenBuffer| -> Vec<u8> {
            buffer.bytes.iter().step_by(4096).copied().collect()
        };
        let kept: Vec<_> = kept.iter().map(|b| (b.cpu, first(b))).collect();
        assert_eq!(kept, [(0, vec![5, 9]), (1, vec![3]), (2, vec![8])]);
        let left: Vec<_> = meta.arrays[0].cpus.iter().map(|c| c.left_out).collect();
        assert_eq!(left, [2, 2, 1]);
        // Dropping pages early gives the same result.
        let mut all = vec![found(0, &[1, 5, 9]), found(1, &[2, 3])];
        trim(&mut all, 4 * 4096);
        all.push(found(2, &[8]));
        let mut again = meta.clone();
        for cpu in &mut again.arrays[0].cpus {
            cpu.left_out = 1;
        }
        assert_eq!(newest(all, 4 * 4096, &mut again).len(), 3);
        assert_eq!(again, meta);
    }

    #[test]
    fn clocks_that_cannot_be_compared_share_the_room() {
        let of = |base: &str, cpu, times: &[u64]| Found {
            base: base.to_owned(),
            ..found(cpu, times)
        };
        let kept = |all: &[Found]| -> Vec<usize> { all.iter().map(|f| f.pages.len()).collect() };
        // All times of one clock are higher than those of the other.
        let mut all = [
            of("local", 0, &[1, 2, 3, 4]),
            of("mono", 1, &[101, 102, 103, 104]),
        ];
        trim(&mut all, 4 * 4096);
        assert_eq!(kept(&all), [2, 2]);
        assert_eq!(all[0].pages[0].newest, 3);
        // Room that one clock does not need goes to the others.
        let mut all = [
            of("local", 0, &[1, 2, 3, 4]),
            of("mono", 1, &[101]),
            of("local", 2, &[5]),
        ];
        trim(&mut all, 4 * 4096);
        assert_eq!(kept(&all), [2, 1, 1]);
        // Dropping pages early gives the same result: later buffers can only reduce the share of a clock.
        let mut early = [of("local", 0, &[1, 2, 3, 4, 6, 7]), of("tai", 3, &[9])];
        trim(&mut early, 4 * 4096);
        let [local, tai] = early;
        let mut all = [local, of("mono", 1, &[101, 102]), tai];
        trim(&mut all, 4 * 4096);
        assert_eq!(kept(&all), [2, 1, 1]);
    }
}
