//! Access to kho.ko through `/sys/kernel/kho`.
//!
//! Without the module, this kernel has no kernel's part of its own. The tree of the load then names the part that
//! arrived unchanged, so that a hop through a kernel without the module loses nothing.

use crate::arrived::Arrived;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::khofs;
use crate::output::Output;
use crate::session::Session;
use kho::abi::kernel_part::{KERNEL_V1, KernelPart, KernelPartError};
use kho::tree::{MAX_SIZE, Reader};
use kho::{PhysRange, RangeSet};
use kho_kexec::sys::root::{ATTRIBUTE_LIMIT, Root};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Folder of the module.
const DIR: &str = "sys/kernel/kho";

/// `compatible` of the kernel's part. Tests also build a command that knows only the next version of the contract.
const CONTRACT: &str = if cfg!(feature = "next-contract") {
    "kho-kernel-v2"
} else {
    KERNEL_V1
};

/// Kernel's part that the next load hands over.
#[derive(Debug)]
pub struct OutgoingPart {
    /// The kernel's part.
    pub kernel: KernelPart,
    /// Whether the part arrived and is passed on unchanged. It then has no active phase.
    pub carried_on: bool,
}

impl OutgoingPart {
    /// Generation of the active phase that the part belongs to; 0 if the part arrived.
    pub fn generation(&self) -> u64 {
        if self.carried_on {
            0
        } else {
            self.kernel.reference.generation
        }
    }
}

/// Whether the module is loaded.
pub fn present(root: &Root) -> bool {
    root.exists(&file("active"))
}

/// Path of a file of the module.
pub fn file(name: &str) -> String {
    format!("{DIR}/{name}")
}

fn attribute(root: &Root, name: &str) -> Result<String, Fail> {
    root.attribute(&file(name))
        .or_status(Status::NotPermitted)
        .map_err(|fail| fail.root(""))
}

/// Whether drivers are frozen.
///
/// # Errors
///
/// If the module is loaded and does not answer.
pub fn is_active(root: &Root) -> Result<bool, Fail> {
    Ok(present(root) && attribute(root, "active")? == "1")
}

/// Returns the generation of the active phase; 0 without the module or outside of the phase.
///
/// # Errors
///
/// If the module is loaded and does not answer.
pub fn generation(root: &Root) -> Result<u64, Fail> {
    if !present(root) {
        return Ok(0);
    }
    let text = attribute(root, "generation")?;
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    u64::from_str_radix(digits, 16).map_err(|err| {
        Fail::new(
            Status::Failed,
            format!("/{DIR}/generation says `{text}`: {err}"),
        )
    })
}

