//! `kho restore`: puts content that arrived back to its paths.

use crate::args;
use crate::arrived::Blob;
use crate::exit::Fail;
use crate::output::Output;
use crate::release;
use crate::restore::{one, print, skipped};
use crate::session::Session;

/// Runs `kho restore`.
///
/// # Errors
///
/// The failure of the first entry that cannot be restored. The entries before it are restored, and recorded as
/// restored; the entries after it are not.
pub fn run(args: &args::Restore, session: &Session, out: Output) -> Result<(), Fail> {
    if args.boot {
        return super::boot::run(session, out);
    }
    let _lock = session.lock()?;
    let arrived = session.require_arrived()?;
    let mut chosen: Vec<&Blob> = Vec::new();
    if args.names.is_empty() {
        chosen = arrived.in_order(&args.first)?;
    }
    for name in &args.names {
        chosen.push(arrived.blob(name)?);
    }
    let mut keep = session.state.keep()?;
    let mut outcomes = Vec::new();
    let mut result = Ok(());
    for blob in chosen {
        // A second restore would overwrite newer files with old content.
        if args.names.is_empty() && args.into.is_none() && keep.restored.contains(&blob.label) {
            outcomes.push(skipped(blob, "restored before; name it to do so again"));
            continue;
        }
        match one(blob, args, session, out) {
            Ok(outcome) => {
                let in_place = outcome.restored && args.into.is_none();
                if in_place && !keep.restored.contains(&blob.label) {
                    keep.restored.push(blob.label.clone());
                    session.state.set_keep(&keep)?;
                    // The next load reads the path again, so the bytes that arrived are no longer needed.
                    let label = std::slice::from_ref(&blob.label);
                    release::blobs(label, &mut keep, session)?;
                }
                outcomes.push(outcome);
            }
            Err(fail) => {
                result = Err(fail);
                break;
            }
        }
    }
    print(&outcomes, out);
    result
}
