//! Archives made by hand, and places that unpacking must not touch.

use std::fs;

use kho_archive::{Dest, FormatError, UnpackError, UnpackOptions, list, unpack};
use tar::{EntryType, Header};

use super::Scratch;

/// An archive made by hand.
#[derive(Default, Clone)]
pub struct Make(pub Vec<u8>);

impl Make {
    pub fn head(mut self, ty: u8, name: &[u8], link: &[u8], size: u64) -> Self {
        let mut h = Header::new_ustar();
        h.set_entry_type(EntryType::new(ty));
        for (field, value) in [(0, name), (157, link)] {
            h.as_mut_bytes()[field..][..value.len()].copy_from_slice(value);
        }
        h.set_mode(0o755);
        h.set_uid(u64::from(rustix::process::geteuid().as_raw()));
        h.set_gid(u64::from(rustix::process::getegid().as_raw()));
        h.set_mtime(7);
        h.set_size(size);
        h.set_cksum();
        self.0.extend_from_slice(h.as_bytes());
        self
    }

    pub fn body(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn dir(self, name: &str) -> Self {
        self.head(b'5', format!("{name}/").as_bytes(), b"", 0)
    }

    pub fn file(self, name: &str, text: &str) -> Self {
        self.head(b'0', name.as_bytes(), b"", text.len() as u64)
            .body(text.as_bytes())
    }

    pub fn pax(self, records: &[(&[u8], &[u8])]) -> Self {
        let mut body = Vec::new();
        for (k, v) in records {
            let rest = k.len() + v.len() + 3;
            let len = (1..).find(|n| *n == rest + n.to_string().len()).unwrap();
            body.extend_from_slice(&[len.to_string().as_bytes(), b" ", k, b"=", v, b"\n"].concat());
        }
        self.head(b'x', b"pax", b"", body.len() as u64).body(&body)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub fn start() -> Make {
    Make::default()
}

/// A place that must stay empty, beside an object outside of it that must not change.
pub struct Cell(pub Scratch);

impl Cell {
    pub fn new() -> Self {
        let s = Scratch::new();
        fs::create_dir(s.join("in")).unwrap();
        fs::write(s.join("outside"), b"untouched").unwrap();
        Self(s)
    }

    pub fn dest(&self) -> Dest {
        Dest::Into(self.0.join("in"))
    }

    pub fn untouched(&self) {
        let names: Vec<_> = fs::read_dir(&self.0.0)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(fs::read(self.0.join("outside")).unwrap(), b"untouched");
    }

    pub fn empty(&self) {
        self.untouched();
        let left: Vec<_> = fs::read_dir(self.0.join("in")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Checks that unpacking `archive` fails with `want` at `offset`, and leaves nothing behind.
#[track_caller]
pub fn refused(archive: &[u8], offset: u64, want: &str) -> FormatError {
    let cell = Cell::new();
    let r = unpack(
        archive,
        &cell.dest(),
        &UnpackOptions::default(),
        &mut |_| {},
    );
    cell.empty();
    match r {
        Err(UnpackError::Format(e)) => {
            let said = e.to_string();
            assert!(said.contains(want), "{said:?} does not say {want:?}");
            assert_eq!(e.offset, offset, "{said}");
            e
        }
        other => panic!("wanted {want:?}, got {other:?}"),
    }
}

/// Checks that unpacking refuses `archive`, and that the parser alone refuses it too.
#[track_caller]
pub fn refused_by_parser(archive: &[u8], offset: u64, want: &str) {
    refused(archive, offset, want);
    let e = list(archive)
        .find_map(Result::err)
        .expect("list accepts it");
    assert!(e.to_string().contains(want), "{e}");
}

/// Returns a sparse file of this size, with its map and data.
pub fn sparse(size: &str, map: &str, data: usize) -> Vec<u8> {
    let mut body = map.as_bytes().to_vec();
    body.resize(body.len().next_multiple_of(512), 0);
    body.resize(body.len() + data, b'd');
    start()
        .pax(&[
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", b"f"),
            (b"GNU.sparse.realsize", size.as_bytes()),
        ])
        .head(b'0', b"x", b"", body.len() as u64)
        .body(&body)
        .end()
}
