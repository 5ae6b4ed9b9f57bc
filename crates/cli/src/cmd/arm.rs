//! `kho load --arm`: takes the kernel now, and the content at the end of the shutdown.
//!
//! `kho` copies kernel and initrd to RAM, because `/boot` may be gone or changed when the content is taken. Until then
//! an image must be loaded: `systemctl kexec` (and, since systemd 254, `reboot`) look at `/sys/kernel/kexec_loaded`
//! before they decide what to do. A user may start that image without `kho` (`kexec -e`). So the image is the stand-in,
//! which does what the administrator chose for a failed handover: it is a plain image of the same kernel, or an image
//! without a kernel that resets the machine ([`kho_kexec::stand_in`]). A kernel whose successor's initrd carries the
//! content loads only kernels, so there it is always the plain image.

use crate::args::Next;
use crate::armed;
use crate::arrived::Arrived;
use crate::carrier::Wanted;
use crate::exit::Fail;
use crate::handover::by_initrd::{self, Prepared};
use crate::handover::early;
use crate::handover::memory;
use crate::handover::next::{self, Files};
use crate::handover::places;
use crate::handover::prepare::Inputs;
use crate::handover::time;
use crate::keepd;
use crate::list;
use crate::module;
use crate::on_failure::OnFailure;
use crate::ordering;
use crate::output::{self, Output};
use crate::session::Session;
use crate::state::ArmedFile;
use kho::{PhysAddr, RangeSet};
use std::time::Duration;

/// Arms the kernel. The caller holds the lock.
///
/// # Errors
///
/// Every error that a load would have now. The image that was loaded or armed before then stays, unless the kernel
/// refused the plain image.
pub fn run(
    args: &Next,
    on_failure: Option<OnFailure>,
    session: &Session,
    out: Output,
) -> Result<(), Fail> {
    let args = &Next {
        enter: args.enter.at_shutdown(),
        ..args.clone()
    };
    keepd::refresh(session, args.forget_arrived, out)?;
    let files = Files::read(args)?;
    let arrived = session.carried(args.forget_arrived)?;
    let next = files.parse(args, &session.root, arrived.is_none())?;
    files.report(args, out);
    next.native.report(out);
    let release = next.image.release().unwrap_or("unknown").to_owned();
    let plain_line = files.plain_line(args, &session.root, next.image.header().cmdline_max)?;
    if let Some(warning) = next::plain_warning(&*next.image, &plain_line, &session.root)? {
        out.warn(&warning);
    }
    let choice = on_failure
        .map_or_else(armed::configured_choice, Ok)
        .unwrap_or_else(|what| {
            out.warn(&what.to_string());
            OnFailure::default()
        });
    let what = (args, &files, &next);
    let now = match measure(what, arrived, session, out) {
        Ok(now) => now,
        Err(fail) => {
            let left = keepd::effort::leave_out_all(&fail, session, args.forget_arrived)?;
            if left.is_empty() {
                return Err(fail);
            }
            out.warn(&format!(
                "without the best-effort entries {}, as of now: {}",
                left.join(", "),
                fail.what
            ));
            measure(what, arrived, session, out)?
        }
    };
    time::require(now.time, time::limit(session), args.slow_ok)?;
    let armed = ArmedFile {
        kernel: crate::shown::path(&args.kernel),
        release,
        initrd: next.initrd.is_some(),
        reuse_cmdline: args.reuse_cmdline,
        command_line: files.base_line(args),
        append: args.append.clone(),
        scratch: args.scratch.clone(),
        max_ranges: args.max_ranges,
        carrier: now.carrier,
        enter: args.enter,
        no_activate: args.no_activate,
        no_module_check: args.no_module_check,
        forget_arrived: args.forget_arrived,
        plain_line,
        on_failure,
        places: places::of(&list::effective(arrived, &session.state.keep()?), session)?,
        time: crate::clock::now_ns(),
    };
    armed::disarm(session)?;
    let config = early::config_file(&args.kernel, &armed.release, &session.root);
    armed::copies(
        &files.kernel,
        &armed.release,
        next.initrd,
        config.as_deref(),
        session,
    )?;
    session.state.write(armed::RECORD, &armed)?;
    let loaded = match (choice, now.memory) {
        (OnFailure::Cold | OnFailure::Stop, Some(memory)) => armed::load_stand_in(memory, session),
        (_, None) | (OnFailure::Plain, _) => armed::load_plain(&armed, session),
    };
    if let Err(fail) = loaded.and_then(|()| session.state.clear_settled()) {
        armed::disarm(session)?;
        return Err(fail);
    }
    ordering::update(session, out);
    report(&armed, &now, session, out);
    Ok(())
}

