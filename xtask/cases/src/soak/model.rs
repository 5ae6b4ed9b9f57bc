//! Plan of a soak, made before it starts: the actions in each kernel.

use std::fmt::Write as _;

use kho_guest::random::Random;

/// Kernels that take turns.
const KERNELS: [&str; 3] = ["6.1", "6.12", "7.3"];

/// The kernels of a run and the actions in each of them.
pub struct Plan {
    /// Kernels in the order in which they run; one more than there are hops.
    pub kernels: Vec<&'static str>,
    /// Scripts, one for each kernel.
    pub scripts: Vec<String>,
}

/// A blob or a directory that is kept.
struct Entry {
    /// Name, unique for content: a change of content is a new entry.
    name: String,
    /// Whether the entry is a directory at `/srv/NAME`; otherwise it is a blob.
    directory: bool,
    bytes: u64,
    seed: u64,
    /// Whether the directory was restored under the present kernel, so that the next load reads it again.
    restored: bool,
}

/// A file on khofs. The seed determines its content.
struct File {
    name: String,
    bytes: u64,
    seed: u64,
}

/// A directory on khofs on which random operations run, up to round `rounds`.
struct Churn {
    seed: u64,
    rounds: u64,
    /// Number of the last round. After it, another directory takes the place of this one.
    last: u64,
}

/// Most bytes kept at a time as blobs and directories, and as files on khofs.
const MOST: u64 = 64 << 20;
const MOST_ON_KHOFS: u64 = 48 << 20;

/// Content below this size is not read through mappings.
const PAGE: u64 = 4096;

const COMMON: &str = include_str!("soak.sh");

/// Returns a random size in bytes: small, odd or large.
fn size(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => random.below(2) * random.below(5000),
        1..=3 => random.below(3 << 20),
        4..=6 => random.below(12 << 20),
        _ => random.below(40 << 20),
    }
}

impl Plan {
    /// Plans a run of `hops` hops. `seed` determines all of it.
    pub fn new(hops: usize, seed: u64) -> Self {
        let mut rng = Random(seed);
        let mut kernels = Vec::new();
        let mut scripts = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        let mut files: Vec<File> = Vec::new();
        let mut churn: Option<Churn> = None;
        let mut names = 0;
        let mut last = KERNELS.len();
        for hop in 0..=hops {
            // Two kernels in a row are never the same.
            let mut kernel = rng.index(KERNELS.len());
            while kernel == last {
                kernel = rng.index(KERNELS.len());
            }
            last = kernel;
            kernels.push(KERNELS[kernel]);
            let mut script = String::from(COMMON);
            let _ = writeln!(script, "begin {} {}", entries.len(), files.len());
            // Before the first restore: with the module, restored memory goes back to the system.
            script.push_str("outside\n");
            for entry in &mut entries {
                entry.restored = entry.directory && rng.below(2) == 0;
                script.push_str(&entry.check());
            }
            change(&mut entries, &mut rng, &mut names, &mut script);
            if hop == 0 {
                // At least one entry of each kind from the start on.
                for directory in [false, true, false, false] {
                    add(&mut entries, &mut rng, &mut names, &mut script, directory);
                }
            }
            script.push_str("begin_khofs\n");
            if rng.below(4) == 0 {
                // Pages that come from khofs into the page cache must not be free memory either, so overwrite all free
                // memory.
                script.push_str("kho-guest fill\n");
            }
            on_khofs(&mut files, &mut churn, &mut rng, &mut names, &mut script);
            let _ = writeln!(script, "record_trace\nfinish {}", rng.below(64));
            if hop < hops {
                // The active phase allows writes in place only.
                let at = rng.index(files.len());
                files[at].seed = rng.below(1 << 30);
                script.push_str(&files[at].write());
                script.push_str("leave\n");
            } else {
                script.push_str("give_back\n");
            }
            scripts.push(script);
        }
        Self { kernels, scripts }
    }
}

impl File {
    fn write(&self) -> String {
        format!("write_file {} {} {}\n", self.name, self.bytes, self.seed)
    }
}

