//! `cargo xtask peer-kernel`.

use std::process::ExitCode;

use anyhow::Result;
use kho_lab::cache::Cache;
use kho_lab::kernel::peer;

/// Build a kernel for tests: a mainline kernel that has Kexec HandOver built in, or one that looks for faults of modules.
///
/// It is made of Debian's linux-source-7.3 and a small configuration, takes some minutes, and is kept in the user's
/// cache directory. `cargo xtask test` does it by itself when it is needed.
#[derive(clap::Args)]
pub struct Arguments {
    /// The kernel: peer, debug (lockdep, memory profiling), debug-kasan, debug-rt (PREEMPT_RT, lockdep).
    #[arg(default_value = peer::NAME)]
    name: String,
    /// Build again even if it is there.
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let cache = Cache::open()?;
    if arguments.force {
        peer::forget(&cache, &arguments.name)?;
    }
    println!("{}", peer::build(&cache, &arguments.name)?.display());
    Ok(ExitCode::SUCCESS)
}
