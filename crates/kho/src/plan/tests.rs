use super::*;
use crate::addr::PhysAddr;
use crate::headroom::HeadroomError;
use crate::image::{FOUR_GIB, ImageNeeds, ImagePart, InitrdNeeds, PlacementError};
use crate::scratch::ScratchError;
use crate::testing::{GIB, KERNEL, MIB, range, set};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec as StdVec;

fn image() -> ImageNeeds {
    ImageNeeds {
        kernel: KERNEL,
        initrd: Some(InitrdNeeds {
            len: 30 * MIB + 5,
            unpacked: 120 * MIB,
            max_addr: PhysAddr::new(0x7fff_ffff),
        }),
        params_len: 5000,
    }
}

/// A request that owns what it refers to, so that a test can change one thing.
#[derive(Debug)]
struct Case {
    ram: RangeSet,
    pinned: RangeSet,
    in_place: RangeSet,
    scratch: ScratchSource,
    image: ImageNeeds,
    state: u64,
    blobs: StdVec<u64>,
    landing: StdVec<RangeSet>,
    cmdline: &'static [u8],
    limits: Limits,
}

impl Case {
    /// 2 GiB, BIOS.
    fn small() -> Self {
        Self {
            ram: set([range(0, 0x9_f000), range(MIB, 2 * GIB)]),
            pinned: set([range(900 * MIB, 960 * MIB), range(0x1000, 0x2000)]),
            in_place: RangeSet::new(),
            scratch: ScratchSource::Choose { size: None },
            image: image(),
            state: 10_000,
            blobs: vec![64 * MIB + 1, 0, 77],
            landing: vec![],
            cmdline: b"console=ttyS0",
            limits: Limits {
                max_entries: 100,
                max_payload_segments: 12,
                load_limit: GIB,
            },
        }
    }

    /// 6 GiB with a hole below 4 GiB.
    fn large() -> Self {
        Self {
            ram: set([
                range(0, 0x9_f000),
                range(MIB, 3 * GIB),
                range(4 * GIB, 7 * GIB),
            ]),
            limits: Limits {
                load_limit: 3 * GIB,
                ..Self::small().limits
            },
            ..Self::small()
        }
    }

    fn request(&self) -> PlanRequest<'_> {
        PlanRequest {
            ram: &self.ram,
            pinned: &self.pinned,
            in_place: &self.in_place,
            scratch: self.scratch,
            image: self.image,
            payload: PayloadNeeds {
                state: self.state,
                blobs: &self.blobs,
            },
            landing: &self.landing,
            cmdline: self.cmdline,
            user_space: crate::headroom::UserSpace::default(),
            limits: self.limits,
        }
    }

    fn plan(&self) -> Result<Plan, PlanError> {
        let plan = plan(&self.request());
        if let Ok(plan) = &plan {
            plan.check_invariants(&self.request()).unwrap();
        }
        plan
    }
}

#[test]
fn a_small_machine() {
    let plan = Case::small().plan().unwrap();
    assert_eq!(plan.segments.len(), 1);
    assert_eq!(
        plan.blob_pieces(0).map(|p| p.len).sum::<u64>(),
        64 * MIB + 1
    );
    assert_eq!(plan.blob_pieces(1).count(), 0);
    assert_eq!(plan.blob_pieces(2).count(), 1);
    assert_eq!(plan.state().unwrap().len(), 3 * PAGE_SIZE);
    assert_eq!(plan.mem_cache.entries().len(), 1);
    assert_eq!(plan.totals.early_entries, 2);
    assert_eq!(plan.totals.segments, 4);
    assert_eq!(
        plan.totals.memory_at_load,
        2 * plan.destinations().map(PhysRange::len).sum::<u64>()
    );
}

#[test]
fn high_memory_first_and_landing_zones_before_it() {
    let mut case = Case::large();
    let plan = case.plan().unwrap();
    assert!(plan.scratch.end() <= FOUR_GIB);
    assert!(plan.segments.iter().all(|s| s.dest.start() >= FOUR_GIB));
    let landing = range(5 * GIB, 5 * GIB + 32 * MIB);
    let low = range(GIB, GIB + 30 * MIB);
    case.landing = vec![set([low]), set([landing])];
    let plan = case.plan().unwrap();
    assert_eq!(plan.totals.landed, landing.len() + low.len());
    assert!(plan.segments.iter().any(|s| s.dest == low));
    assert!(plan.segments.iter().any(|s| s.dest == landing));
    assert_eq!(plan.state().unwrap().start(), low.start());
}

