//! An index of a tree, for lookups without a walk.

use super::name::shortlex;
use super::{Node, Reader, TreeError};
use crate::ranges::{OutOfMemory, push};
use crate::sort::sort_by;
use alloc::string::String;
use alloc::vec::Vec;

/// Entry of the index for one node.
#[derive(Clone, Copy)]
struct Entry<'a> {
    node: Node<'a>,
    /// Number of the parent. The parent of the root is the root.
    parent: usize,
    /// The children are `by_parent[first..first + count]`, ascending by name.
    first: usize,
    count: usize,
}

/// The nodes of a tree, found by path or by parent and name in O(log n) per step.
///
/// Built once in O(n log n) with fallible allocation: about 80 bytes per node.
pub struct Index<'a> {
    /// In the order of the tree, so ascending by position.
    entries: Vec<Entry<'a>>,
    /// Numbers of all nodes but the root, by parent, then by name.
    by_parent: Vec<usize>,
}

impl<'a> Index<'a> {
    /// Indexes every node of `tree`.
    ///
    /// # Errors
    ///
    /// [`TreeError::OutOfMemory`].
    pub fn new(tree: &Reader<'a>) -> Result<Self, TreeError> {
        let mut entries: Vec<Entry<'a>> = Vec::new();
        entries
            .try_reserve_exact(tree.node_count())
            .map_err(|_| OutOfMemory)?;
        let mut open = [0usize; super::MAX_DEPTH];
        for (depth, node) in tree.nodes() {
            let number = entries.len();
            let parent = match depth.checked_sub(1) {
                Some(above) => open.get(above).copied().unwrap_or(0),
                None => 0,
            };
            if let Some(slot) = open.get_mut(depth) {
                *slot = number;
            }
            push(
                &mut entries,
                Entry {
                    node,
                    parent,
                    first: 0,
                    count: 0,
                },
            )?;
        }
        let mut by_parent = Vec::new();
        by_parent
            .try_reserve_exact(entries.len())
            .map_err(|_| OutOfMemory)?;
        by_parent.extend(1..entries.len());
        let key = |number: usize| {
            entries
                .get(number)
                .map_or((0, &[][..]), |e| (e.parent, e.node.name_bytes()))
        };
        sort_by(&mut by_parent, |a, b| {
            let ((parent_a, name_a), (parent_b, name_b)) = (key(*a), key(*b));
            parent_a
                .cmp(&parent_b)
                .then_with(|| shortlex(name_a, name_b))
        });
        for (place, number) in by_parent.iter().enumerate() {
            let parent = entries.get(*number).map_or(0, |e| e.parent);
            if let Some(entry) = entries.get_mut(parent) {
                if entry.count == 0 {
                    entry.first = place;
                }
                entry.count = entry.count.saturating_add(1);
            }
        }
        Ok(Self { entries, by_parent })
    }

    /// Number of nodes, the root included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Always false, because a tree has a root. Exists because `len` does.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The node with this number in the order of the tree; the root has 0.
    pub fn nth(&self, number: usize) -> Option<Node<'a>> {
        self.entries.get(number).map(|entry| entry.node)
    }

    /// The node at `path`: `/`, or names, each after a slash.
    pub fn path(&self, path: &str) -> Option<Node<'a>> {
        let rest = path.strip_prefix('/')?;
        let mut entry = self.entries.first()?;
        if !rest.is_empty() {
            for name in rest.split('/') {
                entry = self.step(entry, name)?;
            }
        }
        Some(entry.node)
    }

    /// The child of `node` called `name`; `None` also when `node` belongs to another tree.
    pub fn child(&self, node: &Node<'a>, name: &str) -> Option<Node<'a>> {
        self.step(self.entry(node)?, name).map(|entry| entry.node)
    }

    /// The parent of `node`; `None` for the root and for a node of another tree.
    pub fn parent(&self, node: &Node<'a>) -> Option<Node<'a>> {
        let entry = self.entry(node)?;
        let parent = self.entries.get(entry.parent)?.node;
        (parent != entry.node).then_some(parent)
    }

    /// The path of `node`, `/` for the root.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn path_of(&self, node: &Node<'a>) -> Result<String, OutOfMemory> {
        let mut names = [""; super::MAX_DEPTH];
        let mut used = 0usize;
        let mut at = *node;
        while let (Some(parent), Some(slot)) = (self.parent(&at), names.get_mut(used)) {
            *slot = at.name();
            used = used.saturating_add(1);
            at = parent;
        }
        let names = names.get(..used).unwrap_or(&[]);
        let len = names.iter().fold(1usize, |sum, name| {
            sum.saturating_add(name.len()).saturating_add(1)
        });
        let mut path = String::new();
        path.try_reserve(len).map_err(|_| OutOfMemory)?;
        if names.is_empty() {
            path.push('/');
        }
        for name in names.iter().rev() {
            path.push('/');
            path.push_str(name);
        }
        Ok(path)
    }

    /// The entry of `node`; `None` if `node` belongs to another tree.
    fn entry(&self, node: &Node<'a>) -> Option<&Entry<'a>> {
        let number = self
            .entries
            .binary_search_by_key(&node.at(), |entry| entry.node.at())
            .ok()?;
        self.entries.get(number).filter(|e| e.node == *node)
    }

    /// The child of `entry` called `name`.
    fn step(&self, entry: &Entry<'a>, name: &str) -> Option<&Entry<'a>> {
        let end = entry.first.checked_add(entry.count)?;
        let children = self.by_parent.get(entry.first..end)?;
        let place = children
            .binary_search_by(|number| {
                let child = self.entries.get(*number);
                shortlex(child.map_or(&[], |e| e.node.name_bytes()), name.as_bytes())
            })
            .ok()?;
        self.entries.get(*children.get(place)?)
    }
}
