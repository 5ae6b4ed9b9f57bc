//! Inodes, dentries and superblocks, and the content that Rust keeps for an inode.

use super::ffi;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::{CStr, c_void};
use core::marker::PhantomData;
use core::ptr::NonNull;
use kho_decide::errno::{EINVAL, ENOMEM, Errno};
use khofs_decide::content::Content;
use khofs_decide::pack::Attr;
use khofs_decide::system::{Cache, Run};

/// The content of an inode, to which the kernel's inode points.
///
/// # Invariants
///
/// The pointer is that of a [`Content`] that [`new`](Self::new) made and that was not freed. Code reaches the content
/// only with the state's lock held; [`content`](super::system::content) ensures that through a borrow of the state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct File(NonNull<Content>);

impl File {
    /// Makes the content of a new inode.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn new(content: Content) -> Result<Self, Errno> {
        let mut one = Vec::new();
        one.try_reserve_exact(1)?;
        one.push(content);
        let raw: *mut [Content] = Box::into_raw(one.into_boxed_slice());
        // INVARIANT: the content was made just now.
        NonNull::new(raw.cast::<Content>()).map(Self).ok_or(ENOMEM)
    }

    /// The pointer that C stores in the kernel's inode.
    pub fn pointer(self) -> *mut c_void {
        self.0.as_ptr().cast()
    }

    /// The file of a pointer that C stored in the kernel's inode.
    ///
    /// # Safety
    ///
    /// `pointer` is the pointer of an inode that is alive.
    pub unsafe fn from_pointer(pointer: *mut c_void) -> Result<Self, Errno> {
        NonNull::new(pointer.cast()).map(Self).ok_or(EINVAL)
    }

    /// The content.
    ///
    /// # Safety
    ///
    /// The caller holds the state's lock during `'a`, and no code changes this content meanwhile.
    pub unsafe fn get<'a>(self) -> &'a Content {
        // SAFETY: the content is alive by the # Invariants, and by the caller's promise no code changes it.
        unsafe { self.0.as_ref() }
    }

    /// The content, for a change.
    ///
    /// # Safety
    ///
    /// The caller holds the state's lock and has no other reference to this content.
    pub unsafe fn get_mut<'a>(self) -> &'a mut Content {
        // SAFETY: the content is alive by the # Invariants, and by the caller's promise not shared.
        unsafe { &mut *self.0.as_ptr() }
    }

    /// Frees the memory of the content and returns the content.
    ///
    /// # Safety
    ///
    /// No code uses the content any more: its inode is removed, or was never made.
    pub unsafe fn free(self) -> Content {
        let one = core::ptr::slice_from_raw_parts_mut(self.0.as_ptr(), 1);
        // SAFETY: `new` made the pointer from a box of a slice of one, and by the caller's promise it has no use after
        // this.
        let one = unsafe { Box::from_raw(one) };
        one.into_vec().pop().unwrap_or_default()
    }
}

/// An inode during a call.
///
/// # Invariants
///
/// The pointer is that of an inode of khofs that stays alive during `'a`.
#[derive(Clone, Copy)]
pub struct Inode<'a>(NonNull<c_void>, PhantomData<&'a ()>);

impl<'a> Inode<'a> {
    /// Makes an inode from a pointer of C.
    ///
    /// # Safety
    ///
    /// The # Invariants must hold.
    pub unsafe fn new(pointer: *mut c_void) -> Result<Self, Errno> {
        NonNull::new(pointer)
            .map(|p| Self(p, PhantomData))
            .ok_or(EINVAL)
    }

    fn raw(self) -> *mut c_void {
        self.0.as_ptr()
    }

    /// Attributes of the inode, as in stat(2).
    pub fn attr(self) -> Attr {
        let mut attr = Attr::default();
        // SAFETY: the inode is alive by the # Invariants, and `attr` is a variable.
        unsafe { ffi::khofs_c_attr(self.raw(), &raw mut attr) };
        attr
    }

    /// Target of a symbolic link; empty for other inodes.
    pub fn target(self) -> &'a [u8] {
        // SAFETY: the inode is alive by the # Invariants.
        let target = unsafe { ffi::khofs_c_target(self.raw()) };
        if target.is_null() {
            return &[];
        }
        // SAFETY: a string that lives as long as the inode.
        unsafe { CStr::from_ptr(target) }.to_bytes()
    }

    /// Content of the inode.
    ///
    /// # Errors
    ///
    /// None in practice: every inode that has a name has content.
    pub fn file(self) -> Result<File, Errno> {
        // SAFETY: the inode is alive by the # Invariants.
        let file = unsafe { ffi::khofs_c_file(self.raw()) };
        // SAFETY: the inode is alive.
        unsafe { File::from_pointer(file) }
    }
}

