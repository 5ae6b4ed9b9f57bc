//! The question put to the planner, and its answer.

use super::content::{self, Item, Supply};
use super::machine::Machine;
use super::next::Next;
use crate::args;
use crate::arrived::Arrived;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::list::{self, Entry};
use crate::module::OutgoingPart;
use crate::output;
use crate::session::Session;
use crate::state::KeepFile;
use crate::trace::carry::{self, Carry, Places};
use kho::abi::ftrace::write_traces;
use kho::abi::{BlobDescription, Content, Description, Label, MACHINE_X86_64};
use kho::image::{ImageNeeds, InitrdNeeds, KernelNeeds};
use kho::plan::{self, Limits, PayloadNeeds, Plan, PlanError, PlanRequest, ScratchSource};
use kho::scratch::ScratchError;
use kho::tree::{WriteError, Writer};
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};
use kho_kexec::assemble;
use kho_kexec::carrier::{Carrier, SetupDataCarrier, StateShape};
use kho_kexec::sys::syscalls::SEGMENT_MAX;
use std::os::unix::ffi::OsStrExt;

/// Most early reservations that are planned for, chain and tree included.
///
/// Measured as in `docs/reports/early-ranges.md`: the smallest number that any of the tested kernels and
/// firmwares takes is 120; the rest is a margin for firmware that reserves more for itself.
pub const EARLY_RANGES: usize = 96;

/// Segments that are not payload: kernel, initrd, parameters.
const IMAGE_SEGMENTS: usize = 3;

/// Everything that a plan depends on, owned.
pub struct Inputs<'a> {
    /// The machine.
    pub machine: Machine,
    /// The next kernel.
    pub next: &'a Next<'a>,
    /// The kept content, in the order of the list.
    pub items: Vec<Item>,
    /// Kept where it is.
    pub in_place: RangeSet,
    /// What drivers hand over.
    pub kernel: Option<OutgoingPart>,
    /// Where scratch comes from.
    pub scratch: ScratchSource,
    /// Reserved since the last hop and no longer needed.
    pub reusable: RangeSet,
    /// Traces: this kernel's, and those that arrived and are carried on.
    pub traces: Option<Carry>,
    /// Hop count that the next kernel will see.
    pub hop: u64,
    /// Bounds.
    pub limits: Limits,
    blob_sizes: Vec<u64>,
    state_len: u64,
    image: ImageNeeds,
}

