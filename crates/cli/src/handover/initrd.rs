//! The initrd of the next kernel: one or several files, read and joined.

use crate::args;
use crate::exit::{Fail, Status, chain};
use crate::output::Output;
use crate::shown;
use kho_kexec::image;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Alignment of the files, in bytes: the kernel looks for the next archive at multiples of it (`unpack_to_rootfs`,
/// `init/initramfs.c`, 5.10 to 7.3), and boot loaders align the files that they join.
const ALIGN: usize = 4;

/// Returns the initrd files of the next kernel: the files that `args` name, else the one that belongs to the kernel, if
/// it exists. A unified kernel image has an initrd of its own.
pub fn of(args: &args::Next) -> Vec<PathBuf> {
    if args.no_initrd || !args.initrd.is_empty() {
        return args.initrd.clone();
    }
    beside(&args.kernel).into_iter().collect()
}

/// Returns the initrd that the installation of this kernel put beside it.
pub fn beside(kernel: &Path) -> Option<PathBuf> {
    // /vmlinuz is a link to the folder that has both files.
    let kernel = kernel.canonicalize().ok()?;
    let names = names(kernel.file_name()?);
    let paths = names.iter().map(|name| kernel.with_file_name(name));
    paths.into_iter().find(|path| path.is_file())
}

/// Returns the possible names of an initrd for a kernel with this file name.
fn names(kernel: &OsStr) -> Vec<OsString> {
    let name = kernel.as_bytes();
    // kernel-install(8), the layout of the Boot Loader Specification.
    if name == b"linux" {
        return vec!["initrd".into()];
    }
    let version = [&b"vmlinuz-"[..], b"kernel-", b"bzImage-"]
        .iter()
        .find_map(|prefix| name.strip_prefix(*prefix));
    let Some(version) = version.filter(|version| !version.is_empty()) else {
        return Vec::new();
    };
    // Debian; Fedora and Arch Linux; SUSE.
    [("initrd.img-", ""), ("initramfs-", ".img"), ("initrd-", "")]
        .map(|(before, after)| {
            OsString::from_vec([before.as_bytes(), version, after.as_bytes()].concat())
        })
        .to_vec()
}

/// Reports the initrd that was found beside the kernel, or that there was none.
pub fn report(args: &args::Next, out: Output) {
    if args.no_initrd || !args.initrd.is_empty() {
        return;
    }
    match beside(&args.kernel) {
        Some(path) => out.remark(&format!(
            "the initrd is {}, which is beside the kernel; --no-initrd boots without it",
            shown::path(&path)
        )),
        None => out.warn(&format!(
            "no initrd is named, and none is beside {}: a kernel that needs one finds no root file system; --no-initrd says that it needs none",
            shown::path(&args.kernel)
        )),
    }
}

/// Reads the files and joins them in order, as a boot loader does; `None` if there are no files.
///
/// # Errors
///
/// [`Status::BadInitrd`], with the name of the file.
pub fn read(paths: &[PathBuf]) -> Result<Option<Vec<u8>>, Fail> {
    let mut joined: Option<Vec<u8>> = None;
    for path in paths {
        let bytes = one(path)?;
        join(&mut joined, bytes);
    }
    Ok(joined)
}

/// Checks and joins the parts of the initrd in a unified kernel image; `None` if there are no parts.
///
/// # Errors
///
/// [`Status::BadInitrd`], with the name of the image.
pub fn of_parts(image: &Path, parts: &[&[u8]]) -> Result<Option<Vec<u8>>, Fail> {
    let mut joined: Option<Vec<u8>> = None;
    for part in parts.iter().filter(|part| !part.is_empty()) {
        check(image, part)?;
        join(&mut joined, part.to_vec());
    }
    Ok(joined)
}

fn join(joined: &mut Option<Vec<u8>>, mut bytes: Vec<u8>) {
    match joined {
        None => *joined = Some(bytes),
        Some(before) => {
            before.resize(before.len().next_multiple_of(ALIGN), 0);
            before.append(&mut bytes);
        }
    }
}

fn one(path: &Path) -> Result<Vec<u8>, Fail> {
    let bytes = std::fs::read(path).map_err(|err| {
        Fail::new(
            Status::BadInitrd,
            format!("cannot read the initrd {}: {err}", shown::path(path)),
        )
        .fix("name the initrd that belongs to the kernel, as in /boot/initrd.img-*")
    })?;
    check(path, &bytes)?;
    Ok(bytes)
}

fn check(path: &Path, bytes: &[u8]) -> Result<(), Fail> {
    image::check_initrd(bytes).map(drop).map_err(|err| {
        Fail::new(
            Status::BadInitrd,
            format!("{}: {}", shown::path(path), chain(&err)),
        )
    })
}

/// Returns an open file with these bytes, for `kexec_file_load`.
///
/// # Errors
///
/// [`Status::Failed`] if there is not enough memory.
pub fn open(name: &str, bytes: &[u8]) -> Result<File, Fail> {
    let file = || -> std::io::Result<File> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::memfd_create(name, flags)?);
        file.write_all(bytes)?;
        Ok(file)
    };
    file().map_err(|err| {
        Fail::new(
            Status::Failed,
            format!("cannot hold the {name} in memory: {err}"),
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
    fn the_initrd_that_belongs_to_a_kernel_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, b"x").unwrap();
            path
        };
        let kernel = put("vmlinuz-6.12.95+deb12-amd64");
        put("initrd.img-6.1.0-50-amd64");
        assert_eq!(beside(&kernel), None);
        let initrd = put("initrd.img-6.12.95+deb12-amd64");
        assert_eq!(beside(&kernel), Some(initrd.clone()));
        let link = dir.path().join("vmlinuz");
        std::os::unix::fs::symlink(&kernel, &link).unwrap();
        assert_eq!(beside(&link), Some(initrd));
        assert_eq!(
            beside(&put("vmlinuz-linux")),
            None,
            "a kernel without one beside it"
        );
        let arch = put("initramfs-linux.img");
        assert_eq!(beside(&dir.path().join("vmlinuz-linux")), Some(arch));
        assert_eq!(names(OsStr::new("linux")), ["initrd"]);
        assert!(names(OsStr::new("vmlinuz-")).is_empty());
        assert!(names(OsStr::new("memtest86+x64.bin")).is_empty());
        assert_eq!(beside(Path::new("/nonexistent/vmlinuz-1")), None);
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
        // After a file of this length, the next archive would not be aligned.
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
        let opened = open("initrd", &joined).unwrap();
        assert_eq!(size(opened), joined.len() as u64);
        let parts = of_parts(Path::new("x.efi"), &[&first, b"", &archive(b"main")]);
        assert_eq!(parts.unwrap(), Some(joined));
        assert_eq!(of_parts(Path::new("x.efi"), &[b""]).unwrap(), None);
        let fail = of_parts(Path::new("x.efi"), &[&first, b"no initrd"]).unwrap_err();
        assert!(fail.what.contains("x.efi"), "{}", fail.what);
        // Each file must exist and must be an initrd.
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
