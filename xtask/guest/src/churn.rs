//! `kho-guest churn`: random operations on a directory, the same for the same numbers.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, RenameFlags, Timespec, Timestamps, XattrFlags, fallocate,
    renameat_with, utimensat,
};

use crate::tree::Random;

/// Bytes up to which files are written at random places.
const REACH: u64 = 3 << 20;

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

/// Does the rounds. What exists is known without looking, so that two directories go the same way.
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
        "{} directories, {} files, {} links",
        model.dirs.len(),
        model.files.len(),
        model.links.len()
    );
    Ok(())
}

/// What exists, by paths relative to the directory.
#[derive(Default)]
struct Model {
    dirs: Vec<String>,
    files: Vec<String>,
    links: Vec<String>,
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
            (at, self.files[at].clone())
        });
        let (offset, len) = (random.below(REACH), random.below(200_000) + 1);
        let what = random.below(100);
        let open = |dir: &Path, path: &str| OpenOptions::new().write(true).open(dir.join(path));
        match (what, file) {
            (0..=17, _) => {
                if let Some(dir) = dir {
                    write(&File::create(dir.join(&fresh))?, 0, len, number)?;
                }
                self.files.push(fresh);
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
                let inside = format!("{}/", self.dirs[at]);
                let empty = [&self.dirs, &self.files, &self.links]
                    .into_iter()
                    .flatten()
                    .all(|path| !path.starts_with(&inside));
                if let Some(dir) = dir {
                    let removed = std::fs::remove_dir(dir.join(&self.dirs[at]));
                    anyhow::ensure!(removed.is_ok() == empty, "rmdir of {inside}: {removed:?}");
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
                self.files[at] = fresh;
            }
            (87..=89, Some((_, path))) => {
                let other = self.files[random.index(self.files.len())].clone();
                if let Some(dir) = dir.filter(|_| other != path) {
                    let (a, b) = (dir.join(&path), dir.join(&other));
                    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?;
                }
            }
            (90..=93, Some((_, path))) => {
                if let Some(dir) = dir {
                    std::fs::hard_link(dir.join(&path), dir.join(&fresh))?;
                }
                self.files.push(fresh);
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
            (_, Some((_, path))) => {
                if let Some(dir) = dir {
                    let value = number.to_le_bytes().repeat(1 + (number % 40) as usize);
                    let name = format!("trusted.{}", number % 3);
                    rustix::fs::setxattr(dir.join(path), &name, &value, XattrFlags::empty())?;
                }
            }
            (_, None) => {}
        }
        Ok(())
    }

    /// Gives everything the times of the round: directories last, from the inside out.
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
        let others = self.files.iter().chain(&self.links).map(String::as_str);
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
