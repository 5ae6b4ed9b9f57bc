//! The arrival program as `/.kho/carry`: moves what came in the initrd to a file system of its own below `/run`, which
//! the real root file system gets. A hook of the initrd calls it; see `carrier/initrd.rs` of the crate.

use core::ffi::CStr;

use crate::log::{self, Log};
use crate::sys::{self, Errno};
use crate::text::Text;

/// The name by which the hook calls the program.
pub const CARRY: &CStr = c"/.kho/carry";
/// Bytes that are copied at once.
const CHUNK: usize = 1 << 16;

/// Moves the files and ends the program. Without files it does nothing.
pub fn run() -> ! {
    if sys::open(c"/.kho/carried/tree", sys::O_RDONLY, 0).is_err() {
        sys::exit(0)
    }
    let mut log = Log::to(c"/dev/kmsg");
    match all() {
        Ok((files, bytes)) => {
            log.begin(log::NOTICE)
                .str("the initrd brought ")
                .dec(files)
                .str(" files with ")
                .dec(bytes)
                .str(" bytes, now in /run/kho/carried")
                .end();
            sys::exit(0)
        }
        Err((what, why)) => {
            log.begin(log::ERROR)
                .str("what the initrd brought is LOST, at least in part: cannot ")
                .str(what)
                .errno(why)
                .end();
            sys::exit(1)
        }
    }
}

type Failure = (&'static str, Errno);

/// Moves all files. Returns their number and their bytes.
fn all() -> Result<(u64, u64), Failure> {
    for dir in [c"/run/kho", c"/run/kho/carried"] {
        match sys::make_dir(dir, 0o700) {
            Ok(()) | Err(sys::EEXIST) => {}
            Err(why) => return Err(("make /run/kho/carried", why)),
        }
    }
    // A limit for the size of this file system would only lose content: the bytes are in memory already.
    let to = c"/run/kho/carried";
    sys::mount(c"kho", to, c"tmpfs", sys::MS_QUIET, c"mode=0700,size=100%")
        .map_err(|why| ("mount a tmpfs at /run/kho/carried", why))?;
    let mut bytes = moved(b"tree")?.unwrap_or(0);
    let mut files = 1;
    loop {
        let mut digits = [0; 20];
        let name = Text::<32>::new(&[b"content-", decimal(files - 1, &mut digits)]);
        let name = name.map_err(|why| ("name a file", why))?;
        match moved(name.as_cstr().to_bytes())? {
            Some(len) => bytes += len,
            None => return Ok((files, bytes)),
        }
        files += 1;
    }
}

/// Moves a file. Returns its length; `None` if there is no such file.
fn moved(name: &[u8]) -> Result<Option<u64>, Failure> {
    let path = |folder: &[u8]| {
        let path = Text::<64>::new(&[folder, name]);
        path.map_err(|why| ("name a file", why))
    };
    let (from, to) = (path(b"/.kho/carried/")?, path(b"/run/kho/carried/")?);
    let input = match sys::open(from.as_cstr(), sys::O_RDONLY, 0) {
        Ok(input) => input,
        Err(sys::ENOENT) => return Ok(None),
        Err(why) => return Err(("open a file in /.kho/carried", why)),
    };
    let output = sys::open(to.as_cstr(), sys::O_CREATE, 0o600)
        .map_err(|why| ("make a file in /run/kho/carried", why))?;
    let mut buffer = [0; CHUNK];
    let mut at = 0;
    loop {
        let got = input
            .read_at(&mut buffer, at)
            .map_err(|why| ("read a file in /.kho/carried", why))?;
        let mut rest = buffer.get(..got).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            let wrote = output
                .write(rest)
                .map_err(|why| ("write a file in /run/kho/carried", why))?;
            rest = rest.get(wrote..).unwrap_or_default();
        }
        at += got as u64;
    }
    // The memory of the file is needed for the next one.
    sys::remove(from.as_cstr()).map_err(|why| ("remove a file in /.kho/carried", why))?;
    Ok(Some(at))
}

/// Writes a number into the end of the buffer and returns that part.
fn decimal(mut value: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
        used += 1;
        if value == 0 {
            break;
        }
    }
    digits.get(20 - used..).unwrap_or_default()
}
