//! `kho-generator`: what systemd calls when it reads its units, see [`ordering`].

use crate::ordering::{self, NAME, complain};
use crate::session::Session;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Runs as the generator when called by its name.
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
    Some(
        match ordering::write(Path::new(&folder), &ordering::units(&session)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(err) => {
                complain(&err.to_string());
                ExitCode::FAILURE
            }
        },
    )
}
