//! Limits of an instance, and its use of them, counted as in tmpfs (`mm/shmem.c` since 6.6): pages, and *inode space*,
//! in bytes, for all other memory that the kernel keeps for the instance's users.
//!
//! An instance may use more than its limits, if it arrived with that use or an older khofs did not count all of it.
//! Such an instance gets nothing more until users remove enough of its files.

use crate::content::Content;
use crate::options::{INODE, Options};
use crate::state::{Instance, State};
use crate::system::System;
use crate::xattr::Attribute;
use core::fmt;
use kho::PAGE_SIZE;
use kho_decide::errno::{EBUSY, EINVAL, ENOENT, ENOSPC, Errno};

/// Longest target of a symbolic link that takes no page, in bytes with the NUL (`SHORT_SYMLINK_LEN`).
const SHORT_TARGET: u64 = 128;

/// Number of pages that count for the target of a symbolic link with `len` bytes.
pub fn target_pages(len: u64) -> u64 {
    u64::from(len >= SHORT_TARGET)
}

/// Reason why khofs refused a remount, or a mount of an existing instance. Nothing has changed then.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The remount names another instance.
    Name,
    /// The limit has fewer pages than are used: limit, used.
    Pages(u64, u64),
    /// The limit has fewer inodes than are used: limit, used.
    Inodes(u64, u64),
    /// The limits differ from the present ones in the active phase, after khofs serialized them.
    Active,
    /// The instance no longer exists.
    Gone,
}

impl Refused {
    /// The error number.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Gone => ENOENT,
            Self::Active => EBUSY,
            _ => EINVAL,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |pages: u64| pages.saturating_mul(PAGE_SIZE / 1024);
        match self {
            Self::Name => write!(
                f,
                "name= is of another instance, and a remount cannot change it"
            ),
            Self::Pages(wanted, used) => write!(
                f,
                "size= asks for {} KiB, and the instance uses {} KiB: remove files first, or leave size= out",
                kib(*wanted),
                kib(*used)
            ),
            Self::Inodes(wanted, used) => write!(
                f,
                "nr_inodes= asks for {wanted}, and the instance uses {used}: remove files first, or leave nr_inodes= out"
            ),
            Self::Active => write!(
                f,
                "size= and nr_inodes= cannot change in the active phase: leave it first (kho abort), or leave them out"
            ),
            Self::Gone => write!(f, "the instance was released meanwhile"),
        }
    }
}

impl<S: System> Instance<S> {
    /// Maximum of inode space, in bytes.
    fn space_limit(&self) -> u64 {
        self.inode_limit.saturating_mul(INODE)
    }

    /// Whether the instance uses more than its limits.
    pub fn is_over(&self) -> bool {
        self.used > self.limit || self.space > self.space_limit()
    }

    /// Number of used inodes: inode space in units of an inode, rounded up.
    pub fn inodes_used(&self) -> u64 {
        self.space.div_ceil(INODE)
    }

    /// Checks that the instance may use `pages` more pages.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`] if the limit does not allow it.
    pub fn room(&self, pages: u64) -> Result<(), Errno> {
        let left = self.limit.saturating_sub(self.used);
        if left < pages { Err(ENOSPC) } else { Ok(()) }
    }

    /// Takes inode space.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`] if the limit does not allow it.
    pub fn take_space(&mut self, bytes: u64) -> Result<(), Errno> {
        let left = self.space_limit().saturating_sub(self.space);
        if left < bytes {
            return Err(ENOSPC);
        }
        self.space = self.space.saturating_add(bytes);
        Ok(())
    }

    /// Returns inode space to the limit.
    pub fn give_space(&mut self, bytes: u64) {
        self.space = self.space.saturating_sub(bytes);
    }

