//! Carrying the plan out.

use super::content;
use super::fresh;
use super::memory::{self, Room};
use super::next::Files;
use super::prepare::{Inputs, blob_content, write_others};
use crate::args;
use crate::arrived::Arrived;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::hash;
use crate::loaded;
use crate::module::{self, Entered, OutgoingPart};
use crate::output::{self, Output};
use crate::session::Session;
use crate::state::LoadedFile;
use crate::trace::carry::{Carry, Places, Supply};
use kho::PhysRange;
use kho::abi::{BlobDescription, Description, Label, MACHINE_X86_64};
use kho::phase::{Generation, Machine as Phases};
use kho::plan::{Content, Piece, Plan};
use kho::tree::Writer;
use kho_kexec::assemble::{self, Assembled, Load, Placement};
use kho_kexec::carrier::SetupDataCarrier;
use kho_kexec::sys::landing::LandingZone;
use kho_kexec::sys::loaded::LoadedImage;
use kho_kexec::sys::syscalls::{LoadFlags, SegmentRef};
use serde::Serialize;
use std::io::Write;
use std::time::Instant;

/// What a load did.
#[derive(Serialize)]
pub struct Loaded {
    /// Release that the image says it is.
    pub release: String,
    /// Hop count that the next kernel will see.
    pub hop: u64,
    /// Entries handed over.
    pub entries: usize,
    /// Bytes of content that were copied.
    pub copied: u64,
    /// Bytes of content that stay where they are.
    pub in_place: u64,
    /// Bytes that drivers keep in place.
    pub drivers: u64,
    /// Early reservations of the next kernel.
    pub ranges: usize,
    /// Bytes of memory that failed in this kernel's time: unusable in the map for the next one.
    pub failed: u64,
    /// Seconds in all.
    pub seconds: f64,
    /// Of them in the `kexec_load` system call.
    pub kexec_load_seconds: f64,
}

impl Loaded {
    /// How much, and how long it took, for people.
    pub fn amounts(&self) -> String {
        let drivers = match self.drivers {
            0 => String::new(),
            bytes => format!(", {} of drivers and khofs", output::bytes(bytes)),
        };
        let failed = match self.failed {
            0 => String::new(),
            bytes => format!(", {} of memory that failed left out", output::bytes(bytes)),
        };
        format!(
            "{} copied, {} in place{drivers}, {}{failed}; {:.1} s",
            output::bytes(self.copied),
            output::bytes(self.in_place),
            output::count(self.ranges, "early range", "early ranges"),
            self.seconds
        )
    }
}

