//! All instances, and the end of one.

use crate::boundary::handover::Node;
use crate::boundary::system::State;
use kho_boundary::sync::Lock;
use kho_decide::errno::Errno;
use khofs_decide::state::Body;

/// All instances and their memory.
pub static STATE: Lock<State, 0> = Lock::new(State::new());

/// Ends an instance, with all its files. No mount, no other release and no activation may be under way.
///
/// # Errors
///
/// `ENOENT` if no instance has that name; `EBUSY` if the instance is mounted, or in the active phase. If no memory is
/// left, the files of a live instance are removed, and another attempt returns the memory that arrived and that these
/// files never used.
pub fn release_instance(name: &str) -> Result<(), Errno> {
    let (id, body) = STATE.lock().end(name)?;
    if let Body::Live(sb) = body
        && let Err(error) = sb.let_go()
    {
        STATE.lock().instance(id)?.body = body;
        return Err(error);
    }
    let node = STATE.lock().instance(id)?.node;
    let released = node.map_or(Ok(()), Node::release);
    let mut state = STATE.lock();
    match (released, body) {
        (Ok(()), _) => state.instances.retain(|i| i.id != id),
        (Err(_), Body::Live(_)) => {}
        (Err(_), body) => state.instance(id)?.body = body,
    }
    released
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use kho::RangeSet;
    use kho_decide::errno::{ENOENT, ENOMEM};
    use khofs_decide::state::Arrived;

    #[test]
    fn what_cannot_be_given_back_is_there_as_before() {
        let node = |node| {
            let mut state = STATE.lock();
            let arrived = Body::Arrived(Arrived {
                tree: Vec::new(),
                size: 0,
                checksum: 0,
                data: RangeSet::new(),
                inodes: 1,
            });
            state.add("a".into(), arrived).unwrap().node = node;
        };
        node(Some(Node::that_stays()));
        assert_eq!(release_instance("a"), Err(ENOMEM));
        assert!(matches!(STATE.lock().instances[0].body, Body::Arrived(_)));
        STATE.lock().instances.clear();
        node(None);
        release_instance("a").unwrap();
        assert!(STATE.lock().instances.is_empty());
        assert_eq!(release_instance("a"), Err(ENOENT));
    }
}
