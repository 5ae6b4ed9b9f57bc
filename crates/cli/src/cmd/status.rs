//! `kho status`: shows the content that arrived, the keep list and the loaded kernel.

use crate::armed;
use crate::arrived::{Arrived, carrier_name};
use crate::exit::{Fail, OrStatus, Status};
use crate::khofs;
use crate::last::Attempt;
use crate::list::{self, Entry};
use crate::loaded;
use crate::module;
use crate::output::{self, Output, bytes};
use crate::release::to_be_reserved;
use crate::session::Session;
use crate::shown;
use crate::state::KeepFile;
use crate::trace::wish;
use drivers::Drivers;
use kho::abi::Carrier;
use kho::abi::kernel_part::KernelPart;
use kho::abi::setup_data::{SETUP_KHO_LATE, SETUP_KHO_RESERVE};
use kho::{PhysAddr, PhysRange};
use kho_kexec::sys::doctor::without_huge_pages;
use kho_kexec::sys::facts::boot::SetupData;
use kho_kexec::sys::facts::kexec::KexecState;
use kho_kexec::sys::pageflags::PageFlags;
use serde_json::{Value, json};

mod drivers;

/// Result of the check of one reserved range.
struct Reservation {
    range: PhysRange,
    /// First page that is not reserved; `None` if all pages are.
    broken_at: Option<PhysAddr>,
}

/// Runs `kho status`.
///
/// # Errors
///
/// [`Status::NotReserved`] if a range is not reserved, after everything was printed. [`Status::TreeCorrupt`] or another
/// status if a tree arrived that cannot be read.
pub fn run(session: &Session, out: Output) -> Result<(), Fail> {
    // Damage to the handover is reported first. The rest is shown all the same.
    let (arrived, damaged) = match session.arrived() {
        Ok(arrived) => (arrived.as_ref(), None),
        Err(fail) if matches!(fail.status, Status::TreeCorrupt | Status::UnknownVersion) => {
            (None, Some(fail))
        }
        Err(fail) => return Err(fail),
    };
    let keep = session.state.keep()?;
    let entries = list::effective(arrived, &keep);
    let trace = wish::effective(arrived, &keep);
    let reservations = match arrived {
        Some(arrived) => check(arrived, &keep.released, session)?,
        None => Vec::new(),
    };
    let setup = SetupData::read(&session.root).or_status(Status::NotPermitted)?;
    let held: Vec<u64> = setup
        .iter()
        .flat_map(|data| &data.nodes)
        .filter(|node| [SETUP_KHO_RESERVE, SETUP_KHO_LATE].contains(&node.kind))
        .map(|node| node.len)
        .collect();
    // The firmware and other loaders leave nodes too. `kho` does not have to close those to users.
    let closed = held.is_empty() || setup.as_ref().is_none_or(SetupData::is_closed);
    let loaded = loaded(session)?;
    let last = Attempt::last(&session.root);
    let drivers = Drivers::ask(session)?;
    let left = module::arrived_part(session, arrived)?;
    let instances = khofs::instances(&session.root)?;
    let single = without_huge_pages(&session.root);
    let doc = json!({
        "arrived": arrived.map(|a| arrived_json(a, &keep, &reservations)),
        "damaged": damaged.as_ref().map(|fail| json!({
            "error": fail.status.name(),
            "what": fail.what,
            "ranges": held.len(),
            "bytes": held.iter().sum::<u64>(),
        })),
        "hop": arrived.map_or(0, |a| a.hop),
        "closed_to_users": closed,
        "keep": entries.iter().map(Entry::json).collect::<Vec<_>>(),
        "keep_trace": trace,
        "loaded": loaded,
        "last_capture": last,
        "module": drivers.as_ref().map(Drivers::json),
        "khofs": khofs::json(instances.as_deref()),
        "khofs_without_huge_pages": single,
    });
    out.result(&doc, || {
        match (arrived, &damaged) {
            (Some(arrived), _) => print_arrived(arrived, &keep, &reservations, closed),
            (None, Some(_)) => print_damaged(&held, closed),
            (None, None) => println!("arrived   nothing: this was an ordinary boot"),
        }
        println!();
        println!("{}", print_keep(&entries));
        if let Some(trace) = trace {
            println!("          {}", trace.text());
        }
        match &loaded {
            Value::Null => println!("loaded    nothing"),
            doc => println!("loaded    {}", doc["text"].as_str().unwrap_or_default()),
        }
        if let Some(last) = &last {
            println!("captured  {}", last.text());
        }
        match &drivers {
            Some(drivers) => drivers.print(instances.as_deref().unwrap_or_default()),
            None => print_left(left.as_ref()),
        }
        khofs::print(instances.as_deref(), single.as_deref());
    });
    if let Some(fail) = damaged {
        return Err(fail);
    }
    verdict(&reservations, closed, drivers.is_some())
}