/// Returns the lines `name: value` of the module's status; empty without the module.
///
/// # Errors
///
/// If the module is loaded and does not answer.
pub fn facts(root: &Root) -> Result<BTreeMap<String, String>, Fail> {
    if !present(root) {
        return Ok(BTreeMap::new());
    }
    let text = attribute(root, "status")?;
    let line = |line: &str| {
        line.split_once(": ")
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// A node that arrived, with memory that no consumer claimed.
#[derive(Debug, PartialEq, Eq)]
pub struct Unclaimed {
    /// Path of the node.
    pub node: String,
    /// Number of bytes that no consumer claimed.
    pub bytes: u64,
    /// Producer that holds the memory and may hand it on unchanged: only this producer can release it. `None` if no
    /// producer holds it.
    pub producer: Option<String>,
}

impl Unclaimed {
    /// Parses a line `PATH BYTES`, or `PATH BYTES PRODUCER`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (node, bytes) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        Some(Self {
            node,
            bytes,
            producer: words.next().map(str::to_owned),
        })
    }

    /// Whether the node is at `path` or below it. Every node is below `all`.
    fn is_below(&self, path: &str) -> bool {
        path == "all"
            || self
                .node
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Returns the nodes that arrived and have memory that no consumer claimed.
///
/// # Errors
///
/// If the module is loaded and does not answer.
pub fn unclaimed(root: &Root) -> Result<Vec<Unclaimed>, Fail> {
    if !present(root) {
        return Ok(Vec::new());
    }
    // The file has one line for each node of two trees, so it is never longer than both trees.
    let text = root
        .text(&file("release"), 2 * MAX_SIZE as u64)
        .or_status(Status::NotPermitted)
        .map_err(|fail| fail.root(""))?;
    Ok(text.lines().filter_map(Unclaimed::parse).collect())
}

/// Refuses to release memory that a producer holds, before anything changes.
///
/// # Errors
///
/// [`Status::Module`] if a producer holds memory at `path` or below it. If the module is loaded and does not answer.
pub fn require_nobodys(root: &Root, path: &str) -> Result<(), Fail> {
    /// Largest number of nodes that the message names.
    const FEW: usize = 8;
    let nodes = unclaimed(root)?;
    let held = nodes.iter().filter(|node| node.is_below(path));
    let held: Vec<_> = held
        .filter_map(|node| Some((node.producer.as_deref()?, node.node.as_str())))
        .collect();
    let Some((producer, _)) = held.first() else {
        return Ok(());
    };
    // An instance of khofs is released as a whole.
    let mut names: Vec<&str> = Vec::new();
    for (_, node) in held.iter().filter(|(other, _)| other == producer) {
        let node = khofs::instance_node(node).unwrap_or(node);
        if !names.contains(&node) {
            names.push(node);
        }
    }
    let more = match names.len().saturating_sub(FEW) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    names.truncate(FEW);
    let fix = if names
        .iter()
        .any(|name| khofs::instance_node(name).is_some())
    {
        "release what is not wanted by its name: an instance of khofs that is not mounted (kho release /khofs/NAME), a blob, a node"
    } else {
        "release what is not wanted by its name, or unload that driver first"
    };
    Err(Fail::new(
        Status::Module,
        format!(
            "{path} is not released: the producer {producer} has {}{more}, which only that producer can release",
            names.join(", ")
        ),
    )
    .fix(fix))
}

/// Writes to a file of the module.
///
/// # Errors
///
/// [`Status::Unsupported`] without the module; [`Status::Module`] with the kernel's error.
pub fn write(root: &Root, name: &str, text: &str) -> Result<(), Fail> {
    try_write(root, name, text)?.map_err(|err| refused(root, name, text, &err))
}

/// Writes as [`write`] does, but returns the kernel's error.
fn try_write(root: &Root, name: &str, text: &str) -> Result<std::io::Result<()>, Fail> {
    if !present(root) {
        return Err(Fail::new(
            Status::Unsupported,
            "the kernel module kho.ko is not loaded",
        )
        .fix("modprobe kho; blobs and kept files need no module"));
    }
    Ok(std::fs::OpenOptions::new()
        .write(true)
        .open(root.path(&file(name)))
        .and_then(|mut file| file.write_all(text.as_bytes())))
}

fn refused(root: &Root, name: &str, text: &str, err: &std::io::Error) -> Fail {
    let path = root.path(&file(name));
    if err.kind() == std::io::ErrorKind::PermissionDenied {
        return Fail::new(
            Status::NotPermitted,
            format!("cannot write {}: {err}", path.display()),
        )
        .root("");
    }
    // Only the module knows which producer failed.
    let whose = match (name, text) {
        ("active", "1") | ("late", _) => facts(root)
            .ok()
            .and_then(|facts| facts.get("failed-producer").cloned())
            .map_or_else(String::new, |name| format!("the producer {name} failed: ")),
        _ => String::new(),
    };
    Fail::new(
        Status::Module,
        format!(
            "{} to {}: {whose}{}",
            text.lines().next().unwrap_or_default(),
            path.display(),
            chain(err)
        ),
    )
    .fix("the kernel log (dmesg) says which producer or range it was")
}

/// Guard of the active phase during a load. Its drop ends the phase, unless the phase began before the load or the load
/// succeeded.
pub struct Entered<'r> {
    root: &'r Root,
    out: Output,
    /// Whether kho may end the phase: a `kho load` began it, not the administrator.
    ours: bool,
    armed: bool,
    /// Kernel's part that is handed over; `None` without the module, or if drivers hand over nothing.
    pub part: Option<OutgoingPart>,
}

