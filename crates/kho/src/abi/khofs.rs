//! khofs, the file system whose files stay in place: a node of the kernel's part for each instance.
//!
//! | node | `compatible` | |
//! | --- | --- | --- |
//! | `/khofs` | [`KHOFS_V1`] | one child for each instance |
//! | `/khofs/NAME` | [`INSTANCE_V1`] | the pages of all its files |
//! | `/khofs/NAME/tree` | [`TREE_V1`] | the pages in which names, attributes and extents are written down |
//!
//! The properties are in `schemas/khofs-*.yaml`, the bytes of a tree in `docs/src/abi/khofs.md`.

/// `compatible` of `/khofs`.
pub const KHOFS_V1: &str = "khofs-v1";

/// `compatible` of an instance.
pub const INSTANCE_V1: &str = "khofs-instance-v1";

/// `compatible` of the node [`TREE`].
pub const TREE_V1: &str = "khofs-tree-v1";

/// Instance, string: the name that mounts give.
pub const INSTANCE: &str = "instance";

/// Instance, u64: most bytes that all files together may have.
pub const SIZE_LIMIT: &str = "size-limit";

/// Instance, u64: most inodes that the instance may have.
pub const INODE_LIMIT: &str = "inode-limit";

/// Instance, u64: number of inodes that the instance has.
pub const INODES: &str = "inodes";

/// Name of the child of an instance whose `mem` are the pages with names, attributes and extents.
pub const TREE: &str = "tree";
