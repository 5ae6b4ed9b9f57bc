//! The request to the planner, and the check of its plan.

use super::arch::Scale;
use super::describe::{self, Tree};
use super::early::{self, Early};
use super::machine::Machine;
use super::next::Next;
use super::payload::Payloads;
use super::places;
use crate::args;
use crate::arrived::Arrived;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::late::{Bounds, LateBlock};
use crate::module::{self, OutgoingPart};
use crate::mounts::{self, Mounted};
use crate::output;
use crate::random;
use crate::session::Session;
use crate::state::KeepFile;
use kho::abi::Carrier;
use kho::abi::late::LateReference;
use kho::headroom::CmdlineMemory;
use kho::headroom::UserSpace;
use kho::image::{ImageNeeds, InitrdNeeds, KernelNeeds};
use kho::plan::{self, Limits, PayloadNeeds, Plan, PlanError, PlanRequest, ScratchSource};
use kho::scratch::ScratchError;
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};
use kho_kexec::assemble;
use kho_kexec::sys::facts::host::online_cpus;
use kho_kexec::sys::syscalls::{SEGMENT_MAX, half_of_memory};
use std::path::Path;

/// Number of segments that are not payload: kernel, initrd, parameters.
const IMAGE_SEGMENTS: usize = 3;

/// All inputs of a plan, owned.
pub struct Inputs<'a> {
    /// The machine.
    pub machine: Machine,
    /// The next kernel.
    pub next: &'a Next<'a>,
    /// Content that the command hands over.
    pub payloads: Payloads,
    /// Ranges that are kept in place.
    pub in_place: RangeSet,
    /// Kernel's part, which drivers hand over.
    pub kernel: Option<OutgoingPart>,
    /// Late block, into which the module writes before the jump.
    pub late: Option<LateBlock>,
    /// Source of the scratch region.
    pub scratch: ScratchSource,
    /// Ranges that have been reserved since the last hop and are no longer needed.
    pub reusable: RangeSet,
    /// Hop count that the next kernel will see.
    pub hop: u64,
    /// Bounds of the plan.
    pub limits: Limits,
    user_space: UserSpace,
    early: Early,
    sizes: Vec<u64>,
    state_len: u64,
    image: ImageNeeds,
}

impl<'a> Inputs<'a> {
    /// Reads the facts about the machine and measures the kept content.
    ///
    /// # Errors
    ///
    /// One [`Status`] per reason that makes a load impossible before memory is planned.
    pub fn gather(
        session: &Session,
        keep: &KeepFile,
        arrived: Option<&Arrived>,
        next: &'a Next<'a>,
        args: &args::Next,
        kernel: Option<OutgoingPart>,
        late: Option<LateBlock>,
    ) -> Result<Self, Fail> {
        let machine = Machine::read(session, arrived)?;
        let hop = arrived.map_or(1, |arrived| arrived.hop.saturating_add(1));
        let payloads = Payloads::gather(
            session,
            keep,
            arrived,
            Some(&machine),
            hop,
            args.without_trace,
        )?;
        let mut in_place = payloads.in_place(&machine)?;
        if let Some(part) = &kernel {
            in_place = in_place
                .union(&of_drivers(part, &machine)?)
                .or_status(Status::Failed)?;
        }
        if let Some(late) = &late {
            in_place
                .insert(late.reference.block)
                .or_status(Status::Failed)?;
        }
        let recorded = arrived.and_then(|arrived| Some((arrived, arrived.scratch?)));
        let (scratch, reusable) = match recorded {
            // Memory that arrived and that the tree does not name may still be the drivers'.
            Some((_, scratch)) if late.is_some() => {
                (ScratchSource::Recorded(Some(scratch)), RangeSet::new())
            }
            Some((arrived, scratch)) => {
                let reusable = machine
                    .pages
                    .reserved_in(&arrived.reserved()?)?
                    .subtract(&in_place)
                    .or_status(Status::Failed)?;
                (ScratchSource::Recorded(Some(scratch)), reusable)
            }
            None => (first_scratch(session, next, &machine)?, RangeSet::new()),
        };
        let early = early::decide(
            args,
            next.image.release(),
            next.config,
            Scale {
                map_entries: machine.map_entries,
                cpus: online_cpus(&session.root) as usize,
            },
        )?;
        let mut limits = limits(&early, &machine);
        if late.is_some() {
            // The module needs the other reservations.
            limits.max_entries /= 2;
        }
        Ok(Self {
            sizes: payloads.planned_sizes(),
            state_len: state_len(
                &machine,
                &payloads,
                kernel.as_ref(),
                late.as_ref().map(|late| late.reference),
                &limits,
            )?,
            image: image_needs(next, &machine, limits.max_entries)?,
            user_space: UserSpace {
                cpus: online_cpus(&session.root),
                copies: copies(&payloads, next.image.release(), session)?,
                native_nodes: next.native.nodes,
            },
            machine,
            next,
            payloads,
            in_place,
            kernel,
            late,
            scratch,
            reusable,
            hop,
            limits,
            early,
        })
    }

