//! The arrival program in an initrd that kho did not load, started by a copied command line: it starts the init that
//! the kernel would have started without kho.

use crate::log::Log;
use crate::root::{MAX_LINE, read_command_line};
use crate::sys::{self, Start};
use crate::text::{Text, arguments};

/// The value of the `rdinit=` that starts this program.
const OURS: &[u8] = b"/.kho/arrive";

/// Starts the program of the last `rdinit=` that does not name the arrival program, or `/init`.
pub fn on(start: &Start) -> ! {
    // The initrd of another program has no directory to mount at. If the directory exists already, it serves as well.
    let _ = sys::make_dir(c"/.kho/proc", 0o700);
    let mut buffer = [0; MAX_LINE];
    // The log stays closed: nothing was handed over in this boot.
    let line = read_command_line(&mut buffer, &mut Log::closed()).unwrap_or_default();
    let theirs = arguments(line)
        .filter(|(name, value)| *name == b"rdinit" && !value.is_empty() && *value != OURS)
        .last();
    if let Some((_, path)) = theirs
        && let Ok(path) = Text::<4096>::new(&[path])
    {
        let _ = start.exec(path.as_cstr());
    }
    let _ = start.exec(c"/init");
    // The kernel panics when PID 1 exits, as it would without any init.
    sys::exit(1)
}
