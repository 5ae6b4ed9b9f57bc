//! The handover from the previous kernel, and the decision whether to trust it.
//!
//! The user's tree (written by the loader) has a node `/kernel` that refers to the kernel's part, a tree of its own in
//! pages that the previous kernel's module owned until kexec ([`kho::abi::kernel_part`]). An abort destroys it, so an
//! image that was loaded before the abort refers to nothing. The node of a load that the module completes before the
//! jump names a late block instead ([`kho::abi::late`]); the block names the kernel's part, with a mem cache of its own.

use crate::contract::CONTRACT;
use crate::errno::{ENODATA, ENOMEM, Errno};
use crate::iomem::Map;
use crate::system::{Boot, Reserved, System, Tree, log};
use crate::text::Level;
use alloc::string::String;
use kho::abi::kernel_part::{KernelPart, KernelPartError, Reference, is_reference};
use kho::abi::late::{Late, LateError, LateReference, is_late_reference};
use kho::abi::{AbiError, Handover, MEM};
use kho::tree::{Node, TreeError, Value};
use kho::{OutOfMemory, PhysRange, RangeSet};

/// A trusted handover that arrived.
pub struct Arrival<S: System> {
    /// The user's tree.
    pub user: S::Tree,
    /// The kernel's part; `None` if there is none, or it is not trusted.
    pub kernel: Option<S::Tree>,
    /// The pages of the kernel's part, if `kernel` is `Some`.
    pub part: Option<S::Stays>,
    /// Reason why the kernel's part is not trusted; `None` if it is trusted, or there is none.
    pub refused: Option<&'static str>,
    /// Scratch region, where every hop places the next kernel.
    pub scratch: PhysRange,
    /// Number of handovers since the cold boot.
    pub hop: u64,
    /// Release of the previous kernel.
    pub previous: String,
    /// Slack that was released at once, in bytes: memory that the mem cache covers and that was not handed over.
    pub slack: u64,
    /// Number of pages of `mem` that are not reserved any more.
    pub missing: u64,
}

