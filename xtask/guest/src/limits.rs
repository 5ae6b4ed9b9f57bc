//! `kho-guest until-full`: what a user can make a file system keep.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, XattrFlags, linkat, open, setxattr, symlink};
use rustix::io::Errno;

/// Things to make more of.
#[derive(clap::Subcommand)]
pub enum Tool {
    /// Further names of a file: FILE.0, FILE.1 and so on.
    Names {
        /// File.
        file: PathBuf,
    },
    /// Names of a file that was made without one (O_TMPFILE): N.0, N.1 and so on.
    Unnamed {
        /// Directory.
        dir: PathBuf,
    },
    /// Symbolic links: L.0, L.1 and so on.
    Links {
        /// Directory.
        dir: PathBuf,
        /// Length of what they point to.
        #[arg(long)]
        bytes: usize,
    },
    /// Extended attributes of a file: PREFIX.0, PREFIX.1 and so on.
    Attributes {
        /// File.
        file: PathBuf,
        /// Beginning of their names.
        #[arg(long, default_value = "user.a")]
        prefix: String,
        /// Length of their values.
        #[arg(long)]
        bytes: usize,
    },
}

/// Makes as many as possible, at most `most`. Prints the number, and the error that ended it.
pub fn until_full(tool: &Tool, most: usize) -> Result<()> {
    let repeat = |once: &mut dyn FnMut(usize) -> Result<(), Errno>| {
        for done in 0..most {
            if let Err(error) = once(done) {
                return println!("{done}, then: {error}");
            }
        }
        println!("{most}");
    };
    let numbered = |path: &Path, number: usize| {
        let mut name = OsString::from(path);
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    match tool {
        Tool::Names { file } => {
            repeat(&mut |n| linkat(CWD, file, CWD, numbered(file, n), AtFlags::empty()))
        }
        Tool::Unnamed { dir } => {
            let file = open(dir, OFlags::TMPFILE | OFlags::WRONLY, Mode::from(0o600))
                .context("making a file without a name")?;
            let by_descriptor = AtFlags::EMPTY_PATH;
            repeat(&mut |n| {
                linkat(
                    file.as_fd(),
                    "",
                    CWD,
                    numbered(&dir.join("N"), n),
                    by_descriptor,
                )
            })
        }
        Tool::Links { dir, bytes } => {
            let target = "t".repeat(*bytes);
            repeat(&mut |n| symlink(&target, numbered(&dir.join("L"), n)))
        }
        Tool::Attributes {
            file,
            prefix,
            bytes,
        } => {
            let value = vec![7; *bytes];
            repeat(&mut |n| setxattr(file, format!("{prefix}.{n}"), &value, XattrFlags::CREATE))
        }
    }
    Ok(())
}
