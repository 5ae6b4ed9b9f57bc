//! The zone on the machine that runs the tests, as far as that machine permits.

use super::huge::HUGE_LEN;
use super::*;
use crate::sys::facts::memmap::FirmwareMap;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The tests share the machine's limit and its free memory, so they run one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the memory of this machine without the first MiB; `None`, with the reason printed, if the memory map cannot
/// be read.
fn allowed(root: &Root) -> Option<RangeSet> {
    let skip = |why: String| {
        println!("SKIP: {why}");
        None
    };
    let probe = match Mapping::ordinary(HUGE) {
        Ok(mapping) => mapping,
        Err(e) => return skip(format!("no memory to probe with: {e}")),
    };
    match map::locate(root, &probe) {
        Ok(found) if !found.is_empty() => {}
        Ok(_) => return skip("pagemap shows no page".into()),
        Err(e) => return skip(e.to_string()),
    }
    let mut ram = match FirmwareMap::read(root) {
        Ok(map) => map.ram().try_clone().unwrap(),
        Err(e) => return skip(e.to_string()),
    };
    ram.remove(low_memory().unwrap()).unwrap();
    Some(ram)
}

fn request(allowed: &RangeSet, bytes: u64) -> Request<'_> {
    Request {
        bytes,
        max_runs: 12,
        reserve: 64 << 20,
        allowed,
    }
}

/// Returns the pages of a zone that have moved.
fn moved(zone: &LandingZone, root: &Root) -> RangeSet {
    let mut moved = zone.set.try_clone().unwrap();
    for run in &zone.runs {
        for (offset, found) in map::locate(root, &run.memory).unwrap() {
            // A piece is in its place if its physical and its virtual offset agree.
            if run.range.start().checked_add(offset as u64) == Some(found.start()) {
                moved.remove(found).unwrap();
            }
        }
    }
    moved
}

#[test]
fn the_zone_is_where_it_says_and_holds_what_is_written() {
    let _alone = alone();
    let root = Root::system();
    let Some(ram) = allowed(&root) else { return };
    let knob = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages";
    let before = root.number(knob).ok();
    let mut wanted = request(&ram, 48 << 20);
    let mut zone = loop {
        match LandingZone::take(&root, &wanted) {
            Ok(zone) => break zone,
            // A machine may have too few long runs; one run for each page exists on every machine.
            Err(LandingError::Fragmented { max_runs: 12, .. }) => {
                assert_eq!(root.number(knob).ok(), before, "the knob was not restored");
                wanted.max_runs = 48 << 8;
            }
            Err(e @ LandingError::NotEnough { .. }) => {
                println!("SKIP: {e}");
                return;
            }
            Err(e) => panic!("{e:?}"),
        }
    };
    assert_eq!(root.number(knob).ok(), before, "the knob was not restored");
    let runs = zone.runs().try_clone().unwrap();
    assert!(
        runs.total() >= 48 << 20 && runs.len() <= wanted.max_runs,
        "{runs:?}"
    );
    assert!(runs.subtract(&ram).unwrap().is_empty());
    assert!(moved(&zone, &root).is_empty());
    assert!(zone.memory_mut().map(|(run, _)| run).eq(runs.iter()));
    for (run, bytes) in zone.memory_mut() {
        assert_eq!(bytes.len() as u64, run.len());
        assert!(bytes.iter().all(|b| *b == 0));
        for (page, n) in bytes.chunks_mut(4096).zip(run.start().get() / 4096..) {
            page[..8].copy_from_slice(&n.to_le_bytes());
        }
    }
    assert!(moved(&zone, &root).is_empty());
    for (run, bytes) in zone.memory_mut() {
        let last = run.end().get() / 4096 - 1;
        let (_, page) = bytes.split_at(bytes.len() - 4096);
        assert_eq!(page[..8], last.to_le_bytes());
    }
    println!("zone: {:?}, {} runs", zone.backing(), runs.len());
}

#[test]
fn ordinary_pages_do_when_there_are_no_huge_ones() {
    let _alone = alone();
    let root = Root::system();
    let Some(ram) = allowed(&root) else { return };
    // All kinds of memory that a zone can have, without the raised limit.
    let request = request(&ram, 8 << 20);
    let mut taker = Taker::new(&root, &request, u64::MAX, 0);
    taker.knob = None;
    while taker.drawn < 8 << 20 {
        assert!(taker.take_one().unwrap());
    }
    let found: BTreeSet<u64> = taker
        .taken
        .iter()
        .flat_map(|t| &t.pieces)
        .flat_map(|p| (p.phys.start().get()..p.phys.end().get()).step_by(4096))
        .collect();
    let all = RangeSet::from_ranges(taker.taken.iter().flat_map(|t| &t.pieces).map(|p| p.phys));
    let all = all.unwrap();
    assert_eq!(all.total(), found.len() as u64 * 4096);
    let (runs, covered) = choose(&all, 8 << 20, usize::MAX).unwrap();
    assert!(covered >= 8 << 20);
    let mut zone = assemble(core::mem::take(&mut taker.taken), &runs).unwrap();
    assert_eq!(zone.backing().hugetlb, 0);
    assert!(moved(&zone, &root).is_empty());
    for (_, bytes) in zone.memory_mut() {
        bytes.fill(7);
    }
}

#[test]
fn what_is_not_allowed_is_given_back() {
    let _alone = alone();
    let root = Root::system();
    let Some(_) = allowed(&root) else { return };
    let nowhere = RangeSet::new();
    let mut small = request(&nowhere, 2 << 20);
    // The reserve leaves nearly all memory alone, and so bounds the search for better memory.
    let available = MemInfo::read(&root).unwrap().available;
    small.reserve = available.saturating_sub(128 << 20);
    let error = LandingZone::take(&root, &small).unwrap_err();
    assert!(
        matches!(
            error,
            LandingError::Fragmented { covered: 0, .. } | LandingError::NotEnough { .. }
        ),
        "{error:?}"
    );
    small.reserve = u64::MAX;
    assert!(matches!(
        LandingZone::take(&root, &small),
        Err(LandingError::NotEnough { .. })
    ));
}

#[test]
fn only_pages_of_the_ranges_are_withheld() {
    let _alone = alone();
    let root = Root::system();
    let Some(ram) = allowed(&root) else { return };
    let drawn = 32 << 20;
    // All memory that the firmware names: the draw keeps all of it.
    let all = Withheld::draw(&root, &ram, drawn, drawn, 64 << 20).unwrap();
    assert!((1..=drawn).contains(&all.pages().total()), "{all:?}");
    assert!(all.pages().subtract(&ram).unwrap().is_empty());
    // Every second 2 MiB of it: the memory that is kept is inside, and is less than all memory drawn.
    let half = RangeSet::from_ranges(ram.iter().flat_map(|r| {
        (r.start().get().next_multiple_of(HUGE)..r.end().get())
            .step_by(2 * HUGE_LEN)
            .filter_map(|at| PhysRange::new(PhysAddr::new(at), HUGE).ok())
    }))
    .unwrap();
    drop(all);
    let some = Withheld::draw(&root, &half, drawn, drawn, 64 << 20).unwrap();
    assert!(some.pages().subtract(&half).unwrap().is_empty());
    assert!(some.pages().total() <= drawn);
    let none = Withheld::draw(&root, &RangeSet::new(), drawn, drawn, 64 << 20).unwrap();
    assert!(none.pages().is_empty());
    let poor = Withheld::draw(&root, &ram, drawn, drawn, u64::MAX).unwrap();
    assert!(poor.pages().is_empty());
}