impl Cache for Inode<'_> {
    fn insert(self, index: u64, pfn: u64, locked: bool) -> Result<(), Errno> {
        // SAFETY: the inode is alive by the # Invariants, and the page follows the rules in the module's documentation.
        let result = unsafe { ffi::khofs_c_insert(self.raw(), index, pfn, locked) };
        Errno::check(i64::from(result)).map(|_| ())
    }

    fn next_run(self, from: u64) -> Option<Run> {
        let mut run = Run::default();
        // SAFETY: the inode is alive by the # Invariants, and `run` is a variable.
        unsafe { ffi::khofs_c_next_run(self.raw(), from, &raw mut run) }.then_some(run)
    }

    fn set_lazy(self, pages: u64) {
        // SAFETY: the inode is alive by the # Invariants.
        unsafe { ffi::khofs_c_set_lazy(self.raw(), pages) }
    }
}

/// A superblock.
///
/// # Invariants
///
/// The superblock is alive: it is being filled, or an instance has its reference on it. An instance has that reference
/// while its body is live.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Super(NonNull<c_void>);

// SAFETY: the value only names the superblock, and any thread may call the superblock's functions.
unsafe impl Send for Super {}

/// A directory entry of a superblock that is alive.
#[derive(Clone, Copy)]
pub struct Dentry(NonNull<c_void>);

/// An inode that was made and that the caller must attach.
pub struct Loose(NonNull<c_void>);

impl Drop for Loose {
    fn drop(&mut self) {
        // SAFETY: the value owns one reference.
        unsafe { ffi::khofs_c_put_inode(self.0.as_ptr()) }
    }
}

impl Loose {
    fn into_raw(self) -> *mut c_void {
        let raw = self.0.as_ptr();
        core::mem::forget(self);
        raw
    }
}

/// The tree of a superblock that is being filled.
///
/// # Invariants
///
/// All inodes and dentries are attached to the superblock, which no process can reach yet. So they live as long as the
/// superblock, which lives longer than this value.
pub struct Tree {
    sb: Super,
    inodes: Vec<NonNull<c_void>>,
    /// For each inode: its entry if it is a directory, else `None`.
    dirs: Vec<Option<Dentry>>,
}

impl Tree {
    /// Begins a tree with its root.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn new(sb: Super, root: Loose) -> Result<Self, Errno> {
        let mut tree = Self {
            sb,
            inodes: Vec::new(),
            dirs: Vec::new(),
        };
        tree.reserve()?;
        tree.inodes.push(root.0);
        // SAFETY: the superblock is alive by the # Invariants of `Super`; the call takes over the reference.
        let result = unsafe { ffi::khofs_c_set_root(sb.0.as_ptr(), root.into_raw()) };
        Errno::check(i64::from(result))?;
        tree.dirs.push(Some(sb.root()?));
        Ok(tree)
    }

    fn reserve(&mut self) -> Result<(), Errno> {
        self.inodes.try_reserve(1)?;
        self.dirs.try_reserve(1)?;
        Ok(())
    }

    /// The superblock.
    pub fn sb(&self) -> Super {
        self.sb
    }

    /// Number of inodes.
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Adds an entry with a new inode, in the directory with that number.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that inode is no directory; no memory.
    pub fn add(
        &mut self,
        parent: usize,
        name: &[u8],
        inode: Loose,
        dir: bool,
    ) -> Result<(), Errno> {
        self.reserve()?;
        let pointer = inode.0;
        let made = self.attach(parent, name, inode)?;
        self.inodes.push(pointer);
        self.dirs.push(dir.then_some(made));
        Ok(())
    }

    /// Adds an entry for the inode with number `number`.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn link(&mut self, parent: usize, name: &[u8], number: usize) -> Result<(), Errno> {
        let pointer = *self.inodes.get(number).ok_or(EINVAL)?;
        // SAFETY: the inode is alive by the # Invariants.
        unsafe { ffi::khofs_c_hold_inode(pointer.as_ptr()) };
        self.attach(parent, name, Loose(pointer)).map(|_| ())
    }

    fn attach(&self, parent: usize, name: &[u8], inode: Loose) -> Result<Dentry, Errno> {
        let parent = self.dirs.get(parent).copied().flatten().ok_or(EINVAL)?;
        let inode = inode.into_raw();
        // SAFETY: `parent` is a directory by the # Invariants; the call takes over the reference.
        let made =
            unsafe { ffi::khofs_c_attach(parent.0.as_ptr(), name.as_ptr(), name.len(), inode) };
        NonNull::new(made).map(Dentry).ok_or(ENOMEM)
    }

    /// Sets the number of links of each inode.
    pub fn set_links(&self, links: &[u32]) {
        for (pointer, links) in self.inodes.iter().zip(links) {
            // SAFETY: the inode is alive by the # Invariants.
            unsafe { ffi::khofs_c_set_links(pointer.as_ptr(), *links) }
        }
    }
}

