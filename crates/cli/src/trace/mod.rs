//! Traces of this kernel and of previous kernels.
//!
//! [`wish`] decides whether the trace is kept, [`take`] takes it, [`carry`] holds the traces that a load hands over,
//! [`arrived`] those that arrived. [`open`] reads these, [`show`] prints them to a [`file`](mod@file) or the terminal,
//! and [`publish`] and [`instance`] write them as text at boot.

pub mod arrived;
pub mod carry;
pub mod file;
pub mod instance;
pub mod open;
pub mod publish;
pub mod show;
pub mod take;
pub mod wish;
