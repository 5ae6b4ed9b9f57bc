//! `cargo xtask vm`: a user's scripts in a chain of kernels.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use kho_guest::Event;
use kho_lab::guest::Contents;
use kho_lab::qemu::{Firmware, Machine, Port};
use kho_lab::run::{End, Job, hop_times, is_script_output, log};
use kho_lab::{Arch, Lab};

/// Run your own scripts in a guest, before and after each hop from kernel to kernel.
///
/// The first kernel runs the script --first; then the guest does `kho load` of the next kernel and `kho exec`, and every
/// kernel after a hop runs the script --each. Scripts run as root by `sh -eu`, with `kho`, `kho-guest` and busybox in
/// PATH. The exit status is 0 only if every kernel's script succeeded, every hop arrived, and no kernel complained.
#[derive(clap::Args)]
#[command(after_long_help = ENVIRONMENT)]
pub struct Arguments {
    /// Architecture; with arm64, a kernel is 6.1, 6.12 or 7.3 (also 6.1-arm64 …).
    #[arg(long, value_enum, default_value_t)]
    arch: Arch,
    /// First kernel: 5.10, 6.1, 6.12, 7.3 or testing (also 6.1-amd64 …, for the flavour that is not for clouds), or a bzImage.
    #[arg(long, value_name = "KERNEL")]
    kernel: String,
    /// Next kernel; once per hop.
    #[arg(long = "then", value_name = "KERNEL")]
    then: Vec<String>,
    /// Script for the first kernel.
    #[arg(long, value_name = "SCRIPT")]
    first: Option<PathBuf>,
    /// Script for every kernel that is reached by a hop.
    #[arg(long, value_name = "SCRIPT")]
    each: Option<PathBuf>,
    /// Memory: a number of MiB, or with M or G.
    #[arg(long, default_value = "2G", value_parser = parse_mib)]
    mem: u64,
    /// Processors.
    #[arg(long, default_value_t = 2)]
    smp: u32,
    /// More parameters for every kernel.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    append: String,
    /// A file for the scripts, found in $KHO_FILES; may be repeated.
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// A module of the kernel, with what it depends on, to load in every kernel; may be repeated.
    #[arg(long, value_name = "NAME")]
    modprobe: Vec<String>,
    /// Build kho.ko and its companions for each kernel and load kho.ko before the scripts run, or those that are named
    /// (kho,kho_ring). All are at /lib/modules/$KHO_RELEASE/updates/NAME.ko.
    #[arg(long, value_name = "NAMES", num_args = 0..=1, default_missing_value = "kho", value_delimiter = ',')]
    module: Option<Vec<String>>,
    /// Firmware.
    #[arg(long, value_enum, default_value_t)]
    firmware: Firmware,
    /// Switch address space randomization off.
    #[arg(long)]
    no_kaslr: bool,
    /// Limit for everything, in seconds.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Show the kernels' messages too.
    #[arg(short, long)]
    verbose: bool,
    /// An argument for QEMU; may be repeated.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    qemu: Vec<String>,
    /// Use this static kho command instead of building it.
    #[arg(long, value_name = "PROGRAM")]
    kho: Option<PathBuf>,
}

const ENVIRONMENT: &str = "\
Scripts see:
  KHO_HOP           hops made so far, 0 in the first kernel
  KHO_HOPS          hops that there will be
  KHO_KERNEL        this kernel, as it was named
  KHO_RELEASE       this kernel's release
  KHO_FILES         folder with the files given by --file
  KHO_NEXT          the next kernel, as it was named; empty in the last
  KHO_NEXT_KERNEL, KHO_NEXT_INITRD, KHO_NEXT_CMDLINE
                    what `kho load` is going to be given; not set in the last
A script that has loaded the next kernel itself says so with `kho-guest loaded`.
`kho-guest --help` lists more tools: fill, make-tree, hash-tree, same, reserved …

