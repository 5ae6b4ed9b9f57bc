//! `kho-guest unify`: a unified kernel image, as ukify(1) would make one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Writes `out`, with these sections; each is a name, `=` and the file with the content.
pub fn unify(out: &Path, sections: &[String]) -> Result<()> {
    let mut read = Vec::new();
    for section in sections {
        let (name, file) = section.split_once('=').context("a section is NAME=FILE")?;
        let content = std::fs::read(file).with_context(|| format!("reading {file}"))?;
        read.push((name, content));
    }
    let parts: Vec<(&str, &[u8])> = read.iter().map(|(name, c)| (*name, c.as_slice())).collect();
    std::fs::write(out, kho_unify::unified(&parts))
        .with_context(|| format!("writing {}", out.display()))
}

/// Arguments.
#[derive(clap::Args)]
pub struct Arguments {
    /// The image to write.
    pub out: PathBuf,
    /// Sections, in their order.
    #[arg(value_name = "NAME=FILE")]
    pub sections: Vec<String>,
}
