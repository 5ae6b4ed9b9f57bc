//! Memory for a load: enough of it, at addresses that make the load quick.

use super::prepare::Inputs;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::output::{self, Output};
use crate::session::Session;
use kho::RangeSet;
use kho::plan::Plan;
use kho_kexec::sys::facts::zones::Zones;
use kho_kexec::sys::landing::{
    self, DRAW_LIMIT, LandingError, LandingZone, Need, Withheld, default_reserve,
};
use kho_kexec::sys::loaded::{self, Identity};
use kho_kexec::sys::pageflags::{PageFlags, flag};
use std::time::Duration;

/// Longest duration of `kexec_load` that is allowed without `--slow-ok`. The call cannot be interrupted.
const SLOW: Duration = Duration::from_secs(60);

/// Plan and memory of a load.
pub struct Room {
    /// The plan, which uses the zone.
    pub plan: Plan,
    /// Memory whose physical address is known. `None` if all content fits in the ranges that were reserved before, or
    /// if the loader could not get such memory.
    pub zone: Option<LandingZone>,
    /// Free memory at the destinations, withheld from the allocator until the load is over.
    pub held: Option<Withheld>,
}

/// Makes a plan, and takes memory for the bytes that do not fit in the old reservations.
///
/// # Errors
///
/// If no plan is possible. [`Status::NotEnoughMemory`] before any memory is taken. [`Status::Fragmented`] if the load
/// would take long and `slow_ok` does not allow it.
pub fn take(
    inputs: &Inputs<'_>,
    session: &Session,
    slow_ok: bool,
    out: Output,
) -> Result<Room, Fail> {
    // The first plan has no landing zone, so that every refusal comes before memory is taken.
    let first = inputs.plan(&RangeSet::new())?;
    require(inputs, &first, session)?;
    let missing = missing(inputs, &first);
    if missing == 0 {
        return Ok(Room {
            plan: first,
            zone: None,
            held: None,
        });
    }
    let old = first
        .segments
        .iter()
        .filter(|s| inputs.reusable.contains_range(s.dest));
    let request = landing::Request {
        bytes: missing,
        max_runs: inputs
            .limits
            .max_payload_segments
            .saturating_sub(old.count())
            .max(1),
        reserve: default_reserve(inputs.machine.memory.total),
        allowed: &inputs.may_land(first.scratch)?,
    };
    let (plan, zone, why) = match LandingZone::take(&session.root, &request) {
        Ok(zone) => {
            let plan = inputs.plan(zone.runs())?;
            (plan, Some(zone), String::new())
        }
        Err(err) if no_memory(&err) => return Err(not_enough(&err)),
        Err(err) => (first, None, chain(&err)),
    };
    let held = hold(inputs, &plan, zone.as_ref(), session, slow_ok, &why, out)?;
    Ok(Room { plan, zone, held })
}

/// Refuses memory that the load does not own: until a late load is armed, only its own pages are not the drivers'.
///
/// # Errors
///
/// [`Status::Fragmented`] if a destination outside scratch is not in the landing zone.
pub fn require_own(room: &Room) -> Result<(), Fail> {
    let zone = room.zone.as_ref().map(LandingZone::runs);
    let own = |dest| zone.is_some_and(|zone| zone.contains_range(dest));
    match room.plan.segments.iter().find(|segment| !own(segment.dest)) {
        None => Ok(()),
        Some(segment) => Err(Fail::new(
            Status::Fragmented,
            format!(
                "a late load needs memory of its own for the content, and did not get it at {}",
                segment.dest
            ),
        )
        .fix("free memory (vm.drop_caches, vm.compact_memory), keep less, or load without --late")),
    }
}

/// Refuses to take more memory than is available: the kernel would kill processes to get it.
///
/// # Errors
///
/// [`Status::NotEnoughMemory`] if less memory is available than the plan needs.
pub fn require(inputs: &Inputs<'_>, plan: &Plan, session: &Session) -> Result<(), Fail> {
    let zone = missing(inputs, plan);
    let copy = plan.totals.image.saturating_add(plan.totals.payload);
    let mut need = Need {
        own: copy.saturating_sub(zone),
        zone,
        copy,
        freed: 0,
        reserve: default_reserve(inputs.machine.memory.total),
    };
    let mut answer = need.check(&session.root);
    if matches!(answer, Err(LandingError::NotEnough { .. })) {
        need.freed = loaded_bytes(session)?;
        answer = need.check(&session.root);
    }
    answer.map(|_| ()).map_err(|err| not_enough(&err))
}

/// Returns the largest number of bytes that a load takes after its landing zone: the kernel's copy of every segment,
/// and the memory that has to stay free.
pub fn still(inputs: &Inputs<'_>, plan: &Plan) -> u64 {
    let copy = plan.totals.image.saturating_add(plan.totals.payload);
    copy.saturating_add(default_reserve(inputs.machine.memory.total))
}

