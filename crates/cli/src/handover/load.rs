//! The three steps of a load.
//!
//! 1. [`gather`] reads the machine and the keep list, plans, and takes memory. Its effects are guards: frozen drivers
//!    and held memory.
//! 2. [`fill`] and [`assemble`](fn@assemble) copy the content and write the tree into that memory.
//! 3. [`commit`] replaces the loaded image, and records the new one. These are the only effects that stay.
//!
//! If a step fails or is refused, the drop of the guards undoes the steps before it.

use super::arch::Parts;
use super::buffers::Buffers;
use super::by_initrd;
use super::compat;
use super::describe::Tree;
use super::fresh;
use super::memory::{self, Room};
use super::next::{Files, Next};
use super::placed::Placed;
use super::prepare::Inputs;
use super::steps::{self, Loaded};
use crate::args;
use crate::arrived::{Arrived, carrier_name};
use crate::clock;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::late::{self, LateBlock};
use crate::loaded;
use crate::module::{self, Entered, OutgoingPart};
use crate::output::Output;
use crate::random;
use crate::session::Session;
use crate::state::{KeepFile, LoadedFile};
use kho::PhysRange;
use kho::abi::Carrier;
use kho::plan::Plan;
use kho_kexec::assemble::{self, Assembled, Placement};
use kho_kexec::image::Image;
use kho_kexec::sys::loaded::LoadedImage;
use kho_kexec::sys::syscalls::CallError;
use std::time::Instant;

/// Loads by the carrier that the arguments want.
///
/// # Errors
///
/// As [`by_initrd::choose`] of [`in_place`] and [`by_initrd::run`].
pub fn run(args: &args::Next, session: &Session, out: Output) -> Result<Loaded, Fail> {
    let files = Files::read(args)?;
    by_initrd::choose(
        args.carrier,
        || in_place(args, &files, session, out),
        || by_initrd::run(args, &files, session, out),
    )
}

/// Runs all three steps.
///
/// # Errors
///
/// One [`Status`] per reason. Before [`commit`], the previously loaded image stays loaded. After that it stays only if
/// the kernel refused to unload it.
fn in_place(
    args: &args::Next,
    files: &Files,
    session: &Session,
    out: Output,
) -> Result<Loaded, Fail> {
    let started = Instant::now();
    let arrived = session.carried(args.forget_arrived)?;
    let next = files.parse(args, &session.root, arrived.is_none())?;
    files.report(args, out);
    next.native.report(out);

    let gathered = gather(args, arrived, &next, session, out)?;
    let (inputs, keep, frozen) = (gathered.inputs, gathered.keep, gathered.frozen);
    let Room {
        plan,
        mut zone,
        held: _held,
    } = gathered.room;

    let in_zone = zone.as_ref().map_or(0, |zone| zone.runs().total());
    let own = plan.totals.payload.saturating_sub(in_zone);
    let still = memory::still(&inputs, &plan).saturating_add(own);
    let (unpacked, way) = next.kernel(args, &session.root, still)?;
    let mut buffers = Buffers::new(&plan, zone.as_mut())?;
    let placed = fill(&inputs, &plan, &mut buffers, session, out)?;
    let generation = random::number()?.max(1);
    let reserved: Vec<PhysRange> = plan.mem_cache_state_first().collect();
    let tree = tree(&inputs, &plan, &reserved, generation).write(&placed)?;
    compat::check(&args.compat, next.initrd, &tree, out)?;
    let seed = random::bytes()?;
    let kernel = unpacked.as_ref().map_or(&*next.image, |kernel| kernel);
    let image = assemble(&inputs, &plan, kernel, &tree, &reserved, &seed)?;
    buffers.put_state(&plan, &image)?;
    let segments = buffers.segments(&plan, &image)?;

    let sources = fresh::sources(&inputs.payloads.items);
    let record = LoadedFile {
        generation,
        kernel_generation: inputs.kernel.as_ref().map_or(0, OutgoingPart::generation),
        entered: inputs.late.is_none() && frozen.ours(),
        again: inputs.kernel.as_ref().is_some_and(|part| part.carried_on),
        kernel: next.path.clone(),
        release: next.image.release().unwrap_or("unknown").to_owned(),
        hop: inputs.hop,
        identity: LoadedImage::of(image.entry, &segments),
        content_digest: fresh::digest(&keep, arrived, &sources).to_string(),
        sources,
        contents: fresh::contents(&inputs.payloads.items, &placed),
        bytes: inputs.payloads.items.iter().map(|i| i.size).sum(),
        time: clock::now_ns(),
        forget_arrived: args.forget_arrived,
        memory_failed: Some(inputs.machine.memory.hardware_corrupted),
        scratch: Some([plan.scratch.start().get(), plan.scratch.len()]),
        late: inputs.late.as_ref().map(|late| late.reference.nonce),
    };
    let load = || session.kernel.kexec_load(image.entry, &segments);
    let kexec_load_seconds = commit(&inputs, &plan, load, &record, frozen, session, out)?;
    if arrived.is_none() {
        module::tell_scratch(&session.root, plan.scratch);
    }
    let (copied, in_place) = inputs.payloads.bytes();
    Ok(Loaded {
        release: record.release,
        carrier: carrier_name(Carrier::Memory),
        entry: Some(way),
        hop: inputs.hop,
        entries: inputs.payloads.items.len(),
        copied,
        in_place,
        drivers: (inputs.kernel.as_ref()).map_or(0, |part| part.kernel.mem.total()),
        ranges: plan.totals.early_entries,
        failed: inputs.machine.failed.total(),
        seconds: started.elapsed().as_secs_f64(),
        kexec_load_seconds,
    })
}

