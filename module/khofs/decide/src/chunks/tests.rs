use super::*;

fn with_chunk() -> Chunks {
    let mut chunks = Chunks::new();
    chunks.add(1, 1024, 512, true, false).unwrap();
    chunks
}

#[test]
fn pages_are_lent_once_in_order() {
    let mut chunks = with_chunk();
    let all: Vec<u64> = (0..512)
        .map(|_| chunks.take(1, false, |_, _| true).unwrap().pfn)
        .collect();
    assert_eq!(all, (1024..1536).collect::<Vec<_>>());
    assert_eq!(chunks.take(1, true, |_, _| true), None);
    assert_eq!(chunks.totals(1), (512, 0));
}

#[test]
fn a_page_that_is_still_held_is_not_lent_again() {
    let mut chunks = with_chunk();
    let page = chunks.take_at(1, 1030, |_, _| true).unwrap();
    assert!(page.clean);
    assert_eq!(chunks.give(1030), None);
    assert_eq!(chunks.take_at(1, 1030, |_, _| false), None);
    let again = chunks.take_at(1, 1030, |_, _| true).unwrap();
    assert!(!again.clean, "it was used");
}

#[test]
fn the_second_idle_chunk_goes_back() {
    let mut chunks = with_chunk();
    chunks.add(1, 2048, 512, true, true).unwrap();
    chunks.take_at(1, 1024, |_, _| true).unwrap();
    chunks.take_at(1, 2050, |_, _| true).unwrap();
    assert_eq!(chunks.give(1024), None);
    let idle = chunks.give(2050).unwrap();
    assert_eq!((idle.base, idle.pages.count()), (2048, 512));
    assert_eq!(chunks.owner(2050), None);
    let spare = chunks.next_spare().unwrap();
    assert_eq!(spare.base, 1024);
    assert_eq!(chunks.totals(1), (0, 0));
    assert!(!chunks.has_spare());
}

#[test]
fn arrived_pieces_of_a_chunk_come_one_by_one_and_go_together() {
    let mut chunks = Chunks::new();
    chunks.add(7, 512, 3, false, false).unwrap();
    chunks.add(7, 600, 1, false, false).unwrap();
    assert_eq!(chunks.owner(513), Some(7));
    assert_eq!(chunks.owner(515), None);
    for pfn in [512, 513, 514] {
        assert_eq!(chunks.give(pfn), None);
    }
    assert_eq!(chunks.give(514), None, "twice");
    assert_eq!(chunks.give(600), None, "kept as the spare one");
    let idle = chunks.next_spare().unwrap();
    assert_eq!(idle.pages.iter().collect::<Vec<_>>(), [0, 1, 2, 88]);
}

#[test]
fn a_folio_is_taken_and_given_as_a_whole_and_apart_for_pages() {
    let mut chunks = with_chunk();
    chunks.add(1, 2048, 512, true, true).unwrap();
    assert_eq!(chunks.take_chunk(1, |_, _| true), None, "none to spare");
    let page = chunks.take_all(1024, |_, _| true).unwrap();
    assert_eq!((page.pfn, page.clean), (1024, true));
    assert_eq!(chunks.take_all(1024, |_, _| true), None, "in use");
    chunks.set_folded(1024, true);
    assert_eq!((chunks.folios(1), chunks.totals(1)), (1, (1024, 512)));
    assert_eq!(chunks.give_all(1024), None, "kept as the spare one");
    assert_eq!(chunks.give_all(1024), None, "twice");
    assert_eq!(chunks.folios(1), 0);
    assert_eq!(chunks.take_chunk(1, |_, _| false), None, "still held");
    let again = chunks.take_chunk(1, |_, folded| folded).unwrap();
    assert_eq!((again.pfn, again.clean), (1024, false));
    chunks.set_folded(1024, true);
    chunks.give_all(1024);
    // One page of the folio is taken: the folio is split once.
    assert!(chunks.take_at(1, 1030, |_, folded| folded).is_some());
    assert!(chunks.take_at(1, 1031, |_, folded| !folded).is_some());
    assert_eq!(chunks.give_all(1024), None, "no folio any more");
    chunks.give(1030);
    chunks.give(1031);
    let spare = chunks.next_spare().unwrap();
    assert_eq!((spare.base, spare.folded), (1024, false));
}

