//! `kho-guest churn`: random operations on a directory; the same numbers give the same operations.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::tree::Random;
use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags,
    fallocate, mknodat, renameat_with, utimensat,
};
use rustix::io::Errno;

/// Bytes up to which files are written at random places.
const REACH: u64 = 3 << 20;

/// Number of files at which no file is made any more; one is removed instead.
const MOST_FILES: usize = 120;

/// Which operations.
#[derive(clap::Args)]
pub struct Arguments {
    /// Directory; must exist.
    dir: PathBuf,
    /// Number from which everything follows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// First round that is done to the directory, in which those before it were done already.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Last round.
    #[arg(long)]
    last: u64,
    /// Operations in a round.
    #[arg(long, default_value_t = 300)]
    steps: u64,
}

/// Runs the rounds. The model knows the entries without reading the directory, so that two directories get the same
/// operations.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut model = Model::default();
    for round in 0..=arguments.last {
        let mut random = Random(arguments.seed.wrapping_mul(1_000_003).wrapping_add(round));
        let dir = (round >= arguments.first).then_some(arguments.dir.as_path());
        for step in 0..arguments.steps {
            model
                .step(&mut random, round * arguments.steps + step, dir)
                .with_context(|| format!("round {round}, step {step}"))?;
        }
        if let Some(dir) = dir {
            model.settle(dir, round)?;
        }
    }
    println!(
        "seed {}, rounds {} to {} of {} steps: {} directories, {} files, {} links and others",
        arguments.seed,
        arguments.first,
        arguments.last,
        arguments.steps,
        model.dirs.len(),
        model.files.len(),
        model.links.len()
    );
    Ok(())
}

/// Entries that exist, by paths relative to the directory.
#[derive(Default)]
struct Model {
    dirs: Vec<String>,
    files: Vec<Name>,
    /// Symbolic links, and other entries without content.
    links: Vec<String>,
}

/// A name of a regular file.
#[derive(Clone)]
struct Name {
    path: String,
    /// The step that made the file; the same for all its names.
    file: u64,
}

