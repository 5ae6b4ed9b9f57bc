//! `kho dump`: prints a state tree as text, JSON, source for dtc, or bytes, and the state of mainline KHO.

use crate::args;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::output::Output;
use crate::session::Session;
use kho::tree::Reader;
use kho_format::{dts, mainline, text, view};
use serde_json::{Map, Value as Json};
use std::io::{Read, Write as _};
use std::path::Path;

/// Largest tree that is read from a file.
const LIMIT: u64 = kho::tree::MAX_SIZE as u64;

/// Runs `kho dump`.
///
/// # Errors
///
/// [`Status::NothingArrived`], [`Status::TreeCorrupt`], or an error of reading the file.
pub fn run(args: &args::Dump, session: &Session, out: Output) -> Result<(), Fail> {
    if args.mainline {
        return dump_mainline(&args.debugfs, out);
    }
    let bytes = match &args.file {
        Some(path) => read_file(path)?,
        None => session
            .tree_bytes()?
            .ok_or_else(crate::session::nothing_arrived)?,
    };
    if args.raw {
        return std::io::stdout()
            .write_all(&bytes)
            .or_status(Status::Failed);
    }
    let tree = open(&bytes)?;
    if args.dts {
        print!("{}", dts::dts(&tree));
    } else {
        out.result(&view::json(tree.root()), || print!("{}", text::text(&tree)));
    }
    match kho::tree::verify(&tree) {
        Ok(_) => Ok(()),
        Err(err) => Err(Fail::new(Status::TreeCorrupt, err)),
    }
}

/// Opens the tree in `bytes`.
///
/// # Errors
///
/// [`Status::TreeCorrupt`] if the bytes are not a tree.
pub fn open(bytes: &[u8]) -> Result<Reader<'_>, Fail> {
    Reader::new(bytes)
        .or_status(Status::TreeCorrupt)
        .map_err(|fail| {
            fail.fix(
                "what arrived stays reserved; kho dump --raw writes the bytes for a closer look",
            )
        })
}

/// Reads a file with a tree.
///
/// # Errors
///
/// [`Status::Failed`] if the file cannot be read, [`Status::TreeCorrupt`] if it is larger than any tree.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Fail> {
    let bytes = read_up_to(path).map_err(|err| {
        Fail::new(
            Status::Failed,
            format!("cannot read {}: {err}", path.display()),
        )
    })?;
    if bytes.len() as u64 > LIMIT {
        return Err(Fail::new(
            Status::TreeCorrupt,
            format!(
                "{} is larger than any state tree ({LIMIT:#x} bytes)",
                path.display()
            ),
        ));
    }
    Ok(bytes)
}

fn read_up_to(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Prints the incoming and outgoing state of mainline KHO.
fn dump_mainline(dir: &Path, out: Output) -> Result<(), Fail> {
    let mut doc = Map::new();
    let mut shown = String::new();
    for side in ["in", "out"] {
        let dir = dir.join(side);
        if !dir.exists() {
            continue;
        }
        let state = mainline::decode(&side_files(&dir)?).map_err(|err| {
            let status = match err {
                mainline::MainlineError::Version { .. } => Status::UnknownVersion,
                _ => Status::TreeCorrupt,
            };
            Fail::new(status, format!("{}: {}", dir.display(), chain(&err)))
        })?;
        shown.push_str(&format!("{side}: {}", mainline::show(&state)));
        doc.insert(
            side.to_owned(),
            serde_json::to_value(&state).or_status(Status::Failed)?,
        );
    }
    if doc.is_empty() {
        return Err(Fail::new(Status::NothingArrived, format!("{} has neither in nor out", dir.display())).fix(
            "this kernel has no Kexec HandOver of its own (CONFIG_KEXEC_HANDOVER_DEBUGFS, kho=on), or debugfs is not mounted",
        ));
    }
    out.result(&Json::Object(doc), || print!("{shown}"));
    Ok(())
}

fn side_files(dir: &Path) -> Result<mainline::Files, Fail> {
    let read = |path: &Path| {
        read_up_to(path).map_err(|err| {
            Fail::new(
                Status::NotPermitted,
                format!("cannot read {}: {err}", path.display()),
            )
            .root("")
        })
    };
    let fdt = dir.join("fdt");
    let mut files = mainline::Files {
        fdt: fdt.exists().then(|| read(&fdt)).transpose()?,
        ..mainline::Files::default()
    };
    if let Ok(entries) = std::fs::read_dir(dir.join("sub_fdts")) {
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.sub.push((name, read(&entry.path())?));
        }
    }
    files.sub.sort();
    let numbers = |name: &str| -> Vec<u64> {
        let text = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        text.lines()
            .filter_map(|line| u64::from_str_radix(line.trim().strip_prefix("0x")?, 16).ok())
            .collect()
    };
    files.scratch = numbers("scratch_phys")
        .into_iter()
        .zip(numbers("scratch_len"))
        .collect();
    Ok(files)
}
