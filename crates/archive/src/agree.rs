//! Test that the decoder reads every header that the encoder writes, for all objects within the limits, not only for
//! those that the test's file system can hold.

use proptest::prelude::*;

use crate::decode::{Decode, Entry};
use crate::encode::Head;
use crate::sparse::{self, Extent};
use crate::sys::{Time, Xattrs};
use crate::{BLOCK, Kind, limits};

/// An object in the form in which a file system shows it, with owned fields.
#[derive(Debug, Clone)]
struct Object {
    kind: Kind,
    path: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Time,
    link: Vec<u8>,
    xattrs: Xattrs,
    size: u64,
    sparse: Option<Vec<Extent>>,
}

impl Object {
    fn head(&self) -> Head<'_> {
        Head {
            kind: self.kind,
            path: &self.path,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            link: &self.link,
            xattrs: &self.xattrs,
            size: self.size,
            sparse: self.sparse.as_deref(),
        }
    }

    /// Returns whether packing accepts this object: its path, its text if it is a symlink, its owner and the length of
    /// its headers.
    fn accepted(&self) -> bool {
        limits::path(&self.path).is_ok()
            && (self.kind != Kind::Symlink || limits::symlink(&self.link).is_ok())
            && limits::owner(self.uid)
            && limits::owner(self.gid)
            && self.head().encode().len() <= limits::MAX_HEAD
    }

    fn read_back(&self) -> Entry {
        let head = self.head();
        let mut stream = head.encode();
        if let Some(map) = &self.sparse {
            stream.extend_from_slice(&sparse::encode(map, self.size));
        }
        let mut buffer = [0; 512];
        let entry = Decode::new(stream.as_slice()).next(&mut buffer);
        entry
            .unwrap_or_else(|e| panic!("{self:?}: {e}"))
            .unwrap_or_else(|| panic!("{self:?}: the end"))
    }
}

/// Values at most 2 away from those in `around`, which are the limits of the fields that store them, and any other
/// `i64`.
fn edges(around: &'static [i128]) -> impl Strategy<Value = i128> {
    let near = (0..around.len(), -2_i128..=2).prop_map(|(i, d)| around[i] + d);
    prop_oneof![near, any::<i64>().prop_map(i128::from)]
}

fn seconds() -> impl Strategy<Value = i64> {
    edges(&[
        i64::MIN as i128,
        i64::MAX as i128,
        0,
        0o77_777_777_777,
        -1 << 31,
        1 << 31,
    ])
    .prop_map(|n| i64::try_from(n.clamp(i64::MIN.into(), i64::MAX.into())).unwrap())
}

fn nanoseconds() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(999_999_999), 0_u32..1_000_000_000]
}

fn id() -> impl Strategy<Value = u32> {
    edges(&[0, 0o7_777_777, 65_535, u32::MAX as i128])
        .prop_map(|n| u32::try_from(n.rem_euclid(1 << 32)).unwrap())
}

/// Sizes of files, at most `i64::MAX` minus 511 bytes, by which the last block may exceed the size. The test never
/// reads a file of that size to its end.
fn size() -> impl Strategy<Value = u64> {
    edges(&[0, 512, 0o77_777_777_777, i64::MAX as i128 - 512])
        .prop_map(|n| u64::try_from(n.clamp(0, i64::MAX as i128 - 511)).unwrap())
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..20),
        proptest::collection::vec(any::<u8>(), 90..260),
        proptest::collection::vec(any::<u8>(), 1000..1100),
    ]
    .prop_map(|mut n| {
        for b in &mut n {
            if *b == 0 || *b == b'/' {
                *b = b'_';
            }
        }
        if n == b"." || n == b".." {
            n = b"dots".to_vec();
        }
        n
    })
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(name(), 1..6).prop_map(|names| names.join(&b'/'))
}

