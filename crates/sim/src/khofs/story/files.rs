//! Operations of users that make, name and remove files.

use super::instances::space;
use super::{File, Instance, Story};
use crate::khofs::module::{Khofs, content, khofs};
use crate::khofs::vfs::Inode;
use crate::story::{Done, ensure};
use kho_decide::errno::{EEXIST, ENODATA, ENOSPC, Errno};
use khofs_decide::options::INODE;
use khofs_decide::pack::{Attr, S_IFDIR, S_IFLNK, S_IFREG};
use khofs_decide::xattr::Attribute;

/// Names of attributes. Only root sees one of them.
const ATTRIBUTES: [&[u8]; 4] = [b"user.a", b"user.b", b"security.x", b"trusted.c"];

/// Calls `act` with an inode, its instance and the state of khofs.
pub(super) fn at<T>(
    name: &str,
    ino: u64,
    act: impl FnOnce(
        &mut khofs_decide::state::State<crate::khofs::kernel::Kernel>,
        u32,
        &mut Inode,
    ) -> T,
) -> Result<T, String> {
    khofs(|fs| {
        let id = id_of(fs, name)?;
        let sb = fs.supers.get_mut(&id).ok_or("no superblock")?;
        let inode = sb.inodes.get_mut(&ino).ok_or("no inode")?;
        Ok(act(&mut fs.state, id, inode))
    })
}

fn id_of(fs: &Khofs, name: &str) -> Result<u32, String> {
    let found = fs.state.instances.iter().find(|i| i.name == name);
    found
        .map(|i| i.id)
        .ok_or_else(|| format!("no instance {name}"))
}

/// Changes an inode's links.
fn count_links(name: &str, ino: u64, by: i32) -> Done {
    at(name, ino, |_, _, inode| {
        inode.attr.nlink = inode.attr.nlink.saturating_add_signed(by);
    })
}

impl Story {
    /// Returns the name of an instance that is mounted.
    pub(super) fn any_live(&mut self) -> Option<String> {
        let live = self
            .instances
            .iter()
            .filter(|(_, i)| i.live && i.mounts > 0);
        let names: Vec<&String> = live.map(|(name, _)| name).collect();
        let which = usize::try_from(self.rng.below(names.len() as u64)).unwrap_or(0);
        names.get(which).map(|name| (*name).clone())
    }

    pub(super) fn any_file(
        &mut self,
        name: &str,
        wanted: impl Fn(u64, &File) -> bool,
    ) -> Option<u64> {
        let files = &self.instances.get(name)?.files;
        let all = files.iter().filter(|(ino, file)| wanted(**ino, file));
        let inos: Vec<u64> = all.map(|(ino, _)| *ino).collect();
        let which = usize::try_from(self.rng.below(inos.len() as u64)).unwrap_or(0);
        inos.get(which).copied()
    }

    pub(super) fn any_of_kind(&mut self, name: &str, kind: u32) -> Option<u64> {
        self.any_file(name, |_, file| file.attr.kind() == kind)
    }

    fn model(&mut self, name: &str) -> Result<&mut Instance, String> {
        let found = self.instances.get_mut(name);
        found.ok_or_else(|| format!("no instance {name}"))
    }

    pub(super) fn file(&mut self, name: &str, ino: u64) -> Result<&mut File, String> {
        let found = self.model(name)?.files.get_mut(&ino);
        found.ok_or_else(|| format!("no file {ino}"))
    }

    /// Returns the error with which khofs must refuse this much inode space; `None` if there is room.
    fn why_no_space(&mut self, name: &str, bytes: u64) -> Result<Option<Errno>, String> {
        let instance = self.model(name)?;
        let room = (instance.inode_limit * INODE).saturating_sub(space(instance));
        Ok((room < bytes).then_some(ENOSPC))
    }

    fn fresh_name(&mut self) -> Vec<u8> {
        let number = self.rng.draw();
        let mut name = format!("{number:x}").into_bytes();
        if self.chance(8) {
            name.resize(255, b'x');
        }
        name
    }

    fn any_attr(&mut self, kind: u32) -> Attr {
        let mut attr = Attr {
            mode: kind | u32::try_from(self.rng.below(0o10000)).unwrap_or(0),
            uid: u32::try_from(self.rng.below(70000)).unwrap_or(0),
            gid: u32::try_from(self.rng.below(u64::from(u32::MAX))).unwrap_or(0),
            ..Attr::default()
        };
        let times = [&mut attr.atime, &mut attr.mtime, &mut attr.ctime];
        for time in times {
            *time = self.rng.draw().cast_signed() >> self.rng.below(64);
        }
        for time in [&mut attr.atime_ns, &mut attr.mtime_ns, &mut attr.ctime_ns] {
            *time = u32::try_from(self.rng.below(1_000_000_000)).unwrap_or(0);
        }
        attr
    }

