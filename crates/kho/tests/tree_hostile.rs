//! Every rule of the container, broken on purpose: each has its own error, with the place and the value.
#![allow(
    clippy::cast_possible_truncation,
    reason = "sizes of test data are small"
)]

use kho::tree::{Block, Name, Reader, TreeError};

const BEGIN: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;
/// The empty name.
const ROOT: u32 = 0;

/// Names at 0, 2 and 4; the name at 7 has no NUL.
const STRINGS: &[u8] = b"a\0b\0a\0c";

/// The structure block starts here.
const AT: usize = 56;

/// A name of one letter.
fn letter(letter: u8) -> u32 {
    u32::from(letter) << 24
}

/// A tree with these words as its structure block.
fn tree(words: &[u32]) -> Vec<u8> {
    tree_with(words, STRINGS)
}

fn tree_with(words: &[u32], strings: &[u8]) -> Vec<u8> {
    let size = (words.len() * 4) as u32;
    let len = strings.len() as u32;
    let header = [
        0xd00d_feed,
        56 + size + len,
        56,
        56 + size,
        40,
        17,
        16,
        0,
        len,
        size,
    ];
    let mut bytes: Vec<u8> = header
        .iter()
        .chain(&[0; 4])
        .chain(words)
        .flat_map(|word| word.to_be_bytes())
        .collect();
    bytes.extend(strings);
    bytes
}

fn error(bytes: &[u8]) -> TreeError {
    Reader::new(bytes).map(|_| ()).expect_err("was accepted")
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes())
}

/// A valid tree with header word `index` changed.
fn header(index: usize, value: u32) -> TreeError {
    let mut bytes = tree(&[BEGIN, ROOT, END_NODE, END]);
    assert!(Reader::new(&bytes).is_ok());
    bytes[index * 4..index * 4 + 4].copy_from_slice(&value.to_be_bytes());
    error(&bytes)
}

#[test]
fn headers() {
    let len = 56 + 16 + STRINGS.len();
    assert_eq!(
        error(&[]),
        TreeError::Truncated {
            needed: 40,
            available: 0
        }
    );
    assert_eq!(
        error(&[0xd0; 39]),
        TreeError::Truncated {
            needed: 40,
            available: 39
        }
    );
    assert_eq!(
        header(0, 0xedfe_0dd0),
        TreeError::Magic { found: 0xedfe_0dd0 }
    );
    assert_eq!(
        header(1, len as u32 + 1),
        TreeError::Truncated {
            needed: len + 1,
            available: len
        }
    );
    assert_eq!(
        header(1, u32::MAX),
        TreeError::TooLarge { size: 0xffff_ffff }
    );
    assert_eq!(header(1, 39), TreeError::TooSmall { size: 39 });
    for (index, value, version, last_compatible) in [(5, 16, 16, 16), (6, 18, 17, 18)] {
        assert_eq!(
            header(index, value),
            TreeError::Version {
                version,
                last_compatible
            }
        );
    }
    let bounds = |block, offset, size, from| TreeError::Bounds {
        block,
        offset,
        size,
        from,
        to: len,
    };
    assert_eq!(header(2, 52), bounds(Block::Structure, 52, 16, 56));
    assert_eq!(
        header(2, u32::MAX),
        bounds(Block::Structure, 0xffff_ffff, 16, 56)
    );
    assert_eq!(
        header(9, u32::MAX),
        bounds(Block::Structure, 56, 0xffff_ffff, 56)
    );
    assert_eq!(header(3, 71), bounds(Block::Strings, 71, STRINGS.len(), 72));
    assert_eq!(header(8, 8), bounds(Block::Strings, 72, 8, 72));
    assert_eq!(header(4, 39), bounds(Block::Reservations, 39, 16, 40));
    assert_eq!(
        header(4, len as u32),
        bounds(Block::Reservations, len, 16, 40)
    );
    let aligned = |block, offset, size, align| TreeError::Alignment {
        block,
        offset,
        size,
        align,
    };
    assert_eq!(header(2, 58), aligned(Block::Structure, 58, 16, 4));
    assert_eq!(header(9, 15), aligned(Block::Structure, 56, 15, 4));
    assert_eq!(header(4, 44), aligned(Block::Reservations, 44, 16, 8));
    assert_eq!(
        header(11, 0x1000),
        TreeError::Reservation {
            offset: 40,
            addr: 0x1000,
            len: 0
        }
    );
    assert_eq!(
        header(12, 1),
        TreeError::Reservation {
            offset: 40,
            addr: 0,
            len: 1 << 32
        }
    );
}

