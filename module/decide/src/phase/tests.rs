use super::*;
use crate::fake::{Fake, Machine, with};
use crate::lend;
use crate::pages::range_of;
use core::cell::RefCell;
use kho::abi::kernel_part::KernelPart;
use kho::tree::Reader;
use std::collections::BTreeMap;
use std::format;
use std::string::String;

/// A driver.
#[derive(Clone, Default)]
struct Driver {
    /// Whether its module is being unloaded.
    going: bool,
    /// Page that the driver keeps.
    page: u64,
    /// Error that its `serialize` returns; `None` for success.
    fails: Option<Errno>,
    /// Whether the driver writes no `compatible`.
    nameless: bool,
}

/// Drivers and kernel of a test: the behaviour that the test needs, and a log of the calls.
struct World {
    drivers: BTreeMap<u8, Driver>,
    store: Store<Fake>,
    sealed: Vec<u8>,
    published: bool,
    /// Error of making the file `dt`; `None` for success.
    no_file: Option<Errno>,
    random: u64,
    /// Room that producers were told of.
    room: u64,
    /// References on modules.
    held: i32,
    calls: Vec<String>,
}

std::thread_local! {
    static WORLD: RefCell<World> = const { RefCell::new(World {
        drivers: BTreeMap::new(),
        store: Store::new(),
        sealed: Vec::new(),
        published: false,
        no_file: None,
        random: 7,
        room: u64::MAX,
        held: 0,
        calls: Vec::new(),
    }) };
}

fn world<T>(act: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(act)
}

/// A reference on the module of a driver; 0 is kho.ko itself.
pub struct Reference(u8);

impl Reference {
    fn new(number: u8) -> Self {
        world(|world| world.held += 1);
        Self(number)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        world(|world| world.held -= 1);
    }
}

impl Drivers for Fake {
    type Producer = u8;
    type Held = Reference;
    type SelfHold = Reference;

    fn hold(producer: u8) -> Option<Reference> {
        let going = world(|world| world.drivers[&producer].going);
        (!going).then(|| Reference::new(producer))
    }

    fn is(held: &Reference, producer: u8) -> bool {
        held.0 == producer
    }

    fn serialize(held: &Reference, session: &mut Session) -> Result<(), Errno> {
        let driver = world(|world| {
            world.calls.push(format!("serialize {}", held.0));
            world.drivers[&held.0].clone()
        });
        if !driver.nameless {
            session.prop_str(COMPATIBLE, b"example-v1").unwrap();
        }
        // The driver may ignore the result.
        let _ = session.mem::<Fake>([Ok(range_of(driver.page, 1).unwrap())].into_iter());
        driver.fails.map_or(Ok(()), Err)
    }

    fn abort(held: &Reference) {
        world(|world| world.calls.push(format!("abort {}", held.0)));
    }

    fn hold_self() -> Option<Reference> {
        let going = world(|world| world.drivers.get(&0).is_some_and(|own| own.going));
        (!going).then(|| Reference::new(0))
    }

    fn random() -> u64 {
        world(|world| world.random)
    }

    fn set_room(bytes: u64) {
        world(|world| world.room = bytes);
    }

    fn release() -> &'static str {
        "6.1"
    }

    fn store<T>(act: impl FnOnce(&mut Store<Self>) -> T) -> T {
        // The store is taken out during the call, because `act` may read the world.
        let mut store = world(|world| core::mem::replace(&mut world.store, Store::new()));
        with(|machine| machine.is_locked = true);
        let result = act(&mut store);
        with(|machine| machine.is_locked = false);
        world(|world| world.store = store);
        result
    }

    fn set_sealed(bytes: Vec<u8>) {
        world(|world| world.sealed = bytes);
    }

    fn publish() -> Result<(), Errno> {
        world(|world| match world.no_file {
            Some(error) => Err(error),
            None => {
                assert!(!core::mem::replace(&mut world.published, true));
                Ok(())
            }
        })
    }

    fn withdraw() {
        world(|world| assert!(core::mem::replace(&mut world.published, false)));
    }
}