/// Reason why there is no [`Arrival`].
#[derive(Clone, Copy, Debug)]
pub enum Nothing {
    /// This was an ordinary boot.
    Ordinary,
    /// The state tree is not trusted; its ranges stay reserved.
    Refused(&'static str),
    /// This kernel failed to read the handover.
    Failed(Errno),
}

impl From<Errno> for Nothing {
    fn from(error: Errno) -> Self {
        Self::Failed(error)
    }
}

impl From<OutOfMemory> for Nothing {
    fn from(_: OutOfMemory) -> Self {
        Self::Failed(ENOMEM)
    }
}

/// Reads and checks the handover that arrived, and releases the slack unless that was done before.
///
/// # Errors
///
/// [`Nothing`], the reason why there is no arrival.
pub fn receive<S: System>(map: &Map) -> Result<(Arrival<S>, S::Reserved), Nothing> {
    let boot = S::Boot::read(map)?;
    let Some(at) = boot.chain().tree else {
        return Err(Nothing::Ordinary);
    };
    let bytes = S::copy_reserved(map, at).map_err(|error| match error {
        ENOMEM => Nothing::Failed(error),
        _ => Nothing::Refused("the state tree is not in memory that early boot reserved"),
    })?;
    let user = S::Tree::new(bytes).map_err(|error| match error {
        TreeError::OutOfMemory(_) => Nothing::Failed(ENOMEM),
        error => {
            log!(S, Level::Error, "state tree at {at}: {error}");
            Nothing::Refused("the state tree is damaged")
        }
    })?;
    let mut found = check_user::<S>(&user, &boot, at)?;
    let mut is_empty = false;
    let (kernel, refused) = match kernel_part::<S>(&user, map, &boot, &mut found) {
        Ok(kernel) => (kernel, None),
        Err(Why::Memory) => return Err(Nothing::Failed(ENOMEM)),
        Err(Why::Empty) => {
            is_empty = true;
            let why = "the previous kernel wrote nothing before it jumped";
            log!(S, Level::Warning, "of its drivers nothing arrived: {why}");
            (None, Some(why))
        }
        Err(Why::Refused(why)) => {
            log!(
                S,
                Level::Error,
                "the kernel's part of the handover is ignored, and its memory stays reserved: {why}"
            );
            (None, Some(why))
        }
    };
    let wanted = match &kernel {
        Some(part) => found.user_mem.union(&part.mem)?,
        // Without the kernel's part it is not known which memory is slack: all of it stays reserved until root releases
        // it.
        None if refused.is_some() && !is_empty => found.cache.try_clone()?,
        None => found.user_mem.try_clone()?,
    };
    let again = boot.was_handled();
    let (reserved, missing) =
        S::Reserved::adopt(&boot, map, &wanted, again).map_err(|e| match e {
            ENOMEM => Nothing::Failed(e),
            _ => Nothing::Refused("a range is not RAM that early boot reserved for it"),
        })?;
    if missing != 0 && !again {
        log!(
            S,
            Level::Warning,
            "{missing} pages that were handed over are not reserved in this kernel"
        );
    }
    let slack = if again {
        0
    } else {
        release_slack::<S>(&boot, map, &found.cache, &wanted, kernel.as_ref())?
    };
    boot.mark_handled();
    let arrival = Arrival {
        part: kernel.as_ref().and_then(|part| S::stays(part.own)),
        kernel: kernel.map(|part| part.tree),
        refused,
        scratch: found.scratch,
        hop: found.hop,
        previous: found.previous,
        user,
        slack,
        missing,
    };
    Ok((arrival, reserved))
}

/// Result of [`check_user`].
struct Found {
    /// Memory that the mem cache covers, without the pages of the chain and of the tree.
    cache: RangeSet,
    /// All `mem` of the user's tree, without that of the node that refers to the kernel's part.
    user_mem: RangeSet,
    scratch: PhysRange,
    hop: u64,
    previous: String,
}

/// Checks the user's tree by the contract and against the chain of this boot.
fn check_user<S: System>(user: &S::Tree, boot: &S::Boot, at: PhysRange) -> Result<Found, Nothing> {
    let handover = Handover::parse(user.reader()).map_err(|error| match error {
        AbiError::OutOfMemory(_) => Nothing::Failed(ENOMEM),
        other => {
            log!(S, Level::Error, "state tree at {at}: {other}");
            Nothing::Refused("the state tree is not valid")
        }
    })?;
    handover
        .check_state(at)
        .map_err(|_| Nothing::Refused("the state tree is not where it says"))?;
    let chain = RangeSet::from_ranges(boot.chain().reserved.iter().copied())?;
    let cache = RangeSet::from_ranges(handover.mem_cache.iter().copied())?;
    if !cache.subtract(&chain)?.is_empty() {
        return Err(Nothing::Refused(
            "early boot was not asked to reserve all of the mem cache",
        ));
    }
    let mut user_mem = RangeSet::new();
    // No `filter`: the mangled name of its code is too long for objtool.
    for (node, range) in handover.mem() {
        if !names_part(&node) {
            user_mem.insert(range)?;
        }
    }
    let mut previous = String::new();
    previous
        .try_reserve_exact(handover.previous_release.len())
        .map_err(|_| OutOfMemory)?;
    previous.push_str(handover.previous_release);
    Ok(Found {
        // Without the memory that this kernel still reads.
        cache: cache.intersect(boot.handed())?,
        user_mem,
        scratch: handover.scratch,
        hop: handover.hop,
        previous,
    })
}

/// The string property `name`.
pub fn string<'a>(node: &Node<'a>, name: &str) -> Option<&'a str> {
    node.prop(name)?.value().str().ok()
}

/// The ranges of a node's `mem`, in their order; none if the node has no such property or the property is malformed.
pub fn mem<'a>(node: &Node<'a>) -> impl Iterator<Item = PhysRange> + use<'a> {
    let value = node.prop(MEM).map(|prop| prop.value());
    value
        .and_then(|value: Value<'a>| value.mem().ok())
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
}

/// A trusted kernel's part.
struct TrustedPart<S: System> {
    tree: S::Tree,
    /// Memory that its producers hand over.
    mem: RangeSet,
    /// Pages of the kernel's part itself.
    own: PhysRange,
}