/// Result of the first step, for the other steps.
struct Gathered<'a> {
    inputs: Inputs<'a>,
    /// The keep list.
    keep: KeepFile,
    /// Plan, and the memory that the load took.
    room: Room,
    /// Guard of the frozen drivers. They stay frozen until exec or abort; if the load fails, the guard thaws them.
    frozen: Entered<'a>,
}

/// First step: collects the content, plans its place, and takes memory for it.
fn gather<'a>(
    args: &args::Next,
    arrived: Option<&Arrived>,
    next: &'a Next<'a>,
    session: &'a Session,
    out: Output,
) -> Result<Gathered<'a>, Fail> {
    for (node, compatible) in arrived.iter().flat_map(|arrived| &arrived.unknown) {
        out.warn(&format!(
            "node {node} ({compatible}) arrived, but this kho does not know its type: it is not handed on, and is lost after this kernel"
        ));
    }
    let before = session.state.loaded()?.filter(|record| record.entered);
    let late = match args.late {
        true => Some(LateBlock::prepare(&session.root, out)?),
        false => None,
    };
    let ours = before.map_or(0, |record| record.kernel_generation);
    let mut frozen = match &late {
        Some(_) => Entered::outside(&session.root, ours, out)?,
        None => Entered::enter(&session.root, !args.no_activate, ours, out)?,
    };
    let part = match frozen.part.take() {
        Some(part) => Some(part),
        None if late.is_some() => None,
        None => module::part_to_carry_on(session, arrived, out)?,
    };
    if late.is_some() && !args.no_module_check {
        module::require_for_drivers(&session.root, next.image.release())?;
    }
    let keep = session.state.keep()?;
    let inputs = Inputs::gather(session, &keep, arrived, next, args, part, late)?;
    warn(&inputs, out);
    if let Some(part) = inputs.kernel.as_ref().filter(|_| !args.no_module_check) {
        module::require_in_next(&session.root, part, next.image.release())?;
    }
    let room = memory::take(&inputs, session, args.slow_ok, out)?;
    if inputs.late.is_some() {
        memory::require_own(&room)?;
    }
    Ok(Gathered {
        inputs,
        keep,
        room,
        frozen,
    })
}

/// Warns of features that the next kernel will lack.
fn warn(inputs: &Inputs<'_>, out: Output) {
    if let Some(warning) = inputs.machine.boot.warning(&*inputs.next.image) {
        out.warn(&warning);
    }
    steps::warn_of_content(&inputs.payloads, out);
}

/// Second step: writes the content of every payload that is copied. Returns the place and the hash of each.
fn fill(
    inputs: &Inputs<'_>,
    plan: &Plan,
    buffers: &mut Buffers<'_>,
    session: &Session,
    out: Output,
) -> Result<Vec<Placed>, Fail> {
    let mut placed = Vec::new();
    for (index, payload) in inputs.payloads.iter().enumerate() {
        if payload.stays().is_some() {
            placed.push(Placed::default());
            continue;
        }
        let memory = buffers.payload(plan, index);
        placed.push(Placed {
            mem: plan.blob_pieces(index).map(|piece| piece.dest).collect(),
            blake3: steps::copied(payload, memory, session, out)?,
        });
    }
    buffers.zero_tails(plan);
    fresh::settle(&inputs.payloads.items, &placed, session, out)?;
    Ok(placed)
}

fn tree<'a>(
    inputs: &'a Inputs<'_>,
    plan: &Plan,
    reserved: &'a [PhysRange],
    generation: u64,
) -> Tree<'a> {
    Tree {
        payloads: &inputs.payloads,
        kernel: inputs.kernel.as_ref(),
        late: inputs.late.as_ref().map(|late| late.reference),
        carrier: Carrier::Memory,
        release: &inputs.machine.kernel.release,
        generation,
        hop: inputs.hop,
        time: clock::now_ns(),
        scratch: plan.scratch,
        mem_cache: reserved,
    }
}

