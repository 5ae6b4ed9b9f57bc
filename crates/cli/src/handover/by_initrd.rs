//! The load of a kernel whose initrd carries the content, by `kexec_file_load`: for a running kernel that is locked down
//! or has no `kexec_load`. The format is that of [`kho_kexec::carrier::initrd`].
//!
//! Memory cannot stay in place this way, because the kernel itself decides what its successor is told. So everything is
//! copied, and drivers must have nothing to hand over.

use super::compat;
use super::describe::Tree;
use super::fresh;
use super::initrd;
use super::memory;
use super::next::{self, Files};
use super::payload::Payloads;
use super::placed::Placed;
use super::steps::{self, Loaded};
use super::unpacked;
use crate::args;
use crate::arrived::{Arrived, carrier_name};
use crate::carrier::Wanted;
use crate::clock;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::late;
use crate::loaded;
use crate::module;
use crate::output::{self, Output};
use crate::random;
use crate::session::Session;
use crate::shown;
use crate::state::{KeepFile, LoadedFile};
use kho::abi::Carrier;
use kho::headroom::CmdlineMemory;
use kho::{PhysAddr, PhysRange, RangeSet};
use kho_kexec::carrier::initrd::{InitrdCarrierError, Layout, MOST, MOVER};
use kho_kexec::image::Image;
use kho_kexec::sys::doctor::{self, Finding, Severity};
use kho_kexec::sys::facts::host::KernelId;
use kho_kexec::sys::facts::meminfo::MemInfo;
use kho_kexec::sys::facts::memmap::FirmwareMap;
use kho_kexec::sys::landing::{LandingError, Need, default_reserve};
use kho_kexec::sys::loaded::{LoadedImage, current};
use kho_kexec::sys::root::Root;
use std::fs::File;
use std::time::Instant;

/// Memory that the next kernel needs besides its image and the initrd, in bytes: its own tables and the first processes.
const KERNEL: u64 = 128 << 20;

/// Findings of doctor that stop this load too.
const NEEDED: [&str; 4] = ["kernel", "privileges", "kexec", "hypervisor"];

/// Findings of doctor that stop a load in place, and that `--carrier auto` avoids by the initrd: those whose status
/// [`helps`] names.
const HELPED: [&str; 3] = ["lockdown", "ima", "firmware-map"];

/// Whether the initrd can carry the content where this failure refused memory in place. Where memory is encrypted, a
/// kexec of any kind is not tried, so the administrator has to ask for it. A machine on which no kexec is safe
/// ([`Status::Unsupported`], such as arm64 with an ITS) is not one for the other call either.
pub fn helps(fail: &Fail) -> bool {
    matches!(fail.status, Status::LockedDown | Status::FirmwareMap)
}

/// [`Finding::id`] of [`finding`].
pub const FINDING: &str = "carriers";

/// Returns a finding: by which carriers this machine can hand over. If only the initrd is left, and the running kernel's
/// initrd moves what it brings, then findings that forbid memory in place become warnings, because `kho load` works.
pub fn finding(findings: &mut [Finding], root: &Root) -> Finding {
    let blocks = |finding: &Finding| finding.severity == Severity::Block;
    let (all, memory): (Vec<_>, Vec<_>) = findings
        .iter_mut()
        .filter(|finding| blocks(finding))
        .partition(|finding| !HELPED.contains(&finding.id));
    let (severity, what, fix) = if !all.is_empty() {
        (Severity::Ok, "none, see the lines above".to_owned(), "")
    } else if memory.is_empty() {
        let what = "memory in place; where it is asked for, files and blobs in the initrd";
        (Severity::Ok, what.to_owned(), "")
    } else {
        match running_initrd(root) {
            Some((_, true)) => {
                for finding in memory {
                    finding.severity = Severity::Warn;
                }
                let what = "the initrd: files, blobs and traces, and nothing of drivers and khofs";
                (Severity::Ok, what.to_owned(), "")
            }
            Some((path, false)) => {
                let what = format!("the initrd, but {path} has no /.kho/carry");
                (
                    Severity::Warn,
                    what,
                    "update-initramfs -u, or dracut --force, with kho installed",
                )
            }
            None => {
                let what = "the initrd, if that of the next kernel has /.kho/carry";
                (
                    Severity::Warn,
                    what.to_owned(),
                    "kho initrd puts it there, as do the package's hooks",
                )
            }
        }
    };
    Finding {
        id: FINDING,
        severity,
        what,
        details: String::new(),
        fix: fix.to_owned(),
    }
}