/// Reads, plans, fills and loads. Until the system call nothing on the machine has changed.
///
/// # Errors
///
/// One [`Status`] per reason. An image loaded before stays loaded unless the system call itself failed
/// after it was unloaded.
pub fn run(args: &args::Next, session: &Session, out: Output) -> Result<Loaded, Fail> {
    let started = Instant::now();
    let files = Files::read(args)?;
    let arrived = session.carried(args.forget_arrived)?;
    let next = files.parse(args, &session.root, arrived.is_none())?;
    for (node, compatible) in arrived.iter().flat_map(|arrived| &arrived.unknown) {
        out.warn(&format!(
            "node {node} ({compatible}) arrived and is not known here; it is not handed on, and its memory ends with this kernel"
        ));
    }
    // From here on drivers are frozen, until exec or abort; a load that fails leaves the phase again.
    let before = session.state.loaded()?.filter(|record| record.entered);
    let mut entered = Entered::enter(
        &session.root,
        !args.no_activate,
        before.map_or(0, |record| record.kernel_generation),
        out,
    )?;
    let part = match entered.part.take() {
        Some(part) => Some(part),
        None => module::again(session, arrived, out)?,
    };
    let keep = session.state.keep()?;
    let inputs = Inputs::gather(session, &keep, arrived, &next, args, part)?;
    if inputs.machine.efi.is_some() && !next.image.header().efi_kexec {
        out.warn(&format!(
            "{} is built without kexec and cannot take UEFI runtime services over: it will have no EFI variables",
            next.image.release().unwrap_or("the next kernel")
        ));
    }
    for remark in inputs.traces.iter().flat_map(Carry::remarks) {
        out.warn(&remark);
    }
    for lost in inputs.items.iter().filter_map(content::Item::not_kept) {
        out.warn(&lost);
    }
    if let Some(part) = inputs.kernel.as_ref().filter(|_| !args.no_module_check) {
        module::require_in_next(&session.root, part, next.image.release())?;
    }
    let Room {
        plan,
        mut zone,
        held: _held,
    } = memory::take(&inputs, session, args.slow_ok, out)?;
    let mut buffers = Buffers::new(&plan, zone.as_mut())?;
    let hashes = fill(&inputs, &plan, &mut buffers, session, out)?;
    fresh::settle(&inputs.items, &hashes, session, out)?;

    let mut phases = Phases::new(random()?);
    let generation = phases.activate().or_status(Status::Failed)?;
    let sources = fresh::sources(&inputs.items);
    let fingerprint = fresh::fingerprint(&keep, arrived, &sources);
    let reserved: Vec<PhysRange> = plan.mem_cache_state_first().collect();
    let tree = tree(&inputs, &plan, arrived, &hashes, generation, &reserved)?;
    super::compat::check(&args.compat, next.initrd, &tree, out)?;
    let seed = random_bytes()?;
    let load = Load {
        image: &*next.image,
        initrd: next.initrd,
        cmdline: &next.cmdline,
        arrive: true,
        running: &inputs.machine.boot_params,
        memory_map: &inputs.machine.memory_map,
        efi: inputs.machine.efi.as_ref(),
        acpi: inputs.machine.acpi,
        five_level: next.five_level,
        rng_seed: &seed,
        tree: Some(&tree),
        reserved: &reserved,
        placement: placement(&plan)?,
    };
    let mut assembled = assemble::assemble(&load, &SetupDataCarrier).map_err(|err| {
        Fail::new(
            Status::Failed,
            format!("cannot assemble the image: {}", chain(&err)),
        )
    })?;
    make_unique(&mut assembled)?;
    buffers.put_state(&plan, &assembled)?;
    let segments = buffers.segments(&plan, &assembled)?;

    if inputs.machine.kexec.loaded == Some(false) {
        session.state.set_reserved(&inputs.machine.reserved)?;
    }
    let withheld = memory::withhold_scratch(&inputs, &plan, session);
    let before = Instant::now();
    // A failed load would leave the old image armed, with what it would hand over out of date. Its record goes
    // after it: an unload that is refused changes nothing. Each call takes one of a limited number.
    if inputs.machine.kexec.loaded != Some(false) {
        session
            .kernel
            .kexec_unload()
            .map_err(|err| loaded::call_fail(&err, session))?;
    }
    session.state.clear_loaded()?;
    session.state.clear_settled()?;
    entered.unloaded();
    session
        .kernel
        .kexec_load(assembled.entry, &segments, LoadFlags::DEFAULT)
        .map_err(|err| {
            // Nothing is loaded: no later load needs to know what was reserved before this one.
            let _ = session.state.clear_reserved();
            loaded::call_fail(&err, session)
        })?;
    let kexec_load_seconds = before.elapsed().as_secs_f64();
    drop(withheld);
    phases
        .load(generation, fingerprint)
        .or_status(Status::Failed)?;
    let identity = LoadedImage::of(assembled.entry, &segments);
    // A driver that goes away leaves the phase: what it kept is then not what was loaded any more.
    let frozen = inputs.kernel.as_ref().map_or(0, OutgoingPart::generation);
    if module::generation(&session.root)? != frozen && frozen != 0 {
        let fail = Fail::new(Status::Module, "the active phase was left during the load")
            .fix("kho load again; the kernel log says which driver went away");
        return Err(loaded::unloaded_after(fail, session));
    }
    let mut record = LoadedFile {
        generation: generation.get(),
        kernel_generation: frozen,
        entered: false,
        again: inputs.kernel.as_ref().is_some_and(|part| part.again),
        kernel: next.path.clone(),
        release: next.image.release().unwrap_or("unknown").to_owned(),
        hop: inputs.hop,
        identity,
        content_digest: fingerprint.to_string(),
        sources,
        contents: fresh::contents(&inputs.items, &hashes),
        bytes: inputs.items.iter().map(|i| i.size).sum(),
        time: crate::clock::now_ns(),
        forget_arrived: args.forget_arrived,
        memory_failed: Some(inputs.machine.memory.hardware_corrupted),
        scratch: Some([plan.scratch.start().get(), plan.scratch.len()]),
    };
    record.entered = entered.ours();
    if let Err(fail) = session.state.set_loaded(&record) {
        // An image that nobody can vouch for must not stay armed.
        return Err(loaded::unloaded_after(fail, session));
    }
    entered.keep();
    if arrived.is_none() {
        module::tell_scratch(&session.root, plan.scratch);
    }
    let copied = |want: bool| {
        let items = inputs.items.iter().map(|i| (i.is_copied(), i.size));
        let parts = inputs.traces.iter().flat_map(Carry::parts);
        items
            .chain(parts.map(|part| (part.is_copied(), part.size)))
            .filter(|(copied, _)| *copied == want)
            .map(|(_, size)| size)
            .sum()
    };
    Ok(Loaded {
        release: record.release,
        hop: inputs.hop,
        entries: inputs.items.len(),
        copied: copied(true),
        in_place: copied(false),
        drivers: inputs
            .kernel
            .as_ref()
            .map_or(0, |part| part.kernel.mem.total()),
        ranges: plan.totals.early_entries,
        failed: inputs.machine.failed.total(),
        seconds: started.elapsed().as_secs_f64(),
        kexec_load_seconds,
    })
}

