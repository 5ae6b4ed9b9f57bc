//! The arrival program, which the next kernel runs first, as PID 1, before the real init.
//!
//! The loader puts a small archive in front of the initrd, and `rdinit=/.kho/arrive` makes the kernel start this
//! program from that archive. So the program does not depend on the software that is installed in the next system. In
//! order, it
//!
//! 1. on x86_64, sets `/sys/kernel/boot_params/setup_data` to mode 0700. The kernel lets every user read its files, which show all
//!    that was handed over. The mode stays for the whole boot, so it also shows that this program ran;
//! 2. checks that the pages of every range in `/.kho/ranges` are reserved, through `/proc/kpageflags`;
//! 3. writes one line with the result to the kernel log and to `/.kho/arrival.log` (and one for each range that is not
//!    reserved, up to a few);
//! 4. starts the init whose path is in `/.kho/init`, with the arguments and environment that the kernel gave this
//!    program.
//!
//! The program mounts everything below `/.kho` and unmounts it again: the real init finds the system as it would be
//! without kho. The program starts the real init even after a failure. If that init does not exist, because the initrd
//! consists of kho's archive only, the program does the work of the kernel's `prepare_namespace` (`init/do_mounts.c`):
//! it mounts the root file system and starts the init there. See `root.rs`.
//!
//! An administrator or a tool may copy a command line with that `rdinit=` to a kernel that kho does not load and that
//! has an initrd of its own. Such a kernel boots as well, because packages put the program into every initrd, as
//! `/.kho/arrive` (`pass.rs`). There the program starts the init that the kernel would have started without kho. If kho
//! loads a kernel with such an initrd, the kernel unpacks the initrd after kho's archive, and the initrd's
//! `/.kho/arrive`, of any version, replaces the loader's. Therefore the loader puts its program there twice, and
//! `/.kho/arrive`, in each version, only starts `/.kho/arrival` if that file exists.
//!
//! Under the name `/.kho/carry` the program is not PID 1: a hook of an initrd calls it, to move what came in the initrd
//! (`carry.rs`).
//!
//! No libc and no allocation: system calls, and buffers of fixed size.
#![no_std]
#![no_main]

mod carry;
mod log;
mod pass;
mod root;
mod sys;
mod text;

use core::ffi::CStr;

use log::Log;
use sys::Errno;

/// Program that the loader put beside `/.kho/arrive`.
const ARRIVAL: &CStr = c"/.kho/arrival";
/// Ranges that have to be reserved. The file exists only if something was handed over.
const RANGES: &CStr = c"/.kho/ranges";
/// `KPF_RESERVED`, `include/linux/kernel-page-flags.h`: the page is `PageReserved`.
const KPF_RESERVED: u64 = 1 << 32;
const PAGE_SIZE: u64 = 4096;
/// Largest number of pages in all ranges (256 MiB) at which the program looks at every page. A reservation is made or
/// lost as a whole, so a look at every page of more memory would only delay the boot.
const CHECK_ALL: u64 = 1 << 16;
/// Number of pages at both ends of each range at which the program looks if all ranges together have more than
/// `CHECK_ALL` pages.
const EDGE: u64 = 64;
/// Distance, in pages, between the pages at which the program looks between the ends: one page in each huge page.
const STRIDE: u64 = 512;
/// Number of pages whose flags are read at once.
const CHUNK: u64 = 512;
/// Largest number of ranges that get a line of their own in the log.
const MAX_COMPLAINTS: u64 = 8;