/// Reason why there is no [`TrustedPart`].
enum Why {
    Memory,
    /// The late block is empty: no memory of drivers is handed over.
    Empty,
    Refused(&'static str),
}

impl From<OutOfMemory> for Why {
    fn from(_: OutOfMemory) -> Self {
        Self::Memory
    }
}

/// Reads the kernel's part, if the user's tree refers to one.
fn kernel_part<S: System>(
    user: &S::Tree,
    map: &Map,
    boot: &S::Boot,
    found: &mut Found,
) -> Result<Option<TrustedPart<S>>, Why> {
    let mut nodes = user.reader().root().children().filter(names_part);
    let Some(node) = nodes.next() else {
        return Ok(None);
    };
    if nodes.next().is_some() {
        return Err(Why::Refused("two nodes refer to one"));
    }
    let said = if is_late_reference(&node) {
        late_part::<S>(&node, map, boot, found)?
    } else {
        Reference::read(&node).ok_or(Why::Refused(
            "its node has no proper mem, size and generation",
        ))?
    };
    let exact = PhysRange::new(said.mem.start(), said.size)
        .map_err(|_| Why::Refused("its size is wrong"))?;
    let bytes = S::copy_reserved(map, exact).map_err(|error| match error {
        ENOMEM => Why::Memory,
        _ => Why::Refused("its pages are not reserved"),
    })?;
    let tree = S::Tree::new(bytes).map_err(|error| match error {
        TreeError::OutOfMemory(_) => Why::Memory,
        error => {
            log!(S, Level::Info, "kernel's part at {}: {error}", said.mem);
            Why::Refused("it is no tree: aborted after the image was loaded, or overwritten")
        }
    })?;
    let part = KernelPart::parse_as(CONTRACT, tree.reader()).map_err(|error| match error {
        KernelPartError::OutOfMemory(_) => Why::Memory,
        error => {
            log!(S, Level::Info, "kernel's part at {}: {error}", said.mem);
            Why::Refused(match error {
                KernelPartError::Version => "it is of another version",
                _ => "it is damaged or contradicts itself",
            })
        }
    })?;
    if part.reference != said {
        return Err(Why::Refused("it is not the one that was loaded"));
    }
    part.check_places(&found.cache, found.scratch, &found.user_mem)
        .map_err(|misplaced| {
            log!(S, Level::Info, "kernel's part: {misplaced}");
            Why::Refused(misplaced.why)
        })?;
    Ok(Some(TrustedPart {
        tree,
        own: said.mem,
        mem: part.mem,
    }))
}

/// Whether `node` refers to a kernel's part: directly, or through a late block.
fn names_part(node: &Node<'_>) -> bool {
    is_reference(node) || is_late_reference(node)
}

/// Reads the late block to which `node` refers, and adds its mem cache to `found`. Returns the reference to the
/// kernel's part.
fn late_part<S: System>(
    node: &Node<'_>,
    map: &Map,
    boot: &S::Boot,
    found: &mut Found,
) -> Result<Reference, Why> {
    let mut late = boot.chain().late.iter().copied();
    let at = late.next();
    let reserved = RangeSet::from_ranges(late)?;
    // If the block is refused, all that early boot reserved because of it stays reserved.
    found.cache = found.cache.union(&reserved.intersect(boot.handed())?)?;
    let said =
        LateReference::read(node).ok_or(Why::Refused("its node has no proper mem and nonce"))?;
    let header = said.header().filter(|header| at == Some(*header));
    let header = header.ok_or(Why::Refused(
        "early boot did not walk through its late block",
    ))?;
    let bytes = S::copy_reserved(map, header).map_err(|error| match error {
        ENOMEM => Why::Memory,
        _ => Why::Refused("its late block is not reserved"),
    })?;
    let late = Late::read(&bytes, said.nonce);
    let late = late.and_then(|late| late.check_reserved(&reserved).map(|()| late));
    let late = late.map_err(|error| match error {
        LateError::OutOfMemory(_) => Why::Memory,
        LateError::Empty if reserved.is_empty() => Why::Empty,
        error => {
            log!(S, Level::Info, "late block at {}: {error}", said.block);
            Why::Refused(match error {
                LateError::Nonce { .. } => "its late block is that of another load",
                _ => "its late block is damaged",
            })
        }
    })?;
    Ok(late.part)
}

/// Releases the slack: memory that the mem cache covers and no `mem` names. Returns the number of bytes.
fn release_slack<S: System>(
    boot: &S::Boot,
    map: &Map,
    cache: &RangeSet,
    wanted: &RangeSet,
    part: Option<&TrustedPart<S>>,
) -> Result<u64, Nothing> {
    let mut slack = cache.subtract(wanted)?;
    if let Some(part) = part {
        slack.remove(part.own)?;
    }
    let (mut pages, missing) = match S::Reserved::adopt(boot, map, &slack, false) {
        Ok(adopted) => adopted,
        Err(ENOMEM) => return Err(Nothing::Failed(ENOMEM)),
        Err(_) => {
            log!(
                S,
                Level::Warning,
                "the mem cache covers what is not RAM: no slack is released"
            );
            return Ok(0);
        }
    };
    if missing != 0 {
        log!(
            S,
            Level::Warning,
            "{missing} pages of slack were not reserved"
        );
    }
    let list = pages.set().try_clone()?;
    // The pages are not zeroed: after an ordinary kexec no kernel zeroes its predecessor's memory either.
    pages.free(&list, false).or_else(|error| {
        log!(
            S,
            Level::Warning,
            "{} KiB of slack stay reserved (error {})",
            list.total() / 1024,
            error.0
        );
        Ok(0)
    })
}

impl<S: System> Arrival<S> {
    /// The kernel's part as bytes.
    ///
    /// # Errors
    ///
    /// [`ENODATA`] if there is no kernel's part.
    pub fn kernel_bytes(&self) -> Result<&[u8], Errno> {
        self.kernel.as_ref().map(S::Tree::bytes).ok_or(ENODATA)
    }
}

#[cfg(test)]
mod tests;
