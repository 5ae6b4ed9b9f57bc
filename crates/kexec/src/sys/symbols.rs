//! Symbols of the running kernel, from the kernel's own table.
//!
//! A read of `/proc/kallsyms` costs the kernel about 0.3 G instructions for any symbol. The kernel makes that file from
//! a packed table in its memory (`kernel/kallsyms.c`, `scripts/kallsyms.c`, 6.1 to 7.3). From 6.0 on the note
//! `VMCOREINFO` of `/proc/kcore` has the addresses of the table's parts:
//!
//! | symbol | content |
//! | --- | --- |
//! | `kallsyms_num_syms` | number of symbols, a `u32` |
//! | `kallsyms_names` | for each symbol the number of its tokens, in one byte or (bit 7 set) two, and the tokens |
//! | `kallsyms_token_table`, `kallsyms_token_index` | text of each of 256 tokens, ended by NUL, and its offset, a `u16` |
//! | `kallsyms_offsets` | an `i32` for each symbol, relative to the next |
//! | `kallsyms_relative_base` | a `u64` |
//!
//! The first letter of a symbol is its type. The address is the base plus the offset. Up to 6.14 a positive offset is
//! the address itself, and for a negative one the address is the base less one, minus the offset
//! (`kallsyms_sym_address`).

use crate::sys::physmem::Kcore;
use crate::sys::root::parse_hex;
use kho::bytes::{u16_at, u32_at, u64_at};

/// Largest number of symbols that are read; a kernel of a distribution has about 200,000.
const MOST: u32 = 1 << 22;
/// Bytes of names that are read at a time.
const STEP: usize = 64 << 10;
/// Largest length of the table of tokens, in bytes: 256 tokens of about 3 letters.
const TOKENS: usize = 8 << 10;

/// A symbol whose address the note has too, to check the table.
const KNOWN: &str = "_stext";

/// Returns the address of the symbol `name` of the kernel itself; `None` if the note has no addresses of the table, if
/// the table does not have the form above, or if the table does not have the symbol.
pub(super) fn find(kcore: &Kcore, name: &str) -> Option<u64> {
    let note = kcore.vmcoreinfo().ok()??;
    let table = Table::open(kcore, &note)?;
    let [found, known] = table.search([name, KNOWN])?;
    (table.address(known)? == said(&note, KNOWN)?).then_some(())?;
    table.address(found)
}

/// Returns the address that the note has for a symbol.
fn said(note: &str, symbol: &str) -> Option<u64> {
    note.lines().find_map(|line| {
        let rest = line.strip_prefix("SYMBOL(")?.strip_prefix(symbol)?;
        parse_hex(rest.strip_prefix(")=")?)
    })
}

struct Table<'k> {
    kcore: &'k Kcore,
    count: u32,
    names: u64,
    /// Text of each token.
    tokens: Vec<Vec<u8>>,
    offsets: u64,
    base: u64,
}

impl<'k> Table<'k> {
    fn open(kcore: &'k Kcore, note: &str) -> Option<Self> {
        let at = |name: &str| said(note, &format!("kallsyms_{name}"));
        let word = |name: &str| {
            let mut word = [0; 8];
            kcore.read_virtual(at(name)?, &mut word).ok()?;
            Some(word)
        };
        let mut index = [0; 512];
        let (texts, indices) = (at("token_table")?, at("token_index")?);
        kcore.read_virtual(indices, &mut index).ok()?;
        // The index is behind the table, so the table can be read up to it.
        let len = usize::try_from(indices.checked_sub(texts)?).ok()?;
        let mut table = vec![0; len.min(TOKENS)];
        kcore.read_virtual(texts, &mut table).ok()?;
        let tokens = (0..256).map(|token| {
            let start = usize::from(u16_at(&index, 2 * token)?);
            let text = table.get(start..)?;
            Some(text.split(|b| *b == 0).next()?.to_vec())
        });
        Some(Self {
            kcore,
            count: u32_at(&word("num_syms")?, 0).filter(|count| *count <= MOST)?,
            names: at("names")?,
            tokens: tokens.collect::<Option<_>>()?,
            offsets: at("offsets")?,
            base: u64_at(&word("relative_base")?, 0)?,
        })
    }