impl<'a> Inputs<'a> {
    /// Reads the machine and measures what is kept.
    ///
    /// # Errors
    ///
    /// Whatever makes a load impossible before memory is planned.
    pub fn gather(
        session: &Session,
        keep: &KeepFile,
        arrived: Option<&Arrived>,
        next: &'a Next<'a>,
        args: &args::Next,
        kernel: Option<OutgoingPart>,
    ) -> Result<Self, Fail> {
        let machine = Machine::read(session, arrived)?;
        let items = content::measure(list::effective(arrived, keep), arrived, session)?;
        let mut in_place = RangeSet::new();
        for item in &items {
            if let (Supply::InPlace { index }, Some(arrived)) = (&item.supply, arrived) {
                for range in arrived
                    .blobs
                    .get(*index)
                    .map(|b| b.mem.as_slice())
                    .unwrap_or_default()
                {
                    let label = &item.entry.label;
                    let fix = format!("kho keep --remove {label}");
                    machine.require_still_reserved(*range, label)?;
                    machine.require_good(*range, label, &fix)?;
                    in_place.insert(*range).or_status(Status::Failed)?;
                }
            }
        }
        // Of a part that arrived, `Machine::read` made sure that all of it is still reserved.
        if let Some(part) = &kernel {
            let kept = part.kernel.kept().or_status(Status::Failed)?;
            for range in kept.iter() {
                let fix = "kho status says whose it is; kho abort, then let its driver leave the page out, or kho release it";
                machine.require_good(range, "what drivers hand over", fix)?;
            }
            in_place = in_place.union(&kept).or_status(Status::Failed)?;
        }
        let hop = arrived.map_or(1, |arrived| arrived.hop.saturating_add(1));
        // A trace is carried as long as all of it is there.
        let whole = machine
            .reserved
            .subtract(&machine.failed)
            .or_status(Status::Failed)?;
        let traces = Carry::gather(session, keep, arrived, hop, &whole, args.without_trace)?;
        for range in traces
            .iter()
            .flat_map(Carry::parts)
            .flat_map(carry::Part::stays)
        {
            in_place.insert(*range).or_status(Status::Failed)?;
        }
        let (scratch, reusable) = match arrived {
            Some(arrived) => {
                let reusable = arrived
                    .reserved()?
                    .intersect(&machine.reserved)
                    .and_then(|still| still.subtract(&in_place))
                    .or_status(Status::Failed)?;
                (ScratchSource::Recorded(Some(arrived.scratch)), reusable)
            }
            None => (first_scratch(session, next, &machine)?, RangeSet::new()),
        };
        let cap = args.max_ranges.unwrap_or(EARLY_RANGES);
        if !(2..=EARLY_RANGES).contains(&cap) {
            return Err(Fail::new(
                Status::Usage,
                format!("--max-ranges {cap} is not between 2 and {EARLY_RANGES}"),
            )
            .fix("more than that is not known to boot"));
        }
        let limits = Limits {
            max_entries: cap,
            max_payload_segments: SEGMENT_MAX - IMAGE_SEGMENTS,
            load_limit: machine.memory.total / 2 / PAGE_SIZE * PAGE_SIZE,
        };
        // What stays in place needs no room; the index among the blobs is that of the item, and parts of traces come
        // after them.
        let sizes = items.iter().map(|i| (i.is_copied(), i.size));
        let parts = traces.iter().flat_map(Carry::parts);
        let blob_sizes: Vec<u64> = sizes
            .chain(parts.map(|part| (part.is_copied(), part.size)))
            .map(|(copied, size)| if copied { size } else { 0 })
            .collect();
        let state_len = state_len(
            &machine,
            &items,
            arrived,
            &limits,
            kernel.as_ref(),
            traces.as_ref(),
        )?;
        let image = image_needs(next, limits.max_entries)?;
        Ok(Self {
            machine,
            next,
            items,
            traces,
            in_place,
            kernel,
            scratch,
            reusable,
            hop,
            limits,
            blob_sizes,
            state_len,
            image,
        })
    }

    /// Asks the planner, with `landing` as memory that was taken for the purpose.
    ///
    /// # Errors
    ///
    /// One [`Status`] per reason to refuse.
    pub fn plan(&self, landing: &RangeSet) -> Result<Plan, Fail> {
        self.with_request(landing, |request| {
            let plan = plan::plan(request).map_err(|err| plan_fail(&err))?;
            // The planner's word is not taken for it: this derives every safety property again.
            plan.check_invariants(request).map_err(|err| {
                Fail::new(
                    Status::Failed,
                    format!("the plan is unsafe and was not used: {}", chain(&err)),
                )
                .fix("this is a bug in kho; please report it with the output of kho plan --json")
            })?;
            Ok(plan)
        })
    }

