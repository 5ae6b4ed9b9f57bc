//! Bounds of what an archive can hold. Packing and unpacking have the same ones, so that every packed archive can be
//! unpacked.

/// Most bytes that the headers of one entry may take, names and extended attributes included.
pub(crate) const MAX_HEAD: usize = 1 << 20;

/// Longest path in an archive: `PATH_MAX` (4096 with its NUL) less what the name of a stage takes. The file system
/// bounds the length of one component.
pub(crate) const MAX_PATH: usize = 4080;

/// Longest text of a symlink: `PATH_MAX` less its NUL (symlink(2)).
pub(crate) const MAX_LINK: usize = 4095;

/// Most bytes that the extended attributes of a directory and of the directories above it may take: unpacking holds
/// them in memory until the directories are complete.
pub(crate) const MAX_OPEN_ATTRIBUTES: usize = 16 << 20;

/// Checks that `path` can be the path of an entry: relative and without slashes at its ends. The error is the reason
/// why it cannot.
pub(crate) fn path(path: &[u8]) -> Result<(), &'static str> {
    if path.is_empty() {
        Err("it is empty")
    } else if path.first() == Some(&b'/') {
        Err("it is absolute")
    } else if path.len() > MAX_PATH {
        Err("it is longer than 4080 bytes")
    } else if path.contains(&0) {
        Err("it holds a NUL byte")
    } else {
        let bad = path.split(|b| *b == b'/').find_map(|c| match c {
            b"" => Some("it has an empty component"),
            b"." => Some("it has a `.` component"),
            b".." => Some("it has a `..` component"),
            _ => None,
        });
        bad.map_or(Ok(()), Err)
    }
}

/// Checks that `text` can be the text of a symlink. The error is the reason why it cannot. This crate never follows the
/// symlink, so the text may be anything that symlink(2) takes.
pub(crate) fn symlink(text: &[u8]) -> Result<(), &'static str> {
    if text.is_empty() {
        Err("it is empty")
    } else if text.contains(&0) {
        Err("it holds a NUL byte")
    } else if text.len() > MAX_LINK {
        Err("it is longer than 4095 bytes")
    } else {
        Ok(())
    }
}

/// Returns whether a user or group of this number can own an object. The largest number means "leave as it is" to
/// chown(2).
pub(crate) fn owner(id: u32) -> bool {
    id != u32::MAX
}

/// Returns the number of bytes in the names and values of extended attributes.
pub(crate) fn weight(xattrs: &[(Vec<u8>, Vec<u8>)]) -> usize {
    xattrs.iter().map(|(n, v)| n.len() + v.len()).sum()
}