    /// Asks the planner for a plan. `landing` is memory that the loader took for the content.
    ///
    /// # Errors
    ///
    /// One [`Status`] per reason to refuse.
    pub fn plan(&self, landing: &RangeSet) -> Result<Plan, Fail> {
        let mut tries = 0;
        loop {
            let pinned = self.pinned()?;
            let plan = self.with_request(landing, &pinned, |request| {
                plan::plan(request).map_err(|err| plan_fail(&err, &self.early.fix))
            })?;
            if !self.machine.pages.spoil(&self.used(&plan)?, tries)? {
                return self.checked(plan, landing);
            }
            tries += 1;
        }
    }

    /// Returns the known pages that no plan may use: reserved ones, and those that drivers keep and that the module
    /// names later.
    fn pinned(&self) -> Result<RangeSet, Fail> {
        let pinned = self.machine.pages.pinned()?;
        match &self.late {
            Some(late) => pinned.union(&late.kept).or_status(Status::Failed),
            None => Ok(pinned),
        }
    }

    /// Returns the steps that a late load leaves to the module: the bounds for the late mem cache under this plan.
    /// `None` if the load is complete.
    ///
    /// # Errors
    ///
    /// [`Status::TooManyRanges`] if there are more ranges than the module can be told.
    pub fn bounds(&self, plan: &Plan) -> Result<Option<String>, Fail> {
        let Some(late) = &self.late else {
            return Ok(None);
        };
        let ram = CmdlineMemory::parse(&self.next.cmdline.line, self.machine.ram.total())
            .or_status(Status::Failed)?
            .usable(&self.machine.ram)
            .and_then(|ram| ram.align_inner(PAGE_SIZE))
            .or_status(Status::Failed)?;
        let room = &plan.headroom;
        let total = room.free_total.saturating_sub(room.need_total);
        let low = match room.has_high {
            true => room.free_low.saturating_sub(room.need_low),
            false => total,
        };
        late.bounds(&Bounds {
            ranges: self.early.cap.saturating_sub(plan.totals.early_entries),
            total,
            low,
            ram: &ram,
            image: &[plan.scratch]
                .into_iter()
                .chain(plan.segments.iter().map(|segment| segment.dest))
                .collect::<Vec<_>>(),
        })
        .map(Some)
    }

    /// Returns the pages that a plan uses and that must not be pinned.
    fn used(&self, plan: &Plan) -> Result<RangeSet, Fail> {
        let chosen = match self.scratch {
            ScratchSource::Choose { .. } => Some(plan.scratch),
            // A recorded scratch region may hold pages of the running kernel: the kexec overwrites them last of all.
            ScratchSource::Recorded(_) => None,
        };
        let payload = plan.segments.iter().map(|segment| segment.dest);
        let covered = plan.mem_cache.ranges();
        RangeSet::from_ranges(payload.chain(covered).chain(chosen)).or_status(Status::Failed)
    }

    /// Returns the plan if it is safe. The check derives every safety property again and does not rely on the planner.
    fn checked(&self, plan: Plan, landing: &RangeSet) -> Result<Plan, Fail> {
        let pinned = self.pinned()?;
        self.with_request(landing, &pinned, |request| plan.check_invariants(request))
            .map_err(|err| {
                Fail::new(
                    Status::Failed,
                    format!("the plan is unsafe and was not used: {}", chain(&err)),
                )
                .fix("this is a bug in kho; please report it with the output of kho plan --json")
            })?;
        Ok(plan)
    }

