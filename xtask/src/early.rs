//! `cargo xtask early-ranges`: how many early reservations kernels really take, on each firmware.

use std::process::ExitCode;

use anyhow::{Result, bail};
use kho_cases::Stock;
use kho_cases::scenarios::early::scenario;
use kho_lab::qemu::Firmware;
use kho_lab::run::End;

/// Counts that are tried.
const TRIED: [u64; 8] = [64, 80, 96, 104, 112, 116, 120, 124];

/// Measure how many separate early reservations each kernel takes from us, and print a table.
///
/// A count holds when the kernel boots, all ranges are reserved, and they still are after all free memory was written
/// to. The largest count that holds is searched for by halving.
#[derive(clap::Args)]
pub struct Arguments {
    /// Kernels to arrive in.
    #[arg(long, default_values_t = ["6.1", "6.12", "7.3"].map(str::to_owned))]
    kernel: Vec<String>,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let stock = Stock::open(None)?;
    println!("| kernel | firmware | largest count that holds | smallest that does not |");
    println!("| --- | --- | --- | --- |");
    for kernel in &arguments.kernel {
        for (name, firmware) in [
            ("BIOS", Firmware::Bios),
            ("UEFI", Firmware::Uefi),
            ("UEFI and TPM", Firmware::UefiTpm),
        ] {
            let (mut good, mut bad) = (None, None);
            let (mut from, mut to) = (0, TRIED.len());
            while from < to {
                let middle = usize::midpoint(from, to);
                let count = TRIED[middle];
                let outcome = scenario(kernel, firmware, count).run(&stock, &mut |_, _| {});
                match outcome.end {
                    End::Pass => {
                        good = Some(count);
                        from = middle + 1;
                    }
                    End::Broken(why) => bail!("{kernel}, {name}, {count}: {why}"),
                    end => {
                        eprintln!("early-ranges: {kernel}, {name}, {count}: {end:?}");
                        bad = Some(count);
                        to = middle;
                    }
                }
            }
            let show = |count: Option<u64>| count.map_or("none".to_owned(), |n| n.to_string());
            println!("| {kernel} | {name} | {} | {} |", show(good), show(bad));
        }
    }
    Ok(ExitCode::SUCCESS)
}
