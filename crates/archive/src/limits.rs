//! Limits of an archive. Packing and unpacking have the same limits, so every packed archive can be unpacked.

/// Largest number of bytes of the headers of an entry, including names and extended attributes.
pub(crate) const MAX_HEAD: usize = 1 << 20;

/// Longest path in an archive, in bytes: `PATH_MAX` (4096 with its NUL) minus the length of a stage's name. The file
/// system limits the length of one component.
pub(crate) const MAX_PATH: usize = 4080;

/// Longest text of a symlink, in bytes: `PATH_MAX` minus its NUL (symlink(2)).
pub(crate) const MAX_LINK: usize = 4095;

/// Largest number of bytes of the extended attributes of a directory and of the directories above it: unpacking holds
/// them in memory until the directories are complete.
pub(crate) const MAX_OPEN_ATTRIBUTES: usize = 16 << 20;

/// Checks that `path` is valid for an entry: relative, and without a slash at either end. The error is the reason why
/// it is not valid.
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

/// Checks that `text` is valid as the text of a symlink. The error is the reason why it is not valid. This crate never
/// follows the symlink, so the text may be any text that symlink(2) accepts.
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

/// Returns whether a user or group with this number can own an object. chown(2) takes the largest number as "no
/// change".
pub(crate) fn owner(id: u32) -> bool {
    id != u32::MAX
}

/// Returns the number of bytes in the names and values of extended attributes.
pub(crate) fn weight(xattrs: &[(Vec<u8>, Vec<u8>)]) -> usize {
    xattrs.iter().map(|(n, v)| n.len() + v.len()).sum()
}
