//! `kho validate`: everything that is wrong with a tree.

use super::dump::read_file;
use crate::args;
use crate::exit::{Fail, OrStatus, Status};
use crate::output::Output;
use crate::session::Session;
use kho::RangeSet;
use kho_format::validate::{Layer, Machine, Problem, validate};
use kho_kexec::sys::facts::memmap::FirmwareMap;
use kho_kexec::sys::pageflags::PageFlags;
use serde_json::json;
use std::path::Path;

/// The module's tree of what producers hand over, while the active phase lasts.
const OUT: &str = "/sys/kernel/kho/dt";

/// Runs `kho validate`.
///
/// # Errors
///
/// After everything was printed: [`Status::UnknownVersion`], [`Status::TreeCorrupt`], or
/// [`Status::NotReserved`] when only the machine disagrees.
pub fn run(args: &args::Validate, session: &Session, out: Output) -> Result<(), Fail> {
    let problems = match &args.file {
        Some(path) => check(&read_file(path)?, None)?,
        None if args.out => check(&outgoing()?, None)?,
        None => arrived(session)?,
    };
    out.result(
        &json!({ "valid": problems.is_empty(), "problems": problems }),
        || {
            for problem in &problems {
                println!("{problem}");
            }
            if problems.is_empty() {
                println!("valid");
            }
        },
    );
    let has = |layer: fn(&Layer) -> bool| problems.iter().any(|problem| layer(&problem.layer));
    let status = if problems.is_empty() {
        return Ok(());
    } else if has(|layer| *layer == Layer::Version) {
        Status::UnknownVersion
    } else if has(|layer| *layer != Layer::Machine) {
        Status::TreeCorrupt
    } else {
        Status::NotReserved
    };
    let count = problems.len();
    Err(Fail::new(
        status,
        format!(
            "{count} {}",
            if count == 1 { "problem" } else { "problems" }
        ),
    ))
}

fn check(bytes: &[u8], machine: Option<Machine<'_>>) -> Result<Vec<Problem>, Fail> {
    validate(bytes, machine).or_status(Status::Failed)
}

/// What arrived, held against this machine's memory and this boot's chain too.
fn arrived(session: &Session) -> Result<Vec<Problem>, Fail> {
    let bytes = session
        .tree_bytes()?
        .ok_or_else(crate::session::nothing_arrived)?;
    let map = FirmwareMap::read(&session.root).or_status(Status::FirmwareMap)?;
    let flags = PageFlags::open(&session.root).or_status(Status::NotPermitted)?;
    let reserved: RangeSet = flags
        .reserved_in(map.ram())
        .or_status(Status::NotPermitted)?;
    let mut problems = check(
        &bytes,
        Some(Machine {
            ram: map.ram(),
            reserved: Some(&reserved),
        }),
    )?;
    // A tree that is wrong by itself has been told of; one that is right may still be of another boot.
    if problems.is_empty()
        && let Err(fail) = session.arrived()
    {
        problems.push(Problem {
            node: "/".to_owned(),
            layer: Layer::Contract,
            what: fail.what,
        });
    }
    Ok(problems)
}

fn outgoing() -> Result<Vec<u8>, Fail> {
    match std::fs::read(OUT) {
        Ok(bytes) => Ok(bytes),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            let (what, fix) = if Path::new("/sys/kernel/kho").exists() {
                (
                    format!("{OUT} does not exist: the handover is not active"),
                    "kho activate serializes the producers",
                )
            } else {
                (
                    "what is loaded cannot be read back from the kernel, and the module, whose part could be, is not there"
                        .to_owned(),
                    "kho load checks every tree as the next kernel will before it loads it; kho plan shows what it would say",
                )
            };
            Err(Fail::new(Status::Unsupported, what).fix(fix))
        }
        Err(err) => Err(
            Fail::new(Status::NotPermitted, format!("cannot read {OUT}: {err}")).fix("run as root"),
        ),
    }
}
