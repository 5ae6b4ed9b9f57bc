//! Checks whether the next side understands what the loader hands over.

use crate::args;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::output::Output;
use kho::tree::Reader;
use kho_format::catalogue::{Catalogue, INITRD_PATH, Ignored};
use kho_kexec::cpio;
use std::path::Path;

/// Returns the next side's catalogue: from the file that the arguments name, else from the initrd.
///
/// # Errors
///
/// [`Status::Failed`] if the file cannot be read, or if the file or the initrd has a catalogue that is not valid.
fn next_side(
    args: &args::Compat,
    initrd: Option<&[u8]>,
) -> Result<Option<(String, Catalogue)>, Fail> {
    let (from, text) = match (&args.next_catalogue, initrd.and_then(in_initrd)) {
        (Some(path), _) => (path.display().to_string(), read(path)?),
        (None, Some(text)) => (format!("{INITRD_PATH} of the initrd"), text.to_vec()),
        (None, None) => return Ok(None),
    };
    let catalogue = parse(&from, &text)?;
    Ok(Some((from, catalogue)))
}

/// Reads a catalogue.
///
/// # Errors
///
/// [`Status::Failed`] if the file cannot be read or is not a catalogue.
pub fn open(path: &Path) -> Result<Catalogue, Fail> {
    parse(&path.display().to_string(), &read(path)?)
}

fn read(path: &Path) -> Result<Vec<u8>, Fail> {
    use std::io::Read;
    let fail = |err| {
        Fail::new(
            Status::Failed,
            format!("cannot read {}: {err}", path.display()),
        )
    };
    let mut text = Vec::new();
    // One byte more than the parser accepts, so that the parser refuses a longer file.
    std::fs::File::open(path)
        .map_err(fail)?
        .take((1 << 20) + 1)
        .read_to_end(&mut text)
        .map_err(fail)?;
    Ok(text)
}

fn parse(from: &str, text: &[u8]) -> Result<Catalogue, Fail> {
    Catalogue::parse(text).map_err(|err| {
        Fail::new(Status::Failed, format!("{from}: {}", chain(&err)))
            .fix("kho compat --this --json writes one")
    })
}

/// Returns the catalogue in the archives at the start of an initrd. Compressed parts are not searched: a tool that adds
/// a catalogue puts it at the start, as tools do with microcode.
fn in_initrd(initrd: &[u8]) -> Option<&[u8]> {
    cpio::entries(initrd)
        .find(|entry| {
            entry.name.strip_prefix(b"./").unwrap_or(entry.name) == INITRD_PATH.as_bytes()
        })
        .map(|entry| entry.data)
}

/// Refuses a handover of `tree` that the next side would ignore.
///
/// # Errors
///
/// [`Status::Ignored`], unless the arguments allow that. [`Status::Failed`] if the catalogue cannot be read.
pub fn check(
    args: &args::Compat,
    initrd: Option<&[u8]>,
    tree: &[u8],
    out: Output,
) -> Result<(), Fail> {
    let Some((from, next)) = next_side(args, initrd)? else {
        return Ok(());
    };
    let tree = Reader::new(tree).or_status(Status::Failed)?;
    refuse(
        &from,
        &Catalogue::this().ignored_of(&tree, &next),
        args.ignore_compat,
        out,
    )
}

/// Like [`check`], but without a tree: checks every node version that this build may write.
///
/// # Errors
///
/// As [`check`].
pub fn check_early(args: &args::Compat, initrd: Option<&[u8]>, out: Output) -> Result<(), Fail> {
    let Some((from, next)) = next_side(args, initrd)? else {
        return Ok(());
    };
    refuse(
        &from,
        &Catalogue::this().ignored_by(&next),
        args.ignore_compat,
        out,
    )
}

fn refuse(from: &str, ignored: &[Ignored], anyway: bool, out: Output) -> Result<(), Fail> {
    let lines: Vec<String> = ignored.iter().map(ToString::to_string).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let what = format!(
        "the next side ({from}) would ignore what is handed over: {}",
        lines.join("; ")
    );
    if anyway {
        out.warn(&what);
        return Ok(());
    }
    Err(Fail::new(Status::Ignored, what).fix(
        "give the next side a kho that reads it, or hand over all the same with --ignore-compat",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Output = Output {
        json: false,
        quiet: true,
    };

    fn args(next_catalogue: Option<&Path>, ignore_compat: bool) -> args::Compat {
        args::Compat {
            next_catalogue: next_catalogue.map(Path::to_owned),
            ignore_compat,
        }
    }

    fn initrd(catalogue: &Catalogue) -> Vec<u8> {
        let mut archive = cpio::Writer::new();
        archive
            .file(
                INITRD_PATH.as_bytes(),
                0o644,
                &serde_json::to_vec(catalogue).unwrap(),
            )
            .unwrap();
        archive.finish()
    }

    fn tree() -> Vec<u8> {
        let mut buf = vec![0; 512];
        let mut w = kho::tree::Writer::new(&mut buf);
        w.begin_node("").unwrap();
        w.prop_str("compatible", kho::abi::HANDOVER_V1).unwrap();
        w.end_node().unwrap();
        w.finish().unwrap();
        buf
    }

    #[test]
    fn an_initrd_says_what_it_reads() {
        let none = args(None, false);
        let mut next = Catalogue::this();
        assert!(check(&none, None, &tree(), QUIET).is_ok());
        assert!(check(&none, Some(&initrd(&next)), &tree(), QUIET).is_ok());
        // The tree has no blobs, so the next side does not have to read them.
        next.reads.remove(kho::abi::BLOB_V1);
        assert!(check(&none, Some(&initrd(&next)), &tree(), QUIET).is_ok());
        next.reads.remove(kho::abi::HANDOVER_V1);
        let fail = check(&none, Some(&initrd(&next)), &tree(), QUIET).unwrap_err();
        assert_eq!(fail.status, Status::Ignored);
        assert!(
            fail.what.contains("kho-handover-v1") && fail.what.contains("initrd"),
            "{fail}"
        );
        assert!(check(&args(None, true), Some(&initrd(&next)), &tree(), QUIET).is_ok());
    }

    #[test]
    fn a_file_goes_before_the_initrd() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("next.json");
        let mut next = Catalogue::this();
        let old = initrd(&next);
        next.reads.clear();
        std::fs::write(&path, serde_json::to_vec(&next).unwrap()).unwrap();
        let named = args(Some(&path), false);
        assert_eq!(
            check(&named, Some(&old), &tree(), QUIET)
                .unwrap_err()
                .status,
            Status::Ignored
        );
        assert_eq!(
            check_early(&named, None, QUIET).unwrap_err().status,
            Status::Ignored
        );
        std::fs::write(&path, "{}").unwrap();
        let fail = check_early(&named, None, QUIET).unwrap_err();
        assert!(fail.what.contains("not a catalogue"), "{fail}");
    }
}
