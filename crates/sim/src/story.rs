//! A random story, and the common code of all kinds of stories.

use crate::Template;
use std::fmt::Debug;
use std::ops::AddAssign;

/// A machine on which users, root and drivers act at random, with the model that checks it.
pub trait Story: Sized {
    /// Counts of the operations.
    type Tally: AddAssign + Copy + Debug + Default;

    /// Makes a machine that was just switched on, with the modules loaded. A thread can have one story at a time.
    ///
    /// # Errors
    ///
    /// If the machine is too small for a kernel.
    fn new(template: Template, seed: u64) -> Result<Self, String>;

    /// Performs one random operation, and checks the whole state.
    ///
    /// # Errors
    ///
    /// If an operation or a check fails: the number that chose the operation, and the failure.
    fn step(&mut self) -> Result<(), String>;

    /// Returns all memory, and checks that the page allocator has every page.
    ///
    /// # Errors
    ///
    /// If memory is not returned, or if another check fails.
    fn end(&mut self) -> Result<(), String>;

    /// Returns the counts of the operations so far.
    fn tally(&self) -> Self::Tally;
}

pub(crate) type Done = Result<(), String>;

pub(crate) fn ensure(good: bool, what: impl FnOnce() -> String) -> Done {
    if good { Ok(()) } else { Err(what()) }
}