impl Super {
    /// Makes a superblock from a pointer of C.
    ///
    /// # Safety
    ///
    /// The # Invariants must hold.
    pub unsafe fn new(pointer: *mut c_void) -> Result<Self, Errno> {
        NonNull::new(pointer).map(Self).ok_or(EINVAL)
    }

    /// Makes an inode with this content.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn make_inode(self, attr: &Attr, content: Content, target: &[u8]) -> Result<Loose, Errno> {
        let lazy = content.lazy.pages();
        let file = File::new(content)?;
        // SAFETY: the superblock is alive by the # Invariants; the other pointers are those of variables.
        let made = unsafe {
            ffi::khofs_c_make_inode(
                self.0.as_ptr(),
                attr,
                file.pointer(),
                target.as_ptr(),
                target.len(),
            )
        };
        match NonNull::new(made) {
            Some(pointer) => {
                let inode = Loose(pointer);
                Inode(inode.0, PhantomData).set_lazy(lazy);
                Ok(inode)
            }
            None => {
                // SAFETY: the inode was not made, so no other code has the content.
                drop(unsafe { file.free() });
                Err(ENOMEM)
            }
        }
    }

    /// The root directory.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn root(self) -> Result<Dentry, Errno> {
        // SAFETY: the superblock is alive by the # Invariants.
        let root = unsafe { ffi::khofs_c_root(self.0.as_ptr()) };
        NonNull::new(root).map(Dentry).ok_or(EINVAL)
    }

    /// Takes one more active reference: for the instance, or one that C drops.
    pub fn hold(self) -> *mut c_void {
        // SAFETY: the superblock is alive by the # Invariants.
        unsafe { ffi::khofs_c_hold_super(self.0.as_ptr()) };
        self.0.as_ptr()
    }

    /// Drops the instance's reference, and with it removes all its files. The caller must not hold the state's lock,
    /// and the body of the instance must be `Ending`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the instance is mounted. Then it keeps its reference.
    pub fn let_go(self) -> Result<(), Errno> {
        // SAFETY: the superblock is alive by the # Invariants; the instance has its reference until this call succeeds.
        Errno::check(i64::from(unsafe {
            ffi::khofs_c_drop_super(self.0.as_ptr())
        }))
        .map(|_| ())
    }
}

impl Dentry {
    /// Inode of the entry.
    pub fn inode(self) -> Inode<'static> {
        self.parts().1
    }

    fn parts(self) -> (&'static [u8], Inode<'static>) {
        let (mut name, mut len) = (core::ptr::null(), 0);
        // SAFETY: a dentry with an inode, pinned while the superblock is alive.
        let inode = unsafe { ffi::khofs_c_dentry(self.0.as_ptr(), &raw mut name, &raw mut len) };
        // SAFETY: the name stays valid while names are frozen, and this runs only then.
        let name = unsafe { core::slice::from_raw_parts(name, len) };
        let inode = NonNull::new(inode).unwrap_or(NonNull::dangling());
        (name, Inode(inode, PhantomData))
    }

    /// Calls `each` with every entry of a directory, its name and its inode. The caller must have frozen the names.
    ///
    /// # Errors
    ///
    /// The error that `each` returns.
    pub fn children(
        self,
        mut each: impl FnMut(Self, &[u8], Inode<'_>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut at = core::ptr::null_mut();
        loop {
            // SAFETY: `self` is a directory; the call takes over the reference on `at`.
            at = unsafe { ffi::khofs_c_next_child(self.0.as_ptr(), at) };
            let Some(child) = NonNull::new(at).map(Self) else {
                return Ok(());
            };
            let (name, inode) = child.parts();
            if let Err(error) = each(child, name, inode) {
                // SAFETY: next_child returned this reference.
                unsafe { ffi::khofs_c_put_dentry(at) };
                return Err(error);
            }
        }
    }
}
