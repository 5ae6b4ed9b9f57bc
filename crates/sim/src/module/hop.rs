//! A hop from one kernel to the next, with the nodes and memory that drivers hand over.

use crate::kernel::{Library, Stored};
use crate::module::drivers::called;
use crate::module::machine::with;
use crate::op::{Cut, Op, Outcome};
use crate::sets::Rng;
use crate::world::SealedPart;
use kho::PhysAddr;
use kho::abi::kernel_part::KernelPart;
use kho::tree::Reader;

/// Handover with which a kernel was started.
pub struct Started {
    /// Address of the first node of the kernel's chain, and the contents that can be read back.
    pub chain: (PhysAddr, Library),
    /// Generation of the kernel's part in the chain of this kernel; `None` if the chain has no kernel's part.
    pub generation: Option<u64>,
}

/// Gives the loader the tree that is sealed now.
pub fn name_sealed() -> Result<SealedPart, String> {
    let sealed = called(|all| all.sealed.clone());
    let tree = Reader::new(&sealed).map_err(|e| e.to_string())?;
    let part = KernelPart::parse(&tree).map_err(|e| e.to_string())?;
    let part = SealedPart {
        kept: part.kept().map_err(|e| e.to_string())?,
        reference: part.reference,
    };
    with(|m| m.world.part = Some(part.clone()));
    Ok(part)
}

/// Loads one of the kernels. Returns whether the loader did so.
pub fn load(rng: &mut Rng) -> Result<bool, String> {
    let kernel = u8::try_from(rng.below(3)).unwrap_or(0);
    let load = Op::Load(kernel, 20, rng.below(2) == 0, Cut::Never);
    let outcome = with(|m| m.world.step(&load))?;
    Ok(!matches!(outcome, Outcome::Refused(_)))
}

/// Starts the loaded image.
pub fn start(rng: &mut Rng) -> Result<Started, String> {
    let (armed, library) = with(|m| (m.world.armed.clone(), m.world.library.clone()));
    let Some(armed) = armed else {
        return Err("nothing is loaded".into());
    };
    let kaslr = rng.below(2) == 0;
    match with(|m| m.world.step(&Op::Exec(kaslr)))? {
        Outcome::Hop => {}
        other => return Err(format!("no hop: {other:?}")),
    }
    let head = match library.get(&armed.entry.ids[2]).map(AsRef::as_ref) {
        Some(Stored::Params { setup_data }) => *setup_data,
        other => return Err(format!("boot parameters are {other:?}")),
    };
    Ok(Started {
        chain: (head, library),
        generation: armed.promise.part.map(|part| part.reference.generation),
    })
}
