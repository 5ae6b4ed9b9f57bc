//! Files of procfs and tracefs, read whole.

use crate::live::LiveError;
use crate::ring::PageError;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Reason why the trace cannot be taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TakeError {
    /// A file that cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the read.
        cause: std::io::Error,
    },
    /// tracefs does not exist.
    #[error("{} is not a tracefs", path.display())]
    NoTracefs {
        /// Path at which tracefs should be.
        path: PathBuf,
    },
    /// A symbol that the file does not name.
    #[error("{} does not give the address of {symbol}", path.display())]
    Symbol {
        /// The file.
        path: PathBuf,
        /// The symbol.
        symbol: &'static str,
    },
    /// The layout of pages is not known.
    #[error(transparent)]
    Layout(#[from] PageError),
    /// A buffer that cannot be read.
    #[error("cannot read the trace buffer of {array} CPU {cpu}: {cause}")]
    Buffer {
        /// Name of the array.
        array: String,
        /// Number of the CPU.
        cpu: u32,
        /// Reason why the buffer cannot be read.
        cause: LiveError,
    },
    /// The list of arrays.
    #[error("cannot find the trace buffers: {0}")]
    Live(#[from] LiveError),
    /// The folder of an instance exists, but the kernel has no array of that name.
    #[error("the instance {0} is not in the kernel's list of trace arrays")]
    NoArray(String),
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> TakeError {
    let path = path.to_owned();
    move |cause| TakeError::Io { path, cause }
}

/// Reads a file in large pieces. `header_page` and `header_event` return only the bytes for which the first read has
/// room (`show_header`, `kernel/trace/trace_events.c`), and the standard library begins with a small read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TakeError> {
    let mut file = fs::File::open(path).map_err(failed(path))?;
    let mut out = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(out),
            Ok(len) => out.extend_from_slice(piece.get(..len).unwrap_or_default()),
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(err) => return Err(failed(path)(err)),
        }
    }
}

/// Reads a file as text. Names of tasks may hold any bytes: bytes that are not UTF-8 are replaced.
pub(crate) fn text(path: &Path) -> Result<String, TakeError> {
    let bytes = read(path)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(err) => String::from_utf8_lossy(err.as_bytes()).into_owned(),
    })
}

pub(crate) fn text_if_there(path: &Path) -> String {
    text(path).unwrap_or_default()
}

pub(crate) fn names(dir: &Path) -> Result<Vec<String>, TakeError> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()),
        // Files among the folders, and folders that vanished after they were listed, because a module or a probe was
        // removed (`eventfs_root_lookup` and others of `fs/tracefs/event_inode.c` then return ENODEV).
        Err(err)
            if matches!(
                err.kind(),
                std::io::ErrorKind::NotADirectory | std::io::ErrorKind::NotFound
            ) || err.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) =>
        {
            Ok(Vec::new())
        }
        Err(err) => Err(failed(dir)(err)),
    }
}
