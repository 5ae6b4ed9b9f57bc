//! A simulated machine: RAM, a firmware map, and one kernel after another.
//!
//! It covers tests for which guests are too slow. Memory holds identities instead of bytes ([`memory`]), so that a
//! thousand handovers take seconds; the planner, the state tree and the phases are the real ones. A [`World`] performs
//! [`Op`]s. After each of them it checks the promises of a handover:
//!
//! - no kept byte is ever overwritten, and every blob arrives whole;
//! - no kept page lies in scratch, and scratch stays the same over hops;
//! - early boot never has to make more reservations than the machine allows, and finds enough memory;
//! - after a hop the planned memory is reserved, and all other memory is free: nothing leaks;
//! - a refusal leaves everything as it was;
//! - memory that only the firmware and memblock know is never covered and never overwritten;
//! - no generation is used twice, and only the image that was loaded last is executed.
//!
//! [`module`] adds the decisions of kho.ko, with drivers that are loaded and unloaded, and [`khofs`] those of the file
//! system.
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
