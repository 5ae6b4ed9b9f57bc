//! Broken trees, as data: `corpus.txt` has the changes to a good tree and the problems that validation then reports,
//! word for word. A run with `KHO_BLESS=1` writes the expected lines again.

mod common;

use kho::tree::{Node, Reader, Writer, seal};
use kho_format::validate::validate;
use std::fmt::Write as _;
use std::path::PathBuf;

/// A tree that can be changed.
#[derive(Clone)]
struct Owned {
    name: String,
    props: Vec<(String, Vec<u8>)>,
    children: Vec<Owned>,
}

impl Owned {
    fn of(node: Node<'_>) -> Self {
        Self {
            name: node.name().to_owned(),
            props: node
                .props()
                .map(|prop| (prop.name().to_owned(), prop.value().bytes().to_vec()))
                .collect(),
            children: node.children().map(Self::of).collect(),
        }
    }

    fn find(&mut self, path: &str) -> &mut Self {
        path.split('/')
            .filter(|name| !name.is_empty())
            .fold(self, |node, name| {
                node.children
                    .iter_mut()
                    .find(|child| child.name == name)
                    .unwrap_or_else(|| panic!("there is no {name} of {path}"))
            })
    }

    fn set(&mut self, name: &str, value: Vec<u8>) {
        match self.props.iter_mut().find(|(have, _)| have == name) {
            Some((_, old)) => *old = value,
            None => self.props.push((name.to_owned(), value)),
        }
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.begin_node(&self.name).unwrap();
        for (name, value) in &self.props {
            w.prop_bytes(name, value).unwrap();
        }
        for child in &self.children {
            child.write(w);
        }
        w.end_node().unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        let mut buf = vec![0; 1 << 16];
        let mut w = Writer::new(&mut buf);
        self.write(&mut w);
        let len = w.finish().unwrap();
        buf.truncate(len);
        // A tree without a checksum cannot be sealed.
        let _ = seal(&mut buf);
        buf
    }
}

fn number(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

fn index(text: &str) -> usize {
    usize::try_from(number(text)).unwrap()
}

fn value(kind: &str, rest: &str) -> Vec<u8> {
    let words = rest.split_whitespace();
    match kind {
        "str" => {
            let mut bytes = unescaped(rest);
            bytes.push(0);
            bytes
        }
        "raw" => unescaped(rest),
        "long" => {
            let mut bytes = vec![b'x'; index(rest)];
            bytes.push(0);
            bytes
        }
        "u32" => u32::try_from(number(rest)).unwrap().to_ne_bytes().to_vec(),
        "u64" | "mem" => words.flat_map(|word| number(word).to_ne_bytes()).collect(),
        other => panic!("unknown kind {other}"),
    }
}

/// Decodes `text`, in which `\xNN` is a byte.
fn unescaped(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\x");
    let mut out = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(&part[..2], 16).unwrap());
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    out
}

/// Applies one line of a case to the tree.
fn change(tree: &mut Owned, verb: &str, rest: &str) {
    let mut words = rest.splitn(4, ' ');
    let path = words.next().unwrap();
    match verb {
        "drop" => {
            let name = words.next().unwrap();
            let node = tree.find(path);
            let before = node.props.len();
            node.props.retain(|(have, _)| have != name);
            assert!(node.props.len() < before, "there is no {name}");
        }
        "set" => {
            let (name, kind) = (words.next().unwrap(), words.next().unwrap());
            let bytes = value(kind, words.next().unwrap_or(""));
            tree.find(path).set(name, bytes);
        }
        "rename" => tree.find(path).name = words.next().unwrap().to_owned(),
        "remove" => {
            let (parent, name) = path.rsplit_once('/').unwrap();
            tree.find(parent)
                .children
                .retain(|child| child.name != name);
        }
        "add" => {
            let name = words.next().unwrap().to_owned();
            tree.find(path).children.push(Owned {
                name,
                props: Vec::new(),
                children: Vec::new(),
            });
        }
        other => panic!("unknown verb {other}"),
    }
}

