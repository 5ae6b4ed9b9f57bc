//! The part of khofs.ko around its decisions: it writes every instance into a tree, finds the instances that arrived,
//! fills a superblock, and ends an instance. The order of calls is that of `module/khofs/src`.

use crate::khofs::kernel::{
    Block, Context, Kernel, Node, is_reserved, known, put_claimed, read_arrived,
};
use crate::khofs::vfs::{Inode, Super};
use crate::module::machine::store;
use kho::abi::COMPATIBLE;
use kho::abi::khofs::{INSTANCE_V1, KHOFS_V1};
use kho::{PAGE_SIZE, RangeSet};
use kho_decide::errno::{EBADMSG, EBUSY, EHWPOISON, EINVAL, Errno};
use kho_decide::phase::Phase;
use kho_decide::session::Session;
use khofs_decide::check::{Summary, check};
use khofs_decide::content::Content;
use khofs_decide::draft::{Draft, Written};
use khofs_decide::handover::{self, Output as _, checksum};
use khofs_decide::options::{INODE, Options};
use khofs_decide::pack::{Attr, Reader, S_IFDIR};
use khofs_decide::pages::put;
use khofs_decide::restore::{self, Used};
use khofs_decide::state::{Arrived, Body, State};
use khofs_decide::system::{Cache as _, System as _};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Name and handle of khofs as a driver of kho.ko.
pub const PRODUCER: (&str, u64) = ("khofs", 1);

/// A tree that was written: name of the instance, bytes of the tree, and pages of the instance's files.
pub type Tree = (String, Vec<u8>, RangeSet);

/// khofs in the running kernel.
pub struct Khofs {
    /// State of the decisions of khofs.
    pub state: State<Kernel>,
    /// Superblocks of live instances, by the instance's number.
    pub supers: BTreeMap<u32, Super>,
    /// The trees of this activation.
    pub trees: Vec<Tree>,
    /// Numbers of instances that ended. Reaping returns their memory.
    pub ended: Vec<u32>,
}

thread_local! {
    static KHOFS: RefCell<Khofs> = const {
        RefCell::new(Khofs {
            state: State::new(),
            supers: BTreeMap::new(),
            trees: Vec::new(),
            ended: Vec::new(),
        })
    };
}

/// Reads or changes this thread's khofs.
pub fn khofs<T>(act: impl FnOnce(&mut Khofs) -> T) -> T {
    KHOFS.with_borrow_mut(act)
}

/// Starts khofs in another kernel, without any instance. `large` is whether the kernel has folios.
pub fn reset(large: bool) {
    khofs(|fs| {
        (fs.state, fs.supers) = (State::new(), BTreeMap::new());
        (fs.trees, fs.ended) = (Vec::new(), Vec::new());
    });
    known(|pages| *pages = Default::default());
    known(|pages| pages.large = large);
}

/// Writes every instance into a tree and freezes all instances, as a producer of kho.ko.
///
/// # Errors
///
/// If no memory is left, if memory failed, or if kho.ko returns an error. Then no instance is frozen.
pub fn serialize(session: &mut Session) -> Result<(), Errno> {
    let result = khofs(|fs| {
        fs.state.frozen = true;
        fs.state.epoch += 1;
        fs.write(&mut Context(session))
    });
    if result.is_err() {
        thaw();
    }
    result
}

/// Lets all instances change again.
pub fn thaw() {
    khofs(|fs| {
        fs.state.frozen = false;
        (fs.state.written, fs.trees) = (Vec::new(), Vec::new());
    });
}

