use super::*;
use crate::image::{InitrdNeeds, KernelNeeds};
use crate::testing::{KERNEL, MIB, range, set};
use proptest::prelude::*;
use std::string::ToString;
use std::vec::Vec as StdVec;

/// Sizes like Debian's 6.12: 12 MiB file, 60 MiB init_size, 40 MiB initrd.
fn image() -> ImageNeeds {
    ImageNeeds {
        kernel: KERNEL,
        initrd: Some(InitrdNeeds {
            len: 40 * MIB + 17,
            unpacked: 160 * MIB,
            max_addr: PhysAddr::new(0x7fff_ffff),
        }),
        params_len: 3 * 4096,
    }
}

fn bios_2g() -> RangeSet {
    set([range(0x1000, 0x9_f000), range(MIB, 2048 * MIB)])
}

fn request<'a>(
    ram: &'a RangeSet,
    kept: &'a RangeSet,
    pinned: &'a RangeSet,
    image: &'a ImageNeeds,
) -> ScratchRequest<'a> {
    const NONE: &RangeSet = &RangeSet::new();
    ScratchRequest {
        ram,
        kept,
        pinned,
        prefer: NONE,
        size: None,
        image,
    }
}

#[test]
fn sizes_are_read_exactly() {
    for (text, want) in [
        ("512M", Ok(512 * MIB)),
        ("1g", Ok(1024 * MIB)),
        ("64k", Ok(65536)),
        ("0x100000", Ok(MIB)),
        ("2T", Ok(2 << 40)),
        ("4096", Ok(4096)),
        ("", Err(SizeError::Empty)),
        ("M", Err(SizeError::NoDigit)),
        ("0x", Err(SizeError::NoDigit)),
        ("-1", Err(SizeError::NoDigit)),
        ("0M", Err(SizeError::Zero)),
        ("512MB", Err(SizeError::Unexpected { at: 4, byte: b'B' })),
        ("5 12", Err(SizeError::Unexpected { at: 1, byte: b' ' })),
        ("99999999999999999999", Err(SizeError::TooLarge)),
        ("16777216T", Err(SizeError::TooLarge)),
    ] {
        assert_eq!(parse_size(text), want, "{text:?}");
    }
    assert_eq!(
        parse_size("512MB").unwrap_err().to_string(),
        "unexpected character 'B' at position 4 of the size: only K, M, G or T may follow the number"
    );
}

#[test]
fn the_last_option_on_the_command_line_counts() {
    assert_eq!(size_from_cmdline(b"quiet splash"), Ok(None));
    assert_eq!(
        size_from_cmdline(b"kho_scratch=64M ro kho-scratch=256M"),
        Ok(Some(256 * MIB))
    );
    assert_eq!(size_from_cmdline(b"xkho_scratch=64M"), Ok(None));
    assert_eq!(
        size_from_cmdline(b"kho_scratch=big"),
        Err(SizeError::NoDigit)
    );
    assert_eq!(size_from_cmdline(b"kho_scratch"), Err(SizeError::Empty));
    assert_eq!(size_from_cmdline(b"ro -- kho_scratch=1M"), Ok(None));
    // Those of a kernel with KHO of its own are not ours.
    let both = b"kho_scratch=64M kho_scratch=16M,32M,8M kho_scratch=200%";
    assert_eq!(size_from_cmdline(both), Ok(Some(64 << 20)));
    assert_eq!(size_from_cmdline(b"kho_scratch=1M,2M"), Ok(None));
}

#[test]
fn the_derived_size_is_generous_but_bounded() {
    let image = image();
    assert_eq!(derived_size(&image, 64 << 30), 202 * MIB);
    // A quarter of a small machine, but never less than the image needs.
    assert_eq!(derived_size(&image, 512 * MIB), 128 * MIB);
    assert_eq!(derived_size(&image, 256 * MIB), 102 * MIB);
    let tiny = ImageNeeds {
        initrd: None,
        ..image
    };
    assert_eq!(derived_size(&tiny, 64 << 30), DERIVED_MIN);
}

#[test]
fn the_first_scratch_is_low_but_above_16_mib_and_avoids_everything() {
    let (ram, image) = (bios_2g(), image());
    let pinned = set([range(40 * MIB, 41 * MIB), range(300 * MIB, 300 * MIB + 1)]);
    let kept = set([range(96 * MIB, 97 * MIB)]);
    let found = choose(&request(&ram, &kept, &pinned, &image)).unwrap();
    assert_eq!(found, range(98 * MIB, 300 * MIB));
}

