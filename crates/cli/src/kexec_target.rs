//! Decision whether systemd may start `kexec.target`.
//!
//! Since systemd 261, `systemctl kexec` loads a kernel itself, without a kexec program. `kho-capture.service` notices
//! such a kernel only after the services have stopped. So while something is kept and kho has loaded no kernel, the
//! generator makes systemd refuse the start beforehand.

use crate::armed;
use crate::entries;
use crate::exit::Status;
use crate::keepd::{self, parse::Kind};
use crate::loaded;
use crate::lost::lost;
use crate::on_failure::OnFailure;
use crate::output::Output;
use crate::session::Session;
use crate::systemd;
use kho_kexec::sys::facts::kexec::KexecState;
use kho_kexec::sys::root::Root;
use std::path::{Path, PathBuf};

/// First version of systemd whose `systemctl kexec` loads a kernel by `kexec_file_load` (`load_kexec_kernel`,
/// src/systemctl/systemctl-start-special.c).
const LOADS_ITSELF: u32 = 261;

/// Folder in which generators of the system put their files: the first argument that systemd gives them.
pub const GENERATED: &str = "/run/systemd/generator";

/// Name of the drop-in.
const DROP_IN: &str = "kexec.target.d/50-kho.conf";

/// Text of the drop-in. The refusal of systemd names `systemctl status kexec.target`, which shows the description.
const REFUSED: &str = "\
# By kho-generator, while kho has loaded no kernel.
[Unit]
Description=Reboot via kexec, refused by kho while something is kept: kho load --arm KERNEL first
RefuseManualStart=yes
";

/// Whether a kernel that systemd loads itself would end the kept content, against the administrator's choice.
pub fn to_be_refused(session: &Session) -> bool {
    would_lose(session) && running_version().is_some_and(loads_itself)
}

/// Whether a kernel that kho did not load would end the kept content, against the administrator's choice.
pub fn would_lose(session: &Session) -> bool {
    let plain = matches!(armed::configured_choice(), Ok(OnFailure::Plain));
    !plain && !ours_is_loaded(session) && may_be_lost(session)
}

/// Makes systemd refuse or allow the start when it next reads its units: if `refused`, writes the drop-in to the folder
/// of the generator.
///
/// # Errors
///
/// If the file cannot be written.
pub fn write(folder: &Path, refused: bool) -> std::io::Result<()> {
    if !refused {
        return Ok(());
    }
    let file = file(folder);
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(file, REFUSED)
}

/// Returns the path of the drop-in in a generator's folder.
pub fn file(folder: &Path) -> PathBuf {
    folder.join(DROP_IN)
}

/// Whether a kernel is armed, or kho loaded the image. Also true if kho cannot tell who loaded it: the capture then
/// reports that.
fn ours_is_loaded(session: &Session) -> bool {
    if armed::armed(session).is_ok_and(|armed| armed.is_some()) {
        return KexecState::read(&session.root).is_ok_and(|state| state.loaded != Some(false));
    }
    match loaded::require_ours(session) {
        Ok(_) => true,
        Err(fail) => fail.status == Status::CannotTell,
    }
}

/// Whether something is kept, or a rule of keep.d names content, even if its path does not exist yet.
fn may_be_lost(session: &Session) -> bool {
    let ruled = match keepd::rules::read(&keepd::rules::dirs(session)) {
        Ok(rules) => rules.iter().any(|rule| rule.kind != Kind::Trace),
        // A file that cannot be read may name any content.
        Err(_) => true,
    };
    ruled || lost(session).is_some()
}

/// Returns the version of systemd; `None` if systemctl does not answer.
fn running_version() -> Option<u32> {
    let output = systemd::systemctl(&["--version"]).ok()?;
    version(&String::from_utf8_lossy(&output.stdout))
}

/// Whether `systemctl kexec` of this version of systemd loads a kernel itself.
fn loads_itself(version: u32) -> bool {
    version >= LOADS_ITSELF
}

/// Warns if something is kept, no image is loaded, and systemd would load a boot loader entry itself.
pub fn warn_of_boot_entry(session: &Session, out: Output) {
    let nothing_loaded =
        KexecState::read(&session.root).is_ok_and(|state| state.loaded == Some(false));
    // If this user cannot read the list, the command reports that itself.
    if !nothing_loaded || session.state.keep().is_err() {
        return;
    }
    let Some(entry) = boot_entry(&session.root) else {
        return;
    };
    let Some(what) = lost(session) else { return };
    let next = if file(Path::new(GENERATED)).exists() {
        "refuses until then".to_owned()
    } else {
        format!(
            "would load the kernel of {} itself (systemd {LOADS_ITSELF} and newer do not ask kho), and the kept content would be lost",
            entry.display()
        )
    };
    out.warn(&format!(
        "{what}, and no kernel is loaded: run kho load --arm KERNEL first; systemctl kexec {next}"
    ));
}

/// Finds a boot loader entry that systemd finds too.
fn boot_entry(root: &Root) -> Option<PathBuf> {
    entries::files(root)
        .into_iter()
        .map(|(_, file)| file)
        .next()
}

/// Parses the version in the first line of `systemctl --version`: `systemd 262 (262-2)`, `systemd 263~rc1 (…)`.
fn version(text: &str) -> Option<u32> {
    let word = text.strip_prefix("systemd ")?.split_whitespace().next()?;
    let digits = word.find(|c: char| !c.is_ascii_digit());
    word[..digits.unwrap_or(word.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_number_after_the_name() {
        assert_eq!(version("systemd 262 (262-2)\n+PAM +AUDIT\n"), Some(262));
        assert_eq!(version("systemd 263~rc1 (263~rc1-1)\n"), Some(263));
        assert_eq!(version("systemd 257.13 (257.13-1~deb13u1)\n"), Some(257));
        assert_eq!(version("systemd\n"), None);
        assert_eq!(version("systemd rolling\n"), None);
        assert_eq!(version(""), None);
    }

    #[test]
    fn newer_versions_load_a_kernel_themselves() {
        assert!(!loads_itself(252) && !loads_itself(260));
        assert!(loads_itself(261) && loads_itself(262));
    }

    #[test]
    fn the_drop_in_is_there_only_for_a_refusal() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), false).unwrap();
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        write(folder.path(), true).unwrap();
        let text = std::fs::read_to_string(file(folder.path())).unwrap();
        assert!(text.contains("\nRefuseManualStart=yes\n"), "{text}");
    }

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
        // If this folder exists, systemd looks in no other.
        std::fs::create_dir_all(root.path("run/boot-loader-entries")).unwrap();
        assert_eq!(boot_entry(&root), None);
        let own = put("run/boot-loader-entries/loader/entries/own.conf");
        assert_eq!(boot_entry(&root), Some(own));
    }
}
