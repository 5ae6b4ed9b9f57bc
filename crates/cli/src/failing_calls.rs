//! Tests in which every system call of every verb fails in turn. They check the status, the message, and that the
//! failure changed nothing else.
//!
//! The machine is a folder of files. A fake kernel updates those files as a real kernel would.

use crate::args;
use crate::args::Next;
use crate::carrier::Wanted;
use crate::cmd;
use crate::exit::{Fail, Status};
use crate::handover::load;
use crate::kexec_target;
use crate::last::{Attempt, Outcome};
use crate::on_failure::OnFailure;
use crate::output::Output;
use crate::session::Session;
use crate::state::{Content, KeepFile, Local};
use kho::PhysAddr;
use kho_kexec::sys::facts::memmap::FirmwareMap;
use kho_kexec::sys::root::Root;
use kho_kexec::sys::syscalls::fake::{Call, FakeKernel, Which};
use kho_kexec::sys::syscalls::{CallError, Kernel, SegmentRef};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const EBUSY: i32 = 16;

const OUT: Output = Output {
    json: true,
    quiet: true,
};

/// Addresses (virtual, physical) of the fake kernel's pointer to the image, and of the image.
const POINTER: (u64, u64) = (0xffff_ffff_8300_0000, 0x300_0000);
const IMAGE: (u64, u64) = (0xffff_8880_0010_0000, 0x10_0000);

/// Fake kernel that accepts system calls and changes the machine's files as a real kernel would.
struct Machine {
    fake: Arc<FakeKernel>,
    dir: PathBuf,
}

impl Machine {
    fn show(&self) {
        show(&self.dir, self.fake.image().as_ref());
    }
}

