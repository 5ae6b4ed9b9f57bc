//! The formats, through the public interface only.
#![allow(
    clippy::cast_possible_truncation,
    reason = "test data is small, and a cut-off value would fail its test"
)]

mod arm64;
mod arrival;
mod assemble;
mod bootparam;
mod carrier;
mod cmdline;
mod cpio;
mod fixture;
mod image;
mod oracle;
mod uki;
mod vmlinux;
