//! Writes Debian packages: the same contents give the same bytes, at any time and for any user.
//!
//! Format: deb(5), an ar archive of `debian-binary`, `control.tar.xz` and `data.tar.xz`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// One file of a package.
pub struct Entry {
    /// Content, or the target of a link.
    pub body: Body,
    /// Permissions.
    pub mode: u32,
}

/// Kind and content of a file.
pub enum Body {
    /// A regular file.
    File(Vec<u8>),
    /// A symbolic link.
    Link(String),
    /// A directory that exists although it is empty.
    Directory,
}

/// A package to be written.
pub struct Package {
    /// Fields of the control file, in order, without `Installed-Size`.
    pub control: Vec<(&'static str, String)>,
    /// `postinst`, `conffiles` …
    pub scripts: BTreeMap<&'static str, String>,
    /// The files, by their path without a leading slash.
    pub files: BTreeMap<PathBuf, Entry>,
    /// Time of all members, in seconds since the epoch.
    pub time: u64,
}

impl Package {
    /// An empty package.
    pub fn new(control: Vec<(&'static str, String)>, time: u64) -> Self {
        Self {
            control,
            scripts: BTreeMap::new(),
            files: BTreeMap::new(),
            time,
        }
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: impl Into<PathBuf>, mode: u32, content: impl Into<Vec<u8>>) {
        let body = Body::File(content.into());
        self.files.insert(path.into(), Entry { body, mode });
    }

    /// Adds a compressed text, as policy wants changelogs and manual pages.
    pub fn gzip(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let mut encoder = flate2::GzBuilder::new()
            .mtime(0)
            .write(Vec::new(), flate2::Compression::best());
        encoder.write_all(content)?;
        self.file(format!("{path}.gz"), 0o644, encoder.finish()?);
        Ok(())
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: impl Into<PathBuf>, to: &str) {
        let body = Body::Link(to.to_owned());
        self.files.insert(path.into(), Entry { body, mode: 0o777 });
    }

    /// Adds an empty directory.
    pub fn directory(&mut self, path: impl Into<PathBuf>) {
        let body = Body::Directory;
        self.files.insert(path.into(), Entry { body, mode: 0o755 });
    }

    /// Returns the bytes of the package.
    pub fn write(&self) -> Result<Vec<u8>> {
        let mut archive = ar::Builder::new(Vec::new());
        for (name, bytes) in [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar.xz", xz(&self.control_tar()?)?),
            ("data.tar.xz", xz(&self.data_tar()?)?),
        ] {
            let mut header = ar::Header::new(name.into(), bytes.len() as u64);
            header.set_mode(0o100_644);
            header.set_mtime(self.time);
            archive
                .append(&header, &*bytes)
                .with_context(|| format!("writing {name}"))?;
        }
        Ok(archive.into_inner()?)
    }

    fn control_tar(&self) -> Result<Vec<u8>> {
        let mut text = String::new();
        for (name, value) in &self.control {
            // The size comes before the description, which is the last field.
            if *name == "Description" {
                text.push_str(&format!("Installed-Size: {}\n", self.installed_kib()));
            }
            text.push_str(&format!("{name}: {value}\n"));
        }
        let sums: String = self
            .files
            .iter()
            .filter_map(|(path, entry)| match &entry.body {
                Body::File(bytes) => Some(format!("{}  {}\n", md5(bytes), path.display())),
                Body::Link(_) | Body::Directory => None,
            })
            .collect();
        let mut tar = self.tar();
        self.append_directory(&mut tar, Path::new(""))?;
        self.append_file(&mut tar, Path::new("control"), 0o644, text.as_bytes())?;
        self.append_file(&mut tar, Path::new("md5sums"), 0o644, sums.as_bytes())?;
        for (name, script) in &self.scripts {
            let mode = if *name == "conffiles" { 0o644 } else { 0o755 };
            self.append_file(&mut tar, Path::new(name), mode, script.as_bytes())?;
        }
        Ok(tar.into_inner()?)
    }

    fn data_tar(&self) -> Result<Vec<u8>> {
        let mut tar = self.tar();
        let mut made = BTreeSet::new();
        for (path, entry) in &self.files {
            let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
            parents.reverse();
            for parent in parents {
                if made.insert(parent.to_owned()) {
                    self.append_directory(&mut tar, parent)?;
                }
            }
            match &entry.body {
                Body::File(bytes) => self.append_file(&mut tar, path, entry.mode, bytes)?,
                Body::Link(to) => {
                    let mut header = self.header(entry.mode);
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    tar.append_link(&mut header, Path::new("./").join(path), to)?;
                }
                Body::Directory => {
                    if made.insert(path.clone()) {
                        self.append_directory(&mut tar, path)?;
                    }
                }
            }
        }
        Ok(tar.into_inner()?)
    }

    fn tar(&self) -> tar::Builder<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        tar.mode(tar::HeaderMode::Deterministic);
        tar
    }