/// Makes three drivers with a page each, on a machine that has a page for the tree. kho.ko asks them in the order 2, 3,
/// 1.
fn registered() -> Phase<Fake> {
    with(|machine| {
        *machine = Machine::default();
        machine.iomem = "00100000-0fffffff : System RAM\n".into();
        machine.free = [514].into();
    });
    Fake::store(|store| {
        store.close();
        store.open().unwrap();
    });
    let mut phase = Phase::new();
    for (number, name, priority) in [(1, "one", 5), (2, "two", -1), (3, "three", 0)] {
        let page = 1000 + u64::from(number);
        let driver = Driver {
            page,
            ..Driver::default()
        };
        world(|world| world.drivers.insert(number, driver));
        phase.register(number, name, priority).unwrap();
    }
    phase
}

fn calls() -> Vec<String> {
    world(|world| core::mem::take(&mut world.calls))
}

/// Checks that nothing of an active phase is left.
fn is_idle(phase: &Phase<Fake>) {
    assert_eq!(phase.generation(), None);
    world(|world| {
        assert_eq!((world.held, world.published), (0, false));
        assert!(world.sealed.is_empty());
    });
    assert_eq!(with(|machine| machine.page(514).count), 0);
}

#[test]
fn all_are_asked_in_order_and_undo_in_reverse() {
    let mut phase = registered();
    phase.activate().unwrap();
    assert_eq!(calls(), ["serialize 2", "serialize 3", "serialize 1"]);
    assert_eq!(phase.generation(), Some(7));
    let sealed = world(|world| {
        assert_eq!((world.held, world.published), (4, true));
        world.sealed.clone()
    });
    // The next kernel trusts the tree, and memory holds the bytes that the file shows.
    let part = KernelPart::parse(&Reader::new(&sealed).unwrap()).unwrap();
    let own = range_of(514, 1).unwrap();
    assert_eq!((part.reference.mem, part.reference.generation), (own, 7));
    let pages = range_of(1001, 3).unwrap();
    assert_eq!(part.mem.as_slice(), [pages]);
    let at = own.start().get();
    assert_eq!(with(|machine| machine.memory[&at].clone()), sealed);

    assert_eq!(phase.activate(), Err(EBUSY));
    assert_eq!(calls(), [""; 0]);
    phase.abort();
    assert_eq!(calls(), ["abort 1", "abort 3", "abort 2"]);
    is_idle(&phase);
    // An image that refers to the tree finds nothing there.
    assert!(with(|machine| machine.memory.is_empty()));
    phase.abort();
    assert_eq!(calls(), [""; 0]);
}

#[test]
fn memory_is_allocated_while_nobody_waits_for_the_store() {
    registered();
    with(|machine| machine.free = [1536, 1024, 512].into());
    let first = |range: Result<PhysRange, Errno>| range.unwrap().start().get() / PAGE_SIZE;
    assert_eq!(first(lend::lend::<Fake>(3)), 512);
    assert_eq!(first(lend::lend::<Fake>(1)), 515);
    assert_eq!(first(lend::give_away::<Fake>(512)), 1024);
    assert_eq!(first(lend::lend::<Fake>(512)), 1536);
    for none in [lend::lend::<Fake>(0), lend::give_away::<Fake>(0)] {
        assert_eq!(none, Err(ENOMEM));
    }
}

#[test]
fn scratch_that_is_told_while_memory_is_allocated_is_left_alone() {
    registered();
    with(|machine| {
        machine.free = [1024, 512].into();
        machine.at_allocation = Some(|| {
            let scratch = range_of(512, 4).unwrap();
            Fake::store(|store| store.tell_scratch(scratch)).unwrap();
        });
    });
    let given = lend::give_away::<Fake>(512).unwrap();
    assert_eq!(Some(given), range_of(1024, 512));
    assert_eq!(with(|machine| machine.page(512).count), 0);
}

#[test]
fn a_generation_is_never_zero() {
    let mut phase = registered();
    world(|world| world.random = 0);
    phase.activate().unwrap();
    assert_eq!(phase.generation(), Some(1));
}

