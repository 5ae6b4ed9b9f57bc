//! Fuzz targets: one for every parser of bytes that this project did not write itself.
//!
//! A [`Target`] takes any bytes. It fails by panicking. It looks for panics of the parser, and it also checks the
//! parser's promises for every accepted input (the input can be written again and read back alike, two readers agree, a
//! refusal changed nothing). The same functions run in three ways: under libFuzzer with AddressSanitizer (`cargo xtask
//! fuzz`, and briefly in `cargo xtask test`), over the committed corpus, and over all inputs that fuzzing ever found
//! (`tests/replay.rs`, in an ordinary test run).
//!
//! To add a parser, add a function to one of the modules here and a line to [`TARGETS`].

mod archive;
mod chain;
mod devicetree;
mod facts;
mod image;
mod lines;
mod list;
mod modules;
mod planner;
mod state;
mod trace;
mod tree;

pub use list::{TARGETS, Target};

/// A folder for files that a parser reads by path, one per thread.
fn scratch() -> &'static std::path::Path {
    thread_local! {
        static DIR: &'static std::path::Path = {
            let memory = std::path::Path::new("/dev/shm");
            let dir = if memory.is_dir() {
                tempfile::tempdir_in(memory)
            } else {
                tempfile::tempdir()
            };
            // Leaked on purpose: libFuzzer leaves by _exit, which runs no destructor.
            Box::leak(dir.expect("a temporary folder").keep().into_boxed_path())
        };
    }
    DIR.with(|dir| *dir)
}

/// Writes a file below [`scratch`], making its folder.
fn put(path: &str, bytes: &[u8]) {
    let path = scratch().join(path);
    let write = || std::fs::write(&path, bytes);
    if write().is_err() {
        let parent = path.parent().expect("a folder");
        std::fs::create_dir_all(parent).expect("a temporary folder");
        write().expect("a temporary file");
    }
}

/// Removes everything below this folder of [`scratch`].
fn clear(path: &str) {
    let _ = std::fs::remove_dir_all(scratch().join(path));
}

/// Takes numbers from an input; at its end all further numbers are zero.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(len.min(self.0.len()));
        self.0 = tail;
        head
    }

    fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn u64(&mut self) -> u64 {
        let mut word = [0; 8];
        let bytes = self.bytes(8);
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