/// Assembles the image with the chain and the tree. `kernel` is the planned image, or the kernel unpacked from it.
fn assemble<'a>(
    inputs: &'a Inputs<'_>,
    plan: &Plan,
    kernel: &'a dyn Image,
    tree: &'a [u8],
    reserved: &'a [PhysRange],
    seed: &'a [u8; 32],
) -> Result<Assembled<'a>, Fail> {
    let parts = Parts {
        image: kernel,
        initrd: inputs.next.initrd,
        cmdline: &inputs.next.cmdline,
        seed,
        tree,
        reserved,
        scratch: plan.scratch,
        placement: placement(plan, kernel)?,
        next: inputs
            .late
            .as_ref()
            .map(|late| late.reference.block.start()),
    };
    let mut assembled = inputs.machine.boot.assemble(&parts).map_err(|err| {
        Fail::new(
            Status::Failed,
            format!("cannot assemble the image: {}", chain(&err)),
        )
    })?;
    make_unique(&mut assembled)?;
    Ok(assembled)
}

/// Third step: replaces the loaded image, by calling `load`, and records the new one. Returns the seconds that `load`
/// took.
fn commit(
    inputs: &Inputs<'_>,
    plan: &Plan,
    load: impl FnOnce() -> Result<(), CallError>,
    record: &LoadedFile,
    mut frozen: Entered<'_>,
    session: &Session,
    out: Output,
) -> Result<f64, Fail> {
    let step = inputs.bounds(plan)?;
    let nothing_loaded = inputs.machine.kexec.loaded == Some(false);
    let mut noted = Noted {
        session,
        undo: nothing_loaded,
    };
    if nothing_loaded {
        session.state.set_reserved(&inputs.machine.pages.known())?;
    }
    let withheld = memory::withhold_scratch(inputs, plan, session);
    let before = Instant::now();
    // Unloads first: if the load fails, the kernel keeps the old image, whose content is out of date. `unload` removes
    // the record after the image, so a refused unload changes nothing. If nothing is loaded, no call is spent on an
    // unload: the administrator can limit the number of calls.
    if nothing_loaded {
        late::disarm(&session.root)?;
        session.state.clear_loaded()?;
    } else {
        loaded::unload_for_memory(session)?;
    }
    noted.undo = true;
    session.state.clear_settled()?;
    frozen.unloaded();
    let armed = late::Armed::arm(&session.root, step.as_deref())?;
    load().map_err(|err| loaded::call_fail(&err, session))?;
    let seconds = before.elapsed().as_secs_f64();
    let mut unrecorded = Unrecorded {
        session,
        out,
        undo: true,
    };
    drop(withheld);
    // If a driver was unloaded meanwhile, the active phase ended: the image names memory that the driver does not keep.
    let phase = record.kernel_generation;
    if phase != 0 && module::generation(&session.root)? != phase {
        return Err(
            Fail::new(Status::Module, "the active phase was left during the load")
                .fix("kho load again; the kernel log says which driver went away"),
        );
    }
    session.state.set_loaded(record)?;
    unrecorded.undo = false;
    noted.undo = false;
    armed.keep();
    if inputs.late.is_none() {
        frozen.keep();
    }
    Ok(seconds)
}

/// Guard of the note of the pages that were reserved before any image was loaded. As long as no image is loaded, no
/// later load needs the note.
struct Noted<'a> {
    session: &'a Session,
    undo: bool,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        if self.undo {
            // If this fails, the next load overwrites the note.
            let _ = self.session.state.clear_reserved();
        }
    }
}

/// Guard of a loaded image without a record: no command can check such an image, so it must not stay loaded.
struct Unrecorded<'a> {
    session: &'a Session,
    out: Output,
    undo: bool,
}

impl Drop for Unrecorded<'_> {
    fn drop(&mut self) {
        if self.undo
            && let Err(err) = self.session.kernel.kexec_unload()
        {
            self.out.warn(&format!(
                "the loaded image CANNOT BE UNLOADED and may start: {}",
                chain(&err)
            ));
        }
    }
}

/// Returns the places of the plan. A kernel that was unpacked needs less memory than the plan has for the image.
fn placement(plan: &Plan, kernel: &dyn Image) -> Result<Placement, Fail> {
    let place = plan.image.kernel.segment();
    let len = kernel.header().mem_size.min(place.len());
    let state = plan
        .state()
        .ok_or_else(|| Fail::new(Status::Failed, "the plan has no place for the state"))?;
    Ok(Placement {
        kernel: PhysRange::new(place.start(), len).or_status(Status::Failed)?,
        initrd: plan.image.initrd.map(|p| p.segment()),
        params: plan.image.params.segment(),
        state,
    })
}

/// Makes this load different from any other load of the same content: the kernel stores the size of each segment, and a
/// random number of zero bytes at the end of the parameters has no effect on the next kernel.
fn make_unique(assembled: &mut Assembled<'_>) -> Result<(), Fail> {
    let Some(params) = assembled
        .segments
        .iter_mut()
        .find(|s| s.kind == assemble::SegmentKind::Params)
    else {
        return Ok(());
    };
    let room = params.dest.len().saturating_sub(params.bytes.len() as u64);
    let extra = usize::try_from(random::number()? % room.saturating_add(1)).unwrap_or(0);
    let len = params.bytes.len();
    params.bytes.to_mut().resize(len + extra, 0);
    Ok(())
}