/// # Safety
///
/// `stack` is the stack pointer as the kernel leaves it at the entry of a program: argument count,
/// argument pointers, null, environment pointers, null.
#[unsafe(no_mangle)]
unsafe extern "C" fn arrive(stack: *mut usize) -> ! {
    // SAFETY: by the caller's promise `stack` can be read; the count is its first word.
    let argc = unsafe { stack.read() };
    // SAFETY: by the caller's promise the argument pointers are the words behind the count.
    let argv: *mut *const u8 = unsafe { stack.add(1) }.cast();
    // SAFETY: by the caller's promise the environment follows `argc` argument pointers and a null.
    let envp: *const *const u8 = unsafe { argv.add(argc + 1) }.cast();
    let start = sys::Start { argc, argv, envp };

    if start.is_called(carry::CARRY) {
        carry::run()
    }
    if !start.is_called(ARRIVAL) {
        // `exec` returns only if `/.kho/arrival` cannot be started: then this program does the work itself.
        let _ = start.exec(ARRIVAL);
        if sys::open(RANGES, sys::O_RDONLY, 0).is_err() {
            pass::on(&start);
        }
    }
    let mut log = Log::open();
    if let Some(dir) = sys::SHOWS {
        close(dir, &mut log);
    }
    check_ranges(&mut log);

    let mut path = [0; 4096];
    let init = read_path(c"/.kho/init", &mut path).unwrap_or(c"/init");
    let mut line = [0; root::MAX_LINE];
    // `kernel_init_freeable` asks the same question: a missing init means "mount the root file system".
    let line = match sys::access_execute(init) {
        Ok(()) => {
            let why = start.exec(init);
            log.begin(log::ERROR)
                .str("cannot start ")
                .cstr(init)
                .errno(why)
                .end();
            root::read_command_line(&mut line, &mut log).unwrap_or_default()
        }
        Err(why) => {
            log.begin(log::NOTICE)
                .str("no ")
                .cstr(init)
                .str(" in the initial root file system")
                .errno(why)
                .str(": mounting the root file system")
                .end();
            match root::read_command_line(&mut line, &mut log) {
                Ok(line) if root::switch(line, &mut log).is_ok() => line,
                _ => sys::exit(1),
            }
        }
    };
    // The program gets here with the root file system mounted, or with an init that exists and cannot be started. The
    // kernel tries the same list of programs in both cases.
    root::start_init(&start, line, &mut log);
    // The kernel panics when PID 1 exits, as it would without any init.
    sys::exit(1)
}

/// Makes everything that was handed over unreadable for every user but root.
fn close(dir: &CStr, log: &mut Log) {
    if let Err(why) = sys::mount(c"sysfs", c"/.kho/sys", c"sysfs", sys::MS_QUIET, c"") {
        log.begin(log::ERROR)
            .str("cannot mount sysfs: any user can read what was handed over, chmod 0700 /sys/kernel/boot_params/setup_data")
            .errno(why)
            .end();
        return;
    }
    match sys::chmod(dir, 0o700) {
        Ok(()) => {}
        Err(sys::ENOENT) => log.begin(log::ERROR).str("this kernel was started without setup_data").end(),
        Err(why) => log
            .begin(log::ERROR)
            .str("any user can read what was handed over: cannot chmod /sys/kernel/boot_params/setup_data")
            .errno(why)
            .end(),
    }
    unmount(c"/.kho/sys", log);
}

fn unmount(at: &CStr, log: &mut Log) {
    if let Err(why) = sys::unmount(at) {
        log.begin(log::ERROR)
            .str("cannot unmount ")
            .cstr(at)
            .errno(why)
            .end();
    }
}

/// Results of the check of the ranges.
#[derive(Default)]
struct Findings {
    ranges: u64,
    bad_ranges: u64,
    pages: u64,
    looked_at: u64,
}

fn check_ranges(log: &mut Log) {
    if let Err(why) = sys::mount(c"proc", c"/.kho/proc", c"proc", sys::MS_QUIET, c"") {
        log.begin(log::ERROR)
            .str("ranges not checked: cannot mount proc")
            .errno(why)
            .end();
        return;
    }
    let mut found = Findings::default();
    match check_against(c"/.kho/proc/kpageflags", &mut found, log) {
        Ok(()) if found.bad_ranges == 0 => log
            .begin(log::NOTICE)
            .str("arrival: ")
            .dec(found.ranges)
            .str(" ranges with ")
            .dec(found.pages)
            .str(" pages are reserved (")
            .dec(found.looked_at)
            .str(" pages looked at)")
            .end(),
        Ok(()) => log
            .begin(log::ERROR)
            .str("arrival: ")
            .dec(found.bad_ranges)
            .str(" of ")
            .dec(found.ranges)
            .str(" ranges are NOT reserved: do not use what was handed over")
            .end(),
        Err((what, why)) => log
            .begin(log::ERROR)
            .str("arrival: ranges not checked: ")
            .cstr(what)
            .errno(why)
            .end(),
    }
    unmount(c"/.kho/proc", log);
}