    fn with_request<T>(
        &self,
        landing: &RangeSet,
        pinned: &RangeSet,
        with: impl FnOnce(&PlanRequest<'_>) -> T,
    ) -> T {
        let landing = [self.reusable.clone(), landing.clone()];
        with(&PlanRequest {
            ram: &self.machine.ram,
            pinned,
            in_place: &self.in_place,
            scratch: self.scratch,
            image: self.image,
            payload: PayloadNeeds {
                state: self.state_len,
                blobs: &self.sizes,
            },
            landing: &landing,
            cmdline: &self.next.cmdline.line,
            limits: self.limits,
            user_space: self.user_space,
        })
    }

    /// Returns the RAM where state and blobs may be placed once the scratch region is known. This includes pages that
    /// the kernel holds and that no process can get.
    ///
    /// # Errors
    ///
    /// If memory runs out.
    pub fn may_land(&self, scratch: PhysRange) -> Result<RangeSet, Fail> {
        let without = |set: RangeSet, less: &RangeSet| set.subtract(less).or_status(Status::Failed);
        let mut set = self.machine.ram.try_clone().or_status(Status::Failed)?;
        set = without(set, &self.pinned()?)?;
        set = without(set, &self.in_place)?;
        set.remove(scratch).or_status(Status::Failed)?;
        if let Ok(low) = PhysRange::from_bounds(PhysAddr::new(0), kho::image::LOW_MEMORY_END) {
            set.remove(low).or_status(Status::Failed)?;
        }
        Ok(set)
    }

    /// Returns the number of bytes of state and blobs that the load copies, in whole pages.
    pub fn payload_bytes(&self) -> u64 {
        self.sizes
            .iter()
            .map(|size| size.next_multiple_of(PAGE_SIZE))
            .sum::<u64>()
            + self.state_len
    }
}

/// Returns the source of the scratch region on a boot in which nothing arrived.
///
/// A second load reuses the region of the first one. The pages of the loaded image are PageReserved
/// (`kimage_alloc_pages`, `kernel/kexec_core.c`), so without the record this region would look used.
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

/// Returns the ranges that drivers keep in place. For a kernel's part that arrived, [`Machine::read`] has checked that
/// all of it is still reserved.
fn of_drivers(part: &OutgoingPart, machine: &Machine) -> Result<RangeSet, Fail> {
    let kept = part.kernel.kept().or_status(Status::Failed)?;
    for range in kept.iter() {
        let fix = "kho status says whose it is; kho abort, then let its driver leave the page out, or kho release it";
        machine.require_good(range, "what drivers hand over", fix)?;
    }
    Ok(kept)
}

/// Returns the bounds of the plan, with at most `early.cap` early reservations.
fn limits(early: &Early, machine: &Machine) -> Limits {
    Limits {
        max_entries: early.cap,
        max_payload_segments: SEGMENT_MAX - IMAGE_SEGMENTS,
        load_limit: half_of_memory(machine.memory.total),
    }
}

/// Returns the largest size of the state segment, in bytes: with the largest number of ranges that the limits allow,
/// and with every payload that is copied in as many pieces as there are payload segments.
fn state_len(
    machine: &Machine,
    payloads: &Payloads,
    kernel: Option<&OutgoingPart>,
    late: Option<LateReference>,
    limits: &Limits,
) -> Result<u64, Fail> {
    let ranges = dummy_ranges(limits.max_entries.max(limits.max_payload_segments))?;
    let first = |count| ranges.get(..count).unwrap_or(&ranges);
    let tree = Tree {
        payloads,
        kernel,
        late,
        carrier: Carrier::Memory,
        release: &machine.kernel.release,
        generation: 0,
        hop: 1,
        time: 0,
        scratch: ranges[0],
        mem_cache: first(limits.max_entries),
    };
    let placed = describe::at_most(payloads, first(limits.max_payload_segments));
    let len = tree.measure(&placed)? as u64;
    machine.boot.state_len(len, limits.max_entries)
}

/// Returns the number of bytes that the next kernel restores into memory (tmpfs) while the memory that was handed over
/// is still reserved.
fn copies(payloads: &Payloads, release: Option<&str>, session: &Session) -> Result<u64, Fail> {
    let mounted = places::mounted(session)?;
    let files = payloads.items.iter();
    let files = files.filter_map(|item| Some((item.entry.path.as_deref()?, item.size)));
    let gives_back = module::installed_for(&session.root, release);
    Ok(in_memory(files, &mounted, gives_back))
}

/// Returns the number of bytes of these paths and sizes that lie on file systems in memory. With kho.ko (`gives_back`)
/// it is only the size of the largest entry: the module releases the memory of an entry when the entry is restored, so
/// only one entry is in memory twice.
fn in_memory<'a>(
    files: impl Iterator<Item = (&'a Path, u64)>,
    mounted: &[Mounted],
    gives_back: bool,
) -> u64 {
    let twice =
        files.filter(|(path, _)| mounts::holder(path, mounted).is_some_and(Mounted::is_memory));
    let sizes = twice.map(|(_, size)| size);
    if gives_back {
        sizes.max().unwrap_or(0)
    } else {
        sizes.fold(0, u64::saturating_add)
    }
}

/// Returns `count` pages that are not adjacent, to measure the size of a tree.
fn dummy_ranges(count: usize) -> Result<Vec<PhysRange>, Fail> {
    (1..=count as u64)
        .map(|n| {
            PhysRange::new(PhysAddr::new(n * 2 * PAGE_SIZE), PAGE_SIZE).or_status(Status::Failed)
        })
        .collect()
}

fn image_needs(next: &Next<'_>, machine: &Machine, ranges: usize) -> Result<ImageNeeds, Fail> {
    let header = next.image.header();
    let initrd = next.initrd.map_or(0, <[u8]>::len) as u64;
    let len = assemble::initrd_len(initrd, ranges, next.cmdline.rdinit.as_deref())
        .or_status(Status::BadInitrd)?;
    let mut kernel = KernelNeeds::from(header);
    kernel.random = next.place_at_random().then(random::number).transpose()?;
    Ok(ImageNeeds {
        kernel,
        initrd: Some(InitrdNeeds {
            len,
            unpacked: next.unpacked,
            max_addr: header.initrd_max.unwrap_or(PhysAddr::new(u64::MAX)),
        }),
        params_len: machine
            .boot
            .params_len(next.cmdline.line.len() as u64, ranges),
    })
}

/// Makes the failure for a refusal of the planner, with its status and advice. `early` is the advice for too many
/// ranges.
fn plan_fail(err: &PlanError, early: &str) -> Fail {
    let what = chain(err);
    match err {
        PlanError::OutsideRam { .. } | PlanError::Overlap { .. } => {
            Fail::new(Status::Overlap, what).fix("kho keep --remove the entry, or restore it and load again")
        }
        PlanError::ExactMap => Fail::new(Status::FirmwareMap, what),
        PlanError::TooManyRanges { .. } => Fail::new(Status::TooManyRanges, what).fix(early),
        // The message itself has the advice, which is the opposite of that of the next arm.
        PlanError::Scratch(ScratchError::NoPlace { .. }) => Fail::new(Status::Scratch, what),
        PlanError::Scratch(_) | PlanError::ImageDoesNotFit(_) => Fail::new(Status::Scratch, what)
            .fix("scratch stays as it is for all hops: reboot without a handover, and give the first load a larger --scratch (or that boot a larger kho_scratch=)"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_on_tmpfs_are_counted() {
        let mounted = mounts::mounted(
            b"22 1 254:1 / / rw - ext4 /dev/vda1 rw\n23 22 0:30 / /run rw - tmpfs tmpfs rw\n24 23 8:1 / /run/disk rw - ext4 /dev/sda1 rw\n",
        );
        let files = [
            ("/srv/data", 1 << 40),
            ("/run/cache", 5),
            ("/run/other", 7),
            ("/run/disk/x", 1 << 40),
            ("/runner", 1 << 40),
        ];
        let count = |gives_back| {
            let files = files.iter().map(|(path, size)| (Path::new(path), *size));
            in_memory(files, &mounted, gives_back)
        };
        assert_eq!((count(false), count(true)), (12, 7));
    }
}