Example:
  cargo xtask vm --kernel 6.1 --then 6.12 --first a.sh --each b.sh
  with a.sh:  echo hello | kho keep --name greeting -
  and b.sh:   kho get greeting";

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let lab = Lab::open(arguments.kho.as_deref())?;
    let names = std::iter::once(&arguments.kernel).chain(&arguments.then);
    let kernels = names
        .map(|name| {
            let kernel = lab.kernel(&arguments.arch.kernel(name))?;
            match arguments.module {
                Some(_) => lab.with_module(kernel),
                None => Ok(kernel),
            }
        })
        .collect::<Result<Vec<_>>>()?;
    let (first, each) = (
        read(arguments.first.as_deref())?,
        read(arguments.each.as_deref())?,
    );
    let scripts = std::iter::once(first)
        .chain(arguments.then.iter().map(|_| each.clone()))
        .collect();
    let kaslr = if arguments.no_kaslr { " nokaslr" } else { "" };
    let contents = Contents {
        kernels,
        scripts,
        append: format!("{}{kaslr}", arguments.append),
        modules: arguments.modprobe.clone(),
        ours: arguments.module.clone().unwrap_or_default(),
        files: arguments.file.clone(),
        ..Contents::default()
    };
    let machine = Machine {
        arch: arguments.arch,
        mem_mib: arguments.mem,
        smp: arguments.smp,
        firmware: arguments.firmware,
        extra: arguments.qemu.clone(),
        ..Machine::default()
    };
    let timeout = Duration::from_secs(arguments.timeout);
    let job = Job {
        name: "vm",
        machine: &machine,
        contents: &contents,
        timeout,
        steps: &[],
    };
    eprintln!(
        "xtask: making the guest's disk and starting {} ({} firmware, {} MiB)",
        arguments.kernel, arguments.firmware, arguments.mem
    );
    let outcome = lab.run(&job, &mut |line, event| {
        if let Some(event) = event {
            describe(event);
        } else if is_script_output(line, event) || arguments.verbose {
            println!(
                "{}{}",
                if line.port == Port::Console {
                    "kernel: "
                } else {
                    ""
                },
                line.text
            );
        }
    });
    for (hop, time) in hop_times(&outcome.lives).iter().enumerate() {
        eprintln!(
            "xtask: hop {}: {:.1} s from exec to init",
            hop + 1,
            time.as_secs_f64()
        );
    }
    eprintln!(
        "xtask: everything that was said is in {}",
        outcome.log.display()
    );
    Ok(match outcome.end {
        End::Pass => {
            eprintln!(
                "vm: PASS, {} kernels in {:.1} s",
                outcome.lives.len(),
                outcome.took.as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        end => {
            eprintln!("{}", log::tail(&outcome.log, 25));
            eprintln!("vm: {}", end);
            ExitCode::FAILURE
        }
    })
}

fn describe(event: &Event) {
    match event {
        Event::Boot { hop, release, .. } => eprintln!("xtask: stage {hop}: {release}"),
        Event::Verdict {
            hop, pass: true, ..
        } => eprintln!("xtask: stage {hop}: pass"),
        Event::Verdict { hop, why, .. } => eprintln!("xtask: stage {hop}: FAIL: {why}"),
        Event::Exec { hop } => eprintln!("xtask: hop {} begins", hop + 1),
        Event::Same { key, value } | Event::Report { key, value } => {
            eprintln!("xtask: {key}: {value}")
        }
        Event::Lives => {}
        Event::Mark { name } => eprintln!("xtask: at mark {name}"),
        Event::Skip { why } => eprintln!("xtask: skipped: {why}"),
        Event::Done => {}
    }
}

fn read(script: Option<&Path>) -> Result<Option<String>> {
    script
        .map(|path| {
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
        })
        .transpose()
}

fn parse_mib(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.to_ascii_uppercase() {
        text if text.ends_with('G') => (text.trim_end_matches('G').to_owned(), 1024),
        text => (text.trim_end_matches('M').to_owned(), 1),
    };
    let mib = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    mib.filter(|mib| (128..1 << 20).contains(mib))
        .ok_or_else(|| format!("{text:?} is not an amount such as 2G or 1536M"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory() {
        assert_eq!(parse_mib("2G"), Ok(2048));
        assert_eq!(parse_mib("1536m"), Ok(1536));
        assert_eq!(parse_mib("768"), Ok(768));
        assert!(parse_mib("-1").is_err() && parse_mib("2T").is_err() && parse_mib("0").is_err());
    }
}
