//! State of one run of the command, which every verb needs.

use crate::ahead::Ahead;
use crate::arrived::{Arrived, Blob};
use crate::exit::{Fail, OrStatus, Status};
use crate::hash;
use crate::output::Output;
use crate::state::StateDir;
use kho::PhysRange;
use kho::abi::kernel_part::{Reference, is_reference};
use kho::abi::late::{Late, LateReference, is_late_reference};
use kho::abi::{self, Carrier, Handover, LeaveOut};
use kho::tree::Reader;
use kho_kexec::sys::lock::{Lock, LockError};
use kho_kexec::sys::physmem::{self, InitrdFiles, PhysMemory, Reserved};
use kho_kexec::sys::root::Root;
use kho_kexec::sys::syscalls::{Kernel, System};
use std::cell::OnceCell;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// One run of the command: its state directory, the kernel that it works on, and the facts about the machine that it
/// has read.
pub struct Session {
    /// Directory of the runtime state.
    pub state: StateDir,
    /// Folder that holds `/proc` and `/sys`.
    pub root: Root,
    /// Receiver of the system calls that change the kernel's kexec state.
    pub kernel: Box<dyn Kernel>,
    arrived: OnceCell<Option<Arrived>>,
    memory: OnceCell<Box<dyn PhysMemory + Send>>,
}

impl Session {
    /// Makes a run with the state directory `state_dir`.
    pub fn new(state_dir: PathBuf) -> Self {
        Self::at(Root::system(), Box::new(System), state_dir)
    }

    /// Makes a run as [`Session::new`] does, on another machine: `root` holds its files, and `kernel` takes its system
    /// calls.
    pub fn at(root: Root, kernel: Box<dyn Kernel>, state_dir: PathBuf) -> Self {
        Self {
            state: StateDir::new(state_dir),
            root,
            kernel,
            arrived: OnceCell::new(),
            memory: OnceCell::new(),
        }
    }

    /// Whether systemd manages the system (sd_booted(3)).
    pub fn has_systemd(&self) -> bool {
        self.root.exists("run/systemd/system")
    }

    /// Takes the lock, which keeps every other `kho` from changing anything until it is dropped.
    ///
    /// # Errors
    ///
    /// [`Status::Busy`] if another `kho` holds the lock.
    pub fn lock(&self) -> Result<Lock, Fail> {
        self.state.prepare()?;
        self.lock_within(Duration::ZERO).map_err(|err| busy(&err))
    }

    /// Takes the lock as [`Session::lock`] does, but waits up to `limit` for another `kho` to end.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`], with the `kho` that holds the lock.
    pub fn lock_within(&self, limit: Duration) -> Result<Lock, LockError> {
        let lock = Lock::take_within(&self.state.path().join("lock"), limit)?;
        kho_kexec::sys::landing::lower_after_kill(&self.root);
        Ok(lock)
    }

    /// Returns the bytes of the state tree that arrived, unchecked; `None` on an ordinary boot.
    ///
    /// # Errors
    ///
    /// If a tree arrived and cannot be read.
    pub fn tree_bytes(&self) -> Result<Option<Vec<u8>>, Fail> {
        Ok(self.found()?.map(|found| found.bytes))
    }

    /// Whether the tree that arrived came in the initrd, so that its ranges are places in files.
    ///
    /// # Errors
    ///
    /// As [`Session::tree_bytes`].
    pub fn came_in_initrd(&self) -> Result<bool, Fail> {
        let found = self.found()?;
        Ok(found.is_some_and(|found| found.reserved == Reserved::Files))
    }

    /// Finds the tree and its carrier in one reading: a tree without its carrier is never trusted.
    fn found(&self) -> Result<Option<Found>, Fail> {
        match physmem::find_tree(&self.root) {
            Ok(physmem::Arrived::Nothing) => Ok(None),
            Ok(physmem::Arrived::Tree { bytes, reserved }) => Ok(Some(Found { bytes, reserved })),
            Ok(physmem::Arrived::Corrupt { why }) => Err(Fail::new(
                Status::TreeCorrupt,
                format!("what arrived is damaged: {why}"),
            )
            .fix(STAYS)),
            Err(err) => {
                let text = crate::exit::chain(&err);
                Err(Fail::new(
                    Status::NotPermitted,
                    format!("cannot look for what arrived: {text}"),
                )
                .root(""))
            }
        }
    }

