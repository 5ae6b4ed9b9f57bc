//! Memory of this process that holds the segments of a load.

use crate::exit::{Fail, OrStatus, Status};
use kho::PhysRange;
use kho::plan::{Content, Piece, Plan};
use kho_kexec::assemble::{self, Assembled};
use kho_kexec::sys::landing::LandingZone;
use kho_kexec::sys::syscalls::SegmentRef;

/// The user memory behind every payload segment.
pub struct Buffers<'z> {
    /// One element for each payload segment.
    segments: Vec<Memory<'z>>,
}

/// The user memory behind one segment.
enum Memory<'z> {
    /// A part of the landing zone.
    Zone(&'z mut [u8]),
    /// Ordinary memory.
    Own(Vec<u8>),
}

impl Memory<'_> {
    fn get(&self) -> &[u8] {
        match self {
            Self::Zone(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }

    fn get_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Zone(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

impl<'z> Buffers<'z> {
    /// Allocates memory for each segment that `zone` does not hold.
    ///
    /// # Errors
    ///
    /// [`Status::NotEnoughMemory`] if an allocation fails.
    pub fn new(plan: &Plan, zone: Option<&'z mut LandingZone>) -> Result<Self, Fail> {
        let dests: Vec<PhysRange> = plan.segments.iter().map(|s| s.dest).collect();
        let mut segments: Vec<Option<Memory<'z>>> = dests.iter().map(|_| None).collect();
        for (run, memory) in zone.into_iter().flat_map(LandingZone::memory_mut) {
            for (index, memory) in parts(run, memory, &dests) {
                if let Some(segment) = segments.get_mut(index) {
                    *segment = Some(Memory::Zone(memory));
                }
            }
        }
        let segments = segments.into_iter().zip(dests).map(|(segment, dest)| {
            if let Some(memory) = segment {
                return Ok(memory);
            }
            let len = usize::try_from(dest.len()).unwrap_or(usize::MAX);
            let mut bytes = Vec::new();
            bytes
                .try_reserve_exact(len)
                .or_status(Status::NotEnoughMemory)?;
            bytes.resize(len, 0);
            Ok(Memory::Own(bytes))
        });
        Ok(Self {
            segments: segments.collect::<Result<_, Fail>>()?,
        })
    }

    fn get(&self, segment: usize) -> &[u8] {
        self.segments.get(segment).map_or(&[], Memory::get)
    }

    /// Returns the bytes of one piece.
    fn piece(&mut self, piece: &Piece) -> Option<&mut [u8]> {
        let start = usize::try_from(piece.segment_offset).ok()?;
        let end = start.checked_add(usize::try_from(piece.dest.len()).ok()?)?;
        let segment = self.segments.get_mut(piece.segment)?;
        segment.get_mut().get_mut(start..end)
    }

    /// Returns the memory of payload number `index`, in the order of its bytes.
    pub fn payload(&mut self, plan: &Plan, index: usize) -> Vec<&mut [u8]> {
        let mut pieces: Vec<(usize, &Piece)> = plan.blob_pieces(index).enumerate().collect();
        pieces.sort_unstable_by_key(|(_, piece)| (piece.segment, piece.segment_offset));
        let mut pieces = pieces.into_iter().peekable();
        let mut found = Vec::new();
        for (number, segment) in self.segments.iter_mut().enumerate() {
            let (mut rest, mut at) = (segment.get_mut(), 0);
            while let Some((place, piece)) = pieces.next_if(|(_, piece)| piece.segment == number) {
                let len = usize::try_from(piece.len).unwrap_or(usize::MAX);
                let Some((part, more)) = usize::try_from(piece.segment_offset)
                    .ok()
                    .and_then(|start| start.checked_sub(at))
                    .and_then(|skip| std::mem::take(&mut rest).split_at_mut_checked(skip))
                    .and_then(|(before, rest)| {
                        at += before.len();
                        rest.split_at_mut_checked(len)
                    })
                else {
                    continue;
                };
                at += len;
                rest = more;
                found.push((place, part));
            }
        }
        found.sort_unstable_by_key(|(place, _)| *place);
        found.into_iter().map(|(_, part)| part).collect()
    }

    /// Fills the rest of the last page of every payload with zeros. Otherwise it would show data that this process had
    /// in memory.
    pub fn zero_tails(&mut self, plan: &Plan) {
        for piece in &plan.pieces {
            if let (Content::Blob { .. }, Ok(len)) = (piece.content, usize::try_from(piece.len))
                && let Some(tail) = self.piece(piece).and_then(|b| b.get_mut(len..))
            {
                tail.fill(0);
            }
        }
    }

    /// Copies the chain and the tree to the pieces that the plan has for them.
    ///
    /// # Errors
    ///
    /// [`Status::Failed`] if the plan has no room for them.
    pub fn put_state(&mut self, plan: &Plan, assembled: &Assembled<'_>) -> Result<(), Fail> {
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

    /// Returns every segment for the system call: the image first, then the payload.
    ///
    /// # Errors
    ///
    /// [`Status::Failed`] if a segment is not whole.
    pub fn segments<'s>(
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

/// Returns the index of each of `dests` that lies in `run`, with its part of the memory of the run.
fn parts<'m>(
    run: PhysRange,
    memory: &'m mut [u8],
    dests: &[PhysRange],
) -> Vec<(usize, &'m mut [u8])> {
    let inside = dests.iter().enumerate();
    let mut inside: Vec<_> = inside
        .filter(|(_, dest)| run.contains_range(**dest))
        .collect();
    inside.sort_unstable_by_key(|(_, dest)| dest.start());
    let (mut rest, mut at) = (memory, run.start());
    let mut found = Vec::new();
    for (index, dest) in inside {
        let skip = dest.start().offset_from(at);
        let (Some(skip), Ok(len)) = (
            skip.and_then(|skip| usize::try_from(skip).ok()),
            usize::try_from(dest.len()),
        ) else {
            continue;
        };
        let (_, from) = rest.split_at_mut(skip);
        let (part, after) = from.split_at_mut(len);
        found.push((index, part));
        (rest, at) = (after, dest.end());
    }
    found
}