#[test]
fn structure() {
    let at = |word: usize| AT + word * 4;
    for (words, expected) in [
        (&[][..], TreeError::Unfinished { offset: at(0) }),
        (
            &[END],
            TreeError::Outside {
                offset: at(0),
                found: END,
            },
        ),
        (
            &[END_NODE, END],
            TreeError::Outside {
                offset: at(0),
                found: END_NODE,
            },
        ),
        (
            &[PROP, 0, 0, END],
            TreeError::Outside {
                offset: at(0),
                found: PROP,
            },
        ),
        (&[BEGIN], TreeError::Unfinished { offset: at(1) }),
        (&[BEGIN, ROOT], TreeError::Unfinished { offset: at(2) }),
        (
            &[BEGIN, ROOT, END_NODE],
            TreeError::Unfinished { offset: at(3) },
        ),
        (
            &[BEGIN, ROOT, END],
            TreeError::Unclosed {
                offset: at(2),
                open: 1,
            },
        ),
        (
            &[BEGIN, ROOT, 5, END_NODE, END],
            TreeError::Token {
                offset: at(2),
                found: 5,
            },
        ),
        (
            &[BEGIN, ROOT, END_NODE, END, NOP],
            TreeError::Trailing {
                offset: at(4),
                len: 4,
            },
        ),
        (
            &[BEGIN, ROOT, END_NODE, BEGIN, ROOT, END_NODE, END],
            TreeError::SecondRoot { offset: at(3) },
        ),
        (
            &[BEGIN, ROOT, END_NODE, PROP, 0, 0, END],
            TreeError::Outside {
                offset: at(3),
                found: PROP,
            },
        ),
        (
            &[BEGIN, letter(b'r'), END_NODE, END],
            TreeError::RootName {
                offset: at(0),
                name: name("r"),
            },
        ),
        (
            &[BEGIN, ROOT, PROP],
            TreeError::Unfinished { offset: at(3) },
        ),
        (
            &[BEGIN, ROOT, PROP, 0],
            TreeError::Unfinished { offset: at(4) },
        ),
        (
            &[BEGIN, ROOT, PROP, 9, 0, END_NODE, END],
            TreeError::PropertyLength {
                offset: at(2),
                len: 9,
                left: 8,
            },
        ),
        (
            &[BEGIN, ROOT, PROP, u32::MAX, 0, END_NODE, END],
            TreeError::PropertyLength {
                offset: at(2),
                len: 0xffff_ffff,
                left: 8,
            },
        ),
        (
            &[
                BEGIN,
                ROOT,
                BEGIN,
                letter(b'x'),
                END_NODE,
                PROP,
                0,
                0,
                END_NODE,
                END,
            ],
            TreeError::LateProperty { offset: at(5) },
        ),
        (
            &[BEGIN, ROOT, PROP, 0, 7, END_NODE, END],
            TreeError::StringOffset {
                offset: at(2),
                found: 7,
                size: 7,
            },
        ),
        (
            &[BEGIN, ROOT, PROP, 0, u32::MAX, END_NODE, END],
            TreeError::StringOffset {
                offset: at(2),
                found: 0xffff_ffff,
                size: 7,
            },
        ),
        (
            &[BEGIN, ROOT, PROP, 0, 6, END_NODE, END],
            TreeError::NameUnterminated { offset: at(7) + 6 },
        ),
        (
            &[BEGIN, ROOT, PROP, 0, 1, END_NODE, END],
            TreeError::NameEmpty { offset: at(7) + 1 },
        ),
        (
            &[BEGIN, ROOT, BEGIN, ROOT, END_NODE, END_NODE, END],
            TreeError::NameEmpty { offset: at(3) },
        ),
        (
            &[BEGIN, ROOT, BEGIN, 0x612f_6200, END_NODE, END_NODE, END],
            TreeError::NameCharacter {
                offset: at(3) + 1,
                byte: b'/',
            },
        ),
        (
            &[BEGIN, ROOT, PROP, 0, 0, PROP, 0, 4, END_NODE, END],
            TreeError::DuplicateProperty {
                offset: at(0),
                name: name("a"),
            },
        ),
        (
            &[
                BEGIN,
                ROOT,
                BEGIN,
                letter(b'x'),
                END_NODE,
                BEGIN,
                letter(b'y'),
                END_NODE,
                BEGIN,
                letter(b'x'),
                END_NODE,
                END_NODE,
                END,
            ],
            TreeError::DuplicateChild {
                offset: at(0),
                name: name("x"),
            },
        ),
    ] {
        assert_eq!(error(&tree(words)), expected, "{words:?}");
    }
    assert_eq!(
        error(&tree_with(
            &[BEGIN, ROOT, PROP, 0, 0, END_NODE, END],
            b"a@\0"
        )),
        TreeError::NameCharacter {
            offset: at(7) + 1,
            byte: b'@'
        }
    );
    for good in [
        &[
            NOP,
            BEGIN,
            ROOT,
            NOP,
            PROP,
            0,
            2,
            NOP,
            BEGIN,
            letter(b'@'),
            NOP,
            END_NODE,
            NOP,
            END_NODE,
            NOP,
            END,
        ][..],
        // One name twice, in different nodes, once through another offset.
        &[
            BEGIN,
            ROOT,
            PROP,
            0,
            0,
            BEGIN,
            letter(b'x'),
            PROP,
            0,
            4,
            END_NODE,
            END_NODE,
            END,
        ],
    ] {
        assert!(Reader::new(&tree(good)).is_ok(), "{good:?}");
    }
}