impl Model {
    fn step(&mut self, random: &mut Random, number: u64, dir: Option<&Path>) -> Result<()> {
        let parent = match random.index(self.dirs.len() + 1) {
            0 => String::new(),
            at => format!("{}/", self.dirs[at - 1]),
        };
        let fresh = format!("{parent}{number}");
        let file = (!self.files.is_empty()).then(|| {
            let at = random.index(self.files.len());
            (at, self.files[at].path.clone())
        });
        let (offset, len) = (random.below(REACH), random.below(200_000) + 1);
        let what = match random.below(128) {
            // At the limit, half of the operations that would make a file remove one instead.
            0..=17 | 90..=93 if self.files.len() >= MOST_FILES => 70,
            what => what,
        };
        let open = |dir: &Path, path: &str| OpenOptions::new().write(true).open(dir.join(path));
        match (what, file) {
            (0..=17, _) => {
                if let Some(dir) = dir {
                    write(&File::create(dir.join(&fresh))?, 0, len, number)?;
                }
                self.files.push(Name {
                    path: fresh,
                    file: number,
                });
            }
            (18..=23, _) => {
                if let Some(dir) = dir {
                    std::fs::create_dir(dir.join(&fresh))?;
                }
                self.dirs.push(fresh);
            }
            (24..=27, _) => {
                if let Some(dir) = dir {
                    std::os::unix::fs::symlink(format!("target-{number}"), dir.join(&fresh))?;
                }
                self.links.push(fresh);
            }
            (28..=30, _) if !self.dirs.is_empty() => {
                let at = random.index(self.dirs.len());
                let path = self.dirs[at].clone();
                let empty = self.is_empty(&path);
                if let Some(dir) = dir {
                    let removed = std::fs::remove_dir(dir.join(&path));
                    anyhow::ensure!(removed.is_ok() == empty, "{path}: {removed:?}");
                }
                if empty {
                    self.dirs.swap_remove(at);
                }
            }
            (31..=45, Some((_, path))) => {
                if let Some(dir) = dir {
                    write(&open(dir, &path)?, offset, len, number)?;
                }
            }
            (46..=51, Some((_, path))) => {
                if let Some(dir) = dir {
                    let file = open(dir, &path)?;
                    write(&file, file.metadata()?.len(), len, number)?;
                }
            }
            (52..=58, Some((_, path))) => {
                if let Some(dir) = dir {
                    open(dir, &path)?.set_len(offset)?;
                }
            }
            (59..=65, Some((_, path))) => {
                if let Some(dir) = dir {
                    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    fallocate(open(dir, &path)?, how, offset / 2, len * 3)?;
                }
            }
            (66..=69, Some((_, path))) => {
                if let Some(dir) = dir {
                    fallocate(open(dir, &path)?, FallocateFlags::empty(), offset / 2, len)?;
                }
            }
            (70..=79, Some((at, path))) => {
                if let Some(dir) = dir {
                    std::fs::remove_file(dir.join(&path))?;
                }
                self.files.swap_remove(at);
            }
            (80..=86, Some((at, path))) => {
                if let Some(dir) = dir {
                    std::fs::rename(dir.join(&path), dir.join(&fresh))?;
                }
                self.files[at].path = fresh;
            }
            (87..=89, Some((at, path))) => {
                let with = random.index(self.files.len());
                let other = self.files[with].clone();
                if let Some(dir) = dir.filter(|_| at != with) {
                    let (a, b) = (dir.join(&path), dir.join(&other.path));
                    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?;
                }
                self.files[with].file = self.files[at].file;
                self.files[at].file = other.file;
            }
            (90..=93, Some((at, path))) => {
                if let Some(dir) = dir {
                    std::fs::hard_link(dir.join(&path), dir.join(&fresh))?;
                }
                let file = self.files[at].file;
                self.files.push(Name { path: fresh, file });
            }
            (94..=96, Some((_, path))) => {
                if let Some(dir) = dir {
                    let mode = 0o400 | u32::try_from(number & 0o377)?;
                    std::fs::set_permissions(
                        dir.join(path),
                        PermissionsExt::from_mode(mode | 0o600),
                    )?;
                }
            }
            (97..=99, Some((_, path))) => {
                if let Some(dir) = dir {
                    let value = number.to_le_bytes().repeat(1 + (number % 40) as usize);
                    let name = format!("trusted.{}", number % 3);
                    rustix::fs::setxattr(dir.join(path), &name, &value, XattrFlags::empty())?;
                }
            }
            // One of the three attributes set above, if the file has it.
            (100..=101, Some((_, path))) => {
                if let Some(dir) = dir {
                    let name = format!("trusted.{}", number % 3);
                    match rustix::fs::removexattr(dir.join(path), &name) {
                        Ok(()) | Err(Errno::NODATA) => {}
                        Err(error) => return Err(error).context("removing an attribute"),
                    }
                }
            }
            (102..=105, Some((at, path))) => {
                let onto = random.index(self.files.len());
                if let Some(dir) = dir {
                    std::fs::rename(dir.join(&path), dir.join(&self.files[onto].path))?;
                }
                // If both names belong to one file, both stay: rename(2).
                if self.files[at].file != self.files[onto].file {
                    self.files[onto].file = self.files[at].file;
                    self.files.swap_remove(at);
                }
            }
            (106..=109, _) if !self.dirs.is_empty() => {
                let from = self.dirs[random.index(self.dirs.len())].clone();
                let inside = format!("{from}/");
                let allowed = !fresh.starts_with(&inside);
                if let Some(dir) = dir {
                    let renamed = std::fs::rename(dir.join(&from), dir.join(&fresh));
                    anyhow::ensure!(renamed.is_ok() == allowed, "{from} to {fresh}: {renamed:?}");
                }
                if allowed {
                    self.rename(&from, &fresh);
                }
            }
            // One directory over another, which works if the other is empty.
            (110..=111, _) if self.dirs.len() > 1 => {
                let from = self.dirs[random.index(self.dirs.len())].clone();
                let onto = self.dirs[random.index(self.dirs.len())].clone();
                if from != onto {
                    let allowed = self.is_empty(&onto) && !onto.starts_with(&format!("{from}/"));
                    if let Some(dir) = dir {
                        let renamed = std::fs::rename(dir.join(&from), dir.join(&onto));
                        anyhow::ensure!(
                            renamed.is_ok() == allowed,
                            "{from} to {onto}: {renamed:?}"
                        );
                    }
                    if allowed {
                        self.dirs.retain(|path| *path != onto);
                        self.rename(&from, &onto);
                    }
                }
            }
            (112..=114, _) if !self.links.is_empty() => {
                let at = random.index(self.links.len());
                let from = self.links[at].clone();
                if let Some(dir) = dir {
                    std::fs::rename(dir.join(&from), dir.join(&fresh))?;
                }
                self.links[at] = fresh;
            }
            (115..=116, _) if !self.links.is_empty() => {
                let from = self.links.swap_remove(random.index(self.links.len()));
                if let Some(dir) = dir {
                    std::fs::remove_file(dir.join(from))?;
                }
            }
            (117..=118, _) => {
                if let Some(dir) = dir {
                    let kind = [FileType::Fifo, FileType::Socket, FileType::CharacterDevice];
                    let kind = kind[(number % 3) as usize];
                    mknodat(CWD, dir.join(&fresh), kind, Mode::from(0o640), 0x103)?;
                }
                self.links.push(fresh);
            }
            (119..=120, Some((_, path))) => {
                if let Some(dir) = dir {
                    let (user, group) = ((number % 7) as u32, (number % 5) as u32);
                    std::os::unix::fs::chown(dir.join(path), Some(user), Some(group))?;
                }
            }
            (121..=122, Some((_, path))) => {
                let other = &self.files[random.index(self.files.len())].path;
                if let Some(dir) = dir {
                    // The kernel refuses the link, because the name exists.
                    let made = std::fs::hard_link(dir.join(&path), dir.join(other));
                    anyhow::ensure!(made.is_err(), "a link in the place of {other}");
                }
            }
            (123..=124, Some((_, path))) => {
                if let Some(dir) = dir {
                    let how = FallocateFlags::KEEP_SIZE;
                    fallocate(open(dir, &path)?, how, offset / 2, len)?;
                }
            }
            // Content that is written after its name was removed.
            (125..=126, Some((at, path))) => {
                if let Some(dir) = dir {
                    let file = open(dir, &path)?;
                    std::fs::remove_file(dir.join(&path))?;
                    write(&file, offset, len, number)?;
                    file.set_len(offset)?;
                }
                self.files.swap_remove(at);
            }
            (_, Some((_, path))) => {
                if let Some(dir) = dir {
                    OpenOptions::new()
                        .write(true)
                        .truncate(true)
                        .open(dir.join(path))?;
                }
            }
            (_, None) => {}
        }
        Ok(())
    }