/// Applies one line of a case to the bytes. `None` if the line is for the tree.
fn damage(bytes: &mut Vec<u8>, verb: &str, rest: &str) -> Option<()> {
    let words: Vec<&str> = rest.split(' ').collect();
    match verb {
        // A word of the container, big-endian.
        "word" => {
            let (at, new) = (index(words[0]), u32::try_from(number(words[1])).unwrap());
            bytes[at..at + 4].copy_from_slice(&new.to_be_bytes());
        }
        "byte" => bytes[index(words[0])] = u8::try_from(number(words[1])).unwrap(),
        "truncate" => bytes.truncate(index(rest)),
        "empty" => bytes.clear(),
        // Replaces the first occurrence of some bytes by the same number of other bytes.
        "replace" => {
            let (old, new) = (unescaped(words[0]), unescaped(words[1]));
            assert_eq!(old.len(), new.len());
            let at = bytes.windows(old.len()).position(|w| w == old).unwrap();
            bytes[at..at + new.len()].copy_from_slice(&new);
        }
        _ => return None,
    }
    Some(())
}

struct Case<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
    expected: Vec<&'a str>,
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let mut out: Vec<Case<'_>> = Vec::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            out.push(Case {
                name,
                lines: Vec::new(),
                expected: Vec::new(),
            });
        } else if let Some(message) = line.strip_prefix("    ") {
            out.last_mut().unwrap().expected.push(message);
        } else {
            out.last_mut().unwrap().lines.push(line);
        }
    }
    out
}

fn broken(case: &Case<'_>) -> Vec<u8> {
    let mut lines = case.lines.iter().peekable();
    let start = lines.next_if(|line| **line == "kernel");
    let mut bytes = match start {
        Some(_) => common::kernel_part(),
        None => common::handover(),
    };
    let mut tree = Owned::of(Reader::new(&bytes).unwrap().root());
    let mut changed = false;
    for line in lines {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        if damage(&mut bytes, verb, rest).is_none() {
            change(&mut tree, verb, rest);
            bytes = tree.bytes();
            changed = true;
        }
    }
    assert!(
        changed || bytes != common::handover(),
        "{} changes nothing",
        case.name
    );
    bytes
}

#[test]
#[cfg(target_endian = "little")]
fn every_broken_tree_is_told_word_for_word() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus.txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let cases = cases(&text);
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let head: String = text
        .lines()
        .take_while(|line| !line.starts_with("== "))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut out = head;
    let mut wrong = Vec::new();
    for (place, case) in cases.iter().enumerate() {
        let twice = cases[..place].iter().any(|other| other.name == case.name);
        assert!(!twice, "{} twice", case.name);
        let found: Vec<String> = validate(&broken(case), None)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(!found.is_empty(), "{} is found good", case.name);
        let _ = writeln!(out, "== {}\n{}", case.name, case.lines.join("\n"));
        for line in &found {
            let _ = writeln!(out, "    {line}");
        }
        out.push('\n');
        if found != case.expected {
            wrong.push(format!("{}: {found:#?}", case.name));
        }
    }
    if std::env::var_os("KHO_BLESS").is_some() {
        std::fs::write(&path, out.trim_end().to_owned() + "\n").unwrap();
    } else {
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn what_the_producers_write_is_good() {
    for bytes in [common::handover(), common::kernel_part()] {
        assert_eq!(validate(&bytes, None).unwrap(), []);
    }
}

#[test]
fn ranges_are_held_against_the_machine() {
    use kho::RangeSet;
    use kho_format::validate::Machine;
    let bytes = common::handover();
    let ram = RangeSet::from_ranges([common::range(0, 0x5800_0000)]).unwrap();
    let reserved = RangeSet::from_ranges([common::range(0x5000_0000, 0x4000)]).unwrap();
    let machine = |reserved| Machine {
        ram: &ram,
        reserved,
    };
    let lines = |found: Vec<kho_format::validate::Problem>| -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        lines(validate(&bytes, Some(machine(None))).unwrap()),
        ["/: `mem-cache`[0] [0x60000000-0x60100000) is not inside RAM"]
    );
    assert_eq!(
        lines(validate(&bytes, Some(machine(Some(&reserved)))).unwrap()),
        [
            "/: `mem-cache`[0] [0x60000000-0x60100000) is not inside RAM",
            "/: `mem-cache`[1] [0x40000000-0x40103000) is not reserved in this kernel",
            "/blobs/blob-0: `mem`[0] [0x40000000-0x40100000) is not reserved in this kernel",
            "/blobs/blob-1: `mem`[0] [0x40100000-0x40103000) is not reserved in this kernel",
        ]
    );
}