/// Prints that a tree arrived that cannot be read. `held` has the lengths of its ranges, in bytes.
fn print_damaged(held: &[u64], closed: bool) {
    println!(
        "arrived   DAMAGED: {} of it, {}, held by this kernel; {}",
        output::count(held.len(), "range", "ranges"),
        bytes(held.iter().sum()),
        if closed {
            "closed to other users"
        } else {
            "OPEN TO ALL USERS"
        }
    );
}

/// Prints what drivers of an earlier kernel left, for a kernel without the module.
fn print_left(left: Option<&Result<KernelPart, String>>) {
    match left {
        Some(Ok(_)) => println!(
            "module    not loaded; what drivers left stays reserved, and the next load names it again"
        ),
        Some(Err(why)) => {
            println!("module    not loaded; what drivers left is ignored and stays reserved: {why}")
        }
        None => {}
    }
}

/// Fails if a page that was handed over is not reserved, or if any user can read memory that was handed over.
fn verdict(reservations: &[Reservation], closed: bool, module: bool) -> Result<(), Fail> {
    match reservations.iter().find_map(|r| Some((r.range, r.broken_at?))) {
        Some((range, at)) => Err(Fail::new(
            Status::NotReserved,
            format!("{range} was handed over, but the page at {at} is not reserved in this kernel"),
        )
        .fix(if module {
            "treat the entries in this range as lost, and report it with the output of kho dump"
        } else {
            "if kho.ko was loaded in this boot, it gave that memory back: load it again, because it knows what is left. Otherwise treat the entries in this range as lost, and report it with the output of kho dump"
        })),
        None if !closed => Err(Fail::new(
            Status::NotReserved,
            "any user can read what was handed over: /sys/kernel/boot_params/setup_data is not closed",
        )
        .fix("chmod 0700 /sys/kernel/boot_params/setup_data; the arrival program did not run")),
        None => Ok(()),
    }
}

/// Checks every range that has to be reserved.
fn check(
    arrived: &Arrived,
    released: &[String],
    session: &Session,
) -> Result<Vec<Reservation>, Fail> {
    let ranges = to_be_reserved(arrived, released, session);
    let flags = PageFlags::open(&session.root)
        .or_status(Status::NotPermitted)
        .map_err(|fail| fail.root("reservations are checked in /proc/kpageflags"))?;
    ranges
        .into_iter()
        .map(|range| {
            let broken_at = flags
                .first_not_reserved(range)
                .or_status(Status::NotPermitted)?;
            Ok(Reservation { range, broken_at })
        })
        .collect()
}

fn loaded(session: &Session) -> Result<Value, Fail> {
    let state = KexecState::read(&session.root).or_status(Status::Failed)?;
    if state.loaded != Some(true) {
        return Ok(Value::Null);
    }
    Ok(match loaded::require_ours(session) {
        Ok(record) => {
            // The active phase of the image may be over while the image is still loaded.
            let stale = loaded::require_phase(&record, session).err();
            let mut text = format!(
                "{} for hop {}, {} kept, at {}",
                record.release,
                record.hop,
                bytes(record.bytes),
                output::time(record.time)
            );
            if let Some(fail) = &stale {
                text.push_str(&format!("; STALE, {}: {}", fail.what, fail.fix));
            }
            json!({
                "by": "kho",
                "release": record.release,
                "hop": record.hop,
                "bytes": record.bytes,
                "generation": format!("{:#x}", record.generation),
                "time": record.time,
                "stale": stale.map(|fail| fail.what),
                "text": text,
            })
        }
        Err(fail) => match armed::armed(session)? {
            Some(armed) => json!({
                "by": "kho",
                "armed": true,
                "release": armed.release,
                "on_failure": armed.on_failure,
                "time": armed.time,
                "text": format!("{} is armed; its content is taken when the system stops", armed.release),
            }),
            None => json!({ "by": "unknown", "text": fail.what }),
        },
    })
}

