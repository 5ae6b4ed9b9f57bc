//! Advice about missing privileges.

use crate::exit::Fail;

impl Fail {
    /// Advises the user to run as root. If the user is root, there is another reason, which `more` may explain.
    #[must_use]
    pub fn root(self, more: &str) -> Self {
        let advice = kho_kexec::sys::root::advice();
        self.fix(match more {
            "" => advice.to_owned(),
            more => format!("{advice}; {more}"),
        })
    }
}