#[test]
fn one_that_fails_has_the_others_undo_what_they_did() {
    type Change = fn(&mut World);
    let cases: [(Change, Errno, Option<&str>, &[&str]); 6] = [
        (
            |world| world.drivers.get_mut(&3).unwrap().fails = Some(ENOMEM),
            ENOMEM,
            Some("three"),
            &["serialize 2", "serialize 3", "abort 2"],
        ),
        (
            |world| world.drivers.get_mut(&3).unwrap().nameless = true,
            EINVAL,
            Some("three"),
            &["serialize 2", "serialize 3", "abort 3", "abort 2"],
        ),
        (
            // The page is not RAM, and the driver ignores the error.
            |world| world.drivers.get_mut(&2).unwrap().page = 3,
            crate::errno::ENXIO,
            Some("two"),
            &["serialize 2", "abort 2"],
        ),
        (
            // The page is not the driver's: the tree will be there.
            |world| world.drivers.get_mut(&1).unwrap().page = 514,
            EINVAL,
            None,
            &[
                "serialize 2",
                "serialize 3",
                "serialize 1",
                "abort 1",
                "abort 3",
                "abort 2",
            ],
        ),
        (
            |world| world.no_file = Some(EEXIST),
            EEXIST,
            None,
            &[
                "serialize 2",
                "serialize 3",
                "serialize 1",
                "abort 1",
                "abort 3",
                "abort 2",
            ],
        ),
        (
            |world| {
                let own = Driver {
                    going: true,
                    ..Driver::default()
                };
                world.drivers.insert(0, own);
            },
            ENODEV,
            None,
            &[],
        ),
    ];
    for (change, error, failed, expected) in cases {
        let mut phase = registered();
        world(change);
        assert_eq!(phase.activate(), Err(error));
        assert_eq!(calls(), expected);
        assert_eq!(phase.failed(), failed);
        is_idle(&phase);
        world(|world| world.no_file = None);
    }
}

#[test]
fn only_a_producer_that_took_part_ends_the_active_phase() {
    let mut phase = registered();
    world(|world| world.drivers.get_mut(&3).unwrap().going = true);
    phase.activate().unwrap();
    assert_eq!(calls(), ["serialize 2", "serialize 1"]);
    phase.unregister(3);
    assert_eq!((phase.generation(), phase.producers()), (Some(7), 2));
    phase.unregister(1);
    assert_eq!(calls(), ["abort 1", "abort 2"]);
    assert_eq!(phase.producers(), 1);
    is_idle(&phase);
}

#[test]
fn a_producer_that_comes_in_the_active_phase_takes_part_from_the_next_one_on() {
    let mut phase = registered();
    phase.activate().unwrap();
    let sealed = world(|world| world.sealed.clone());
    let driver = Driver {
        page: 1004,
        ..Driver::default()
    };
    world(|world| world.drivers.insert(4, driver));
    assert_eq!(phase.register(5, "two", 0), Err(EEXIST));
    phase.register(4, "four", -5).unwrap();
    assert_eq!((phase.generation(), phase.producers()), (Some(7), 4));
    // It may go again without an end of the phase.
    phase.unregister(4);
    phase.register(4, "four", -5).unwrap();
    assert_eq!(calls(), ["serialize 2", "serialize 3", "serialize 1"]);
    assert!(world(|world| world.sealed == sealed));
    phase.abort();
    assert_eq!(calls(), ["abort 1", "abort 3", "abort 2"]);
    with(|machine| machine.free = [514].into());
    phase.activate().unwrap();
    assert_eq!(
        calls(),
        ["serialize 4", "serialize 2", "serialize 3", "serialize 1"]
    );
    world(|world| {
        let tree = Reader::new(&world.sealed).unwrap();
        assert!(tree.path("/four").is_some());
    });
}

#[test]
fn names_are_the_tree_s_and_taken_once() {
    let mut phase = registered();
    assert_eq!(phase.register(4, "two", 0), Err(EEXIST));
    for name in ["blobs", "kernel", "a b", ""] {
        assert_eq!(phase.register(4, name, 0), Err(EINVAL), "{name:?}");
    }
    assert_eq!(phase.producers(), 3);
    phase.unregister(2);
    assert_eq!(phase.register(4, "two", 0), Ok(()));
    assert_eq!(phase.hold(5, 1), Err(EINVAL));
}

/// RAM of the machine, and the place of an image.
const RAM: &str = "ram 0x100000 0xff00000";
const IMAGE: &str = "image 0x8000000 0x1000000";

/// The bytes of the late block.
fn block() -> Vec<u8> {
    with(|machine| machine.memory[&(600 * PAGE_SIZE)].clone())
}

/// The kernel's part and the late mem cache that the next kernel would find; `None` if the block is empty.
fn found(phase: &Phase<Fake>) -> Option<kho::abi::late::Late> {
    let bytes = block();
    let next = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(next != 0, phase.late().unwrap().state() == State::Published);
    if next == 0 {
        return None;
    }
    let nonce = phase.late().unwrap().nonce();
    Some(kho::abi::late::Late::read(&bytes[4096..], nonce).unwrap())
}