fn arrived_json(arrived: &Arrived, keep: &KeepFile, reservations: &[Reservation]) -> Value {
    let blobs: Vec<Value> = arrived
        .blobs
        .iter()
        .map(|b| {
            json!({
                "name": b.label,
                "path": b.path.as_ref().map(shown::path),
                "size": b.size,
                "taken": b.taken,
                "arrived_hop": b.arrived_hop,
                "restored": keep.restored.contains(&b.label),
                "released": keep.released.contains(&b.label),
                "blake3": blake3::Hash::from_bytes(b.blake3).to_hex().to_string(),
            })
        })
        .collect();
    let ranges: Vec<Value> = reservations
        .iter()
        .map(|r| {
            json!({
                "addr": format!("{:#x}", r.range.start().get()),
                "len": r.range.len(),
                "reserved": r.broken_at.is_none(),
            })
        })
        .collect();
    let traces: Vec<Value> = arrived
        .traces
        .iter()
        .flat_map(|traces| &traces.hops)
        .map(|hop| json!({ "hop": hop.hop, "release": hop.release, "taken": hop.taken, "size": hop.size() }))
        .collect();
    let unknown: Vec<Value> = arrived
        .unknown
        .iter()
        .map(|(node, compatible)| json!({ "node": node, "compatible": compatible }))
        .collect();
    json!({
        "hop": arrived.hop,
        "generation": format!("{:#x}", arrived.generation),
        "previous_release": arrived.previous_release,
        "time": arrived.time,
        "carrier": carrier_name(arrived.carrier),
        "scratch": arrived.scratch.map(|scratch| {
            json!({ "addr": format!("{:#x}", scratch.start().get()), "len": scratch.len() })
        }),
        "blobs": blobs,
        "ranges": ranges,
        "ranges_reserved": reservations.iter().all(|r| r.broken_at.is_none()),
        "traces": traces,
        "unknown": unknown,
    })
}

fn print_arrived(arrived: &Arrived, keep: &KeepFile, reservations: &[Reservation], closed: bool) {
    println!(
        "arrived   hop {} from {}, loaded {}",
        arrived.hop,
        arrived.previous_release,
        output::time(arrived.time)
    );
    let held = reservations
        .iter()
        .filter(|r| r.broken_at.is_none())
        .count();
    if arrived.carrier == Carrier::Initrd {
        println!("carrier   the initrd: content is in files, and no memory is reserved");
    } else {
        println!(
            "reserved  {held} of {} {} verified, {}; {}",
            reservations.len(),
            if reservations.len() == 1 {
                "range"
            } else {
                "ranges"
            },
            bytes(reservations.iter().map(|r| r.range.len()).sum()),
            if closed {
                "closed to other users"
            } else {
                "OPEN TO ALL USERS"
            }
        );
    }
    if let Some(scratch) = arrived.scratch {
        println!("scratch   {scratch}  {}", bytes(scratch.len()));
    }
    if !arrived.blobs.is_empty() {
        println!();
        let mut rows = vec![
            ["NAME", "SIZE", "SINCE HOP", "STATE", "PATH"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for blob in &arrived.blobs {
            let has = |list: &[String]| list.contains(&blob.label);
            let state = match &blob.path {
                _ if has(&keep.restored) => "restored",
                _ if has(&keep.released) => "released",
                Some(_) => "not restored",
                None => "kho get",
            };
            rows.push(vec![
                blob.label.clone(),
                bytes(blob.size),
                blob.arrived_hop.to_string(),
                state.to_owned(),
                blob.path.as_ref().map(shown::path).unwrap_or_default(),
            ]);
        }
        print!("{}", output::table(&rows, &[1, 2]));
    }
    for hop in arrived.traces.iter().flat_map(|traces| &traces.hops) {
        println!(
            "trace     hop {}, {}, {}: kho trace, kho log",
            hop.hop,
            hop.release,
            bytes(hop.size())
        );
    }
    for (node, compatible) in &arrived.unknown {
        println!("unknown   node {node} ({compatible}) is left alone; a newer kho may know it");
    }
}

fn print_keep(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "kept      nothing: kho keep PATH...".to_owned();
    }
    let names: Vec<String> = entries.iter().map(|e| e.label.clone()).collect();
    format!("kept      {}: {}", entries.len(), names.join(", "))
}

/// Runs `kho status --exit-statuses`.
///
/// # Errors
///
/// None.
pub fn exit_statuses(out: Output) -> Result<(), Fail> {
    let doc: Vec<Value> = Status::ALL
        .iter()
        .map(|s| json!({ "status": s.code(), "name": s.name(), "meaning": s.meaning() }))
        .collect();
    out.result(&doc, || {
        let rows: Vec<Vec<String>> = Status::ALL
            .iter()
            .map(|s| {
                vec![
                    s.code().to_string(),
                    s.name().to_owned(),
                    s.meaning().to_owned(),
                ]
            })
            .collect();
        print!("{}", output::table(&rows, &[0]));
    });
    Ok(())
}