    /// Counts a new inode, with `pages` for its target. Returns its number.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`] if the limit does not allow it.
    pub fn new_inode(&mut self, pages: u64) -> Result<u64, Errno> {
        let ino = self.next_ino;
        let next = ino.checked_add(1).ok_or(ENOSPC)?;
        self.room(pages)?;
        self.take_space(INODE)?;
        self.used = self.used.saturating_add(pages);
        self.next_ino = next;
        self.inodes = self.inodes.saturating_add(1);
        Ok(ino)
    }

    /// Subtracts a removed inode, with its attributes and its target.
    pub fn inode_gone(&mut self, content: &Content) {
        self.inodes = self.inodes.saturating_sub(1);
        self.used = self.used.saturating_sub(content.target_pages);
        self.give_space(INODE.saturating_add(content.attributes.space()));
    }

    /// Sets the limits of a first mount, even if more is used: no option may keep users from files that arrived.
    pub fn begin_with(&mut self, options: &Options) {
        self.limit = options.pages.unwrap_or(self.limit);
        self.inode_limit = options.inodes.unwrap_or(self.inode_limit);
        self.huge = options.huge.unwrap_or(self.huge);
    }

    /// Sets limits of an existing instance.
    fn change(&mut self, options: &Options) -> Result<(), Refused> {
        let (pages, inodes) = (options.pages, options.inodes);
        if options.name.as_ref().is_some_and(|n| *n != self.name) {
            return Err(Refused::Name);
        }
        if let Some(wanted) = pages.filter(|w| *w < self.used && *w < self.limit) {
            return Err(Refused::Pages(wanted, self.used));
        }
        let used = self.inodes_used();
        if let Some(wanted) = inodes.filter(|w| *w < used && *w < self.inode_limit) {
            return Err(Refused::Inodes(wanted, used));
        }
        self.begin_with(options);
        Ok(())
    }
}

impl<S: System> State<S> {
    /// Number of pages that all instances use.
    pub fn pages_used(&self) -> u64 {
        let used = self.instances.iter().map(|instance| instance.used);
        used.fold(0, u64::saturating_add)
    }

    /// Checks that an instance may use `pages` more pages: its limit allows it, and a late load that is armed has room.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`] if one of them does not allow it; [`ENOENT`] if there is no such instance.
    pub fn room(&mut self, id: u32, pages: u64) -> Result<(), Errno> {
        self.instance(id)?.room(pages)?;
        let Some(more) = S::more_pages() else {
            return Ok(());
        };
        let most = self.serialized_pages.saturating_add(more);
        if pages > 0 && self.pages_used().saturating_add(pages) > most {
            return Err(ENOSPC);
        }
        Ok(())
    }

    /// Sets limits of an existing instance.
    ///
    /// # Errors
    ///
    /// [`Refused`] if a limit is lowered below the present use; in the active phase, if a limit changes.
    pub fn change(&mut self, id: u32, options: &Options) -> Result<(), Refused> {
        let frozen = self.frozen;
        let instance = self.instance(id).map_err(|_| Refused::Gone)?;
        let other = |wanted: Option<u64>, limit| wanted.is_some_and(|wanted| wanted != limit);
        let changes =
            other(options.pages, instance.limit) || other(options.inodes, instance.inode_limit);
        if frozen && changes {
            return Err(Refused::Active);
        }
        instance.change(options)
    }

    /// Sets an attribute of a file (`Some`, of that name) or removes it; `flags` are those of setxattr(2). Returns the
    /// former attribute. A new value needs room beside the old one, as on tmpfs.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`] if the limit does not allow it; the errors of [`Attributes::set`](crate::xattr::Attributes::set). In
    /// each case nothing has changed.
    pub fn set_attribute(
        &mut self,
        id: u32,
        content: &mut Content,
        name: &[u8],
        new: Option<Attribute>,
        flags: i32,
    ) -> Result<Option<Attribute>, Errno> {
        let instance = self.instance(id)?;
        let taken = new.as_ref().map_or(0, Attribute::space);
        instance.take_space(taken)?;
        let result = content.attributes.set(name, new, flags);
        instance.give_space(match &result {
            Ok(old) => old.as_ref().map_or(0, Attribute::space),
            Err(_) => taken,
        });
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, with as with_machine};
    use crate::state::Body;
    use alloc::string::String;
    use kho_decide::errno::{EEXIST, ENODATA};
    use std::format;

