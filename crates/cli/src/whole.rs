//! Files that are written whole or stay unchanged.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Error, ErrorKind, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes the file `path`, which only root can read, with the bytes that `with` writes. The bytes go into `.NAME.new`
/// in the same folder, which is then renamed, so that a reader finds either the old file or the new one.
///
/// # Errors
///
/// If the file cannot be written or renamed, or the error of `with`. The old file is then intact, and the new one
/// removed.
pub fn write(path: &Path, with: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::from(ErrorKind::InvalidFilename))?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".new");
    let beside = path.with_file_name(beside);
    let written = create(&beside, with).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // An incomplete file would only take space. The first error is the one to report.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// Writes a file that only root can read at its path, with the bytes that `with` writes. An interrupted write leaves an
/// incomplete file.
///
/// # Errors
///
/// If the file cannot be written, or the error of `with`.
pub fn create(path: &Path, with: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    let mut file = BufWriter::new(file);
    with(&mut file)?;
    // A drop would ignore the error.
    file.into_inner().map(drop).map_err(|err| err.into_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn half_a_file_is_never_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, |out| out.write_all(b"old")).unwrap();
        let failed = write(&path, |out| {
            out.write_all(b"new")?;
            Err(Error::from(ErrorKind::StorageFull))
        });
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
