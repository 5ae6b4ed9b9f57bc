//! The records in the files of the state directory, and their parser. The fuzz targets compile this file too.

use crate::carrier::Wanted;
use crate::enter::Enter;
use crate::on_failure::OnFailure;
use kho::{PhysAddr, PhysRange, RangeError};
use kho_kexec::sys::loaded::LoadedImage;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// An entry of the keep list that was added in this boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// Name of the blob.
    pub label: String,
    /// Source of the content.
    pub content: Content,
}

/// Source of the content of a [`Local`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// A file, directory or symlink that is read at load time.
    Files {
        /// Path, absolute, with no symlink in its parents.
        path: OsString,
        /// Leave out sockets, devices and pipes.
        skip_special: bool,
        /// Do not descend into other mounted file systems.
        one_file_system: bool,
    },
    /// Bytes that were taken from standard input, in `blobs/<number>`.
    Raw {
        /// Number of the file.
        file: u64,
        /// Length of the file, in bytes.
        size: u64,
        /// Time at which the bytes were taken, in nanoseconds since the epoch.
        taken: u64,
    },
}

/// `keep.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepFile {
    /// Entries added in this boot, in order.
    pub entries: Vec<Local>,
    /// Names of arrived entries that a user took off the list.
    pub removed: Vec<String>,
    /// Names of arrived entries that were restored to their paths: the next load reads those paths again.
    pub restored: Vec<String>,
    /// Names of arrived entries whose memory was released.
    #[serde(default)]
    pub released: Vec<String>,
    /// Names of best-effort entries that the current handover leaves out. `keep.d` puts them on the list again.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Number of the next file in `blobs/`.
    pub next_file: u64,
    /// Choice about the trace in this boot.
    #[serde(default)]
    pub trace: Said,
}

/// `loaded.json`: the image that the last `kho load` loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadedFile {
    /// Generation in the state tree that was loaded.
    pub generation: u64,
    /// Generation of the drivers' active phase that the load belongs to; 0 if there was none.
    #[serde(default)]
    pub kernel_generation: u64,
    /// Whether the load began that phase: then forgetting the load ends the phase.
    #[serde(default)]
    pub entered: bool,
    /// Whether the load passed on the kernel's part that arrived, because this kernel had no module.
    #[serde(default)]
    pub again: bool,
    /// Path of the kernel image, for messages.
    pub kernel: String,
    /// Release that the image states.
    pub release: String,
    /// Hop count that the next kernel will see.
    pub hop: u64,
    /// Identity of the loaded image in the kernel.
    pub identity: LoadedImage,
    /// Digest of everything that can change between load and exec.
    pub content_digest: String,
    /// Kept paths, each with the digest of its metadata at load time.
    pub sources: Vec<(OsString, String)>,
    /// Entries that were copied from their paths: the name, and the BLAKE3 of the loaded content.
    #[serde(default)]
    pub contents: BTreeMap<String, String>,
    /// Bytes that the image hands over.
    pub bytes: u64,
    /// Time of the load, in nanoseconds since the epoch.
    pub time: u64,
    /// The scratch region: address and length.
    #[serde(default)]
    pub scratch: Option<[u64; 2]>,
    /// Nonce of the late block, if the module completes the load before the jump.
    #[serde(default)]
    pub late: Option<u64>,
    /// Whether the load leaves out what arrived in this boot (`--forget-arrived`).
    pub forget_arrived: bool,
    /// Number of bytes of memory that had failed at the time of the load.
    #[serde(default)]
    pub memory_failed: Option<u64>,
}

/// `armed.json`: the kernel that `kho load --arm` took, and the arguments for its load at the end of the shutdown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArmedFile {
    /// Path of the kernel image when it was armed, for messages, in the form of `shown::path`.
    pub kernel: String,
    /// Release that the image states.
    pub release: String,
    /// Whether there is an initrd.
    pub initrd: bool,
    /// `--reuse-cmdline`
    pub reuse_cmdline: bool,
    /// `--command-line`
    #[serde(default, with = "line")]
    pub command_line: Option<OsString>,
    /// `--append`
    #[serde(default, with = "line")]
    pub append: Option<OsString>,
    /// `--scratch`
    pub scratch: Option<String>,
    /// `--max-ranges`
    pub max_ranges: Option<usize>,
    /// Carrier that the arming found to work.
    #[serde(default)]
    pub carrier: Wanted,
    /// `--enter`
    #[serde(default)]
    pub enter: Enter,
    /// `--no-activate`
    #[serde(default)]
    pub no_activate: bool,
    /// `--no-module-check`
    #[serde(default)]
    pub no_module_check: bool,
    /// `--forget-arrived`
    pub forget_arrived: bool,
    /// Command line of the plain image.
    pub plain_line: Vec<u8>,
    /// Action if the content cannot be taken; `None` if the user chose none.
    pub on_failure: Option<OnFailure>,
    /// Mounts that the content lay on when the kernel was armed.
    #[serde(default)]
    pub places: Vec<Place>,
    /// Time at which the kernel was armed, in nanoseconds since the epoch.
    pub time: u64,
}

