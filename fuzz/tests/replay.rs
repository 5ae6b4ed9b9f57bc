//! Every target, without instrumentation, on the corpus, the seeds and all inputs that fuzzing ever found.

use kho_fuzz::{TARGETS, Target};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn files(dir: &str, target: &Target) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(dir)
        .join(target.name);
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(target: &Target, path: &Path) {
    // If the target panics, this line names the input.
    eprintln!("{}: {}", target.name, path.display());
    (target.run)(&std::fs::read(path).unwrap());
}

#[test]
fn seeds_are_short_enough() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        for seed in seeds {
            assert!(
                seed.len() <= target.max_len,
                "{}: {}",
                target.name,
                seed.len()
            );
            (target.run)(&seed);
        }
    }
}

/// Every prefix of a seed, and every seed with one byte inverted: mutations that need no luck.
#[test]
fn damaged_seeds() {
    for target in TARGETS {
        for seed in (target.seeds)() {
            let step = seed.len() / 400 + 1;
            for at in (0..seed.len()).step_by(step) {
                (target.run)(&seed[..at]);
                let mut damaged = seed.clone();
                damaged[at] ^= 0xff;
                (target.run)(&damaged);
            }
        }
    }
}

#[test]
fn corpus() {
    let mut count = 0;
    for target in TARGETS {
        let files = files("corpus", target);
        assert!(!files.is_empty(), "{} has no corpus", target.name);
        for path in files {
            replay(target, &path);
            count += 1;
        }
    }
    eprintln!("{count} inputs");
}

/// The inputs that fuzzing found. `found/README.md` describes each.
#[test]
fn found() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    let stories = std::fs::read_to_string(dir.join("README.md")).unwrap();
    for target in TARGETS {
        for path in files("found", target) {
            let name = path.strip_prefix(&dir).unwrap().display().to_string();
            assert!(stories.contains(&format!("`{name}`")), "no story of {name}");
            assert_ne!(
                std::fs::metadata(&path).unwrap().len(),
                0,
                "{name} is empty"
            );
            replay(target, &path);
        }
    }
}

#[test]
fn folders_belong_to_targets() {
    let known: BTreeSet<_> = TARGETS
        .iter()
        .map(|target| target.name.to_owned())
        .collect();
    assert_eq!(known.len(), TARGETS.len(), "a name twice");
    for dir in ["corpus", "found"] {
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                let name = entry.file_name().into_string().unwrap();
                assert!(known.contains(&name), "{dir}/{name} belongs to no target");
            }
        }
    }
}