    fn with_request<T>(&self, landing: &RangeSet, with: impl FnOnce(&PlanRequest<'_>) -> T) -> T {
        let landing = [self.reusable.clone(), landing.clone()];
        with(&PlanRequest {
            ram: &self.machine.ram,
            pinned: &self.machine.pinned,
            in_place: &self.in_place,
            scratch: self.scratch,
            image: self.image,
            payload: PayloadNeeds {
                state: self.state_len,
                blobs: &self.blob_sizes,
            },
            landing: &landing,
            cmdline: &self.next.cmdline.line,
            limits: self.limits,
        })
    }

    /// RAM where state and blobs may go once scratch is known.
    ///
    /// # Errors
    ///
    /// When memory runs out.
    pub fn may_land(&self, scratch: PhysRange) -> Result<RangeSet, Fail> {
        let without = |set: RangeSet, less: &RangeSet| set.subtract(less).or_status(Status::Failed);
        let mut set = self.machine.ram.try_clone().or_status(Status::Failed)?;
        set = without(set, &self.machine.pinned)?;
        set = without(set, &self.in_place)?;
        set.remove(scratch).or_status(Status::Failed)?;
        if let Ok(low) = PhysRange::from_bounds(PhysAddr::new(0), kho::image::LOW_MEMORY_END) {
            set.remove(low).or_status(Status::Failed)?;
        }
        Ok(set)
    }

    /// Bytes of state and blobs that are copied, in whole pages.
    pub fn payload_bytes(&self) -> u64 {
        self.blob_sizes
            .iter()
            .map(|size| size.next_multiple_of(PAGE_SIZE))
            .sum::<u64>()
            + self.state_len
    }
}

/// Scratch on a boot that nothing arrived in.
///
/// A second load chooses what the first one did: the pages of the image that is loaded are PageReserved
/// (`kimage_alloc_pages`, `kernel/kexec_core.c`), so the region that was chosen then would look taken now.
fn first_scratch(
    session: &Session,
    next: &Next<'_>,
    machine: &Machine,
) -> Result<ScratchSource, Fail> {
    if next.scratch.is_none()
        && machine.kexec.loaded == Some(true)
        && let Some([start, len]) = session.state.loaded()?.and_then(|loaded| loaded.scratch)
        && let Ok(range) = PhysRange::new(PhysAddr::new(start), len)
    {
        return Ok(ScratchSource::Recorded(Some(range)));
    }
    Ok(ScratchSource::Choose { size: next.scratch })
}

/// Bytes of the state segment at most: as many ranges as the limits allow.
fn state_len(
    machine: &Machine,
    items: &[Item],
    arrived: Option<&Arrived>,
    limits: &Limits,
    kernel: Option<&OutgoingPart>,
    traces: Option<&Carry>,
) -> Result<u64, Fail> {
    let ranges = dummy_ranges(limits.max_entries + limits.max_payload_segments)?;
    let release = &machine.kernel.release;
    let blobs = items
        .iter()
        .map(|item| {
            let label = Label::new(&item.entry.label).or_status(Status::BadName)?;
            // A copied blob has at most one piece per payload segment, one that stays has those it has.
            let pieces = match &item.supply {
                Supply::InPlace { index } => arrived
                    .and_then(|a| a.blobs.get(*index))
                    .map(|b| b.mem.as_slice())
                    .unwrap_or_default(),
                _ => ranges
                    .get(..limits.max_payload_segments)
                    .unwrap_or_default(),
            };
            Ok(BlobDescription {
                label,
                content: blob_content(&item.entry),
                size: item.size,
                mem: pieces,
                blake3: [0; 32],
                taken: 0,
                arrived_hop: 1,
            })
        })
        .collect::<Result<Vec<_>, Fail>>()?;
    let description = Description {
        generation: 0,
        hop: 1,
        previous_release: release,
        machine: MACHINE_X86_64,
        time: 0,
        scratch: ranges[0],
        mem_cache: &ranges[..limits.max_entries],
        blobs: &blobs,
    };
    // As for blobs: a part that is copied has at most one piece per payload segment.
    let pieces = ranges
        .get(..limits.max_payload_segments)
        .unwrap_or_default();
    let places: Places = traces
        .iter()
        .flat_map(|traces| traces.parts())
        .map(|_| (pieces.to_vec(), [0; 32]))
        .collect();
    let tree_len = kho::abi::measure_handover_with(&description, |w| {
        write_others(kernel, traces.map(|traces| (traces, &places)), w)
    })
    .or_status(Status::TooLarge)?;
    let shape = StateShape {
        tree_len: Some(tree_len as u64),
        reserved: limits.max_entries,
        memory_map: machine.memory_map.len(),
        efi_regions: machine.efi.as_ref().map(|efi| efi.runtime_map.len()),
        rng_seed: true,
    };
    SetupDataCarrier
        .state_len(&shape)
        .or_status(Status::TooManyRanges)
}

/// The node that refers to what drivers hand over, and that of traces.
///
/// # Errors
///
/// As the writer.
pub fn write_others(
    kernel: Option<&OutgoingPart>,
    traces: Option<(&Carry, &Places)>,
    writer: &mut Writer<'_>,
) -> Result<(), WriteError> {
    if let Some(part) = kernel {
        part.kernel.reference.write(writer)?;
    }
    traces.map_or(Ok(()), |(traces, places)| {
        traces.describe(places, |traces| write_traces(writer, traces))
    })
}

/// `count` pages, none next to another, for measuring.
fn dummy_ranges(count: usize) -> Result<Vec<PhysRange>, Fail> {
    (1..=count as u64)
        .map(|n| {
            PhysRange::new(PhysAddr::new(n * 2 * PAGE_SIZE), PAGE_SIZE).or_status(Status::Failed)
        })
        .collect()
}

/// What the tree says of an entry's content.
pub fn blob_content(entry: &Entry) -> Content<'_> {
    match &entry.path {
        Some(path) => Content::Files {
            path: path.as_os_str().as_bytes(),
            leave_out: entry.leave_out,
        },
        None => Content::Raw,
    }
}