    /// Returns the indices of the first symbols that have these names.
    fn search<const N: usize>(&self, names: [&str; N]) -> Option<[u32; N]> {
        let mut found = [None; N];
        let (mut bytes, mut at, mut next) = (Vec::new(), 0, self.names);
        for number in 0..self.count {
            let (start, len) = loop {
                match symbol(bytes.get(at..)?) {
                    Some((head, len)) if at + head + len <= bytes.len() => break (at + head, len),
                    _ => {}
                }
                bytes.drain(..at);
                at = 0;
                let before = bytes.len();
                bytes.resize(before + STEP, 0);
                self.kcore
                    .read_virtual(next, bytes.get_mut(before..)?)
                    .ok()?;
                next = next.checked_add(STEP as u64)?;
            };
            let packed = bytes.get(start..start + len)?;
            at = start + len;
            for (name, found) in names.iter().zip(&mut found) {
                if found.is_none() && self.is(packed, name.as_bytes()) {
                    *found = Some(number);
                }
            }
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        let mut numbers = [0; N];
        for (number, found) in numbers.iter_mut().zip(found) {
            *number = found?;
        }
        Some(numbers)
    }

    /// Returns whether a packed symbol has this name.
    fn is(&self, packed: &[u8], name: &[u8]) -> bool {
        let (mut rest, mut kind) = (name, 1);
        for token in packed {
            let Some(text) = self.tokens.get(usize::from(*token)) else {
                return false;
            };
            let letters = text.get(kind..).unwrap_or_default();
            kind = kind.saturating_sub(text.len());
            match rest.strip_prefix(letters) {
                Some(more) => rest = more,
                None => return false,
            }
        }
        rest.is_empty()
    }

    fn address(&self, number: u32) -> Option<u64> {
        let mut word = [0; 4];
        let at = self.offsets.checked_add(u64::from(number) * 4)?;
        self.kcore.read_virtual(at, &mut word).ok()?;
        match i64::from(i32::from_le_bytes(word)) {
            offset @ 0.. => self.base.checked_add_signed(offset),
            offset => self.base.checked_add_signed(-1 - offset),
        }
    }
}

/// Returns the length, in bytes, of the token count of the symbol at the start of `bytes`, and that count; `None` if
/// `bytes` ends before it.
fn symbol(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = usize::from(*bytes.first()?);
    if first & 0x80 == 0 {
        return Some((1, first));
    }
    let second = usize::from(*bytes.get(1)?);
    Some((2, (first & 0x7f) | (second << 7)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::physmem::core_file_with_notes_for_tests as core_file;
    use crate::sys::root::fixture::Fixture;

    const TEXT: u64 = 0xffff_ffff_8100_0000;
    const TABLE: u64 = 0xffff_ffff_8200_0000;

    /// Parts of the table, each on a page of its own.
    const PARTS: [&str; 6] = [
        "num_syms",
        "relative_base",
        "token_table",
        "token_index",
        "offsets",
        "names",
    ];

    /// A kernel with these symbols and offsets. Token 1 is `exec_`; every other token is its own letter.
    fn kernel(symbols: &[(&[u8], i32)], change: impl Fn(&mut String)) -> Fixture {
        let (mut texts, mut index) = (Vec::new(), Vec::new());
        for token in 0..=255u8 {
            index.extend(u16::try_from(texts.len()).unwrap().to_le_bytes());
            match token {
                1 => texts.extend(b"exec_"),
                token => texts.push(token.max(2)),
            }
            texts.push(0);
        }
        let mut names = Vec::new();
        for (name, _) in symbols {
            if name.len() < 0x80 {
                names.push(u8::try_from(name.len()).unwrap());
            } else {
                let len = u16::try_from(name.len()).unwrap();
                names.push(0x80 | (len & 0x7f).to_le_bytes()[0]);
                names.push((len >> 7).to_le_bytes()[0]);
            }
            names.extend(*name);
        }
        // The search also reads the kernel's memory behind the table.
        names.resize(names.len() + 2 * STEP, 0x55);
        let offsets = symbols.iter().flat_map(|(_, offset)| offset.to_le_bytes());
        let count = u32::try_from(symbols.len()).unwrap();
        let parts = [
            [count.to_le_bytes(), [0xff; 4]].concat(),
            TEXT.to_le_bytes().to_vec(),
            texts,
            index,
            offsets.collect(),
            names,
        ];
        let mut note = format!("OSRELEASE=6.12\nSYMBOL(_stext)={TEXT:x}\n");
        let mut image = Vec::new();
        for (name, part) in PARTS.iter().zip(parts) {
            let at = TABLE + image.len() as u64;
            note.push_str(&format!("SYMBOL(kallsyms_{name})={at:x}\n"));
            image.extend(part);
            image.resize(image.len().next_multiple_of(0x1000), 0);
        }
        change(&mut note);
        let f = Fixture::new();
        let notes = [("CORE", "x"), ("VMCOREINFO", note.as_str())];
        let ram = (0xffff_8880_0000_1000, 0x1000, vec![0; 0x1000]);
        let loads = [(TABLE, 0x200_0000, image), ram];
        f.put("proc/kcore", core_file(&loads, &notes));
        f
    }

    fn ask(f: &Fixture) -> Option<u64> {
        find(&Kcore::open(&f.root()).unwrap(), "kexec_image")
    }

    const SYMBOLS: [(&[u8], i32); 5] = [
        (b"T_stext", 0),
        (b"Tkexec_imag", 0x10),
        (b"bk\x01image_", 0x20),
        (b"Bk\x01image", 0x0130_0100),
        (b"Bkexec_image", 0x30),
    ];

    #[test]
    fn the_first_symbol_of_the_name_is_found() {
        let plain = |_: &mut String| {};
        assert_eq!(ask(&kernel(&SYMBOLS, plain)), Some(TEXT + 0x0130_0100));
        // The form of kernels up to 6.14.
        let mut before = SYMBOLS;
        before[0].1 = -1;
        before[3].1 = -1 - 0x0130_0100;
        assert_eq!(ask(&kernel(&before, plain)), Some(TEXT + 0x0130_0100));
        // Names so long that they cross the border between two reads.
        let long = vec![b'x'; 300];
        let mut many = vec![(long.as_slice(), 7); 500];
        many.extend(SYMBOLS);
        assert_eq!(ask(&kernel(&many, plain)), Some(TEXT + 0x0130_0100));
    }

    #[test]
    fn a_table_of_another_form_has_no_answer() {
        let plain = |_: &mut String| {};
        assert_eq!(ask(&kernel(&SYMBOLS[..3], plain)), None);
        let mut moved = SYMBOLS;
        moved[0].1 = 8;
        assert_eq!(ask(&kernel(&moved, plain)), None);
        assert_eq!(ask(&kernel(&SYMBOLS[1..], plain)), None);
        for name in PARTS {
            let gone = |note: &mut String| *note = note.replace(&format!("_{name})"), "_x)");
            assert_eq!(ask(&kernel(&SYMBOLS, gone)), None, "{name}");
            let wild = |note: &mut String| {
                *note = note.replace(&format!("_{name})=ffffffff"), &format!("_{name})=fffff"));
            };
            assert_eq!(ask(&kernel(&SYMBOLS, wild)), None, "{name}");
        }
    }
}
