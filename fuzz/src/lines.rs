//! Text written by people.

use kho::RangeSet;
use kho::headroom::{CmdlineMemory, NativeScratch, native_switch};
use kho::scratch::{parse_size_bytes, size_from_cmdline};
use kho_kexec::cmdline;
use std::path::Path;

/// A command line, split at the first NUL into the base line and the appended part.
pub fn command_line(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (base, append) = (parts.next().unwrap_or(&[]), parts.next().unwrap_or(&[]));

    let memory = CmdlineMemory::parse(base, 1 << 32).expect("memory");
    let ram = RangeSet::from_ranges([range(0, 1 << 32)]).expect("memory");
    let usable = memory.usable(&ram).expect("memory");
    assert!(
        usable.subtract(&ram).expect("memory").is_empty(),
        "memory from nowhere"
    );
    let _ = (size_from_cmdline(base), parse_size_bytes(base));
    let _ = (native_switch(base), NativeScratch::from_cmdline(base));

    for arrive in [false, true] {
        let Ok(built) = cmdline::build(base, append, arrive, 2048) else {
            continue;
        };
        assert!(built.line.len() <= 2048);
        let init = cmdline::value(&built.line, "rdinit");
        assert!(
            !arrive || init == Some(cmdline::ARRIVE_PATH.as_bytes()),
            "{init:?}"
        );
        let with = built.clone().with(cmdline::NATIVE_OFF.as_bytes(), 4096);
        let with = with.expect("there is room");
        assert_eq!(cmdline::reuse(&with.line), cmdline::reuse(&built.line));
        // The line that the next kernel passes on equals the line that this kernel got, with rdinit= included.
        let passed = cmdline::reuse(&built.line);
        let again =
            cmdline::build(&passed, b"", arrive, 4096).expect("what was built can be built again");
        assert_eq!(values(&again.line), values(&built.line));
        assert_eq!(again.rdinit, built.rdinit);
    }
}

/// Parameters of the kernel, without those that the loader of that kernel added.
fn values(line: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    cmdline::arguments(line)
        .filter(|a| !(a.name == b"BOOT_IMAGE" && a.value.is_some()))
        .map(|argument| (argument.name.to_vec(), argument.value.map(<[u8]>::to_vec)))
        .collect()
}

fn range(start: u64, len: u64) -> kho::PhysRange {
    kho::PhysRange::new(kho::PhysAddr::new(start), len).expect("a range")
}

pub fn command_lines() -> Vec<Vec<u8>> {
    [
        &b"BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro quiet kho_scratch=512M rdinit=/bin/sh -- single"[..],
        b"crashkernel=1G-4G:128M,4G-:256M@16M hugepagesz=2M hugepages=64 swiotlb=65536,force",
        b"mem=3G memmap=exactmap memmap=64K$0x100000,2M#4G memmap=1G!2G\0append=\"a b\" x",
        b"quiet\0rdinit=/init",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

/// A file.
pub fn keep_d(data: &[u8]) {
    match kho_cli::keepd::parse::file(Path::new("x.conf"), data) {
        Ok(rules) => {
            for rule in rules {
                assert!(rule.path.is_absolute());
                let plain = rule.path.components().all(|part| {
                    matches!(
                        part,
                        std::path::Component::RootDir | std::path::Component::Normal(_)
                    )
                });
                assert!(plain, "{:?}", rule.path);
                if let Some(name) = rule.name {
                    assert!(kho::abi::Label::new(&name).is_ok(), "{name:?} is no label");
                }
            }
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(error.place.starts_with("x.conf:"));
                let _ = (error.to_string(), error.error.to_string());
            }
        }
    }
}

pub fn keep_ds() -> Vec<Vec<u8>> {
    vec![
        b"# what stays\nd /var/lib/redis name=redis skip-special\nf- /etc/x\\x20y replace\nL /srv/link manual\n"
            .to_vec(),
        b"d \"/srv/with blank\" one-file-system privileged\n".to_vec(),
    ]
}
