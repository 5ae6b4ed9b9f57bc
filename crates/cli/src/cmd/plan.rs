//! `kho plan`: shows what a load would do.

use crate::args;
use crate::entries;
use crate::exit::{Fail, Status};
use crate::handover::by_initrd::{self, Prepared};
use crate::handover::memory;
use crate::handover::next::Files;
use crate::handover::prepare::Inputs;
use crate::keepd;
use crate::map::{self, Kind};
use crate::module;
use crate::output::{self, Output, bytes};
use crate::session::Session;
use crate::trace::carry::Carry;
use kho::plan::{Content, Plan};
use kho::{PhysRange, RangeSet};
use kho_format::svg::{self, Area};
use serde_json::{Value, json};
use std::path::Path;

/// Rows and columns of the memory map.
const MAP: (usize, usize) = (12, 64);

/// Runs `kho plan`.
///
/// # Errors
///
/// The errors of `kho load`. Nothing is changed.
pub fn run(args: &args::Plan, session: &Session, out: Output) -> Result<(), Fail> {
    let wanted = entries::resolve(&args.choice, &args.next, &session.root, out)?;
    let files = Files::read(&wanted)?;
    let arrived = session.carried(wanted.forget_arrived)?;
    let next = files.parse(&wanted, &session.root, arrived.is_none())?;
    files.report(&wanted, out);
    next.native.report(out);
    let (keep, changes) = keepd::for_handover(session, wanted.forget_arrived)?;
    keepd::report(&changes, out);
    for left in &changes.left_out {
        out.warn(&format!("{left}, as of now"));
    }
    let in_place = || {
        let inputs = Inputs::gather(
            session,
            &keep,
            arrived,
            &next,
            &wanted,
            module::outgoing_part(session, arrived, out)?,
            None,
        )?;
        let plan = inputs.plan(&RangeSet::new())?;
        memory::require(&inputs, &plan, session)?;
        if let Some(path) = &args.svg {
            write_svg(path, &inputs, &plan)?;
        }
        out.result(&to_json(&inputs, &plan), || print(&inputs, &plan));
        Ok(())
    };
    let by_initrd = || -> Result<(), Fail> {
        let prepared = Prepared::gather(&wanted, &files, arrived, &keep, session, out)?;
        out.result(&by_initrd_json(&prepared), || print_by_initrd(&prepared));
        Ok(())
    };
    by_initrd::choose(wanted.carrier, in_place, by_initrd)
}

fn by_initrd_json(prepared: &Prepared) -> Value {
    let items = prepared.payloads.items.iter();
    let entries: Vec<Value> = items
        .map(|item| json!({ "name": item.entry.label, "size": item.size, "copied": true }))
        .collect();
    json!({
        "carrier": "initrd",
        "release": prepared.release,
        "hop": prepared.hop,
        "entries": entries,
        "bytes": prepared.content,
    })
}

fn print_by_initrd(prepared: &Prepared) {
    println!(
        "{} gets {} in its initrd: {} of content",
        prepared.release,
        output::count(prepared.payloads.items.len(), "entry", "entries"),
        bytes(prepared.content),
    );
    for item in &prepared.payloads.items {
        println!("  {:<24} {}", item.entry.label, bytes(item.size));
    }
    println!("no memory stays in place, and drivers hand nothing over");
}

fn range(range: PhysRange) -> Value {
    json!({ "addr": format!("{:#x}", range.start().get()), "len": range.len() })
}

