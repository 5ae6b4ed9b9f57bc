//! Nodes, properties and walks over them.

use super::Value;
use super::words::{BEGIN_NODE, END_NODE, NOP, PROP, Words, words_for};
use core::fmt;

/// A node of a validated tree.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    words: Words<'a>,
    strings: &'a [u8],
    /// Word of the `FDT_BEGIN_NODE`.
    at: usize,
    name_len: usize,
}

impl<'a> Node<'a> {
    pub(super) const fn new(
        words: Words<'a>,
        strings: &'a [u8],
        at: usize,
        name_len: usize,
    ) -> Self {
        Self {
            words,
            strings,
            at,
            name_len,
        }
    }

    /// The node whose `FDT_BEGIN_NODE` is at word `at`.
    #[inline(always)]
    fn read(words: Words<'a>, strings: &'a [u8], at: usize) -> Self {
        let tail = words.tail(at.wrapping_add(1));
        let name_len = tail.iter().position(|byte| *byte == 0).unwrap_or(0);
        Self::new(words, strings, at, name_len)
    }

    /// Index of the node's `FDT_BEGIN_NODE` word: it identifies the node within its tree.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// The word of the first token inside the node.
    #[inline(always)]
    pub(super) fn body(&self) -> usize {
        self.at
            .wrapping_add(1)
            .wrapping_add(words_for(self.name_len.wrapping_add(1)))
    }

    /// The name as bytes, all of them ASCII; empty for the root.
    #[inline]
    pub fn name_bytes(&self) -> &'a [u8] {
        self.words
            .bytes(self.at.wrapping_add(1), self.name_len)
            .unwrap_or(&[])
    }

    /// The name; empty for the root.
    pub fn name(&self) -> &'a str {
        core::str::from_utf8(self.name_bytes()).unwrap_or("")
    }

    /// The properties, in order.
    pub fn props(&self) -> Props<'a> {
        Props {
            words: self.words,
            strings: self.strings,
            at: self.body(),
        }
    }

    /// The property called `name`. O(properties).
    pub fn prop(&self, name: &str) -> Option<Prop<'a>> {
        self.props().find(|prop| prop.is(name))
    }

    /// The children, in order. O(size of the node) for all of them.
    pub fn children(&self) -> Children<'a> {
        Children {
            words: self.words,
            strings: self.strings,
            at: Some(self.body()),
        }
    }

    /// The child called `name`. O(size of the children before it); see [`Index`](super::Index).
    pub fn child(&self, name: &str) -> Option<Self> {
        self.children()
            .find(|child| child.name_bytes() == name.as_bytes())
    }

    /// Walks the node and everything below it, in the order of the tree.
    pub fn walk(&self) -> Walk<'a> {
        Walk {
            words: self.words,
            strings: self.strings,
            at: self.at,
            depth: 0,
        }
    }
}

impl PartialEq for Node<'_> {
    /// Whether the two are the same node of the same bytes.
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at && core::ptr::eq(self.words.0, other.words.0)
    }
}

impl Eq for Node<'_> {}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node(\"{}\" at word {:#x})", self.name(), self.at)
    }
}

/// A property of a validated tree.
#[derive(Clone, Copy)]
pub struct Prop<'a> {
    /// The strings block from the name on.
    name: &'a [u8],
    value: &'a [u8],
    /// Word of the value in the structure block.
    at: usize,
}

impl<'a> Prop<'a> {
    /// The property whose `FDT_PROP` is at word `at`, and the word after it.
    #[inline(always)]
    fn read(words: Words<'a>, strings: &'a [u8], at: usize) -> Option<(Self, usize)> {
        let len = words.get(at.wrapping_add(1))? as usize;
        let name = strings.get(words.get(at.wrapping_add(2))? as usize..)?;
        let at = at.wrapping_add(3);
        let value = words.bytes(at, len)?;
        Some((Self { name, value, at }, at.wrapping_add(words_for(len))))
    }

    /// Whether the name of the property is `name`.
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        self.name
            .strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The name as bytes, all of them ASCII.
    pub fn name_bytes(&self) -> &'a [u8] {
        let len = self.name.iter().position(|byte| *byte == 0).unwrap_or(0);
        self.name.get(..len).unwrap_or(&[])
    }

    /// The name.
    pub fn name(&self) -> &'a str {
        core::str::from_utf8(self.name_bytes()).unwrap_or("")
    }

    /// The value.
    #[inline(always)]
    pub const fn value(&self) -> Value<'a> {
        Value(self.value)
    }

    /// Word of the value in the structure block.
    pub(super) const fn value_at(&self) -> usize {
        self.at
    }
}