/// Returns the number of payload bytes that do not fit in the ranges that were reserved before.
fn missing(inputs: &Inputs<'_>, plan: &Plan) -> u64 {
    inputs.payload_bytes().saturating_sub(plan.totals.landed)
}

/// Returns the number of bytes that become free when the image that `kho` loaded is unloaded; 0 if that is not known.
pub fn loaded_bytes(session: &Session) -> Result<u64, Fail> {
    let Some(record) = session.state.loaded()? else {
        return Ok(0);
    };
    Ok(match loaded::identify(&session.root, &record.identity) {
        Identity::Ours => record.identity.segments.iter().map(|s| s.memsz).sum(),
        _ => 0,
    })
}

fn no_memory(err: &LandingError) -> bool {
    match err {
        LandingError::NotEnough { .. } => true,
        LandingError::Call { source, .. } => source.kind() == std::io::ErrorKind::OutOfMemory,
        _ => false,
    }
}

pub fn not_enough(err: &LandingError) -> Fail {
    let what = match err {
        LandingError::NotEnough {
            needed,
            reserve,
            available,
        } => format!(
            "too little free memory to load: it takes {} (buffers and the kernel's copy) and {} must stay free, but {} are available",
            output::bytes(*needed),
            output::bytes(*reserve),
            output::bytes(*available)
        ),
        err => chain(err),
    };
    Fail::new(Status::NotEnoughMemory, what).fix(
        "stop what uses memory, shrink vm.nr_hugepages, or keep less; kho load --arm takes the content after services have stopped",
    )
}

/// Withholds free memory from the allocator: the destinations outside of the zone. Reports how long the load takes
/// because of destinations that could not be withheld.
fn hold(
    inputs: &Inputs<'_>,
    plan: &Plan,
    zone: Option<&LandingZone>,
    session: &Session,
    slow_ok: bool,
    why: &str,
    out: Output,
) -> Result<Option<Withheld>, Fail> {
    let mut rest = RangeSet::from_ranges(plan.segments.iter().map(|s| s.dest))
        .and_then(|dests| dests.subtract(&inputs.reusable))
        .or_status(Status::Failed)?;
    if let Some(zone) = zone {
        rest = rest.subtract(zone.runs()).or_status(Status::Failed)?;
    }
    if rest.is_empty() {
        return Ok(None);
    }
    let total = plan.totals.image.saturating_add(plan.totals.payload);
    let reserve = total
        .saturating_mul(2)
        .saturating_add(default_reserve(inputs.machine.memory.total));
    // Memory that cannot be withheld makes the load slower. The code below counts it.
    let held = Withheld::draw(&session.root, &rest, DRAW_LIMIT, draw_for(total), reserve).ok();
    let free = PageFlags::open(&session.root)
        .and_then(|flags| flags.pages_with(&rest, flag::BUDDY))
        .or_status(Status::Failed)?;
    let time = landing::slow_load(free.total(), total);
    let what = format!(
        "kexec_load will take about {}: {} of the memory that the image goes to are free, and the kernel searches for each such page{}{why}",
        output::seconds(time),
        output::bytes(free.total()),
        if why.is_empty() { "" } else { "; " },
    );
    if time > SLOW && !slow_ok {
        return Err(Fail::new(Status::Fragmented, what).fix(
            "free memory (vm.drop_caches, vm.compact_memory) or keep less; --slow-ok loads all the same, and cannot be interrupted",
        ));
    }
    if time > SLOW {
        out.warn(&what);
    } else if time >= Duration::from_secs(1) {
        out.remark(&format!("note: {what}"));
    }
    Ok(held)
}

/// Withholds the free pages of the image's destinations from the allocator while the image is loaded: the kernel
/// searches a list for every destination page that it gets as a source (`kimage_alloc_page`, `kernel/kexec_core.c`).
/// `None` if the kernel takes its pages from elsewhere, or if no page could be withheld. The kernel loads the pages of
/// the image first, so a failure costs seconds at most.
pub fn withhold_scratch(inputs: &Inputs<'_>, plan: &Plan, session: &Session) -> Option<Withheld> {
    // The kernel's copy of every segment must fit too.
    let copy = plan.totals.image.saturating_add(plan.totals.payload);
    let reserve = still(inputs, plan);
    // Twice the size, because other processes take memory meanwhile.
    if Zones::read(&session.root)
        .is_ok_and(|zones| zones.spare_above(plan.scratch) >= copy.saturating_mul(2))
    {
        return None;
    }
    let scratch = RangeSet::from_ranges([plan.scratch]).ok()?;
    Withheld::draw(&session.root, &scratch, DRAW_LIMIT, draw_for(copy), reserve).ok()
}

/// Returns the number of bytes to withhold for a copy of `copy` bytes. It is larger than the copy, because other
/// processes take memory meanwhile, and because the allocator prefers whole blocks of 4 MiB anywhere to smaller pieces.
fn draw_for(copy: u64) -> u64 {
    copy.saturating_add(copy / 4).saturating_add(64 << 20)
}
