//! The planner: any machine, any request.

use crate::Cursor;
use kho::image::{ImageNeeds, InitrdNeeds, KernelNeeds};
use kho::plan::{Limits, PayloadNeeds, PlanRequest, ScratchSource, plan};
use kho::{PhysAddr, PhysRange, RangeSet};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// A range from four bytes: 8 MiB steps for the start, pages or bytes for the rest.
fn range(cursor: &mut Cursor<'_>) -> Option<PhysRange> {
    let start = u64::from(cursor.u8()) * 8 * MIB + u64::from(cursor.u8()) * PAGE;
    let (mantissa, exponent) = (u64::from(cursor.u8()), cursor.u8() % 25);
    PhysRange::new(PhysAddr::new(start), mantissa << exponent).ok()
}

fn set(cursor: &mut Cursor<'_>, most: u8) -> RangeSet {
    let count = cursor.u8() % most;
    let ranges: Vec<_> = (0..count).filter_map(|_| range(cursor)).collect();
    RangeSet::from_ranges(ranges).expect("memory")
}

fn size(cursor: &mut Cursor<'_>) -> u64 {
    let (mantissa, exponent) = (u64::from(cursor.u8()), cursor.u8() % 64);
    mantissa.checked_shl(exponent.into()).unwrap_or(u64::MAX)
}

/// A request. An accepted plan has to keep every promise, by the second check, which shares no code with the first.
pub fn planner(data: &[u8]) {
    let mut c = Cursor(data);
    let ram = set(&mut c, 6);
    let pinned = set(&mut c, 8);
    let in_place = set(&mut c, 40);
    let scratch = match c.u8() % 4 {
        0 => ScratchSource::Recorded(range(&mut c)),
        1 => ScratchSource::Choose {
            size: Some(size(&mut c)),
        },
        _ => ScratchSource::Choose { size: None },
    };
    let flags = c.u8();
    let image = ImageNeeds {
        kernel: KernelNeeds {
            file_len: size(&mut c),
            mem_size: size(&mut c),
            align: 1 << (c.u8() % 30),
            preferred: PhysAddr::new(size(&mut c)),
            above_4g: flags & 1 == 0,
            random: (flags & 4 != 0).then_some(flags.into()),
        },
        initrd: (flags & 2 == 0).then(|| {
            let len = size(&mut c);
            InitrdNeeds {
                len,
                unpacked: len.saturating_mul(4),
                max_addr: PhysAddr::new(0x7fff_ffff),
            }
        }),
        params_len: size(&mut c),
    };
    let blobs: Vec<u64> = (0..c.u8() % 6).map(|_| size(&mut c)).collect();
    let landing = [set(&mut c, 4), set(&mut c, 4)];
    let request = PlanRequest {
        ram: &ram,
        pinned: &pinned,
        in_place: &in_place,
        scratch,
        image,
        payload: PayloadNeeds {
            state: size(&mut c),
            blobs: &blobs,
        },
        landing: &landing,
        user_space: kho::headroom::UserSpace::default(),
        limits: Limits {
            max_entries: usize::from(c.u8()),
            max_payload_segments: usize::from(c.u8() % 17),
            load_limit: size(&mut c),
        },
        cmdline: c.bytes(100),
    };
    match plan(&request) {
        Ok(plan) => plan.check_invariants(&request).expect("a promise"),
        Err(refusal) => {
            let _ = refusal.to_string();
        }
    }
}

pub fn machines() -> Vec<Vec<u8>> {
    let mut seed = vec![
        2, 0, 1, 159, 12, 0, 255, 250,
        23, // RAM: 1 MiB less the first page, then 2 GiB less 64 MiB
        1, 200, 0, 4, 12, // pinned: four pages
        2, 60, 0, 3, 12, 70, 0, 2, 20, // in place: three pages, 2 MiB
        2,  // scratch: choose
        0,  // above 4 GiB, an initrd
        8, 20, 42, 20, 21, 1, 24, // 8 MiB of file, 42 MiB of memory, 2 MiB aligned, at 16 MiB
        40, 20, // initrd
        9, 10, // parameters
        2, 5, 20, 1, 12, // two blobs
        0, 0, // no landing zones
        1, 14, // state
        90, 12, 255, 28, // limits
    ];
    seed.extend(b"quiet");
    let more = [&seed[..1], &[0, 1, 159, 12, 0, 255, 250, 23], &seed[9..]].concat();
    vec![seed, more]
}