fn xattrs() -> impl Strategy<Value = Xattrs> {
    let space = prop_oneof![Just("user."), Just("trusted."), Just("security.")];
    let name = (space, proptest::collection::vec(1_u8.., 1..40))
        .prop_map(|(space, rest)| [space.as_bytes(), &rest].concat());
    let value = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..50),
        (65_000_usize..65_537).prop_map(|n| vec![b'\n'; n]),
    ];
    proptest::collection::btree_map(name, value, 0..20).prop_map(|map| map.into_iter().collect())
}

/// A map in the form in which `sparse::find` makes it for a file of `size` bytes: only the last extent may end inside a
/// block.
fn map(size: u64) -> impl Strategy<Value = Option<Vec<Extent>>> {
    let cuts = proptest::collection::btree_set(0..=size / BLOCK, 0..9);
    (any::<bool>(), cuts, any::<bool>()).prop_map(move |(sparse, cuts, to_the_end)| {
        let cuts: Vec<u64> = cuts.into_iter().map(|block| block * BLOCK).collect();
        let mut map: Vec<Extent> = cuts
            .chunks_exact(2)
            .map(|c| Extent {
                offset: c[0],
                len: c[1] - c[0],
            })
            .collect();
        if let Some(last) = map.last_mut()
            && to_the_end
        {
            last.len = size - last.offset;
        }
        sparse.then_some(map)
    })
}

fn object() -> impl Strategy<Value = Object> {
    let kind = prop_oneof![
        Just(Kind::File),
        Just(Kind::Directory),
        Just(Kind::Symlink),
        Just(Kind::HardLink),
    ];
    let text = prop_oneof![
        proptest::collection::vec(1_u8.., 1..200),
        proptest::collection::vec(1_u8.., 4000..4200),
    ];
    let time = (seconds(), nanoseconds());
    let content = size().prop_flat_map(|size| (Just(size), map(size)));
    (
        kind,
        path(),
        (0_u32..=0o7777, id(), id()),
        time,
        (text, path()),
        xattrs(),
        content,
    )
        .prop_map(
            |(kind, path, (mode, uid, gid), time, (text, first), xattrs, (size, sparse))| {
                let file = kind == Kind::File;
                Object {
                    kind,
                    path,
                    mode,
                    uid,
                    gid,
                    mtime: Time {
                        seconds: time.0,
                        nanoseconds: time.1,
                    },
                    link: match kind {
                        Kind::Symlink => text,
                        // The first name was packed, so it is within the limits.
                        Kind::HardLink => first
                            .get(..first.len().min(4000))
                            .map_or(vec![], |f| f.strip_suffix(b"/").unwrap_or(f).to_vec()),
                        Kind::File | Kind::Directory => Vec::new(),
                    },
                    xattrs,
                    size: if file { size } else { 0 },
                    sparse: sparse.filter(|_| file),
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(object in object()) {
        let usable = object.kind != Kind::HardLink || limits::path(&object.link).is_ok();
        prop_assume!(usable && object.accepted());
        let entry = object.read_back();
        prop_assert_eq!(entry.path, object.path);
        prop_assert_eq!(entry.kind, object.kind);
        prop_assert_eq!((entry.mode, entry.uid, entry.gid), (object.mode, object.uid, object.gid));
        prop_assert_eq!(entry.mtime, object.mtime);
        prop_assert_eq!(entry.link, object.link);
        prop_assert_eq!(entry.xattrs, object.xattrs);
        prop_assert_eq!(entry.size, object.size);
        prop_assert_eq!(entry.sparse, object.sparse);
    }
}

#[test]
fn the_first_and_last_times_there_are() {
    for seconds in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX] {
        for nanoseconds in [0, 1, 999_999_999] {
            let mtime = Time {
                seconds,
                nanoseconds,
            };
            let object = Object {
                kind: Kind::File,
                path: b"f".to_vec(),
                mode: 0,
                uid: 0,
                gid: 0,
                mtime,
                link: Vec::new(),
                xattrs: Vec::new(),
                size: 0,
                sparse: None,
            };
            assert_eq!(object.read_back().mtime, mtime);
        }
    }
}
