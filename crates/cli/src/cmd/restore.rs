//! `kho restore`: puts what arrived back to where it came from.

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
/// The first entry's failure; the entries before it are restored (and recorded as such), this entry and those after it
/// are not.
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
        // Restoring an entry twice would put old content over what was written since.
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
                    // Its path is read again on the next hop: nobody needs the bytes that arrived any more.
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
