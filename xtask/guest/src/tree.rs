//! Trees of files to hand over: made from a seed, reduced to a digest.

mod hash;
mod make;

pub use hash::{hash_stdin, print_hash};
pub use kho_guest::random::Random;
pub use make::{bytes, make};
