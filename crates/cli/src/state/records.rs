//! What the files of the state directory hold, and how their text is read. The fuzz targets compile this file too.

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
    /// Where its content comes from.
    pub content: Content,
}

/// Where the content of a [`Local`] comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// A file, directory or symlink that is read at load time.
    Files {
        /// Absolute, with no symlink in its parents.
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
        /// Its length in bytes.
        size: u64,
        /// When they were taken, nanoseconds since the epoch.
        taken: u64,
    },
}

/// `keep.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepFile {
    /// Entries added in this boot, in order.
    pub entries: Vec<Local>,
    /// Names of arrived entries that were taken off the list.
    pub removed: Vec<String>,
    /// Names of arrived entries that were restored to their place: their path is read again.
    pub restored: Vec<String>,
    /// Names of arrived entries whose memory was given back.
    #[serde(default)]
    pub released: Vec<String>,
    /// Names of best-effort entries that the handover at hand goes without; `keep.d` puts them on the list again.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Number of the next file in `blobs/`.
    pub next_file: u64,
    /// What was said of the trace.
    #[serde(default)]
    pub trace: Said,
}

/// `loaded.json`: what the last `kho load` loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadedFile {
    /// Generation in the state tree that was loaded.
    pub generation: u64,
    /// Generation of the drivers' active phase that it belongs to; 0 when there was none.
    #[serde(default)]
    pub kernel_generation: u64,
    /// The load entered that phase, so forgetting the load leaves it.
    #[serde(default)]
    pub entered: bool,
    /// It names again what drivers left for a kernel with the module, which this one was not.
    #[serde(default)]
    pub again: bool,
    /// Path of the kernel image, for messages.
    pub kernel: String,
    /// Release that the image says it is.
    pub release: String,
    /// Hop count that the next kernel will see.
    pub hop: u64,
    /// Identity of the image inside the kernel.
    pub identity: LoadedImage,
    /// Digest over everything that can change between load and exec.
    pub content_digest: String,
    /// Per kept path: its digest over metadata at load time.
    pub sources: Vec<(OsString, String)>,
    /// Per entry that was copied from its path: its name, and the BLAKE3 of what was loaded.
    #[serde(default)]
    pub contents: BTreeMap<String, String>,
    /// Bytes that the image hands over.
    pub bytes: u64,
    /// When it was loaded, nanoseconds since the epoch.
    pub time: u64,
    /// The scratch region: address and length.
    #[serde(default)]
    pub scratch: Option<[u64; 2]>,
    /// What arrived in this boot is not part of it (`--forget-arrived`).
    pub forget_arrived: bool,
    /// Bytes of memory that had failed then.
    #[serde(default)]
    pub memory_failed: Option<u64>,
}

/// `armed.json`: what `kho load --arm` took, and how it is to be loaded when the system stops.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArmedFile {
    /// Path of the kernel image when it was taken, for messages: as `shown::path` writes it.
    pub kernel: String,
    /// Release that the image says it is.
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
    /// What to do when the content cannot be taken, if it was said.
    pub on_failure: Option<OnFailure>,
    /// Mounts that the content lay on.
    #[serde(default)]
    pub places: Vec<Place>,
    /// When, nanoseconds since the epoch.
    pub time: u64,
}

/// The bytes of a command line in JSON: a string where they are UTF-8, and else an array of numbers.
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

/// The mounts of one entry of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Name of the entry.
    pub label: String,
    /// Mount point, and what is mounted there: of the mount that holds its path, and of those below.
    pub mounts: Vec<(OsString, OsString)>,
}

/// A JSON file of this directory: the content, and the boot it belongs to.
#[derive(Serialize, Deserialize)]
pub struct Bound<T> {
    /// [`VERSION`].
    pub version: u32,
    /// The boot.
    pub boot_id: String,
    /// The content.
    #[serde(flatten)]
    pub content: T,
}

/// What says whether the rest of a file is to be read: its content may have any form in another version.
#[derive(Deserialize)]
struct Envelope {
    version: u32,
    boot_id: String,
}

/// Version of the files; another version is refused, not guessed at.
pub const VERSION: u32 = 1;

/// `reserved.json`: pages that were reserved while nothing was loaded. Address and length, in bytes.
#[derive(Serialize, Deserialize)]
pub struct ReservedFile {
    /// Reserved.
    pub ranges: Vec<[u64; 2]>,
    /// Pages that the load asked about; without it, all of RAM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Vec<[u64; 2]>>,
}

impl ReservedFile {
    /// The ranges of a list.
    ///
    /// # Errors
    ///
    /// The first that is none.
    pub fn ranges(list: &[[u64; 2]]) -> Result<Vec<PhysRange>, RangeError> {
        list.iter()
            .map(|[start, len]| PhysRange::new(PhysAddr::new(*start), *len))
            .collect()
    }
}

/// That the trace is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Bytes of ring buffer pages at most.
    pub limit: u64,
    /// Of how many kernels.
    pub hops: u32,
    /// Whether `keep.d` asked for it.
    pub configured: bool,
}

/// What was said in this boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// Nothing: what arrived holds.
    #[default]
    Nothing,
    /// Keep it.
    Keep(Wish),
    /// Do not keep it any more.
    Drop,
}

/// Why the text of a file cannot be used.
#[derive(Debug)]
pub enum Unusable {
    /// Not what `kho` writes.
    Json(serde_json::Error),
    /// Of another version.
    Version(u32),
}

/// The content of a file; none when it is of another boot.
///
/// # Errors
///
/// [`Unusable`].
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