impl<'r> Entered<'r> {
    /// Begins the active phase, unless it has begun or drivers hand over nothing. `ours` is the generation of a phase
    /// that an earlier load began, 0 if none did.
    ///
    /// # Errors
    ///
    /// [`Status::Module`] if a producer fails, or if drivers would hand something over and `activate` is false.
    pub fn enter(root: &'r Root, activate: bool, ours: u64, out: Output) -> Result<Self, Fail> {
        let mut entered = Self {
            root,
            out,
            ours: false,
            armed: false,
            part: None,
        };
        if !present(root) {
            return Ok(entered);
        }
        if is_active(root)? {
            entered.ours = ours != 0 && ours == generation(root)?;
        } else {
            if !has_something(root)? {
                return Ok(entered);
            }
            if !activate {
                return Err(Fail::new(
                    Status::Module,
                    "drivers want to hand over, and the active phase is not entered",
                )
                .fix("kho activate, or load without --no-activate"));
            }
            write(root, "active", "1")?;
            entered.ours = true;
            entered.armed = true;
        }
        entered.part = Some(read(root)?);
        Ok(entered)
    }

    /// Takes over the active phase of an earlier load, for a load that begins none: the phase ends when that image is
    /// gone.
    ///
    /// # Errors
    ///
    /// If the module does not answer.
    pub fn outside(root: &'r Root, ours: u64, out: Output) -> Result<Self, Fail> {
        Ok(Self {
            root,
            out,
            ours: ours != 0 && ours == generation(root)?,
            armed: false,
            part: None,
        })
    }

    /// Notes that the image of an earlier load is gone. A failure after this call ends the phase of that image.
    pub fn unloaded(&mut self) {
        self.armed = self.ours;
    }

    /// Whether forgetting the load ends the phase.
    pub fn ours(&self) -> bool {
        self.ours
    }

    /// Keeps the active phase, because the load succeeded.
    pub fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if self.armed {
            // The failure of the load is reported elsewhere.
            if let Err(fail) = write(self.root, "active", "0") {
                self.out.warn(&format!(
                    "drivers stay frozen until kho abort: {}",
                    fail.what
                ));
            }
        }
    }
}

/// Returns the part that a load would hand over, without changing anything: the frozen part, or the part that arrived
/// and is passed on.
///
/// # Errors
///
/// [`Status::Module`] if the module wrote an invalid part.
pub fn outgoing_part(
    session: &Session,
    arrived: Option<&Arrived>,
    out: Output,
) -> Result<Option<OutgoingPart>, Fail> {
    if is_active(&session.root)? {
        return read(&session.root).map(Some);
    }
    part_to_carry_on(session, arrived, out)
}

/// Returns the part that arrived, if no module is loaded to use it. Warns of a part that cannot be trusted, and does
/// not pass it on: the module would reject it too.
///
/// # Errors
///
/// If kept memory cannot be read.
pub fn part_to_carry_on(
    session: &Session,
    arrived: Option<&Arrived>,
    out: Output,
) -> Result<Option<OutgoingPart>, Fail> {
    match arrived_part(session, arrived)? {
        Some(Ok(kernel)) => Ok(Some(OutgoingPart {
            kernel,
            carried_on: true,
        })),
        Some(Err(why)) => {
            out.warn(&format!(
                "memory that drivers of an earlier kernel left is not handed on, and is lost after this kernel: {why}"
            ));
            Ok(None)
        }
        None => Ok(None),
    }
}

