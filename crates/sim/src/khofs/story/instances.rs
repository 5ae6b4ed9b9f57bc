//! Operations of root that mount and end instances.

use super::{File, Instance, NAMES, Story};
use crate::khofs::kernel::{Kernel, known};
use crate::khofs::module::khofs;
use crate::machine::range;
use crate::memory::Content;
use crate::module::machine::{store, with};
use crate::story::{Done, ensure};
use kho::PAGE_SIZE;
use kho_decide::errno::{EBADMSG, EBUSY, EINVAL, ENOENT};
use khofs_decide::options::{INODE, Options};
use khofs_decide::pack::{Attr, S_IFDIR};
use khofs_decide::state::Body;
use khofs_decide::system::System as _;

/// Request of a mount: the options, and the limits that they set in the model.
struct Asked {
    options: Options,
    pages: Option<u64>,
    inodes: Option<u64>,
}

impl Story {
    pub(super) fn any_name(&mut self) -> String {
        let which = usize::try_from(self.rng.below(NAMES.len() as u64)).unwrap_or(0);
        NAMES[which].to_owned()
    }

    /// Makes a mount's options as text.
    fn ask(&mut self, name: &str) -> Result<Asked, String> {
        let ram = Kernel::ram_pages();
        let (mut pages, mut inodes) = (None, None);
        let mut text = vec![("name", name.to_owned())];
        match self.rng.below(6) {
            0 => {
                let percent = 1 + self.rng.below(60);
                pages = Some(ram * percent / 100);
                text.push(("size", format!("{percent}%")));
            }
            1 => {
                let count = 20 + self.rng.below(9000);
                pages = Some(count);
                text.push((
                    "size",
                    (count * PAGE_SIZE - self.rng.below(4096)).to_string(),
                ));
            }
            2 => {
                let count = 1 + self.rng.below(64);
                pages = Some(count * 256);
                text.push(("size", format!("{count}M")));
            }
            _ => {}
        }
        if self.chance(3) {
            let count = 2 + self.rng.below(60);
            inodes = Some(count);
            text.push(("nr_inodes", count.to_string()));
        }
        if self.chance(2) {
            let which = usize::try_from(self.rng.below(4)).unwrap_or(0);
            text.push((
                "huge",
                ["never", "advise", "within_size", "always"][which].to_owned(),
            ));
        }
        let mut options = Options::default();
        for (key, value) in &text {
            let set = options.set(key, Some(value), ram);
            set.map_err(|e| format!("{key}={value}: {e:?}"))?;
        }
        Ok(Asked {
            options,
            pages,
            inodes,
        })
    }

    pub(super) fn mount(&mut self) -> Done {
        let name = self.any_name();
        let asked = self.ask(&name)?;
        let there = self.instances.get(&name).cloned();
        let frozen = self.active.is_some();
        let why = match &there {
            Some(i) if i.live => self.why_not_changed(&name, i, &asked),
            _ if frozen => Some(EBUSY),
            Some(i) if i.damaged => Some(EBADMSG),
            _ => None,
        };
        let result = khofs(|fs| fs.mount(&asked.options));
        let what = format!("the mount of {name} with {:?}", asked.options);
        if self.expect(&what, why, result)?.is_none() {
            return Ok(());
        }
        let ram = Kernel::ram_pages();
        self.tally.restored += u64::from(there.as_ref().is_some_and(|i| !i.live));
        let instance = self.instances.entry(name).or_insert_with(|| Instance {
            files: [(1, root())].into(),
            limit: ram / 2,
            inode_limit: ram / 2,
            last_ino: 1,
            ..Instance::default()
        });
        instance.live = true;
        instance.mounts += 1;
        instance.limit = asked.pages.unwrap_or(instance.limit);
        instance.inode_limit = asked.inodes.unwrap_or(instance.inode_limit);
        Ok(())
    }

    /// Error with which khofs has to refuse the limits in `asked` for a live instance; `None` if it has to accept them.
    fn why_not_changed(
        &self,
        name: &str,
        instance: &Instance,
        asked: &Asked,
    ) -> Option<kho_decide::errno::Errno> {
        let used = self.used(name);
        let inodes = space(instance).div_ceil(INODE);
        let less = |wanted: Option<u64>, used, limit| {
            wanted.is_some_and(|wanted| wanted < used && wanted < limit)
        };
        let other = |wanted: Option<u64>, limit| wanted.is_some_and(|wanted| wanted != limit);
        let changes =
            other(asked.pages, instance.limit) || other(asked.inodes, instance.inode_limit);
        if self.active.is_some() && changes {
            return Some(EBUSY);
        }
        let refused = less(asked.pages, used, instance.limit)
            || less(asked.inodes, inodes, instance.inode_limit);
        refused.then_some(EINVAL)
    }