#[test]
fn a_landing_zone_in_fragments_gives_way_to_few_runs() {
    let mut case = Case::large();
    case.landing = vec![set((0..40).map(|i| {
        let at = 5 * GIB + i * 4 * MIB;
        range(at, at + 2 * MIB)
    }))];
    let plan = case.plan().unwrap();
    assert!(plan.segments.len() <= 12);
    assert_eq!(
        plan.totals.payload,
        plan.segments.iter().map(|s| s.dest.len()).sum()
    );
}

#[test]
fn too_little_below_4_gib_moves_the_payload_up() {
    let mut case = Case::large();
    // The landing zone lies low: using it would leave nothing below 4 GiB for the bounce buffer.
    case.ram = set([range(MIB, 600 * MIB), range(4 * GIB, 8 * GIB)]);
    case.pinned = RangeSet::new();
    case.blobs = vec![300 * MIB];
    case.landing = vec![set([range(280 * MIB, 580 * MIB)])];
    case.cmdline = b"crashkernel=128M";
    case.scratch = ScratchSource::Choose {
        size: Some(128 * MIB),
    };
    let plan = case.plan().unwrap();
    assert!(plan.segments.iter().all(|s| s.dest.start() >= FOUR_GIB));
    assert_eq!(plan.totals.landed, 0);
}

#[test]
fn memory_that_failed_is_left_out_of_everything() {
    let mut case = Case::small();
    case.scratch = ScratchSource::Recorded(Some(range(16 * MIB, 256 * MIB)));
    case.in_place = set([range(300 * MIB, 301 * MIB), range(302 * MIB, 303 * MIB)]);
    let before = case.plan().unwrap();
    // A bad page between two kept ranges, and one at the start of every destination.
    let mut bad: StdVec<PhysRange> = before.destinations().collect();
    bad.push(range(301 * MIB + PAGE_SIZE, 302 * MIB));
    let bad = bad
        .iter()
        .map(|r| PhysRange::new(r.start(), PAGE_SIZE).unwrap());
    let bad = set(bad);
    case.ram = case.ram.subtract(&bad).unwrap();
    let after = case.plan().unwrap();
    assert!(after.destinations().all(|dest| !bad.overlaps(dest)));
    assert!(after.mem_cache.ranges().all(|range| !bad.overlaps(range)));
    assert_eq!(after.scratch, before.scratch);
    // A failed page in a kept range cannot be left out, so the planner refuses.
    case.ram
        .remove(range(300 * MIB, 300 * MIB + PAGE_SIZE))
        .unwrap();
    assert!(matches!(case.plan(), Err(PlanError::OutsideRam { .. })));
}

