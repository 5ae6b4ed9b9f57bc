//! The trace of this kernel and of those before it.
//!
//! [`wish`] says whether it is kept, [`take`] takes it, [`carry`] is what a load hands over, [`arrived`] is what a load
//! left, and [`show`] prints.

pub mod arrived;
pub mod carry;
pub mod show;
pub mod take;
pub mod wish;
