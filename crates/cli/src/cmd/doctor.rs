//! `kho doctor`: can this machine hand over?

use crate::exit::{Fail, Status};
use crate::output::{self, Output};
use crate::session::Session;
use kho_kexec::sys::doctor::{self, Finding, Severity};
use serde_json::json;

/// Runs `kho doctor`.
///
/// # Errors
///
/// The status of the first finding that blocks, after everything was printed.
pub fn run(session: &Session, out: Output) -> Result<(), Fail> {
    let findings = doctor::examine(&session.root);
    let list = findings.as_slice();
    let ready = doctor::worst(list) < Severity::Block;
    let doc: Vec<_> = list
        .iter()
        .map(|f| json!({ "id": f.id, "severity": f.severity.to_string(), "what": f.what, "fix": f.fix }))
        .collect();
    out.result(&json!({ "findings": doc, "ready": ready }), || {
        let mut rows = Vec::new();
        for finding in list {
            rows.push(vec![
                finding.severity.to_string(),
                finding.id.to_owned(),
                finding.what.clone(),
            ]);
            if !finding.fix.is_empty() {
                rows.push(vec![
                    String::new(),
                    String::new(),
                    format!("-> {}", finding.fix),
                ]);
            }
        }
        print!("{}", output::table(&rows, &[]));
        if ready {
            println!(
                "\nthis machine can hand over; headroom depends on the next kernel: kho plan KERNEL"
            );
        }
    });
    refuse(list)
}

/// Stops at the first finding that makes a handover impossible or unsafe.
///
/// # Errors
///
/// Its status.
pub fn refuse(findings: &[Finding]) -> Result<(), Fail> {
    match findings.iter().find(|f| f.severity == Severity::Block) {
        Some(finding) => Err(Fail::new(status_of(finding.id), &finding.what).fix(&finding.fix)),
        None => Ok(()),
    }
}

/// The status of a blocking finding.
fn status_of(id: &str) -> Status {
    match id {
        "privileges" | "page-flags" | "kernel-memory" | "page-map" => Status::NotPermitted,
        "kexec" => Status::KexecDisabled,
        "lockdown" | "ima" => Status::LockedDown,
        "firmware-map" | "hardware-corrupted" => Status::FirmwareMap,
        "memory-encryption" => Status::MemoryEncrypted,
        _ => Status::Unsupported,
    }
}
