//! Return of memory to the system, in parts, so that other tasks run in between.

use crate::boundary::system::Linux;
use crate::state::STATE;
use kho_boundary::relax;
use khofs_decide::bits::PAGES;
use khofs_decide::content::Content;
use khofs_decide::pages::put;

/// Returns memory that khofs does not need to the system.
pub fn reap() {
    loop {
        let Some(idle) = STATE.lock().take_idle() else {
            return;
        };
        put::<Linux>(&idle);
        relax();
    }
}

/// Subtracts a removed inode, and discards the memory that arrived for it and is not in the page cache. It does so in
/// parts, because the file may be large.
pub fn inode_gone(id: u32, mut content: Content) {
    if !STATE.lock().inode_gone(id, &content) {
        return;
    }
    while let Some(index) = content.lazy.next(0) {
        let window = index | PAGES.saturating_sub(1);
        let Ok(Some(extent)) = content.lazy.take(index, window.saturating_add(1)) else {
            return;
        };
        STATE.lock().discard(id, extent);
        relax();
    }
}
