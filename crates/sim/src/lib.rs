//! A simulated machine: RAM, firmware map, and kernels that come and go.
//!
//! It answers the questions that guests are too slow for. Memory holds identities instead of bytes
//! ([`memory`]), so that a thousand handovers take seconds; the planner, the state tree and the phases are the
//! real ones. A [`World`] performs [`Op`]s and checks, after each, what a handover promises:
//!
//! - no kept byte is ever overwritten, and every blob arrives whole;
//! - no kept page lies in scratch, and scratch stays the same over hops;
//! - early boot never sees more reservations than the machine takes, and finds enough memory;
//! - what is reserved after a hop is what was planned, and everything else is free: nothing leaks;
//! - a refusal leaves everything as it was;
//! - memory that only the firmware and memblock know of is never covered and never overwritten;
//! - no generation comes back, and nothing but the image that was loaded last is executed.
//!
//! [`module`] adds what kho.ko decides, with drivers that come and go, and [`khofs`] what the file system does.
//!
//! A violation is a [`Failure`], which prints the [`script`] that led to it; saved below `scripts/` it is a regression test.

mod arrive;
pub mod buddy;
pub mod chain;
pub mod kernel;
pub mod khofs;
mod load;
pub mod machine;
pub mod memory;
pub mod module;
pub mod op;
mod producers;
pub mod script;
mod sets;
mod story;
mod world;

pub use machine::Template;
pub use op::{Cut, Op, Outcome};
pub use sets::Rng;
pub use story::Story;
pub use world::{Failure, Mistake, Stats, World, run};