/// Returns the path of the running kernel's initrd, and whether it moves what it brings; `None` if it is not found.
fn running_initrd(root: &Root) -> Option<(String, bool)> {
    let release = KernelId::read(root).ok()?.release;
    let path = initrd::beside(&root.path(&format!("boot/vmlinuz-{release}")))?;
    let bytes = std::fs::read(&path).ok()?;
    Some((shown::path(&path), unpacked::holds(&bytes, MOVER)))
}

/// Calls `in_place` or `by_initrd`, by the carrier that is wanted. [`Wanted::Auto`] means memory in place, or else, where
/// the running kernel does not allow that, the initrd.
///
/// # Errors
///
/// The failure of the one that was called; if both were, that of `in_place`, with the reason of the other.
pub fn choose<T>(
    wanted: Wanted,
    in_place: impl FnOnce() -> Result<T, Fail>,
    by_initrd: impl FnOnce() -> Result<T, Fail>,
) -> Result<T, Fail> {
    if wanted == Wanted::Initrd {
        return by_initrd();
    }
    match in_place() {
        Err(fail) if wanted == Wanted::Auto && helps(&fail) => {
            by_initrd().map_err(|other| neither(fail, &other))
        }
        result => result,
    }
}

/// Adds to a failure of the load in place why the initrd cannot carry the content either.
fn neither(mut fail: Fail, other: &Fail) -> Fail {
    fail.what.push_str(&format!(
        "; and the initrd cannot carry the content: {}",
        other.what
    ));
    let both = [other.fix.as_str(), &fail.fix];
    let both: Vec<&str> = both.into_iter().filter(|fix| !fix.is_empty()).collect();
    let both = both.join("; or ");
    fail.fix(both)
}

/// Content and next kernel of a load, measured.
pub struct Prepared {
    /// Payloads, all of which are copied.
    pub payloads: Payloads,
    /// Release that the image states.
    pub release: String,
    /// Hop count that the next kernel will see.
    pub hop: u64,
    /// Bytes of the content, in whole pages, with the tree.
    pub content: u64,
    layout: Layout,
    line: Vec<u8>,
    time: u64,
    generation: u64,
    running: String,
}

impl Prepared {
    /// Checks the files and the machine, and measures the content.
    ///
    /// # Errors
    ///
    /// One [`Status`] per reason that makes the load impossible. Nothing has changed then.
    pub fn gather(
        args: &args::Next,
        files: &Files,
        arrived: Option<&Arrived>,
        keep: &KeepFile,
        session: &Session,
        out: Output,
    ) -> Result<Self, Fail> {
        refuse(args, arrived, session)?;
        let image = files.image(args)?;
        require_hook(args, files)?;
        let line = files.plain_line(args, &session.root, image.header().cmdline_max)?;
        if let Some(warning) = next::plain_warning(&*image, &line, &session.root)? {
            out.warn(&warning);
        }
        let hop = arrived.map_or(1, |arrived| arrived.hop.saturating_add(1));
        let payloads = Payloads::gather(session, keep, arrived, None, hop, args.without_trace)?;
        let sizes: Vec<u64> = payloads.iter().map(super::payload::Payload::size).collect();
        let running = KernelId::read(&session.root)
            .or_status(Status::Failed)?
            .release;
        let mut prepared = Self {
            release: image.release().unwrap_or("unknown").to_owned(),
            layout: Layout::new(1, &sizes).map_err(too_large)?,
            payloads,
            hop,
            content: 0,
            line,
            time: clock::now_ns(),
            generation: random::number()?.max(1),
            running,
        };
        // The size of the tree depends on the number of its ranges only.
        let len = prepared.tree(|tree| tree.measure(&prepared.placed(&[])))?;
        prepared.layout = Layout::new(len as u64, &sizes).map_err(too_large)?;
        prepared.content = prepared
            .layout
            .mem_cache()
            .iter()
            .map(|range| range.len())
            .sum();
        prepared.require_room(&*image, files, session)?;
        Ok(prepared)
    }

    /// Returns the bytes of all payloads.
    pub fn bytes(&self) -> u64 {
        self.payloads.bytes().0
    }