/// The user memory behind every payload segment.
struct Buffers<'z> {
    zone: Option<&'z mut LandingZone>,
    /// One per payload segment; empty where the zone holds the destination.
    own: Vec<Vec<u8>>,
    dests: Vec<PhysRange>,
}

impl<'z> Buffers<'z> {
    fn new(plan: &Plan, zone: Option<&'z mut LandingZone>) -> Result<Self, Fail> {
        let in_zone = |dest: PhysRange| zone.as_ref().is_some_and(|z| z.slice(dest).is_some());
        let own = plan
            .segments
            .iter()
            .map(|s| {
                let mut bytes = Vec::new();
                if !in_zone(s.dest) {
                    let len = usize::try_from(s.dest.len()).unwrap_or(usize::MAX);
                    bytes
                        .try_reserve_exact(len)
                        .or_status(Status::NotEnoughMemory)?;
                    bytes.resize(len, 0);
                }
                Ok(bytes)
            })
            .collect::<Result<_, Fail>>()?;
        Ok(Self {
            zone,
            own,
            dests: plan.segments.iter().map(|s| s.dest).collect(),
        })
    }

    fn get(&self, segment: usize) -> &[u8] {
        match (self.own.get(segment), self.dests.get(segment), &self.zone) {
            (Some(own), Some(dest), Some(zone)) if own.is_empty() => {
                zone.slice(*dest).unwrap_or_default()
            }
            (Some(own), ..) => own,
            _ => &[],
        }
    }

    fn get_mut(&mut self, segment: usize) -> &mut [u8] {
        match (
            self.own.get_mut(segment),
            self.dests.get(segment),
            &mut self.zone,
        ) {
            (Some(own), Some(dest), Some(zone)) if own.is_empty() => {
                zone.slice_mut(*dest).unwrap_or_default()
            }
            (Some(own), ..) => own,
            _ => &mut [],
        }
    }

    /// The bytes of one piece.
    fn piece(&mut self, piece: &Piece) -> Option<&mut [u8]> {
        let start = usize::try_from(piece.segment_offset).ok()?;
        let end = start.checked_add(usize::try_from(piece.dest.len()).ok()?)?;
        self.get_mut(piece.segment).get_mut(start..end)
    }

    /// The hash of blob number `index` of the plan, once it is written.
    fn hash(&self, plan: &Plan, index: usize) -> [u8; 32] {
        let pieces: Vec<&[u8]> = plan
            .blob_pieces(index)
            .map(|piece| {
                let start = usize::try_from(piece.segment_offset).unwrap_or(usize::MAX);
                let len = usize::try_from(piece.len).unwrap_or(usize::MAX);
                let end = start.saturating_add(len);
                self.get(piece.segment).get(start..end).unwrap_or_default()
            })
            .collect();
        *hash::of(&pieces).as_bytes()
    }

    /// Copies chain and tree to their piece.
    fn put_state(&mut self, plan: &Plan, assembled: &Assembled<'_>) -> Result<(), Fail> {
        let state = assembled
            .segments
            .iter()
            .find(|s| s.kind == assemble::SegmentKind::State);
        let piece = plan.pieces.iter().find(|p| p.content == Content::State);
        if let (Some(state), Some(piece)) = (state, piece)
            && let Some(room) = self.piece(piece)
            && let Some((head, tail)) = room.split_at_mut_checked(state.bytes.len())
        {
            head.copy_from_slice(&state.bytes);
            tail.fill(0);
            return Ok(());
        }
        Err(Fail::new(
            Status::Failed,
            "the state segment does not fit the room planned for it",
        )
        .fix("this is a bug in kho; please report it with the output of kho plan --json"))
    }