/// The bounds of a load with room for `ranges` ranges and `total` bytes.
fn bounds(nonce: u64, ranges: u64, total: u64, image: &str) -> Bounds {
    let text = format!(
        "nonce {nonce:#x}\nranges {ranges:#x}\ntotal {total:#x}\nlow {total:#x}\n{RAM}\n{image}\n"
    );
    Bounds::parse(text.as_bytes()).unwrap()
}

/// Three drivers, and a prepared late block. The page allocator has pages for it, then for `trees` trees.
fn prepared(trees: usize) -> Phase<Fake> {
    let mut phase = registered();
    with(|machine| {
        machine.free = core::iter::repeat_n(514, trees).chain([600]).collect();
    });
    world(|world| world.random = 9);
    phase.prepare().unwrap();
    assert_eq!(phase.late().unwrap().state(), State::Idle);
    assert_eq!(phase.publish(), Err(ENODATA));
    phase
}

fn armed(trees: usize) -> Phase<Fake> {
    let mut phase = prepared(trees + 1);
    calls();
    phase.arm(bounds(9, 8, 1 << 20, IMAGE)).unwrap();
    assert_eq!(
        calls(),
        [
            "serialize 2",
            "serialize 3",
            "serialize 1",
            "abort 1",
            "abort 3",
            "abort 2"
        ]
    );
    assert!(found(&phase).is_none() && phase.generation().is_none());
    phase
}

/// Checks that the next kernel finds the pages of the drivers and of the tree at page `tree`.
fn hands_over(phase: &Phase<Fake>) {
    let late = found(phase).unwrap();
    assert_eq!(late.part.mem, range_of(514, 1).unwrap());
    assert_eq!(Some(late.part.generation), phase.generation());
    assert_eq!(
        late.cache,
        [range_of(514, 1).unwrap(), range_of(1001, 3).unwrap()]
    );
}

#[test]
fn a_late_load_hands_over_what_is_kept_at_the_end() {
    let mut phase = armed(2);
    // Between the load and the jump a driver takes another page.
    world(|world| world.drivers.get_mut(&1).unwrap().page = 3000);
    phase.publish().unwrap();
    let late = found(&phase).unwrap();
    assert!(late.cache.contains(&range_of(3000, 1).unwrap()));
    // The jump failed.
    phase.abort();
    assert!(found(&phase).is_none());
    assert!(with(
        |machine| machine.memory[&(600 * PAGE_SIZE)][..8] == [0; 8]
    ));
    assert_eq!(phase.late().unwrap().state(), State::Armed);
    world(|world| world.drivers.get_mut(&1).unwrap().page = 1001);
    phase.publish().unwrap();
    hands_over(&phase);
}

#[test]
fn an_active_phase_that_root_began_is_handed_over_as_it_is() {
    let mut phase = armed(1);
    phase.activate().unwrap();
    assert!(found(&phase).is_none());
    world(|world| world.drivers.get_mut(&1).unwrap().page = 3000);
    phase.publish().unwrap();
    hands_over(&phase);
    // Again, after a jump that failed.
    phase.publish().unwrap();
    hands_over(&phase);
    phase.on_kexec();
    hands_over(&phase);
    phase.disarm();
    assert!(found(&phase).is_none() && phase.generation().is_some());
}

#[test]
fn the_notifier_completes_a_load_and_says_so_if_it_cannot() {
    let mut phase = armed(1);
    phase.on_kexec();
    hands_over(&phase);

    drop(phase);
    let mut phase = armed(1);
    world(|world| world.drivers.get_mut(&3).unwrap().fails = Some(ENOMEM));
    phase.on_kexec();
    assert!(found(&phase).is_none() && phase.generation().is_none());
    let last = with(|machine| machine.log.last().cloned()).unwrap();
    assert!(last.contains("WITHOUT the state"), "{last}");

    drop(phase);
    let mut phase = prepared(1);
    calls();
    phase.on_kexec();
    assert_eq!(calls(), [""; 0]);
}