    fn tree<T>(&self, with: impl FnOnce(&Tree<'_>) -> T) -> T {
        with(&Tree {
            payloads: &self.payloads,
            kernel: None,
            late: None,
            carrier: Carrier::Initrd,
            release: &self.running,
            generation: self.generation,
            hop: self.hop,
            time: self.time,
            scratch: self.layout.scratch(),
            mem_cache: &self.layout.mem_cache(),
        })
    }

    /// Returns the place of every payload, with its hash.
    fn placed(&self, hashes: &[[u8; 32]]) -> Vec<Placed> {
        let places = self.layout.payloads().iter().enumerate();
        places
            .map(|(index, place)| Placed {
                mem: place.iter().copied().collect(),
                blake3: hashes.get(index).copied().unwrap_or_default(),
            })
            .collect()
    }

    /// Refuses content that the next kernel has no memory for. At the end of the unpacking it has the initrd and its
    /// files in memory, and a root file system of a tmpfs takes half of the memory.
    fn require_room(
        &self,
        image: &dyn Image,
        files: &Files,
        session: &Session,
    ) -> Result<(), Fail> {
        let total = MemInfo::read(&session.root)
            .or_status(Status::Failed)?
            .total;
        let ram = match FirmwareMap::read(&session.root) {
            Ok(map) => map.ram().try_clone().or_status(Status::Failed)?,
            Err(_) => RangeSet::from_ranges(PhysRange::new(PhysAddr::new(0), total))
                .or_status(Status::Failed)?,
        };
        let ram = CmdlineMemory::parse(&self.line, ram.total())
            .or_status(Status::Failed)?
            .usable(&ram)
            .or_status(Status::Failed)?
            .total()
            .min(total);
        let initrd = files.initrd.as_ref().map_or(0, Vec::len) as u64;
        let unpacked = files.unpacked(total)?;
        let archive = self.content.saturating_add(initrd);
        if archive > MOST {
            return Err(too_large(InitrdCarrierError::TooLarge { len: archive }));
        }
        let others = KERNEL
            .saturating_add(image.header().mem_size)
            .saturating_add(initrd)
            .saturating_add(unpacked.saturating_mul(2));
        let need = self.content.saturating_mul(2).saturating_add(others);
        if need <= ram {
            return Ok(());
        }
        Err(Fail::new(
            Status::Headroom,
            format!(
                "the next kernel needs {} of memory to unpack {} of content from its initrd, and has {}",
                output::bytes(need),
                output::bytes(self.content),
                output::bytes(ram),
            ),
        )
        .fix(format!(
            "keep less: {} fit",
            output::bytes(ram.saturating_sub(others) / 2)
        )))
    }

    /// Refuses to take more memory than is available: the archive is in memory three times at the end of the load, in
    /// kho's file and in two copies of the kernel's.
    fn require_memory(&self, files: &Files, session: &Session) -> Result<(), Fail> {
        let initrd = files.initrd.as_ref().map_or(0, Vec::len) as u64;
        let total = MemInfo::read(&session.root)
            .or_status(Status::Failed)?
            .total;
        let archive = self.content.saturating_add(initrd);
        let copies = archive.saturating_add(files.kernel.len() as u64);
        let mut need = Need {
            own: archive,
            zone: 0,
            copy: copies.saturating_mul(2),
            freed: 0,
            reserve: default_reserve(total),
        };
        let mut answer = need.check(&session.root);
        if matches!(answer, Err(LandingError::NotEnough { .. })) {
            need.freed = memory::loaded_bytes(session)?;
            answer = need.check(&session.root);
        }
        answer.map(drop).map_err(|err| memory::not_enough(&err))
    }
}

/// Refuses what this carrier cannot do.
fn refuse(args: &args::Next, arrived: Option<&Arrived>, session: &Session) -> Result<(), Fail> {
    if args.late {
        let what = "--late: the initrd is fixed at the load, so nothing can be handed over later";
        return Err(Fail::new(Status::Usage, what).fix("leave --late out"));
    }
    let blocking = doctor::examine(&session.root)
        .into_iter()
        .find(|finding| finding.severity == Severity::Block && NEEDED.contains(&finding.id));
    super::machine::refuse(blocking.as_slice())?;
    let drivers = module::present(&session.root) && module::has_something(&session.root)?;
    if drivers || arrived.is_some_and(|arrived| arrived.kernel.is_some()) {
        return Err(Fail::new(
            Status::Module,
            "drivers and khofs keep memory in place, which the initrd cannot carry: their content would be lost",
        )
        .fix("kho status names them; copy what is in khofs to a kept path, unmount it and unload the drivers"));
    }
    Ok(())
}

/// Refuses an initrd that loses the content at the switch to the real root file system.
fn require_hook(args: &args::Next, files: &Files) -> Result<(), Fail> {
    let hooked = files
        .initrd
        .as_ref()
        .is_some_and(|initrd| unpacked::holds(initrd, MOVER));
    if hooked {
        return Ok(());
    }
    let what = match files.initrd {
        Some(_) => {
            "its initrd has no /.kho/carry, so the content would be lost when the real root file system is mounted"
        }
        None => "it has no initrd, which would carry the content",
    };
    let what = format!("{}: {what}", shown::path(&args.kernel));
    Err(Fail::new(Status::NextKernel, what).fix(
        "install kho and make the initrd again (update-initramfs -u -k VERSION, or dracut --force); in an initrd of your own: kho initrd FOLDER",
    ))
}

fn too_large(err: InitrdCarrierError) -> Fail {
    let status = match err {
        InitrdCarrierError::Memory { .. } => Status::NotEnoughMemory,
        _ => Status::TooLarge,
    };
    Fail::new(status, chain(&err)).fix("keep less")
}

/// Makes the initrd with tree and content. Returns also the place and the hash of each payload.
fn filled(
    prepared: &Prepared,
    args: &args::Next,
    files: &Files,
    session: &Session,
    out: Output,
) -> Result<(File, Vec<Placed>), Fail> {
    let user = files.initrd.as_deref().unwrap_or_default();
    // A random number of zeros makes the size of the initrd, and so the record of the image, differ between loads.
    let [pages] = random::bytes()?;
    let pad = usize::from(pages) * 1024;
    let mut archive = prepared
        .layout
        .archive(user.len() as u64 + 4 * pad as u64)
        .map_err(too_large)?;
    let mut hashes = Vec::new();
    for (payload, memory) in prepared.payloads.iter().zip(archive.payloads()) {
        hashes.push(steps::copied(payload, memory, session, out)?);
    }
    let placed = prepared.placed(&hashes);
    fresh::settle(&prepared.payloads.items, &placed, session, out)?;
    let tree = prepared.tree(|tree| tree.write(&placed))?;
    compat::check(&args.compat, files.initrd.as_deref(), &tree, out)?;
    archive
        .set_tree(&tree)
        .ok_or_else(|| Fail::new(Status::Failed, "the state tree does not fit its place"))?;
    let initrd = initrd::open("initrd", &archive.followed_by(user, pad))?;
    Ok((initrd, placed))
}

/// Loads the kernel.
///
/// # Errors
///
/// One [`Status`] per reason. The image that was loaded before stays loaded then.
pub fn run(
    args: &args::Next,
    files: &Files,
    session: &Session,
    out: Output,
) -> Result<Loaded, Fail> {
    let started = Instant::now();
    let arrived = session.carried(args.forget_arrived)?;
    let keep = session.state.keep()?;
    let prepared = Prepared::gather(args, files, arrived, &keep, session, out)?;
    // The load in place, which was tried before, has reported.
    if args.carrier == Wanted::Initrd {
        files.report(args, out);
    }
    steps::warn_of_content(&prepared.payloads, out);
    prepared.require_memory(files, session)?;
    let (initrd, placed) = filled(&prepared, args, files, session, out)?;
    let items = &prepared.payloads.items;
    let kernel = files.open_kernel()?;
    let sources = fresh::sources(items);
    let mut record = LoadedFile {
        generation: prepared.generation,
        kernel_generation: 0,
        entered: false,
        again: false,
        kernel: shown::path(&args.kernel),
        release: prepared.release.clone(),
        hop: prepared.hop,
        identity: LoadedImage::default(),
        content_digest: fresh::digest(&keep, arrived, &sources).to_string(),
        sources,
        contents: fresh::contents(items, &placed),
        bytes: items.iter().map(|item| item.size).sum(),
        time: prepared.time,
        forget_arrived: args.forget_arrived,
        memory_failed: Some(
            MemInfo::read(&session.root)
                .or_status(Status::Failed)?
                .hardware_corrupted,
        ),
        scratch: None,
        late: None,
    };
    let before = Instant::now();
    session
        .kernel
        .kexec_file_load(&kernel, Some(&initrd), &prepared.line)
        .map_err(|err| loaded::call_fail(&err, session))?;
    let seconds = before.elapsed().as_secs_f64();
    // The call replaced the image of an earlier load, whose record is wrong from here on.
    record.identity = current(&session.root).unwrap_or_default();
    let recorded = late::disarm(&session.root)
        .and_then(|()| session.state.clear_settled())
        .and_then(|()| session.state.set_loaded(&record));
    if let Err(fail) = recorded {
        // No command can check an image without a record, so it must not stay loaded.
        return Err(loaded::unloaded_after(fail, session));
    }
    Ok(Loaded {
        release: record.release,
        carrier: carrier_name(Carrier::Initrd),
        entry: None,
        hop: prepared.hop,
        entries: items.len(),
        copied: prepared.bytes(),
        in_place: 0,
        drivers: 0,
        ranges: 0,
        failed: 0,
        seconds: started.elapsed().as_secs_f64(),
        kexec_load_seconds: seconds,
    })
}