/// Returns the part that arrived, or the reason why it is not trusted; `None` if no part arrived, or if the module is
/// loaded and uses it.
///
/// # Errors
///
/// If kept memory cannot be read.
pub fn arrived_part(
    session: &Session,
    arrived: Option<&Arrived>,
) -> Result<Option<Result<KernelPart, String>>, Fail> {
    if present(&session.root) {
        return Ok(None);
    }
    if let Some(why) = arrived.and_then(|arrived| arrived.no_kernel.clone()) {
        return Ok(Some(Err(why)));
    }
    let Some((arrived, reference)) = arrived.and_then(|a| Some((a, a.kernel?))) else {
        return Ok(None);
    };
    if reference.size > MAX_SIZE as u64 {
        return Ok(Some(Err(format!(
            "it is said to have {:#x} bytes",
            reference.size
        ))));
    }
    let mut bytes = session.memory(reference.mem)?;
    bytes.truncate(usize::try_from(reference.size).unwrap_or(0));
    let part = Reader::new(&bytes)
        .map_err(KernelPartError::from)
        .and_then(|tree| KernelPart::parse_as(CONTRACT, &tree));
    let part = match part {
        Ok(part) if part.reference == reference => part,
        Ok(_) => return Ok(Some(Err("it is not the one that was loaded".to_owned()))),
        Err(err) => return Ok(Some(Err(chain(&err)))),
    };
    let blobs = arrived.blobs.iter().flat_map(|blob| &blob.mem);
    let traces = arrived.traces.iter().flat_map(|traces| &traces.hops);
    let traces = traces.flat_map(|hop| &hop.parts).flat_map(|part| &part.mem);
    let others = RangeSet::from_ranges(blobs.chain(traces).copied()).or_status(Status::Failed)?;
    let Some(scratch) = arrived.scratch else {
        return Ok(Some(Err("the initrd cannot carry it".to_owned())));
    };
    let placed = part.check_places(&arrived.reserved()?, scratch, &others);
    Ok(Some(
        placed.map(|()| part).map_err(|wrong| wrong.to_string()),
    ))
}

/// Whether drivers of this kernel would hand over anything.
///
/// # Errors
///
/// [`Status::Module`] if the module does not answer.
pub fn has_something(root: &Root) -> Result<bool, Fail> {
    let facts = facts(root)?;
    let some = |name: &str| facts.get(name).is_some_and(|count| count != "0");
    Ok(some("producers") || some("untouched-nodes"))
}

fn read(root: &Root) -> Result<OutgoingPart, Fail> {
    let bytes = root
        .bytes(&file("dt"), MAX_SIZE as u64)
        .or_status(Status::Module)?;
    let tree = Reader::new(&bytes).or_status(Status::Module)?;
    let kernel = KernelPart::parse_as(CONTRACT, &tree).map_err(|err| {
        let fail = Fail::new(
            Status::Module,
            format!(
                "what the module wrote cannot be handed over: {}",
                chain(&err)
            ),
        );
        match err {
            KernelPartError::Version => fail.fix("use the command that came with the module"),
            _ => fail.fix("report it with a copy of /sys/kernel/kho/dt"),
        }
    })?;
    Ok(OutgoingPart {
        kernel,
        carried_on: false,
    })
}

/// Tells the module the scratch region, so that drivers allocate memory outside of it from now on. After a handover the
/// module knows the region.
pub fn tell_scratch(root: &Root, scratch: PhysRange) {
    if present(root) {
        let text = format!("{:#x} {:#x}", scratch.start().get(), scratch.len());
        // If the write fails, the next load may refuse a page of a driver, with a message.
        let _ = write(root, "scratch", &text);
    }
}

/// Refuses to keep memory in place if the next kernel has no module: only with it can drivers claim that memory.
///
/// # Errors
///
/// [`Status::NoModule`] if the module is not installed for that kernel.
pub fn require_in_next(
    root: &Root,
    part: &OutgoingPart,
    release: Option<&str>,
) -> Result<(), Fail> {
    let bytes = part.kernel.mem.total();
    if bytes == 0 {
        return Ok(());
    }
    require_installed(
        root,
        &format!("keep {} in place", crate::output::bytes(bytes)),
        release,
    )
}