    /// Returns the content that arrived, checked; `None` on an ordinary boot.
    ///
    /// # Errors
    ///
    /// [`Status::TreeCorrupt`] or [`Status::UnknownVersion`] if content arrived that cannot be trusted.
    pub fn arrived(&self) -> Result<&Option<Arrived>, Fail> {
        if let Some(arrived) = self.arrived.get() {
            return Ok(arrived);
        }
        let arrived = match self.found()? {
            Some(Found { bytes, reserved }) => {
                let (mut arrived, late) = take_apart(bytes)?;
                match_carrier(&arrived, &reserved)?;
                if let Some(late) = late {
                    match self.late_part(late)? {
                        Ok((part, nodes)) => (arrived.kernel, arrived.late) = (Some(part), nodes),
                        Err(why) => arrived.no_kernel = Some(why),
                    }
                }
                Some(arrived)
            }
            None => None,
        };
        Ok(self.arrived.get_or_init(|| arrived))
    }

    /// Returns the kernel's part that a late block names, and the late mem cache; or the reason why nothing arrived that
    /// way. `said` is the reference in the tree, `None` if that is malformed.
    fn late_part(&self, said: Option<LateReference>) -> Result<Result<LatePart, String>, Fail> {
        let Some(said) = said else {
            return Ok(Err("the node of its late block is malformed".to_owned()));
        };
        let Some(found) = physmem::find_late(&self.root).or_status(Status::NotPermitted)? else {
            return Ok(Err(format!(
                "early boot did not walk through its late block at {}",
                said.block
            )));
        };
        let late = match Late::read(&found.header, said.nonce) {
            Ok(late) => late,
            Err(err) => return Ok(Err(crate::exit::chain(&err))),
        };
        let indices = found.reserved.iter().map(|node| node.index);
        let nodes = late.cache.iter().copied().zip(indices).collect();
        let checked = Reserved::Nodes(found.reserved).matches(&late.cache);
        Ok(checked.map(|()| (late.part, nodes)))
    }

    /// Returns the content that the next load carries on; `None` if `forget` is set.
    ///
    /// # Errors
    ///
    /// The errors of [`Session::arrived`], unless `forget` is set.
    pub fn carried(&self, forget: bool) -> Result<Option<&Arrived>, Fail> {
        if forget {
            Ok(None)
        } else {
            Ok(self.arrived()?.as_ref())
        }
    }

    /// Returns the content that arrived, for verbs that only need the keep list. If it is damaged or of an unknown
    /// version, warns and returns `None`: unreadable content is not on the list.
    ///
    /// # Errors
    ///
    /// The other errors of [`Session::arrived`].
    pub fn readable(&self, out: Output) -> Result<Option<&Arrived>, Fail> {
        match self.arrived() {
            Ok(arrived) => Ok(arrived.as_ref()),
            Err(fail) if matches!(fail.status, Status::TreeCorrupt | Status::UnknownVersion) => {
                out.warn(&format!("{}; what it kept is not on the list", fail.what));
                Ok(None)
            }
            Err(fail) => Err(fail),
        }
    }

    /// Returns the content that arrived. An ordinary boot is an error.
    ///
    /// # Errors
    ///
    /// The errors of [`Session::arrived`], and [`Status::NothingArrived`] on an ordinary boot.
    pub fn require_arrived(&self) -> Result<&Arrived, Fail> {
        self.arrived()?.as_ref().ok_or_else(nothing_arrived)
    }

    /// Opens a blob that arrived.
    ///
    /// # Errors
    ///
    /// If kept memory cannot be read.
    pub fn open_blob<'a>(&'a self, blob: &'a Blob) -> Result<BlobReader<'a>, Fail> {
        if self.state.keep()?.released.contains(&blob.label) {
            return Err(Fail::new(
                Status::NotReserved,
                format!("the memory of {} was given back in this boot", blob.label),
            )
            .fix("what kho restore put back is at its place; anything else is gone"));
        }
        self.open_checked(&blob.label, &blob.mem, blob.size, &blob.blake3)
    }