#[test]
fn nesting_and_names_up_to_the_limit() {
    for (depth, good) in [(31, true), (32, false), (10_000, false)] {
        let mut words = vec![BEGIN, ROOT];
        words.extend([BEGIN, letter(b'x')].repeat(depth));
        words.extend([END_NODE].repeat(depth + 1));
        words.push(END);
        let bytes = tree(&words);
        if good {
            let tree = Reader::new(&bytes).unwrap();
            assert_eq!(tree.nodes().map(|(depth, _)| depth).max(), Some(31));
        } else {
            assert_eq!(
                error(&bytes),
                TreeError::TooDeep {
                    offset: AT + 4 * 64
                }
            );
        }
    }
    for (len, good) in [(63, true), (64, false), (4000, false)] {
        let mut words = vec![BEGIN, ROOT, BEGIN];
        words.extend([0x6161_6161].repeat(len / 4));
        words.extend([
            if len % 4 == 0 { 0 } else { 0x6161_6100 },
            END_NODE,
            END_NODE,
            END,
        ]);
        let as_node = Reader::new(&tree(&words)).map(|_| ());
        let strings = [vec![b'a'; len], vec![0]].concat();
        let as_prop = tree_with(&[BEGIN, ROOT, PROP, 0, 0, END_NODE, END], &strings);
        let as_prop = Reader::new(&as_prop).map(|_| ());
        if good {
            assert_eq!((as_node, as_prop), (Ok(()), Ok(())));
        } else {
            assert_eq!(as_node, Err(TreeError::NameTooLong { offset: AT + 12 }));
            assert_eq!(as_prop, Err(TreeError::NameTooLong { offset: AT + 28 }));
        }
    }
}

/// A node with `count` properties of different names. The name `again` occurs twice.
fn many_props(count: u32, again: Option<u32>) -> Vec<u8> {
    let mut strings = Vec::new();
    let mut words = vec![BEGIN, ROOT];
    let numbers = (0..count).chain(again);
    for number in numbers {
        words.extend([PROP, 0, strings.len() as u32]);
        strings.extend(format!("p{number}\0").bytes());
    }
    words.extend([BEGIN, letter(b'x'), END_NODE, END_NODE, END]);
    tree_with(&words, &strings)
}

#[test]
fn duplicates_among_many() {
    for count in [2, 15, 16, 17, 18, 100, 5000] {
        assert!(Reader::new(&many_props(count, None)).is_ok(), "{count}");
        for again in [0, count / 2, count - 1] {
            assert_eq!(
                error(&many_props(count, Some(again))),
                TreeError::DuplicateProperty {
                    offset: AT,
                    name: name(&format!("p{again}"))
                },
                "{count}"
            );
        }
    }
    // The names of the children do not ascend, so the reader has to sort them.
    let numbers = || (0..3000u32).rev();
    for again in [None, Some(0), Some(1500), Some(2999)] {
        let mut words = vec![BEGIN, ROOT];
        for number in numbers().chain(again) {
            let text = format!("{number:07}\0");
            let (halves, _) = text.as_bytes().as_chunks::<4>();
            words.push(BEGIN);
            words.extend(halves.iter().map(|half| u32::from_be_bytes(*half)));
            words.push(END_NODE);
        }
        words.extend([END_NODE, END]);
        let bytes = tree(&words);
        match again {
            None => assert_eq!(Reader::new(&bytes).unwrap().node_count(), 3001),
            Some(again) => assert_eq!(
                error(&bytes),
                TreeError::DuplicateChild {
                    offset: AT,
                    name: name(&format!("{again:07}"))
                }
            ),
        }
    }
}

#[test]
fn errors_say_where_and_what() {
    let text = error(&tree(&[BEGIN, ROOT, 0xdead_beef, END_NODE, END])).to_string();
    assert_eq!(text, "unknown token 0xdeadbeef at 0x40");
    let text = error(b"#!/bin/sh\n                                    ").to_string();
    assert_eq!(
        text,
        "not a state tree: first word is 0x23212f62, not 0xd00dfeed"
    );
}
