//! `kho doctor`: checks whether this machine can hand over.

use crate::args::Doctor;
use crate::exit::{Fail, OrStatus, Status};
use crate::handover::by_initrd;
use crate::handover::machine::refuse;
use crate::handover::native;
use crate::output::{self, Output};
use crate::session::Session;
use kho::headroom::{self, CmdlineMemory, HeadroomInput, UserSpace};
use kho::image::{ImageNeeds, InitrdNeeds, KernelNeeds};
use kho::{PhysAddr, PhysRange, RangeSet};
use kho_kexec::sys::doctor::{self, Finding, Severity};
use kho_kexec::sys::facts::host::{KernelId, online_cpus};
use kho_kexec::sys::facts::memmap::FirmwareMap;
use kho_kexec::sys::root::ATTRIBUTE_LIMIT;
use serde_json::json;

/// [`Finding::id`] of the estimate.
const HEADROOM: &str = "headroom";

/// Length of the longest severity, in columns.
const SEVERITY: usize = 5;

/// Distance of two columns of a table.
const GAP: usize = 2;

/// Largest sizes of Debian's kernel and initrd, in bytes, for an estimate without files.
const TYPICAL: (u64, u64) = (64 << 20, 48 << 20);

/// Runs `kho doctor`.
///
/// # Errors
///
/// The status of the first blocking finding, after all findings were printed.
pub fn run(args: &Doctor, session: &Session, out: Output) -> Result<(), Fail> {
    let mut findings = doctor::examine(&session.root);
    // If the map or the command line cannot be read, another finding already says so.
    findings.extend(estimate(session).ok());
    if let Ok(kernel) = KernelId::read(&session.root) {
        findings.push(native::finding(&kernel.release, &session.root));
    }
    let carriers = by_initrd::finding(&mut findings, &session.root);
    findings.push(carriers);
    let list = findings.as_slice();
    let ready = doctor::worst(list) < Severity::Block;
    let doc: Vec<_> = list
        .iter()
        .map(|f| json!({ "id": f.id, "severity": f.severity.to_string(), "what": f.what, "details": f.details, "fix": f.fix }))
        .collect();
    out.result(&json!({ "findings": doc, "ready": ready }), || {
        print!("{}", shown(list, args.verbose));
        println!();
        if ready {
            println!(
                "this machine can hand over; kho plan KERNEL shows how much fits beside a kernel"
            );
        }
        if !args.verbose {
            println!("kho doctor --verbose explains each line");
        }
    });
    refuse(list)
}

/// Formats findings for people, each as the fact, with `verbose` its explanation, and the advice. Wraps lines between
/// words, at [`output::WIDTH`] columns.
fn shown(findings: &[Finding], verbose: bool) -> String {
    let mut rows = Vec::new();
    let ids = findings.iter().map(|f| f.id.len()).max().unwrap_or(0);
    let width = output::WIDTH.saturating_sub(SEVERITY + ids + 2 * GAP);
    for finding in findings {
        let mut lines = output::wrap(&finding.what, "", width);
        if verbose {
            lines.extend(output::wrap(&finding.details, "", width));
        }
        lines.extend(output::wrap(&finding.fix, "-> ", width));
        for (number, line) in lines.into_iter().enumerate() {
            let (severity, id) = match number {
                0 => (finding.severity.to_string(), finding.id.to_owned()),
                _ => (String::new(), String::new()),
            };
            rows.push(vec![severity, id, line]);
        }
    }
    output::table(&rows, &[])
}

/// Estimates how much memory can be kept if the next kernel is a usual one with the running kernel's command line.
fn estimate(session: &Session) -> Result<Finding, Fail> {
    let map = FirmwareMap::read(&session.root).or_status(Status::FirmwareMap)?;
    let line = session
        .root
        .bytes("proc/cmdline", ATTRIBUTE_LIMIT)
        .or_status(Status::Failed)?;
    let cmdline = CmdlineMemory::parse(&line, map.ram().total()).or_status(Status::Failed)?;
    let image = ImageNeeds {
        kernel: KernelNeeds {
            file_len: TYPICAL.0,
            mem_size: TYPICAL.0,
            align: 2 << 20,
            preferred: PhysAddr::new(16 << 20),
            above_4g: true,
            random: None,
        },
        initrd: Some(InitrdNeeds {
            len: TYPICAL.1,
            unpacked: 4 * TYPICAL.1,
            max_addr: PhysAddr::new(u64::MAX),
        }),
        params_len: kho::PAGE_SIZE,
    };
    let report = headroom::report(&HeadroomInput {
        ram: &cmdline.usable(map.ram()).or_status(Status::Failed)?,
        reserved: &RangeSet::new(),
        scratch: PhysRange::new(PhysAddr::new(16 << 20), 128 << 20).or_status(Status::Failed)?,
        image: &image,
        cmdline: &cmdline,
        user_space: UserSpace {
            cpus: online_cpus(&session.root),
            copies: 0,
            native_nodes: None,
        },
    })
    .or_status(Status::Failed)?;
    // kexec_load accepts half of the memory, including the image, and everything is copied that has not arrived.
    let spare = report
        .free_total
        .saturating_sub(report.need_total)
        .min((map.ram().total() / 2).saturating_sub(TYPICAL.0 + TYPICAL.1));
    let details = format!(
        "A kernel like Debian's with this command line needs about {} of {} to start.",
        output::bytes(report.need_total),
        output::bytes(report.free_total)
    );
    Ok(if spare > 0 {
        Finding {
            id: HEADROOM,
            severity: Severity::Ok,
            what: format!(
                "a kernel like Debian's leaves about {} to keep",
                output::bytes(spare)
            ),
            details,
            fix: String::new(),
        }
    } else {
        Finding {
            id: HEADROOM,
            severity: Severity::Warn,
            what: "a kernel like Debian's leaves nothing to keep".to_owned(),
            details,
            fix: "lower crashkernel= and hugepages= of the next kernel".to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_explains_each_finding() {
        let page = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../docs/src/operations/doctor.md"
        );
        let page = std::fs::read_to_string(page).unwrap();
        let entries: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'))
            .collect();
        let ids = [
            doctor::IDS,
            &[HEADROOM, native::FINDING, by_initrd::FINDING],
        ]
        .concat();
        assert_eq!(entries, ids);
    }

    #[test]
    fn a_long_finding_is_wrapped_and_keeps_its_words() {
        let words = |what: &str| format!("{}end-of-{what}", "word ".repeat(40));
        let path = format!("/{}", "x".repeat(120));
        let finding = |details| Finding {
            id: "hardware-corrupted",
            severity: Severity::Block,
            what: words("what"),
            details,
            fix: words("fix"),
        };
        let findings = [finding(words("details")), finding(path.clone())];
        let (short, long) = (shown(&findings, false), shown(&findings, true));
        for line in short.lines().chain(long.lines()) {
            assert!(
                line.chars().count() <= output::WIDTH || line.trim() == path,
                "{line}"
            );
        }
        assert!(!short.contains("details") && long.contains(&path), "{long}");
        let plain = long.split_whitespace().collect::<Vec<_>>().join(" ");
        for what in ["what", "details", "fix"] {
            assert!(plain.contains(words(what).trim()), "{what}: {long}");
        }
    }
}