    /// Opens content that arrived in the ranges `mem`. `name` is for messages.
    fn open_checked<'a>(
        &'a self,
        name: &'a str,
        mem: &'a [PhysRange],
        size: u64,
        blake3: &'a [u8; 32],
    ) -> Result<BlobReader<'a>, Fail> {
        let inner =
            physmem::Reader::new(self.kept_memory()?, mem, size).or_status(Status::TreeCorrupt)?;
        let helpers = hash::helpers(hash::groups(size));
        let source = match Ahead::start(mem, size, helpers, || self.open_memory().ok()) {
            Some(ahead) => Content::Ahead(ahead),
            None => Content::Here {
                inner,
                hasher: Box::default(),
            },
        };
        Ok(BlobReader {
            source,
            name,
            size,
            blake3,
        })
    }

    /// Returns the bytes of a range of memory that arrived.
    ///
    /// # Errors
    ///
    /// If kept memory cannot be read.
    pub fn memory(&self, range: PhysRange) -> Result<Vec<u8>, Fail> {
        physmem::read_range(self.kept_memory()?, range).or_status(Status::NotPermitted)
    }

    fn kept_memory(&self) -> Result<&(dyn PhysMemory + 'static), Fail> {
        let memory = match self.memory.get() {
            Some(memory) => memory,
            None => {
                let memory = self.open_memory()?;
                self.memory.get_or_init(|| memory)
            }
        };
        Ok(&**memory)
    }

    fn open_memory(&self) -> Result<Box<dyn PhysMemory + Send>, Fail> {
        let arrived = self.require_arrived()?;
        if arrived.carrier == Carrier::Initrd {
            let files = InitrdFiles::open(&self.root).or_status(Status::NotPermitted)?;
            return Ok(Box::new(files));
        }
        // The chain begins with the node of the tree. One node for each range of the mem cache follows, in order.
        let nodes = arrived.mem_cache.iter().copied().zip(1u32..);
        let nodes: Vec<_> = nodes.chain(arrived.late.iter().copied()).collect();
        let ranges: Vec<_> = arrived.ranges().collect();
        physmem::open(&self.root, &ranges, &nodes)
            .or_status(Status::NotPermitted)
            .map_err(|fail| fail.root(""))
    }

    /// Returns content that arrived in the ranges `mem`. `name` is for messages.
    ///
    /// # Errors
    ///
    /// [`Status::BlobCorrupt`] if the content does not match its hash.
    pub fn read_checked(
        &self,
        name: &str,
        mem: &[PhysRange],
        size: u64,
        blake3: &[u8; 32],
    ) -> Result<Vec<u8>, Fail> {
        let mut reader = self.open_checked(name, mem, size, blake3)?;
        let mut bytes = Vec::new();
        reader
            .read_to_end(&mut bytes)
            .map_err(|err| Fail::new(Status::Failed, format!("cannot read {name}: {err}")))?;
        reader.finish()?;
        Ok(bytes)
    }
}

/// Makes the failure of a verb that could not take the lock.
pub fn busy(err: &LockError) -> Fail {
    Fail::new(Status::Busy, crate::exit::chain(err)).fix("wait for it, or see what it is doing")
}

/// Makes the failure of a verb that needs a handover, on an ordinary boot.
pub fn nothing_arrived() -> Fail {
    Fail::new(
        Status::NothingArrived,
        "nothing arrived: this kernel was not started by kho",
    )
    .fix("kho load and kho exec in the previous kernel hand over; kho doctor says whether they can")
}

/// Advice about a handover that cannot be used: what happens to its memory, and how to get rid of it.
const STAYS: &str = "it stays reserved and the system runs on without it; kho dump shows it, and \
                     kho load --forget-arrived begins a new chain";

/// A tree that was found, with what its carrier reserves.
struct Found {
    /// The tree, unchecked.
    bytes: Vec<u8>,
    /// Ranges that the carrier told this kernel to reserve.
    reserved: Reserved,
}

/// Checks the tree against this boot's carrier, which must reserve every range that the tree calls reserved.
fn match_carrier(arrived: &Arrived, reserved: &Reserved) -> Result<(), Fail> {
    let in_files = *reserved == Reserved::Files;
    let matches = match (arrived.carrier, in_files) {
        (Carrier::Memory, true) => Err("it came in the initrd and names memory".to_owned()),
        (Carrier::Initrd, false) => Err("it names files of the initrd".to_owned()),
        (Carrier::Initrd, true) => Ok(()),
        (Carrier::Memory, false) => reserved.matches(&arrived.mem_cache),
    };
    matches.map_err(|why| {
        Fail::new(
            Status::TreeCorrupt,
            format!("the state tree that arrived does not belong to this boot: {why}"),
        )
        .fix(STAYS)
    })
}

/// Kernel's part that a late block names, and the ranges of the block with their nodes.
type LatePart = (Reference, Vec<(PhysRange, u32)>);