#[test]
fn what_has_no_room_is_refused_and_nothing_changes() {
    for (ranges, total, image, error) in [
        (1, 4 << 20, IMAGE, None),
        (1, 1 << 20, IMAGE, Some(crate::errno::ENOSPC)),
        (0, 1 << 20, IMAGE, Some(crate::errno::ENOSPC)),
        (8, 3 * PAGE_SIZE, IMAGE, Some(crate::errno::ENOSPC)),
        // The image goes to a driver's page, or to the block.
        (
            8,
            1 << 20,
            "image 0x3ea000 0x1000",
            Some(crate::errno::ENXIO),
        ),
        (8, 1 << 20, "image 0x258000 0x1000", Some(EINVAL)),
    ] {
        let mut phase = prepared(2);
        let result = phase.arm(bounds(9, ranges, total, image));
        assert_eq!(result.err(), error, "{ranges} {total} {image}");
        assert_eq!(
            phase.late().unwrap().state(),
            if error.is_none() {
                State::Armed
            } else {
                State::Idle
            }
        );
        assert!(found(&phase).is_none() && phase.generation().is_none());
        assert_eq!(world(|world| world.room == u64::MAX), error.is_some());
        phase.disarm();
        assert_eq!(world(|world| world.room), u64::MAX);
    }
    // A driver takes a page where the image goes, or more than there is room for.
    let mut phase = armed(3);
    world(|world| world.drivers.get_mut(&1).unwrap().page = 0x8000);
    assert_eq!(phase.publish(), Err(crate::errno::ENXIO));
    assert!(found(&phase).is_none() && phase.generation().is_none());
    // A page of the firmware between the drivers' pages is not covered.
    world(|world| world.drivers.get_mut(&1).unwrap().page = 1001);
    drop(phase);
    let mut phase = prepared(3);
    with(|machine| machine.page(700).reserved = true);
    phase.arm(bounds(9, 8, 1 << 20, IMAGE)).unwrap();
    phase.publish().unwrap();
    hands_over(&phase);
    phase.abort();
    drop(phase);
    let mut phase = prepared(2);
    with(|machine| machine.page(700).reserved = true);
    assert_eq!(
        phase.arm(bounds(9, 1, 4 << 20, IMAGE)),
        Err(crate::errno::ENOSPC)
    );
    // Only gaps that have to be covered are examined: with room for two ranges, none is.
    drop(phase);
    let mut phase = prepared(3);
    let examined = || with(|machine| core::mem::take(&mut machine.examined));
    phase.arm(bounds(9, 2, 1 << 20, IMAGE)).unwrap();
    assert_eq!(examined(), []);
    world(|world| world.random = 10);
    phase.prepare().unwrap();
    phase.arm(bounds(10, 1, 4 << 20, IMAGE)).unwrap();
    assert_eq!(examined(), [range_of(515, 1001 - 515).unwrap()]);
}

#[test]
fn a_nonce_is_used_once() {
    let mut phase = armed(2);
    assert_eq!(phase.arm(bounds(9, 8, 1 << 20, IMAGE)), Err(EINVAL));
    assert_eq!(phase.late().unwrap().state(), State::Idle);
    world(|world| world.random = 10);
    phase.prepare().unwrap();
    assert_eq!(phase.arm(bounds(9, 8, 1 << 20, IMAGE)), Err(EINVAL));
    phase.arm(bounds(10, 8, 1 << 20, IMAGE)).unwrap();
    // The preparation of a load that is then refused leaves the armed one as it is.
    world(|world| world.random = 11);
    phase.prepare().unwrap();
    phase.publish().unwrap();
    hands_over(&phase);
}

#[test]
fn bounds_that_are_malformed_are_refused() {
    let good = format!("nonce 0x1\nranges 0x1\ntotal 0x1\nlow 0x1\n{RAM}\n{IMAGE}\n");
    assert!(Bounds::parse(good.as_bytes()).is_ok());
    for (from, to) in [
        ("nonce 0x1", "nonce 1"),
        ("nonce 0x1", "nonce 0x1 0x2"),
        ("nonce 0x1", "once 0x1"),
        ("nonce 0x1", "nonce"),
        (RAM, ""),
        (IMAGE, ""),
        (IMAGE, "image 0x8000000"),
        (IMAGE, "image 0x8000001 0x1000"),
        (IMAGE, "image 0x8000000 0x0"),
        (IMAGE, "image 0xfffffffffffff000 0x2000"),
        (RAM, "ram 0x100000 0xff00000 0x1"),
    ] {
        let bad = good.replace(from, to);
        assert_eq!(Bounds::parse(bad.as_bytes()).err(), Some(EINVAL), "{bad}");
    }
}
