//! A hostile user without privileges, who attacks while root restores.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// Length of the secret, which is hexadecimal digits.
const SECRET: usize = 48;

/// Number of rounds of an attack after which the attack writes a line to the file of loot; a number for people.
const REPORT: u64 = 64;

/// Arguments of `kho-guest mallory`.
#[derive(clap::Args)]
pub struct Arguments {
    /// A directory that everybody may write to, into which root restores.
    #[arg(long)]
    drop: PathBuf,
    /// A directory of root's that must not change.
    #[arg(long)]
    target: PathBuf,
    /// File for the bytes that were read.
    #[arg(long)]
    loot: PathBuf,
}

/// File of loot, with lines `tried WHAT` and `got WHAT`.
struct Loot(File);

impl Loot {
    fn say(&self, verb: &str, what: impl std::fmt::Display) {
        // One write per line, because several threads share the file.
        let _ = (&self.0).write_all(format!("{verb} {what}\n").as_bytes());
    }
}

/// `kho-guest mallory`. Works until killed.
pub fn run(arguments: &Arguments) -> Result<()> {
    let loot = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&arguments.loot)
        .context("opening the loot")?;
    let loot = Arc::new(Loot(loot));
    plant(arguments, &loot);
    let attacks: [fn(&Path, &Path, &Loot); 3] = [swap, read, fill];
    for attack in attacks {
        let (drop, target, loot) = (
            arguments.drop.clone(),
            arguments.target.clone(),
            Arc::clone(&loot),
        );
        thread::spawn(move || {
            for round in 0_u64.. {
                attack(&drop, &target, &loot);
                if round == REPORT {
                    loot.say("tried", format!("{REPORT} rounds"));
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
    }
    // Root's next restore must find every attack running.
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        UnixDatagram::unbound()?
            .send_to(b"READY=1", socket)
            .context("telling systemd")?;
    }
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// Makes names that root will use or clean up, which point at files that are not mallory's.
fn plant(arguments: &Arguments, loot: &Loot) {
    let (drop, target) = (&arguments.drop, &arguments.target);
    let stale = drop.join(format!(".kho-restore-{}", "0".repeat(32)));
    let results = [
        symlink(target, drop.join("victim")),
        fs::create_dir(&stale),
        symlink(target, stale.join("inside")),
        fs::create_dir(stale.join("deep")),
        symlink(target.join("file"), stale.join("deep/file")),
        symlink(
            target,
            drop.join(format!(".kho-restore-{}", "f".repeat(32))),
        ),
        symlink(
            target,
            drop.join(format!(".kho-rescued-{}", "f".repeat(32))),
        ),
    ];
    let planted = results.iter().filter(|result| result.is_ok()).count();
    loot.say("tried", format!("planting, {planted} of {}", results.len()));
}

/// Replaces each name, in turn, by a link, by a directory of mallory's, and by nothing. Root's entry of that name is
/// renamed meanwhile.
fn swap(drop: &Path, target: &Path, loot: &Loot) {
    let aside = drop.join("m-aside");
    let link = drop.join("m-link");
    let _ = symlink(target, &link);
    let names = fs::read_dir(drop).into_iter().flatten().flatten();
    for name in names.map(|entry| entry.file_name()) {
        let text = name.to_string_lossy().into_owned();
        if text.starts_with("m-") {
            continue;
        }
        let place = drop.join(&name);
        let _ = fs::rename(&place, &aside);
        let _ = fs::rename(&link, &place);
        let _ = symlink(target, &link);
        thread::yield_now();
        let _ = fs::remove_file(&place);
        let _ = fs::create_dir(&place);
        let _ = fs::set_permissions(&place, fs::Permissions::from_mode(0o777));
        let _ = symlink(target, place.join("deep"));
        let _ = symlink(target.join("file"), place.join("file"));
        thread::yield_now();
        let _ = fs::remove_dir_all(&place);
        // Root's entry returns at times, so that a restore can finish.
        if fs::rename(&aside, &place).is_err() {
            let _ = fs::rename(&aside, drop.join(format!("m-{text}")));
        }
    }
    for name in ["m-proof", "proof"] {
        if fs::write(target.join(name), "mallory").is_ok() {
            loot.say("got", target.join(name).display());
        }
    }
}

/// Tries to read everything that may hold handed-over content.
fn read(drop: &Path, _: &Path, loot: &Loot) {
    look_in(drop, loot, 0);
    for dir in [
        "/run/kho",
        "/run/kho/armed",
        "/sys/kernel/boot_params/setup_data",
    ] {
        if let Ok(entries) = fs::read_dir(dir) {
            loot.say("got", format!("the list of {dir}: {}", entries.count()));
        }
    }
    for file in [
        "/run/kho/status.json",
        "/run/kho/keep.json",
        "/sys/kernel/boot_params/setup_data/0/data",
        "/sys/kernel/boot_params/setup_data/1/data",
        "/proc/kcore",
        "/proc/kpageflags",
    ] {
        let mut byte = [0];
        if File::open(file).is_ok_and(|mut file| file.read(&mut byte).is_ok_and(|len| len > 0)) {
            loot.say("got", file);
        }
    }
}

fn look_in(dir: &Path, loot: &Loot, depth: u32) {
    for path in fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
    {
        if path.is_dir() && depth < 4 {
            look_in(&path, loot, depth + 1);
        }
        let mut text = Vec::new();
        let Ok(file) = File::open(&path) else {
            continue;
        };
        let _ = file.take(4096).read_to_end(&mut text);
        let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit());
        if digits.count() >= SECRET {
            loot.say("got", path.display());
        }
    }
}

/// Fills the file system for a moment.
fn fill(drop: &Path, _: &Path, _: &Loot) {
    let path = drop.join("m-fill");
    if let Ok(mut file) = File::create(&path) {
        while file.write_all(&[0; 1 << 16]).is_ok() {}
        thread::sleep(Duration::from_millis(20));
        let _ = file.set_len(0);
    }
    thread::sleep(Duration::from_millis(200));
}
