//! Kernel modules that kho-dkms builds at installation.

use std::path::{Path, PathBuf};

use anyhow::Result;
use kho_lab::cache::Cache;
use kho_lab::system::{self, Recipe, Release};

/// Script that installs, upgrades and purges kho-dkms in a system with the headers of every kernel and no Rust.
const SCRIPT: &str = include_str!("installed.sh");

/// Modules that kho-dkms makes in a release.
#[derive(Debug, Clone)]
pub struct Dkms {
    /// Kernels that the modules were built for.
    pub kernels: Vec<String>,
    /// Archive of the modules of all these kernels, to be unpacked at the root.
    pub modules: PathBuf,
}

/// Installs kho-dkms in a release, upgrades and purges it. Returns the modules that it built, in a folder of `dir`.
pub fn dkms(cache: &Cache, release: Release, packages: &[PathBuf], dir: &Path) -> Result<Dkms> {
    let recipe = Recipe::dkms(release);
    let out = dir.join(&recipe.name);
    eprintln!(
        "xtask: installing kho-dkms in Debian {}, which builds the modules for its kernels",
        release.number()
    );
    let said = system::run_in(cache, &recipe, packages, SCRIPT, &out)?;
    let kernels = said
        .lines()
        .filter_map(|line| line.strip_prefix("built for "));
    Ok(Dkms {
        kernels: kernels.map(str::to_owned).collect(),
        modules: out.join("modules.tar"),
    })
}
