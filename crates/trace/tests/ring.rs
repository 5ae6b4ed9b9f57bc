//! Pages of the ring buffer, and rings of such pages in a kernel's memory.

#[path = "common/ring.rs"]
mod made;

use kho_trace::live::{Live, LiveBuffer, LiveError, Offsets};
use kho_trace::read::{Buffer, Merge};
use kho_trace::ring::{Page, PageLayout, unread};

const LAYOUT: PageLayout = PageLayout {
    commit: 8,
    commit_size: 8,
    data: 16,
};

fn words(time: u64, words: &[u32]) -> Vec<u8> {
    let mut out = time.to_le_bytes().to_vec();
    out.extend((words.len() as u64 * 4).to_le_bytes());
    out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    out.resize(4096, 0);
    out
}

fn times(page: &[u8]) -> Vec<u64> {
    let page = Page::new(page, &LAYOUT).unwrap();
    page.events().map(|event| event.unwrap().time).collect()
}

#[test]
fn a_damaged_page_costs_its_own_events() {
    let record = |time| words(time, &[(1 << 5) | 1, 7]);
    let mut pages = [record(100), record(200), record(300), record(400)];
    // A page that claims more bytes than it has, and an event that reaches past the end of its page.
    pages[1][8..16].copy_from_slice(&0x7fff_u64.to_le_bytes());
    pages[2][16..20].copy_from_slice(&((1u32 << 5) | 28).to_le_bytes());
    let buffer = Buffer {
        array: "",
        cpu: 3,
        page_size: 4096,
        bytes: &pages.concat(),
    };
    let mut merge = Merge::new(&[buffer], LAYOUT);
    let seen: Vec<_> = merge
        .by_ref()
        .map(|record| (record.event.time, record.missed))
        .collect();
    assert_eq!(seen, [(101, None), (401, Some(0))]);
    let damaged: Vec<_> = merge.problems().iter().map(|p| (p.cpu, p.page)).collect();
    assert_eq!(damaged, [(3, 1), (3, 2)]);
    let sizeless = Buffer {
        page_size: 100,
        ..buffer
    };
    let mut merge = Merge::new(&[sizeless], LAYOUT);
    assert_eq!((merge.by_ref().count(), merge.problems().len()), (0, 1));
}

#[test]
fn every_kind_of_event() {
    // A record of 4 bytes, 3 later; an extension of 2^27 + 5; a record with its length in a word; padding of 8 bytes
    // that is skipped with its delta; an absolute time; a record; the end.
    let page = words(
        100,
        &[
            (3 << 5) | 1,
            7,
            (5 << 5) | 30,
            1,
            (1 << 5),
            8,
            9,
            (2 << 5) | 29,
            8,
            0,
            (77 << 5) | 31,
            2,
            (1 << 5) | 1,
            7,
            29,
            0,
        ],
    );
    let after = 103 + (1 << 27) + 5 + 1;
    assert_eq!(times(&page), [103, after, (2 << 27) + 77 + 1]);
    let page = Page::new(&page, &LAYOUT).unwrap();
    let lens: Vec<_> = page
        .events()
        .map(|event| event.unwrap().data.len())
        .collect();
    assert_eq!(lens, [4, 4, 4]);
    // An absolute time lacks the upper five bits; the reader takes them from the time before it.
    let high = 0xf8u64 << 56;
    let page = words(high | 5, &[(9 << 5) | 31, 0, 1, 7]);
    assert_eq!(times(&page), [high | 9]);
}

#[test]
fn what_does_not_fit_is_named() {
    for bad in [&[(1u32 << 5) | 28, 7][..], &[0, 100, 1], &[30], &[0]] {
        let page = words(1, bad);
        let last = Page::new(&page, &LAYOUT).unwrap().events().last().unwrap();
        assert!(last.is_err(), "{bad:?}");
    }
    let mut page = words(1, &[1, 7]);
    page[8..16].copy_from_slice(&0x1000u64.to_le_bytes());
    let error = Page::new(&page, &LAYOUT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "0x1000 committed bytes in a page with room for 0xff0"
    );
    // Lost events: the flag alone, and with their number behind the events.
    page[8..16].copy_from_slice(&(8u64 | 1 << 31).to_le_bytes());
    assert_eq!(Page::new(&page, &LAYOUT).unwrap().missed, Some(0));
    page[8..16].copy_from_slice(&(8u64 | 3 << 30).to_le_bytes());
    page[24] = 42;
    assert_eq!(Page::new(&page, &LAYOUT).unwrap().missed, Some(42));
}

