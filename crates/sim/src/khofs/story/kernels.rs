//! Operations of root on the active phase and on kernels.

use super::{Page, Story};
use crate::khofs::kernel::run;
use crate::khofs::module::khofs;
use crate::machine::set;
use crate::memory::Content;
use crate::module::drivers::called;
use crate::module::hop;
use crate::module::machine::with;
use crate::sets::{minus, plus};
use crate::story::{Done, ensure};
use kho::RangeSet;
use kho_decide::errno::{EBUSY, EEXIST, EHWPOISON, ENOMEM, Errno};
use kho_decide::pages::range_of;
use khofs_decide::check::check;
use khofs_decide::extents::Extent;
use khofs_decide::pack::{Attr, S_IFDIR, S_IFREG, Writer};
use khofs_decide::state::Body;
use std::collections::BTreeMap;

impl Story {
    /// Begins the active phase. Returns whether the phase is active afterwards.
    pub(super) fn activate(&mut self) -> Result<bool, String> {
        let no_file = self.chance(8).then_some(EEXIST);
        if self.active.is_none() {
            called(|all| all.no_file = no_file);
        }
        let failed = with(|m| set(m.failed.iter().filter_map(|pfn| range_of(*pfn, 1))));
        let waiting = khofs(|fs| {
            let arrived = fs.state.instances.iter().filter_map(|i| match &i.body {
                Body::Arrived(arrived) => Some(arrived.data.clone()),
                _ => None,
            });
            arrived.fold(RangeSet::new(), |all, data| plus(&all, &data))
        });
        let why = match self.active {
            Some(_) => Some(EBUSY),
            None if minus(&failed, &waiting).total() != failed.total() => Some(EHWPOISON),
            None => no_file,
        };
        let before = with(|m| m.world.kernel.clone());
        match (self.phase.activate(), why) {
            (Ok(()), None) => {}
            (Err(error), Some(why)) if error == why => {
                self.tally.failed_activations += 1;
                let unchanged = before == with(|m| m.world.kernel.clone());
                ensure(unchanged, || "a failed activation changed something".into())?;
                return Ok(self.active.is_some());
            }
            // kho.ko had no memory for a tree.
            (Err(ENOMEM), _) => {
                self.tally.no_memory += 1;
                return Ok(false);
            }
            (other, why) => return Err(format!("an activation: {other:?}, not {why:?}")),
        }
        self.tally.activations += 1;
        self.active = Some(hop::name_sealed()?.reference.generation);
        khofs(|fs| fs.trees.iter().try_for_each(believed))?;
        Ok(true)
    }

    pub(super) fn abort(&mut self) -> Done {
        self.phase.abort();
        self.active = None;
        with(|m| m.world.part = None);
        ensure(!khofs(|fs| fs.state.frozen), || "it is frozen still".into())
    }

    /// Returns the pages that the next kernel must find: the content of each, by page frame.
    fn kept(&self) -> BTreeMap<u64, Content> {
        khofs(|fs| {
            let mut kept = BTreeMap::new();
            for (name, instance) in &self.instances {
                let id = fs.state.instances.iter().find(|i| i.name == *name);
                let Some(sb) = id.and_then(|i| fs.supers.get(&i.id)) else {
                    continue;
                };
                for (ino, file) in &instance.files {
                    let Some(inode) = sb.inodes.get(ino) else {
                        continue;
                    };
                    for (index, page) in &file.pages {
                        if let Page::Holds(content) = page
                            && let Some(pfn) = super::check::frame(inode, *index)
                        {
                            kept.insert(pfn, *content);
                        }
                    }
                }
            }
            kept
        })
    }

    pub(super) fn hop(&mut self) -> Done {
        if self.loaded && self.active.is_none() && !self.activate()? {
            return Ok(());
        }
        if !hop::load(&mut self.rng)? {
            return match self.loaded {
                true => self.abort(),
                false => self.stay(),
            };
        }
        let mut aborted = false;
        if self.loaded {
            match self.rng.below(16) {
                0..2 => {
                    self.abort()?;
                    aborted = true;
                }
                2 => {
                    self.abort()?;
                    if !self.activate()? || !hop::load(&mut self.rng)? {
                        return self.abort();
                    }
                }
                3..9 => self.overwrite()?,
                9 => self.mount()?,
                _ => {}
            }
            self.check_all()?;
        }
        let kept = self.kept();
        let sent = self.active.take().or_else(|| self.pending.take());
        let started = hop::start(&mut self.rng)?;
        self.tally.hops += 1;
        self.tally.without += u64::from(!self.loaded);
        if aborted {
            // After an abort the loaded image hands over no kernel's part.
            self.tally.aborted += 1;
            self.instances.clear();
            with(|m| m.world.part = None);
        } else {
            ensure(started.generation == sent, || {
                format!("{:?} was started, not {sent:?}", started.generation)
            })?;
        }
        with(|m| m.booted(Some(started.chain)));
        self.forget_kernel();
        self.pending = sent.filter(|_| !aborted);
        if !aborted {
            with(|m| {
                for (pfn, content) in &kept {
                    let page = run(*pfn, 1);
                    let good = m.world.memory.first_difference(page, *content);
                    ensure(
                        good.is_none() && m.world.kernel.reserved.contains_range(page),
                        || format!("page {pfn:#x} did not arrive"),
                    )?;
                }
                Ok::<_, String>(())
            })?;
        }
        match self.rng.below(8) {
            // This kernel has neither module: the loader hands the kernel's part on.
            0 if !aborted => Ok(()),
            // This kernel has kho.ko, which hands the instances on.
            1 if !aborted => self.pass_on(),
            _ => self.open(),
        }
    }