#[test]
fn every_refusal_has_its_own_error() {
    let kept = range(32 * MIB, 33 * MIB);
    let check = |change: &dyn Fn(&mut Case), want: &dyn Fn(&PlanError) -> bool| {
        let mut case = Case::small();
        change(&mut case);
        let error = case.plan().unwrap_err();
        assert!(want(&error), "{error:?}");
    };
    let recorded = |at| ScratchSource::Recorded(Some(at));
    check(&|c| c.cmdline = b"memmap=exactmap", &|e| {
        matches!(e, PlanError::ExactMap)
    });
    check(
        &|c| c.in_place = set([range(2 * GIB - MIB, 2 * GIB + MIB)]),
        &|e| matches!(e, PlanError::OutsideRam { hole, .. } if *hole == range(2 * GIB, 2 * GIB + MIB)),
    );
    check(
        &|c| {
            c.in_place = set([kept]);
            c.cmdline = b"mem=16M";
        },
        &|e| matches!(e, PlanError::OutsideRam { .. }),
    );
    check(&|c| c.in_place = set([range(0x8000, 0x9000)]), &|e| {
        matches!(
            e,
            PlanError::Overlap {
                barrier: Barrier::LowMemory,
                ..
            }
        )
    });
    check(&|c| c.in_place = set([range(959 * MIB, 961 * MIB)]), &|e| {
        matches!(
            e,
            PlanError::Overlap {
                barrier: Barrier::Pinned,
                ..
            }
        )
    });
    check(&|c| c.scratch = ScratchSource::Recorded(None), &|e| {
        matches!(e, PlanError::Scratch(ScratchError::Absent))
    });
    check(&|c| c.scratch = recorded(range(16 * MIB, 48 * MIB)), &|e| {
        matches!(e, PlanError::Scratch(ScratchError::TooSmall { .. }))
    });
    let mostly_beyond = recorded(range(2 * GIB - 32 * MIB, 3 * GIB));
    check(&|c| c.scratch = mostly_beyond, &|e| {
        matches!(e, PlanError::Scratch(ScratchError::NotRam { .. }))
    });
    check(
        &|c| {
            c.scratch = recorded(range(16 * MIB, 256 * MIB));
            c.in_place = set([kept]);
        },
        &|e| matches!(e, PlanError::Scratch(ScratchError::Overlaps { .. })),
    );
    check(
        &|c| {
            c.image.kernel.preferred = PhysAddr::new(512 * MIB);
            c.scratch = recorded(range(32 * MIB, 256 * MIB));
        },
        &|e| matches!(e, PlanError::ImageDoesNotFit(PlacementError::NoRoom { .. })),
    );
    check(&|c| c.image.kernel.align = 3, &|e| {
        matches!(
            e,
            PlanError::ImageDoesNotFit(PlacementError::Impossible { .. })
        )
    });
    check(&|c| c.limits.load_limit = 100 * MIB, &|e| {
        matches!(e, PlanError::LoadLimit { .. })
    });
    check(
        &|c| {
            c.blobs = vec![3 * GIB];
            c.limits.load_limit = 8 * GIB;
        },
        &|e| matches!(e, PlanError::PayloadDoesNotFit { .. }),
    );
    check(
        &|c| {
            c.blobs = vec![1750 * MIB];
            c.limits.load_limit = 8 * GIB;
        },
        &|e| matches!(e, PlanError::Headroom(HeadroomError::Total { .. })),
    );
    check(&|c| c.state = 0, &|e| {
        matches!(e, PlanError::BadPayload { .. })
    });
    check(&|c| c.blobs = vec![u64::MAX], &|e| {
        matches!(e, PlanError::BadPayload { .. })
    });
    check(
        &|c| {
            c.in_place = set((0..100).map(|i| range(GIB + i * 8192, GIB + i * 8192 + 4096)));
            let pins = set((0..100).map(|i| range(GIB + i * 8192 + 4096, GIB + i * 8192 + 4097)));
            c.pinned = c.pinned.union(&pins).unwrap();
        },
        &|e| {
            matches!(
                e,
                PlanError::TooManyRanges {
                    need: 102,
                    cap: 100
                }
            )
        },
    );
}

#[test]
fn the_largest_payload_that_a_refusal_names_does_fit() {
    for mut case in [Case::small(), Case::large()] {
        case.blobs = vec![100 * GIB];
        for limit in [400 * MIB, 700 * MIB, GIB, 64 * GIB, u64::MAX] {
            case.limits.load_limit = limit;
            case.blobs = vec![100 * GIB];
            let largest = match case.plan() {
                Err(
                    PlanError::PayloadDoesNotFit { largest, .. }
                    | PlanError::LoadLimit { largest, .. },
                ) => largest,
                other => panic!("{other:?}"),
            };
            let state = case.state.next_multiple_of(PAGE_SIZE);
            case.blobs = vec![largest - state];
            case.plan().unwrap();
            case.blobs = vec![largest - state + PAGE_SIZE];
            case.plan().unwrap_err();
        }
    }
}

#[test]
fn a_growing_blob_over_many_hops_stays_in_few_segments() {
    let mut case = Case::large();
    case.pinned = RangeSet::new();
    let mut scratch = None;
    for hop in 0..60u64 {
        case.blobs = vec![(10 + hop * 7) * MIB, 3 * MIB + hop];
        // The boot allocations of the next kernel pin pages right next to the reservation.
        let plan = case.plan().unwrap_or_else(|e| panic!("hop {hop}: {e}"));
        assert_eq!(*scratch.get_or_insert(plan.scratch), plan.scratch);
        case.scratch = ScratchSource::Recorded(Some(plan.scratch));
        let old = plan.mem_cache.covered().unwrap();
        case.pinned = set(old
            .iter()
            .filter_map(|r| PhysRange::new(r.end(), 2 * PAGE_SIZE).ok()))
        .subtract(&old)
        .unwrap();
        case.landing = vec![old];
        assert!(plan.segments.len() <= 12);
    }
}

/// A tebibyte kept in place in 2 MiB chunks. Prints its time; benches hold it to its budget.
#[test]
fn a_tebibyte_in_place() {
    const CHUNK: u64 = 2 * MIB;
    let mut at = 8 * GIB;
    let mut kept = StdVec::new();
    for i in 0..524_288u64 {
        kept.push(range(at, at + CHUNK));
        at += CHUNK + (1 + i.wrapping_mul(2_654_435_761) % 64) * PAGE_SIZE;
    }
    let mut case = Case::large();
    case.in_place = set(kept);
    case.ram = case.ram.union(&set([range(7 * GIB, 2048 * GIB)])).unwrap();
    case.limits.load_limit = 512 * GIB;
    let begin = std::time::Instant::now();
    let plan = plan(&case.request()).unwrap();
    std::eprintln!(
        "plan of {} ranges: {:?}",
        case.in_place.len(),
        begin.elapsed()
    );
    assert_eq!(plan.totals.in_place, 1 << 40);
    let begin = std::time::Instant::now();
    plan.check_invariants(&case.request()).unwrap();
    std::eprintln!("second look: {:?}", begin.elapsed());
}

