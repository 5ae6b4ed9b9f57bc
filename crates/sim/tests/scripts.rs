//! Scripts in `scripts/`: earlier counterexamples, and scripts that are kept as examples.

use kho_sim::script::Script;
use kho_sim::{Cut, Op, Rng, Template, run};
use std::path::Path;

#[test]
fn every_script() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let script = Script::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        script
            .replay()
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        count += 1;
    }
    assert!(count >= 4, "{count} scripts");
}

/// A failure prints a text that can be saved as a script and that fails again.
#[test]
fn a_failure_prints_a_script() {
    let template = Template {
        // A machine that dies after fewer reservations than its template states, so that the failure is no fault of
        // kho.
        cap: 0,
        ..Template::bios_2g()
    };
    let ops = [
        Op::Keep(4096),
        Op::Load(0, 40, false, Cut::Never),
        Op::Exec(true),
    ];
    let world = run(template, 3, &ops).unwrap();
    assert_eq!(world.stats().hops, 0);
    let failure = kho_sim::Failure {
        what: "an invented\nfailure".into(),
        template: "bios-2g",
        seed: 3,
        script: ops.iter().map(|op| (op.clone(), None)).collect(),
    };
    let script = Script::parse(&failure.to_string()).unwrap();
    assert_eq!(script.seed, 3);
    assert_eq!(
        script
            .ops
            .iter()
            .map(|(op, _)| op.clone())
            .collect::<Vec<_>>(),
        ops
    );
    script.replay().unwrap();
}

#[test]
fn operations_are_read_as_they_are_written() {
    let mut rng = Rng::new(1);
    let mut byte = || u8::try_from(rng.below(256)).unwrap();
    for _ in 0..200 {
        let ops = [
            Op::Keep(byte().into()),
            Op::Touch(byte(), 7),
            Op::Hold(byte(), byte()),
            Op::Foreign(9, byte()),
            Op::Claim(byte()),
            Op::Grow(byte(), byte()),
            Op::Write(byte()),
            Op::Load(byte(), byte(), byte() > 100, Cut::SyscallFails),
            Op::Activate,
            Op::CrashInExec(byte()),
            Op::PowerFailure,
        ];
        for op in ops {
            assert_eq!(op.to_string().parse::<Op>(), Ok(op));
        }
    }
    for wrong in [
        "",
        "Keep",
        "Keep(x)",
        "Keep(1, 2)",
        "Jump",
        "Load(1, 2, true, Soon)",
        "Keep(1",
    ] {
        assert!(wrong.parse::<Op>().is_err(), "{wrong}");
    }
    for wrong in [
        "seed 1\nChurn",
        "machine moon\nChurn",
        "machine bios-2g\nseed x",
    ] {
        assert!(Script::parse(wrong).is_err(), "{wrong}");
    }
}