    pub(super) fn unmount(&mut self) -> Done {
        let name = self.any_name();
        if let Some(instance) = self.instances.get_mut(&name).filter(|i| i.mounts > 0) {
            instance.mounts -= 1;
            khofs(|fs| {
                let id = fs.state.instances.iter().find(|i| i.name == name);
                let sb = id.and_then(|i| fs.supers.get_mut(&i.id));
                sb.into_iter().for_each(|sb| sb.mounts -= 1);
            });
        }
        Ok(())
    }

    pub(super) fn release(&mut self) -> Done {
        let name = self.any_name();
        let there = self.instances.get(&name);
        let why = match there {
            None => Some(ENOENT),
            _ if self.active.is_some() => Some(EBUSY),
            Some(i) if i.mounts > 0 => Some(EBUSY),
            Some(_) => None,
        };
        self.remember_mapped(&name);
        let result = khofs(|fs| fs.release(&name));
        if self.expect("a release", why, result)?.is_some() {
            self.instances.remove(&name);
            self.tally.released += 1;
        }
        Ok(())
    }

    /// Sometimes overwrites the tree of an instance that was not mounted yet.
    pub(super) fn damage(&mut self) -> Done {
        if !self.chance(3) {
            return Ok(());
        }
        let name = self.any_name();
        let page = khofs(|fs| {
            let found = fs.state.instances.iter().find(|i| i.name == name)?;
            match &found.body {
                Body::Arrived(arrived) => arrived.tree.first().copied(),
                _ => None,
            }
        });
        if let (Some(page), Some(instance)) = (page, self.instances.get_mut(&name)) {
            instance.damaged = true;
            with(|m| {
                let garbage = m.world.fresh();
                let start = page.start().get();
                let first = range(start, start + 1);
                m.world.memory.write(first, Content::start(garbage));
            });
        }
        Ok(())
    }

    /// Root asks kho.ko to release a page that arrived and belongs to khofs. kho.ko must refuse.
    pub(super) fn release_as_root(&mut self) -> Done {
        let name = self.any_name();
        let page = khofs(|fs| {
            let found = fs.state.instances.iter().find(|i| i.name == name)?;
            let set = match &found.body {
                Body::Arrived(arrived) => &arrived.data,
                _ => &found.unclaimed,
            };
            set.iter().next()
        });
        let Some(page) = page else { return Ok(()) };
        let result = store(|s| s.release(page));
        self.expect("a release by root", Some(EBUSY), result)
            .map(drop)
    }

    pub(super) fn reap(&mut self) -> Done {
        let before = with(|m| m.world.kernel.held.total());
        khofs(|fs| fs.reap());
        let after = with(|m| m.world.kernel.held.total());
        self.tally.given_back += (before - after) / PAGE_SIZE;
        // khofs keeps at most an eighth of the used pages, and 8 MiB.
        khofs(|fs| {
            for instance in &fs.state.instances {
                let (owned, free) = fs.state.chunks.totals(instance.id);
                let used = owned - free;
                ensure(free <= used / 8 + 2048, || {
                    format!("{} keeps {free} free pages beside {used}", instance.name)
                })?;
            }
            ensure(!fs.state.chunks.has_spare(), || "a chunk is spare".into())
        })?;
        ensure(!known(|pages| pages.reaping), || "memory waits".into())
    }

    pub(super) fn shortage(&mut self) -> Done {
        let short = with(|m| m.exhausted || m.largest < 10);
        let (largest, exhausted) = match self.rng.below(4) {
            _ if short => (10, false),
            0 => (10, true),
            1 | 2 => (u32::try_from(self.rng.below(9)).unwrap_or(0), false),
            _ => (10, false),
        };
        with(|m| (m.largest, m.exhausted) = (largest, exhausted));
        let entries = self.chance(2).then(|| self.rng.below(12));
        known(|pages| pages.entries = entries);
        Ok(())
    }
}

fn root() -> File {
    let attr = Attr {
        ino: 1,
        mode: S_IFDIR | 0o1777,
        ..Attr::default()
    };
    File {
        attr,
        ..File::default()
    }
}

/// Returns the inode space that an instance uses: for inodes, further names, and attributes, counted as in tmpfs.
pub(super) fn space(instance: &Instance) -> u64 {
    let names: usize = instance.files.values().map(|file| file.entries.len()).sum();
    let attributes = instance.files.values().flat_map(|file| &file.attributes);
    let bytes: usize = attributes.map(|(n, v)| 40 + n.len() + v.len()).sum();
    (names as u64 + 1) * INODE + bytes as u64
}
