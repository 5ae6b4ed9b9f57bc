use super::*;
use crate::fake::{self, Fake, Leaked, tree_of};
use kho::tree::{Reader, Writer};
use kho::{PAGE_SIZE, PhysAddr};

fn pages(first: u64, count: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(first * PAGE_SIZE), count * PAGE_SIZE).unwrap()
}

fn tree(write: impl Fn(&mut Writer<'_>)) -> Leaked {
    let bytes = tree_of(write);
    Leaked::new(bytes).unwrap()
}

/// Writes a node with memory (none for 0 pages), whose children `below` writes.
fn node(w: &mut Writer<'_>, name: &str, mem: (u64, u64), below: impl Fn(&mut Writer<'_>)) {
    w.begin_node(name).unwrap();
    w.prop_str("compatible", "some-v1").unwrap();
    if mem.1 != 0 {
        w.prop_mem("mem", [pages(mem.0, mem.1)]).unwrap();
    }
    below(w);
    w.end_node().unwrap();
}

fn nothing(_: &mut Writer<'_>) {}

/// Makes a store in which these arrived: a file system with two instances, each with a tree; a driver's ring; and a
/// blob of the user's.
fn arrived() -> Store<Fake> {
    let kernel = tree(|w| {
        w.begin_node("").unwrap();
        node(w, "fs", (0, 0), |w| {
            node(w, "a", (10, 4), |w| node(w, "tree", (20, 1), nothing));
            node(w, "b", (30, 4), |w| node(w, "tree", (40, 1), nothing));
        });
        node(w, "ring", (50, 2), |w| node(w, "more", (55, 1), nothing));
        w.end_node().unwrap();
    });
    let user = tree(|w| {
        w.begin_node("").unwrap();
        node(w, "blob", (60, 8), nothing);
        w.end_node().unwrap();
    });
    let mem = |tree: &Leaked| mem_below(&tree.reader().root()).unwrap();
    let all = mem(&kernel).union(&mem(&user)).unwrap();
    let mut store = Store::new();
    store.map.ram.insert(pages(1, 1000)).unwrap();
    store.reserved = fake::Unclaimed::of(all);
    store.arrival = Ok(Arrival {
        user,
        kernel: Some(kernel),
        part: None,
        refused: None,
        scratch: pages(900, 10),
        hop: 1,
        previous: String::new(),
        slack: 0,
        missing: 0,
    });
    store
}

/// Enters the active phase with a driver that keeps `kept`. Returns the tree: the driver's node, and the nodes that are
/// handed over again.
fn activate(store: &mut Store<Fake>, producer: &str, kept: &[PhysRange]) -> Result<Vec<u8>, Errno> {
    let mut session = Session::new(store.limits()?)?;
    session.begin_producer(producer, store.held(producer)?)?;
    session.prop_str("compatible", b"some-v1")?;
    session.mem::<Fake>(kept.iter().map(|range| Ok(*range)))?;
    session.end_producer()?;
    store.carry(&mut session, |name| name == producer)?;
    session.tree(|w| w.prop_str("compatible", "root-v1"))
}

/// The paths of the nodes that have memory.
fn paths(bytes: &[u8]) -> Vec<String> {
    let tree = Leaked::new(bytes.to_vec()).unwrap();
    let nodes = tree.reader().nodes();
    let with_mem = nodes.filter(|(_, node)| node.prop("mem").is_some());
    with_mem
        .map(|(_, node)| tree.index().path_of(&node).unwrap())
        .collect()
}

fn release(store: &mut Store<Fake>, path: &str) -> Result<u64, Errno> {
    let before = store.unclaimed();
    let result = store.release_path(path);
    let given = result.unwrap_or(0);
    assert_eq!(store.unclaimed(), before - given, "{path}");
    result
}

#[test]
fn what_a_producer_has_is_released_by_that_producer_alone() {
    let mut store = arrived();
    let node = store.find_path("/fs/a").unwrap();
    store.hold("fs", node).unwrap();
    assert_eq!(store.hold("fs", node), Err(EBUSY));
    let tree = store.find_path("/fs/a/tree").unwrap();
    assert_eq!(store.hold("other", tree), Err(EBUSY));
    for path in ["all", "/fs", "/fs/a", "/fs/a/tree"] {
        assert_eq!(release(&mut store, path), Err(EBUSY), "{path}");
    }
    for range in [pages(10, 1), pages(13, 1), pages(20, 1)] {
        assert_eq!(store.release(range), Err(EBUSY));
    }
    assert_eq!(store.release_held("other", node), Err(ENOENT));
    assert_eq!(store.release_held("fs", tree), Err(ENOENT));
    let mut lines = Vec::new();
    let tell = |path: &str, bytes: u64, holder: Option<&str>| {
        lines.push(std::format!(
            "{path} {} {}",
            bytes / PAGE_SIZE,
            holder.unwrap_or("nobody")
        ));
        ControlFlow::Continue(())
    };
    store.leftovers(tell).unwrap();
    assert_eq!(
        lines,
        [
            "/blob 8 nobody",
            "/fs/a 4 fs",
            "/fs/a/tree 1 fs",
            "/fs/b 4 nobody",
            "/fs/b/tree 1 nobody",
            "/ring 2 nobody",
            "/ring/more 1 nobody",
        ]
    );
    // Memory without an owner.
    assert_eq!(release(&mut store, "/ring"), Ok(3 * PAGE_SIZE));
    assert_eq!(release(&mut store, "/fs/b/tree"), Ok(PAGE_SIZE));
    assert_eq!(release(&mut store, "/blob"), Ok(8 * PAGE_SIZE));
    store.release(pages(30, 1)).unwrap();
    // A part of the memory was claimed, the rest released.
    store.claim(pages(12, 2), Failed::Refused).unwrap();
    store.release_held("fs", node).unwrap();
    assert_eq!(store.unclaimed(), 3 * PAGE_SIZE);
    assert_eq!(store.release_held("fs", node), Err(ENOENT));
    assert_eq!(release(&mut store, "/fs/a"), Err(EBUSY));
    assert_eq!(release(&mut store, "all"), Ok(3 * PAGE_SIZE));
}

#[test]
fn a_producer_that_goes_has_nothing_any_more() {
    let mut store = arrived();
    let node = store.find_path("/fs").unwrap();
    store.hold("fs", node).unwrap();
    assert_eq!(release(&mut store, "/fs"), Err(EBUSY));
    store.let_go("other");
    assert_eq!(release(&mut store, "/fs"), Err(EBUSY));
    store.let_go("fs");
    assert_eq!(release(&mut store, "/fs"), Ok(10 * PAGE_SIZE));
}

#[test]
fn what_is_not_whole_any_more_is_nobody_s_to_have() {
    let mut store = arrived();
    let node = store.find_path("/fs/a").unwrap();
    assert_eq!(store.hold("fs", -1), Err(ENOENT));
    store.release(pages(20, 1)).unwrap();
    assert_eq!(store.hold("fs", node), Err(EBUSY));
    let ring = store.find_path("/ring").unwrap();
    store.claim(pages(50, 1), Failed::Refused).unwrap();
    assert_eq!(store.hold("fs", ring), Err(EBUSY));
}

#[test]
fn a_producer_hands_on_as_it_is_only_what_it_has() {
    let mut store = arrived();
    let a = [pages(10, 4), pages(20, 1)];
    assert_eq!(activate(&mut store, "fs", &a).err(), Some(EBUSY));
    assert_eq!(store.may_keep(pages(10, 1)), Err(EBUSY));
    let node = store.find_path("/fs/a").unwrap();
    store.hold("fs", node).unwrap();
    assert_eq!(store.may_keep(pages(10, 1)), Ok(()));
    assert_eq!(activate(&mut store, "other", &a).err(), Some(EBUSY));
    assert!(activate(&mut store, "fs", &a).is_ok());
    // Only a part of the range.
    assert_eq!(
        activate(&mut store, "fs", &[pages(30, 1)]).err(),
        Some(EBUSY)
    );
}

#[test]
fn what_is_handed_over_is_not_released() {
    let mut store = arrived();
    let node = store.find_path("/fs/a").unwrap();
    store.hold("fs", node).unwrap();
    activate(&mut store, "fs", &[pages(10, 4), pages(20, 1)]).unwrap();
    for path in ["all", "/fs", "/fs/a", "/fs/b", "/ring", "/ring/more"] {
        assert_eq!(release(&mut store, path), Err(EBUSY), "{path}");
    }
    assert_eq!(store.release(pages(12, 1)), Err(EBUSY));
    assert_eq!(store.release_held("fs", node), Err(EBUSY));
    // The producer may continue to use its memory; memory without an owner stays unchanged.
    store.claim(pages(10, 2), Failed::Refused).unwrap();
    assert_eq!(store.claim(pages(50, 1), Failed::Refused), Err(EAGAIN));
    let ring = store.find_path("/ring").unwrap();
    assert_eq!(store.claim_node(ring), Err(EAGAIN));
    assert_eq!(store.hold("ring", ring), Err(EAGAIN));
    // The loader's nodes are not in the kernel's part.
    assert_eq!(release(&mut store, "/blob"), Ok(8 * PAGE_SIZE));
    store.thaw();
    store.release_held("fs", node).unwrap();
    assert_eq!(release(&mut store, "/ring"), Ok(3 * PAGE_SIZE));
    assert_eq!(release(&mut store, "all"), Ok(5 * PAGE_SIZE));
}

#[test]
fn what_nobody_took_goes_on_beside_what_somebody_did() {
    // The file system knows one instance, and not the other.
    let mut store = arrived();
    let node = store.find_path("/fs/a").unwrap();
    store.hold("fs", node).unwrap();
    let bytes = activate(&mut store, "fs", &[pages(10, 4), pages(20, 1)]).unwrap();
    assert_eq!(
        paths(&bytes),
        [
            "/fs",
            "/fs,left/b",
            "/fs,left/b/tree",
            "/ring",
            "/ring/more"
        ]
    );
    store.thaw();
    // One node was released, and the driver is no longer there.
    store.release_held("fs", node).unwrap();
    store.let_go("fs");
    assert_eq!(store.untouched(), Ok(2));
    let bytes = activate(&mut store, "none", &[]).unwrap();
    assert_eq!(
        paths(&bytes),
        ["/none", "/fs/b", "/fs/b/tree", "/ring", "/ring/more"]
    );
    store.thaw();
    // A node with memory of its own is handed over again as a whole, or not at all.
    store.claim(pages(55, 1), Failed::Refused).unwrap();
    store.claim(pages(30, 1), Failed::Refused).unwrap();
    assert_eq!(store.untouched(), Ok(0));
    let bytes = activate(&mut store, "none", &[]).unwrap();
    assert_eq!(paths(&bytes), ["/none"]);
    Reader::new(&bytes).unwrap();
}

#[test]
fn what_a_driver_took_is_known_to_a_later_instance() {
    let again = || {
        let mut store = arrived();
        store.arrival.as_mut().ok().unwrap().part = Some(());
        store.remember().unwrap();
        store
    };
    let mut store = again();
    let ring = store.find_path("/ring").unwrap();
    // No page is free for the record.
    assert_eq!(store.claim_node(ring), Err(ENOMEM));
    assert_eq!(store.untouched(), Ok(2));
    fake::with(|machine| machine.free.push(512));
    store.claim_node(ring).unwrap();
    assert_eq!(store.claim_node(ring), Err(EBUSY));
    // The pages of the node are reserved as before, and still the node is not handed over again.
    let mut later = again();
    assert_eq!(later.untouched(), Ok(1));
    assert_eq!(later.claim_node(ring), Err(EBUSY));
    later.claim_node(later.find_path("/fs/b").unwrap()).unwrap();
}

#[test]
fn scratch_is_told_once_and_is_ram() {
    let mut store = arrived();
    assert_eq!(store.tell_scratch(pages(500, 10)), Err(EBUSY));
    assert_eq!(store.scratch(), Some(pages(900, 10)));
    store.arrival = Err(Nothing::Ordinary);
    assert_eq!(store.tell_scratch(pages(995, 10)), Err(EINVAL));
    let odd = PhysRange::new(PhysAddr::new(PAGE_SIZE + 1), PAGE_SIZE).unwrap();
    assert_eq!(store.tell_scratch(odd), Err(EINVAL));
    store.tell_scratch(pages(500, 10)).unwrap();
    assert_eq!(
        store.may_keep(pages(505, 1)),
        Err(crate::errno::EADDRNOTAVAIL)
    );
    assert_eq!(store.may_keep(pages(905, 1)), Ok(()));
}