impl fmt::Debug for Prop<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Prop(\"{}\", {:#x} bytes)",
            self.name(),
            self.value.len()
        )
    }
}

/// The properties of a node, from [`Node::props`].
#[derive(Clone)]
pub struct Props<'a> {
    words: Words<'a>,
    strings: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Props<'a> {
    type Item = Prop<'a>;

    #[inline]
    fn next(&mut self) -> Option<Prop<'a>> {
        loop {
            match self.words.get(self.at)? {
                PROP => {
                    let (prop, next) = Prop::read(self.words, self.strings, self.at)?;
                    self.at = next;
                    return Some(prop);
                }
                NOP => self.at = self.at.wrapping_add(1),
                _ => return None,
            }
        }
    }
}

/// The children of a node, from [`Node::children`].
#[derive(Clone)]
pub struct Children<'a> {
    words: Words<'a>,
    strings: &'a [u8],
    /// `None` after the last child.
    at: Option<usize>,
}

impl<'a> Iterator for Children<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        loop {
            let at = self.at?;
            match self.words.get(at) {
                Some(BEGIN_NODE) => {
                    self.at = self.words.after_node(at);
                    return Some(Node::read(self.words, self.strings, at));
                }
                Some(PROP) => self.at = self.words.after_prop(at),
                Some(NOP) => self.at = Some(at.wrapping_add(1)),
                _ => self.at = None,
            }
        }
    }
}

/// Every node of a tree with its depth, from [`Reader::nodes`](super::Reader::nodes).
#[derive(Clone)]
pub struct Nodes<'a> {
    words: Words<'a>,
    strings: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Nodes<'a> {
    pub(super) const fn new(words: Words<'a>, strings: &'a [u8]) -> Self {
        Self {
            words,
            strings,
            at: 0,
            depth: 0,
        }
    }

    /// The next node without its depth.
    pub(super) fn next_node(&mut self) -> Option<Node<'a>> {
        self.next().map(|(_, node)| node)
    }
}

impl<'a> Iterator for Nodes<'a> {
    type Item = (usize, Node<'a>);

    #[inline]
    fn next(&mut self) -> Option<(usize, Node<'a>)> {
        loop {
            match self.words.get(self.at)? {
                BEGIN_NODE => {
                    let node = Node::read(self.words, self.strings, self.at);
                    let depth = self.depth;
                    self.at = node.body();
                    self.depth = depth.wrapping_add(1);
                    return Some((depth, node));
                }
                END_NODE => {
                    self.at = self.at.wrapping_add(1);
                    self.depth = self.depth.wrapping_sub(1);
                }
                PROP => self.at = self.words.after_prop(self.at)?,
                NOP => self.at = self.at.wrapping_add(1),
                _ => return None,
            }
        }
    }
}

/// One step of a [`Walk`].
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A node begins.
    Begin(Node<'a>),
    /// A property of the node that began last.
    Prop(Prop<'a>),
    /// The innermost node that began ends.
    End,
}

/// Walk over a tree, or over one node of it, in the order of the tree. Every [`Event::Begin`] has an [`Event::End`].
#[derive(Clone)]
pub struct Walk<'a> {
    words: Words<'a>,
    strings: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(words: Words<'a>, strings: &'a [u8]) -> Self {
        Self {
            words,
            strings,
            at: 0,
            depth: 0,
        }
    }

    /// Nodes that are open: 0 before the start and after the end.
    pub const fn depth(&self) -> usize {
        self.depth
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Event<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Event<'a>> {
        loop {
            match self.words.get(self.at)? {
                BEGIN_NODE => {
                    let node = Node::read(self.words, self.strings, self.at);
                    self.at = node.body();
                    self.depth = self.depth.wrapping_add(1);
                    return Some(Event::Begin(node));
                }
                PROP => {
                    let (prop, next) = Prop::read(self.words, self.strings, self.at)?;
                    self.at = next;
                    return Some(Event::Prop(prop));
                }
                END_NODE => {
                    self.depth = self.depth.wrapping_sub(1);
                    // A walk that began at an inner node ends at the end of that node.
                    self.at = if self.depth == 0 {
                        self.words.0.len()
                    } else {
                        self.at.wrapping_add(1)
                    };
                    return Some(Event::End);
                }
                NOP => self.at = self.at.wrapping_add(1),
                _ => return None,
            }
        }
    }
}
