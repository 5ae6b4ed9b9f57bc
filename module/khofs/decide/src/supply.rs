//! Memory from the system for one request, taken and erased without the lock of the state, so that no other caller
//! waits.

use crate::bits::PAGES;
use crate::system::System;
use kho_decide::errno::Errno;

/// The request must be repeated, with more memory in its supply.
const EAGAIN: Errno = Errno(11);

/// Maximum number of times that memory is taken for one request.
const ROUNDS: u32 = 16;

/// Memory for one request.
#[derive(Default)]
pub struct Supply {
    /// First page frame and number of the pages that were taken and are unused.
    pages: Option<(u64, u64)>,
    /// Number of contiguous pages that the request needs; `None` if it needs none.
    wanted: Option<u64>,
    /// Smallest number of contiguous pages that the system did not have; `None` if it had all so far.
    missing: Option<u64>,
    /// Number of times that memory was taken.
    rounds: u32,
}

impl Supply {
    /// Executes a request, which takes and releases the lock itself. Repeats the request while it asks for memory.
    ///
    /// # Errors
    ///
    /// The error of the request.
    pub fn serve<S: System, T>(
        mut request: impl FnMut(&mut Self) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut supply = Self::default();
        loop {
            let result = request(&mut supply);
            // Another caller may have freed the memory that the request needed, so the supply may be left over.
            if let Some((first, count)) = supply.pages.take() {
                (first..first.saturating_add(count)).for_each(S::put_page);
            }
            let Some(count) = supply.wanted.take() else {
                return result;
            };
            supply.rounds = supply.rounds.saturating_add(1);
            match S::take_pages(count) {
                Some(first) => supply.pages = Some((first, count)),
                None => supply.missing = Some(count),
            }
        }
    }

    /// Whether the supply has `count` contiguous pages.
    pub fn has(&self, count: u64) -> bool {
        self.pages.is_some_and(|(_, have)| have == count)
    }

    /// Takes `count` contiguous pages, zero and with one reference each. Returns the first page frame; `None` if the
    /// system does not have them.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if the pages must first be taken from the system: the request must return that error.
    pub fn take(&mut self, count: u64) -> Result<Option<u64>, Errno> {
        if self.has(count) {
            return Ok(self.pages.take().map(|(first, _)| first));
        }
        if self.missing.is_some_and(|missing| missing <= count) || self.rounds >= ROUNDS {
            return Ok(None);
        }
        self.wanted = Some(count);
        Err(EAGAIN)
    }

    /// Returns unused pages to the supply.
    pub fn put(&mut self, first: u64, count: u64) {
        self.pages = Some((first, count));
    }
}

/// Record of the amounts that the system does not have in one piece at present, so that khofs does not ask again for
/// each page.
pub struct Scarcity {
    /// Smallest number of contiguous pages that the system did not have.
    least: u64,
    /// Number of pages that khofs takes in smaller pieces before it asks the system for the larger amount again.
    left: u64,
}

impl Scarcity {
    /// Makes a record in which nothing is scarce.
    pub const fn none() -> Self {
        Self {
            least: u64::MAX,
            left: 0,
        }
    }

    /// Whether khofs does not ask the system for `count` contiguous pages. It always asks for a single page.
    pub fn forbids(&self, count: u64) -> bool {
        count > 1 && count >= self.least && self.left > 0
    }

    /// Records that the system did not have `count` contiguous pages.
    pub fn lacked(&mut self, count: u64) {
        (self.least, self.left) = (self.least.min(count), PAGES);
    }

    /// Records that the system gave `count` contiguous pages.
    pub fn gave(&mut self, count: u64) {
        self.left = self.left.saturating_sub(count);
        if self.left == 0 {
            *self = Self::none();
        }
    }
}
