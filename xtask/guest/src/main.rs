//! The program of the test guests: PID 1 when started as `/init`, a box of tools for scripts otherwise.

mod chain;
mod churn;
mod control;
mod crowd;
mod damage;
mod expect;
// It knows the system calls of x86_64.
#[cfg(target_arch = "x86_64")]
mod fault;
mod fill;
mod init;
mod limits;
mod loader;
mod mallory;
mod map;
mod mapping;
mod memory;
mod part;
mod pinned;
mod rings;
mod speed;
mod system;
mod tree;
mod unify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Tools for the scripts of a test guest.
#[derive(Parser)]
#[command(name = "kho-guest", version)]
struct Arguments {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    /// Write a pattern into nearly all free memory, then give it back.
    ///
    /// The kernel gives all of its free memory for this. So memory that should have been kept and was not is overwritten
    /// before a test compares it. Prints the MiB written.
    Fill {
        /// MiB of available memory to leave alone.
        #[arg(long, default_value_t = 32)]
        leave: u64,
    },
    /// Make a directory tree of all kinds of entries, always the same for the same numbers.
    MakeTree {
        /// Directory to make; must not exist.
        dir: PathBuf,
        /// Bytes of file contents in all.
        #[arg(long)]
        bytes: u64,
        /// So many small entries of all kinds beside those.
        #[arg(long, default_value_t = 0)]
        entries: u64,
        /// Number from which everything follows.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Also set `user.*` attributes (tmpfs has them since 6.6).
        #[arg(long)]
        user_xattrs: bool,
    },
    /// Write pseudo-random bytes to standard output.
    Bytes {
        /// Number of bytes.
        len: u64,
        /// Number from which they follow.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Print a digest over a tree: names, kinds, modes, owners, times, attributes, links and contents.
    HashTree {
        /// The tree.
        dir: PathBuf,
        /// Print one line per entry as well.
        #[arg(short, long)]
        verbose: bool,
        /// Also tell the host the digest, which must be the same each time, and the bytes hashed.
        #[arg(long, value_name = "KEY")]
        same: Option<String>,
    },
    /// Do random operations to a directory, the same for the same numbers.
    Churn(churn::Arguments),
    /// Make a unified kernel image.
    Unify(unify::Arguments),
    /// Rename a file by renameat2(2).
    Rename {
        /// An existing destination is an error.
        #[arg(long)]
        noreplace: bool,
        /// The two names change places.
        #[arg(long)]
        exchange: bool,
        /// Leave a whiteout, as overlays do.
        #[arg(long)]
        whiteout: bool,
        /// From.
        old: PathBuf,
        /// To.
        new: PathBuf,
    },
    /// Do the usual things with files in a directory and print what each took by this machine's clock: a name, nanoseconds,
    /// and of how many pages or files.
    Speed {
        /// Directory.
        dir: PathBuf,
    },
    /// Run a command, which must succeed, and print the nanoseconds that it took by this machine's clock.
    Timed {
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Make more and more of something until it fails, and print how many there are and why.
    UntilFull {
        /// Stop when there are so many.
        #[arg(long, global = true, default_value_t = 100_000)]
        most: usize,
        /// Of what.
        #[command(subcommand)]
        tool: limits::Tool,
    },
    /// Use a file through a mapping.
    #[command(subcommand)]
    Map(mapping::Tool),
    /// Print the digest of standard input.
    Hash {
        /// Also tell the host the digest, which must be the same each time, and the bytes hashed.
        #[arg(long, value_name = "KEY")]
        same: Option<String>,
    },
    /// Print each range that this boot's setup_data chain names, read from the memory of the kernel itself, and check
    /// that all of its pages, and all of the chain's, are reserved.
    Ranges {
        /// Fail unless there are at least so many.
        #[arg(long, default_value_t = 0)]
        at_least: usize,
    },
    /// Print an address in the largest piece of RAM that this kernel took for itself in early boot: as a rule that is its
    /// memory map, the page frames' descriptions.
    EarlyAllocation,
    /// Print the KiB of this boot's setup_data chain and its ranges that are still reserved.
    Kept,
    /// Check in /proc/kpageflags that every page of a physical range is reserved.
    Reserved {
        /// First address, decimal or 0x….
        start: String,
        /// Length in bytes, decimal or 0x….
        len: String,
    },
    /// Print the seconds since this kernel started.
    Boottime,
    /// Tell the host a value that must be equal each time this key comes up, over all hops.
    Same {
        /// Name of the value that is compared.
        key: String,
        /// The value; read from standard input when absent.
        value: Option<String>,
    },
    /// Tell the host a measured value.
    Report {
        /// Name of the figure.
        key: String,
        /// The result; read from standard input when absent.
        value: Option<String>,
    },
    /// Tell the host that something could not be tried here, and why. The test counts as skipped.
    Skip {
        /// Thing that could not be tried, and the reason.
        why: String,
    },
    /// Print how often this machine was switched on, this time included.
    Lives,
    /// Run a command until its n-th step that changes anything, and kill it there. Exits with 3 when it ended before.
    #[cfg(target_arch = "x86_64")]
    KillAt(fault::Arguments),
    /// Wait until the host has done the step of this name.
    Mark {
        /// Name of the step.
        name: String,
    },
    /// Load a kernel with this many early reservations; `kho plan --json` with one entry comes on standard input.
    LoadCrowd(crowd::Arguments),
    /// Say that this script has loaded the next kernel itself: only `kho exec` remains to be done.
    Loaded {
        /// Start it by the bare system call: for an image that `kho exec` would rightly not start.
        #[arg(long)]
        bare: bool,
        /// Start it by `kho exec --stale-ok`.
        #[arg(long, conflicts_with = "bare")]
        stale_ok: bool,
    },
    /// Attack a restore as a user without privileges, until killed.
    Mallory(mallory::Arguments),
    /// Run the script for this boot of a full system, then leave as it says.
    System,
    /// Say how to leave this boot of a full system, instead of by `systemctl kexec`.
    Leave {
        /// A shell command.
        command: String,
    },
    /// Compare standard input with what a page of the book shows.
    Expect {
        /// Expected content.
        wanted: PathBuf,
    },
    /// Make a socket that nobody listens to.
    Socket {
        /// Path of the socket.
        path: PathBuf,
    },
    /// Load a page of nothing, as somebody else's kexec would: it must never be started.
    LoadStranger,
    /// Load the next kernel with a damaged state tree, placed where `kho plan --json` (on standard input) says.
    LoadDamaged(damage::Arguments),
}

fn main() -> ExitCode {
    if rustix::process::getpid().as_raw_nonzero().get() == 1 {
        init::run();
    }
    let tool = Arguments::parse().tool;
    let result = match &tool {
        #[cfg(target_arch = "x86_64")]
        Tool::KillAt(arguments) => fault::kill_at(arguments),
        _ => run(tool).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(status) => status,
        Err(error) => {
            eprintln!("kho-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(tool: Tool) -> anyhow::Result<()> {
    match tool {
        Tool::Fill { leave } => fill::fill(leave),
        Tool::MakeTree {
            dir,
            bytes,
            entries,
            seed,
            user_xattrs,
        } => tree::make(&dir, bytes, entries, seed, user_xattrs),
        Tool::Bytes { len, seed } => tree::bytes(len, seed),
        Tool::HashTree { dir, verbose, same } => tree::print_hash(&dir, verbose, same),
        Tool::Churn(arguments) => churn::run(&arguments),
        Tool::Unify(arguments) => unify::unify(&arguments.out, &arguments.sections),
        Tool::Rename {
            noreplace,
            exchange,
            whiteout,
            old,
            new,
        } => {
            let mut flags = RenameFlags::empty();
            flags.set(RenameFlags::NOREPLACE, noreplace);
            flags.set(RenameFlags::EXCHANGE, exchange);
            flags.set(RenameFlags::WHITEOUT, whiteout);
            Ok(renameat_with(CWD, &old, CWD, &new, flags)?)
        }
        Tool::Timed { command } => speed::timed(&command),
        Tool::Speed { dir } => speed::run(&dir),
        Tool::UntilFull { most, tool } => limits::until_full(&tool, most),
        Tool::Map(tool) => mapping::run(&tool),
        Tool::Hash { same } => tree::hash_stdin(same),
        Tool::Kept => chain::print_kept(),
        Tool::EarlyAllocation => chain::print_early_allocation(),
        Tool::Ranges { at_least } => chain::check(at_least),
        Tool::Reserved { start, len } => memory::print_reserved(&start, &len),
        Tool::Boottime => {
            println!("{:.3}", init::since_boot().as_secs_f64());
            Ok(())
        }
        Tool::Same { key, value } => control::same(key, value),
        Tool::Report { key, value } => control::report(key, value),
        Tool::Skip { why } => control::skip(why),
        Tool::Mark { name } => control::mark(name),
        Tool::Lives => control::lives(),
        #[cfg(target_arch = "x86_64")]
        Tool::KillAt(arguments) => fault::kill_at(&arguments).map(|_| ()),
        Tool::LoadCrowd(arguments) => crowd::load(&arguments),
        Tool::Loaded { bare, stale_ok } => {
            let how = match (bare, stale_ok) {
                (true, _) => init::BARE,
                (_, true) => "--stale-ok",
                _ => "",
            };
            Ok(std::fs::write(init::LOADED, how)?)
        }
        Tool::Mallory(arguments) => mallory::run(&arguments),
        Tool::System => system::run(),
        Tool::Leave { command } => Ok(std::fs::write(system::LEAVE, command)?),
        Tool::Expect { wanted } => expect::expect(&wanted),
        Tool::Socket { path } => {
            std::os::unix::net::UnixListener::bind(path)?;
            Ok(())
        }
        Tool::LoadStranger => damage::load_stranger(),
        Tool::LoadDamaged(arguments) => damage::load(&arguments),
    }
}