#[test]
fn a_derived_size_shrinks_to_what_is_free_and_a_given_one_does_not() {
    let image = image();
    let ram = set([range(MIB, 150 * MIB)]);
    let none = RangeSet::new();
    let mut request = request(&ram, &none, &none, &image);
    let found = choose(&request).unwrap();
    assert!(found.len() >= image.min_scratch() && found.end() <= PhysAddr::new(150 * MIB));
    request.size = Some(256 * MIB);
    assert_eq!(
        choose(&request),
        Err(ScratchError::NoPlace {
            size: 256 * MIB,
            largest: 148 * MIB
        })
    );
    request.size = Some(32 * MIB);
    assert_eq!(
        choose(&request),
        Err(ScratchError::TooSmall {
            need: image.min_scratch(),
            have: 32 * MIB
        })
    );
}

#[test]
fn above_4_gib_only_when_there_is_no_room_below_and_the_image_can() {
    let ram = set([range(MIB, 64 * MIB), range(4096 * MIB, 8192 * MIB)]);
    let none = RangeSet::new();
    let mut image = image();
    let found = choose(&request(&ram, &none, &none, &image)).unwrap();
    assert_eq!(found.start(), FOUR_GIB);
    image.kernel.above_4g = false;
    assert!(matches!(
        choose(&request(&ram, &none, &none, &image)),
        Err(ScratchError::NoPlace { .. })
    ));
}

#[test]
fn a_landing_zone_is_preferred_within_its_zone() {
    let (ram, image) = (bios_2g(), image());
    let none = RangeSet::new();
    let prefer = set([range(1024 * MIB, 1536 * MIB)]);
    let found = choose(&ScratchRequest {
        prefer: &prefer,
        ..request(&ram, &none, &none, &image)
    })
    .unwrap();
    assert_eq!(found.start(), PhysAddr::new(1024 * MIB));
}

#[test]
fn a_recorded_scratch_is_checked_and_kept() {
    let (ram, image) = (bios_2g(), image());
    let none = RangeSet::new();
    let recorded = range(64 * MIB, 256 * MIB);
    assert_eq!(reuse(Some(recorded), &ram, &none, &image), Ok(recorded));
    assert_eq!(reuse(None, &ram, &none, &image), Err(ScratchError::Absent));
    let kept = set([range(100 * MIB, 101 * MIB)]);
    assert_eq!(
        reuse(Some(recorded), &ram, &kept, &image),
        Err(ScratchError::Overlaps {
            scratch: recorded,
            kept: range(100 * MIB, 101 * MIB)
        })
    );
    let beyond = range(1990 * MIB, 2200 * MIB);
    assert_eq!(
        reuse(Some(beyond), &ram, &none, &image),
        Err(ScratchError::NotRam {
            scratch: beyond,
            hole: range(2048 * MIB, 2200 * MIB),
            need: image.min_scratch()
        })
    );
    let small = range(64 * MIB, 80 * MIB);
    assert_eq!(
        reuse(Some(small), &ram, &none, &image),
        Err(ScratchError::TooSmall {
            need: image.min_scratch(),
            have: 16 * MIB
        })
    );
    for odd in [range(0x1000, 200 * MIB), range(64 * MIB + 1, 256 * MIB)] {
        assert_eq!(
            reuse(Some(odd), &ram, &none, &image),
            Err(ScratchError::Malformed { scratch: odd })
        );
    }
    // The run is large enough, but the initrd must lie below 2 GiB and the kernel takes the room there.
    let mut low_initrd = image;
    low_initrd.kernel.above_4g = false;
    let high = set([range(MIB, 3072 * MIB)]);
    let late = range(2046 * MIB, 2300 * MIB);
    assert!(matches!(
        reuse(Some(late), &high, &none, &low_initrd),
        Err(ScratchError::Image(PlacementError::NoRoom {
            part: crate::image::ImagePart::Initrd,
            ..
        }))
    ));
    // With 48 MiB below the limit, the initrd goes there first.
    let straddling = range(2000 * MIB, 2300 * MIB);
    assert_eq!(
        reuse(Some(straddling), &high, &none, &low_initrd),
        Ok(straddling)
    );
}

