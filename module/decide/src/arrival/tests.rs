use super::*;
use crate::chain::Chain;
use crate::fake::{Fake, Machine, tree_of, with};
use crate::iomem;
use crate::pages::pfns;
use kho::PhysAddr;
use kho::abi::late;
use kho::abi::{
    BlobDescription, Content, Description, Label, MACHINE_X86_64, measure_handover_with,
    write_handover_with,
};
use kho::tree::{WriteError, Writer, seal};
use std::vec;
use std::vec::Vec;

/// RAM, and the ranges of this kernel.
const IOMEM: &str = "00100000-7fffffff : System RAM\n  01000000-01ffffff : Kernel code\n";

/// Address of the chain's node. The state tree is behind it.
const NODE: u64 = 0x6000_0000;
const TREE: u64 = 0x6000_1000;

/// The pages of the kernel's part.
const PART: u64 = 0x5000_1000;

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

fn set(list: &[(u64, u64)]) -> RangeSet {
    RangeSet::from_ranges(list.iter().map(|(start, len)| range(*start, *len))).unwrap()
}

/// Mem cache: the state; a blob; and the kernel's part, with a page before it that a driver hands over, and a page
/// behind it that is slack.
fn cache() -> [PhysRange; 3] {
    [
        range(NODE, 0x4000),
        range(0x4000_0000, 0x2000),
        range(0x5000_0000, 0x3000),
    ]
}

/// A kernel's part in which a driver has this memory.
fn part(generation: u64, mem: PhysRange) -> Vec<u8> {
    part_at(range(PART, 0x1000), generation, mem)
}

/// A kernel's part in these pages, in which a driver has this memory.
fn part_at(own: PhysRange, generation: u64, mem: PhysRange) -> Vec<u8> {
    let write = |w: &mut Writer<'_>| {
        w.begin_node("").unwrap();
        w.prop_str("compatible", "kho-kernel-v1").unwrap();
        w.prop_u64("generation", generation).unwrap();
        w.prop_u32("checksum", 0).unwrap();
        w.prop_mem("mem", [own]).unwrap();
        w.begin_node("ring").unwrap();
        w.prop_str("compatible", "example-ring-v1").unwrap();
        w.prop_mem("mem", [mem]).unwrap();
        w.end_node().unwrap();
        w.end_node().unwrap();
    };
    let mut bytes = tree_of(write);
    seal(&mut bytes).unwrap();
    bytes
}

/// The user's tree: a blob, and `references` references to a kernel's part of generation 9 and of this size.
fn user(part: usize, references: usize) -> Vec<u8> {
    user_with(|w| {
        if references > 0 {
            Reference {
                mem: range(PART, 0x1000),
                size: part as u64,
                generation: 9,
            }
            .write(w)?;
        }
        if references > 1 {
            w.begin_node("kernel-2")?;
            w.prop_str("compatible", "kho-kernel-part-v1")?;
            w.end_node()?;
        }
        Ok(())
    })
}

/// The user's tree: a blob, and the nodes that `more` writes.
fn user_with(more: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>) -> Vec<u8> {
    let mem = [range(0x4000_0000, 0x2000)];
    let blobs = [BlobDescription {
        label: Label::new("srv").unwrap(),
        content: Content::Raw,
        size: 0x2000,
        mem: &mem,
        blake3: [7; 32],
        taken: 1,
        arrived_hop: 2,
    }];
    let description = Description {
        generation: 7,
        hop: 3,
        previous_release: "6.1",
        machine: MACHINE_X86_64,
        time: 1,
        carrier: kho::abi::Carrier::Memory,
        scratch: range(0x1000_0000, 0x1000_0000),
        mem_cache: &cache(),
        blobs: &blobs,
    };
    let mut bytes = vec![0; measure_handover_with(&description, &more).unwrap()];
    write_handover_with(&description, &mut bytes, &more).unwrap();
    bytes
}

