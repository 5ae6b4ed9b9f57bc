//! The pages that readers follow: their commands, and their links.

pub mod blocks;
pub mod links;

use std::path::Path;

use anyhow::{Context, Result};

/// Reads a page.
pub fn read(page: &Path) -> Result<String> {
    std::fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))
}
