//! State that `kho` keeps between the commands of one boot, under `/run/kho` (mode 0700).
//!
//! No file here has to survive a kexec: the keep list travels in the state tree. Each file names the boot in which it
//! was written; `kho` ignores files of another boot.

use crate::exit::{Fail, OrStatus, Status};
use crate::shown;
use crate::whole;
use kho::{PhysRange, RangeSet};
use records::{Bound, ReservedFile, Unusable, VERSION};
use serde::{Serialize, de::DeserializeOwned};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub mod records;

pub use records::{ArmedFile, Content, KeepFile, LoadedFile, Local, Place};

/// The state directory.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// Pages whose flags are known.
#[derive(Debug, Default)]
pub struct Known {
    /// Pages whose flags were read.
    pub asked: RangeSet,
    /// Reserved pages (PG_reserved) among them.
    pub reserved: RangeSet,
}

/// Name of the file with the pages that were reserved before an image was loaded.
const RESERVED: &str = "reserved.json";

/// Name of the file that marks that a capture finished.
const SETTLED: &str = "captured";

impl StateDir {
    /// Makes the value for a directory, which is created (0700) when a file is first written.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the directory. Refuses a directory that other users can write to.
    ///
    /// # Errors
    ///
    /// If the directory cannot be created, is not a directory, belongs to another user, or is open to others.
    pub fn prepare(&self) -> Result<(), Fail> {
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => {}
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(err) => {
                let what = format!(
                    "cannot make the state directory {}: {err}",
                    shown::path(&self.path)
                );
                return Err(self.not_writable(what, &err));
            }
        }
        let meta = fs::symlink_metadata(&self.path).or_status(Status::Failed)?;
        if !meta.is_dir()
            || meta.uid() != rustix::process::geteuid().as_raw()
            || meta.mode() & 0o077 != 0
        {
            return Err(Fail::new(
                Status::NotPermitted,
                format!(
                    "state directory {} is not a directory of this user with mode 0700 (mode {:#o}, owner {})",
                    shown::path(&self.path),
                    meta.mode() & 0o7777,
                    meta.uid()
                ),
            )
            .fix(if meta.uid() == 0 && !rustix::process::geteuid().is_root() {
                "run as root"
            } else {
                "remove it, or chmod 0700 it if you know where it comes from"
            }));
        }
        Ok(())
    }

    /// Makes the failure for a user who cannot write to the directory, with the reason.
    fn not_writable(&self, what: String, err: &std::io::Error) -> Fail {
        match err.kind() {
            std::io::ErrorKind::PermissionDenied => Fail::new(Status::NotPermitted, what).root(""),
            std::io::ErrorKind::ReadOnlyFilesystem => Fail::new(Status::StateDir, what)
                .fix("mount it writable: kho keeps its state in a tmpfs such as /run"),
            std::io::ErrorKind::StorageFull => {
                Fail::new(Status::NoSpace, what).fix("make room in that file system")
            }
            _ => Fail::new(Status::StateDir, what).fix(format!(
                "{} must be a directory that root can make and write to",
                self.path.display()
            )),
        }
    }

    /// Returns the keep list of this boot; empty if nothing was kept yet.
    ///
    /// # Errors
    ///
    /// If the file exists and cannot be read, or is not in the form that `kho` writes.
    pub fn keep(&self) -> Result<KeepFile, Fail> {
        Ok(self.read("keep.json")?.unwrap_or_default())
    }

    /// Replaces the keep list.
    ///
    /// # Errors
    ///
    /// If the list cannot be written. The old list is then intact.
    pub fn set_keep(&self, keep: &KeepFile) -> Result<(), Fail> {
        self.write("keep.json", keep)
    }

    /// Returns the pages whose flags were read, and the reserved ones among them, when an image was first loaded in
    /// this boot. A record of an older `kho` lacks the first set: that version read the flags of all of `ram`.
    ///
    /// # Errors
    ///
    /// The errors of [`StateDir::keep`].
    pub fn reserved(&self, ram: &RangeSet) -> Result<Option<Known>, Fail> {
        let Some(file) = self.read::<ReservedFile>(RESERVED)? else {
            return Ok(None);
        };
        let set = |list: &[[u64; 2]]| {
            let ranges = ReservedFile::ranges(list).or_status(Status::Failed)?;
            RangeSet::from_ranges(ranges).or_status(Status::Failed)
        };
        Ok(Some(Known {
            reserved: set(&file.ranges)?,
            asked: match &file.asked {
                Some(asked) => set(asked)?,
                None => ram.try_clone().or_status(Status::Failed)?,
            },
        }))
    }

    /// Records the pages that are reserved before an image is loaded.
    ///
    /// # Errors
    ///
    /// If the record cannot be written.
    pub fn set_reserved(&self, known: &Known) -> Result<(), Fail> {
        let list = |set: &RangeSet| {
            let pair = |range: PhysRange| [range.start().get(), range.len()];
            set.iter().map(pair).collect()
        };
        let file = ReservedFile {
            ranges: list(&known.reserved),
            asked: Some(list(&known.asked)),
        };
        self.write(RESERVED, &file)
    }

    /// Removes the record of [`StateDir::set_reserved`]: no image was loaded after all.
    ///
    /// # Errors
    ///
    /// If the file exists and cannot be removed.
    pub fn clear_reserved(&self) -> Result<(), Fail> {
        self.remove(RESERVED)
    }

    /// Returns the record of the last `kho load` of this boot.
    ///
    /// # Errors
    ///
    /// The errors of [`StateDir::keep`].
    pub fn loaded(&self) -> Result<Option<LoadedFile>, Fail> {
        self.read("loaded.json")
    }

    /// Records a load.
    ///
    /// # Errors
    ///
    /// If the record cannot be written.
    pub fn set_loaded(&self, loaded: &LoadedFile) -> Result<(), Fail> {
        self.write("loaded.json", loaded)
    }

    /// Removes the record of the load.
    ///
    /// # Errors
    ///
    /// If the file exists and cannot be removed.
    pub fn clear_loaded(&self) -> Result<(), Fail> {
        self.remove("loaded.json")
    }

    /// Whether a capture of this boot finished, with success or failure, and no image was loaded or armed since.
    /// Without a finished capture, the loaded image must not start as if a capture had succeeded.
    pub fn is_settled(&self) -> bool {
        self.path.join(SETTLED).exists()
    }

    /// Records that a capture finished. If this record is missing, the fallback runs once more, which does no harm.
    pub fn set_settled(&self) {
        let _ = fs::write(self.path.join(SETTLED), "");
    }

    /// Removes that record: the image that is loaded or armed now needs a capture of its own.
    ///
    /// # Errors
    ///
    /// If the record cannot be removed.
    pub fn clear_settled(&self) -> Result<(), Fail> {
        self.remove(SETTLED)
    }

    fn remove(&self, name: &str) -> Result<(), Fail> {
        match fs::remove_file(self.path.join(name)) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                Err(err).or_status(Status::Failed)
            }
            _ => Ok(()),
        }
    }

    /// Path of the file that holds the bytes of a raw entry.
    pub fn blob_path(&self, file: u64) -> PathBuf {
        self.path.join("blobs").join(file.to_string())
    }

    /// Copies `input` to the file of raw entry `file` and returns its length.
    ///
    /// # Errors
    ///
    /// [`Status::NoSpace`] if the file system of the state directory is full; the message has the number of bytes. The
    /// partial file is removed.
    pub fn take_blob(&self, file: u64, input: &mut dyn Read) -> Result<u64, Fail> {
        self.prepare()?;
        let dir = self.path.join("blobs");
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(err) if err.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(err).or_status(Status::Failed);
            }
            _ => {}
        }
        let path = self.blob_path(file);
        // A command that was killed may have left a file, which belongs to no entry.
        let _ = fs::remove_file(&path);
        let mut out = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .or_status(Status::Failed)?;
        std::io::copy(input, &mut out).map_err(|err| {
            let held = out.metadata().map(|m| m.len()).unwrap_or(0);
            let _ = fs::remove_file(&path);
            let status = if err.kind() == std::io::ErrorKind::StorageFull { Status::NoSpace } else { Status::Failed };
            Fail::new(status, format!("cannot take the blob: {err} after {}", crate::output::bytes(held))).fix(format!(
                "{} holds blobs until the load; keep a file by its path instead, or enlarge that file system",
                shown::path(&dir)
            ))
        })
    }

    /// Reads a file of this directory; `None` if it is missing or belongs to another boot.
    ///
    /// # Errors
    ///
    /// The errors of [`StateDir::keep`].
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Fail> {
        let path = self.path.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(err) if err.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(Fail::new(
                    Status::NotPermitted,
                    format!("cannot read {}: {err}", shown::path(&path)),
                )
                .root(""));
            }
            Err(err) => {
                return Err(Fail::new(
                    Status::Failed,
                    format!("cannot read {}: {err}", shown::path(&path)),
                ));
            }
        };
        records::parse(&text, &boot_id()?).map_err(|err| match err {
            Unusable::Json(err) => Fail::new(
                Status::Failed,
                format!("{} is not what kho writes: {err}", shown::path(&path)),
            )
            .fix("remove it to start afresh; what it listed is then no longer kept"),
            Unusable::Version(version) => Fail::new(
                Status::Failed,
                format!(
                    "{} has version {version}, this kho writes {VERSION}",
                    shown::path(&path)
                ),
            )
            .fix("use the kho that wrote it, or remove it"),
        })
    }

    /// Writes a new file beside the old one and renames it, so that a reader never sees an incomplete file.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. The old file is then intact.
    pub fn write<T: Serialize>(&self, name: &str, content: &T) -> Result<(), Fail> {
        self.prepare()?;
        let bound = Bound {
            version: VERSION,
            boot_id: boot_id()?,
            content,
        };
        let text = serde_json::to_vec_pretty(&bound).or_status(Status::Failed)?;
        let path = self.path.join(name);
        whole::write(&path, |out| out.write_all(&text)).map_err(|err| {
            let what = format!("cannot write {}: {err}", shown::path(&path));
            self.not_writable(what, &err)
        })
    }
}