fn to_json(inputs: &Inputs<'_>, plan: &Plan) -> Value {
    let entries: Vec<Value> = inputs
        .payloads
        .items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            json!({
                "name": item.entry.label,
                "size": item.size,
                "copied": item.stays().is_none(),
                "mem": plan.blob_pieces(index).map(|p| range(p.dest)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let cache: Vec<Value> = plan
        .mem_cache
        .entries()
        .iter()
        .map(|e| json!({ "range": range(e.range), "kept": e.kept_bytes, "slack": e.slack_bytes, "kept_ranges": e.kept_ranges }))
        .collect();
    let headroom: Vec<Value> = plan
        .headroom
        .terms
        .iter()
        .map(|t| json!({ "for": t.kind.label(), "total": t.total, "below_4g": t.low }))
        .collect();
    json!({
        "kernel": inputs.next.path,
        "release": inputs.next.image.release(),
        "entry": inputs.next.way,
        "hop": inputs.hop,
        "scratch": range(plan.scratch),
        "image": {
            "kernel": range(plan.image.kernel.segment()),
            "initrd": plan.image.initrd.map(|p| range(p.segment())),
            "params": range(plan.image.params.segment()),
        },
        "state": plan.state().map(range),
        "traces": inputs.payloads.traces.as_ref().map(Carry::rows),
        "traces_given_back": inputs.payloads.traces.as_ref().map(|traces| traces.given_back.iter().map(|(hop, _)| hop).collect::<Vec<_>>()),
        "entries": entries,
        "mem_cache": cache,
        "early_ranges": plan.totals.early_entries,
        "early_ranges_cap": inputs.limits.max_entries,
        "bytes": {
            "image": plan.totals.image,
            "payload": plan.totals.payload,
            "in_place": plan.totals.in_place,
            "slack": plan.totals.slack,
            "memory_at_load": plan.totals.memory_at_load,
            "load_limit": inputs.limits.load_limit,
            "failed": inputs.machine.failed.total(),
            "available": inputs.machine.memory.available,
        },
        "headroom": {
            "terms": headroom,
            "need_total": plan.headroom.need_total,
            "free_total": plan.headroom.free_total,
            "need_below_4g": plan.headroom.need_low,
            "free_below_4g": plan.headroom.free_low,
        },
        "native_kho_on": inputs.next.native.nodes.is_some(),
        "native_kho_added": inputs.next.native.add,
        "command_line": String::from_utf8_lossy(&inputs.next.cmdline.line),
    })
}

fn print(inputs: &Inputs<'_>, plan: &Plan) {
    println!(
        "next     {} ({}), hop {}",
        inputs.next.image.release().unwrap_or("unknown release"),
        inputs.next.path,
        inputs.hop
    );
    println!("entry    {}", inputs.next.way);
    println!("scratch  {}  {}", plan.scratch, bytes(plan.scratch.len()));
    print_kept(inputs, plan);
    print_reserved(inputs, plan);
    print_memory(inputs, plan);
    println!();
    print!(
        "{}",
        map::draw(&inputs.machine.ram, &parts(inputs, plan), MAP.0, MAP.1)
    );
}

fn print_kept(inputs: &Inputs<'_>, plan: &Plan) {
    let mut rows = vec![
        ["KEPT", "SIZE", "HOW", "PIECES"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (index, item) in inputs.payloads.items.iter().enumerate() {
        let how = if item.stays().is_none() {
            "copied"
        } else {
            "stays in place"
        };
        rows.push(vec![
            item.entry.label.clone(),
            bytes(item.size),
            how.to_owned(),
            plan.blob_pieces(index).count().to_string(),
        ]);
    }
    for row in inputs.payloads.traces.iter().flat_map(Carry::rows) {
        rows.push(vec![
            format!("trace of {} (hop {})", row.release, row.hop),
            bytes(
                row.buffers
                    .saturating_add(row.log)
                    .saturating_add(row.other),
            ),
            if row.copied {
                "copied"
            } else {
                "stays in place"
            }
            .to_owned(),
            format!("buffers {}, log {}", bytes(row.buffers), bytes(row.log)),
        ]);
    }
    if rows.len() == 1 {
        println!("\nnothing is kept");
    } else {
        println!();
        print!("{}", output::table(&rows, &[1, 3]));
    }
    for remark in inputs.payloads.traces.iter().flat_map(Carry::remarks) {
        println!("note: {remark}");
    }
}

fn print_reserved(inputs: &Inputs<'_>, plan: &Plan) {
    println!();
    let mut rows = vec![
        ["RESERVED EARLY", "SIZE", "KEPT", "SLACK", "RANGES"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for entry in plan.mem_cache.entries() {
        rows.push(vec![
            entry.range.to_string(),
            bytes(entry.range.len()),
            bytes(entry.kept_bytes),
            bytes(entry.slack_bytes),
            entry.kept_ranges.to_string(),
        ]);
    }
    print!("{}", output::table(&rows, &[1, 2, 3, 4]));
    println!(
        "{} of at most {} early reservations",
        plan.totals.early_entries, inputs.limits.max_entries
    );
    if !inputs.machine.failed.is_empty() {
        println!(
            "{} of memory failed: the kernels after this one do not use it",
            bytes(inputs.machine.failed.total())
        );
    }
}

fn print_memory(inputs: &Inputs<'_>, plan: &Plan) {
    let totals = &plan.totals;
    println!();
    println!(
        "load     needs {} of memory until the exec, {} is available; kexec_load takes {} of at most {}",
        bytes(totals.memory_at_load),
        bytes(inputs.machine.memory.available),
        bytes(totals.image.saturating_add(totals.payload)),
        bytes(inputs.limits.load_limit)
    );
    let headroom = &plan.headroom;
    println!(
        "headroom the next kernel finds {} free and needs {}:",
        bytes(headroom.free_total),
        bytes(headroom.need_total)
    );
    if headroom.has_high {
        println!(
            "         below 4 GiB {} and {}:",
            bytes(headroom.free_low),
            bytes(headroom.need_low)
        );
    }
    let terms: Vec<Vec<String>> = headroom
        .terms
        .iter()
        .filter(|t| t.total > 0 || t.low > 0)
        .map(|t| {
            vec![
                String::from("        "),
                bytes(t.total),
                t.kind.label().to_owned(),
            ]
        })
        .collect();
    print!("{}", output::table(&terms, &[1]));
}

/// Writes the memory map as an image.
fn write_svg(path: &Path, inputs: &Inputs<'_>, plan: &Plan) -> Result<(), Fail> {
    let parts = parts(inputs, plan);
    let parts: Vec<Area<'_>> = parts
        .iter()
        .map(|(range, kind)| Area {
            range: *range,
            kind: kind.legend().1,
            colour: kind.colour(),
        })
        .collect();
    let title = format!("Memory at hop {}: {}", inputs.hop, inputs.next.path);
    std::fs::write(path, svg::draw(&title, &inputs.machine.ram, &parts)).map_err(|err| {
        Fail::new(
            Status::Failed,
            format!("cannot write {}: {err}", path.display()),
        )
    })
}

fn parts(inputs: &Inputs<'_>, plan: &Plan) -> Vec<(PhysRange, Kind)> {
    let mut parts = vec![
        (plan.scratch, Kind::Scratch),
        (plan.image.kernel.segment(), Kind::Kernel),
    ];
    parts.extend(plan.image.initrd.map(|p| (p.segment(), Kind::Initrd)));
    parts.extend(plan.mem_cache.slack().iter().map(|r| (r, Kind::Slack)));
    parts.extend(inputs.in_place.iter().map(|r| (r, Kind::InPlace)));
    parts.extend(plan.pieces.iter().map(|p| {
        let kind = if p.content == Content::State {
            Kind::State
        } else {
            Kind::Blob
        };
        (p.dest, kind)
    }));
    parts
}
