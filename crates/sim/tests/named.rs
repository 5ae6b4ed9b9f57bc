//! Test cases with a name.

use kho_sim::machine::MIB;
use kho_sim::{Cut, Mistake, Op, Outcome, Rng, Template, World, run};

const LOAD: Op = Op::Load(0, 40, false, Cut::Never);
const EXEC: Op = Op::Exec(true);

fn mib(n: u64) -> u32 {
    u32::try_from(n * MIB).unwrap()
}

fn hop(world: &mut World) {
    for op in [&LOAD, &EXEC] {
        let outcome = world.step(op).unwrap();
        assert!(
            matches!(outcome, Outcome::Done | Outcome::Hop),
            "{outcome:?}"
        );
    }
}

fn refused(world: &mut World, op: &Op, why: &str) {
    match world.step(op).unwrap() {
        Outcome::Refused(message) => assert!(message.contains(why), "{message}"),
        other => panic!("{op}: {other:?}"),
    }
}

/// Runs a thousand handovers, with blobs that grow, shrink and change in number, and producers' ranges between them.
#[test]
fn a_thousand_hops() {
    for template in [Template::bios_6g(), Template::uefi_4g()] {
        let mut rng = Rng::new(42);
        let mut world = World::new(template, 7).unwrap();
        let mut scratch = None;
        let mut most = 0;
        let mut rounds = 0;
        while world.stats().hops < 500 {
            rounds += 1;
            assert!(
                rounds < 2000,
                "{:?}: hardly any hop succeeds",
                world.stats()
            );
            let pick = u8::try_from(rng.below(200)).unwrap();
            let size = mib(rng.below(40)) + u32::try_from(rng.below(5000)).unwrap();
            let op = match rng.below(13) {
                0 => Op::Keep(size),
                1 => Op::Touch(pick, size),
                2 => Op::Drop(pick),
                3 => Op::Restore(pick),
                4 => Op::Hold(pick % 6, pick),
                5 => Op::Release(pick),
                6 => Op::ReleaseSlack,
                7 => Op::Claim(pick),
                8 => Op::Grow(pick, pick),
                9 => Op::Write(pick),
                10 => Op::Scatter(pick % 8, pick % 11),
                11 => Op::Busy(pick, pick % 7),
                _ => Op::Foreign(u32::try_from(rng.below(1 << 32)).unwrap(), pick),
            };
            let kernel = u8::try_from(rng.below(3)).unwrap();
            let load = Op::Load(kernel, 30 + pick % 30, rng.below(2) == 0, Cut::Never);
            for op in [op, load, Op::Exec(rng.below(2) == 0)] {
                world.step(&op).unwrap_or_else(|e| panic!("{op}: {e}"));
            }
            if let Some(now) = world.scratch() {
                assert_eq!(*scratch.get_or_insert(now), now, "scratch moved");
            }
            most = most.max(world.intervals());
        }
        let stats = world.stats();
        eprintln!("{stats:?}, at most {most} intervals");
        assert!(stats.verified > 1000);
        // After all producers have released their memory, only the state stays reserved.
        for _ in 0..100 {
            world.step(&Op::Drop(0)).unwrap();
            world.step(&Op::Release(0)).unwrap();
        }
        hop(&mut world);
        hop(&mut world);
        assert!(world.reserved() <= 32 * 1024, "{:#x}", world.reserved());
    }
}

#[test]
fn a_growing_blob_over_twenty_hops() {
    let mut world = World::new(Template::bios_2g(), 1).unwrap();
    world.step(&Op::Keep(mib(1))).unwrap();
    for n in 0..20 {
        hop(&mut world);
        world.step(&Op::Touch(0, mib(1 + 20 * n))).unwrap();
    }
    assert_eq!(world.stats().hops, 20);
}

#[test]
fn what_was_not_restored_is_carried_in_place_and_what_was_is_copied_again() {
    let mut world = World::new(Template::bios_6g(), 2).unwrap();
    for _ in 0..3 {
        world.step(&Op::Keep(mib(64))).unwrap();
    }
    hop(&mut world);
    world.step(&Op::Restore(1)).unwrap();
    for _ in 0..10 {
        hop(&mut world);
    }
    assert_eq!(world.stats().verified, 33);
}

#[test]
fn an_image_from_before_an_abort_is_never_executed() {
    let mut world = World::new(Template::bios_2g(), 3).unwrap();
    world.step(&Op::Keep(mib(2))).unwrap();
    world.step(&LOAD).unwrap();
    world.step(&Op::Abort).unwrap();
    refused(&mut world, &EXEC, "nothing is loaded");
    // The command died between the system call and the record of it: the image is loaded, but kho must not trust it.
    world.step(&Op::Load(0, 40, false, Cut::Loaded)).unwrap();
    refused(&mut world, &EXEC, "cannot execute now");
    hop(&mut world);
}

