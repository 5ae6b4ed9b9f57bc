//! Hostile bytes never cause a panic.

mod common;

use kho_trace::btf::Structs;
use kho_trace::expr::parse_print;
use kho_trace::format::EventFormat;
use kho_trace::live::{KernelMemory, Live, Offsets};
use kho_trace::meta::Meta;
use kho_trace::read::{Buffer, Knowledge, Merge};
use kho_trace::ring::{Page, PageLayout, unread};
use kho_trace::{dat, kmsg};
use proptest::prelude::*;

/// Calls all functions that read a trace.
fn read_all(meta: &Meta, bytes: &[u8], page_size: usize) {
    let Ok(knowledge) = Knowledge::new(meta) else {
        return;
    };
    let buffers = [Buffer {
        array: "",
        cpu: 3,
        page_size,
        bytes,
    }];
    let mut merge = Merge::new(&buffers, knowledge.layout);
    for record in merge.by_ref().take(10_000) {
        let _ = knowledge.line(meta, &buffers[0], &record.event);
        let _ = knowledge.fields(record.event.data);
    }
    let _ = merge.problems();
    dat::write(meta, &buffers, &mut std::io::sink()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn pages_of_anything(mut bytes in proptest::collection::vec(any::<u8>(), 0..8192), commit in 0u64..4200, read in 0usize..5000) {
        if bytes.len() > 16 {
            bytes[8..16].copy_from_slice(&commit.to_le_bytes());
        }
        let layout = PageLayout::default();
        if let Ok(page) = Page::new(&bytes, &layout) {
            prop_assert!(page.events().count() <= page.len());
        }
        if let Ok(Some(rest)) = unread(&bytes, &layout, read) {
            prop_assert_eq!(rest.len(), bytes.len());
        }
        read_all(&common::taken().meta, &bytes, 4096);
    }

    #[test]
    fn real_pages_with_wrong_bytes(changes in proptest::collection::vec((0usize..4096, any::<u8>()), 1..40), page_size in 0usize..9000) {
        let mut taken = common::taken();
        for (at, value) in changes {
            taken.buffers[0].bytes[at] = value;
        }
        read_all(&taken.meta, &taken.buffers[0].bytes, 4096);
        read_all(&taken.meta, &taken.buffers[0].bytes, page_size);
    }

    #[test]
    fn real_descriptions_with_wrong_bytes(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let taken = common::taken();
        let mut bytes = taken.meta.to_bytes().unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(meta) = Meta::from_bytes(&bytes) {
            read_all(&meta, &taken.buffers[0].bytes, 4096);
        }
    }

    #[test]
    fn formats_of_anything(text in "[ -~\n\t]{0,400}") {
        let _ = EventFormat::parse("x", &text);
        let _ = parse_print(&text);
        let _ = parse_print(&format!("\"%d %s %p*\", {text}"));
    }

    #[test]
    fn formats_of_likely_words(words in proptest::collection::vec(prop_oneof!["REC->a", "\\(", "\\)", "\\?", ":", "\"%s\"", ",", "__print_flags\\(", "\\{", "\\}", "1", "<<", "-", "\\*", "\\[", "\\]", "\\(int\\)"], 0..80)) {
        let _ = parse_print(&format!("\"%d\",{}", words.join(" ")));
    }

    #[test]
    fn messages_of_anything(bytes in proptest::collection::vec(any::<u8>(), 0..500), limit in 0usize..600) {
        let kept = kmsg::newest(&bytes, limit);
        prop_assert!(kept.len() <= limit || kept.len() == bytes.len());
        for message in kmsg::parse(kept) {
            prop_assert!(!message.line().contains('\x1b'));
        }
    }

    #[test]
    fn offsets_from_anything(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Structs::parse(&bytes, &["x"]);
        let mut bytes = bytes;
        bytes.splice(0..0, [0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0, 90, 0, 0, 0]);
        let _ = Structs::parse(&bytes, &["x", ""]);
    }
}

/// Kernel memory in which every word is a hash of its address, so that pointers lead anywhere.
struct Noise(u64);

impl KernelMemory for Noise {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), String> {
        if addr % 7 == self.0 % 7 {
            return Err("not mapped".to_owned());
        }
        for (at, byte) in buf.iter_mut().enumerate() {
            let word =
                (addr.wrapping_add(at as u64) / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ self.0);
            // Many values are small, so that the reader accepts some of the counts.
            *byte = if at % 8 < 2 || self.0.is_multiple_of(3) {
                word.to_le_bytes()[at % 8]
            } else {
                0
            };
        }
        Ok(())
    }
}

#[test]
fn kernel_memory_of_anything() {
    let offsets = Offsets::new(&common_btf()).unwrap();
    for seed in 0..200 {
        let memory = Noise(seed);
        let live = Live::new(&memory, offsets, PageLayout::default());
        let _ = live.arrays(seed * 8, 0);
        for cpu in 0..3 {
            let _ = live.cpu(seed * 1000, cpu, 1 << 20);
        }
    }
}

fn common_btf() -> Vec<u8> {
    kho_trace_testing::btf()
}

#[path = "common/ring.rs"]
mod kho_trace_testing;
