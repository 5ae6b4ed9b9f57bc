//! The trace of this kernel and of those before it.
//!
//! [`wish`] says whether it is kept, [`take`] takes it, [`carry`] is what a load hands over, [`arrived`] is what a load
//! left, [`open`] reads it, [`show`] prints it to a [`file`](mod@file) or the terminal, and [`publish`] and [`instance`] make text
//! of it at boot.

pub mod arrived;
pub mod carry;
pub mod file;
pub mod instance;
pub mod open;
pub mod publish;
pub mod show;
pub mod take;
pub mod wish;
