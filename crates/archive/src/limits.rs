//! What an archive can hold: the same bounds for who writes one and who reads one, so that whatever is packed can be
//! unpacked.

/// Most bytes that the headers of one entry may take, names and extended attributes included.
pub(crate) const MAX_HEAD: usize = 1 << 20;

/// Longest path in an archive: `PATH_MAX` (4096 with its NUL) less what the name of a stage takes. How long one
/// component may be, the file system says.
pub(crate) const MAX_PATH: usize = 4080;

/// Longest text of a symlink: `PATH_MAX` less its NUL (symlink(2)).
pub(crate) const MAX_LINK: usize = 4095;

/// Most bytes that the extended attributes of a directory and of the directories above it may take: whoever unpacks
/// holds them until the directories are complete.
pub(crate) const MAX_OPEN_ATTRIBUTES: usize = 16 << 20;

/// Why this cannot be the path of an entry, relative and without slashes at its ends.
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

/// Why this cannot be the text of a symlink. It is never followed here, so it may say anything that symlink(2) takes.
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

/// Whether something can be owned by a user or group of this number. The last one means "leave as it is" to chown(2).
pub(crate) fn owner(id: u32) -> bool {
    id != u32::MAX
}

/// Bytes of names and values of extended attributes.
pub(crate) fn weight(xattrs: &[(Vec<u8>, Vec<u8>)]) -> usize {
    xattrs.iter().map(|(n, v)| n.len() + v.len()).sum()
}
