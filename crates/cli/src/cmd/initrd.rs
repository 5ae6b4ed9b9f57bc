//! `kho initrd`: writes kho's programs into the folder of an initrd: the one that a copied command line names, and the
//! one that moves what came in the initrd.

use crate::args;
use crate::exit::{Fail, Status};
use crate::output::Output;
use kho_kexec::assemble::ARRIVAL_PROGRAM;
use kho_kexec::carrier::initrd::MOVER;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Path of the arrival program in the folder, where the kernel looks for it.
const PROGRAM: &str = ".kho/arrive";

/// Runs `kho initrd`.
///
/// # Errors
///
/// [`Status::Unsupported`] if this build has no such program, [`Status::Failed`] if the program cannot be written.
pub fn run(args: &args::Initrd, out: Output) -> Result<(), Fail> {
    if ARRIVAL_PROGRAM.is_empty() {
        return Err(Fail::new(
            Status::Unsupported,
            "this build has no arrival program: it was made for another architecture",
        ));
    }
    let paths = [PROGRAM, MOVER].map(|name| args.folder.join(name));
    for path in &paths {
        write(&args.folder, path).map_err(|err| {
            Fail::new(
                Status::Failed,
                format!("cannot write {}: {err}", path.display()),
            )
            .fix("name the folder that the initrd is made of")
        })?;
    }
    let doc = serde_json::json!({ "wrote": paths.map(|path| path.to_string_lossy().into_owned()) });
    if out.json {
        out.result(&doc, || ());
    }
    Ok(())
}

fn write(folder: &Path, path: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder.join(".kho")) {
        Err(err) if err.kind() != std::io::ErrorKind::AlreadyExists => return Err(err),
        _ => {}
    }
    std::fs::write(path, ARRIVAL_PROGRAM)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_put_where_the_kernel_looks_for_it() {
        let out = Output {
            json: false,
            quiet: true,
        };
        let folder = tempfile::tempdir().unwrap();
        let args = args::Initrd {
            folder: folder.path().to_owned(),
        };
        // The second run changes nothing.
        for _ in 0..2 {
            run(&args, out).unwrap();
        }
        for name in [
            kho_kexec::cmdline::ARRIVE_PATH.trim_start_matches('/'),
            MOVER,
        ] {
            let path = folder.path().join(name);
            assert_eq!(std::fs::read(&path).unwrap(), ARRIVAL_PROGRAM);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        let nowhere = args::Initrd {
            folder: folder.path().join("nowhere"),
        };
        assert_eq!(run(&nowhere, out).unwrap_err().status, Status::Failed);
    }
}
