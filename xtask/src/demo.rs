//! `cargo xtask demo`: a handover on real kernels, in one command.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use kho_guest::Event;
use kho_lab::Lab;
use kho_lab::guest::Contents;
use kho_lab::qemu::{Line, Machine};
use kho_lab::run::{End, Job, Life, Outcome, hop_times, is_script_output, log};

const CHAIN: [&str; 3] = ["6.1", "6.12", "6.1"];

/// Keep files, blobs and memory in place over two hops between unmodified Debian kernels, and show that every byte arrived.
///
/// A guest boots Debian 12's 6.1 kernel, makes a tree of random files and two blobs, keeps them, hops to 6.12 and from
/// there to 6.1. Each kernel that is reached first overwrites all of its free memory, then restores and compares.
#[derive(clap::Args)]
pub struct Arguments {
    /// Bytes of random files, in MiB.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    tree: u64,
    /// Number from which all contents follow [default: another one each time].
    #[arg(long)]
    seed: Option<u64>,
    /// Show everything that the guest says.
    #[arg(short, long)]
    verbose: bool,
    /// Use this static kho command instead of building it.
    #[arg(long, value_name = "PROGRAM")]
    kho: Option<PathBuf>,
}

/// Contents that the demo compares: key of the reported value, and name shown to people.
const KEPT: [(&str, &str); 3] = [
    ("tree", "/srv/demo"),
    ("letter", "blob `letter`"),
    ("random", "blob `random`"),
];

/// Contents that stay in place, beside the blobs, and are never copied: key and name. They exist only if the modules
/// could be built.
const IN_PLACE: [(&str, &str); 2] = [
    ("ring", "ring of pages of a driver"),
    ("image", "/srv/vm/image on khofs"),
];

/// Modules that keep memory in place.
const MODULES: [&str; 3] = ["kho", "kho_ring", "khofs"];

/// The script of the first kernel.
const FIRST: &str = include_str!("demo/first.sh");

/// The script of every kernel after the first.
const EACH: &str = include_str!("demo/each.sh");

/// Part of every script that looks at the contents in place.
const LOOK_IN_PLACE: &str = include_str!("demo/look.sh");

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let lab = Lab::open(arguments.kho.as_deref())?;
    let seed = arguments.seed.unwrap_or_else(any_seed);
    let kernels = CHAIN
        .iter()
        .map(|name| lab.kernel(name))
        .collect::<Result<Vec<_>>>()?;
    let with_module = kernels
        .iter()
        .map(|kernel| lab.with_module(kernel.clone()))
        .collect::<Result<Vec<_>>>();
    let (kernels, ours) = match with_module {
        Ok(kernels) => (kernels, MODULES.map(str::to_owned).to_vec()),
        Err(error) => {
            println!("demo: without the kernel modules, which cannot be built here: {error:#}");
            (kernels, Vec::new())
        }
    };
    let mut kept = KEPT.to_vec();
    if !ours.is_empty() {
        kept.extend(IN_PLACE);
    }
    let each = format!("{EACH}{LOOK_IN_PLACE}");
    let scripts = vec![
        Some(format!(
            "bytes={}\nseed={seed}\nseed_of_random={}\nseed_of_image={}\n{FIRST}{LOOK_IN_PLACE}",
            arguments.tree << 20,
            seed ^ 1,
            seed ^ 2
        )),
        Some(each.clone()),
        Some(each),
    ];
    let contents = Contents {
        kernels,
        scripts,
        ours,
        ..Contents::default()
    };
    // Four times the tree: the files, the image that carries them, room for the restored files, and the file on khofs.
    let machine = Machine {
        mem_mib: 1024 + 5 * arguments.tree,
        ..Machine::default()
    };
    let timeout = Duration::from_secs(600);
    let job = Job {
        name: "demo",
        machine: &machine,
        contents: &contents,
        timeout,
        steps: &[],
    };

    println!(
        "demo: {}, with {} MiB of files and two blobs{} (seed {seed})",
        CHAIN.join(" -> "),
        arguments.tree,
        if contents.ours.is_empty() {
            ""
        } else {
            ", and in place the memory of a driver and a file on khofs"
        },
    );
    let outcome = lab.run(&job, &mut |line, event| {
        show(line, event, arguments.verbose)
    });
    println!("\n{}", table(&outcome, &kept));
    println!("(everything the guest said: {})", outcome.log.display());
    if outcome.end == End::Pass {
        match complete(&outcome.lives, &kept) {
            Ok(()) => {
                println!("demo: PASS");
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => println!("demo: FAIL: {error:#}"),
        }
    } else {
        println!("{}", log::tail(&outcome.log, 25));
        let why = outcome.end.to_string().replace('\n', " ");
        println!("demo: FAIL: {}", why.strip_prefix("FAIL: ").unwrap_or(&why));
    }
    Ok(ExitCode::FAILURE)
}

