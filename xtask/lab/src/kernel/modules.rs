//! The kernel modules that a guest needs, and their dependencies.
//!
//! Debian's packages have no `modules.dep` (depmod makes it at installation). So this module reads the dependencies
//! from the `depends=` entry in each kernel module, which depmod does not use.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::{Object, ObjectSection};

use crate::deb::decoder;

/// A module, decompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Name with underscores, as the kernel lists it.
    pub name: String,
    /// The ELF file.
    pub content: Vec<u8>,
}

/// The wanted modules and their dependencies. Each module comes after its dependencies.
pub fn closure(dir: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = HashMap::new();
    let kernel = dir.join("kernel");
    index(&kernel, &mut files).with_context(|| format!("looking through {}", kernel.display()))?;
    let mut order = Vec::new();
    for name in wanted {
        add(&canonical(name), &files, &mut order)?;
    }
    Ok(order)
}

/// Adds a module after its dependencies. A module without a file is built in or does not exist; if it is missing, the
/// guest's kernel reports that.
fn add(name: &str, files: &HashMap<String, PathBuf>, order: &mut Vec<Module>) -> Result<()> {
    let Some(path) = files.get(name) else {
        return Ok(());
    };
    if order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let content = read(path).with_context(|| format!("reading {}", path.display()))?;
    for dependency in
        depends(&content).with_context(|| format!("dependencies of {}", path.display()))?
    {
        add(&dependency, files, order)?;
    }
    order.push(Module {
        name: name.to_owned(),
        content,
    });
    Ok(())
}

fn index(dir: &Path, files: &mut HashMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            index(&path, files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(canonical(name), path);
        }
    }
    Ok(())
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let name = path.to_string_lossy();
    let suffix = name.rsplit_once(".ko").map_or("", |(_, suffix)| suffix);
    let mut content = Vec::new();
    decoder(suffix, File::open(path)?)?.read_to_end(&mut content)?;
    Ok(content)
}

/// The names in `depends=a,b` of the section `.modinfo`.
fn depends(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module).context("no ELF file")?;
    let section = file.section_by_name(".modinfo").context("no .modinfo")?;
    let data = section.data().context("unreadable .modinfo")?;
    let entries = data.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    Ok(entries
        .filter_map(|entry| {
            Some(
                entry
                    .strip_prefix("depends=")?
                    .split(',')
                    .map(canonical)
                    .collect::<Vec<_>>(),
            )
        })
        .flatten()
        .filter(|name| !name.is_empty())
        .collect())
}