    pub(super) fn create(&mut self) -> Done {
        let Some(name) = self.any_live() else {
            return self.mount();
        };
        let Some(parent) = self.any_of_kind(&name, S_IFDIR) else {
            return Err("no directory".into());
        };
        let kind = match self.rng.below(10) {
            0..2 => S_IFDIR,
            2 => S_IFLNK,
            3 => 0o020_000,
            _ => S_IFREG,
        };
        let mut attr = self.any_attr(kind);
        let mut target = Vec::new();
        match kind {
            S_IFLNK => {
                let length = match self.rng.below(3) {
                    0 => 126 + self.rng.below(4),
                    _ => 1 + self.rng.below(300),
                };
                target = vec![b't'; usize::try_from(length).unwrap_or(1)];
                attr.size = length;
            }
            0o020_000 => attr.rdev = u32::try_from(self.rng.below(9999)).unwrap_or(0),
            _ => {}
        }
        let pages = u64::from(target.len() >= 128);
        let room = self.model(&name)?.limit.saturating_sub(self.used(&name));
        let why = match room < pages {
            true => Some(ENOSPC),
            false => self.why_no_space(&name, INODE)?,
        };
        let result = khofs(|fs| {
            let id = id_of(fs, &name).map_err(|_| ENODATA)?;
            fs.state.instance(id)?.new_inode(pages)
        });
        let Some(ino) = self.expect("a new inode", why, result)? else {
            return Ok(());
        };
        let instance = self.model(&name)?;
        ensure(ino > instance.last_ino, || {
            format!("inode {ino} is not new: {} was", instance.last_ino)
        })?;
        instance.last_ino = ino;
        attr.ino = ino;
        attr.nlink = if kind == S_IFDIR { 2 } else { 1 };
        let entry = self.fresh_name();
        khofs(|fs| {
            let id = id_of(fs, &name)?;
            let sb = fs.supers.get_mut(&id).ok_or("no superblock")?;
            let inode = Inode {
                attr,
                target: target.clone(),
                content: content(target.len()),
                ..Inode::default()
            };
            sb.inodes.insert(ino, inode);
            let dir = sb.inodes.get_mut(&parent).ok_or("no directory")?;
            dir.entries.insert(entry.clone(), ino);
            Ok::<_, String>(())
        })?;
        if kind == S_IFDIR {
            count_links(&name, parent, 1)?;
        }
        let file = File {
            attr,
            target,
            ..File::default()
        };
        self.model(&name)?.files.insert(ino, file);
        self.file(&name, parent)?.entries.insert(entry, ino);
        Ok(())
    }

    /// Gives a file a further name.
    pub(super) fn link(&mut self) -> Done {
        let Some(name) = self.any_live() else {
            return Ok(());
        };
        let parent = self.any_of_kind(&name, S_IFDIR);
        let file = self.any_file(&name, |_, file| file.attr.kind() != S_IFDIR);
        let (Some(parent), Some(ino)) = (parent, file) else {
            return Ok(());
        };
        let why = self.why_no_space(&name, INODE)?;
        let result = khofs(|fs| {
            let id = id_of(fs, &name).map_err(|_| ENODATA)?;
            fs.state.instance(id)?.take_space(INODE)
        });
        if self.expect("a name", why, result)?.is_none() {
            return Ok(());
        }
        let entry = self.fresh_name();
        at(&name, parent, |_, _, dir| {
            dir.entries.insert(entry.clone(), ino)
        })?;
        count_links(&name, ino, 1)?;
        self.file(&name, parent)?.entries.insert(entry, ino);
        Ok(())
    }

    /// Returns a directory, and a name in it.
    fn any_entry(&mut self, name: &str) -> Option<(u64, Vec<u8>, u64)> {
        let dir = self.any_file(name, |_, file| !file.entries.is_empty())?;
        let entries = &self.instances.get(name)?.files.get(&dir)?.entries;
        let which = usize::try_from(self.rng.below(entries.len() as u64)).unwrap_or(0);
        let (entry, ino) = entries.iter().nth(which)?;
        Some((dir, entry.clone(), *ino))
    }

