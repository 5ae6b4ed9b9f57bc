//! Instances and their limits.

use crate::chunks::Chunks;
use crate::options::{Huge, Options};
use crate::supply::Scarcity;
use crate::system::System;
use alloc::string::String;
use alloc::vec::Vec;
use kho::{PAGE_SIZE, PhysRange, RangeSet};
use kho_decide::errno::{EBUSY, EEXIST, ENOENT, ENOMEM, Errno};

/// Tree and pages of an instance that arrived and was not mounted yet.
#[derive(Debug)]
pub struct Arrived {
    /// Physical ranges of the tree, in the order of its bytes.
    pub tree: Vec<PhysRange>,
    /// Length of the tree in bytes.
    pub size: usize,
    /// CRC-32 of the tree.
    pub checksum: u32,
    /// Pages of the files.
    pub data: RangeSet,
    /// Number of inodes, for the status.
    pub inodes: u64,
}

/// An instance that arrived.
#[derive(Debug)]
pub struct Found {
    /// Name of the instance.
    pub name: String,
    /// Maximum number of used pages.
    pub limit: u64,
    /// Maximum number of used inodes.
    pub inode_limit: u64,
    /// Tree and pages of the instance.
    pub arrived: Arrived,
    /// The first page of its tree, which stays reserved until the instance is mounted or released.
    pub first: u64,
}

/// State of the files of an instance.
pub enum Body<S: System> {
    /// A new instance, which has no files yet.
    New,
    /// The instance arrived, and all of its memory is still reserved.
    Arrived(Arrived),
    /// The instance has files. It has an active reference on the superblock.
    Live(S::Super),
    /// khofs is releasing the instance, or had no memory to return the rest of it.
    Ending,
}

/// An instance: a file system with a name.
pub struct Instance<S: System> {
    /// Number of the instance, not 0.
    pub id: u32,
    /// Name of the instance.
    pub name: String,
    /// Maximum number of used pages.
    pub limit: u64,
    /// Maximum number of used inodes. It limits the inode space, see [`crate::account`].
    pub inode_limit: u64,
    /// Number of pages in files, and for long targets of symbolic links.
    pub used: u64,
    /// Number of inodes.
    pub inodes: u64,
    /// Used inode space, in bytes.
    pub space: u64,
    /// Number of the next inode.
    pub next_ino: u64,
    /// State of the instance's files.
    pub body: Body<S>,
    /// Node as which the instance arrived. khofs holds this node. `None` if the instance did not arrive.
    pub node: Option<S::Node>,
    /// Pages of live files that are still reserved.
    pub unclaimed: RangeSet,
    /// Condition on which new memory is a folio of 2 MiB.
    pub huge: Huge,
}

/// All state that the lock protects.
pub struct State<S: System> {
    /// All instances.
    pub instances: Vec<Instance<S>>,
    /// Memory of the instances.
    pub chunks: Chunks,
    /// Numbers of contiguous pages that the system does not have at present.
    pub scarcity: Scarcity,
    /// Whether the active phase forbids changes of names and sizes.
    pub frozen: bool,
    /// Number of the activation.
    pub epoch: u64,
    /// Number of pages that the instances used when they were last serialized, or when they arrived.
    pub serialized_pages: u64,
    /// Trees that were written for this activation.
    pub written: Vec<S::Block>,
    last_id: u32,
}

impl<S: System> State<S> {
    /// Makes a state without instances.
    pub const fn new() -> Self {
        Self {
            instances: Vec::new(),
            chunks: Chunks::new(),
            scarcity: Scarcity::none(),
            frozen: false,
            epoch: 0,
            serialized_pages: 0,
            written: Vec::new(),
            last_id: 0,
        }
    }

    /// The instance with this number.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is no such instance.
    pub fn instance(&mut self, id: u32) -> Result<&mut Instance<S>, Errno> {
        self.instances.iter_mut().find(|i| i.id == id).ok_or(ENOENT)
    }

