//! What a soak does in each kernel, worked out beforehand.

use std::fmt::Write as _;

use super::KERNELS;

/// The kernels of a run and what each of them does.
pub struct Plan {
    /// One more than there are hops.
    pub kernels: Vec<&'static str>,
    /// One for each.
    pub scripts: Vec<String>,
}

/// What is kept.
struct Entry {
    /// Unique for content: a change of content is a new entry.
    name: String,
    /// A directory at `/srv/NAME`; a blob otherwise.
    directory: bool,
    bytes: u64,
    seed: u64,
    /// Its directory was restored under the present kernel, so the next load reads it anew.
    restored: bool,
}

/// Most bytes kept at a time.
const MOST: u64 = 64 << 20;

const COMMON: &str = include_str!("soak.sh");

/// Numbers that follow from a seed (splitmix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }

    /// Small ones, odd ones, large ones.
    fn size(&mut self) -> u64 {
        match self.below(8) {
            0 => self.below(2) * self.below(5000),
            1..=3 => self.below(3 << 20),
            4..=6 => self.below(12 << 20),
            _ => self.below(40 << 20),
        }
    }
}

impl Plan {
    /// Works everything out.
    pub fn new(hops: usize, seed: u64) -> Self {
        let mut rng = Rng(seed);
        let mut kernels = Vec::new();
        let mut scripts = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        let mut names = 0;
        let mut last = KERNELS.len();
        for hop in 0..=hops {
            // Never the same kernel twice in a row.
            let pick =
                |rng: &mut Rng| usize::try_from(rng.below(KERNELS.len() as u64)).unwrap_or(0);
            let mut kernel = pick(&mut rng);
            while kernel == last {
                kernel = pick(&mut rng);
            }
            last = kernel;
            kernels.push(KERNELS[kernel]);
            let mut script = String::from(COMMON);
            let _ = writeln!(script, "begin {}", entries.len());
            // Before anything is restored: with the module, what was restored goes back to the system.
            script.push_str("outside\n");
            for entry in &mut entries {
                entry.restored = entry.directory && rng.below(2) == 0;
                script.push_str(&entry.check());
            }
            change(&mut entries, &mut rng, &mut names, &mut script);
            if hop == 0 {
                // Something of each kind from the start on.
                for directory in [false, true, false, false] {
                    add(&mut entries, &mut rng, &mut names, &mut script, directory);
                }
            }
            let _ = writeln!(script, "finish {}", rng.below(64));
            scripts.push(script);
        }
        Self { kernels, scripts }
    }
}

impl Entry {
    /// Compares its content with what it was when it was made.
    fn check(&self) -> String {
        let Self { name, bytes, .. } = self;
        match (self.directory, self.restored) {
            (false, _) => format!("check_blob {name} {bytes}\n"),
            (true, true) => format!("restore_directory {name} {bytes}\n"),
            (true, false) => format!("look_at_directory {name} {bytes}\n"),
        }
    }
}

/// Up to two changes.
fn change(entries: &mut Vec<Entry>, rng: &mut Rng, names: &mut u64, script: &mut String) {
    for _ in 0..rng.below(3) {
        let remove = !entries.is_empty() && rng.below(2) == 0;
        if remove {
            let index = usize::try_from(rng.below(entries.len() as u64)).unwrap_or(0);
            let entry = entries.remove(index);
            let _ = writeln!(script, "remove {}", entry.name);
        } else {
            let directory = rng.below(3) == 0;
            add(entries, rng, names, script, directory);
        }
    }
}

fn add(
    entries: &mut Vec<Entry>,
    rng: &mut Rng,
    names: &mut u64,
    script: &mut String,
    directory: bool,
) {
    let kept: u64 = entries.iter().map(|entry| entry.bytes).sum();
    *names += 1;
    let entry = Entry {
        name: format!("{}{names}", if directory { "d" } else { "b" }),
        directory,
        // A directory of all kinds of entries comes to some ten MiB by itself.
        bytes: if directory {
            rng.size() / 8
        } else {
            rng.size()
        }
        .min(MOST.saturating_sub(kept)),
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
        // All of it happens.
        let all = one.scripts.concat();
        for word in [
            "\ncheck_blob",
            "\nrestore_directory",
            "\nlook_at_directory",
            "\nremove",
            "\nadd_directory",
        ] {
            assert!(all.contains(word), "{word}");
        }
    }
}
