//! The limit `nr_overcommit_hugepages`, which the loader raises for the time of a draw.

use super::huge::HUGE;
use crate::sys::root::Root;
use std::path::PathBuf;

/// File that holds the old and the raised value while the limit is raised: beside the lock, below `/run`.
const NOTE: &str = "run/kho/overcommit";

fn dir() -> String {
    format!("sys/kernel/mm/hugepages/hugepages-{}kB", HUGE / 1024)
}

/// Restores the limit if a process raised it and was killed before it restored it. Leaves the limit alone if another
/// process changed it since. The caller must hold the lock.
pub fn lower_after_kill(root: &Root) {
    let Ok(note) = root.text(NOTE, 100) else {
        return;
    };
    let mut numbers = note.split_whitespace().map(str::parse::<u64>);
    if let (Some(Ok(before)), Some(Ok(raised))) = (numbers.next(), numbers.next()) {
        let file = format!("{}/nr_overcommit_hugepages", dir());
        if root.number(&file).is_ok_and(|now| now == raised) {
            // If this process has no right to write the limit, a later command will.
            let _ = std::fs::write(root.path(&file), before.to_string());
        }
    }
    let _ = std::fs::remove_file(root.path(NOTE));
}

/// The raised limit of surplus huge pages. Restored when dropped, unless another process changed it.
///
/// The limit is the number of pages that the kernel *may* make from free memory for a mapping if the pool has none.
/// These pages return to the system when they are unmapped (`gather_surplus_pages`, `free_huge_folio`, `mm/hugetlb.c`).
/// So the memory outlives neither the process nor this value.
#[derive(Debug)]
pub(super) struct Overcommit {
    path: PathBuf,
    note: PathBuf,
    before: u64,
    raised: u64,
}

impl Overcommit {
    /// Raises the limit to `pages` more surplus pages than exist now; `None` if this kernel has no 2 MiB hugetlb pages,
    /// or if the limit cannot be set.
    pub(super) fn raise(root: &Root, pages: u64) -> Option<Self> {
        let dir = dir();
        let file = format!("{dir}/nr_overcommit_hugepages");
        let before = root.number(&file).ok()?;
        let surplus = root
            .number(&format!("{dir}/surplus_hugepages"))
            .unwrap_or(0);
        let raised = before.max(surplus.saturating_add(pages));
        let path = root.path(&file);
        let note = root.path(NOTE);
        if raised != before {
            // Without the state directory the later command would not find the file either, so a failure is ignored.
            let _ = std::fs::write(&note, format!("{before} {raised}\n"));
            std::fs::write(&path, raised.to_string()).ok()?;
        }
        Some(Self {
            path,
            note,
            before,
            raised,
        })
    }
}

impl Drop for Overcommit {
    fn drop(&mut self) {
        if self.raised == self.before {
            return;
        }
        let now = std::fs::read_to_string(&self.path);
        if now.is_ok_and(|n| n.trim().parse() == Ok(self.raised)) {
            let _ = std::fs::write(&self.path, self.before.to_string());
        }
        let _ = std::fs::remove_file(&self.note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    const DIR: &str = "sys/kernel/mm/hugepages/hugepages-2048kB";

    #[test]
    fn restored_unless_somebody_else_changed_it() {
        let f = Fixture::new();
        assert!(Overcommit::raise(&f.root(), 5).is_none());
        let file = format!("{DIR}/nr_overcommit_hugepages");
        f.put(&file, "3\n")
            .put(&format!("{DIR}/surplus_hugepages"), "2\n");
        let value = || f.root().number(&file).unwrap();
        let raised = Overcommit::raise(&f.root(), 5).unwrap();
        assert_eq!(value(), 7);
        drop(raised);
        assert_eq!(value(), 3);
        drop(Overcommit::raise(&f.root(), 1).unwrap());
        assert_eq!(value(), 3);
        let raised = Overcommit::raise(&f.root(), 50).unwrap();
        f.put(&file, "8\n");
        drop(raised);
        assert_eq!(value(), 8);
    }

    /// Regression test: a sweep that killed `kho load` at every step found the limit raised for ever.
    #[test]
    fn a_killed_process_leaves_the_limit_to_the_next_one() {
        let f = Fixture::new();
        let file = format!("{DIR}/nr_overcommit_hugepages");
        f.put(&file, "3\n").put("run/kho/lock", "");
        let value = || f.root().number(&file).unwrap();
        std::mem::forget(Overcommit::raise(&f.root(), 50).unwrap());
        assert_eq!(value(), 50);
        lower_after_kill(&f.root());
        assert_eq!(value(), 3);
        // The limit is restored only once, and never over a value of another process.
        f.put(&file, "50\n");
        lower_after_kill(&f.root());
        assert_eq!(value(), 50);
        std::mem::forget(Overcommit::raise(&f.root(), 70).unwrap());
        f.put(&file, "9\n");
        lower_after_kill(&f.root());
        assert_eq!(value(), 9);
    }
}