/// Compares everything on khofs, then changes some of it.
fn on_khofs(
    files: &mut Vec<File>,
    churn: &mut Option<Churn>,
    rng: &mut Random,
    names: &mut u64,
    script: &mut String,
) {
    for file in files.iter() {
        let how = match file.bytes >= PAGE && rng.below(2) == 0 {
            true => "map",
            false => "read",
        };
        let File { name, bytes, seed } = file;
        let _ = writeln!(script, "check_file {name} {bytes} {seed} {how}");
    }
    for _ in 0..rng.below(4) {
        if files.len() > 1 && rng.below(3) == 0 {
            let file = files.remove(rng.index(files.len()));
            let _ = writeln!(script, "remove_file {}", file.name);
        } else if files.len() > 2 && rng.below(2) == 0 {
            let at = rng.index(files.len());
            let kept: u64 = files.iter().map(|file| file.bytes).sum();
            files[at].bytes = size(rng).min(files[at].bytes + MOST_ON_KHOFS - kept);
            files[at].seed = rng.below(1 << 30);
            script.push_str(&files[at].write());
        } else {
            script.push_str(&add_file(files, rng, names));
        }
    }
    while files.len() < 3 {
        script.push_str(&add_file(files, rng, names));
    }
    if let Some(Churn { seed, rounds, last }) = churn {
        let _ = writeln!(script, "check_churn {seed} {rounds}");
        if rounds == last {
            let _ = writeln!(script, "end_churn {seed} {rounds}");
            *churn = None;
        } else {
            *rounds += 1;
        }
    }
    let churn = churn.get_or_insert_with(|| Churn {
        seed: rng.below(1 << 30),
        rounds: 0,
        last: 1 + rng.below(6),
    });
    let _ = writeln!(script, "churn {} {}", churn.seed, churn.rounds);
}

fn add_file(files: &mut Vec<File>, rng: &mut Random, names: &mut u64) -> String {
    let kept: u64 = files.iter().map(|file| file.bytes).sum();
    *names += 1;
    let file = File {
        name: format!("f{names}"),
        bytes: size(rng).min(MOST_ON_KHOFS - kept),
        seed: rng.below(1 << 30),
    };
    let script = file.write();
    files.push(file);
    script
}

impl Entry {
    /// Returns the line of a script that compares the entry's content with the content that was made.
    fn check(&self) -> String {
        let Self { name, bytes, .. } = self;
        match (self.directory, self.restored) {
            (false, _) => format!("check_blob {name} {bytes}\n"),
            (true, true) => format!("restore_directory {name} {bytes}\n"),
            (true, false) => format!("look_at_directory {name} {bytes}\n"),
        }
    }
}

/// Makes up to two changes: each removes an entry or adds one.
fn change(entries: &mut Vec<Entry>, rng: &mut Random, names: &mut u64, script: &mut String) {
    for _ in 0..rng.below(3) {
        let remove = !entries.is_empty() && rng.below(2) == 0;
        if remove {
            let entry = entries.remove(rng.index(entries.len()));
            let _ = writeln!(script, "remove {}", entry.name);
        } else {
            let directory = rng.below(3) == 0;
            add(entries, rng, names, script, directory);
        }
    }
}

fn add(
    entries: &mut Vec<Entry>,
    rng: &mut Random,
    names: &mut u64,
    script: &mut String,
    directory: bool,
) {
    let kept: u64 = entries.iter().map(|entry| entry.bytes).sum();
    *names += 1;
    let entry = Entry {
        name: format!("{}{names}", if directory { "d" } else { "b" }),
        directory,
        // A directory of all kinds of entries takes some ten MiB in addition.
        bytes: if directory { size(rng) / 8 } else { size(rng) }.min(MOST.saturating_sub(kept)),
        seed: rng.below(1 << 30),
        restored: false,
    };
    let verb = if directory {
        "add_directory"
    } else {
        "add_blob"
    };
    let _ = writeln!(
        script,
        "{verb} {} {} {}",
        entry.name, entry.bytes, entry.seed
    );
    entries.push(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_its_seed() {
        let (one, two) = (Plan::new(20, 7), Plan::new(20, 7));
        assert_eq!(one.scripts, two.scripts);
        assert_eq!(one.kernels.len(), 21);
        assert!(one.kernels.windows(2).all(|pair| pair[0] != pair[1]));
        assert_ne!(one.scripts, Plan::new(20, 8).scripts);
        // The plan contains every kind of action.
        let all = one.scripts.concat();
        for word in [
            "\ncheck_blob",
            "\nrestore_directory",
            "\nlook_at_directory",
            "\nremove",
            "\nadd_directory",
            "\nremove_file",
            " map\n",
            "\nend_churn",
        ] {
            assert!(all.contains(word), "{word}");
        }
    }
}