impl Kernel for Machine {
    fn kexec_load(&self, entry: PhysAddr, segments: &[SegmentRef<'_>]) -> Result<(), CallError> {
        self.fake.kexec_load(entry, segments)?;
        self.show();
        Ok(())
    }

    fn kexec_file_load(
        &self,
        kernel: &File,
        initrd: Option<&File>,
        cmdline: &[u8],
    ) -> Result<(), CallError> {
        self.fake.kexec_file_load(kernel, initrd, cmdline)?;
        self.show();
        Ok(())
    }

    fn kexec_unload(&self) -> Result<(), CallError> {
        self.fake.kexec_unload()?;
        self.show();
        Ok(())
    }

    fn kexec_file_unload(&self) -> Result<(), CallError> {
        self.fake.kexec_file_unload()?;
        self.show();
        Ok(())
    }

    fn reboot_kexec(&self) -> Result<Infallible, CallError> {
        self.fake.reboot_kexec()
    }

    fn sync(&self) {
        self.fake.sync();
    }
}

/// Writes `/sys/kernel/kexec_loaded` and `/proc/kcore` for a kernel with this image loaded.
fn show(dir: &Path, image: Option<&(PhysAddr, Vec<kho_kexec::sys::syscalls::fake::Loaded>)>) {
    let loaded = if image.is_some() { "1\n" } else { "0\n" };
    put(dir, "sys/kernel/kexec_loaded", loaded);
    let mut pointer = vec![0; 4096];
    let mut page = vec![0; 4096];
    if let Some((entry, segments)) = image {
        pointer[..8].copy_from_slice(&IMAGE.0.to_le_bytes());
        // `struct kimage` (include/linux/kexec.h, 6.1): start at offset 24, nr_segments at 56, then the segments.
        let mut words = vec![0, 0, 0, entry.get(), 0, 0, 0, segments.len() as u64];
        for segment in segments {
            let len = segment.bytes.len() as u64;
            words.extend([0, len, segment.dest.get(), segment.memsz]);
        }
        for (at, word) in words.into_iter().enumerate() {
            page[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
    }
    put(
        dir,
        "proc/kcore",
        core(&[(POINTER, pointer), (IMAGE, page)]),
    );
}

/// Returns a core file with these pieces of memory (elf(5)).
fn core(pieces: &[((u64, u64), Vec<u8>)]) -> Vec<u8> {
    const CONTENT: u64 = 0x1_0000;
    let mut out = vec![0u8; 64];
    out[..6].copy_from_slice(b"\x7fELF\x02\x01");
    // ET_CORE, EM_X86_64, program headers of 56 bytes, the first at offset 64.
    for (at, byte) in [(16, 4), (18, 62), (32, 64), (54, 56)] {
        out[at] = byte;
    }
    out[56] = u8::try_from(pieces.len()).unwrap();
    let mut at = CONTENT;
    for ((virt, phys), bytes) in pieces {
        let len = bytes.len() as u64;
        // PT_LOAD
        out.extend(1u32.to_le_bytes());
        out.extend(7u32.to_le_bytes());
        for word in [at, *virt, *phys, len, len, 4096] {
            out.extend(word.to_le_bytes());
        }
        at += len;
    }
    out.resize(usize::try_from(CONTENT).unwrap(), 0);
    pieces.iter().for_each(|(_, bytes)| out.extend(bytes));
    out
}

fn put(dir: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Setup header of Debian's 6.12 cloud kernel, from offset 0x1f1.
const HEADER: &str = "270100200e0b000000ffff000055aaeb6a486472530f02000000000010c04200010080000010000000000000000000\
    00000000005c000000000000ffffff7f0000200001157f00ff070000000000000000000000000000cc020000da75ad00\
    0000000000000000000000010000000000c07d03d0abaf001cb4b000";

/// Returns a kernel with that header and a payload of a few bytes.
pub fn kernel() -> Vec<u8> {
    const SETUP: usize = 40 * 512;
    const PAYLOAD: usize = 0x4000;
    const INFO: usize = PAYLOAD - 64;
    let mut file = vec![0; SETUP];
    let mut write = |at: usize, bytes: &[u8]| {
        let end = at + bytes.len();
        file.resize(file.len().max(end), 0);
        file[at..end].copy_from_slice(bytes);
    };
    let digit = |at: usize| u8::from_str_radix(&HEADER[at..at + 2], 16).unwrap();
    let header: Vec<u8> = (0..HEADER.len()).step_by(2).map(digit).collect();
    write(0x1f1, &header);
    write(0x1f4, &u32::try_from(PAYLOAD / 16).unwrap().to_le_bytes());
    write(0x268, &u32::try_from(INFO).unwrap().to_le_bytes());
    write(0x200 + 0x42c0, b"6.12.95+deb12-cloud-amd64 (x) #1 SMP");
    write(SETUP + PAYLOAD - 1, &[1]);
    // `kernel_info`: magic number, both sizes, setup_type_max with SETUP_INDIRECT.
    let info = [0x506f_544c_u32, 16, 16, 0x8000_0009];
    write(SETUP + INFO, &info.map(u32::to_le_bytes).concat());
    file
}

/// Writes the files in which a healthy machine states facts about itself.
fn facts(dir: &Path) {
    for (path, text) in [
        ("proc/sys/kernel/osrelease", "6.12.95+deb12-cloud-amd64\n"),
        ("proc/sys/kernel/arch", "x86_64\n"),
        ("proc/sys/kernel/random/boot_id", "x\n"),
        ("proc/sys/kernel/kexec_load_disabled", "0\n"),
        ("proc/stat", "btime 1763856401\n"),
        ("proc/uptime", "10.00 9.00\n"),
        ("proc/cmdline", "root=/dev/vda1 quiet\n"),
        ("proc/cpuinfo", "flags : fpu sse2 hypervisor\n"),
        (
            "proc/self/status",
            "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n",
        ),
        ("proc/self/pagemap", ""),
        (
            "proc/self/mountinfo",
            "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n",
        ),
        (
            "proc/kallsyms",
            &format!("{:016x} B kexec_image\n", POINTER.0),
        ),
        (
            "proc/meminfo",
            "MemTotal: 1000000 kB\nMemFree: 900000 kB\nMemAvailable: 900000 kB\nHardwareCorrupted: 0 kB\n",
        ),
        ("sys/kernel/kexec_crash_loaded", "0\n"),
        (
            "sys/kernel/security/lockdown",
            "[none] integrity confidentiality\n",
        ),
        ("sys/kernel/boot_params/version", "0x020f\n"),
        ("srv/content/file", "kept"),
    ] {
        put(dir, path, text);
    }
}

struct World {
    dir: TempDir,
    fake: Arc<FakeKernel>,
}

impl World {
    /// Makes a healthy machine of 1 GiB with two kept entries: a blob and a folder.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |path: &str, content: &str| put(dir.path(), path, content);
        for (number, start, end, kind) in [
            (0, 0, 0x9_fbff_u64, "System RAM"),
            (1, 0x9_fc00, 0x9_ffff, "Reserved"),
            (2, 0x10_0000, 0x3fff_ffff, "System RAM"),
        ] {
            let entry = format!("sys/firmware/memmap/{number}");
            file(&format!("{entry}/start"), &format!("{start:#x}\n"));
            file(&format!("{entry}/end"), &format!("{end:#x}\n"));
            file(&format!("{entry}/type"), &format!("{kind}\n"));
        }
        file(
            "proc/iomem",
            "00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n0009fc00-0009ffff : Reserved\n\
             00100000-3fffffff : System RAM\n  3a000000-3acfffff : Kernel code\n",
        );
        facts(dir.path());
        put(
            dir.path(),
            "proc/kpageflags",
            vec![0; (0x4000_0000 / 4096) * 8],
        );
        put(dir.path(), "sys/kernel/boot_params/data", vec![0; 4096]);
        put(dir.path(), "kernel", kernel());
        show(dir.path(), None);
        let world = Self {
            dir,
            fake: Arc::new(FakeKernel::new()),
        };
        let session = world.session();
        session.state.prepare().unwrap();
        let size = session.state.take_blob(0, &mut &b"a blob"[..]).unwrap();
        let raw = Content::Raw {
            file: 0,
            size,
            taken: 1,
        };
        let files = Content::Files {
            path: world.dir.path().join("srv/content").into_os_string(),
            skip_special: false,
            one_file_system: false,
        };
        let local = |label: &str, content| Local {
            label: label.to_owned(),
            content,
        };
        let keep = KeepFile {
            entries: vec![local("blob", raw), local("content", files)],
            next_file: 1,
            ..KeepFile::default()
        };
        session.state.set_keep(&keep).unwrap();
        world
    }

    /// Returns the session for one run of the command.
    fn session(&self) -> Session {
        let kernel = Machine {
            fake: Arc::clone(&self.fake),
            dir: self.dir.path().to_owned(),
        };
        Session::at(
            Root::at(self.dir.path()),
            Box::new(kernel),
            self.dir.path().join("state"),
        )
    }

    fn next(&self) -> Next {
        Next {
            no_initrd: true,
            ..Next::of_kernel(self.dir.path().join("kernel"))
        }
    }

    fn load(&self) -> Result<(), Fail> {
        let args = args::Load {
            choice: args::Choice {
                kernel: Some(self.dir.path().join("kernel")),
                entry: None,
            },
            next: self.next(),
            arm: false,
            late: false,
            on_failure: None,
            verify: false,
        };
        cmd::load::run(&args, &self.session(), OUT)
    }

    fn arm(&self, on_failure: OnFailure) -> Result<(), Fail> {
        let session = self.session();
        let _lock = session.lock()?;
        cmd::arm::run(&self.next(), Some(on_failure), &session, OUT)
    }

    fn capture(&self, on_failure: Option<OnFailure>) -> Result<(), Fail> {
        let args = args::Capture {
            on_failure,
            ..args::Capture::NOW
        };
        cmd::capture::run(&args, &self.session(), OUT)
    }

    fn unload(&self) -> Result<(), Fail> {
        cmd::load::unload(false, &self.session(), OUT)
    }

    /// Returns the content of every file in the state directory, and the loaded image.
    fn state(&self) -> (BTreeMap<PathBuf, Vec<u8>>, String) {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.dir.path().join("state")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().unwrap() != "lock" {
                    files.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        (files, format!("{:?}", self.fake.image()))
    }

    fn remembers(&self, name: &str) -> bool {
        self.dir.path().join("state").join(name).exists()
    }

    /// Checks that the verb fails with this status and these words in its message if the system call fails.
    fn fails(
        &self,
        (which, errno): (Which, i32),
        verb: impl FnOnce(&Self) -> Result<(), Fail>,
        status: Status,
        words: &[&str],
    ) {
        self.fake.fail_next(which, errno);
        let calls = self.fake.calls().len();
        let fail = verb(self).unwrap_err();
        let said = fail.to_string();
        assert_eq!(fail.status, status, "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in {said:?}");
        }
        assert!(self.fake.calls().len() > calls, "no call was made: {said}");
    }

    /// Checks the same as `fails`, and that nothing has changed.
    fn fails_and_changes_nothing(
        &self,
        call: (Which, i32),
        verb: impl FnOnce(&Self) -> Result<(), Fail>,
        status: Status,
        words: &[&str],
    ) {
        let before = self.state();
        self.fails(call, verb, status, words);
        assert_eq!(self.state(), before);
    }
}

fn exec(world: &World) -> Result<(), Fail> {
    cmd::exec::run(false, &world.session(), OUT)
}

fn abort(world: &World) -> Result<(), Fail> {
    cmd::module::abort(&world.session(), OUT)
}

#[test]
fn a_kernel_of_a_fixed_place_is_for_kexec_while_nothing_is_kept() {
    let world = World::new();
    let path = world.dir.path().join("kernel");
    let plain = || cmd::kexec::only_plain(path.as_os_str(), &world.session());
    assert!(!plain(), "a kernel that can be moved");
    let mut file = kernel();
    // `relocatable_kernel`.
    file[0x234] = 0;
    put(world.dir.path(), "kernel", &file);
    assert!(!plain(), "what is kept would be lost");
    let fail = world.load().unwrap_err();
    assert_eq!(fail.status, Status::BadImage);
    assert!(fail.what.contains("kho kexec starts it"), "{}", fail.what);
    world
        .session()
        .state
        .set_keep(&KeepFile::default())
        .unwrap();
    assert!(plain());
}

#[test]
fn loading() {
    let world = World::new();
    // No image was loaded before, and none is loaded after.
    for (errno, word) in [
        (ENOMEM, "free about the size"),
        (EBUSY, "try again"),
        (EPERM, "CAP_SYS_BOOT"),
    ] {
        world.fails_and_changes_nothing(
            (Which::Load, errno),
            World::load,
            Status::LoadFailed,
            &["kexec_load failed", word],
        );
    }
    world.load().unwrap();
    assert!(world.remembers("loaded.json"));
    // If the old image cannot be unloaded, it stays.
    world.fails_and_changes_nothing(
        (Which::Unload, EBUSY),
        World::load,
        Status::LoadFailed,
        &["kexec_load (unload) failed", "try again"],
    );
    // If the new image is refused, the old one is gone: its content would be out of date.
    world.fails(
        (Which::Load, ENOMEM),
        World::load,
        Status::LoadFailed,
        &["kexec_load failed"],
    );
    assert!(world.fake.image().is_none());
    assert!(!world.remembers("loaded.json") && !world.remembers("reserved.json"));
    world.load().unwrap();
}

#[test]
fn a_load_that_cannot_be_recorded() {
    let world = World::new();
    // A folder in the place of the new record, so that the record cannot be written.
    let beside = world.dir.path().join("state/.loaded.json.new");
    fs::create_dir(&beside).unwrap();
    let fail = world.load().unwrap_err();
    assert!(fail.what.contains("loaded.json"), "{fail}");
    assert!(world.fake.image().is_none());
    assert_eq!(world.fake.calls().last(), Some(&Call::Unload));
    // If the image cannot be unloaded either, a warning says so.
    world.fake.fail_next(Which::Unload, EBUSY);
    crate::output::take_warnings();
    world.load().unwrap_err();
    assert!(world.fake.image().is_some());
    let warnings = crate::output::take_warnings().join("\n");
    assert!(warnings.contains("CANNOT BE UNLOADED"), "{warnings}");
}

#[test]
fn pages_that_failed_are_looked_for_where_the_kernel_counts_some() {
    const HWPOISON: u64 = 1 << 19;
    let world = World::new();
    let mut flags = vec![0; (0x4000_0000 / 4096) * 8];
    let page = 0x2000_0000 / 4096 * 8;
    flags[page..page + 8].copy_from_slice(&HWPOISON.to_le_bytes());
    put(world.dir.path(), "proc/kpageflags", flags);
    let failed = || {
        let session = world.session();
        let _lock = session.lock().unwrap();
        load::run(&world.next(), &session, OUT).unwrap().failed
    };
    assert_eq!(failed(), 0);
    let meminfo = world.dir.path().join("proc/meminfo");
    let text = fs::read_to_string(&meminfo).unwrap();
    fs::write(meminfo, text.replace("Corrupted: 0 kB", "Corrupted: 4 kB")).unwrap();
    assert_eq!(failed(), 4096);
}

#[test]
fn a_start_that_would_lose_content_is_one_that_kho_did_not_load() {
    let world = World::new();
    let would_lose = || kexec_target::would_lose(&world.session());
    assert!(would_lose());
    world.load().unwrap();
    assert!(!would_lose());
    world.unload().unwrap();
    assert!(would_lose());
    world.arm(OnFailure::Cold).unwrap();
    assert!(!would_lose());
    world.unload().unwrap();
    world
        .session()
        .state
        .set_keep(&KeepFile::default())
        .unwrap();
    assert!(!would_lose());
}

/// Returns the number of bytes of memory whose flags a load reads.
fn asked(world: &World) -> u64 {
    world.load().unwrap();
    let map = FirmwareMap::read(&world.session().root).unwrap();
    let known = world.session().state.reserved(map.ram()).unwrap().unwrap();
    known.asked.total()
}

#[test]
fn a_large_machine_is_asked_no_more_than_a_small_one() {
    let small = asked(&World::new());
    let world = World::new();
    let put = |path: &str, text: &str| put(world.dir.path(), path, text);
    put("sys/firmware/memmap/2/end", "0x3fffffffff\n");
    put(
        "proc/iomem",
        "00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n00100000-3fffffffff : System RAM\n",
    );
    put(
        "proc/meminfo",
        "MemTotal: 268000000 kB\nMemFree: 267000000 kB\nMemAvailable: 267000000 kB\nHardwareCorrupted: 0 kB\n",
    );
    let flags = world.dir.path().join("proc/kpageflags");
    let flags = fs::File::options().write(true).open(flags).unwrap();
    flags.set_len((256 << 30) / 4096 * 8).unwrap();
    assert_eq!(asked(&world), small);
    assert!(small < 256 << 20, "{small:#x}");
}

#[test]
fn lockdown_is_named() {
    let world = World::new();
    put(world.dir.path(), "proc/cmdline", "lockdown=integrity\n");
    world.fails_and_changes_nothing(
        (Which::Load, EPERM),
        World::load,
        Status::LockedDown,
        &["Secure Boot"],
    );
}

#[test]
fn where_memory_cannot_stay_the_initrd_carries() {
    const ENOSYS: i32 = 38;
    const EKEYREJECTED: i32 = 129;
    for (errno, line) in [(EPERM, "quiet lockdown=integrity\n"), (ENOSYS, "quiet\n")] {
        let world = World::new();
        put(world.dir.path(), "proc/cmdline", line);
        let mut archive = kho_kexec::cpio::Writer::new();
        archive
            .file(kho_kexec::carrier::initrd::MOVER.as_bytes(), 0o700, b"x")
            .unwrap();
        let initrd = world.dir.path().join("initrd");
        fs::write(&initrd, archive.finish()).unwrap();
        let load = |world: &World, carrier| {
            let next = Next {
                carrier,
                no_initrd: false,
                initrd: vec![initrd.clone()],
                ..world.next()
            };
            load::run(&next, &world.session(), OUT)
        };
        // No kexec of any kind is for such a machine.
        let unsupported = Fail::new(Status::Unsupported, "");
        assert!(!crate::handover::by_initrd::helps(&unsupported));
        let image = world.fake.image();
        // Memory only: nothing else is tried.
        world.fake.fail_next(Which::Load, errno);
        assert!(load(&world, Wanted::Memory).is_err());
        // Both calls fail: the message has both reasons, and nothing has changed.
        let before = world.state();
        world.fake.fail_next(Which::Load, errno);
        world.fake.fail_next(Which::FileLoad, EKEYREJECTED);
        let fail = load(&world, Wanted::Auto).map(drop).unwrap_err();
        for words in ["kexec_load failed", "the initrd cannot carry", "signature"] {
            assert!(fail.what.contains(words), "{}", fail.what);
        }
        assert_eq!(world.state(), before);
        assert_eq!(world.fake.image(), image);

        world.fake.fail_next(Which::Load, errno);
        let loaded = load(&world, Wanted::Auto).unwrap();
        assert_eq!(
            (loaded.carrier, loaded.entries, loaded.in_place),
            ("initrd", 2, 0)
        );
        let calls = world.fake.calls();
        let Some(Call::FileLoad(line_of_next)) = calls.last() else {
            panic!("{calls:?}");
        };
        // The initrd needs no arrival program.
        assert_eq!(line_of_next, line.trim_end().as_bytes());
        assert!(world.remembers("loaded.json"));
        // A load that is refused leaves this one as it is, also where the unload would have worked.
        let before = world.state();
        world.fake.fail_next(Which::Unload, errno);
        world.fake.fail_next(Which::FileLoad, EKEYREJECTED);
        assert!(load(&world, Wanted::Auto).is_err());
        assert_eq!(world.state(), before);
        // kho unload takes the call that works.
        world.fake.fail_next(Which::Unload, errno);
        cmd::load::unload(true, &world.session(), OUT).unwrap();
        assert!(world.fake.image().is_none() && !world.remembers("loaded.json"));
    }
}

#[test]
fn unloading() {
    let world = World::new();
    assert_eq!(world.unload().unwrap_err().status, Status::NothingLoaded);
    world.load().unwrap();
    world.fails_and_changes_nothing(
        (Which::Unload, EBUSY),
        World::unload,
        Status::LoadFailed,
        &["kexec_load (unload) failed"],
    );
    world.unload().unwrap();
    assert!(world.fake.image().is_none() && !world.remembers("loaded.json"));
}

#[test]
fn execution() {
    let world = World::new();
    assert_eq!(exec(&world).unwrap_err().status, Status::NothingLoaded);
    world.load().unwrap();
    world.fails_and_changes_nothing(
        (Which::Reboot, EBUSY),
        exec,
        Status::LoadFailed,
        &["reboot(KEXEC) failed", "in progress"],
    );
    // `kho exec` writes file systems back before it starts the kernel.
    let calls = world.fake.calls();
    assert_eq!(calls[calls.len() - 2..], [Call::Sync, Call::Reboot]);
    // An image that differs from the recorded one is not started.
    let other = vec![kho_kexec::sys::syscalls::fake::Loaded {
        bytes: vec![1],
        dest: PhysAddr::new(0x10_0000),
        memsz: 4096,
    }];
    show(world.dir.path(), Some(&(PhysAddr::new(0x10_0000), other)));
    assert_eq!(exec(&world).unwrap_err().status, Status::NotOurs);
    assert_eq!(world.fake.calls().len(), calls.len());
}

#[test]
fn aborting() {
    let world = World::new();
    world.load().unwrap();
    world.fails_and_changes_nothing(
        (Which::Unload, EBUSY),
        abort,
        Status::LoadFailed,
        &["kexec_load (unload) failed"],
    );
    abort(&world).unwrap();
    assert!(world.fake.image().is_none());
    world.arm(OnFailure::Cold).unwrap();
    world.fails_and_changes_nothing(
        (Which::Unload, EBUSY),
        abort,
        Status::LoadFailed,
        &["kexec_load (unload) failed"],
    );
    abort(&world).unwrap();
    assert!(world.fake.image().is_none() && !world.remembers("armed.json"));
}

#[test]
fn arming() {
    for (choice, which) in [
        (OnFailure::Cold, Which::Load),
        (OnFailure::Stop, Which::Load),
        (OnFailure::Plain, Which::FileLoad),
    ] {
        let world = World::new();
        let call = if which == Which::Load {
            "kexec_load failed"
        } else {
            "kexec_file_load failed"
        };
        let arm = |world: &World| world.arm(choice);
        world.fails_and_changes_nothing((which, ENOMEM), arm, Status::LoadFailed, &[call]);
        world.fails_and_changes_nothing(
            (Which::Unload, EBUSY),
            arm,
            Status::LoadFailed,
            &["kexec_load (unload) failed"],
        );
        // If the handover that was loaded before cannot be unloaded, it stays.
        world.load().unwrap();
        world.fails_and_changes_nothing(
            (Which::Unload, EBUSY),
            arm,
            Status::LoadFailed,
            &["kexec_load (unload) failed"],
        );
        world.arm(choice).unwrap();
        assert!(world.remembers("armed.json") && !world.remembers("loaded.json"));
        assert!(world.fake.image().is_some());
    }
}

#[test]
fn capturing() {
    let cold = |world: &World| world.capture(None);
    let world = World::new();
    world.arm(OnFailure::Cold).unwrap();
    // The kernel refuses the new image: no image with old content remains that could start.
    world.fails(
        (Which::Load, ENOMEM),
        cold,
        Status::LoadFailed,
        &[
            "kexec_load failed",
            "nothing is loaded, so the machine reboots through its firmware",
        ],
    );
    assert!(world.fake.image().is_none());
    assert!(!world.remembers("armed.json") && !world.remembers("loaded.json"));
    let last = || Attempt::last(&Root::at(world.dir.path())).unwrap();
    let Outcome::Failed { status, why, then } = last().outcome else {
        panic!("{:?}", last());
    };
    assert_eq!(status, "load-failed");
    assert!(why.contains("kexec_load failed") && then.contains("through its firmware"));
    assert!(last().release.is_some());
    world.arm(OnFailure::Cold).unwrap();
    cold(&world).unwrap();
    let taken = Outcome::Captured { hop: 1, entries: 2 };
    assert_eq!(last().outcome, taken);

    // The first unload, for the capture, fails; the second one, for the fallback, succeeds.
    world.arm(OnFailure::Cold).unwrap();
    world.fails(
        (Which::Unload, EBUSY),
        cold,
        Status::LoadFailed,
        &["kexec_load (unload) failed", "nothing is loaded"],
    );
    assert!(world.fake.image().is_none());

    // Both unloads fail: the message then says which image starts.
    world.arm(OnFailure::Cold).unwrap();
    world.fake.fail_next(Which::Unload, EBUSY);
    world.fails(
        (Which::Unload, EBUSY),
        cold,
        Status::LoadFailed,
        &["CANNOT BE UNLOADED", "an image is still loaded"],
    );

    // A plain start, and a plain start that fails too.
    let world = World::new();
    let plain = |world: &World| world.capture(Some(OnFailure::Plain));
    world.arm(OnFailure::Plain).unwrap();
    world.fails(
        (Which::Load, ENOMEM),
        plain,
        Status::LoadFailed,
        &["kexec_load failed", "starts without a handover"],
    );
    assert!(matches!(world.fake.calls().last(), Some(Call::FileLoad(_))));
    assert!(world.fake.image().is_some());
    world.arm(OnFailure::Plain).unwrap();
    world.fake.fail_next(Which::FileLoad, ENOMEM);
    world.fails(
        (Which::Load, ENOMEM),
        plain,
        Status::LoadFailed,
        &["fails too", "the machine reboots"],
    );
    assert!(world.fake.image().is_none());

    // If nothing fails, the content is loaded and no kernel is armed any more.
    world.arm(OnFailure::Cold).unwrap();
    world.capture(None).unwrap();
    assert!(world.remembers("loaded.json") && !world.remembers("armed.json"));
    exec(&world).unwrap_err();
    assert_eq!(world.fake.calls().last(), Some(&Call::Reboot));
}
