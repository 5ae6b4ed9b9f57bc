//! The next kernel's initrd: one file or several, read and joined.

use crate::exit::{Fail, Status, chain};
use crate::shown;
use kho_kexec::image;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The kernel looks for the next archive at multiples of this (`unpack_to_rootfs`, `init/initramfs.c`, 5.10 to 7.3), and
/// boot loaders join files so.
const ALIGN: usize = 4;

/// The files in their order, as a boot loader would load them; none without files.
///
/// # Errors
///
/// [`Status::BadInitrd`], which names the file.
pub fn read(paths: &[PathBuf]) -> Result<Option<Vec<u8>>, Fail> {
    let mut joined: Option<Vec<u8>> = None;
    for path in paths {
        let mut bytes = one(path)?;
        joined = Some(match joined {
            None => bytes,
            Some(mut before) => {
                before.resize(before.len().next_multiple_of(ALIGN), 0);
                before.append(&mut bytes);
                before
            }
        });
    }
    Ok(joined)
}

fn one(path: &Path) -> Result<Vec<u8>, Fail> {
    let bytes = std::fs::read(path).map_err(|err| {
        Fail::new(
            Status::BadInitrd,
            format!("cannot read the initrd {}: {err}", shown::path(path)),
        )
        .fix("name the initrd that belongs to the kernel, as in /boot/initrd.img-*")
    })?;
    image::check_initrd(&bytes).map_err(|err| {
        Fail::new(
            Status::BadInitrd,
            format!("{}: {}", shown::path(path), chain(&err)),
        )
    })?;
    Ok(bytes)
}

/// The files as one open file, for `kexec_file_load`, which takes one.
///
/// # Errors
///
/// As [`read`], and [`Status::Failed`] when there is no memory for it.
pub fn open(paths: &[PathBuf]) -> Result<Option<File>, Fail> {
    let Some(bytes) = read(paths)? else {
        return Ok(None);
    };
    let joined = || -> std::io::Result<File> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::memfd_create("initrd", flags)?);
        file.write_all(&bytes)?;
        Ok(file)
    };
    joined().map(Some).map_err(|err| {
        Fail::new(
            Status::Failed,
            format!("cannot hold the initrd in memory: {err}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kho_kexec::cpio;

    fn archive(name: &[u8]) -> Vec<u8> {
        let mut writer = cpio::Writer::new();
        writer.file(name, 0o644, b"x").unwrap();
        writer.finish()
    }

    #[test]
    fn several_initrds_are_joined_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let mut first = archive(b"microcode");
        // A length that the next archive must not begin at.
        first.push(0);
        let (a, b) = (file("a", &first), file("b", &archive(b"main")));
        let joined = read(&[a.clone(), b.clone()]).unwrap().unwrap();
        assert_eq!(joined.len() % ALIGN, 0);
        let name = |at: usize| cpio::entries(&joined[at..]).next().map(|entry| entry.name);
        assert_eq!(name(0), Some(&b"microcode"[..]));
        assert_eq!(name(first.len() + 3), Some(&b"main"[..]));
        assert_eq!(read(std::slice::from_ref(&a)).unwrap().unwrap(), first);
        assert_eq!(read(&[]).unwrap(), None);
        let size = |file: File| file.metadata().unwrap().len();
        let opened = open(&[a.clone(), b.clone()]).unwrap().unwrap();
        assert_eq!(size(opened), joined.len() as u64);
        // Each of them has to be there and to be an initrd.
        for paths in [
            [dir.path().join("none"), b.clone()],
            [a.clone(), dir.path().join("none")],
            [file("text", b"no initrd"), b.clone()],
        ] {
            let fail = read(&paths).unwrap_err();
            assert_eq!(fail.status, Status::BadInitrd);
            assert!(
                fail.what.contains("none") || fail.what.contains("text"),
                "{}",
                fail.what
            );
        }
    }
}