    fn options(text: &[(&str, &str)]) -> Options {
        let mut options = Options::default();
        for (key, value) in text {
            options.set(key, Some(value), 1000).unwrap();
        }
        options
    }

    fn with(pages: u64, inodes: u64) -> State<Fake> {
        let mut state = State::new();
        let instance = state.add(String::from("vm"), Body::New).unwrap();
        (instance.limit, instance.inode_limit) = (pages, inodes);
        state
    }

    #[test]
    fn an_armed_load_bounds_all_instances_together() {
        let mut state = with(1000, 100);
        let id = state.instances[0].id;
        state.add(String::from("db"), Body::New).unwrap().limit = 1000;
        state.instances[0].used = 10;
        state.instances[1].used = 20;
        assert_eq!(state.room(id, 990), Ok(()));
        state.serialized_pages = state.pages_used();
        with_machine(|machine| machine.more_pages = Some(5));
        assert_eq!(state.room(id, 5), Ok(()));
        assert_eq!(state.room(id, 6), Err(ENOSPC));
        // Pages that another instance gave back count.
        state.instances[1].used = 12;
        assert_eq!(state.room(id, 13), Ok(()));
        assert_eq!(state.room(id, 14), Err(ENOSPC));
        // An instance that is over the bound may remove and overwrite.
        state.instances[1].used = 50;
        assert_eq!(state.room(id, 0), Ok(()));
        with_machine(|machine| machine.more_pages = None);
        assert_eq!(state.room(id, 990), Ok(()));
    }

    #[test]
    fn inodes_names_and_attributes_share_the_inode_space() {
        let mut state = with(10, 4);
        let id = state.instances[0].id;
        let mut content = Content::default();
        let instance = &mut state.instances[0];
        instance.new_inode(0).unwrap();
        instance.new_inode(0).unwrap();
        // A second name of the inode.
        instance.take_space(INODE).unwrap();
        assert_eq!((instance.inodes, instance.inodes_used()), (2, 3));
        let mut set = |state: &mut State<Fake>, value: Option<usize>, flags: i32| {
            let new = value.map(|len| Attribute::new(b"user.a", &std::vec![0; len]).unwrap());
            let result = state.set_attribute(id, &mut content, b"user.a", new, flags);
            (result.map(|_| ()), state.instances[0].space - 3 * INODE)
        };
        // 1024 bytes are left; 46 of them are for the overhead and the name.
        assert_eq!(set(&mut state, Some(979), 0), (Err(ENOSPC), 0));
        assert_eq!(set(&mut state, Some(0), 2), (Err(ENODATA), 0));
        assert_eq!(set(&mut state, Some(978), 0), (Ok(()), 1024));
        // Even a smaller value needs room beside the old one.
        assert_eq!(set(&mut state, Some(0), 0), (Err(ENOSPC), 1024));
        assert_eq!(state.instances[0].new_inode(0), Err(ENOSPC));
        assert_eq!(set(&mut state, None, 2), (Ok(()), 0));
        assert_eq!(set(&mut state, None, 2), (Err(ENODATA), 0));
        assert_eq!(set(&mut state, Some(300), 1), (Ok(()), 346));
        assert_eq!(set(&mut state, Some(1), 1), (Err(EEXIST), 346));
        assert_eq!(set(&mut state, Some(400), 0), (Ok(()), 446));
        let instance = &mut state.instances[0];
        assert_eq!(instance.inodes_used(), 4);
        instance.inode_gone(&content);
        assert_eq!((instance.inodes, instance.space), (1, 2 * INODE));
    }