/// Checks as [`require_in_next`] does, but before drivers are frozen, when the size of their memory is not known.
///
/// # Errors
///
/// [`Status::NoModule`], or if the module is loaded and does not answer.
pub fn require_for_drivers(root: &Root, release: Option<&str>) -> Result<(), Fail> {
    if !present(root) || !has_something(root)? {
        return Ok(());
    }
    let facts = facts(root)?;
    let count = |name: &str| facts.get(name).map_or("0", String::as_str);
    // khofs is a producer as soon as it is loaded. Without instances it keeps nothing.
    let empty = khofs::instances(root)?.is_some_and(|instances| instances.is_empty());
    if empty && count("producers") == "1" && count("untouched-nodes") == "0" {
        return Ok(());
    }
    require_installed(root, "want to keep memory in place", release)
}

fn require_installed(root: &Root, drivers: &str, release: Option<&str>) -> Result<(), Fail> {
    let fix = "install it there (kho-dkms, and the headers of that kernel), or --no-module-check: what drivers keep \
               then stays reserved until the hop after it";
    let Some(release) = release else {
        return Err(Fail::new(
            Status::NoModule,
            format!("drivers {drivers}, and the image does not name its release, so kho cannot check whether that kernel has kho.ko"),
        )
        .fix(fix));
    };
    let dir = format!("lib/modules/{release}");
    if installed(root, &dir) {
        return Ok(());
    }
    Err(Fail::new(
        Status::NoModule,
        format!(
            "drivers {drivers}, and the next kernel has no kho.ko (in /{dir}) that could give the memory to its drivers"
        ),
    )
    .fix(fix))
}

/// Whether kho.ko is installed for the kernel of this release: whether the release's folder holds the module,
/// compressed or not, where packages, dkms and `make modules_install` put modules that do not come with the kernel.
pub fn installed_for(root: &Root, release: Option<&str>) -> bool {
    release.is_some_and(|release| installed(root, &format!("lib/modules/{release}")))
}

fn installed(root: &Root, dir: &str) -> bool {
    fn holds(dir: &Path, depth: usize) -> bool {
        std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| {
                let path = entry.path();
                let name = entry.file_name();
                let module = name
                    .to_str()
                    .and_then(|name| name.strip_prefix("kho.ko"))
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
                module || (depth > 0 && path.is_dir() && holds(&path, depth - 1))
            })
    }
    ["updates", "extra", "kernel/extra"]
        .iter()
        .any(|place| holds(&root.path(&format!("{dir}/{place}")), 3))
}

/// Releases the memory of a node that arrived.
///
/// # Errors
///
/// [`Status::NoSuchEntry`] if there is no such node, [`Status::Module`] if none of its memory is left, and the errors
/// of [`write`].
pub fn release(root: &Root, node: &str) -> Result<(), Fail> {
    debug_assert!(node.len() as u64 <= ATTRIBUTE_LIMIT);
    try_write(root, "release", node)?.map_err(|err| release_refused(root, node, &err))
}

fn release_refused(root: &Root, node: &str, err: &std::io::Error) -> Fail {
    match err.kind() {
        std::io::ErrorKind::NotFound => {
            Fail::new(Status::NoSuchEntry, format!("no node {node} arrived"))
        }
        std::io::ErrorKind::ResourceBusy if is_left(root, node) => Fail::new(
            Status::Module,
            format!("{node} is not released: it is handed over in the active phase"),
        )
        .fix("kho abort leaves the active phase"),
        std::io::ErrorKind::ResourceBusy => Fail::new(
            Status::Module,
            format!(
                "nothing of {node} is left to give back: it was taken over or given back before"
            ),
        )
        .fix("kho status lists what nobody took over"),
        _ => refused(root, "release", node, err),
    }
}

