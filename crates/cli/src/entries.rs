//! Installed kernels: entries of the Boot Loader Specification (uapi-group.org/specifications, "The Boot Loader
//! Specification", version 1), and kernels in `/boot`.

use crate::args::{Choice, Next};
use crate::exit::{Fail, Status, chain};
use crate::handover::arch;
use crate::output::Output;
use crate::shown;
use kho_kexec::image;
use kho_kexec::sys::root::Root;
use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// Folders in which systemd looks for entries (`boot_config_load_auto`, src/shared/bootspec.c, 262), without those that
/// only the firmware or partition tables know. If the first folder exists, systemd looks in no other.
const PLACES: [&str; 4] = ["run/boot-loader-entries", "efi", "boot", "boot/efi"];

/// Folders of entries below such a place, with the ending of their names.
const ENTRIES: [(&str, &str); 2] = [("loader/entries", "conf"), ("EFI/Linux", "efi")];

/// Files with variables of GRUB, below such a place. Entries of Fedora name some of these variables.
const GRUB_ENVIRONMENTS: [&str; 4] = [
    "grub2/grubenv",
    "grub/grubenv",
    "EFI/fedora/grubenv",
    "EFI/redhat/grubenv",
];

/// Largest size of a file that describes an entry, in bytes.
const LIMIT: u64 = 1 << 20;

/// Status of a request for an entry that cannot be used.
const REFUSED: Status = Status::BadImage;

/// An entry of a boot loader.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Name of the file without the count of tries: `debian-6.12.conf`.
    id: OsString,
    /// Folder to which the paths in the entry are relative.
    place: PathBuf,
    title: Option<String>,
    version: Vec<u8>,
    sort_key: Option<Vec<u8>>,
    machine_id: Vec<u8>,
    /// Kernel or unified kernel image.
    kernel: Option<PathBuf>,
    initrd: Vec<PathBuf>,
    options: Option<Vec<u8>>,
    profile: Option<usize>,
    /// Whether no tries are left. The boot loader then uses the entry last.
    bad: bool,
}

/// Returns the place and the file of every entry. The order within a folder is not defined.
pub fn files(root: &Root) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for place in places(root) {
        for (folder, end) in ENTRIES {
            let names = std::fs::read_dir(place.join(folder)).into_iter().flatten();
            let paths = names.filter_map(Result::ok).map(|entry| entry.path());
            let ours = paths.filter(|path| path.extension() == Some(OsStr::new(end)));
            found.extend(ours.map(|path| (place.clone(), path)));
        }
    }
    found
}

fn places(root: &Root) -> Vec<PathBuf> {
    let [special, usual @ ..] = PLACES;
    let places = if root.exists(special) {
        &[special][..]
    } else {
        &usual[..]
    };
    places.iter().map(|place| root.path(place)).collect()
}

/// Returns the arguments with the kernel of `choice`: the kernel or the entry that it names, or else the default entry
/// of the boot loader, or else the newest kernel in `/boot`.
///
/// # Errors
///
/// [`Status::BadImage`] if there is no such entry or no kernel, or if the entry names a file that does not exist.
pub fn resolve(choice: &Choice, next: &Next, root: &Root, out: Output) -> Result<Next, Fail> {
    if let Some(kernel) = &choice.kernel {
        return Ok(Next {
            kernel: kernel.clone(),
            ..next.clone()
        });
    }
    let chosen = match &choice.entry {
        Some(id) => Some(named(id, root)?),
        None => default(root)?,
    };
    let Some(entry) = chosen else {
        let (kernel, release) = newest(root)?;
        out.remark(&format!(
            "no kernel is named, so this is the newest one that is installed: {} ({release})",
            shown::path(&kernel)
        ));
        return Ok(Next {
            kernel,
            ..next.clone()
        });
    };
    let taken = entry.apply(next, root)?;
    out.remark(&format!(
        "the kernel is that of the boot loader's entry {}{}: {}",
        shown::path(&entry.id),
        entry
            .title
            .as_ref()
            .map_or_else(String::new, |title| format!(" ({title})")),
        shown::path(&taken.kernel)
    ));
    Ok(taken)
}

fn named(id: &OsStr, root: &Root) -> Result<Entry, Fail> {
    let mut entries = all(root)?;
    let matches = |entry: &Entry| entry.id == id || stem(&entry.id) == id.as_bytes();
    if let Some(at) = entries.iter().position(matches) {
        return Ok(entries.swap_remove(at));
    }
    let names: Vec<String> = entries.iter().map(|e| shown::path(&e.id)).collect();
    let fix = match names.is_empty() {
        true => "name the kernel itself".to_owned(),
        false => format!("there are: {}", names.join(", ")),
    };
    let what = format!("there is no boot loader entry {}", shown::path(id));
    Err(Fail::new(REFUSED, what).fix(fix))
}