    /// Everything for the system call: the image first, then the payload.
    fn segments<'s>(
        &'s self,
        plan: &Plan,
        assembled: &'s Assembled<'_>,
    ) -> Result<Vec<SegmentRef<'s>>, Fail> {
        let mut segments: Vec<SegmentRef<'s>> = assembled
            .segments
            .iter()
            .filter(|s| s.kind != assemble::SegmentKind::State)
            .map(|s| SegmentRef {
                buf: &s.bytes,
                dest: s.dest.start(),
                memsz: s.dest.len(),
            })
            .collect();
        for (index, segment) in plan.segments.iter().enumerate() {
            let buf = self.get(index);
            if buf.len() as u64 != segment.dest.len() {
                return Err(Fail::new(
                    Status::Failed,
                    format!("{:#x} bytes were prepared for {}", buf.len(), segment.dest),
                ));
            }
            segments.push(SegmentRef {
                buf,
                dest: segment.dest.start(),
                memsz: segment.dest.len(),
            });
        }
        Ok(segments)
    }
}

/// Writes a stream over the pieces of one blob.
struct PieceWriter<'b, 'z> {
    buffers: &'b mut Buffers<'z>,
    pieces: Vec<Piece>,
    at: usize,
    done: u64,
    /// Bytes written.
    written: u64,
}

impl<'b, 'z> PieceWriter<'b, 'z> {
    /// For blob number `index` of the plan.
    fn new(buffers: &'b mut Buffers<'z>, plan: &Plan, index: usize) -> Self {
        Self {
            buffers,
            pieces: plan.blob_pieces(index).copied().collect(),
            at: 0,
            done: 0,
            written: 0,
        }
    }
}