    /// Removes a name, and with the last name the inode.
    pub(super) fn unlink(&mut self) -> Done {
        let Some(name) = self.any_live() else {
            return Ok(());
        };
        let Some((dir, entry, ino)) = self.any_entry(&name) else {
            return Ok(());
        };
        let file = self.file(&name, ino)?;
        let is_dir = file.attr.kind() == S_IFDIR;
        if !file.entries.is_empty() {
            return Ok(());
        }
        let files = self.model(&name)?.files.values();
        let names = files
            .flat_map(|f| f.entries.values())
            .filter(|n| **n == ino);
        let last = names.count() == 1;
        at(&name, dir, |_, _, dir| dir.entries.remove(&entry))?;
        self.file(&name, dir)?.entries.remove(&entry);
        if is_dir {
            count_links(&name, dir, -1)?;
        }
        if !last {
            count_links(&name, ino, -1)?;
            return khofs(|fs| {
                let id = id_of(fs, &name)?;
                let instance = fs.state.instance(id).map_err(|e| format!("{e:?}"))?;
                instance.give_space(INODE);
                Ok(())
            });
        }
        self.remember_mapped_of(&name, ino, 0, u64::MAX);
        self.model(&name)?.files.remove(&ino);
        khofs(|fs| {
            let id = id_of(fs, &name)?;
            let sb = fs.supers.get_mut(&id).ok_or("no superblock")?;
            let inode = sb.inodes.remove(&ino).ok_or("no inode")?;
            inode.evict(&mut fs.state, id);
            Ok(())
        })
    }

    pub(super) fn rename(&mut self) -> Done {
        let Some(name) = self.any_live() else {
            return Ok(());
        };
        let found = self.any_entry(&name).zip(self.any_of_kind(&name, S_IFDIR));
        let Some(((from, entry, ino), to)) = found else {
            return Ok(());
        };
        // The story does not move directories, so that no directory gets below itself.
        let is_dir = self.file(&name, ino)?.attr.kind() == S_IFDIR;
        let to = if is_dir { from } else { to };
        let fresh = self.fresh_name();
        at(&name, from, |_, _, dir| dir.entries.remove(&entry))?;
        at(&name, to, |_, _, dir| {
            dir.entries.insert(fresh.clone(), ino)
        })?;
        self.file(&name, from)?.entries.remove(&entry);
        self.file(&name, to)?.entries.insert(fresh, ino);
        Ok(())
    }

    pub(super) fn set_attribute(&mut self) -> Done {
        let Some(name) = self.any_live() else {
            return Ok(());
        };
        let Some(ino) = self.any_file(&name, |_, _| true) else {
            return Ok(());
        };
        let which = usize::try_from(self.rng.below(4)).unwrap_or(0);
        let key = ATTRIBUTES[which];
        let flags = i32::try_from(self.rng.below(3)).unwrap_or(0);
        let length = usize::try_from(self.rng.below(900)).unwrap_or(0);
        let value = (!self.chance(4)).then(|| vec![self.rng.draw().to_le_bytes()[0]; length]);
        let there = self.file(&name, ino)?.attributes.contains_key(key);
        let bytes = value.as_ref().map_or(0, |v| 40 + key.len() + v.len());
        let mut why = match (there, &value) {
            (true, Some(_)) if flags & 1 != 0 => Some(EEXIST),
            (false, Some(_)) if flags & 2 != 0 => Some(ENODATA),
            (false, None) => Some(ENODATA),
            _ => None,
        };
        if value.is_some() {
            why = self.why_no_space(&name, bytes as u64)?.or(why);
        }
        let new = value.as_deref().map(|value| Attribute::new(key, value));
        let new = new.transpose().map_err(|e| format!("{e:?}"))?;
        let result = at(&name, ino, |state, id, inode| {
            state.set_attribute(id, &mut inode.content, key, new, flags)
        })?;
        let Some(old) = self.expect("an attribute", why, result)? else {
            return Ok(());
        };
        let attributes = &mut self.file(&name, ino)?.attributes;
        let before = match value {
            Some(value) => attributes.insert(key.to_vec(), value),
            None => attributes.remove(key),
        };
        ensure(old.map(|old| old.value().to_vec()) == before, || {
            "another value was there".into()
        })
    }

    pub(super) fn change_attr(&mut self) -> Done {
        let Some(name) = self.any_live() else {
            return Ok(());
        };
        let Some(ino) = self.any_file(&name, |ino, _| ino != 1) else {
            return Ok(());
        };
        let old = self.file(&name, ino)?.attr;
        let attr = Attr {
            ino,
            size: old.size,
            rdev: old.rdev,
            ..self.any_attr(old.kind())
        };
        self.file(&name, ino)?.attr = attr;
        at(&name, ino, |_, _, inode| {
            inode.attr = Attr {
                nlink: inode.attr.nlink,
                ..attr
            };
        })
    }
}