/// Returns the boot loader's default: the entry that `loader.conf` names, or, if `loader.conf` names none, the first
/// entry in the order of the specification. `None` if there is no such file, or no entry.
fn default(root: &Root) -> Result<Option<Entry>, Fail> {
    let files = places(root)
        .into_iter()
        .map(|p| p.join("loader/loader.conf"));
    let Some(text) = files.filter_map(|path| bounded(&path).ok()).next() else {
        return Ok(None);
    };
    let mut entries = all(root)?;
    let pattern = values(&text, b"default").last().map(<[u8]>::to_vec);
    let matches = |entry: &Entry| {
        let pattern = pattern.as_deref().unwrap_or_default();
        let id = entry.id.as_bytes();
        wildcard(pattern, id) || wildcard(pattern, stem(&entry.id))
    };
    // Values such as `@saved` refer to variables of the firmware that only that boot loader uses.
    let at = entries.iter().position(matches).unwrap_or(0);
    Ok((at < entries.len()).then(|| entries.swap_remove(at)))
}

/// Returns all readable entries in the order of the specification, the best one first.
fn all(root: &Root) -> Result<Vec<Entry>, Fail> {
    let mut entries = Vec::new();
    for (place, file) in files(root) {
        let entry = match file.extension() == Some(OsStr::new("conf")) {
            true => Entry::parse(&place, &file)?,
            false => Entry::of_image(&place, &file),
        };
        entries.extend(entry);
    }
    entries.sort_by(Entry::order);
    Ok(entries)
}

impl Entry {
    /// Reads an entry; `None` if it starts no kernel of this architecture.
    fn parse(place: &Path, file: &Path) -> Result<Option<Self>, Fail> {
        let unreadable = |err| {
            let what = format!(
                "cannot read the boot loader entry {}: {err}",
                shown::path(file)
            );
            Fail::new(REFUSED, what)
        };
        let text = bounded(file).map_err(unreadable)?;
        let one = |key: &'static [u8]| values(&text, key).last();
        let path = |value: &[u8]| PathBuf::from(OsStr::from_bytes(value));
        let architecture = one(b"architecture");
        if architecture.is_some_and(|name| !name.eq_ignore_ascii_case(b"x64")) {
            return Ok(None);
        }
        let Some(kernel) = one(b"linux").or(one(b"uki")) else {
            return Ok(None);
        };
        let options = values(&text, b"options").collect::<Vec<_>>();
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
        let (id, bad) = counted(file);
        let mut entry = Self {
            id,
            place: place.to_owned(),
            title: one(b"title").map(|title| shown::path(OsStr::from_bytes(title))),
            version: one(b"version").unwrap_or_default().to_vec(),
            sort_key: one(b"sort-key").map(<[u8]>::to_vec),
            machine_id: one(b"machine-id").unwrap_or_default().to_vec(),
            kernel: Some(path(kernel)),
            profile: one(b"profile").and_then(number),
            options: (!options.is_empty()).then(|| options.join(&b' ')),
            initrd: Vec::new(),
            bad,
        };
        // Fedora names a second initrd on the same line, by a variable.
        for value in values(&text, b"initrd") {
            let words = value.split(u8::is_ascii_whitespace);
            entry
                .initrd
                .extend(words.filter(|word| !word.is_empty()).map(path));
        }
        Ok(Some(entry))
    }

    /// Returns the entry for a unified kernel image in the folder for such images.
    fn of_image(place: &Path, file: &Path) -> Option<Self> {
        let (id, bad) = counted(file);
        Some(Self {
            id,
            place: place.to_owned(),
            kernel: Some(Path::new("EFI/Linux").join(file.file_name()?)),
            bad,
            ..Self::default()
        })
    }

