//! Random bytes from the kernel.

use crate::exit::{Fail, OrStatus, Status};
use rustix::rand::{GetRandomFlags, getrandom};

/// Returns unpredictable bytes (getrandom(2)).
///
/// # Errors
///
/// If the kernel returns none.
pub fn bytes<const N: usize>() -> Result<[u8; N], Fail> {
    let mut bytes = [0; N];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match getrandom(rest, GetRandomFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            got => done += got.or_status(Status::Failed)?,
        }
    }
    Ok(bytes)
}

/// Returns an unpredictable number.
///
/// # Errors
///
/// The error of [`bytes`].
pub fn number() -> Result<u64, Fail> {
    Ok(u64::from_ne_bytes(bytes()?))
}