#[test]
fn the_unread_part_of_a_page_keeps_its_times() {
    let page = made::page(1000, 5);
    assert_eq!(times(&page), [1000, 1010, 1020, 1030, 1040]);
    let rest = unread(&page, &LAYOUT, 16).unwrap().unwrap();
    assert_eq!(times(&rest), [1020, 1030, 1040]);
    assert_eq!(unread(&page, &LAYOUT, 40).unwrap(), None);
    assert_eq!(unread(&page, &LAYOUT, 0).unwrap().unwrap(), page);
    // An extension in front of the first unread event counts.
    let page = words(5, &[1, 7, (5 << 5) | 30, 1, (2 << 5) | 1, 7]);
    let rest = unread(&page, &LAYOUT, 8).unwrap().unwrap();
    assert_eq!(times(&rest), [5 + (1 << 27) + 5 + 2]);
}

fn read(memory: &made::Memory, limit: u64) -> Result<LiveBuffer, LiveError> {
    let live = Live::new(memory, Offsets::new(&made::btf()).unwrap(), LAYOUT);
    let arrays = live.arrays(made::LIST, made::GLOBAL).unwrap();
    let names: Vec<_> = arrays.iter().map(|array| array.name.as_str()).collect();
    assert_eq!(names, ["net", ""]);
    assert_eq!(
        live.cpu(arrays[0].buffer, 1, limit),
        Ok(None),
        "a CPU without a buffer"
    );
    live.cpu(arrays[0].buffer, 0, limit).map(Option::unwrap)
}

fn page_times(buffer: &LiveBuffer) -> Vec<u64> {
    buffer.pages.iter().map(|page| page.time).collect()
}

#[test]
fn a_ring_is_read_from_its_head_to_what_is_committed() {
    // The buffer wrapped: the oldest page is in the middle of the ring.
    let memory = made::kernel(5, 0, &[5000, 6000, 3000, 4000], 2, 3);
    assert_eq!(
        page_times(&read(&memory, u64::MAX).unwrap()),
        [1000, 3000, 4000, 5000, 6000]
    );
    // Only part of the ring is written.
    let memory = made::kernel(5, 0, &[2000, 3000, 0, 0], 0, 1);
    assert_eq!(
        page_times(&read(&memory, u64::MAX).unwrap()),
        [1000, 2000, 3000]
    );
    // A reader consumed a part of the reader page, or all of it.
    let memory = made::kernel(5, 24, &[2000], 0, 0);
    let buffer = read(&memory, u64::MAX).unwrap();
    // The remaining page has the time before its first event.
    assert_eq!(page_times(&buffer), [1020, 2000]);
    assert_eq!(times(&buffer.pages[0].bytes), [1030, 1040]);
    let memory = made::kernel(5, 40, &[2000], 0, 0);
    assert_eq!(page_times(&read(&memory, u64::MAX).unwrap()), [2000]);
    // A page that was once the consumed reader page has been written again.
    memory.put(made::bpage(1) + 24, 4080);
    assert_eq!(page_times(&read(&memory, u64::MAX).unwrap()), [2000]);
}

#[test]
fn the_limit_leaves_out_the_oldest() {
    let memory = made::kernel(5, 0, &[5000, 6000, 3000, 4000], 2, 3);
    let buffer = read(&memory, 3 * 4096 + 5).unwrap();
    assert_eq!(page_times(&buffer), [4000, 5000, 6000]);
    assert_eq!(buffer.left_out, 2);
}

#[test]
fn an_empty_buffer_has_no_pages() {
    // The reader page is empty, and the kernel commits to it.
    let memory = made::kernel(0, 0, &[0], 0, 0);
    memory.put(made::CPU + 24, made::bpage(0));
    let buffer = read(&memory, u64::MAX).unwrap();
    assert_eq!((buffer.pages.len(), buffer.left_out), (0, 0));
}

#[test]
fn the_buffer_of_a_snapshot_is_found() {
    let memory = made::kernel(5, 0, &[2000, 3000], 0, 1);
    // The second buffer of the instance.
    memory.put(made::GLOBAL + 0x800 + 40 + 16, 0x1234);
    let live = Live::new(&memory, Offsets::new(&made::btf()).unwrap(), LAYOUT);
    let arrays = live.arrays(made::LIST, made::GLOBAL).unwrap();
    let snapshots: Vec<_> = arrays.iter().map(|array| array.snapshot).collect();
    assert_eq!(snapshots, [Some(0x1234), None]);
}