/// Content that a capture would take now, with its cost.
struct Now {
    entries: usize,
    bytes: u64,
    /// Carrier that works now.
    carrier: Wanted,
    /// Address of some memory that the plan gives to the kernel. `None` if the initrd is the carrier: a stand-in cannot
    /// be loaded then.
    memory: Option<PhysAddr>,
    /// Shortest time that the capture takes.
    time: Duration,
}

/// Measures by the carrier that the arguments want, as [`load::run`](crate::handover::load::run) chooses it. A check
/// that fails now would most likely fail in the shutdown too, where no user sees the message.
fn measure(
    (args, files, next): (&Next, &Files, &next::Next<'_>),
    arrived: Option<&Arrived>,
    session: &Session,
    out: Output,
) -> Result<Now, Fail> {
    let by_initrd = || {
        let keep = session.state.keep()?;
        let prepared = Prepared::gather(args, files, arrived, &keep, session, out)?;
        Ok(Now {
            entries: prepared.payloads.items.len(),
            bytes: prepared.bytes(),
            carrier: Wanted::Initrd,
            memory: None,
            time: time::at_least(prepared.content),
        })
    };
    let in_place = || in_place(args, arrived, next, session, out);
    by_initrd::choose(args.carrier, in_place, by_initrd)
}

fn in_place(
    args: &Next,
    arrived: Option<&Arrived>,
    next: &next::Next<'_>,
    session: &Session,
    out: Output,
) -> Result<Now, Fail> {
    if !args.no_module_check {
        module::require_for_drivers(&session.root, next.image.release())?;
    }
    let part = module::outgoing_part(session, arrived, out)?;
    let inputs = Inputs::gather(
        session,
        &session.state.keep()?,
        arrived,
        next,
        args,
        part,
        None,
    )?;
    let plan = inputs.plan(&RangeSet::new())?;
    if let Err(fail) = memory::require(&inputs, &plan, session) {
        out.warn(&format!(
            "as of now, with all services running: {}",
            fail.what
        ));
    }
    let items = &inputs.payloads.items;
    Ok(Now {
        entries: items.len(),
        bytes: items.iter().map(|item| item.size).sum(),
        carrier: Wanted::Memory,
        memory: Some(plan.image.kernel.segment().start()),
        time: time::at_least(plan.totals.payload),
    })
}

fn report(armed: &ArmedFile, now: &Now, session: &Session, out: Output) {
    let unit = armed::capture_unit_is_active(session);
    if !unit {
        out.warn(&format!(
            "{unit} is not active, so nothing will take the content: systemctl start {unit}",
            unit = armed::CAPTURE_UNIT
        ));
    }
    let doc = serde_json::json!({
        "armed": armed.release, "on_failure": armed.on_failure, "entries": now.entries,
        "bytes_now": now.bytes, "capture_unit_active": unit,
        "seconds_at_least": now.time.as_secs(),
    });
    out.result(&doc, || {
        println!(
            "armed {}: {} ({} as of now) {} taken when the system stops",
            armed.release,
            output::count(now.entries, "entry", "entries"),
            output::bytes(now.bytes),
            if now.entries == 1 { "is" } else { "are" },
        );
        if now.time.as_secs() >= 10 {
            println!(
                "the capture will take at least {}, and longer if it reads from a disk",
                output::seconds(now.time)
            );
        }
        println!("systemctl kexec starts it");
    });
}
