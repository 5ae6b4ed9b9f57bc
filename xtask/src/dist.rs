//! `cargo xtask dist`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use kho_lab::cache::Cache;
use kho_lab::workspace;

/// Make the Debian packages. The same sources give the same bytes.
///
/// The time of everything in them is SOURCE_DATE_EPOCH, or that of the last commit.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder for the packages.
    #[arg(long, value_name = "FOLDER", default_value = "target/dist")]
    out: PathBuf,
    /// Use this static kho command instead of building it.
    #[arg(long, value_name = "PROGRAM")]
    kho: Option<PathBuf>,
    /// Check them with lintian.
    #[arg(long)]
    lintian: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let program = match &arguments.kho {
        Some(program) => program.clone(),
        None => workspace::build(kho_lab::Arch::X86_64, None)?.kho,
    };
    let files = kho_dist::make(&program, &workspace::root().join(&arguments.out))?;
    for file in &files {
        println!("{}", file.display());
    }
    if arguments.lintian {
        kho_dist::lintian(&Cache::open()?, &files)?;
    }
    Ok(ExitCode::SUCCESS)
}