type Failure = (&'static CStr, Errno);

fn check_against(flags: &'static CStr, found: &mut Findings, log: &mut Log) -> Result<(), Failure> {
    let flags_file = sys::open(flags, sys::O_RDONLY, 0).map_err(|why| (flags, why))?;
    let ranges = sys::open(RANGES, sys::O_RDONLY, 0).map_err(|why| (RANGES, why))?;
    // The file is read twice: the number of pages decides how closely to look.
    for_each_range(&ranges, |_, len| {
        found.pages = found.pages.saturating_add(len / PAGE_SIZE)
    })
    .map_err(|why| (RANGES, why))?;
    let all = found.pages <= CHECK_ALL;
    for_each_range(&ranges, |start, len| {
        found.ranges += 1;
        let range = Range {
            first: start / PAGE_SIZE,
            pages: len / PAGE_SIZE,
        };
        if let Some(page) = range.first_not_reserved(&flags_file, all, &mut found.looked_at) {
            found.bad_ranges += 1;
            if found.bad_ranges <= MAX_COMPLAINTS {
                log.begin(log::ERROR)
                    .str("range at ")
                    .hex(start)
                    .str(" with ")
                    .hex(len)
                    .str(" bytes is NOT reserved at ")
                    .hex(page.saturating_mul(PAGE_SIZE))
                    .end();
            }
        }
    })
    .map_err(|why| (RANGES, why))
}

/// Calls `each` with start and length, in bytes, of every range in the file.
fn for_each_range(file: &sys::File, mut each: impl FnMut(u64, u64)) -> Result<(), Errno> {
    let mut offset = 0;
    loop {
        let mut pair = [0; 16];
        match file.read_at(&mut pair, offset)? {
            16 => {}
            _ => return Ok(()),
        }
        let pair = u128::from_le_bytes(pair);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "takes the two halves apart"
        )]
        each(pair as u64, (pair >> 64) as u64);
        offset += 16;
    }
}

/// A range of page frames.
struct Range {
    first: u64,
    pages: u64,
}

impl Range {
    /// Returns the first page frame found that is not reserved.
    fn first_not_reserved(&self, flags: &sys::File, all: bool, looked_at: &mut u64) -> Option<u64> {
        if all || self.pages <= 2 * EDGE {
            return look(flags, self.first, self.pages, looked_at);
        }
        let last = self.first.saturating_add(self.pages - EDGE);
        let mut between = self.first.saturating_add(EDGE);
        look(flags, self.first, EDGE, looked_at).or_else(|| {
            while between < last {
                let bad = look(flags, between, 1, looked_at);
                if bad.is_some() {
                    return bad;
                }
                between += STRIDE;
            }
            look(flags, last, EDGE, looked_at)
        })
    }
}

/// Looks at `count` pages from `first` on, and returns the first one that is not reserved. A page for which the kernel
/// has no flags is not memory, and not reserved.
fn look(flags: &sys::File, first: u64, count: u64, looked_at: &mut u64) -> Option<u64> {
    let mut buffer = [0; 4096];
    let mut done = 0;
    while done < count {
        let page = first.saturating_add(done);
        let want = (count - done).min(CHUNK);
        let bytes = buffer.get_mut(..want as usize * 8)?;
        let got = page
            .checked_mul(8)
            .and_then(|at| flags.read_at(bytes, at).ok())
            .unwrap_or(0)
            / 8;
        if got == 0 {
            return Some(page);
        }
        for (n, word) in buffer.chunks_exact(8).take(got).enumerate() {
            let word = word.first_chunk().map_or(0, |w| u64::from_le_bytes(*w));
            if word & KPF_RESERVED == 0 {
                return Some(page.saturating_add(n as u64));
            }
        }
        done += got as u64;
        *looked_at += got as u64;
    }
    None
}

/// Reads the path in a file; `None` if the file cannot be read or is empty.
fn read_path<'a>(file: &CStr, buffer: &'a mut [u8; 4096]) -> Option<&'a CStr> {
    let file = sys::open(file, sys::O_RDONLY, 0).ok()?;
    // The last byte stays 0, to end the string.
    let len = file.read_at(buffer.get_mut(..4095)?, 0).ok()?;
    if len == 0 {
        return None;
    }
    CStr::from_bytes_until_nul(buffer).ok()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::exit(101)
}

/// Symbol that the unwind tables of the precompiled `core` name. The program does not unwind: a panic ends it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() -> ! {
    sys::exit(102)
}

/// Symbol that the unwind tables of the precompiled `core` name, too.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    sys::exit(102)
}
