//! What ends with this kernel unless it is handed over, and who would start another one without it.

use crate::keepd;
use crate::list;
use crate::module;
use crate::output::{self, Output};
use crate::session::Session;
use kho_kexec::sys::facts::kexec::KexecState;
use kho_kexec::sys::root::Root;
use std::ffi::OsStr;
use std::path::PathBuf;

/// Where systemd looks for entries of the Boot Loader Specification (`boot_config_load_auto`, src/shared/bootspec.c, 262),
/// without asking firmware or partition tables. When there is the first, it looks nowhere else.
const PLACES: [&str; 4] = ["run/boot-loader-entries", "efi", "boot", "boot/efi"];

/// Folders of entries below such a place, and how their names end.
const ENTRIES: [(&str, &str); 2] = [("loader/entries", "conf"), ("EFI/Linux", "efi")];

/// What ends with this kernel unless it is handed over; none when nothing does. A trace alone is no content.
pub fn lost(session: &Session) -> Option<String> {
    let entries = match keepd::for_handover(session, false) {
        Ok((keep, _)) => {
            let arrived = session.arrived().ok().and_then(Option::as_ref);
            list::effective(arrived, &keep).len()
        }
        // What cannot be read may name anything.
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

/// Warns while something is kept, nothing is loaded, and systemd would load a boot loader entry by itself.
pub fn warn_of_boot_entry(session: &Session, out: Output) {
    let nothing_loaded =
        KexecState::read(&session.root).is_ok_and(|state| state.loaded == Some(false));
    // The command itself says who may read the list.
    if !nothing_loaded || session.state.keep().is_err() {
        return;
    }
    let Some(entry) = boot_entry(&session.root) else {
        return;
    };
    if let Some(what) = lost(session) {
        out.warn(&format!(
            "{what}, and no kernel is loaded: systemctl kexec would load one by {}, from systemd 262 on without asking kho, and what is kept would end: kho load --arm KERNEL first",
            entry.display()
        ));
    }
}

/// A boot loader entry that systemd finds.
fn boot_entry(root: &Root) -> Option<PathBuf> {
    let [special, usual @ ..] = PLACES;
    let places = if root.exists(special) {
        &[special][..]
    } else {
        &usual[..]
    };
    let folders = places
        .iter()
        .flat_map(|place| ENTRIES.map(|(folder, end)| (root.path(place).join(folder), end)));
    let mut found = folders.flat_map(|(folder, end)| {
        let names = std::fs::read_dir(folder).into_iter().flatten();
        names
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(move |path| path.extension() == Some(OsStr::new(end)))
    });
    found.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_loader_entry_is_found_where_systemd_looks() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        let put = |name: &str| {
            let path = root.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        assert_eq!(boot_entry(&root), None);
        put("boot/loader/loader.conf");
        put("boot/loader/entries/README");
        assert_eq!(boot_entry(&root), None);
        let unified = put("boot/efi/EFI/Linux/6.12.efi");
        assert_eq!(boot_entry(&root), Some(unified));
        let entry = put("boot/loader/entries/6.12.conf");
        assert_eq!(boot_entry(&root), Some(entry));
        // Somebody's own: systemd then looks nowhere else.
        std::fs::create_dir_all(root.path("run/boot-loader-entries")).unwrap();
        assert_eq!(boot_entry(&root), None);
        let own = put("run/boot-loader-entries/loader/entries/own.conf");
        assert_eq!(boot_entry(&root), Some(own));
    }
}
