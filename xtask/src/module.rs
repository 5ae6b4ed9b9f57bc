//! `cargo xtask module`.

use std::process::ExitCode;

use anyhow::Result;
use kho_lab::cache::Cache;
use kho_lab::kernel::Store;
use kho_lab::module;

/// Build the kernel module for kernels that guests run, into the cache, and say where it is.
///
/// Headers and compiler come from the kernel's own suite and are only unpacked, not installed; so does the Rust
/// library's source when rustup has none.
#[derive(clap::Args)]
pub struct Arguments {
    /// Kernel: 6.1, 6.12, 7.3 (also 6.1-amd64 …); may be repeated [default: these three].
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<String>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let names = match arguments.kernel.is_empty() {
        true => ["6.1", "6.12", "7.3"].map(str::to_owned).to_vec(),
        false => arguments.kernel.clone(),
    };
    for name in &names {
        let kernel = Store::new(&cache).kernel(name)?;
        println!("{}", module::build(&cache, &kernel)?.display());
    }
    Ok(ExitCode::SUCCESS)
}
