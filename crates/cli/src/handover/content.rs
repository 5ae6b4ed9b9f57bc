//! Content of the keep list, measured before it gets a place.

use crate::arrived::{Arrived, Blob};
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::list::{Entry, Source};
use crate::output::Output;
use crate::session::Session;
use crate::shown;
use kho_archive::{Measure, PackError, PackOptions, Target};
use std::io::{ErrorKind, Read};

/// An entry of the keep list with its size.
pub struct Item {
    /// The entry.
    pub entry: Entry,
    /// Size of the content, in bytes.
    pub size: u64,
    /// Source of the content.
    pub supply: Supply,
}

/// Source of the content of an [`Item`].
pub enum Supply {
    /// The file system: the load packs the files.
    Pack(Box<Measure>),
    /// A file of the state directory: the load copies its bytes.
    Copy {
        /// Number of the file.
        file: u64,
        /// Time at which the bytes were taken, in nanoseconds since the epoch.
        taken: u64,
    },
    /// A blob that arrived. It stays at its address, and the next tree names that address: nothing is copied.
    Stays(Blob),
    /// A blob that arrived and cannot stay where it is: the load copies its bytes.
    Arrived(Blob),
}

/// Measures every entry. `stays` says whether blobs that arrived can stay where they are.
///
/// # Errors
///
/// [`Status::BadSource`] or [`Status::SourceChanged`], with the path.
pub fn measure(
    entries: Vec<Entry>,
    arrived: Option<&Arrived>,
    stays: bool,
    session: &Session,
) -> Result<Vec<Item>, Fail> {
    entries
        .into_iter()
        .map(|entry| item(entry, arrived, stays, session))
        .collect()
}

fn item(
    entry: Entry,
    arrived: Option<&Arrived>,
    stays: bool,
    session: &Session,
) -> Result<Item, Fail> {
    let (size, supply) = match (&entry.source, &entry.path) {
        (Source::Path, Some(path)) => {
            let options = PackOptions {
                skip_special: entry.leave_out.special,
                one_file_system: entry.leave_out.other_file_systems,
            };
            let measure = kho_archive::measure(path, &options)
                .map_err(|err| pack_fail(&entry.label, &err))?;
            (measure.bytes, Supply::Pack(Box::new(measure)))
        }
        (Source::Taken { file, size, taken }, _) => {
            let path = session.state.blob_path(*file);
            let found = std::fs::metadata(&path)
                .map(|m| m.len())
                .or_status(Status::BadSource)?;
            if found != *size {
                return Err(Fail::new(
                    Status::SourceChanged,
                    format!(
                        "{}: {} has {found:#x} bytes, {size:#x} were taken",
                        entry.label,
                        shown::path(&path)
                    ),
                )
                .fix(format!(
                    "kho keep --remove {} and take it again",
                    entry.label
                )));
            }
            (
                *size,
                Supply::Copy {
                    file: *file,
                    taken: *taken,
                },
            )
        }
        (Source::Arrived { index }, _) => {
            let blob = arrived
                .and_then(|a| a.blobs.get(*index))
                .ok_or_else(crate::session::nothing_arrived)?;
            let supply = if stays {
                Supply::Stays
            } else {
                Supply::Arrived
            };
            (blob.size, supply(blob.clone()))
        }
        (Source::Path, None) => {
            return Err(Fail::new(
                Status::Failed,
                format!("{} is on the list without a path", entry.label),
            ));
        }
    };
    Ok(Item {
        entry,
        size,
        supply,
    })
}

