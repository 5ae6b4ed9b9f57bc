use super::*;
use proptest::prelude::*;
use std::string::String;
use std::vec::Vec as StdVec;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn parse(line: &str) -> CmdlineMemory {
    CmdlineMemory::parse(line.as_bytes(), 4 * GIB).unwrap()
}

#[test]
fn crashkernel_in_every_form() {
    for (line, total, low) in [
        ("crashkernel=128M", 128 * MIB, 128 * MIB),
        ("crashkernel=512M", 512 * MIB, DEFAULT_CRASH_LOW),
        ("crashkernel=256M crashkernel=64M quiet", 64 * MIB, 64 * MIB),
        ("crashkernel=64M@16M", 64 * MIB, 64 * MIB),
        ("crashkernel=64M@5G", 64 * MIB, 0),
        (
            "crashkernel=1G,high",
            GIB + DEFAULT_CRASH_LOW,
            DEFAULT_CRASH_LOW,
        ),
        (
            "crashkernel=1G,high crashkernel=72M,low",
            GIB + 72 * MIB,
            72 * MIB,
        ),
        ("crashkernel=72M,low", 0, 0),
        ("crashkernel=1G,high crashkernel=x,low", 0, 0),
        ("crashkernel=512M-2G:64M,2G-:128M", 128 * MIB, 128 * MIB),
        ("crashkernel=512M-2G:64M,2G-3G:96M", 0, 0),
        ("crashkernel=2G-1G:64M", 0, 0),
        ("crashkernel=512M-:64M@48M", 64 * MIB, 64 * MIB),
        ("crashkernel=100M,cma", 0, 0),
        ("crashkernel=", 0, 0),
        ("crashkernel=foo", 0, 0),
        ("crashkernel=64M+", 0, 0),
        ("crashkernel=0-:,", 0, 0),
    ] {
        let got = parse(line);
        assert_eq!((got.crash, got.crash_low), (total, low), "{line}");
    }
    assert_eq!(
        parse("crashkernel=64M@16M").crash_at,
        Some(PhysAddr::new(16 * MIB))
    );
    // Memory that the firmware took does not move a 2 GiB machine into the lower range.
    let almost = CmdlineMemory::parse(b"crashkernel=512M-2G:64M,2G-:128M", 2 * GIB - 40 * MIB);
    assert_eq!(almost.unwrap().crash, 128 * MIB);
}

#[test]
fn hugepages_follow_the_size_before_them() {
    for (line, want) in [
        ("hugepages=10", 20 * MIB),
        ("hugepagesz=1G hugepages=2", 2 * GIB),
        (
            "hugepagesz=1G hugepages=1 hugepagesz=2M hugepages=3",
            GIB + 6 * MIB,
        ),
        ("default_hugepagesz=1G hugepages=2", 2 * GIB),
        ("hugepages=2 default_hugepagesz=1G", 2 * GIB),
        ("hugepagesz=3M hugepages=5 hugepages=1", 2 * MIB),
        ("hugepages=0:2,1:3", 10 * MIB),
        ("hugepages=18446744073709551615", u64::MAX),
        ("hugepages=99999999999999999999999", u64::MAX),
        ("hugepages", 0),
        ("-- hugepages=5", 0),
        ("\"hugepages=4\"", 8 * MIB),
    ] {
        assert_eq!(parse(line).hugepages, want, "{line}");
    }
}

#[test]
fn swiotlb_in_every_form() {
    for (line, size, forced) in [
        ("swiotlb=65536", Some(128 * MIB), false),
        ("swiotlb=force", None, true),
        ("swiotlb=noforce", Some(0), false),
        ("swiotlb=1024,4,force", Some(2 * MIB), true),
        ("quiet", None, false),
    ] {
        let got = parse(line);
        assert_eq!((got.swiotlb, got.swiotlb_forced), (size, forced), "{line}");
    }
}

#[test]
fn options_that_take_ram_away() {
    let ram = RangeSet::from_ranges([PhysRange::new(PhysAddr::new(0), 8 * GIB).unwrap()]).unwrap();
    assert_eq!(parse("mem=1G").usable(&ram).unwrap().total(), GIB);
    assert_eq!(parse("mem=nopentium").usable(&ram).unwrap(), ram);
    assert_eq!(parse("memmap=2G").usable(&ram).unwrap().total(), 2 * GIB);
    let pmem = parse("memmap=1G!4G,64K$0x10000000 memmap=4K#1M");
    let left = pmem.usable(&ram).unwrap();
    assert_eq!(left.total(), 7 * GIB - (64 << 10) - (4 << 10));
    assert!(!left.overlaps(PhysRange::new(PhysAddr::new(4 * GIB), GIB).unwrap()));
    assert!(parse("memmap=exactmap memmap=1G@0").exactmap);
    assert_eq!(parse("memmap=1G@16G").usable(&ram).unwrap(), ram);
}

#[test]
fn names_and_quotes_are_the_kernels() {
    let line = br#"a=1  b="two words"	c "d e=5" -- f=6"#;
    let got: StdVec<(&[u8], Option<&[u8]>)> = params(line).collect();
    let want: [(&[u8], Option<&[u8]>); 4] = [
        (b"a", Some(b"1")),
        (b"b", Some(b"two words")),
        (b"c", None),
        (b"d e", Some(b"5")),
    ];
    assert_eq!(got, want);
    assert!(same_name(b"default-hugepagesz", b"default_hugepagesz"));
    assert!(!same_name(b"hugepages", b"hugepagesz"));
}

proptest! {
    #[test]
    fn no_command_line_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        words in proptest::collection::vec("(crashkernel|hugepages|hugepagesz|default_hugepagesz|swiotlb|mem|memmap)=[0-9xKMGTPE,:@$!#%-]{0,24}", 0..8),
        ram in any::<u64>(),
    ) {
        let _ = CmdlineMemory::parse(&bytes, ram);
        let line: String = words.join(" ");
        let _ = CmdlineMemory::parse(line.as_bytes(), ram);
    }
}