impl Khofs {
    fn write(&mut self, ctx: &mut Context<'_>) -> Result<(), Errno> {
        ctx.text(COMPATIBLE, KHOFS_V1)?;
        let (mut blocks, mut trees) = (Vec::new(), Vec::new());
        for instance in &self.state.instances {
            match &instance.body {
                Body::New | Body::Ending => {}
                Body::Arrived(arrived) => {
                    let good = |range: kho::PhysRange| {
                        let (first, count) = (range.start().get() / PAGE_SIZE, range.pages());
                        Kernel::good_pages(first, count) == count
                    };
                    if !arrived.data.iter().all(good) {
                        return Err(EHWPOISON);
                    }
                    handover::write(ctx, instance, arrived)?;
                }
                Body::Live(id) => {
                    let sb = self.supers.get(id).ok_or(EINVAL)?;
                    let written = tree(instance.next_ino, self.state.epoch, sb)?;
                    let block = Block::with(&written.bytes)?;
                    let what = Arrived {
                        tree: vec![block.range()],
                        size: written.bytes.len(),
                        checksum: checksum(&written.bytes),
                        data: written.data,
                        inodes: instance.inodes,
                    };
                    blocks.push(block);
                    handover::write(ctx, instance, &what)?;
                    trees.push((instance.name.clone(), written.bytes, what.data));
                }
            }
        }
        (self.state.written, self.trees) = (blocks, trees);
        Ok(())
    }

    /// Notes the instances that the previous kernel left.
    ///
    /// # Errors
    ///
    /// If the node of an instance cannot be read, or the instance cannot be added or held.
    pub fn receive(&mut self, phase: &Phase<crate::module::machine::Sim>) -> Result<(), Errno> {
        for node in Node::all(INSTANCE_V1) {
            let found = handover::read(node)?;
            if !is_reserved(found.first) {
                continue;
            }
            self.state.add_found(found, node)?;
            phase.hold(PRODUCER.1, node.0)?;
        }
        Ok(())
    }

    /// Mounts an instance. Makes or fills it first unless it is live.
    ///
    /// # Errors
    ///
    /// The error of the decisions. Then nothing has changed.
    pub fn mount(&mut self, options: &Options) -> Result<(), Errno> {
        let id = self.state.mount(options)?;
        let result = match self.supers.contains_key(&id) {
            true => self.state.change(id, options).map_err(|no| no.errno()),
            false => self.fill(id, options),
        };
        self.state.mount_done();
        result?;
        self.supers.get_mut(&id).ok_or(EINVAL)?.mounts += 1;
        Ok(())
    }

    fn fill(&mut self, id: u32, options: &Options) -> Result<(), Errno> {
        let (bytes, data) = match &self.state.instance(id)?.body {
            Body::New => return self.begin(id, options),
            Body::Live(_) | Body::Ending => return Err(EINVAL),
            Body::Arrived(arrived) => {
                let mut bytes = Vec::new();
                for range in &arrived.tree {
                    let left = arrived.size - bytes.len();
                    bytes.extend(read_arrived(*range, left)?);
                }
                if bytes.len() != arrived.size || checksum(&bytes) != arrived.checksum {
                    return Err(EBADMSG);
                }
                (bytes, arrived.data.clone())
            }
        };
        let summary = check(&bytes, &data)?;
        let (sb, used) = restored(&bytes, &summary)?;
        let instance = self.state.instance(id)?;
        let body = std::mem::replace(&mut instance.body, Body::Live(id));
        instance.inodes = summary.links.len() as u64;
        instance.next_ino = summary.next_ino;
        instance.unclaimed = data;
        if let Body::Arrived(arrived) = body {
            for range in arrived.tree {
                if Kernel::claim(range).is_ok() {
                    put_claimed(range);
                }
            }
        }
        let pages = used.pages.saturating_add(summary.pages);
        (instance.used, instance.space) = (pages, used.space);
        instance.begin_with(options);
        self.supers.insert(id, sb);
        Ok(())
    }

    fn begin(&mut self, id: u32, options: &Options) -> Result<(), Errno> {
        let attr = Attr {
            ino: 1,
            mode: S_IFDIR | options.mode.unwrap_or(0o1777),
            uid: options.uid.unwrap_or(0),
            gid: options.gid.unwrap_or(0),
            nlink: 2,
            ..Attr::default()
        };
        let root = Inode {
            attr,
            ..Inode::default()
        };
        let instance = self.state.instance(id)?;
        instance.begin_with(options);
        (instance.inodes, instance.space) = (1, INODE);
        instance.body = Body::Live(id);
        let inodes = BTreeMap::from([(1, root)]);
        self.supers.insert(id, Super { inodes, mounts: 0 });
        Ok(())
    }