/// Whether there is memory at `path` or below it that no consumer claimed.
fn is_left(root: &Root, path: &str) -> bool {
    let nodes = unclaimed(root).unwrap_or_default();
    nodes.iter().any(|node| node.is_below(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn why_nothing_was_released() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let said = |errno| {
            let err = std::io::Error::from_raw_os_error(errno);
            let fail = release_refused(&root, "/a/b", &err);
            (fail.status, fail.to_string())
        };
        // The numbers of ENOENT, EBUSY, EACCES and ENOMEM.
        let (status, text) = said(2);
        assert_eq!(status, Status::NoSuchEntry);
        assert_eq!(text, "no node /a/b arrived");
        let (status, text) = said(16);
        assert_eq!(status, Status::Module);
        assert!(
            text.starts_with("nothing of /a/b is left to give back"),
            "{text}"
        );
        assert_eq!(said(13).0, Status::NotPermitted);
        let (status, text) = said(12);
        assert_eq!(status, Status::Module);
        assert!(
            text.contains("/a/b to ") && text.contains("memory"),
            "{text}"
        );
        // Without the module the status is a different one.
        assert_eq!(
            release(&root, "/a/b").unwrap_err().status,
            Status::Unsupported
        );
    }

    #[test]
    fn what_a_producer_has_is_not_released_with_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        // Without the module this check passes, and the write reports the error.
        require_nobodys(&root, "all").unwrap();
        let folder = dir.path().join(DIR);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("active"), "0\n").unwrap();
        let lines = "/blobs/blob-0 4096\n/khofs/vm 8192 khofs\n/khofs/vm/tree 4096 khofs\n/khofs/db 4096 khofs\n\
                     /ring 4096\n/test 4096 test\n/test/area 4096 test\n";
        fs::write(folder.join("release"), lines).unwrap();
        let nodes = unclaimed(&root).unwrap();
        assert_eq!(nodes.len(), 7);
        assert_eq!(nodes[0].producer, None);
        assert_eq!(nodes[1].bytes, 8192);
        assert_eq!(nodes[1].producer.as_deref(), Some("khofs"));

        for path in [
            "/ring",
            "/blobs",
            "/blobs/blob-0",
            "/khofs/v",
            "/tes",
            "/none",
        ] {
            require_nobodys(&root, path).unwrap();
        }
        let said = |path| {
            let fail = require_nobodys(&root, path).unwrap_err();
            assert_eq!(fail.status, Status::Module, "{path}");
            fail.to_string()
        };
        assert!(
            said("all").starts_with(
                "all is not released: the producer khofs has /khofs/vm, /khofs/db, which only that producer can release"
            ),
            "{}",
            said("all")
        );
        assert!(said("/khofs").contains("kho release /khofs/NAME"));
        assert!(said("/khofs/db").contains("khofs has /khofs/db,"));
        assert!(said("/test").contains("test has /test, /test/area,"));
        assert!(said("/test/area").contains("unload that driver"));
        // Memory that no producer holds can be released, but not in the active phase.
        let err = std::io::Error::from_raw_os_error(16);
        let fail = release_refused(&root, "/ring", &err);
        assert!(fail.to_string().contains("kho abort"), "{fail}");
    }

    #[test]
    fn the_module_of_the_next_kernel_is_found_where_it_is_installed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let kernel = dir.path().join("lib/modules/6.12");
        for place in [
            "updates/dkms/kho.ko",
            "updates/dkms/kho.ko.xz",
            "updates/kho.ko.zst",
            "extra/kho.ko.gz",
            "kernel/extra/kho/kho.ko",
        ] {
            let file = kernel.join(place);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let refused =
                require_installed(&root, "want to keep memory in place", Some("6.12")).unwrap_err();
            assert_eq!(refused.status, Status::NoModule, "{place}");
            fs::write(&file, "").unwrap();
            require_installed(&root, "want to keep memory in place", Some("6.12")).unwrap();
            fs::remove_file(&file).unwrap();
        }
        // Another module, an object file, the module of another kernel, and an image without a release.
        for place in ["updates/dkms/khofs.ko", "updates/kho.kobj"] {
            fs::write(kernel.join(place), "").unwrap();
        }
        fs::create_dir_all(dir.path().join("lib/modules/6.1/updates")).unwrap();
        fs::write(dir.path().join("lib/modules/6.1/updates/kho.ko"), "").unwrap();
        for release in [Some("6.12"), None] {
            let refused = require_installed(&root, "want to", release).unwrap_err();
            assert_eq!(refused.status, Status::NoModule);
        }
    }
}
