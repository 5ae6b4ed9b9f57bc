//! Misuse of the writer, and buffers that are too small, cause errors that say what would be right.

use kho::tree::{Name, WriteError, Writer};

fn name(text: &str) -> Name {
    Name::new(text.as_bytes())
}

/// Runs `calls` on a writer with room and on one that measures. Both must fail alike, and all later calls must fail
/// too.
fn refused(expected: WriteError, calls: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>) {
    let mut buf = [0; 4096];
    for mut writer in [Writer::new(&mut buf), Writer::measuring()] {
        let result = calls(&mut writer);
        if result.is_ok() {
            assert_eq!(writer.finish(), Err(expected));
        } else {
            assert_eq!(result, Err(expected));
            assert_eq!(writer.prop_u32("later", 1), Err(expected));
            assert_eq!(writer.finish(), Err(expected));
        }
    }
}

#[test]
fn misuse_of_the_writer_is_an_error() {
    refused(WriteError::Unfinished { open: 0, nodes: 0 }, |_| Ok(()));
    refused(WriteError::Unfinished { open: 1, nodes: 1 }, |w| {
        w.begin_node("")
    });
    refused(WriteError::Unbalanced, |w| w.end_node());
    refused(WriteError::Unbalanced, |w| {
        w.begin_node("")?;
        w.end_node()?;
        w.end_node()
    });
    refused(WriteError::RootName { name: name("root") }, |w| {
        w.begin_node("root")
    });
    refused(WriteError::SecondRoot { name: name("") }, |w| {
        w.begin_node("")?;
        w.end_node()?;
        w.begin_node("")
    });
    refused(
        WriteError::Misplaced {
            name: name("early"),
        },
        |w| w.prop_u64("early", 1),
    );
    refused(WriteError::Misplaced { name: name("late") }, |w| {
        w.begin_node("")?;
        w.begin_node("child")?;
        w.end_node()?;
        w.prop_mem("late", [])
    });
    refused(
        WriteError::Duplicate {
            name: name("twice"),
        },
        |w| {
            w.begin_node("")?;
            w.prop_u32("twice", 1)?;
            w.prop_str("once", "")?;
            w.prop_u32("twice", 1)
        },
    );
    refused(
        WriteError::StringNul {
            name: name("s"),
            at: 1,
        },
        |w| {
            w.begin_node("")?;
            w.prop_str("s", "a\0b")
        },
    );
    for reserved in kho::tree::RESERVED_PROPERTIES {
        refused(
            WriteError::NameReserved {
                name: name(reserved),
            },
            |w| {
                w.begin_node("")?;
                w.prop_u32(reserved, 1)
            },
        );
    }
    let long = "x".repeat(64);
    for (bad, expected) in [
        (
            "",
            WriteError::NameLength {
                name: name(""),
                len: 0,
            },
        ),
        (
            &long,
            WriteError::NameLength {
                name: name(&long),
                len: 64,
            },
        ),
        (
            "#cells",
            WriteError::NameCharacter {
                name: name("#cells"),
                byte: b'#',
            },
        ),
        (
            "a@1",
            WriteError::NameCharacter {
                name: name("a@1"),
                byte: b'@',
            },
        ),
        (
            "a/b",
            WriteError::NameCharacter {
                name: name("a/b"),
                byte: b'/',
            },
        ),
        (
            "a\0b",
            WriteError::NameCharacter {
                name: name("a\0b"),
                byte: 0,
            },
        ),
        (
            "é",
            WriteError::NameCharacter {
                name: name("é"),
                byte: 0xc3,
            },
        ),
    ] {
        refused(expected, |w| {
            w.begin_node("")?;
            w.prop_u32(bad, 1)
        });
        refused(expected, |w| {
            w.begin_node("")?;
            w.begin_node(bad)
        });
    }
    refused(WriteError::TooDeep { name: name("x") }, |w| {
        w.begin_node("")?;
        (0..32).try_for_each(|_| w.begin_node("x"))
    });
    refused(WriteError::TooLarge, |w| {
        w.begin_node("")?;
        let chunk = vec![0; 1 << 20];
        (0..64).try_for_each(|k| w.prop_bytes(&format!("p{k}"), &chunk))
    });
}

#[test]
fn every_buffer_that_is_too_small_is_told_the_size() {
    let fill = |w: &mut Writer<'_>| {
        w.begin_node("")?;
        w.prop_str("compatible", "x")?;
        w.begin_node("child")?;
        w.prop_mem("mem", [])?;
        w.prop_u64("compatible", 1)?;
        w.end_node()?;
        w.end_node()
    };
    let mut measure = Writer::measuring();
    fill(&mut measure).unwrap();
    let needed = measure.finish().unwrap();
    for available in 0..needed {
        let mut buf = vec![0; available];
        let mut writer = Writer::new(&mut buf);
        fill(&mut writer).unwrap();
        assert_eq!(
            writer.finish(),
            Err(WriteError::BufferTooSmall { needed, available })
        );
    }
    // A larger buffer holds the same bytes at its start.
    let mut exact = vec![0; needed];
    let mut larger = vec![0xff; needed + 100];
    for buf in [&mut exact, &mut larger] {
        let mut writer = Writer::new(buf);
        fill(&mut writer).unwrap();
        assert_eq!(writer.finish(), Ok(needed));
    }
    assert_eq!(exact, larger[..needed]);
}
