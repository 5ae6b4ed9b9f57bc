//! Stock of the guest tests: the laboratory, and the packages and modules that are built once for all guests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use kho_dist::installed::{self, Dkms};
use kho_lab::Lab;
use kho_lab::system::Release;

/// The laboratory, and the packages and modules that are made once for all guests.
pub struct Stock {
    /// The laboratory.
    pub lab: Lab,
    packages: OnceLock<Result<Vec<PathBuf>, String>>,
    dkms: [OnceLock<Result<Dkms, String>>; Release::ALL.len()],
}

impl Stock {
    /// Opens the laboratory as [`Lab::open`] does.
    pub fn open(kho: Option<&Path>) -> Result<Self> {
        Ok(Self {
            lab: Lab::open(kho)?,
            packages: OnceLock::new(),
            dkms: Default::default(),
        })
    }

    /// The packages that full systems install, made once.
    pub fn packages(&self) -> Result<Vec<PathBuf>> {
        let made = self.packages.get_or_init(|| {
            kho_dist::for_guests(&self.lab.programs().kho, &self.lab.dir().join("packages"))
                .map_err(|error| format!("{error:#}"))
        });
        made.clone()
            .map_err(|error| anyhow!("making packages: {error}"))
    }

    /// Installs kho-dkms in a release, upgrades and purges it, once. Returns the modules that it built.
    pub fn dkms(&self, release: Release) -> Result<Dkms> {
        let make = || installed::dkms(self.lab.cache(), release, &self.packages()?, self.lab.dir());
        let made = self.dkms[release as usize]
            .get_or_init(|| make().map_err(|error| format!("{error:#}")));
        made.clone()
            .map_err(|error| anyhow!("building the modules by dkms: {error}"))
    }
}
