//! The trace of this kernel and of those before it.
//!
//! [`wish`] says whether the trace is kept, [`take`] takes it, [`carry`] holds the traces that a load hands over,
//! [`arrived`] those that arrived, [`open`] reads them, [`show`] prints them to a [`file`](mod@file) or the terminal,
//! and [`publish`] and [`instance`] make text of them at boot.

pub mod arrived;
pub mod carry;
pub mod file;
pub mod instance;
pub mod open;
pub mod publish;
pub mod show;
pub mod take;
pub mod wish;