    /// Adds an instance.
    ///
    /// # Errors
    ///
    /// [`EEXIST`] if the name is taken; no memory.
    pub fn add(&mut self, name: String, body: Body<S>) -> Result<&mut Instance<S>, Errno> {
        if self.instances.iter().any(|i| i.name == name) {
            return Err(EEXIST);
        }
        self.instances.try_reserve(1)?;
        self.last_id = self.last_id.checked_add(1).ok_or(ENOMEM)?;
        let ram = S::ram_pages();
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
            node: None,
            unclaimed: RangeSet::new(),
            huge: Huge::default(),
        };
        self.instances.push(instance);
        self.instances.last_mut().ok_or(ENOMEM)
    }

    /// Adds an instance that arrived as `node`.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn add_found(&mut self, found: Found, node: S::Node) -> Result<&mut Instance<S>, Errno> {
        let used = found.arrived.data.total() / PAGE_SIZE;
        let instance = self.add(found.name, Body::Arrived(found.arrived))?;
        instance.node = Some(node);
        instance.limit = found.limit;
        instance.inode_limit = found.inode_limit;
        instance.used = used;
        self.serialized_pages = self.serialized_pages.saturating_add(used);
        self.instances.last_mut().ok_or(ENOENT)
    }

    /// Returns the number of the instance that a mount names, and makes that instance if it does not exist.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] in the active phase if the instance is not live; [`EBUSY`] if the instance is ending; no memory.
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
        match instance.body {
            Body::Ending => Err(EBUSY),
            _ => Ok(instance.id),
        }
    }

    /// Records that the mount that [`mount`](Self::mount) began has ended or failed.
    pub fn mount_done(&mut self) {
        self.instances.retain(|i| !matches!(i.body, Body::New));
    }

    /// Begins to end an instance. Returns its number and the former state of its files.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if no instance has that name; [`EBUSY`] in the active phase.
    pub fn end(&mut self, name: &str) -> Result<(u32, Body<S>), Errno> {
        let frozen = self.frozen;
        let instance = self.instances.iter_mut().find(|i| i.name == name);
        let instance = instance.ok_or(ENOENT)?;
        if frozen {
            return Err(EBUSY);
        }
        let body = core::mem::replace(&mut instance.body, Body::Ending);
        Ok((instance.id, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    fn arrived() -> Body<Fake> {
        Body::Arrived(Arrived {
            tree: Vec::new(),
            size: 0,
            checksum: 0,
            data: RangeSet::new(),
            inodes: 1,
        })
    }

    fn named(name: &str) -> Options {
        let mut options = Options::default();
        options.set("name", Some(name), 0).unwrap();
        options
    }

    #[test]
    fn an_instance_that_ends_is_not_mounted() {
        let mut state = State::new();
        state.add("a".into(), arrived()).unwrap();
        assert_eq!(state.end("b").err(), Some(ENOENT));
        let id = state.mount(&named("a")).unwrap();
        let (ending, body) = state.end("a").unwrap();
        assert_eq!(ending, id);
        assert!(matches!(body, Body::Arrived(_)));
        assert_eq!(state.mount(&named("a")), Err(EBUSY));
        // An instance that was made for a failed mount is removed; an instance that is ending is not.
        state.mount(&named("b")).unwrap();
        state.mount_done();
        assert_eq!(state.instances.len(), 1);
        // Another attempt finds the instance.
        assert!(matches!(state.end("a").unwrap().1, Body::Ending));
    }

    #[test]
    fn in_the_active_phase_no_instance_comes_or_goes() {
        let mut state = State::new();
        state.add("a".into(), arrived()).unwrap();
        state.frozen = true;
        assert_eq!(state.end("a").err(), Some(EBUSY));
        assert_eq!(state.mount(&named("a")), Err(EBUSY));
        assert_eq!(state.mount(&named("b")), Err(EBUSY));
        assert!(matches!(state.instances[0].body, Body::Arrived(_)));
        assert_eq!(state.instances.len(), 1);
    }
}