    /// The paths of all entries.
    fn paths(&mut self) -> impl Iterator<Item = &mut String> {
        let files = self.files.iter_mut().map(|name| &mut name.path);
        self.dirs.iter_mut().chain(&mut self.links).chain(files)
    }

    /// Whether the directory has no entries.
    fn is_empty(&mut self, path: &str) -> bool {
        let inside = format!("{path}/");
        self.paths().all(|path| !path.starts_with(&inside))
    }

    /// Gives a directory another path, and with it every entry inside.
    fn rename(&mut self, from: &str, to: &str) {
        let inside = format!("{from}/");
        for path in self.paths() {
            if path == from {
                to.clone_into(path);
            } else if let Some(rest) = path.strip_prefix(&inside) {
                *path = format!("{to}/{rest}");
            }
        }
    }

    /// Gives every entry the times of the round: directories last, from the inside out.
    fn settle(&self, dir: &Path, round: u64) -> Result<()> {
        let time = Timespec {
            tv_sec: 1_600_000_000 + round as i64,
            tv_nsec: 123_456_789,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let mut dirs: Vec<_> = self.dirs.iter().map(String::as_str).chain([""]).collect();
        dirs.sort_by_key(|path| std::cmp::Reverse(path.len()));
        let files = self.files.iter().map(|name| name.path.as_str());
        let others = files.chain(self.links.iter().map(String::as_str));
        for path in others.chain(dirs) {
            utimensat(CWD, dir.join(path), &times, AtFlags::SYMLINK_NOFOLLOW)
                .with_context(|| format!("setting the times of {path:?}"))?;
        }
        Ok(())
    }
}

fn write(file: &File, offset: u64, len: u64, seed: u64) -> Result<()> {
    let mut bytes = Vec::new();
    Random(seed).write(len, &mut bytes)?;
    Ok(file.write_all_at(&bytes, offset)?)
}