    /// Loads kho.ko without khofs. kho.ko hands the instances of khofs on.
    fn pass_on(&mut self) -> Done {
        self.open_kho()?;
        match self.phase.activate() {
            Ok(()) => {
                self.pending = Some(hop::name_sealed()?.reference.generation);
                Ok(())
            }
            Err(error) => Err(format!("nothing is handed on: {error:?}")),
        }
    }

    /// Releases every instance, and checks that all memory was returned.
    pub(super) fn give_all_back(&mut self) -> Done {
        if !self.loaded {
            self.stay()?;
        }
        self.abort()?;
        let names: Vec<String> = self.instances.keys().cloned().collect();
        for name in names {
            if let Some(instance) = self.instances.get_mut(&name) {
                instance.mounts = 0;
            }
            khofs(|fs| fs.supers.values_mut().for_each(|sb| sb.mounts = 0));
            self.remember_mapped(&name);
            let released = khofs(|fs| fs.release(&name));
            released.map_err(|e| format!("{name} is not released: {e:?}"))?;
            self.instances.remove(&name);
        }
        khofs(|fs| fs.reap());
        self.check_all()?;
        let mapped: Vec<u64> = with(|m| m.mapped.iter().copied().collect());
        self.looked_at.clear();
        mapped.into_iter().for_each(|pfn| with(|m| m.unmap(pfn)));
        khofs(|fs| fs.reap());
        with(|m| {
            let noted = set(m.noted.iter().map(|noted| noted.pages));
            let left = minus(&m.world.kernel.held, &noted);
            ensure(left.is_empty(), || format!("{left:?} is not given back"))
        })
    }

    /// Loads the modules that this kernel lacks. The story goes on in this kernel, because the next one has no room.
    fn stay(&mut self) -> Done {
        if self.phase.generation().is_some() {
            self.abort()?;
            return self.open_khofs();
        }
        self.open()
    }
}

/// Checks that the check trusts a tree, and does not trust the tree with a page more or less, or with a byte less.
fn believed((name, bytes, data): &(String, Vec<u8>, RangeSet)) -> Done {
    check(bytes, data).map_err(|e| format!("the tree of {name} is not believed: {e:?}"))?;
    let cut = bytes.get(..bytes.len() - 1).unwrap_or(&[]);
    ensure(check(cut, data).is_err(), || {
        "a tree that is cut is believed".into()
    })?;
    let Some(page) = data.iter().next_back() else {
        return Ok(());
    };
    let twice = named_twice(data).map_err(|e| format!("{e:?}"))?;
    ensure(check(&twice, data).is_err(), || {
        "a page of two files is believed".into()
    })?;
    let last = set([run(page.end().get() / kho::PAGE_SIZE - 1, 1)]);
    let next = set([run(page.end().get() / kho::PAGE_SIZE, 1)]);
    for other in [minus(data, &last), plus(data, &next)] {
        let error = check(bytes, &other).is_err();
        ensure(error, || "a tree with other pages is believed".into())?;
    }
    Ok(())
}

/// Makes the tree of two files. The first has all these pages, and the second one of them.
fn named_twice(data: &RangeSet) -> Result<Vec<u8>, Errno> {
    let none = || {
        std::iter::empty::<(&[u8], &[u8])>()
            .collect::<Vec<_>>()
            .into_iter()
    };
    let attr = |ino, mode| Attr {
        ino,
        mode,
        ..Attr::default()
    };
    let mut tree = Writer::new(9)?;
    tree.inode(&attr(1, S_IFDIR), b"", none())?;
    let mut index = 0;
    for (number, count) in [(1, u64::MAX), (2, 1)] {
        tree.entry(0, &[b'a', number], number.into())?;
        tree.inode(&attr(u64::from(number) + 1, S_IFREG), b"", none())?;
        let mut left = count;
        for range in data.iter() {
            let count = left.min(range.pages());
            let pfn = range.start().get() / kho::PAGE_SIZE;
            if count > 0 {
                tree.extent(Extent { index, pfn, count })?;
            }
            index += count;
            left -= count;
        }
        tree.extents_end()?;
    }
    tree.end()?;
    Ok(tree.finish())
}