/// Sets up a machine on which these two trees arrived.
fn machine(user: Vec<u8>, part: Vec<u8>) {
    with(|machine| {
        *machine = Machine::default();
        machine.chain = Chain {
            tree: Some(range(TREE, user.len() as u64)),
            reserved: cache().into(),
            nodes: vec![range(NODE, 40)],
            late: Vec::new(),
        };
        machine.memory = [(TREE, user), (PART, part)].into();
        for pfn in cache().into_iter().flat_map(pfns) {
            machine.page(pfn).reserved = true;
        }
    });
}

/// Sets up a machine on which a user's tree and a valid kernel's part arrived.
fn valid_machine() {
    let part = part(9, range(0x5000_0000, 0x1000));
    machine(user(part.len(), 1), part);
}

fn received() -> Result<(Arrival<Fake>, RangeSet), Nothing> {
    let map = iomem::parse(IOMEM.as_bytes()).unwrap();
    let (arrival, reserved) = receive::<Fake>(&map)?;
    Ok((arrival, reserved.set().try_clone().unwrap()))
}

fn refused() -> &'static str {
    match received() {
        Err(Nothing::Refused(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was believed"),
    }
}

#[test]
fn what_was_handed_over_stays_reserved_and_the_rest_is_given_back() {
    valid_machine();
    let (arrival, reserved) = received().unwrap();
    assert_eq!(
        reserved,
        set(&[(0x4000_0000, 0x2000), (0x5000_0000, 0x1000)])
    );
    assert_eq!((arrival.hop, &*arrival.previous), (3, "6.1"));
    assert!(arrival.kernel.is_some() && arrival.part.is_some() && arrival.refused.is_none());
    // Slack lies behind the state tree and behind the kernel's part.
    let slack = set(&[(0x5000_2000, 0x1000), (0x6000_2000, 0x2000)]);
    assert_eq!((arrival.slack, arrival.missing), (slack.total(), 0));
    let freed = with(|machine| machine.freed.clone());
    assert_eq!(freed, slack.iter().flat_map(pfns).collect::<Vec<_>>());

    // The module is loaded again. Another owner may have the freed pages by now, and may have reserved some of them.
    with(|machine| {
        machine
            .page(slack.as_slice()[0].start().get() / kho::PAGE_SIZE)
            .reserved = true
    });
    let (arrival, again) = received().unwrap();
    assert_eq!((again, arrival.slack), (reserved, 0));
    assert_eq!(with(|machine| machine.freed.len()), freed.len());
}

#[test]
fn without_a_tree_in_the_chain_it_was_an_ordinary_boot() {
    assert!(matches!(received(), Err(Nothing::Ordinary)));
    valid_machine();
    with(|machine| machine.chain.tree = None);
    assert!(matches!(received(), Err(Nothing::Ordinary)));
    assert!(with(|machine| machine.freed.is_empty() && !machine.handled));
}

#[test]
fn a_tree_that_is_not_believed_changes_nothing() {
    let tree = |change: &dyn Fn(&mut Machine)| {
        valid_machine();
        with(|machine| change(machine));
        let why = refused();
        assert!(with(|machine| machine.freed.is_empty() && !machine.handled));
        why
    };
    let bytes = |machine: &mut Machine, at: usize| machine.memory.get_mut(&TREE).unwrap()[at] ^= 1;
    assert_eq!(tree(&|m| bytes(m, 0)), "the state tree is damaged");
    let last = user(1, 1).len() - 1;
    assert_eq!(tree(&|m| bytes(m, last)), "the state tree is damaged");
    let not_reserved = "the state tree is not in memory that early boot reserved";
    let page = TREE / kho::PAGE_SIZE;
    assert_eq!(tree(&|m| m.page(page).reserved = false), not_reserved);
    assert_eq!(tree(&|m| m.page(page).failed = true), not_reserved);
    assert_eq!(
        tree(&|m| m.chain.reserved.truncate(2)),
        "early boot was not asked to reserve all of the mem cache"
    );
    let elsewhere = |machine: &mut Machine| {
        let bytes = machine.memory[&TREE].clone();
        machine.chain.tree = Some(range(0x5000_2000, bytes.len() as u64));
        machine.memory.insert(0x5000_2000, bytes);
    };
    assert_eq!(tree(&elsewhere), "the state tree is not where it says");
}

#[test]
fn memory_of_this_kernel_is_not_taken() {
    valid_machine();
    let text = std::format!("{IOMEM}  40000000-40000fff : Kernel data\n");
    let map = iomem::parse(text.as_bytes()).unwrap();
    let why = receive::<Fake>(&map).map(|_| ());
    let wanted = "a range is not RAM that early boot reserved for it";
    assert!(matches!(why, Err(Nothing::Refused(why)) if why == wanted));
    assert!(with(|machine| machine.freed.is_empty() && !machine.handled));
}

#[test]
fn pages_that_are_not_reserved_any_more_are_counted() {
    valid_machine();
    with(|machine| machine.page(0x4000_1000 / kho::PAGE_SIZE).reserved = false);
    let (arrival, reserved) = received().unwrap();
    assert_eq!(arrival.missing, 1);
    assert!(!reserved.contains_range(range(0x4000_1000, 0x1000)));
}

#[test]
fn without_a_kernel_s_part_all_that_is_nobody_s_is_slack() {
    machine(user(0x700, 0), Vec::new());
    let (arrival, reserved) = received().unwrap();
    assert!(arrival.kernel.is_none() && arrival.refused.is_none());
    assert_eq!(reserved, set(&[(0x4000_0000, 0x2000)]));
    assert_eq!(arrival.slack, 0x5000);
}

#[test]
fn a_kernel_s_part_that_is_not_believed_is_not_taken_apart() {
    let mine = range(0x5000_0000, 0x1000);
    let good = part(9, mine);
    let mut other = good.clone();
    *other.last_mut().unwrap() ^= 1;
    let changed = |text: &[u8], to: u8| {
        let mut bytes = good.clone();
        let at = bytes.windows(text.len()).position(|part| part == text);
        bytes[at.unwrap() + text.len() - 1] = to;
        bytes
    };
    let len = good.len();
    let aborted = "it is no tree: aborted after the image was loaded, or overwritten";
    for (user, part, why) in [
        (user(len, 1), vec![0; len], aborted),
        (user(len, 1), other, aborted),
        (
            user(len, 1),
            part(8, mine),
            "it is not the one that was loaded",
        ),
        (user(len, 2), good.clone(), "two nodes refer to one"),
        (
            user(len, 1),
            changed(b"kernel-v1", b'3'),
            "it is of another version",
        ),
        (
            user(len, 1),
            changed(b"ring-v1", b'2'),
            "it is damaged or contradicts itself",
        ),
        (
            user(len, 1),
            part(9, range(0x5000_3000, 0x1000)),
            "a range is not in the mem cache",
        ),
        (
            user(len, 1),
            part(9, range(0x4000_1000, 0x1000)),
            "a range is a blob's too",
        ),
    ] {
        machine(user, part);
        let (arrival, reserved) = received().unwrap();
        assert_eq!(arrival.refused, Some(why));
        assert!(arrival.kernel.is_none() && arrival.kernel_bytes() == Err(ENODATA));
        // It is not known which memory is slack. This kernel reads the chain's node and the tree.
        let all = set(&[
            (0x4000_0000, 0x2000),
            (0x5000_0000, 0x3000),
            (0x6000_2000, 0x2000),
        ]);
        assert_eq!((reserved, arrival.slack), (all, 0), "{why}");
    }
    machine(user(len, 1), good);
    with(|machine| machine.page(PART / kho::PAGE_SIZE).reserved = false);
    let (arrival, _) = received().unwrap();
    assert_eq!(arrival.refused, Some("its pages are not reserved"));
}

/// The late block. It is in the mem cache of the loader, with slack before it.
const BLOCK: u64 = 0x5000_1000;

/// The late mem cache: a page of a driver, the kernel's part, and two pages of slack.
const LATE: u64 = 0x3000_0000;

fn late_part() -> Vec<u8> {
    part_at(range(LATE + 0x1000, 0x1000), 9, range(LATE, 0x1000))
}

/// Sets up a machine on which a load arrived whose late block has this nonce and this header.
fn late_machine(nonce: u64, header: &[u8], cache: &[PhysRange]) {
    let block = range(BLOCK, 0x2000);
    machine(
        user_with(|w| LateReference { block, nonce }.write(w)),
        Vec::new(),
    );
    with(|machine| {
        machine.chain.nodes.push(range(BLOCK, 40));
        machine.chain.late = vec![range(BLOCK + 0x1000, 0x1000)];
        machine.chain.late.extend(cache);
        machine.memory.insert(BLOCK + 0x1000, header.to_vec());
        machine.memory.insert(LATE + 0x1000, late_part());
        for pfn in cache.iter().copied().flat_map(pfns) {
            machine.page(pfn).reserved = true;
        }
    });
}

/// A late block that hands over [`late_part`], and its ranges.
fn published(nonce: u64) -> (Vec<u8>, Vec<PhysRange>) {
    let cache = vec![range(LATE, 0x4000)];
    let late = Late {
        part: Reference {
            mem: range(LATE + 0x1000, 0x1000),
            size: late_part().len() as u64,
            generation: 9,
        },
        cache: cache.clone(),
    };
    let (bytes, _) = late::encode(range(BLOCK, 0x2000), nonce, &late).unwrap();
    (bytes[0x1000..].to_vec(), cache)
}

/// Memory of the loader's mem cache that is slack if the tree names a late block.
const SLACK: [(u64, u64); 2] = [(0x5000_0000, 0x1000), (0x6000_2000, 0x2000)];

#[test]
fn a_late_block_names_the_kernel_s_part_and_its_memory() {
    let (header, cache) = published(5);
    late_machine(5, &header, &cache);
    let (arrival, reserved) = received().unwrap();
    assert_eq!(arrival.refused, None);
    assert!(arrival.kernel.is_some() && arrival.part.is_some());
    assert_eq!(reserved, set(&[(LATE, 0x1000), (0x4000_0000, 0x2000)]));
    let mut slack = vec![(LATE + 0x2000, 0x2000)];
    slack.extend(SLACK);
    let freed = with(|machine| machine.freed.clone());
    assert_eq!(freed, set(&slack).iter().flat_map(pfns).collect::<Vec<_>>());
    // Processes read the block through sysfs.
    for pfn in pfns(range(BLOCK, 0x2000)) {
        assert!(with(|machine| machine.page(pfn).reserved));
    }
}

#[test]
fn an_empty_late_block_hands_over_nothing_and_costs_nothing() {
    late_machine(5, &[0; 0x1000], &[]);
    let (arrival, reserved) = received().unwrap();
    let why = "the previous kernel wrote nothing before it jumped";
    assert_eq!(arrival.refused, Some(why));
    assert!(arrival.kernel.is_none());
    assert_eq!(reserved, set(&[(0x4000_0000, 0x2000)]));
    assert_eq!(arrival.slack, set(&SLACK).total());
}

#[test]
fn a_late_block_that_is_not_believed_is_not_taken_apart() {
    let (header, cache) = published(5);
    let mut damaged = header.clone();
    damaged[60] ^= 1;
    for (nonce, header, cache, why) in [
        (
            6,
            &header,
            &cache[..],
            "its late block is that of another load",
        ),
        (5, &damaged, &cache[..], "its late block is damaged"),
        // The header was written, the chain was not published.
        (5, &header, &[], "its late block is damaged"),
        // The ranges were reserved, and the header says nothing.
        (5, &vec![0; 0x1000], &cache[..], "its late block is damaged"),
    ] {
        late_machine(nonce, header, cache);
        let (arrival, reserved) = received().unwrap();
        assert_eq!(arrival.refused, Some(why));
        assert!(arrival.kernel.is_none());
        let mut all = set(&SLACK).union(&set(&[(0x4000_0000, 0x2000)])).unwrap();
        for range in cache {
            all.insert(*range).unwrap();
        }
        assert_eq!((reserved, arrival.slack), (all, 0), "{why}");
    }
    late_machine(5, &header, &cache);
    with(|machine| machine.chain.late[0] = range(LATE, 0x1000));
    let (arrival, _) = received().unwrap();
    let why = "early boot did not walk through its late block";
    assert_eq!(arrival.refused, Some(why));
}