/// Returns the content of a tree, and its reference to a late block, if it has one: `None` inside if that is malformed.
fn take_apart(tree: Vec<u8>) -> Result<(Arrived, Option<Option<LateReference>>), Fail> {
    let reader = Reader::new(&tree).map_err(|err| {
        let what = format!(
            "the state tree that arrived is damaged: {}",
            crate::exit::chain(&err)
        );
        Fail::new(Status::TreeCorrupt, what).fix(STAYS)
    })?;
    let handover = Handover::parse(&reader).map_err(|err| {
        let unknown = matches!(&err, kho::abi::AbiError::Problem(p) if matches!(p.kind, kho::abi::ProblemKind::RootVersion { .. }));
        let status = if unknown { Status::UnknownVersion } else { Status::TreeCorrupt };
        Fail::new(status, format!("the state tree that arrived is refused: {}", crate::exit::chain(&err))).fix(STAYS)
    })?;
    let blobs = handover
        .blobs
        .iter()
        .map(|blob| Blob {
            label: blob.label.as_str().to_owned(),
            path: match blob.content {
                abi::Content::Files { path, .. } => Some(PathBuf::from(OsStr::from_bytes(path))),
                abi::Content::Raw => None,
            },
            leave_out: match blob.content {
                abi::Content::Files { leave_out, .. } => leave_out,
                abi::Content::Raw => LeaveOut::default(),
            },
            size: blob.size,
            mem: blob.ranges().collect(),
            blake3: blob.blake3,
            taken: blob.taken,
            arrived_hop: blob.arrived_hop,
        })
        .collect();
    let unknown = handover
        .unknown
        .iter()
        .filter(|u| !is_reference(&u.node) && !is_late_reference(&u.node))
        .map(|u| (u.node.name().to_owned(), u.compatible.to_owned()))
        .collect();
    let late = reader.root().children().find(is_late_reference);
    let in_memory = handover.carrier == Carrier::Memory;
    let arrived = Arrived {
        generation: handover.generation,
        hop: handover.hop,
        previous_release: handover.previous_release.to_owned(),
        time: handover.time,
        carrier: handover.carrier,
        scratch: in_memory.then_some(handover.scratch),
        mem_cache: match in_memory {
            true => handover.mem_cache.clone(),
            false => Vec::new(),
        },
        blobs,
        kernel: reader
            .root()
            .children()
            .find(is_reference)
            .and_then(|node| Reference::read(&node)),
        no_kernel: None,
        late: Vec::new(),
        traces: handover.traces.as_ref().map(Into::into),
        unknown,
    };
    Ok((arrived, late.map(|node| LateReference::read(&node))))
}

/// Stream of a blob's content that computes the hash and compares it at the end.
pub struct BlobReader<'a> {
    source: Content<'a>,
    name: &'a str,
    size: u64,
    blake3: &'a [u8; 32],
}

/// Reader of the content of a blob.
enum Content<'a> {
    /// Other threads read and hash the content.
    Ahead(Ahead),
    /// The thread that uses the content reads it.
    Here {
        inner: physmem::Reader<'a, dyn PhysMemory>,
        hasher: Box<blake3::Hasher>,
    },
}