#[test]
fn the_image_goes_beside_memory_that_failed() {
    let (image, none) = (image(), RangeSet::new());
    let recorded = range(64 * MIB, 256 * MIB);
    // The first choice of a place for each part.
    let before = place_image(recorded, &bios_2g(), &image).unwrap();
    let starts = [Some(before.kernel), before.initrd, Some(before.params)];
    for place in starts.into_iter().flatten() {
        let bad = PhysRange::new(place.reserved.start(), 4096).unwrap();
        let ram = bios_2g().subtract(&set([bad])).unwrap();
        assert_eq!(reuse(Some(recorded), &ram, &none, &image), Ok(recorded));
        let after = place_image(recorded, &ram, &image).unwrap();
        let parts = [Some(after.kernel), after.initrd, Some(after.params)];
        assert!(
            parts
                .into_iter()
                .flatten()
                .all(|part| ram.contains_range(part.reserved))
        );
    }
    // One bad page in every 4 MiB leaves no room.
    let bad = (16..64).map(|n| range(4 * n * MIB, 4 * n * MIB + 4096));
    let ram = bios_2g().subtract(&set(bad)).unwrap();
    assert_eq!(
        reuse(Some(recorded), &ram, &none, &image),
        Err(ScratchError::NotRam {
            scratch: recorded,
            hole: range(64 * MIB, 64 * MIB + 4096),
            need: image.min_scratch()
        })
    );
}

proptest! {
    #[test]
    fn a_chosen_scratch_keeps_every_promise(
        holes in proptest::collection::vec((0..4096u64, 1..200u64), 0..12),
        pins in proptest::collection::vec((0..4096u64 * 256, 1..4u64), 0..30),
        size in proptest::option::of(90..600u64),
        above_4g in any::<bool>(),
    ) {
        let mut ram = range(0, 5000 * MIB);
        let mut image = image();
        image.kernel.above_4g = above_4g;
        if above_4g { ram = range(0, 8000 * MIB); }
        let ram = set([ram]).subtract(&set(holes.iter().map(|(at, len)| range(at * MIB, (at + len) * MIB)))).unwrap();
        let pinned = set(pins.iter().map(|(at, len)| range(at * 4096, (at + len) * 4096)));
        let none = RangeSet::new();
        let request = ScratchRequest { size: size.map(|s| s * MIB), ..request(&ram, &none, &pinned, &image) };
        if let Ok(found) = choose(&request) {
            prop_assert!(ram.contains_range(found));
            prop_assert!(!pinned.overlaps(found));
            prop_assert!(found.start() >= LOW_MEMORY_END);
            prop_assert!(found.start().is_aligned(SCRATCH_ALIGN) && found.end().is_aligned(SCRATCH_ALIGN));
            let placed = place_image(found, &ram, &image).unwrap();
            prop_assert!(placed.kernel.reserved.start() >= image.kernel.preferred);
            // Every later boot accepts the scratch that the first boot chose.
            prop_assert_eq!(reuse(Some(found), &ram, &none, &image), Ok(found));
        }
    }

    #[test]
    fn hostile_headers_never_panic(
        file_len in any::<u64>(), mem_size in any::<u64>(), align in any::<u64>(), preferred in any::<u64>(),
        initrd in any::<(u64, u64)>(), params_len in any::<u64>(), flags in any::<(bool, bool)>(),
        size in proptest::option::of(any::<u64>()), shift in 0..64u32,
    ) {
        let image = ImageNeeds {
            kernel: KernelNeeds {
                file_len: file_len >> shift, mem_size: mem_size >> shift,
                align: if flags.0 { align } else { 1 << (align % 64) },
                preferred: PhysAddr::new(preferred >> shift), above_4g: flags.1, random: flags.0.then_some(initrd.0),
            },
            initrd: Some(InitrdNeeds { len: initrd.0 >> shift, unpacked: 0, max_addr: PhysAddr::new(initrd.1) }),
            params_len: params_len >> shift,
        };
        let ram = bios_2g();
        let none = RangeSet::new();
        let chosen = choose(&ScratchRequest { size, ..request(&ram, &none, &none, &image) });
        if let Ok(found) = chosen {
            prop_assert!(place_image(found, &ram, &image).is_ok());
        }
        let _ = reuse(Some(range(32 * MIB, 900 * MIB)), &ram, &none, &image);
    }

    #[test]
    fn sizes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = parse_size_bytes(&text);
        let mut line: StdVec<u8> = b"kho_scratch=".to_vec();
        line.extend(text);
        let _ = size_from_cmdline(&line);
    }
}