    #[test]
    fn long_targets_take_a_page() {
        assert_eq!([0, 127, 128, 4095].map(target_pages), [0, 0, 1, 1]);
        let mut state = with(1, 10);
        let instance = &mut state.instances[0];
        instance.new_inode(1).unwrap();
        assert_eq!(instance.new_inode(1), Err(ENOSPC));
        assert_eq!(
            (instance.inodes, instance.used, instance.space),
            (1, 1, INODE)
        );
        let content = Content {
            target_pages: 1,
            ..Content::default()
        };
        instance.inode_gone(&content);
        assert_eq!((instance.inodes, instance.used, instance.space), (0, 0, 0));
        instance.new_inode(1).unwrap();
    }

    #[test]
    fn limits_below_what_is_used_are_refused_and_change_nothing() {
        let mut state = with(100, 10);
        let instance = &mut state.instances[0];
        (instance.used, instance.space) = (50, 5 * INODE + 1);
        for (bad, why) in [
            (
                &[("size", "196k"), ("huge", "always")][..],
                Refused::Pages(49, 50),
            ),
            (&[("nr_inodes", "5"), ("size", "1m")], Refused::Inodes(5, 6)),
            (&[("nr_inodes", "1")], Refused::Inodes(1, 6)),
            (&[("size", "1m"), ("name", "other")], Refused::Name),
        ] {
            assert_eq!(instance.change(&options(bad)), Err(why));
            assert_eq!((instance.limit, instance.inode_limit), (100, 10));
            assert_eq!(instance.huge, crate::options::Huge::default());
        }
        let good = options(&[("size", "5%"), ("nr_inodes", "6"), ("name", "vm")]);
        instance.change(&good).unwrap();
        assert_eq!((instance.limit, instance.inode_limit), (50, 6));
        let said = format!("{}", Refused::Pages(49, 50));
        assert!(
            said.starts_with("size= asks for 196 KiB, and the instance uses 200 KiB"),
            "{said}"
        );
    }

    /// At that time khofs has already serialized the limits that the next kernel gets.
    #[test]
    fn limits_do_not_change_in_the_active_phase() {
        let mut state = with(100, 10);
        let id = state.instances[0].id;
        state.frozen = true;
        for bad in [[("size", "396k")], [("nr_inodes", "11")]] {
            assert_eq!(state.change(id, &options(&bad)), Err(Refused::Active));
        }
        let same = options(&[("size", "400k"), ("nr_inodes", "10"), ("huge", "always")]);
        state.change(id, &same).unwrap();
        assert_eq!(state.change(id + 1, &same), Err(Refused::Gone));
        let instance = &state.instances[0];
        assert_eq!((instance.limit, instance.inode_limit), (100, 10));
        assert_eq!(instance.huge, crate::options::Huge::Always);
        state.frozen = false;
        state.change(id, &options(&[("size", "396k")])).unwrap();
    }

    /// The instance arrived with that use. It is mounted, keeps its files, and gets nothing more until there is room
    /// again.
    #[test]
    fn more_than_the_limits_is_kept() {
        let mut state = with(100, 10);
        let id = state.instances[0].id;
        let instance = &mut state.instances[0];
        (instance.used, instance.space) = (50, 600 * INODE);
        let given = options(&[("size", "40k")]);
        instance.begin_with(&given);
        assert_eq!(instance.limit, 10);
        assert!(instance.is_over());
        assert_eq!(instance.room(1), Err(ENOSPC));
        assert_eq!(instance.room(0), Ok(()));
        assert_eq!(instance.new_inode(0), Err(ENOSPC));
        assert_eq!(instance.take_space(1), Err(ENOSPC));
        // The same limits once more, and limits that reduce the excess.
        instance.change(&given).unwrap();
        instance
            .change(&options(&[("size", "44k"), ("nr_inodes", "20")]))
            .unwrap();
        assert_eq!(instance.change(&given), Err(Refused::Pages(10, 50)));
        let mut content = Content::default();
        assert_eq!(
            state.set_attribute(id, &mut content, b"user.a", None, 2),
            Err(ENODATA)
        );
        let instance = &mut state.instances[0];
        instance.used = 10;
        assert_eq!(instance.room(1), Ok(()));
    }
}
