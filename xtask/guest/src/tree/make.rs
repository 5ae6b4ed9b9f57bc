//! `kho-guest make-tree` and `kho-guest bytes`

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kho_guest::random::Random;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, utimensat,
};

/// Writes `len` bytes to standard output, which `seed` determines.
pub fn bytes(len: u64, seed: u64) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Random(seed)
        .write(len, &mut out)
        .context("writing to standard output")?;
    out.flush().context("writing to standard output")
}

/// Makes the tree. Entries whose mode, owner or times were set are not touched afterwards, directories last.
pub fn make(dir: &Path, bytes: u64, entries: u64, seed: u64, user_xattrs: bool) -> Result<()> {
    std::fs::create_dir(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut maker = Maker {
        random: Random(seed),
        user_xattrs,
        dirs: vec![dir.to_owned()],
        files: Vec::new(),
    };
    maker.oddities(dir)?;
    maker.files(bytes)?;
    maker.sparse(dir)?;
    maker.links(dir)?;
    maker.many(entries)?;
    maker.finish()?;
    println!(
        "made {} files and {} directories, {entries} of the entries small",
        maker.files.len(),
        maker.dirs.len()
    );
    Ok(())
}

struct Maker {
    random: Random,
    user_xattrs: bool,
    dirs: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Maker {
    /// Names and sizes that programs often handle wrongly.
    fn oddities(&mut self, dir: &Path) -> Result<()> {
        let odd = dir.join("odd");
        std::fs::create_dir(&odd)?;
        let long = "n".repeat(255);
        let names: [&[u8]; 7] = [
            b"with space",
            b"new\nline",
            b"not utf-8 \xff\xfe",
            "naïve ☃".as_bytes(),
            b"-rf",
            b"..hidden",
            long.as_bytes(),
        ];
        for (index, name) in (0_u64..).zip(names) {
            let path = odd.join(OsStr::from_bytes(name));
            self.file(path, [0, 1, 4095, 4096, 4097][usize::try_from(index % 5)?])?;
        }
        std::fs::create_dir(dir.join("empty directory"))?;
        self.dirs.extend([odd, dir.join("empty directory")]);
        Ok(())
    }

    /// Random files in random directories until the bytes are used up.
    fn files(&mut self, mut bytes: u64) -> Result<()> {
        let typical = (bytes / 256).clamp(512, 1 << 20);
        for index in 0_u64.. {
            if bytes == 0 {
                break;
            }
            if index % 8 == 0 {
                let parent = self.random_dir();
                let dir = parent.join(format!("d{index}"));
                std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
                self.dirs.push(dir);
            }
            let len = self.random.below(typical * 2).min(bytes);
            // At most one file in 16 is empty, so that the loop ends for all random numbers.
            let len = if len == 0 && index % 16 != 0 {
                bytes.min(1)
            } else {
                len
            };
            bytes -= len;
            let path = self.random_dir().join(format!("f{index}"));
            self.file(path, len)?;
        }
        Ok(())
    }

    /// A file of data, a hole and data; and a file that is one hole.
    fn sparse(&mut self, dir: &Path) -> Result<()> {
        let path = dir.join("sparse");
        let mut file = File::create(&path)?;
        self.random.write(10_000, &mut file)?;
        file.seek(SeekFrom::Start(8 << 20))?;
        self.random.write(10_000, &mut file)?;
        let hole = dir.join("hole");
        File::create(&hole)?.set_len(5 << 20)?;
        self.decorate(&path)?;
        self.decorate(&hole)?;
        self.files.extend([path, hole]);
        Ok(())
    }

    fn links(&mut self, dir: &Path) -> Result<()> {
        let targets: [OsString; 4] = [
            "odd/with space".into(),
            "missing".into(),
            "/etc/nowhere".into(),
            "..".into(),
        ];
        for (index, target) in targets.iter().enumerate() {
            let path = dir.join(format!("symlink{index}"));
            symlink(target, &path)?;
            lchown(&path, Some(1000), Some(100))?;
            self.set_time(&path)?;
        }
        for (index, file) in self.files.clone().iter().step_by(20).enumerate() {
            let link = self.random_dir().join(format!("hardlink{index}"));
            std::fs::hard_link(file, &link)
                .with_context(|| format!("linking {}", link.display()))?;
        }
        Ok(())
    }

    /// Many small entries of all kinds, in random directories.
    fn many(&mut self, entries: u64) -> Result<()> {
        for index in 0..entries {
            let path = self.random_dir().join(format!("m{index}"));
            match index % 10 {
                0..=5 => {
                    let len = self.random.below(6000);
                    self.file(path, len)?;
                }
                6 => {
                    std::fs::create_dir(&path)
                        .with_context(|| format!("making {}", path.display()))?;
                    self.dirs.push(path);
                }
                7 => {
                    let target = "../".repeat(self.random.index(60)) + "somewhere";
                    symlink(target, &path)?;
                    let group = u32::try_from(self.random.below(1 << 24))?;
                    lchown(&path, Some(33), Some(group))?;
                    self.set_time(&path)?;
                }
                8 => {
                    let file = self.random.index(self.files.len());
                    std::fs::hard_link(&self.files[file], &path)
                        .with_context(|| format!("linking {}", path.display()))?;
                }
                _ => {
                    let kind = self.random.pick(&[
                        FileType::Fifo,
                        FileType::Socket,
                        FileType::CharacterDevice,
                        FileType::BlockDevice,
                    ]);
                    let device = rustix::fs::makedev(7, u32::try_from(self.random.below(1 << 18))?);
                    mknodat(CWD, &path, kind, Mode::from(0o600), device)?;
                    self.decorate(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Sets times of directories last, deepest first, because making entries changes them.
    fn finish(&mut self) -> Result<()> {
        let mut dirs = self.dirs.clone();
        dirs.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
        for dir in dirs {
            let mode = self.random.pick(&[0o755, 0o700, 0o1777, 0o2750, 0o555]);
            self.own(&dir, mode)?;
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, len: u64) -> Result<()> {
        let mut file =
            File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
        self.random
            .write(len, &mut file)
            .with_context(|| format!("writing {}", path.display()))?;
        self.decorate(&path)?;
        self.files.push(path);
        Ok(())
    }

    fn decorate(&mut self, path: &Path) -> Result<()> {
        if self.random.below(4) == 0 {
            let value = self.random.number().to_le_bytes();
            rustix::fs::setxattr(path, "trusted.kho-guest", &value, XattrFlags::CREATE)
                .with_context(|| format!("setting an attribute of {}", path.display()))?;
            // Only files and directories have user attributes: xattr(7).
            if self.user_xattrs && path.is_file() {
                rustix::fs::setxattr(path, "user.note", &value[..3], XattrFlags::CREATE)
                    .with_context(|| format!("setting a user attribute of {}", path.display()))?;
            }
        }
        let mode = self
            .random
            .pick(&[0o644, 0o600, 0o755, 0o444, 0o000, 0o666]);
        self.own(path, mode)
    }

    fn own(&mut self, path: &Path, mode: u32) -> Result<()> {
        let owner = self.random.pick(&[0, 33, 1000, 65534]);
        chown(path, Some(owner), Some(owner / 2))
            .with_context(|| format!("owner of {}", path.display()))?;
        // After the owner: chown clears the set-group-id bit.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .with_context(|| format!("mode of {}", path.display()))?;
        self.set_time(path)
    }

    fn set_time(&mut self, path: &Path) -> Result<()> {
        let time = Timespec {
            tv_sec: i64::try_from(self.random.below(1 << 31))?,
            tv_nsec: i64::try_from(self.random.below(1_000_000_000))?,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("time of {}", path.display()))
    }

    fn random_dir(&mut self) -> PathBuf {
        let index = usize::try_from(self.random.below(self.dirs.len() as u64)).unwrap_or(0);
        self.dirs[index].clone()
    }
}
