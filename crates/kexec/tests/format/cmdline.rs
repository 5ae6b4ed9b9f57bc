use kho_kexec::cmdline::{
    CmdlineError, NATIVE_OFF, arguments, build, reuse, starts_arrival, value,
};
use proptest::prelude::*;

fn split(line: &str) -> Vec<(String, Option<String>)> {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    arguments(line.as_bytes())
        .map(|a| (text(a.name), a.value.map(text)))
        .collect()
}

fn some(name: &str, value: &str) -> (String, Option<String>) {
    (name.into(), Some(value.into()))
}

fn flag(name: &str) -> (String, Option<String>) {
    (name.into(), None)
}

#[test]
fn a_kernel_without_the_arrival_program_is_not_told_to_start_it() {
    let copied: &[u8] = b"root=/dev/vda rdinit=/.kho/arrive quiet\n";
    assert!(starts_arrival(copied));
    assert!(!starts_arrival(b"root=/dev/vda -- rdinit=/.kho/arrive"));
    assert!(!starts_arrival(b"rdinit=/.kho/arrive rdinit=/init"));
    let plain = build(copied, b"", false, 2048).unwrap();
    assert_eq!(plain.line, b"root=/dev/vda quiet");
    assert!(starts_arrival(
        &build(copied, b"", true, 2048).unwrap().line
    ));
}