impl BlobReader<'_> {
    /// Reads the rest, and checks the hash of all bytes.
    ///
    /// # Errors
    ///
    /// [`Status::BlobCorrupt`] if the hash is wrong, or a read error.
    pub fn rest(&mut self) -> Result<(), Fail> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return self.finish(),
                Ok(_) => {}
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(err) => {
                    let what = format!("cannot read {}: {err}", self.name);
                    return Err(Fail::new(Status::Failed, what));
                }
            }
        }
    }

    /// Checks the hash of the bytes that were read. Must be called after the last byte.
    ///
    /// # Errors
    ///
    /// [`Status::BlobCorrupt`] if the hash is wrong.
    pub fn finish(&self) -> Result<(), Fail> {
        let found = match &self.source {
            Content::Ahead(ahead) => ahead.hash(),
            Content::Here { hasher, .. } => Some(hasher.finalize()),
        };
        if found.is_some_and(|found| found.as_bytes() == self.blake3) {
            return Ok(());
        }
        let found = found.map_or_else(|| "nothing".to_owned(), |found| found.to_string());
        Err(Fail::new(
            Status::BlobCorrupt,
            format!(
                "{}: its {:#x} bytes hash to {found}, the tree says {}",
                self.name,
                self.size,
                blake3::Hash::from_bytes(*self.blake3).to_hex()
            ),
        )
        .fix("the memory was overwritten or is faulty; nothing was restored from it"))
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.source {
            Content::Ahead(ahead) => ahead.read(buf),
            Content::Here { inner, hasher } => {
                let n = inner.read(buf)?;
                hasher.update(buf.get(..n).unwrap_or_default());
                Ok(n)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kho::PhysAddr;
    use kho::RangeSet;
    use kho::abi::setup_data::{SETUP_KHO_LATE, SETUP_KHO_RESERVE, SETUP_KHO_TREE};
    use kho::abi::{Description, MACHINE_X86_64};
    use kho::tree::Writer;
    use std::fs;

    const MIB: u64 = 1 << 20;

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    /// Simulates the arrival of a tree that reserves one MiB, with a chain of these nodes, by type and length.
    fn arrived(chain: &[(u32, u64)]) -> Result<(), Status> {
        arrival(chain, None, &[]).map(|_| ())
    }

    /// As [`arrived`], with a tree that refers to a late block. `header` is the content of the first late node.
    fn arrival(
        chain: &[(u32, u64)],
        late: Option<LateReference>,
        header: &[u8],
    ) -> Result<(Option<Reference>, Option<String>, RangeSet), Status> {
        let description = Description {
            generation: 1,
            hop: 1,
            previous_release: "6.1",
            machine: MACHINE_X86_64,
            time: 1,
            carrier: kho::abi::Carrier::Memory,
            scratch: range(16 * MIB, 64 * MIB),
            mem_cache: &[range(256 * MIB, MIB)],
            blobs: &[],
        };
        let more = |w: &mut Writer<'_>| late.map_or(Ok(()), |late| late.write(w));
        let len = kho::abi::measure_handover_with(&description, more).unwrap();
        let mut tree = vec![0; len];
        let len = kho::abi::write_handover_with(&description, &mut tree, more).unwrap();
        tree.truncate(len);
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("sys/kernel/boot_params/setup_data");
        let node = |index: usize, kind: u32| {
            let node = dir.join(index.to_string());
            fs::create_dir_all(&node).unwrap();
            fs::write(node.join("type"), format!("{kind:#x}\n")).unwrap();
            node.join("data")
        };
        fs::write(node(0, SETUP_KHO_TREE), &tree).unwrap();
        for (index, (kind, len)) in (1..).zip(chain) {
            let data = fs::File::create(node(index, *kind)).unwrap();
            data.set_len(*len).unwrap();
        }
        if let Some(first) = chain.iter().position(|(kind, _)| *kind == SETUP_KHO_LATE) {
            fs::write(node(first + 1, SETUP_KHO_LATE), header).unwrap();
        }
        let session = Session::at(
            Root::at(root.path()),
            Box::new(System),
            root.path().join("state"),
        );
        session
            .require_arrived()
            .map(|arrived| {
                let reserved = arrived.reserved().unwrap();
                (arrived.kernel, arrived.no_kernel.clone(), reserved)
            })
            .map_err(|fail| fail.status)
    }

    #[test]
    fn a_late_block_names_the_kernel_s_part_if_it_is_of_this_boot() {
        const LATE: u32 = SETUP_KHO_LATE;
        let block = range(256 * MIB + 4096, 8192);
        let said = LateReference { block, nonce: 5 };
        let late = Late {
            part: Reference {
                mem: range(512 * MIB, 4096),
                size: 1000,
                generation: 7,
            },
            cache: vec![range(512 * MIB, 2 * MIB)],
        };
        let header =
            |nonce| kho::abi::late::encode(block, nonce, &late).unwrap().0[4096..].to_vec();
        let own = (SETUP_KHO_RESERVE, MIB);
        let (page, memory) = ((LATE, 4096), (LATE, 2 * MIB));
        let chain = [own, page, memory];
        let (part, why, reserved) = arrival(&chain, Some(said), &header(5)).unwrap();
        assert_eq!((part, why), (Some(late.part), None));
        assert!(reserved.contains_range(range(512 * MIB, 2 * MIB)));
        for (chain, header, wanted) in [
            (&chain[..], header(6), "another load"),
            (&chain, vec![0; 4096], "wrote nothing"),
            (&[own, page], header(5), "1 entries, and 0 nodes"),
            (&[own, page, (LATE, MIB)], header(5), "does not fit"),
            (&[own], header(5), "did not walk"),
        ] {
            let (part, why, reserved) = arrival(chain, Some(said), &header).unwrap();
            let why = why.unwrap();
            assert!(part.is_none() && why.contains(wanted), "{why}");
            assert_eq!(reserved.total(), MIB);
        }
    }

    #[test]
    fn a_tree_is_believed_only_with_its_chain() {
        const RESERVE: u32 = SETUP_KHO_RESERVE;
        assert_eq!(arrived(&[(RESERVE, MIB)]), Ok(()));
        for chain in [
            &[][..],
            &[(5, MIB)],
            &[(RESERVE, 2 * MIB)],
            &[(RESERVE, MIB), (RESERVE, MIB)],
            &[(RESERVE, MIB), (SETUP_KHO_TREE, MIB)],
        ] {
            assert_eq!(arrived(chain), Err(Status::TreeCorrupt), "{chain:?}");
        }
    }
}