    /// Compares by the order of the specification ("Sorting"), the best entry first.
    fn order(&self, other: &Self) -> Ordering {
        let by_key = match (&self.sort_key, &other.sort_key) {
            (Some(a), Some(b)) => a
                .cmp(b)
                .then_with(|| self.machine_id.cmp(&other.machine_id))
                .then_with(|| versions(&other.version, &self.version)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        let ids = || versions(stem(&other.id), stem(&self.id));
        self.bad.cmp(&other.bad).then(by_key).then_with(ids)
    }

    /// Returns the arguments, with kernel, initrd and command line of the entry where the arguments have none.
    fn apply(&self, next: &Next, root: &Root) -> Result<Next, Fail> {
        let mut taken = next.clone();
        let kernel = self.kernel.as_deref().unwrap_or(Path::new(""));
        taken.kernel = self.file(kernel, root)?;
        taken.profile = next.profile.or(self.profile);
        if next.initrd.is_empty() && !next.no_initrd {
            for path in &self.initrd {
                match path.as_os_str().as_bytes().strip_prefix(b"$") {
                    None => taken.initrd.push(self.file(path, root)?),
                    Some(name) => {
                        let more = self.variable(name).unwrap_or_default();
                        let words = more.split(u8::is_ascii_whitespace);
                        for word in words.filter(|word| !word.is_empty()) {
                            let path = Path::new(OsStr::from_bytes(word));
                            taken.initrd.push(self.file(path, root)?);
                        }
                    }
                }
            }
        }
        let open = next.command_line.is_none() && !next.reuse_cmdline;
        if let Some(options) = self.options.as_ref().filter(|_| open) {
            taken.command_line = Some(OsString::from_vec(self.expand(options)?));
        }
        Ok(taken)
    }

    /// Returns the path of a file that the entry names: below the place of the entry, or below the root. GRUB uses the
    /// root if `/boot` is not a file system of its own.
    fn file(&self, path: &Path, root: &Root) -> Result<PathBuf, Fail> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let refused = |why: &str| {
            let what = format!(
                "the boot loader entry {} names {}, {why}",
                shown::path(&self.id),
                shown::path(path)
            );
            Fail::new(REFUSED, what).fix("name the kernel itself, or mount what holds it")
        };
        if !inside
            .components()
            .all(|c| matches!(c, Component::Normal(_)))
        {
            return Err(refused("which is no path from the top of a file system"));
        }
        let at_root = root.path("").join(inside);
        let candidates = [self.place.join(inside), at_root];
        candidates
            .into_iter()
            .find(|path| path.is_file())
            .ok_or_else(|| refused("which is not there"))
    }

    /// Returns options after replacing the names of GRUB's variables. A variable that is not set is empty, as in GRUB.
    fn expand(&self, options: &[u8]) -> Result<Vec<u8>, Fail> {
        let mut words: Vec<Vec<u8>> = Vec::new();
        for word in options.split(u8::is_ascii_whitespace) {
            let Some(name) = word.strip_prefix(b"$") else {
                words.push(word.to_vec());
                continue;
            };
            match self.variable(name) {
                Some(value) => words.push(value),
                None if name == b"kernelopts" => {
                    let what = format!(
                        "the boot loader entry {} takes its options from GRUB's variable kernelopts, which is in no grubenv",
                        shown::path(&self.id)
                    );
                    return Err(Fail::new(REFUSED, what).fix("add --reuse-cmdline"));
                }
                None => {}
            }
        }
        Ok(words.join(&b' '))
    }

    fn variable(&self, name: &[u8]) -> Option<Vec<u8>> {
        let texts = GRUB_ENVIRONMENTS
            .iter()
            .filter_map(|path| bounded(&self.place.join(path)).ok());
        let value = |text: Vec<u8>| {
            let of = |line: &[u8]| Some(line.strip_prefix(name)?.strip_prefix(b"=")?.to_vec());
            text.split(|byte| *byte == b'\n').find_map(of)
        };
        texts.filter_map(value).next()
    }
}

/// Returns the name of an entry's file without the count of tries (`NAME+LEFT-DONE.conf`, "Boot counting"), and whether
/// no tries are left.
fn counted(file: &Path) -> (OsString, bool) {
    let name = file.file_name().unwrap_or_default();
    let end = file.extension().unwrap_or_default().as_bytes();
    let stem = stem(name);
    let Some(plus) = stem.iter().rposition(|byte| *byte == b'+') else {
        return (name.to_owned(), false);
    };
    let (before, count) = stem.split_at(plus);
    let mut numbers = count.get(1..).unwrap_or_default().splitn(2, |b| *b == b'-');
    let left = numbers.next().unwrap_or_default();
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if !is_number(left) || !numbers.next().is_none_or(is_number) {
        return (name.to_owned(), false);
    }
    let id = OsString::from_vec([before, b".", end].concat());
    (id, left.iter().all(|digit| *digit == b'0'))
}

/// Returns a file name without its extension.
fn stem(name: &OsStr) -> &[u8] {
    Path::new(name).file_stem().unwrap_or_default().as_bytes()
}

/// Returns the newest kernel in `/boot` and its release. Compares the releases that the images state.
fn newest(root: &Root) -> Result<(PathBuf, String), Fail> {
    let names = std::fs::read_dir(root.path("boot")).into_iter().flatten();
    let mut best: Option<(PathBuf, String)> = None;
    let mut why = String::new();
    for path in names.filter_map(Result::ok).map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let is_kernel = [&b"vmlinuz-"[..], b"kernel-", b"bzImage-"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        // Fedora's rescue kernel has the newest release, and an initrd for any machine.
        let rescue = name.windows(6).any(|word| word == b"rescue");
        if !is_kernel || rescue || name.ends_with(b".old") {
            continue;
        }
        let release = image::read(&path).and_then(|bytes| {
            let image = arch::parse(&bytes)?;
            Ok(image.release().map(str::to_owned))
        });
        match release {
            Ok(Some(release)) => {
                let newer = |best: &(PathBuf, String)| {
                    versions(release.as_bytes(), best.1.as_bytes()) == Ordering::Greater
                };
                if best.as_ref().is_none_or(newer) {
                    best = Some((path, release));
                }
            }
            Ok(None) => {}
            Err(err) => why = format!(" ({}: {})", shown::path(&path), chain(&err)),
        }
    }
    best.ok_or_else(|| {
        let what = format!("no kernel is named, and there is none in /boot{why}");
        Fail::new(REFUSED, what).fix("name one: kho load KERNEL, or kho load --entry ID")
    })
}

fn bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(LIMIT).read_to_end(&mut text)?;
    Ok(text)
}

