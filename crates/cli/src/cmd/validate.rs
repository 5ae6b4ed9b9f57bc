//! `kho validate`: shows every problem of a tree.

use super::dump::read_file;
use crate::args;
use crate::arrived::Arrived;
use crate::exit::{Fail, OrStatus, Status};
use crate::module;
use crate::output::Output;
use crate::release;
use crate::session::Session;
use kho_format::validate::{Layer, Machine, Problem, validate};
use kho_kexec::sys::facts::memmap::FirmwareMap;
use kho_kexec::sys::pageflags::PageFlags;
use serde_json::json;
use std::path::Path;

/// File of the module that holds the tree of the producers during the active phase.
const OUT: &str = "sys/kernel/kho/dt";

/// File of the module that holds the tree that arrived.
const DRIVERS: &str = "sys/kernel/kho/in/dt";

/// Runs `kho validate`.
///
/// # Errors
///
/// After everything was printed: [`Status::UnknownVersion`], [`Status::TreeCorrupt`], or [`Status::NotReserved`] if the
/// tree is valid and does not match this machine.
pub fn run(args: &args::Validate, session: &Session, out: Output) -> Result<(), Fail> {
    let problems = match &args.file {
        Some(path) => check(&read_file(path)?, None)?,
        None if args.out => check(&outgoing(session)?, None)?,
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

/// Checks the tree that arrived by itself, and against this machine's memory and this boot's chain. Checks the kernel's
/// part too if the module shows it.
fn arrived(session: &Session) -> Result<Vec<Problem>, Fail> {
    let bytes = session
        .tree_bytes()?
        .ok_or_else(crate::session::nothing_arrived)?;
    let with_module = module::present(&session.root);
    let mut problems = match session.came_in_initrd()? {
        // No range is memory.
        true => check(&bytes, None)?,
        false => in_memory(&bytes, with_module, session)?,
    };
    // An invalid tree has its problems already. A valid tree may still belong to another boot.
    if problems.is_empty() {
        let contract = |what| Problem {
            node: "/".to_owned(),
            layer: Layer::Contract,
            what,
        };
        match session.arrived() {
            Err(fail) => problems.push(contract(fail.what)),
            Ok(Some(arrived)) if with_module => {
                problems.extend(unreserved(arrived, session)?);
            }
            Ok(_) => {}
        }
    }
    if let Some(bytes) = read_if_there(&session.root.path(DRIVERS))? {
        let of_drivers = check(&bytes, None)?.into_iter();
        problems.extend(of_drivers.map(|problem| Problem {
            node: format!("kernel's part: {}", problem.node),
            ..problem
        }));
    }
    Ok(problems)
}

/// Checks a tree against this machine's memory.
fn in_memory(bytes: &[u8], with_module: bool, session: &Session) -> Result<Vec<Problem>, Fail> {
    let map = FirmwareMap::read(&session.root).or_status(Status::FirmwareMap)?;
    let reserved = if with_module {
        // Drivers have claimed some of the memory, and slack was released: only the blobs are checked, by the caller.
        None
    } else {
        let flags = PageFlags::open(&session.root).or_status(Status::NotPermitted)?;
        let reserved = flags.reserved_in(map.ram());
        Some(reserved.or_status(Status::NotPermitted)?)
    };
    let machine = Machine {
        ram: map.ram(),
        reserved: reserved.as_ref(),
    };
    check(bytes, Some(machine))
}

/// Returns a problem for each blob whose memory should be reserved and is not.
fn unreserved(arrived: &Arrived, session: &Session) -> Result<Vec<Problem>, Fail> {
    let flags = PageFlags::open(&session.root).or_status(Status::NotPermitted)?;
    let released = session.state.keep()?.released;
    let mut out = Vec::new();
    for range in release::to_be_reserved(arrived, &released, session) {
        let broken = flags.first_not_reserved(range);
        if let Some(page) = broken.or_status(Status::NotPermitted)? {
            out.push(Problem {
                node: "/blobs".to_owned(),
                layer: Layer::Machine,
                what: format!("{range} is not reserved in this kernel, at {page}"),
            });
        }
    }
    Ok(out)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Fail> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(Fail::new(
            Status::NotPermitted,
            format!("cannot read {}: {err}", path.display()),
        )
        .root("")),
    }
}

/// Returns the tree of the producers while they are frozen.
fn outgoing(session: &Session) -> Result<Vec<u8>, Fail> {
    let path = session.root.path(OUT);
    if let Some(bytes) = read_if_there(&path)? {
        return Ok(bytes);
    }
    let (what, fix) = if module::present(&session.root) {
        (
            format!(
                "{} does not exist: the handover is not active",
                path.display()
            ),
            "kho activate serializes the producers",
        )
    } else {
        (
            "no outgoing tree can be read: the kernel does not give back a loaded image, and kho.ko, which shows its own part, is not loaded"
                .to_owned(),
            "kho load checks the whole tree, as the next kernel will; kho plan shows that tree",
        )
    };
    Err(Fail::new(Status::Unsupported, what).fix(fix))
}