impl Write for PieceWriter<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let full = || {
            std::io::Error::new(
                std::io::ErrorKind::StorageFull,
                "more content than was measured",
            )
        };
        while let Some(piece) = self.pieces.get(self.at).copied() {
            if self.done == piece.len {
                self.at += 1;
                self.done = 0;
                continue;
            }
            let start = usize::try_from(self.done).map_err(|_| full())?;
            let end = usize::try_from(piece.len).map_err(|_| full())?;
            let room = self
                .buffers
                .piece(&piece)
                .and_then(|b| b.get_mut(start..end))
                .ok_or_else(full)?;
            let n = room.len().min(buf.len());
            let (head, _) = buf.split_at(n);
            room[..n].copy_from_slice(head);
            self.done += n as u64;
            self.written += n as u64;
            return Ok(n);
        }
        if buf.is_empty() { Ok(0) } else { Err(full()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Takes the content of every copied entry and of every part of a trace; returns the hash of each.
fn fill(
    inputs: &Inputs<'_>,
    plan: &Plan,
    buffers: &mut Buffers<'_>,
    session: &Session,
    out: Output,
) -> Result<Vec<[u8; 32]>, Fail> {
    let mut hashes = Vec::new();
    for (index, item) in inputs.items.iter().enumerate() {
        if !item.is_copied() {
            hashes.push([0; 32]);
            continue;
        }
        let bar = out.progress(&format!("reading {}", item.entry.label), item.size);
        let mut writer = PieceWriter::new(buffers, plan, index);
        item.write(&mut writer, session, &mut |n| bar.set_position(n))?;
        let written = writer.written;
        bar.finish_and_clear();
        if written != item.size {
            return Err(Fail::new(
                Status::SourceChanged,
                format!(
                    "{}: {written:#x} bytes came, {:#x} were measured",
                    item.entry.label, item.size
                ),
            ));
        }
        hashes.push(buffers.hash(plan, index));
    }
    for (index, part) in (inputs.items.len()..).zip(inputs.traces.iter().flat_map(Carry::parts)) {
        let mut writer = PieceWriter::new(buffers, plan, index);
        if let Supply::Taken(bytes) = &part.supply {
            writer.write_all(bytes).or_status(Status::Failed)?;
        }
        hashes.push(buffers.hash(plan, index));
    }
    // The rest of a blob's last page must not show what this process had in its memory.
    for piece in &plan.pieces {
        if let (Content::Blob { .. }, Ok(len)) = (piece.content, usize::try_from(piece.len))
            && let Some(tail) = buffers.piece(piece).and_then(|b| b.get_mut(len..))
        {
            tail.fill(0);
        }
    }
    Ok(hashes)
}

fn placement(plan: &Plan) -> Result<Placement, Fail> {
    let state = plan
        .state()
        .ok_or_else(|| Fail::new(Status::Failed, "the plan has no place for the state"))?;
    Ok(Placement {
        kernel: plan.image.kernel.segment(),
        initrd: plan.image.initrd.map(|p| p.segment()),
        params: plan.image.params.segment(),
        state,
    })
}

/// Lets this load be told from any other with the same content: the kernel remembers how many bytes were
/// given for each segment, and zeros at the end of the parameters make no difference.
fn make_unique(assembled: &mut Assembled<'_>) -> Result<(), Fail> {
    let Some(params) = assembled
        .segments
        .iter_mut()
        .find(|s| s.kind == assemble::SegmentKind::Params)
    else {
        return Ok(());
    };
    let room = params.dest.len().saturating_sub(params.bytes.len() as u64);
    let extra = usize::try_from(random()? % room.saturating_add(1)).unwrap_or(0);
    let len = params.bytes.len();
    params.bytes.to_mut().resize(len + extra, 0);
    Ok(())
}

/// Writes the state tree and reads it back as the next kernel will.
fn tree(
    inputs: &Inputs<'_>,
    plan: &Plan,
    arrived: Option<&Arrived>,
    hashes: &[[u8; 32]],
    generation: Generation,
    reserved: &[PhysRange],
) -> Result<Vec<u8>, Fail> {
    let now = crate::clock::now_ns();
    let places: Vec<Vec<PhysRange>> = (0..inputs.items.len())
        .map(|index| plan.blob_pieces(index).map(|p| p.dest).collect())
        .collect();
    let mut blobs = Vec::new();
    for ((item, hash), place) in inputs.items.iter().zip(hashes).zip(&places) {
        let label = Label::new(&item.entry.label).or_status(Status::BadName)?;
        let content = blob_content(&item.entry);
        let stays = match &item.supply {
            content::Supply::InPlace { index } => arrived.and_then(|a| a.blobs.get(*index)),
            _ => None,
        };
        blobs.push(match stays {
            Some(blob) => BlobDescription {
                label,
                content,
                size: blob.size,
                mem: &blob.mem,
                blake3: blob.blake3,
                taken: blob.taken,
                arrived_hop: blob.arrived_hop,
            },
            None => BlobDescription {
                label,
                content,
                size: item.size,
                mem: place,
                blake3: *hash,
                taken: if let content::Supply::Copy { taken, .. } = item.supply {
                    taken
                } else {
                    now
                },
                arrived_hop: inputs.hop,
            },
        });
    }
    let description = Description {
        generation: generation.get(),
        hop: inputs.hop,
        previous_release: &inputs.machine.kernel.release,
        machine: MACHINE_X86_64,
        time: now,
        scratch: plan.scratch,
        mem_cache: reserved,
        blobs: &blobs,
    };
    let parts = inputs.traces.iter().flat_map(Carry::parts);
    let trace_places: Places = (inputs.items.len()..)
        .zip(parts)
        .map(|(index, _)| {
            let place = plan.blob_pieces(index).map(|p| p.dest).collect();
            (place, hashes.get(index).copied().unwrap_or_default())
        })
        .collect();
    let others = |w: &mut Writer<'_>| {
        let traces = inputs.traces.as_ref().map(|traces| (traces, &trace_places));
        write_others(inputs.kernel.as_ref(), traces, w)
    };
    let len = kho::abi::measure_handover_with(&description, others).or_status(Status::Failed)?;
    let mut bytes = vec![0; len];
    let written =
        kho::abi::write_handover_with(&description, &mut bytes, others).map_err(|err| {
            Fail::new(
                Status::Failed,
                format!("cannot describe the handover: {}", chain(&err)),
            )
        })?;
    bytes.truncate(written);
    Ok(bytes)
}

fn random_bytes<const N: usize>() -> Result<[u8; N], Fail> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(|err| Fail::new(Status::Failed, format!("cannot read /dev/urandom: {err}")))?;
    Ok(bytes)
}

fn random() -> Result<u64, Fail> {
    Ok(u64::from_ne_bytes(random_bytes()?))
}
