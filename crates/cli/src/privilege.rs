//! Advice about privileges that are missing.

use crate::exit::Fail;

impl Fail {
    /// Advises to run as root, unless this is root: then something else stands in the way, and `more` may say what.
    #[must_use]
    pub fn root(self, more: &str) -> Self {
        let advice = kho_kexec::sys::root::advice();
        self.fix(match more {
            "" => advice.to_owned(),
            more => format!("{advice}; {more}"),
        })
    }
}
