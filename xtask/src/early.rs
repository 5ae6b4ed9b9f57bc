//! `cargo xtask early-ranges`: how many early reservations kernels really take, on each firmware.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::lab::{End, Lab};
use crate::qemu::Firmware;
use crate::scenarios::Scenario;

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
    let lab = Lab::open(None)?;
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
                let outcome = scenario(kernel, firmware, count).run(&lab, &mut |_, _| {});
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

/// One hop from 6.1 into `kernel` with `count` reservations, of which each is checked before and after all free
/// memory was written to.
pub fn scenario(kernel: &str, firmware: Firmware, count: u64) -> Scenario {
    let mut names = crate::kernel::names().into_iter();
    let kernel = names.find(|name| *name == kernel).unwrap_or("6.1");
    let on = match firmware {
        Firmware::Bios => "bios",
        Firmware::Uefi => "uefi",
        Firmware::UefiTpm => "uefi-tpm",
    };
    Scenario::new(
        format!("early-{kernel}-{on}"),
        format!("{kernel} on {on} takes {count} early reservations"),
    )
    .kernels(&["6.1", kernel])
    .firmware(firmware)
    .first(&format!(
        "kho-guest bytes $((4 << 20)) | kho keep --name room -
         kho plan \"$KHO_NEXT_KERNEL\" --initrd \"$KHO_NEXT_INITRD\" --append \"$KHO_NEXT_CMDLINE\" --json |
             kho-guest load-crowd {count} \"$KHO_NEXT_KERNEL\" --initrd \"$KHO_NEXT_INITRD\" --append \"$KHO_NEXT_CMDLINE\"
         kho-guest loaded --bare"
    ))
    .each(&format!(
        "kho-guest ranges --at-least {count}
         kho status
         kho-guest fill
         kho-guest ranges --at-least {count}
         kho status"
    ))
    .timeout_s(90)
}