fn any_seed() -> u64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    now.as_secs() ^ u64::from(now.subsec_nanos())
}

/// Checks that every comparison was made under every kernel: a pass of the guest only means that no comparison
/// failed.
fn complete(lives: &[Life], kept: &[(&str, &str)]) -> Result<()> {
    for (hop, life) in lives.iter().enumerate() {
        for (key, name) in kept {
            bytes(life, key).with_context(|| {
                format!("{name} was not compared under {} (hop {hop})", life.release)
            })?;
        }
    }
    Ok(())
}

fn bytes(life: &Life, key: &str) -> Option<u64> {
    life.values.get(&format!("{key}.bytes"))?.parse().ok()
}

fn table(outcome: &Outcome, kept: &[(&str, &str)]) -> String {
    let mut text =
        String::from("hop  kernel                     bytes        verified  exec to init\n");
    let times = hop_times(&outcome.lives);
    for (hop, life) in outcome.lives.iter().enumerate() {
        let bytes: Vec<u64> = kept
            .iter()
            .filter_map(|(key, _)| bytes(life, key))
            .collect();
        let verified = match hop {
            0 => "(made)".into(),
            _ => format!("{} of {}", bytes.len(), kept.len()),
        };
        let time = match hop.checked_sub(1).and_then(|hop| times.get(hop)) {
            Some(time) => format!("{:.1} s", time.as_secs_f64()),
            None => "-".into(),
        };
        let sum: u64 = bytes.iter().sum();
        text.push_str(&format!(
            "{hop:>3}  {:<25}  {sum:<11}  {verified:<8}  {time}\n",
            life.release
        ));
    }
    text
}

fn show(line: &Line, event: Option<&Event>, verbose: bool) {
    match event {
        Some(Event::Boot { hop, release, .. }) => println!("\n[{hop}] {release}"),
        Some(Event::Same { key, .. }) => {
            let name = KEPT
                .iter()
                .chain(&IN_PLACE)
                .find(|(known, _)| known == key)
                .map_or(key.as_str(), |(_, name)| name);
            println!("    {name}: hash taken and compared by the host");
        }
        Some(Event::Exec { hop }) => println!("[{hop}] kho exec"),
        Some(_) => {}
        None if is_script_output(line, event) => println!("    {}", line.text),
        None if verbose => println!("    kernel: {}", line.text),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn life(values: &[(&str, &str)]) -> Life {
        let values = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Life {
            booted: Instant::now(),
            release: "6.1.0".into(),
            left: None,
            values,
        }
    }

    #[test]
    fn nothing_compared_is_no_pass() {
        let all = [
            ("tree.bytes", "10"),
            ("letter.bytes", "1"),
            ("random.bytes", "2"),
        ];
        assert!(complete(&[life(&all), life(&all)], &KEPT).is_ok());
        let error = complete(&[life(&all), life(&all[..2])], &KEPT).expect_err("one is missing");
        assert!(format!("{error:#}").contains("random"));
    }
}