/// Returns the values of a key in lines that have a key, blanks and a value.
fn values<'a>(text: &'a [u8], key: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    text.split(|byte| *byte == b'\n').filter_map(move |line| {
        let line = line.trim_ascii();
        let value = line.strip_prefix(key)?;
        value
            .first()
            .is_some_and(u8::is_ascii_whitespace)
            .then(|| value.trim_ascii())
    })
}

/// Whether a name matches a pattern with `*` and `?`.
fn wildcard(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(from) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(want) if *want == b'?' || want.eq_ignore_ascii_case(byte) => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((back, begun)) = star else {
                    return false;
                };
                star = Some((back, begun + 1));
                at = back + 1;
                from = begun + 1;
            }
        }
    }
    pattern
        .get(at..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// Compares two versions by the UAPI Group's "Version Format Specification".
fn versions(a: &[u8], b: &[u8]) -> Ordering {
    const MARKS: &[u8] = b"~-^.";
    let (mut a, mut b) = (a, b);
    let skip = |text: &mut &[u8]| {
        let valid = |byte: &u8| byte.is_ascii_alphanumeric() || MARKS.contains(byte);
        let at = text.iter().position(valid).unwrap_or(text.len());
        *text = text.get(at..).unwrap_or_default();
    };
    loop {
        skip(&mut a);
        skip(&mut b);
        for mark in MARKS {
            // A tilde sorts before the end of a version, the other marks sort after the end.
            if *mark == b'-' && (a.is_empty() || b.is_empty()) {
                return a.len().cmp(&b.len());
            }
            let (in_a, in_b) = (a.first() == Some(mark), b.first() == Some(mark));
            match (in_a, in_b) {
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (true, true) => {
                    a = a.get(1..).unwrap_or_default();
                    b = b.get(1..).unwrap_or_default();
                    break;
                }
                (false, false) => {}
            }
        }
        let digits = [a, b]
            .iter()
            .any(|text| text.first().is_some_and(u8::is_ascii_digit));
        let of_kind = |byte: &u8| match digits {
            true => byte.is_ascii_digit(),
            false => byte.is_ascii_alphabetic(),
        };
        let part = |text: &mut &[u8]| -> Vec<u8> {
            let len = text.iter().take_while(|byte| of_kind(byte)).count();
            let (part, rest) = text.split_at_checked(len).unwrap_or_default();
            *text = rest;
            part.to_vec()
        };
        let (mut x, mut y) = (part(&mut a), part(&mut b));
        let mut order = Ordering::Equal;
        if digits {
            for number in [&mut x, &mut y] {
                let zeros = number.iter().take_while(|digit| **digit == b'0').count();
                number.drain(..zeros);
            }
            order = x.len().cmp(&y.len());
        }
        order = order.then_with(|| x.cmp(&y));
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests;
