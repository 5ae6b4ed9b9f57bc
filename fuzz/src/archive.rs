//! Archives of kept paths.

use crate::scratch;
use kho_archive::{Dest, UnpackError, UnpackOptions, list, unpack};
use std::fs;

const BLOCK: usize = 512;

/// Unpacks an archive after correcting the checksums of its headers, so that the fuzzer reaches the code behind them.
pub fn archive(data: &[u8]) {
    let mut data = data.to_vec();
    for block in data.chunks_exact_mut(BLOCK) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    let mut listed = 0;
    let mut good = true;
    for entry in list(data.as_slice()) {
        match entry {
            Ok(entry) => {
                assert!(entry.path.is_absolute());
                assert!(entry.data <= entry.size, "more data than file");
                listed += 1;
            }
            Err(error) => {
                let _ = error.to_string();
                good = false;
            }
        }
    }
    let home = scratch().join("archive");
    let place = home.join("place");
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&place).expect("a folder");
    fs::write(home.join("outside"), b"untouched").expect("a file");
    let options = UnpackOptions {
        drop_unsupported_xattrs: true,
        max_entries: 200,
        max_bytes: 1 << 20,
        ..UnpackOptions::default()
    };
    match unpack(
        data.as_slice(),
        &Dest::Into(place.clone()),
        &options,
        &mut |_| {},
    ) {
        Ok(stats) => {
            assert!(good, "unpacked what cannot be listed");
            assert_eq!(stats.entries, listed, "unpacked is not what was listed");
        }
        Err(UnpackError::Incomplete { .. }) => {}
        Err(error) => {
            let _ = error.to_string();
            let left: Vec<_> = fs::read_dir(&place)
                .expect("the folder")
                .flatten()
                .collect();
            assert!(left.is_empty(), "refused ({error}), and left {left:?}");
        }
    }
    let outside: Vec<_> = fs::read_dir(&home).expect("the folder").flatten().collect();
    assert_eq!(outside.len(), 2, "{outside:?}");
    assert_eq!(
        fs::read(home.join("outside")).expect("a file"),
        b"untouched"
    );
    assert!(fs::symlink_metadata(&place).expect("the place").is_dir());
}

pub fn archives() -> Vec<Vec<u8>> {
    let dir = scratch().join("pack");
    let _ = fs::remove_dir_all(&dir);
    let make = || {
        fs::create_dir_all(dir.join("d/e"))?;
        fs::write(dir.join("d/file"), b"content")?;
        fs::write(dir.join("d/e/empty"), b"")?;
        fs::hard_link(dir.join("d/file"), dir.join("d/same"))?;
        std::os::unix::fs::symlink("../file", dir.join("d/e/link"))?;
        let holes = fs::File::create(dir.join("d/holes"))?;
        std::os::unix::fs::FileExt::write_all_at(&holes, b"x", 0x10_0000)?;
        std::io::Result::Ok(())
    };
    make().expect("some files");
    let pack = |path: &str| {
        let mut archive = Vec::new();
        kho_archive::pack(
            &dir.join(path),
            &kho_archive::PackOptions::default(),
            &mut archive,
            &mut |_| {},
        )
        .expect("an archive");
        archive
    };
    vec![pack("d"), pack("d/file"), pack("d/e/link")]
}
