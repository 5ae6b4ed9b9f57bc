//! `kho-generator`: the program that systemd runs when it reads its units, see [`ordering`].

use crate::kexec_target;
use crate::ordering::{self, NAME, complain};
use crate::session::Session;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Runs as the generator if the program was called by that name.
pub fn called(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let program = args.next()?;
    if Path::new(&program).file_name() != Some(OsStr::new(NAME)) {
        return None;
    }
    let Some(folder) = args.next() else {
        complain("it is called by systemd, with the folder to write to");
        return Some(ExitCode::FAILURE);
    };
    let session = Session::new("/run/kho".into());
    let folder = Path::new(&folder);
    let written = ordering::write(folder, &ordering::units(&session))
        .and_then(|()| kexec_target::write(folder, kexec_target::to_be_refused(&session)));
    Some(match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            complain(&err.to_string());
            ExitCode::FAILURE
        }
    })
}