    fn header(&self, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_mtime(self.time);
        header.set_uid(0);
        header.set_gid(0);
        // A name of four letters fits.
        let _ = header.set_username("root");
        let _ = header.set_groupname("root");
        header
    }

    fn append_file(
        &self,
        tar: &mut tar::Builder<Vec<u8>>,
        path: &Path,
        mode: u32,
        bytes: &[u8],
    ) -> Result<()> {
        let mut header = self.header(mode);
        header.set_size(bytes.len() as u64);
        append(tar, &mut header, &format!("./{}", path.display()), bytes)
    }

    fn append_directory(&self, tar: &mut tar::Builder<Vec<u8>>, path: &Path) -> Result<()> {
        let mut header = self.header(0o755);
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        let name = match path.to_string_lossy() {
            name if name.is_empty() => "./".to_owned(),
            name => format!("./{name}/"),
        };
        append(tar, &mut header, &name, &[])
    }

    /// Counts as dpkg-gencontrol does: each file in whole KiB, every other entry as one.
    fn installed_kib(&self) -> u64 {
        let size = |entry: &Entry| match &entry.body {
            Body::File(bytes) => (bytes.len() as u64).div_ceil(1024),
            Body::Link(_) | Body::Directory => 1,
        };
        self.files.values().map(size).sum()
    }
}

/// The `tar` crate drops a leading `./`, which dpkg's own archives have and lintian expects.
fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    header: &mut tar::Header,
    name: &str,
    bytes: &[u8],
) -> Result<()> {
    let field = &mut header.as_old_mut().name;
    ensure!(
        name.len() < field.len(),
        "{name} is longer than a tar header holds"
    );
    for (to, from) in field.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    header.set_cksum();
    tar.append(header, bytes)
        .with_context(|| format!("packing {name}"))
}

fn xz(bytes: &[u8]) -> Result<Vec<u8>> {
    let options = lzma_rust2::XzOptions::with_preset(6);
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options)?;
    writer.write_all(bytes)?;
    Ok(writer.finish()?)
}

/// MD5 (RFC 1321), which the format demands for `md5sums`; nothing relies on its strength.
fn md5(bytes: &[u8]) -> String {
    const SHIFTS: [[u32; 4]; 4] = [
        [7, 12, 17, 22],
        [5, 9, 14, 20],
        [4, 11, 16, 23],
        [6, 10, 15, 21],
    ];
    let mut state: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - bytes.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&((bytes.len() as u64) << 3).to_le_bytes());
    for block in padded.chunks_exact(64) {
        let words: Vec<u32> = block
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        let [mut a, mut b, mut c, mut d] = state;
        for step in 0..64_usize {
            let (mix, word) = match step / 16 {
                0 => ((b & c) | (!b & d), step),
                1 => ((d & b) | (!d & c), (5 * step + 1) % 16),
                2 => (b ^ c ^ d, (3 * step + 5) % 16),
                _ => (c ^ (b | !d), (7 * step) % 16),
            };
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss
            )]
            let constant = (((step + 1) as f64).sin().abs() * 4_294_967_296.0) as u32;
            let sum = a
                .wrapping_add(mix)
                .wrapping_add(constant)
                .wrapping_add(words[word]);
            let next = b.wrapping_add(sum.rotate_left(SHIFTS[step / 16][step % 4]));
            (a, d, c, b) = (d, c, b, next);
        }
        for (total, part) in state.iter_mut().zip([a, b, c, d]) {
            *total = total.wrapping_add(part);
        }
    }
    state
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_of_the_rfc() {
        assert_eq!(md5(b""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(md5(b"message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
        let digits = b"1234567890".repeat(8);
        assert_eq!(md5(&digits), "57edf4a22be3c955ac49da2e2107b67a");
        for len in [55, 56, 63, 64, 65] {
            assert_eq!(md5(&vec![b'a'; len]).len(), 32);
        }
    }

    #[test]
    fn the_same_contents_are_the_same_bytes_and_unpack() {
        let make = || {
            let control = vec![("Package", "x".to_owned()), ("Description", "y".to_owned())];
            let mut package = Package::new(control, 1_700_000_000);
            package.file("usr/bin/x", 0o755, "program");
            package.link("usr/bin/y", "x");
            package.directory("etc/x");
            package.scripts.insert("postinst", "#!/bin/sh\n".to_owned());
            package.write().expect("a package")
        };
        let bytes = make();
        assert_eq!(bytes, make());
        let dir = std::env::temp_dir().join(format!("xtask-dist-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        let file = dir.join("x.deb");
        std::fs::write(&file, bytes).expect("a temporary file");
        kho_lab::deb::unpack(&file, &dir, |_| true).expect("a good package");
        let content = std::fs::read(dir.join("usr/bin/x")).expect("the program");
        assert_eq!(content, b"program");
        assert_eq!(
            std::fs::read_link(dir.join("usr/bin/y")).expect("the link"),
            Path::new("x")
        );
        std::fs::remove_dir_all(&dir).expect("a temporary directory");
    }
}
