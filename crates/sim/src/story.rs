//! A random story, and what all kinds of stories share.

use crate::Template;
use std::fmt::Debug;
use std::ops::AddAssign;

/// A machine on which users, root and drivers act at random, and a model that it is held against.
pub trait Story: Sized {
    /// Counts of what happened.
    type Tally: AddAssign + Copy + Debug + Default;

    /// A machine that was just switched on, on which the modules were loaded. One for each thread at a time.
    ///
    /// # Errors
    ///
    /// If it is too small for a kernel.
    fn new(template: Template, seed: u64) -> Result<Self, String>;

    /// Does one thing that is left to chance, and checks everything.
    ///
    /// # Errors
    ///
    /// If an operation or a check fails: the number that chose the operation, and the failure.
    fn step(&mut self) -> Result<(), String>;

    /// Gives everything back, and checks that the page allocator has every page.
    ///
    /// # Errors
    ///
    /// If memory is not given back, or if another check fails.
    fn end(&mut self) -> Result<(), String>;

    /// Returns the counts of what happened so far.
    fn tally(&self) -> Self::Tally;
}

pub(crate) type Done = Result<(), String>;

pub(crate) fn ensure(good: bool, what: impl FnOnce() -> String) -> Done {
    if good { Ok(()) } else { Err(what()) }
}