/// Returns the identity of this boot (`/proc/sys/kernel/random/boot_id`, random(4)).
fn boot_id() -> Result<String, Fail> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = fs::read_to_string(path)
        .map_err(|err| Fail::new(Status::Failed, format!("cannot read {path}: {err}")))?;
    Ok(id.trim().to_owned())
}

/// Returns the name of a path for which the user gives none, in the form of `systemd-escape --path` (systemd.unit(5),
/// "String Escaping for Inclusion in Unit Names"). Two paths never have the same name.
pub fn escape_path(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    let trimmed: Vec<&[u8]> = bytes
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty())
        .collect();
    if trimmed.is_empty() {
        return "-".to_owned();
    }
    let mut name = String::new();
    for (at, byte) in trimmed.join(&b'/').into_iter().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at == 0 => name.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => {
                name.push(char::from(byte))
            }
            // Writing to a String cannot fail.
            _ => drop(write!(name, "\\x{byte:02x}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_paths_follow_systemd() {
        for (path, name) in [
            ("/", "-"),
            ("/srv/cache", "srv-cache"),
            ("/srv//cache/", "srv-cache"),
            ("/srv-cache", "srv\\x2dcache"),
            ("/.hidden/a b", "\\x2ehidden-a\\x20b"),
        ] {
            assert_eq!(escape_path(Path::new(path)), name);
        }
    }

    #[test]
    fn files_of_another_boot_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("kho"));
        state
            .set_keep(&KeepFile {
                removed: vec!["x".into()],
                ..KeepFile::default()
            })
            .unwrap();
        assert_eq!(state.keep().unwrap().removed, ["x"]);
        let path = state.path().join("keep.json");
        let text = fs::read_to_string(&path)
            .unwrap()
            .replace(&boot_id().unwrap(), "another-boot");
        fs::write(&path, text).unwrap();
        assert!(state.keep().unwrap().removed.is_empty());
        // The version of the file makes no difference if the file belongs to another boot.
        let later = r#"{"version": 2, "boot_id": "another-boot", "entries": "of another form"}"#;
        fs::write(&path, later).unwrap();
        assert_eq!(state.keep().unwrap(), KeepFile::default());
        let now = later.replace("another-boot", &boot_id().unwrap());
        fs::write(&path, now).unwrap();
        let fail = state.keep().unwrap_err();
        assert!(
            fail.what.contains("has version 2, this kho writes 1"),
            "{}",
            fail.what
        );
        fs::write(&path, "{}").unwrap();
        assert_eq!(state.keep().unwrap_err().status, Status::Failed);
    }

    /// A command line that is text is stored as text: older versions of the command wrote and read text.
    #[test]
    fn an_armed_command_line_is_bytes() {
        use std::os::unix::ffi::OsStringExt;
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("kho"));
        let armed = |append: Option<&[u8]>| ArmedFile {
            kernel: "/boot/vmlinuz".into(),
            release: "6.12".into(),
            initrd: false,
            reuse_cmdline: false,
            command_line: Some("root=/dev/vda".into()),
            append: append.map(|bytes| std::ffi::OsString::from_vec(bytes.to_vec())),
            scratch: None,
            max_ranges: None,
            carrier: crate::carrier::Wanted::Initrd,
            enter: crate::enter::Enter::Kernel,
            no_activate: false,
            no_module_check: false,
            forget_arrived: false,
            plain_line: Vec::new(),
            on_failure: None,
            places: Vec::new(),
            time: 1,
        };
        for append in [None, Some(&b"quiet"[..]), Some(b"note=gr\xfcn")] {
            let armed = armed(append);
            state.write("armed.json", &armed).unwrap();
            let back: ArmedFile = state.read("armed.json").unwrap().unwrap();
            assert_eq!(
                (back.append, back.command_line),
                (armed.append, armed.command_line)
            );
        }
        let text = fs::read_to_string(state.path().join("armed.json")).unwrap();
        assert!(text.contains(r#""root=/dev/vda""#), "{text}");
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("kho"));
        state.prepare().unwrap();
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(state.prepare().unwrap_err().status, Status::NotPermitted);
    }
}