#[test]
fn a_load_that_fails_leaves_nothing_armed() {
    let mut world = World::new(Template::bios_2g(), 4).unwrap();
    world.step(&Op::Keep(mib(2))).unwrap();
    for cut in [Cut::Activated, Cut::Written, Cut::SyscallFails] {
        world.step(&LOAD).unwrap();
        world.step(&Op::Load(1, 40, false, cut)).unwrap();
        refused(&mut world, &EXEC, "nothing is loaded");
    }
    hop(&mut world);
}

#[test]
fn a_refused_load_leaves_the_older_image_armed() {
    let mut world = World::new(Template::bios_2g(), 5).unwrap();
    world.step(&Op::Keep(mib(2))).unwrap();
    assert_eq!(world.step(&LOAD).unwrap(), Outcome::Done);
    world.step(&Op::Keep(mib(1900))).unwrap();
    refused(&mut world, &LOAD, "the largest payload that fits");
    assert_eq!(world.step(&EXEC).unwrap(), Outcome::Hop);
}

#[test]
fn producers_are_frozen_while_a_handover_is_under_way() {
    let mut world = World::new(Template::bios_2g(), 6).unwrap();
    world.step(&Op::Hold(3, 10)).unwrap();
    world.step(&LOAD).unwrap();
    for op in [Op::Release(0), Op::Hold(1, 1), Op::ReleaseSlack] {
        refused(&mut world, &op, "while a handover is under way");
    }
    assert_eq!(world.step(&EXEC).unwrap(), Outcome::Hop);
    assert_eq!(world.stats().verified, 1);
}

#[test]
fn pages_in_scratch_cannot_be_kept() {
    let mut world = World::new(Template::bios_2g(), 7).unwrap();
    hop(&mut world);
    let scratch = world.scratch().unwrap();
    let page = u32::try_from(scratch.start().get() / 4096 + 5).unwrap();
    refused(&mut world, &Op::Foreign(page, 1), "is in scratch");
}

#[test]
fn scattered_ranges_are_merged_to_the_cap_and_the_slack_returns() {
    let mut world = World::new(Template::uefi_4g(), 8).unwrap();
    for _ in 0..4 {
        world.step(&Op::Hold(23, 0)).unwrap();
    }
    hop(&mut world);
    let stats = world.stats();
    assert!(stats.most_entries < 40 && stats.most_slack > 0, "{stats:?}");
    world.step(&Op::ReleaseSlack).unwrap();
    assert!(world.reserved() <= (96 + 8) * 4096);
    hop(&mut world);
}

#[test]
fn a_power_failure_during_the_copy_is_a_cold_boot() {
    for segments in 0..6 {
        let mut world = World::new(Template::bios_6g(), 9).unwrap();
        world.step(&Op::Keep(mib(20))).unwrap();
        hop(&mut world);
        world.step(&LOAD).unwrap();
        let outcome = world.step(&Op::CrashInExec(segments)).unwrap();
        assert_eq!(outcome, Outcome::ColdBoot);
        assert_eq!(world.scratch(), None);
        hop(&mut world);
    }
}

#[test]
fn a_cap_of_nothing_is_a_refusal() {
    let template = Template {
        cap: 0,
        ..Template::bios_2g()
    };
    let world = run(template, 1, &[LOAD, EXEC]).unwrap();
    assert_eq!((world.stats().refused, world.stats().hops), (2, 0));
}

/// The checks can fail: the check that is meant for a mistake finds it.
#[test]
fn every_mistake_is_noticed() {
    for (mistake, noticed) in [
        (Mistake::NothingPinned, "covers the firmware table"),
        (Mistake::NothingInPlace, "the state tree was refused"),
        (Mistake::NoCap, "and this machine dies after"),
        (Mistake::NewScratch, "scratch moved from"),
        (Mistake::ShortChain, "the chain does not reserve"),
        (Mistake::OldBlob, "a blob at"),
    ] {
        let mut world = World::new(Template::uefi_4g(), 10).unwrap();
        world.step(&Op::Keep(mib(1))).unwrap();
        hop(&mut world);
        world.make(mistake);
        // The blob does not fit between 4 GiB and the table at 5 GiB, and the ranges are more than the cap.
        let ops = [Op::Keep(mib(1100)), Op::Hold(50, 1), LOAD, EXEC];
        let broken = ops.iter().find_map(|op| world.step(op).err());
        let broken = broken.unwrap_or_else(|| panic!("{mistake:?} went unnoticed"));
        assert!(broken.contains(noticed), "{mistake:?}: {broken}");
    }
}