/// The independent check finds every tampering that makes a plan dangerous.
#[test]
fn tampering_is_noticed() {
    let mut case = Case::large();
    case.landing = vec![set([range(5 * GIB, 5 * GIB + 32 * MIB)])];
    case.in_place = set([range(6 * GIB, 6 * GIB + MIB)]);
    case.scratch = ScratchSource::Recorded(Some(range(32 * MIB, 256 * MIB)));
    let request = case.request();
    let shift = |r: PhysRange, by: u64| range(r.start().get() + by, r.end().get() + by);
    type Tamper<'a> = (
        &'a str,
        &'a dyn Fn(&mut Plan),
        &'a dyn Fn(&Violation) -> bool,
    );
    let tampers: &[Tamper<'_>] = &[
        (
            "scratch moved",
            &|p| p.scratch = shift(p.scratch, 2 * MIB),
            &|v| matches!(v, Violation::WrongScratch { .. }),
        ),
        (
            "initrd into kernel",
            &|p| p.image.initrd.as_mut().unwrap().reserved = p.image.kernel.reserved,
            &|v| matches!(v, Violation::Overlap { .. }),
        ),
        (
            "params out of scratch",
            &|p| p.image.params.reserved = range(GIB, GIB + 8192),
            &|v| {
                matches!(
                    v,
                    Violation::Image {
                        part: ImagePart::Params,
                        ..
                    }
                )
            },
        ),
        ("initrd gone", &|p| p.image.initrd = None, &|v| {
            matches!(
                v,
                Violation::Image {
                    part: ImagePart::Initrd,
                    ..
                }
            )
        }),
        (
            "kernel without its init_size",
            &|p| {
                let start = p.image.kernel.reserved.start().get();
                p.image.kernel.reserved = range(start, start + 12 * MIB);
            },
            &|v| {
                matches!(
                    v,
                    Violation::Image {
                        part: ImagePart::Kernel,
                        ..
                    }
                )
            },
        ),
        (
            "piece lost",
            &|p| {
                p.pieces.pop();
            },
            &|v| matches!(v, Violation::Segment { .. }),
        ),
        ("pieces swapped", &|p| p.pieces.swap(0, 1), &|v| {
            matches!(v, Violation::Incomplete { .. })
        }),
        (
            "piece moved",
            &|p| p.pieces[1].dest = p.pieces[0].dest,
            &|v| matches!(v, Violation::Segment { .. }),
        ),
        (
            "segment onto kept memory",
            &|p| p.segments[0].dest = range(6 * GIB, 6 * GIB + MIB),
            &|v| matches!(v, Violation::Overlap { .. }),
        ),
        (
            "segment into scratch",
            &|p| p.segments[0].dest = range(40 * MIB, 41 * MIB),
            &|v| matches!(v, Violation::Overlap { .. }),
        ),
        (
            "segment onto pinned pages",
            &|p| p.segments[0].dest = range(901 * MIB, 902 * MIB),
            &|v| matches!(v, Violation::Overlap { .. }),
        ),
        (
            "segment in the hole",
            &|p| p.segments[0].dest = range(3 * GIB, 3 * GIB + MIB),
            &|v| matches!(v, Violation::NotRam { .. }),
        ),
        (
            "entries forgotten",
            &|p| p.mem_cache = MemCache::default(),
            &|v| matches!(v, Violation::Uncovered { .. }),
        ),
        (
            "other ranges covered",
            &|p| {
                p.mem_cache =
                    memcache::cover(&set([range(6 * GIB, 6 * GIB + MIB)]), &RangeSet::new(), 5)
                        .unwrap();
            },
            &|v| matches!(v, Violation::Uncovered { .. }),
        ),
        (
            "firmware page covered",
            &|p| {
                let more = p
                    .mem_cache
                    .covered()
                    .unwrap()
                    .union(&set([range(910 * MIB, 911 * MIB)]))
                    .unwrap();
                p.mem_cache = memcache::cover(&more, &RangeSet::new(), 50).unwrap();
            },
            &|v| matches!(v, Violation::Overlap { .. }),
        ),
        ("wrong state entry", &|p| p.state_entry += 1, &|v| {
            matches!(v, Violation::StateEntry { .. })
        }),
        ("no such entry", &|p| p.state_entry = 999, &|v| {
            matches!(v, Violation::StateEntry { .. })
        }),
    ];
    for (what, tamper, seen) in tampers {
        let mut plan = plan(&request).unwrap();
        plan.check_invariants(&request).unwrap();
        tamper(&mut plan);
        let violation = plan.check_invariants(&request).expect_err(what);
        assert!(seen(&violation), "{what}: {violation:?}");
    }
    // A plan is valid for its own request: under tighter bounds the same plan is not safe.
    let plan = plan(&request).unwrap();
    case.limits.max_entries = 2;
    assert!(matches!(
        plan.check_invariants(&case.request()),
        Err(Violation::TooManyRanges { .. })
    ));
    case.limits = Limits {
        max_entries: 100,
        max_payload_segments: 0,
        ..case.limits
    };
    assert!(matches!(
        plan.check_invariants(&case.request()),
        Err(Violation::TooManySegments { .. })
    ));
    case.limits = Limits {
        max_payload_segments: 12,
        load_limit: 64 * MIB,
        ..case.limits
    };
    assert!(matches!(
        plan.check_invariants(&case.request()),
        Err(Violation::LoadLimit { .. })
    ));
}

