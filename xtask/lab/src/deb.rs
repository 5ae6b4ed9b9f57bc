//! Unpacks Debian packages without dpkg or tar.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Unpacks the regular files and links of a .deb whose path (without a leading `./`) passes `wanted`.
pub fn unpack(deb: &Path, into: &Path, wanted: impl Fn(&Path) -> bool) -> Result<()> {
    unpack_at(deb, into, |path| wanted(path).then(|| path.to_owned()))
}

/// Unpacks regular files and links of a .deb to the path that `place` returns for each path (without a leading `./`).
pub fn unpack_at(deb: &Path, into: &Path, place: impl Fn(&Path) -> Option<PathBuf>) -> Result<()> {
    let file = File::open(deb).with_context(|| format!("opening {}", deb.display()))?;
    let mut members = ar::Archive::new(file);
    while let Some(member) = members.next_entry() {
        let member = member.with_context(|| format!("reading {}", deb.display()))?;
        let name = String::from_utf8_lossy(member.header().identifier())
            .trim_end_matches('/')
            .to_owned();
        if let Some(compression) = name.strip_prefix("data.tar") {
            let data = decoder(compression, member)
                .with_context(|| format!("{name} of {}", deb.display()))?;
            return unpack_tar(data, into, place)
                .with_context(|| format!("unpacking {}", deb.display()));
        }
    }
    bail!("{} has no data.tar: it is no Debian package", deb.display())
}

/// Returns a reader of the decompressed content of a file whose name has this suffix.
pub fn decoder<'a>(suffix: &str, from: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    Ok(match suffix {
        "" => Box::new(from),
        ".gz" => Box::new(flate2::read::GzDecoder::new(from)),
        ".xz" => Box::new(lzma_rust2::XzReader::new(from, true)),
        ".zst" => {
            Box::new(ruzstd::decoding::StreamingDecoder::new(from).context("no zstd stream")?)
        }
        _ => bail!("{suffix:?} is a compression that is not known here"),
    })
}

fn unpack_tar(
    data: impl Read,
    into: &Path,
    place: impl Fn(&Path) -> Option<PathBuf>,
) -> Result<()> {
    let mut archive = tar::Archive::new(data);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if !kind.is_file() && !kind.is_symlink() && !kind.is_hard_link() {
            continue;
        }
        let path = inside(&entry.path()?)?;
        let Some(target) = place(&path) else {
            continue;
        };
        let target = into.join(target);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("making {}", parent.display()))?;
        }
        if kind.is_hard_link() {
            let other = entry.link_name()?.context("a link to nothing")?;
            // The target of a link comes before the link, unless the caller did not want it.
            if let Some(from) = place(&inside(&other)?) {
                std::fs::hard_link(into.join(from), &target)
                    .with_context(|| format!("linking {}", target.display()))?;
            }
            continue;
        }
        entry
            .unpack(&target)
            .with_context(|| format!("writing {}", target.display()))?;
    }
    Ok(())
}

/// Returns a path of a package as a relative path. Fails if it leaves the package.
fn inside(path: &Path) -> Result<PathBuf> {
    let path = path.strip_prefix("./").unwrap_or(path);
    if !path
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        bail!("the path {} leaves the package", path.display());
    }
    Ok(path.to_owned())
}

/// Returns the path of a package's file in a system whose `/bin`, `/lib` and so on are links into `/usr`; `None` if the
/// file is not below `/usr` in such a system.
pub fn merged(path: &Path) -> Option<PathBuf> {
    const INTO_USR: [&str; 5] = ["bin", "lib", "lib32", "lib64", "sbin"];
    if INTO_USR.iter().any(|name| path.starts_with(name)) {
        // The name alone is the link itself, so it has no path below `/usr`.
        return (path.components().count() > 1).then(|| Path::new("usr").join(path));
    }
    path.starts_with("usr").then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package as `dpkg-deb` would make it, uncompressed.
    fn package(names: &[&str]) -> Vec<u8> {
        let mut data = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(4);
            header.set_mode(0o644);
            header.set_cksum();
            data.append(&header, &b"text"[..])
                .expect("a vector takes everything");
        }
        let data = data.into_inner().expect("a vector takes everything");
        let mut deb = ar::Builder::new(Vec::new());
        for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), ("data.tar", &data)] {
            let header = ar::Header::new(name.into(), bytes.len() as u64);
            deb.append(&header, bytes)
                .expect("a vector takes everything");
        }
        deb.into_inner().expect("a vector takes everything")
    }

    #[test]
    fn wanted_files_only_and_none_outside() {
        let dir = std::env::temp_dir().join(format!("xtask-deb-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        let deb = dir.join("x.deb");
        std::fs::write(&deb, package(&["./usr/a", "./usr/b"])).expect("a temporary file");
        unpack(&deb, &dir, |path| path == Path::new("usr/b")).expect("a good package");
        assert!(dir.join("usr/b").exists() && !dir.join("usr/a").exists());

        std::fs::write(&deb, package(&["./../evil"])).expect("a temporary file");
        let error = unpack(&deb, &dir, |_| true).expect_err("a path that leaves");
        assert!(
            format!("{error:#}").contains("leaves the package"),
            "{error:#}"
        );
        std::fs::remove_dir_all(&dir).expect("a temporary directory");
    }

    #[test]
    fn all_is_in_usr() {
        let place = |path: &str| merged(Path::new(path));
        assert_eq!(place("lib64/ld.so"), Some("usr/lib64/ld.so".into()));
        assert_eq!(place("usr/bin/gcc"), Some("usr/bin/gcc".into()));
        assert_eq!(place("lib64"), None);
        assert_eq!(place("etc/x"), None);
    }
}
