//! Walks over the nodes of a tree that arrived, for drivers that do not know the names in advance. A node is its number
//! in the order of the tree.

use crate::errno::{EINVAL, ENOENT, Errno};
use kho::tree::{Event, Index, Node, Prop};

/// Node number `number`.
///
/// # Errors
///
/// [`ENOENT`] if there is no such node.
fn nth<'a>(index: &Index<'a>, number: i64) -> Result<Node<'a>, Errno> {
    let number = usize::try_from(number).map_err(|_| ENOENT)?;
    index.nth(number).ok_or(ENOENT)
}

/// Number of nodes of the part of the tree that begins at `node`, `node` included.
fn size(node: &Node<'_>) -> i64 {
    let begins = node.walk().filter(|event| matches!(event, Event::Begin(_)));
    i64::try_from(begins.count()).unwrap_or(i64::MAX)
}

/// The number of the first child of node number `parent`; for an `after` of 0 or more, of the child behind that one.
/// Costs the size of the child `after`, so a walk over all children costs the size of the parent.
///
/// # Errors
///
/// [`ENOENT`] if there is no such child, or no node `parent`; [`EINVAL`] if `after` is no child of that node.
pub fn next_child(index: &Index<'_>, parent: i64, after: i64) -> Result<i64, Errno> {
    let node = nth(index, parent)?;
    let is_child = |number| nth(index, number).is_ok_and(|n| index.parent(&n) == Some(node));
    let next = if after < 0 {
        parent.checked_add(1)
    } else if is_child(after) {
        after.checked_add(size(&nth(index, after)?))
    } else {
        return Err(EINVAL);
    };
    next.filter(|number| is_child(*number)).ok_or(ENOENT)
}

/// Number of children of node number `parent`.
///
/// # Errors
///
/// [`ENOENT`] if there is no such node.
pub fn count_children(index: &Index<'_>, parent: i64) -> Result<usize, Errno> {
    Ok(nth(index, parent)?.children().count())
}

/// Property number `number` of node number `node`, in the order of the tree.
///
/// # Errors
///
/// [`ENOENT`] if there is no such node or property.
pub fn prop<'a>(index: &Index<'a>, node: i64, number: usize) -> Result<Prop<'a>, Errno> {
    nth(index, node)?.props().nth(number).ok_or(ENOENT)
}

/// Number of properties of node number `node`, `mem` included.
///
/// # Errors
///
/// [`ENOENT`] if there is no such node.
pub fn count_props(index: &Index<'_>, node: i64) -> Result<usize, Errno> {
    Ok(nth(index, node)?.props().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::tree_of;
    use kho::tree::{Reader, Writer};
    use std::vec::Vec;

    /// Numbers of the nodes: root 0, a 1, b 2 (in a), c 3 (in b), d 4 (in a), e 5, f 6.
    fn write(w: &mut Writer<'_>) {
        let begin = |w: &mut Writer<'_>, name: &str| {
            w.begin_node(name).unwrap();
            w.prop_u32("x", 1).unwrap();
        };
        begin(w, "");
        begin(w, "a");
        w.prop_str("compatible", "a-v1").unwrap();
        for name in ["b", "c"] {
            begin(w, name);
        }
        w.end_node().unwrap();
        w.end_node().unwrap();
        begin(w, "d");
        w.end_node().unwrap();
        w.end_node().unwrap();
        for name in ["e", "f"] {
            w.begin_node(name).unwrap();
            w.end_node().unwrap();
        }
        w.end_node().unwrap();
    }

    #[test]
    fn every_child_is_met_once_and_in_order() {
        let bytes = tree_of(write);
        let reader = Reader::new(&bytes).unwrap();
        let index = Index::new(&reader).unwrap();

        let expected: [&[i64]; 7] = [&[1, 5, 6], &[2, 4], &[3], &[], &[], &[], &[]];
        for (parent, children) in (0i64..).zip(expected) {
            let mut met = Vec::new();
            let mut after = -1;
            while let Ok(child) = next_child(&index, parent, after) {
                met.push(child);
                after = child;
            }
            assert_eq!(met, children);
            assert_eq!(count_children(&index, parent), Ok(children.len()));
            assert_eq!(next_child(&index, parent, after), Err(ENOENT));
            // Neither a node further down, nor the parent itself, nor a number without a node is a child.
            for other in (0..9).filter(|number| !children.contains(number)) {
                assert_eq!(next_child(&index, parent, other), Err(EINVAL));
            }
        }
        for bad in [-1, 7, i64::MIN, i64::MAX] {
            assert_eq!(next_child(&index, bad, -1), Err(ENOENT));
            assert_eq!(count_children(&index, bad), Err(ENOENT));
            assert_eq!(count_props(&index, bad), Err(ENOENT));
            assert!(prop(&index, bad, 0).is_err());
        }
        assert_eq!(count_props(&index, 1), Ok(2));
        assert_eq!(prop(&index, 1, 1).unwrap().name(), "compatible");
        assert_eq!(prop(&index, 1, 2).err(), Some(ENOENT));
        assert_eq!(count_props(&index, 5), Ok(0));
        assert_eq!(prop(&index, 5, 0).err(), Some(ENOENT));
    }
}