/// Expectations follow from `next_arg` in `lib/cmdline.c`.
#[test]
fn arguments_are_split_like_the_kernel_does() {
    assert_eq!(
        split("  a\tb=1  c=2=3 "),
        [flag("a"), some("b", "1"), some("c", "2=3")]
    );
    assert_eq!(split(r#"p="x y" q"#), [some("p", "x y"), flag("q")]);
    assert_eq!(split(r#""p=x y" q"#), [some("p", "x y"), flag("q")]);
    assert_eq!(
        split(r#""flag with space" q"#),
        [flag("flag with space"), flag("q")]
    );
    // Quotes in the middle only protect spaces.
    assert_eq!(
        split(r#"a=x"y z"w b"#),
        [some("a", r#"x"y z"w"#), flag("b")]
    );
    assert_eq!(
        split(r#"dyndbg="file x.c +p; file y.c +p""#),
        [some("dyndbg", "file x.c +p; file y.c +p")]
    );
    assert_eq!(split("=x"), [flag("=x")], "an = at the start is not one");
    assert_eq!(split("a="), [some("a", "")]);
    assert_eq!(split(r#"a="""#), [some("a", "")]);
    assert_eq!(
        split("\u{a0}"),
        [flag("\u{fffd}")],
        "0xa0, the second byte, is white space to the kernel"
    );
    assert_eq!(split(""), []);
    assert_eq!(split(" \n "), []);
}

#[test]
fn the_last_value_counts_and_init_arguments_do_not() {
    let line = b"kho_scratch=64M quiet kho_scratch=\"128M\" -- kho_scratch=1M";
    assert_eq!(value(line, "kho_scratch"), Some(&b"128M"[..]));
    assert_eq!(value(line, "quiet"), None);
    assert_eq!(value(line, "root"), None);
}

fn line(base: &str, append: &str) -> (String, Option<String>) {
    let built = build(base.as_bytes(), append.as_bytes(), true, 2047).unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    (text(built.line), built.rdinit.map(text))
}

#[test]
fn our_program_comes_first() {
    assert_eq!(
        line("root=/dev/vda1 ro single", ""),
        ("rdinit=/.kho/arrive root=/dev/vda1 ro single".into(), None)
    );
    assert_eq!(line("", ""), ("rdinit=/.kho/arrive".into(), None));
    assert_eq!(line("a\n", "b\n"), ("rdinit=/.kho/arrive a b".into(), None));
}

/// `rdinit_setup` forgets the init arguments before it. kho's `rdinit=` is right behind the user's last one, so init
/// gets the same arguments as without kho.
#[test]
fn ours_counts_and_the_users_rdinit_stays() {
    let (built, rdinit) = line("lost rdinit=/first x", "rdinit=/second kept -- last");
    assert_eq!(
        built,
        "lost rdinit=/first x rdinit=/second rdinit=/.kho/arrive kept -- last"
    );
    assert_eq!(rdinit.as_deref(), Some("/second"));
    let (built, rdinit) = line(r#"rdinit="/my init" quiet"#, "");
    assert_eq!(
        (built.as_str(), rdinit.as_deref()),
        (
            r#"rdinit="/my init" rdinit=/.kho/arrive quiet"#,
            Some("/my init")
        )
    );
    let (_, rdinit) = line(r#""rdinit=/my init""#, "");
    assert_eq!(rdinit.as_deref(), Some("/my init"));
    // Behind the separator `rdinit=` is init's own argument.
    assert_eq!(
        line("a -- rdinit=/x", ""),
        ("rdinit=/.kho/arrive a -- rdinit=/x".into(), None)
    );
    // Without a value the argument is not an rdinit= argument.
    assert_eq!(
        line("rdinit", ""),
        ("rdinit=/.kho/arrive rdinit".into(), None)
    );
    // kho's own rdinit= from a copied line appears only once.
    assert_eq!(
        line("rdinit=/.kho/arrive a", ""),
        ("rdinit=/.kho/arrive a".into(), None)
    );
    assert_eq!(
        line("rdinit=/mine rdinit=/.kho/arrive a", "rdinit=/.kho/arrive"),
        (
            "rdinit=/mine rdinit=/.kho/arrive a".into(),
            Some("/mine".into())
        )
    );
}

#[test]
fn without_the_arrival_program_nothing_is_changed() {
    let built = build(b"a rdinit=/x", b"b", false, 2047).unwrap();
    assert_eq!(
        (built.line.as_slice(), built.rdinit),
        (&b"a rdinit=/x b"[..], None)
    );
}

#[test]
fn appended_arguments_reach_the_kernel() {
    assert_eq!(
        line("a -- 1", "b"),
        ("rdinit=/.kho/arrive a b -- 1".into(), None)
    );
    assert_eq!(
        line("a -- 1", "b -- 2"),
        ("rdinit=/.kho/arrive a b -- 1 2".into(), None)
    );
    assert_eq!(line("a \"--\" 1", "b").0, "rdinit=/.kho/arrive a b -- 1");
}

#[test]
fn the_running_line_is_reused_without_its_loader() {
    let running = b"BOOT_IMAGE=/boot/vmlinuz-6.1 root=UUID=1 ro quiet kho_scratch=256M crashkernel=256M -- BOOT_IMAGE=x\n";
    let line = String::from_utf8(reuse(running)).unwrap();
    assert_eq!(
        line,
        "root=UUID=1 ro quiet kho_scratch=256M crashkernel=256M -- BOOT_IMAGE=x"
    );
    let arrived = b"rdinit=/.kho/arrive root=/dev/vda BOOT_IMAGE foo -- rdinit=/.kho/arrive\n";
    assert_eq!(
        reuse(arrived),
        b"root=/dev/vda BOOT_IMAGE foo -- rdinit=/.kho/arrive"
    );
    assert_eq!(
        reuse(b"rdinit=\"/my init\" rdinit=/.kho/arrive a"),
        b"rdinit=\"/my init\" a"
    );
    assert_eq!(reuse(b"rdinit=/mine a"), b"rdinit=/mine a");
}

/// The user's own arguments about the next kernel's KHO stay on the line, also beside kho's.
#[test]
fn the_argument_against_the_next_kernels_kho_is_for_one_kernel() {
    let built = build(b"rdinit=/mine quiet -- x", b"", true, 2047).unwrap();
    let with = built.clone().with(NATIVE_OFF.as_bytes(), 2047).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&with.line),
        "rdinit=/mine kho=off:by-kho rdinit=/.kho/arrive quiet -- x"
    );
    assert_eq!(with.rdinit, built.rdinit);
    assert_eq!(reuse(&with.line), b"rdinit=/mine quiet -- x");
    // A copy of the line, partial or with more arguments before it.
    let copied = [b"BOOT_IMAGE=x kho=on kho_scratch=64M ", &with.line[..]].concat();
    let again = build(&copied, b"", true, 2047).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&again.line),
        "BOOT_IMAGE=x kho=on kho_scratch=64M rdinit=/mine rdinit=/.kho/arrive quiet -- x"
    );
    assert_eq!(
        reuse(b"kho=off quiet kho_scratch=1M,2M,3M"),
        b"kho=off quiet kho_scratch=1M,2M,3M"
    );
    let max = u64::try_from(with.line.len()).unwrap();
    assert!(built.clone().with(NATIVE_OFF.as_bytes(), max).is_ok());
    assert_eq!(
        built.with(NATIVE_OFF.as_bytes(), max - 1),
        Err(CmdlineError::CommandLineTooLong {
            len: max,
            ours: 35,
            max: max - 1
        })
    );
    let plain = build(b"quiet", b"", false, 2047).unwrap();
    assert_eq!(plain.clone().with(b"kho=off", 2047), Ok(plain));
}

#[test]
fn hops_do_not_let_the_line_grow() {
    let mut running = b"BOOT_IMAGE=/vmlinuz root=/dev/vda rdinit=/mine quiet".to_vec();
    let mut lines = Vec::new();
    for _ in 0..3 {
        let built = build(&reuse(&running), b"", true, 2047).unwrap();
        running = built.line;
        lines.push((running.clone(), built.rdinit));
    }
    assert_eq!(lines[0], lines[2]);
    assert_eq!(
        lines[0].0,
        b"root=/dev/vda rdinit=/mine rdinit=/.kho/arrive quiet"
    );
    assert_eq!(lines[0].1.as_deref(), Some(&b"/mine"[..]));
}

#[test]
fn bad_lines_are_refused() {
    let fits = "x".repeat(2047 - "rdinit=/.kho/arrive ".len());
    assert_eq!(
        build(fits.as_bytes(), b"", true, 2047).unwrap().line.len(),
        2047
    );
    let error = build(fits.as_bytes(), b"y", true, 2047).unwrap_err();
    assert_eq!(
        error,
        CmdlineError::CommandLineTooLong {
            len: 2049,
            ours: 20,
            max: 2047
        }
    );
    let said = error.to_string();
    assert!(
        said.contains("the 20 that kho adds (rdinit=/.kho/arrive"),
        "{said}"
    );
    // The user's own rdinit= stays on the line beside kho's.
    let ours = |own: &str, arrive| match build(own.as_bytes(), b"", arrive, 3) {
        Err(CmdlineError::CommandLineTooLong { ours, .. }) => ours,
        other => panic!("{other:?}"),
    };
    assert_eq!(ours("rdinit=/i", true), 20);
    assert_eq!(ours("quiet", false), 0);
    assert!(error.to_string().contains("shorten it by 2"), "{error}");
    assert_eq!(
        build(b"a\0b", b"", true, 99),
        Err(CmdlineError::BadByte { name: "NUL", at: 1 })
    );
    assert_eq!(
        build(b"", b"abc\nd", true, 99),
        Err(CmdlineError::BadByte {
            name: "line break",
            at: 3
        })
    );
    let open = build(b"", br#"a "b c"#, true, 99);
    assert_eq!(
        open,
        Err(CmdlineError::OpenQuote {
            argument: "\"b c".into()
        })
    );
}

proptest! {
    #[test]
    fn any_line_is_refused_or_survives(
        base in proptest::collection::vec(any::<u8>(), 0..200),
        append in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = value(&base, "root");
        let _ = reuse(&base);
        if let Ok(built) = build(&base, &append, true, 4096) {
            prop_assert!(!built.line.iter().any(|b| matches!(b, 0 | b'\n' | b'\r')));
            prop_assert!(starts_arrival(&built.line));
            let ours = arguments(&built.line).take_while(|a| a.raw != b"--")
                .filter(|a| a.name == b"rdinit" && a.value == Some(b"/.kho/arrive")).count();
            prop_assert_eq!(ours, 1);
        }
    }

    /// The line gains only kho's rdinit=, keeps all other arguments in order, and does not change in a second pass.
    #[test]
    fn arguments_are_kept(words in proptest::collection::vec("[a-z]{1,6}(=(\"[a-z ]{0,6}\"|[a-z]{0,4}))?", 0..10)) {
        let base = words.join(" ");
        let built = build(base.as_bytes(), b"", true, 4096).unwrap();
        let kept: Vec<_> = arguments(&built.line).map(|a| a.raw.to_vec()).filter(|raw| raw != b"rdinit=/.kho/arrive").collect();
        let want: Vec<_> = words.iter().map(|w| w.as_bytes().to_vec()).collect();
        prop_assert_eq!(kept, want);
        let again = build(&reuse(&built.line), b"", true, 4096).unwrap();
        prop_assert_eq!(again.line, built.line);
    }
}
