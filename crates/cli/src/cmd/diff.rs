//! `kho diff`: shows the differences between two trees.

use super::dump::{open, read_file};
use crate::args;
use crate::exit::{Fail, Status};
use crate::output::Output;
use crate::session::Session;
use kho_format::diff::diff;
use serde_json::json;

/// Runs `kho diff`.
///
/// # Errors
///
/// [`Status::Different`] if the trees differ.
pub fn run(args: &args::Diff, session: &Session, out: Output) -> Result<(), Fail> {
    let first = read_file(&args.first)?;
    let second = match &args.second {
        Some(path) => read_file(path)?,
        None => session
            .tree_bytes()?
            .ok_or_else(crate::session::nothing_arrived)?,
    };
    let changes = diff(&open(&first)?, &open(&second)?);
    out.result(
        &json!({ "different": !changes.is_empty(), "changes": changes }),
        || {
            for change in &changes {
                println!("{change}");
            }
        },
    );
    if changes.is_empty() {
        return Ok(());
    }
    Err(Fail::new(
        Status::Different,
        format!(
            "{} {}",
            changes.len(),
            if changes.len() == 1 {
                "difference"
            } else {
                "differences"
            }
        ),
    ))
}