/// Reads the kernel of [`made::kernel`] once for every read of memory, and applies `change` before that read.
fn at_every_moment(change: fn(&made::Memory), mut check: impl FnMut(&LiveBuffer)) {
    let kernel = || made::kernel(5, 0, &[2000, 3000, 4000], 0, 2);
    let memory = kernel();
    read(&memory, u64::MAX).unwrap();
    for when in 1..=memory.reads.get() {
        let memory = kernel();
        memory.at_read(when, change);
        check(&read(&memory, u64::MAX).unwrap());
    }
}

#[test]
fn a_page_that_is_written_over_meanwhile_is_left_out() {
    let mut seen = 0;
    at_every_moment(
        |memory| memory.put_page(made::data(1), made::page(9000, 5)),
        |found| {
            // Other results: the page was new from the start, or the reader copied and checked it before the change.
            if page_times(found) == [1000, 3000, 4000] {
                assert_eq!(found.left_out, 1);
                seen += 1;
            }
        },
    );
    assert!(seen > 0);
}

#[test]
fn a_page_that_is_somebody_elses_by_now_is_left_out() {
    let mut seen = 0;
    at_every_moment(
        // A reader swaps a spare page for the data (`ring_buffer_read_page`); the kernel then uses the old page for
        // other data.
        |memory| {
            memory.put(made::bpage(1) + 32, made::data(9));
            memory.put_page(made::data(9), made::page(0, 0));
            memory.put_page(made::data(1), made::page(666, 5));
        },
        |found| {
            let times = page_times(found);
            assert!(!times.contains(&666), "{times:?}");
            assert!(times.ends_with(&[3000, 4000]), "{times:?}");
            seen += u64::from(found.left_out == 1);
        },
    );
    assert!(seen > 0);
    // The buffer is made smaller: the page does not belong to the ring any more.
    at_every_moment(
        |memory| {
            memory.put(made::CPU + 8, 2);
            memory.put(made::CPU + 16, made::bpage(2));
            memory.put(made::bpage(3) + 8, (made::bpage(2) + 8) | 1);
            memory.put_page(made::data(1), made::page(666, 5));
        },
        |found| {
            let times = page_times(found);
            assert!(!times.contains(&666), "{times:?}");
            assert!(times.ends_with(&[3000, 4000]), "{times:?}");
        },
    );
}

#[test]
fn a_reader_that_takes_the_head_out_hides_nothing() {
    at_every_moment(
        // `rb_get_reader_page`: the emptied reader page takes the place of the head in the ring.
        |memory| {
            memory.put_page(made::data(0), made::page(1000, 0));
            memory.put(made::bpage(0) + 8, (made::bpage(2) + 8) | 1);
            memory.put(made::bpage(3) + 8, made::bpage(0) + 8);
            memory.put(made::bpage(1) + 8, made::bpage(2) + 8);
            memory.put(made::CPU + 16, made::bpage(2));
            memory.put(made::CPU + 32, made::bpage(1));
        },
        |found| {
            let times = page_times(found);
            let rest = times.strip_prefix(&[1000]).unwrap_or(&times);
            assert_eq!(rest, [2000, 3000, 4000]);
        },
    );
}

#[test]
fn a_page_with_less_committed_than_was_copied_is_being_written_over() {
    // The page still has the old time: the writer has only begun.
    let mut seen = 0;
    at_every_moment(
        |memory| memory.put_page(made::data(1), made::page(2000, 0)),
        |found| seen += found.left_out,
    );
    assert!(seen > 0);
    // The kernel commits more events: those already copied do not change.
    at_every_moment(
        |memory| memory.put_page(made::data(3), made::page(4000, 9)),
        |found| assert_eq!(page_times(found), [1000, 2000, 3000, 4000]),
    );
}

#[test]
fn a_ring_that_makes_no_sense_is_refused() {
    for (offset, value, message) in [
        (0, 9, "the CPU of a per-CPU buffer is 0x9, which cannot be"),
        (
            8,
            0,
            "the number of pages of a ring buffer is 0x0, which cannot be",
        ),
        (
            8,
            u64::MAX,
            "the number of pages of a ring buffer is 0xffffffffffffffff, which cannot be",
        ),
        (8, 3, "the ring buffer changed under every one of 20 walks"),
        (
            24,
            0x1234,
            "the ring buffer changed under every one of 20 walks",
        ),
    ] {
        let memory = made::kernel(5, 0, &[2000, 3000], 0, 1);
        memory.put(made::CPU + offset, value);
        assert_eq!(read(&memory, u64::MAX).unwrap_err().to_string(), message);
    }
    let memory = made::kernel(5, 0, &[2000, 3000], 0, 1);
    memory.put(made::bpage(0) + 24, 60 << 32);
    let error = read(&memory, u64::MAX).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the order of a sub-buffer is 0x3c, which cannot be"
    );
}
