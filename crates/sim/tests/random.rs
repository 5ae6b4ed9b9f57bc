//! Random scripts on every machine. A failure is shrunk to a short script and printed.

use kho_sim::{Cut, Op, Template, run};
use proptest::collection::SizeRange;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

fn cut() -> impl Strategy<Value = Cut> {
    prop_oneof![
        12 => Just(Cut::Never),
        1 => Just(Cut::Activated),
        1 => Just(Cut::Written),
        1 => Just(Cut::SyscallFails),
        1 => Just(Cut::Loaded),
    ]
}

fn size() -> impl Strategy<Value = u32> {
    prop_oneof![
        1 => Just(0),
        3 => 1..10_000u32,
        4 => 0..40_000_000u32,
        1 => 0..500_000_000u32,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => size().prop_map(Op::Keep),
        2 => (any::<u8>(), size()).prop_map(|(which, size)| Op::Touch(which, size)),
        2 => any::<u8>().prop_map(Op::Drop),
        2 => any::<u8>().prop_map(Op::Restore),
        3 => (0..24u8, any::<u8>()).prop_map(|(ranges, pages)| Op::Hold(ranges, pages)),
        2 => (any::<u32>(), any::<u8>()).prop_map(|(page, pages)| Op::Foreign(page, pages)),
        2 => (0..40u8, 0..11u8).prop_map(|(blocks, order)| Op::Scatter(blocks, order)),
        1 => (any::<u8>(), 0..7u8).prop_map(|(blocks, order)| Op::Busy(blocks, order)),
        2 => any::<u8>().prop_map(Op::Claim),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(which, pages)| Op::Grow(which, pages)),
        2 => any::<u8>().prop_map(Op::Write),
        1 => Just(Op::Activate),
        2 => any::<u8>().prop_map(Op::Release),
        1 => Just(Op::ReleaseSlack),
        1 => Just(Op::Churn),
        1 => Just(Op::Abort),
        4 => load(),
        4 => any::<bool>().prop_map(Op::Exec),
        1 => crash(),
    ]
}

fn load() -> impl Strategy<Value = Op> {
    // Kernel 3 needs an address of 1 GiB or above, and is refused if scratch ends below.
    let kernel = prop_oneof![12 => 0..3u8, 1 => Just(3u8)];
    (kernel, 0..70u8, any::<bool>(), cut())
        .prop_map(|(kernel, mib, landing, cut)| Op::Load(kernel, mib, landing, cut))
}

fn crash() -> impl Strategy<Value = Op> {
    prop_oneof![(0..20u8).prop_map(Op::CrashInExec), Just(Op::PowerFailure)]
}

/// Makes single operations, and whole hops.
fn script(len: impl Into<SizeRange>) -> impl Strategy<Value = Vec<Op>> {
    let hop = (load(), any::<bool>()).prop_map(|(load, kaslr)| vec![load, Op::Exec(kaslr)]);
    let part = prop_oneof![3 => op().prop_map(|op| vec![op]), 1 => hop];
    proptest::collection::vec(part, len).prop_map(|parts| parts.concat())
}

/// Random scripts reach the states that they are meant to test.
#[test]
fn scripts_get_somewhere() {
    let mut runner = TestRunner::deterministic();
    let scripts = script(30..50);
    let (mut hops, mut cold, mut refused, mut verified) = (0, 0, 0, 0);
    for seed in 0..30 {
        for template in Template::all() {
            let ops = scripts.new_tree(&mut runner).unwrap().current();
            let stats = run(template, seed, &ops).unwrap().stats();
            hops += stats.hops;
            cold += stats.cold_boots;
            refused += stats.refused;
            verified += stats.verified;
        }
    }
    eprintln!("{hops} hops, {cold} cold boots, {refused} refusals, {verified} verified");
    assert!(hops > 800 && cold > 50 && refused > 500 && verified > 1500);
}

fn on(template: Template, seed: u64, ops: &[Op]) -> Result<(), TestCaseError> {
    run(template, seed, ops)
        .map(|_| ())
        .map_err(|failure| TestCaseError::fail(failure.to_string()))
}

/// Runs 100 scripts for each machine, or the number in `PROPTEST_CASES`. Scripts that failed before run first.
fn config() -> ProptestConfig {
    let regressions = FileFailurePersistence::WithSource("regressions");
    let config = ProptestConfig {
        failure_persistence: Some(Box::new(regressions)),
        ..ProptestConfig::default()
    };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => ProptestConfig {
            cases: 100,
            ..config
        },
    }
}

macro_rules! machines {
    ($($name:ident),* $(,)?) => {
        proptest! {
            #![proptest_config(config())]
            $(
                #[test]
                fn $name(seed in any::<u64>(), ops in script(1..50)) {
                    on(Template::$name(), seed, &ops)?;
                }
            )*
        }
    };
}

machines!(bios_2g, bios_6g, uefi_4g, uefi_8g, tiny_512m);