fn image_needs(next: &Next<'_>, ranges: usize) -> Result<ImageNeeds, Fail> {
    let header = next.image.header();
    let initrd = next.initrd.map_or(0, <[u8]>::len) as u64;
    let len = assemble::initrd_len(initrd, ranges, next.cmdline.rdinit.as_deref())
        .or_status(Status::BadInitrd)?;
    Ok(ImageNeeds {
        kernel: KernelNeeds::from(header),
        initrd: Some(InitrdNeeds {
            len,
            max_addr: header.initrd_max.unwrap_or(PhysAddr::new(u64::MAX)),
        }),
        params_len: assemble::params_len(next.cmdline.line.len() as u64),
    })
}

/// The planner's refusals, each with its status and what to do.
fn plan_fail(err: &PlanError) -> Fail {
    let what = chain(err);
    match err {
        PlanError::OutsideRam { .. } | PlanError::Overlap { .. } => {
            Fail::new(Status::Overlap, what).fix("kho keep --remove the entry, or restore it and load again")
        }
        PlanError::ExactMap => Fail::new(Status::FirmwareMap, what),
        PlanError::TooManyRanges { .. } => Fail::new(Status::TooManyRanges, what),
        // Its message says what to do: the opposite of the next one.
        PlanError::Scratch(ScratchError::NoPlace { .. }) => Fail::new(Status::Scratch, what),
        PlanError::Scratch(_) | PlanError::ImageDoesNotFit(_) => Fail::new(Status::Scratch, what)
            .fix("boot once without a handover and give a larger --scratch (or kho_scratch=) on the first load"),
        PlanError::PayloadDoesNotFit { need, largest } => Fail::new(
            Status::TooLarge,
            format!("what is kept takes {} and at most {} fit", output::bytes(*need), output::bytes(*largest)),
        )
        .fix("keep less, or free memory"),
        PlanError::LoadLimit { need, limit, largest } => Fail::new(
            Status::LoadLimit,
            format!(
                "loading takes {}, this kernel accepts {} (half of its memory); at most {} of kept content fit",
                output::bytes(*need),
                output::bytes(*limit),
                output::bytes(*largest)
            ),
        )
        .fix("keep less; memory of earlier hops that is still reserved does not count as the kernel's"),
        PlanError::Headroom(_) => {
            Fail::new(Status::Headroom, what).fix("keep less, or lower crashkernel= and hugepages= of the next kernel")
        }
        _ => Fail::new(Status::Failed, what),
    }
}
