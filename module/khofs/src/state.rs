//! Instances and their limits.

use crate::boundary::handover::release;
use crate::boundary::kernel::{self, Block};
use crate::boundary::sync::Lock;
use crate::boundary::vfs::Super;
use crate::chunks::Chunks;
use crate::errno::{EBUSY, EEXIST, ENOENT, ENOMEM, Errno};
use crate::options::{Huge, Options};
use alloc::string::String;
use alloc::vec::Vec;
use kho::{PhysRange, RangeSet};

/// Everything.
pub static STATE: Lock<State, 0> = Lock::new(State::new());

/// What arrived of an instance that was not mounted yet.
pub struct Arrived {
    /// Where its tree is written down.
    pub tree: Vec<PhysRange>,
    /// Bytes of that.
    pub size: usize,
    /// CRC-32 of that.
    pub checksum: u32,
    /// The pages of its files.
    pub data: RangeSet,
    /// Number of inodes, for the status.
    pub inodes: u64,
}

/// What an instance consists of.
pub enum Body {
    /// Nothing yet.
    New,
    /// It arrived, and all of it is still reserved.
    Arrived(Arrived),
    /// Its files are there.
    Live(Super),
}

/// A file system that has a name.
pub struct Instance {
    /// Its number, not 0.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Pages that may be used.
    pub limit: u64,
    /// Inodes that may be used; it is inode space that is limited by this, see [`crate::account`].
    pub inode_limit: u64,
    /// Pages in files, and of long symbolic links.
    pub used: u64,
    /// Inodes.
    pub inodes: u64,
    /// Bytes of inode space that are used.
    pub space: u64,
    /// Number of the next inode.
    pub next_ino: u64,
    /// What there is of it.
    pub body: Body,
    /// Mounts under way.
    pub mounting: u32,
    /// Pages of live files that are still reserved.
    pub unclaimed: RangeSet,
    /// When new memory is a folio of 2 MiB.
    pub huge: Huge,
}

/// Everything that the lock is around.
pub struct State {
    /// All instances.
    pub instances: Vec<Instance>,
    /// Their memory.
    pub chunks: Chunks,
    /// Whether names and sizes must not change.
    pub frozen: bool,
    /// Number of the activation.
    pub epoch: u64,
    /// Trees that were written down for this activation.
    pub written: Vec<Block>,
    last_id: u32,
}

impl State {
    /// No instance.
    pub const fn new() -> Self {
        Self {
            instances: Vec::new(),
            chunks: Chunks::new(),
            frozen: false,
            epoch: 0,
            written: Vec::new(),
            last_id: 0,
        }
    }

    /// The instance with this number.
    ///
    /// # Errors
    ///
    /// [`ENOENT`].
    pub fn instance(&mut self, id: u32) -> Result<&mut Instance, Errno> {
        self.instances.iter_mut().find(|i| i.id == id).ok_or(ENOENT)
    }

    /// Adds an instance.
    ///
    /// # Errors
    ///
    /// [`EEXIST`] for a name that is taken; no memory.
    pub fn add(&mut self, name: String, body: Body) -> Result<&mut Instance, Errno> {
        if self.instances.iter().any(|i| i.name == name) {
            return Err(EEXIST);
        }
        self.instances.try_reserve(1)?;
        self.last_id = self.last_id.checked_add(1).ok_or(ENOMEM)?;
        let ram = kernel::ram_pages();
        let instance = Instance {
            id: self.last_id,
            name,
            limit: ram / 2,
            inode_limit: ram / 2,
            used: 0,
            inodes: 0,
            space: 0,
            next_ino: 2, // 1 is the root
            body,
            mounting: 0,
            unclaimed: RangeSet::new(),
            huge: Huge::default(),
        };
        self.instances.push(instance);
        self.instances.last_mut().ok_or(ENOMEM)
    }

    /// The number of the instance that a mount wants, which is made unless it exists.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] in the active phase when it is not live; no memory.
    pub fn mount(&mut self, options: &Options) -> Result<u32, Errno> {
        let frozen = self.frozen;
        let at = self.instances.iter().position(|i| i.name == options.name());
        let live = at
            .and_then(|at| self.instances.get(at))
            .is_some_and(|i| matches!(i.body, Body::Live(_)));
        if frozen && !live {
            return Err(EBUSY);
        }
        let instance = match at {
            Some(at) => self.instances.get_mut(at).ok_or(ENOENT)?,
            None => {
                let mut name = String::new();
                name.try_reserve_exact(options.name().len())?;
                name.push_str(options.name());
                self.add(name, Body::New)?
            }
        };
        instance.mounting = instance.mounting.saturating_add(1);
        Ok(instance.id)
    }

    /// The mount that [`mount`](Self::mount) began is done or has failed.
    pub fn mount_done(&mut self, id: u32) {
        if let Ok(instance) = self.instance(id) {
            instance.mounting = instance.mounting.saturating_sub(1);
        }
        self.tidy();
    }

    /// A superblock is gone: the instance was released, or could not be filled.
    pub fn super_gone(&mut self, id: u32) {
        if let Ok(instance) = self.instance(id)
            && matches!(instance.body, Body::Live(_))
        {
            instance.body = Body::New;
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        self.instances
            .retain(|i| !(matches!(i.body, Body::New) && i.mounting == 0));
    }

    /// Takes an instance that arrived and was never mounted off the list.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] for no such name; [`EBUSY`] when it is live or being mounted, or in the active phase.
    pub fn forget_arrived(&mut self, name: &str) -> Result<Arrived, Errno> {
        let frozen = self.frozen;
        let at = self
            .instances
            .iter()
            .position(|i| i.name == name)
            .ok_or(ENOENT)?;
        let instance = self.instances.get(at).ok_or(ENOENT)?;
        if frozen || instance.mounting != 0 || !matches!(instance.body, Body::Arrived(_)) {
            return Err(EBUSY);
        }
        match self.instances.swap_remove(at).body {
            Body::Arrived(arrived) => Ok(arrived),
            _ => Err(EBUSY),
        }
    }
}

/// Ends an instance, with all its files.
///
/// # Errors
///
/// [`ENOENT`] for no such name; [`EBUSY`] when it is mounted, being mounted, or in the active phase.
pub fn release_instance(name: &str) -> Result<(), Errno> {
    let live = {
        let mut state = STATE.lock();
        let frozen = state.frozen;
        let instance = state.instances.iter_mut().find(|i| i.name == name);
        let instance = instance.ok_or(ENOENT)?;
        match instance.body {
            Body::Live(sb) if !frozen && instance.mounting == 0 => Some(sb),
            Body::Live(_) => return Err(EBUSY),
            _ => None,
        }
    };
    if let Some(sb) = live {
        return sb.let_go();
    }
    let arrived = STATE.lock().forget_arrived(name)?;
    release(&RangeSet::from_ranges(arrived.tree.iter().copied())?);
    release(&arrived.data);
    Ok(())
}
