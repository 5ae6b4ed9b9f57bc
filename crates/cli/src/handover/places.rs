//! The mounts that the content lies on, compared between arming and the capture. A mount point without its mount looks
//! like an empty directory, and `kho` would hand over that directory.

use crate::exit::{Fail, OrStatus, Status};
use crate::keepd::effort::LeftOut;
use crate::list::{Entry, Source};
use crate::mounts::{self, Mounted};
use crate::session::Session;
use crate::state::Place;
use std::path::Path;

/// Longest list of mounts that is read, in bytes.
const LIMIT: u64 = 16 << 20;

/// Returns the mounts of all entries whose content comes from a path.
///
/// # Errors
///
/// If the list of mounts cannot be read.
pub fn of(entries: &[Entry], session: &Session) -> Result<Vec<Place>, Fail> {
    Ok(all(entries, &mounted(session)?))
}

/// Returns the entries that no longer lie on their recorded mounts, with the reason.
///
/// # Errors
///
/// If the list of mounts cannot be read.
pub fn changed(
    before: &[Place],
    entries: &[Entry],
    session: &Session,
) -> Result<Vec<LeftOut>, Fail> {
    Ok(compare(before, &all(entries, &mounted(session)?)))
}

/// Returns all mounts that this process sees.
///
/// # Errors
///
/// If the list of mounts cannot be read.
pub fn mounted(session: &Session) -> Result<Vec<Mounted>, Fail> {
    let text = session
        .root
        .bytes("proc/self/mountinfo", LIMIT)
        .or_status(Status::Failed)?;
    Ok(mounts::mounted(&text))
}

fn all(entries: &[Entry], mounted: &[Mounted]) -> Vec<Place> {
    let place = |entry: &Entry| {
        let path = entry.path.as_deref()?;
        if !matches!(entry.source, Source::Path) {
            return None;
        }
        let below = match entry.leave_out.other_file_systems {
            true => Vec::new(),
            false => mounts::below(path, mounted),
        };
        let holder = mounts::holder(path, mounted).into_iter();
        let pair = |mount: &Mounted| (mount.at.clone().into_os_string(), mount.what.clone());
        Some(Place {
            label: entry.label.clone(),
            mounts: holder.chain(below).map(pair).collect(),
        })
    };
    entries.iter().filter_map(place).collect()
}

/// Returns the entries of which a recorded mount is gone, was replaced, or is hidden by a new mount over the path. A
/// new mount below a path is no loss.
fn compare(before: &[Place], now: &[Place]) -> Vec<LeftOut> {
    let changed = |old: &Place| {
        let new = now.iter().find(|place| place.label == old.label)?;
        let over = match (old.mounts.first(), new.mounts.first()) {
            (Some((old, _)), Some((new, _))) if old != new && Path::new(new).starts_with(old) => {
                Some(format!("{} was mounted over it", new.display()))
            }
            _ => None,
        };
        let gone = || {
            let (at, _) = old.mounts.iter().find(|one| !new.mounts.contains(one))?;
            let path = at.display();
            let other = new.mounts.iter().find(|(place, _)| place == at);
            Some(match other {
                Some((_, what)) => format!("{path} is another file system ({})", what.display()),
                None => format!("{path} is not mounted any more"),
            })
        };
        Some(LeftOut {
            label: old.label.clone(),
            why: format!("{}, since it was armed", over.or_else(gone)?),
        })
    };
    before.iter().filter_map(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(mounts: &[(&str, &str)]) -> Vec<Place> {
        vec![Place {
            label: "a".into(),
            mounts: mounts
                .iter()
                .map(|(at, what)| ((*at).into(), (*what).into()))
                .collect(),
        }]
    }

    #[test]
    fn a_mount_that_went_or_became_another_one_is_found() {
        let armed = place(&[("/srv", "tmpfs tmpfs /"), ("/srv/in", "ext4 /dev/vdb /")]);
        assert!(compare(&armed, &armed).is_empty());
        let more = place(&[
            ("/srv", "tmpfs tmpfs /"),
            ("/srv/in", "ext4 /dev/vdb /"),
            ("/srv/more", "tmpfs tmpfs /"),
        ]);
        assert!(compare(&armed, &more).is_empty());
        for (now, why) in [
            (
                place(&[("/", "ext4 /dev/vda /")]),
                "/srv is not mounted any more",
            ),
            (
                place(&[("/srv", "tmpfs tmpfs /")]),
                "/srv/in is not mounted any more",
            ),
            (
                place(&[("/srv/a", "tmpfs tmpfs /")]),
                "/srv/a was mounted over it",
            ),
            (
                place(&[("/srv", "tmpfs tmpfs /"), ("/srv/in", "ext4 /dev/vdc /")]),
                "/srv/in is another file system (ext4 /dev/vdc /)",
            ),
        ] {
            let found = compare(&armed, &now);
            let said = found.first().map(|left| left.why.clone());
            assert_eq!(said, Some(format!("{why}, since it was armed")));
        }
        // An entry that was removed from the list is no loss.
        assert!(compare(&armed, &[]).is_empty());
    }
}