    /// Ends an instance, with all its files.
    ///
    /// # Errors
    ///
    /// `ENOENT` if no instance has the name; `EBUSY` if the instance is mounted, or in the active phase. Then nothing
    /// has changed.
    pub fn release(&mut self, name: &str) -> Result<(), Errno> {
        let (id, body) = self.state.end(name)?;
        if let Body::Live(sb) = body {
            if self.supers.get(&sb).is_some_and(|sb| sb.mounts > 0) {
                self.state.instance(id)?.body = body;
                return Err(EBUSY);
            }
            let inodes = self.supers.remove(&sb).map(|sb| sb.inodes);
            for (_, inode) in inodes.into_iter().flatten() {
                inode.evict(&mut self.state, id);
            }
        }
        if let Some(node) = self.state.instance(id)?.node {
            store(|s| s.release_held(PRODUCER.0, node.0))?;
        }
        self.state.instances.retain(|i| i.id != id);
        self.ended.push(id);
        Ok(())
    }

    /// Returns memory that khofs does not need to the system.
    pub fn reap(&mut self) {
        known(|pages| pages.reaping = false);
        while let Some(idle) = self.state.take_idle() {
            put::<Kernel>(&idle);
        }
    }
}

/// Makes the tree of an instance. Returns its bytes, and the pages of the instance's files.
fn tree(next_ino: u64, epoch: u64, sb: &Super) -> Result<Written, Errno> {
    let mut draft = Draft::new(next_ino)?;
    let write = |draft: &mut Draft, inode: &Inode| {
        inode.content.written.set((epoch, draft.next()));
        let pairs = inode.content.attributes.iter();
        let pairs = pairs.map(|a| (a.name(), a.value()));
        let extents = (&inode.cache).extents(&inode.content);
        draft.inode(
            &inode.attr,
            &inode.target,
            pairs,
            extents,
            Kernel::good_pages,
        )
    };
    let root = sb.inodes.get(&1).ok_or(EINVAL)?;
    write(&mut draft, root)?;
    let mut dirs = vec![(root, 0)];
    let mut next = 0;
    while let Some((dir, number)) = dirs.get(next).copied() {
        next += 1;
        for (name, ino) in &dir.entries {
            let child = sb.inodes.get(ino).ok_or(EINVAL)?;
            let (written, known) = child.content.written.get();
            if written == epoch {
                draft.entry(number, name, known)?;
                continue;
            }
            let fresh = draft.next();
            draft.entry(number, name, fresh)?;
            write(&mut draft, child)?;
            if child.is_dir() {
                dirs.push((child, fresh));
            }
        }
    }
    draft.finish()
}

/// Reads the inodes of a tree, and the totals of their use.
fn restored(bytes: &[u8], summary: &Summary) -> Result<(Super, Used), Errno> {
    let mut used = Used::default();
    let (mut reader, _) = Reader::new(bytes)?;
    let next = |reader: &mut Reader<'_>, used: &mut Used| {
        let made = restore::inode(reader, used)?;
        let (attr, target, content) = (made.attr, made.target.to_vec(), made.content);
        Ok::<_, Errno>(Inode {
            attr,
            target,
            content,
            ..Inode::default()
        })
    };
    let mut inodes = vec![next(&mut reader, &mut used)?];
    while let Some(entry) = reader.entry()? {
        let place = |number: u64| usize::try_from(number).map_err(|_| EBADMSG);
        let (parent, number) = (place(entry.parent)?, place(entry.inode)?);
        if number == inodes.len() {
            inodes.push(next(&mut reader, &mut used)?);
        } else {
            used.name();
        }
        let ino = inodes.get(number).ok_or(EBADMSG)?.attr.ino;
        let dir = inodes.get_mut(parent).ok_or(EBADMSG)?;
        dir.entries.insert(entry.name.to_vec(), ino);
    }
    for (inode, links) in inodes.iter_mut().zip(&summary.links) {
        inode.attr.nlink = *links;
    }
    let inodes = inodes.into_iter().map(|inode| (inode.attr.ino, inode));
    let sb = Super {
        inodes: inodes.collect(),
        mounts: 0,
    };
    Ok((sb, used))
}

/// Returns the content that khofs keeps for a new inode. `target` is the length of a symbolic link's target, in bytes.
pub fn content(target: usize) -> Content {
    Content {
        target_pages: khofs_decide::account::target_pages(target as u64),
        ..Content::default()
    }
}
