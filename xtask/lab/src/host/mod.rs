//! This machine: the packages that it lacks, and its sources of Debian packages.

pub mod apt;
mod needs;
pub mod sources;

pub use needs::{Need, Sign, prepare, prepare_arm64, program, require};
pub use sources::CODENAME;