fn some_set(count: usize, span: u64, len: u64) -> impl Strategy<Value = RangeSet> {
    proptest::collection::vec((0..span, 1..len), 0..count)
        .prop_map(|v| set(v.into_iter().map(|(at, len)| range(at, at + len))))
}

prop_compose! {
    fn some_case()(
        large in any::<bool>(),
        holes in some_set(6, 7 * GIB, 64 * MIB),
        pinned in some_set(12, 7 * GIB, 3 * MIB),
        in_place in some_set(12, 7 * GIB, 3 * MIB),
        landing in proptest::collection::vec(some_set(5, 7 * GIB, 200 * MIB), 0..3),
        blobs in proptest::collection::vec(0..120 * MIB, 0..6),
        state in 1..200_000u64,
        recorded in proptest::option::of(1..2000u64),
        caps in (0..30usize, 1..13usize),
        size in proptest::option::of(64 * MIB..300 * MIB),
    ) -> Case {
        let base = if large { Case::large() } else { Case::small() };
        let tidy = |s: &RangeSet| s.intersect(&base.ram).unwrap();
        let ram = base.ram.subtract(&holes).unwrap();
        // Most requests are made valid, so that planning gets past the first checks; some stay invalid.
        let in_place = if caps.0.is_multiple_of(5) { in_place } else {
            let low = set([range(0, if recorded.is_some() { 8 * MIB } else { MIB })]);
            tidy(&in_place).intersect(&ram).unwrap().align_inner(PAGE_SIZE).unwrap()
                .subtract(&pinned.page_outer().unwrap()).unwrap().subtract(&low).unwrap()
        };
        Case {
            ram, pinned, in_place, landing, blobs, state,
            scratch: match recorded {
                Some(mib) => ScratchSource::Recorded(Some(range(mib * MIB, (mib + 180) * MIB))),
                None => ScratchSource::Choose { size },
            },
            limits: Limits { max_entries: caps.0, max_payload_segments: caps.1, ..base.limits },
            ..base
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn a_plan_is_safe_or_refused(case in some_case()) {
        let before = plan(&case.request());
        if let Ok(plan) = &before {
            prop_assert_eq!(plan.check_invariants(&case.request()), Ok(()));
        }
        prop_assert_eq!(before, plan(&case.request()), "a plan is a function of its request");
    }

    #[test]
    fn hostile_requests_never_panic(
        mut case in some_case(),
        wild in proptest::collection::vec((any::<u64>(), any::<u64>()), 5),
        sizes in proptest::collection::vec(any::<u64>(), 0..4),
        state in any::<u64>(),
        limits in any::<(usize, usize, u64)>(),
    ) {
        let odd = |i: usize| set(PhysRange::new(PhysAddr::new(wild[i].0), wild[i].1));
        case.ram = case.ram.union(&odd(0)).unwrap();
        case.in_place = odd(1);
        case.pinned = odd(2);
        case.landing = vec![odd(3)];
        case.scratch = ScratchSource::Recorded(odd(4).span());
        case.blobs = sizes;
        case.state = state;
        case.limits = Limits { max_entries: limits.0, max_payload_segments: limits.1, load_limit: limits.2 };
        if let Ok(plan) = plan(&case.request()) {
            prop_assert_eq!(plan.check_invariants(&case.request()), Ok(()));
        }
    }
}