/// Serialization of a command line in JSON: a string if it is UTF-8, otherwise an array of numbers.
mod line {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub fn serialize<S: Serializer>(
        line: &Option<OsString>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let form = line.as_ref().map(|line| match line.to_str() {
            Some(text) => Form::Text(text.to_owned()),
            None => Form::Bytes(line.as_bytes().to_vec()),
        });
        form.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<OsString>, D::Error> {
        let form = Option::<Form>::deserialize(deserializer)?;
        Ok(form.map(|form| match form {
            Form::Text(text) => text.into(),
            Form::Bytes(bytes) => OsString::from_vec(bytes),
        }))
    }
}

/// The mounts of one entry of the keep list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Name of the entry.
    pub label: String,
    /// Mount point and source of each mount: the mount that holds the entry's path, and the mounts below the path.
    pub mounts: Vec<(OsString, OsString)>,
}

/// A JSON file of the state directory: the content, and the boot that it belongs to.
#[derive(Serialize, Deserialize)]
pub struct Bound<T> {
    /// [`VERSION`].
    pub version: u32,
    /// Identity of the boot.
    pub boot_id: String,
    /// The content.
    #[serde(flatten)]
    pub content: T,
}

/// Head of a file. It decides whether the content is parsed: in another version the content may have any form.
#[derive(Deserialize)]
struct Envelope {
    version: u32,
    boot_id: String,
}

/// Version of the files. Files of another version are refused.
pub const VERSION: u32 = 1;

/// `reserved.json`: pages that were reserved before an image was loaded. Address and length, in bytes.
#[derive(Serialize, Deserialize)]
pub struct ReservedFile {
    /// Ranges that were reserved.
    pub ranges: Vec<[u64; 2]>,
    /// Ranges whose flags the load read; `None` if it read those of all RAM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Vec<[u64; 2]>>,
}

impl ReservedFile {
    /// Makes ranges of a list of addresses and lengths.
    ///
    /// # Errors
    ///
    /// The error of the first pair that is not a valid range.
    pub fn ranges(list: &[[u64; 2]]) -> Result<Vec<PhysRange>, RangeError> {
        list.iter()
            .map(|[start, len]| PhysRange::new(PhysAddr::new(*start), *len))
            .collect()
    }
}

/// Request that the trace is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Largest number of bytes of ring buffer pages.
    pub limit: u64,
    /// Number of kernels whose traces are kept.
    pub hops: u32,
    /// Whether `keep.d` made the request.
    pub configured: bool,
}

/// Choice about the trace in this boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// No choice: the request that arrived holds.
    #[default]
    Nothing,
    /// Keep the trace.
    Keep(Wish),
    /// Do not keep the trace any more.
    Drop,
}

/// Reason why the text of a file cannot be used.
#[derive(Debug)]
pub enum Unusable {
    /// The text is not in the form that `kho` writes.
    Json(serde_json::Error),
    /// The file is of another version.
    Version(u32),
}

/// Returns the content of a file; `None` if the file belongs to another boot.
///
/// # Errors
///
/// [`Unusable`], if the text cannot be used.
pub fn parse<T: DeserializeOwned>(text: &str, boot_id: &str) -> Result<Option<T>, Unusable> {
    let envelope: Envelope = serde_json::from_str(text).map_err(Unusable::Json)?;
    if envelope.boot_id != boot_id {
        return Ok(None);
    }
    if envelope.version != VERSION {
        return Err(Unusable::Version(envelope.version));
    }
    let bound: Bound<T> = serde_json::from_str(text).map_err(Unusable::Json)?;
    Ok(Some(bound.content))
}
