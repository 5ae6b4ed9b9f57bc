//! Content that ends with this kernel unless kho hands it over.

use crate::keepd;
use crate::list;
use crate::module;
use crate::output;
use crate::session::Session;

/// Returns a description of the content that ends with this kernel unless kho hands it over; `None` if there is no such
/// content. A trace does not count as content.
pub fn lost(session: &Session) -> Option<String> {
    let entries = match keepd::for_handover(session, false) {
        Ok((keep, _)) => {
            let arrived = session.arrived().ok().and_then(Option::as_ref);
            list::effective(arrived, &keep).len()
        }
        // A list that cannot be read may name any content.
        Err(fail) => return Some(fail.what),
    };
    if entries > 0 {
        let kept = output::count(entries, "entry is", "entries are");
        return Some(format!("{kept} kept"));
    }
    module::has_something(&session.root)
        .unwrap_or(true)
        .then(|| "drivers or khofs keep something".to_owned())
}