/// Compares the hash of every entry that is handed on in place with the recorded hash.
///
/// # Errors
///
/// [`Status::BlobCorrupt`] for the first entry that differs.
pub fn verify(session: &Session, forget: bool, out: Output) -> Result<(), Fail> {
    let Some(arrived) = session.carried(forget)? else {
        return Ok(());
    };
    let started = std::time::Instant::now();
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    for entry in crate::list::effective(Some(arrived), &session.state.keep()?) {
        let Source::Arrived { index } = entry.source else {
            continue;
        };
        let blob = arrived
            .blobs
            .get(index)
            .ok_or_else(crate::session::nothing_arrived)?;
        session.open_blob(blob)?.rest()?;
        bytes += blob.size;
        entries += 1;
    }
    out.remark(&format!(
        "verified {entries} of the arrived entries, {} in {:.2} s",
        crate::output::bytes(bytes),
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

impl Item {
    /// Returns the blob as which the entry arrived, if the blob stays in place; `None` if the load copies the content.
    pub fn stays(&self) -> Option<&Blob> {
        match &self.supply {
            Supply::Stays(blob) => Some(blob),
            Supply::Copy { .. } | Supply::Pack(_) | Supply::Arrived(_) => None,
        }
    }

    /// Returns a message for the administrator about attributes of the content that a handover loses; `None` if it
    /// loses none.
    pub fn not_kept(&self) -> Option<String> {
        let Supply::Pack(measure) = &self.supply else {
            return None;
        };
        let first = measure.first_locked()?;
        Some(format!(
            "{}: {} locked by chattr +i or +a, the first is {}: what is restored is not locked",
            self.entry.label,
            usize::try_from(measure.stats.locked).map_or_else(
                |_| "objects are".to_owned(),
                |n| crate::output::count(n, "object is", "objects are")
            ),
            shown::path(first)
        ))
    }

    /// Returns a digest that differs after a change of the source; `None` if the content is not packed from the file
    /// system.
    pub fn fingerprint(&self) -> Option<String> {
        match &self.supply {
            Supply::Pack(measure) => Some(
                blake3::Hash::from_bytes(measure.fingerprint)
                    .to_hex()
                    .to_string(),
            ),
            Supply::Copy { .. } | Supply::Stays(_) | Supply::Arrived(_) => None,
        }
    }

    /// Writes the content of an entry that is copied: exactly `self.size` bytes.
    ///
    /// # Errors
    ///
    /// [`Status::SourceChanged`] if the source has fewer or more bytes, or the error of reading.
    pub fn write(
        &self,
        out: &mut impl Target,
        session: &Session,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Fail> {
        match &self.supply {
            Supply::Pack(measure) => {
                measure
                    .pack_into(out, progress)
                    .map_err(|err| pack_fail(&self.entry.label, &err))?;
            }
            Supply::Copy { file, .. } => {
                let path = session.state.blob_path(*file);
                let mut input = std::fs::File::open(&path).or_status(Status::BadSource)?;
                let copied =
                    copy(&mut input, self.size, out, progress).or_status(Status::Failed)?;
                if copied != self.size {
                    return Err(Fail::new(
                        Status::SourceChanged,
                        format!(
                            "{}: {} ended after {copied:#x} of {:#x} bytes",
                            self.entry.label,
                            shown::path(&path),
                            self.size
                        ),
                    ));
                }
            }
            Supply::Arrived(blob) => {
                let mut input = session.open_blob(blob)?;
                copy(&mut input, self.size, out, progress).or_status(Status::Failed)?;
                input.finish()?;
            }
            Supply::Stays(_) => {}
        }
        Ok(())
    }
}

/// Copies at most `size` bytes into the target. Returns the number of bytes that were read.
fn copy(
    input: &mut impl Read,
    size: u64,
    out: &mut impl Target,
    progress: &mut dyn FnMut(u64),
) -> std::io::Result<u64> {
    let mut copied = 0;
    while copied < size {
        let room = out.room(usize::try_from(size - copied).unwrap_or(usize::MAX))?;
        match input.read(room) {
            Ok(0) => break,
            Ok(n) => {
                out.filled(n)?;
                copied += n as u64;
                progress(copied);
            }
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(copied)
}

fn pack_fail(label: &str, err: &PackError) -> Fail {
    let status = match err {
        PackError::Changed { .. } => Status::SourceChanged,
        _ => Status::BadSource,
    };
    let fail = Fail::new(status, format!("cannot keep {label}: {}", chain(err)));
    match status {
        Status::SourceChanged => {
            fail.fix("stop what writes there and load again; nothing was loaded")
        }
        _ => fail.fix("kho keep --skip-special leaves out sockets, devices and pipes"),
    }
}