#[test]
fn too_many_free_pages_go_back_without_their_chunk() {
    let mut chunks = with_chunk();
    for pfn in 1024..1536 {
        chunks.take_at(1, pfn, |_, _| true).unwrap();
    }
    for pfn in (1024..1536).step_by(2) {
        chunks.give(pfn);
    }
    assert_eq!(chunks.trim(|_, free| free), None);
    let idle = chunks.trim(|_, _| 0).unwrap();
    assert_eq!(idle.pages.count(), 256);
    assert_eq!(chunks.totals(1), (256, 0));
    assert_eq!(chunks.take(1, true, |_, _| true), None);
}

#[test]
fn instances_have_pages_of_one_chunk_apart() {
    let mut chunks = Chunks::new();
    for (owner, pfn) in [(7, 512), (8, 513), (9, 515), (7, 514)] {
        chunks.add(owner, pfn, 1, false, false).unwrap();
    }
    chunks.add(8, 600, 2, true, false).unwrap();
    for (pfn, owner) in [(512, 7), (513, 8), (514, 7), (515, 9), (600, 8)] {
        assert_eq!(chunks.owner(pfn), Some(owner));
    }
    assert_eq!(chunks.owner(516), None);
    assert_eq!([7, 8, 9].map(|owner| chunks.runs(owner)), [2, 1, 1]);
    assert_eq!(chunks.take_at(7, 600, |_, _| true), None);
    assert_eq!(chunks.take(7, true, |_, _| true), None);
    assert!(chunks.take_at(8, 600, |_, _| true).is_some());
    assert_eq!(chunks.take_all(512, |_, _| true), None);
    // The pages of the second of three instances are removed, and those of the others stay.
    for pfn in [513, 600] {
        assert_eq!(chunks.give(pfn), None);
    }
    let idle = chunks.next_spare().unwrap();
    assert_eq!(idle.pages.iter().collect::<Vec<_>>(), [1, 88, 89]);
    assert_eq!(chunks.totals(8), (0, 0));
    for (pfn, owner) in [(512, 7), (515, 9), (514, 7)] {
        assert_eq!(chunks.owner(pfn), Some(owner));
        chunks.give(pfn);
    }
    assert!(chunks.next_spare().is_some() && chunks.next_spare().is_some());
    assert_eq!(chunks.next_spare(), None);
    assert_eq!(chunks.owner(512), None);
}

/// Checks that each entry of a list has its position, and is there once.
fn are_in_order(chunks: &Chunks) {
    for pool in &chunks.pools {
        for list in [&pool.small, &pool.large] {
            for (at, slot) in list.iter().enumerate() {
                let chunk = chunks.chunk(*slot).unwrap();
                assert_eq!((chunk.listed, chunk.owner), (Some(at as u32), pool.owner));
            }
        }
    }
    let listed = chunks.slots.iter().filter(|c| c.listed.is_some()).count();
    let entries = chunks.pools.iter().map(|p| p.small.len() + p.large.len());
    assert_eq!(listed, entries.sum());
}

#[test]
fn a_chunk_that_goes_leaves_no_entry_behind() {
    let mut chunks = Chunks::new();
    for number in 1..=40 {
        chunks
            .add(1, number * 512, 512, true, number % 3 == 0)
            .unwrap();
        are_in_order(&chunks);
    }
    // Uses all but one page of half of the chunks, and all pages of the other half. The trim takes the free pages.
    for number in 1..=40 {
        for page in 0..511 + number % 2 {
            chunks.take_at(1, number * 512 + page, |_, _| true).unwrap();
        }
    }
    let entries = |chunks: &Chunks| chunks.pools[0].small.len() + chunks.pools[0].large.len();
    assert_eq!(entries(&chunks), 40);
    let mut trimmed = 0;
    while chunks.trim(|_, _| 0).is_some() {
        trimmed += 1;
        are_in_order(&chunks);
        // The search does not visit a chunk without free pages again.
        assert!(entries(&chunks) <= 40 - trimmed);
    }
    assert_eq!((trimmed, entries(&chunks)), (20, 0));
    for number in (1..=40).rev() {
        for page in 0..511 + number % 2 {
            if let Some(idle) = chunks.give(number * 512 + page) {
                assert!(idle.pages.count() >= 511);
            }
            are_in_order(&chunks);
        }
    }
    assert!(chunks.next_spare().is_some());
    assert_eq!((entries(&chunks), chunks.totals(1)), (0, (0, 0)));
    assert_eq!(chunks.vacant.len(), 40);
}
