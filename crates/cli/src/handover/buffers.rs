//! The memory of this process that a load is filled into.

use crate::exit::{Fail, OrStatus, Status};
use crate::hash;
use kho::PhysRange;
use kho::plan::{Content, Piece, Plan};
use kho_kexec::assemble::{self, Assembled};
use kho_kexec::sys::landing::LandingZone;
use kho_kexec::sys::syscalls::SegmentRef;
use std::io::Write;

/// The user memory behind every payload segment.
pub struct Buffers<'z> {
    zone: Option<&'z mut LandingZone>,
    /// One buffer per payload segment; empty if the zone holds the destination.
    own: Vec<Vec<u8>>,
    dests: Vec<PhysRange>,
}

impl<'z> Buffers<'z> {
    /// Allocates memory for each segment that `zone` does not hold.
    ///
    /// # Errors
    ///
    /// [`Status::NotEnoughMemory`].
    pub fn new(plan: &Plan, zone: Option<&'z mut LandingZone>) -> Result<Self, Fail> {
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

    /// Returns the bytes of one piece.
    fn piece(&mut self, piece: &Piece) -> Option<&mut [u8]> {
        let start = usize::try_from(piece.segment_offset).ok()?;
        let end = start.checked_add(usize::try_from(piece.dest.len()).ok()?)?;
        self.get_mut(piece.segment).get_mut(start..end)
    }

    /// Returns the hash of payload number `index`, whose content must have been written.
    pub fn hash(&self, plan: &Plan, index: usize) -> [u8; 32] {
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

    /// Writes zeros behind the end of every payload: the rest of its last page must not show what this process had in
    /// its memory.
    pub fn zero_tails(&mut self, plan: &Plan) {
        for piece in &plan.pieces {
            if let (Content::Blob { .. }, Ok(len)) = (piece.content, usize::try_from(piece.len))
                && let Some(tail) = self.piece(piece).and_then(|b| b.get_mut(len..))
            {
                tail.fill(0);
            }
        }
    }

    /// Copies the chain and the tree to their piece.
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

/// Writer of a stream over the pieces of one payload.
pub struct PieceWriter<'b, 'z> {
    buffers: &'b mut Buffers<'z>,
    pieces: Vec<Piece>,
    at: usize,
    done: u64,
    /// Number of bytes written so far.
    pub written: u64,
}

impl<'b, 'z> PieceWriter<'b, 'z> {
    /// Makes a writer for payload number `index`.
    pub fn new(buffers: &'b mut Buffers<'z>, plan: &Plan, index: usize) -> Self {
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
