use super::*;
use proptest::prelude::*;
use std::io;
use std::vec::Vec;

const AT: u64 = 0x1_4000_0000;
const MAX: usize = 256;

fn policy(short_indirect: ShortIndirect) -> Policy {
    Policy {
        max_nodes: MAX,
        short_indirect,
    }
}

/// Physical memory that holds `bytes` at [`AT`] and nothing else.
fn memory(bytes: &[u8]) -> impl FnMut(PhysAddr, &mut [u8]) -> io::Result<()> + '_ {
    move |at, buffer| {
        let from = at
            .get()
            .checked_sub(AT)
            .and_then(|at| usize::try_from(at).ok());
        let found = from.and_then(|from| bytes.get(from..)?.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or_else(|| io::Error::other("not mapped"))?);
        Ok(())
    }
}

fn read(bytes: &[u8], short: ShortIndirect) -> Result<Vec<Node>, ChainError<io::Error>> {
    walk(AT, policy(short), memory(bytes)).collect()
}

fn refused(bytes: &[u8]) -> ChainError<io::Error> {
    read(bytes, ShortIndirect::Refuse).unwrap_err()
}

fn node(next: u64, kind: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    [
        &next.to_le_bytes()[..],
        &kind.to_le_bytes(),
        &len.to_le_bytes(),
        data,
    ]
    .concat()
}

fn indirect(kind: u32, len: u64, addr: u64) -> Vec<u8> {
    let inner = [
        &kind.to_le_bytes()[..],
        &[0; 4],
        &len.to_le_bytes(),
        &addr.to_le_bytes(),
    ];
    node(0, SETUP_INDIRECT, &inner.concat())
}

#[test]
fn nodes_come_in_order_with_their_places() {
    let bytes = [
        node(AT + 21, 9, b"seed!"),
        indirect(SETUP_KHO_RESERVE, 0x2000, 0x4000),
    ]
    .concat();
    let nodes = read(&bytes, ShortIndirect::Refuse).unwrap();
    let place = |at, len| PhysRange::new(PhysAddr::new(at), len).unwrap();
    assert_eq!(nodes[0].place, place(AT, 21));
    assert_eq!((nodes[0].kind, nodes[0].indirect), (9, None));
    assert_eq!(nodes[1].place, place(AT + 21, 40));
    assert_eq!(
        nodes[1].range_of(SETUP_KHO_RESERVE),
        Some(place(0x4000, 0x2000))
    );
    assert_eq!(nodes[1].range_of(SETUP_KHO_TREE), None);
    assert_eq!(nodes.len(), 2);
}

#[test]
fn no_chain_is_not_read() {
    let mut nodes = walk(0, policy(ShortIndirect::Refuse), |_, _: &mut [u8]| {
        Err(io::Error::other("nothing to read"))
    });
    assert!(nodes.next().is_none());
}

#[test]
fn loops_are_refused() {
    let itself = refused(&node(AT, 1, b""));
    assert!(matches!(itself, ChainError::Loop { index: 1, .. }));
    // Chains of every length, which start after every number of other nodes.
    for before in 0..9 {
        for round in 1..9 {
            let count = before + round;
            let bytes: Vec<u8> = (0..count)
                .flat_map(|n| {
                    let next = if n + 1 == count { before } else { n + 1 };
                    node(AT + 16 * next, 1, b"")
                })
                .collect();
            let found = refused(&bytes);
            assert!(
                matches!(found, ChainError::Loop { .. }),
                "{before} {round}: {found}"
            );
        }
    }
}

#[test]
fn a_chain_may_have_as_many_nodes_as_the_policy_says() {
    let chain = |count: u64| -> Vec<u8> {
        (1..=count)
            .flat_map(|n| node(if n == count { 0 } else { AT + 16 * n }, 1, b""))
            .collect()
    };
    let most = read(&chain(MAX as u64), ShortIndirect::Refuse).unwrap();
    assert_eq!(most.len(), MAX);
    let more = refused(&chain(MAX as u64 + 1));
    assert!(matches!(more, ChainError::TooLong { max: MAX }));
}

#[test]
fn memory_that_cannot_be_read_is_an_error_with_its_cause() {
    let nowhere = refused(&node(0xdead_0000, 1, b""));
    assert!(matches!(nowhere, ChainError::Read { index: 1, .. }));
    assert!(core::error::Error::source(&nowhere).is_some());
}

#[test]
fn a_short_indirect_node_is_what_the_policy_says() {
    let short = node(0, SETUP_INDIRECT, &[0; 23]);
    assert!(matches!(refused(&short), ChainError::Short { len: 23, .. }));
    let ignored = read(&short, ShortIndirect::Ignore).unwrap();
    assert_eq!(ignored[0].indirect, None);
}

#[test]
fn ranges_of_ours_are_ranges_and_others_are_not_looked_at() {
    for len in [0, u64::MAX] {
        let bad = refused(&indirect(SETUP_KHO_TREE, len, 0x1000));
        assert!(matches!(bad, ChainError::BadRange { .. }));
    }
    for other in [SETUP_INDIRECT, 1, 0] {
        let nodes = read(&indirect(other, 0, 0), ShortIndirect::Refuse).unwrap();
        assert_eq!(nodes[0].indirect, None);
    }
}

#[test]
fn a_node_stays_in_the_address_space() {
    let zeros = |_: PhysAddr, buffer: &mut [u8]| -> io::Result<()> {
        buffer.fill(0);
        Ok(())
    };
    let mut nodes = walk(u64::MAX - 15, policy(ShortIndirect::Refuse), zeros);
    assert!(matches!(
        nodes.next(),
        Some(Err(ChainError::Wraps { index: 0, .. }))
    ));
    assert!(nodes.next().is_none(), "the walk goes on after an error");
}

proptest! {
    #[test]
    fn any_memory_is_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        first in any::<u64>(),
        refuse in any::<bool>(),
    ) {
        let short = if refuse { ShortIndirect::Refuse } else { ShortIndirect::Ignore };
        let _ = read(&bytes, short);
        // Every address reads as the same bytes.
        let everywhere = |at: PhysAddr, buffer: &mut [u8]| -> io::Result<()> {
            for (n, byte) in buffer.iter_mut().enumerate() {
                let at = usize::try_from(at.get() % 307).unwrap() + n;
                *byte = bytes.get(at % 307).copied().unwrap_or(0);
            }
            Ok(())
        };
        prop_assert!(walk(first, policy(short), everywhere).count() <= MAX + 1);
    }
}
