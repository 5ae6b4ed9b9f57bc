//! What every verb needs of the machine it runs on.

use crate::arrived::{Arrived, Blob};
use crate::exit::{Fail, OrStatus, Status};
use crate::state::StateDir;
use kho::abi::{Content, Handover};
use kho::tree::Reader;
use kho_kexec::sys::lock::Lock;
use kho_kexec::sys::physmem::{self, PhysMemory};
use kho_kexec::sys::root::Root;
use std::cell::OnceCell;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// One run of the command: where its state is, and what it has already read of the machine.
pub struct Session {
    /// Runtime state.
    pub state: StateDir,
    /// Where `/proc` and `/sys` are.
    pub root: Root,
    arrived: OnceCell<Option<Arrived>>,
    memory: OnceCell<Box<dyn PhysMemory>>,
}

impl Session {
    /// A run with its state in `state_dir`.
    pub fn new(state_dir: PathBuf) -> Self {
        Self { state: StateDir::new(state_dir), root: Root::system(), arrived: OnceCell::new(), memory: OnceCell::new() }
    }

    /// Keeps every other `kho` that would change something out, until dropped.
    ///
    /// # Errors
    ///
    /// [`Status::Busy`] when there is one.
    pub fn lock(&self) -> Result<Lock, Fail> {
        self.state.prepare()?;
        Lock::take_at(&self.state.path().join("lock")).map_err(|err| {
            Fail::new(Status::Busy, crate::exit::chain(&err)).fix("wait for it, or see what it is doing")
        })
    }

    /// The bytes of the state tree that arrived, unchecked; none on an ordinary boot.
    ///
    /// # Errors
    ///
    /// When there is one and it cannot be read.
    pub fn tree_bytes(&self) -> Result<Option<Vec<u8>>, Fail> {
        match physmem::find_tree(&self.root) {
            Ok(physmem::Arrived::Nothing) => Ok(None),
            Ok(physmem::Arrived::Tree { bytes, .. }) => Ok(Some(bytes)),
            Ok(physmem::Arrived::Corrupt { why }) => {
                Err(Fail::new(Status::TreeCorrupt, format!("what arrived is damaged: {why}"))
                    .fix("it stays reserved; the system runs on without it"))
            }
            Err(err) => {
                let text = crate::exit::chain(&err);
                Err(Fail::new(Status::NotPermitted, format!("cannot look for what arrived: {text}")).fix("run as root"))
            }
        }
    }

    /// What arrived, checked; none on an ordinary boot.
    ///
    /// # Errors
    ///
    /// [`Status::TreeCorrupt`] or [`Status::UnknownVersion`] when something arrived that cannot be trusted.
    pub fn arrived(&self) -> Result<&Option<Arrived>, Fail> {
        if let Some(arrived) = self.arrived.get() {
            return Ok(arrived);
        }
        let arrived = self.tree_bytes()?.map(take_apart).transpose()?;
        Ok(self.arrived.get_or_init(|| arrived))
    }

    /// What arrived.
    ///
    /// # Errors
    ///
    /// As [`Session::arrived`], and [`Status::NothingArrived`].
    pub fn require_arrived(&self) -> Result<&Arrived, Fail> {
        self.arrived()?.as_ref().ok_or_else(nothing_arrived)
    }

    /// Opens a blob that arrived.
    ///
    /// # Errors
    ///
    /// When kept memory cannot be read.
    pub fn open_blob<'a>(&'a self, blob: &'a Blob) -> Result<BlobReader<'a>, Fail> {
        let memory = match self.memory.get() {
            Some(memory) => memory,
            None => {
                let arrived = self.require_arrived()?;
                // In the chain the tree's own node comes first, then one node per mem-cache entry, in order.
                let nodes: Vec<_> = arrived.mem_cache.iter().copied().zip(1u32..).collect();
                let memory = physmem::open(&self.root, &arrived.mem_cache, &nodes)
                    .or_status(Status::NotPermitted)
                    .map_err(|fail| fail.fix("run as root"))?;
                self.memory.get_or_init(|| memory)
            }
        };
        let inner = physmem::Reader::new(&**memory, &blob.mem, blob.size).or_status(Status::TreeCorrupt)?;
        Ok(BlobReader { inner, hasher: blake3::Hasher::new(), blob })
    }
}

/// The failure of a verb that needs something to have arrived.
pub fn nothing_arrived() -> Fail {
    Fail::new(Status::NothingArrived, "nothing arrived: this kernel was not started by kho")
        .fix("kho load and kho exec in the previous kernel hand over; kho doctor says whether they can")
}

fn take_apart(tree: Vec<u8>) -> Result<Arrived, Fail> {
    let stays = "it stays reserved; the system runs on without it; kho dump shows it";
    let reader = Reader::new(&tree).or_status(Status::TreeCorrupt).map_err(|fail| fail.fix(stays))?;
    let handover = Handover::parse(&reader).map_err(|err| {
        let unknown = matches!(&err, kho::abi::AbiError::Problem(p) if matches!(p.kind, kho::abi::ProblemKind::RootVersion { .. }));
        let status = if unknown { Status::UnknownVersion } else { Status::TreeCorrupt };
        Fail::new(status, format!("the state tree that arrived is refused: {}", crate::exit::chain(&err))).fix(stays)
    })?;
    let blobs = handover
        .blobs
        .iter()
        .map(|blob| Blob {
            label: blob.label.as_str().to_owned(),
            path: match blob.content {
                Content::Files { path } => Some(PathBuf::from(OsStr::from_bytes(path))),
                Content::Raw => None,
            },
            skip_special: false,
            one_file_system: false,
            size: blob.size,
            mem: blob.ranges().collect(),
            blake3: blob.blake3,
            taken: blob.taken,
            arrived_hop: blob.arrived_hop,
        })
        .collect();
    let unknown =
        handover.unknown.iter().map(|u| (u.node.name().to_owned(), u.compatible.to_owned())).collect();
    Ok(Arrived {
        generation: handover.generation,
        hop: handover.hop,
        previous_release: handover.previous_release.to_owned(),
        time: handover.time,
        scratch: handover.scratch,
        mem_cache: handover.mem_cache.clone(),
        blobs,
        unknown,
        tree,
    })
}

/// The content of a blob as a stream that checks its hash on the way.
pub struct BlobReader<'a> {
    inner: physmem::Reader<'a, dyn PhysMemory>,
    hasher: blake3::Hasher,
    blob: &'a Blob,
}

impl BlobReader<'_> {
    /// Says whether the bytes read are the blob's: call it after the last one.
    ///
    /// # Errors
    ///
    /// [`Status::BlobCorrupt`].
    pub fn finish(&self) -> Result<(), Fail> {
        let found = self.hasher.finalize();
        if found.as_bytes() == &self.blob.blake3 {
            return Ok(());
        }
        Err(Fail::new(
            Status::BlobCorrupt,
            format!(
                "{}: its {:#x} bytes hash to {}, the tree says {}",
                self.blob.label,
                self.blob.size,
                found.to_hex(),
                blake3::Hash::from_bytes(self.blob.blake3).to_hex()
            ),
        )
        .fix("the memory was overwritten or is faulty; nothing was restored from it"))
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(buf.get(..n).unwrap_or_default());
        Ok(n)
    }
}
