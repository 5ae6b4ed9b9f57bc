//! A late load: kho.ko completes it before the jump, through its file `late` (`module/decide/src/late.rs` has the steps).

use crate::exit::{Fail, OrStatus, Status};
use crate::module::{self, Entered};
use crate::output::Output;
use kho::abi::late::LateReference;
use kho::{PhysAddr, PhysRange, RangeSet};
use kho_kexec::sys::root::Root;
use std::fmt::Write;

/// File of the module.
const FILE: &str = "late";

/// Largest number of bytes that the module takes with one write (`PAGE_SIZE`; sysfs cuts longer writes).
const LARGEST: usize = 4096;

/// The late block, ready for a load.
pub struct LateBlock {
    /// Place of the block, and the nonce for the load.
    pub reference: LateReference,
    /// Memory that drivers keep now. The load puts nothing there.
    pub kept: RangeSet,
}

/// Bounds of a load, for the late mem cache.
pub struct Bounds<'a> {
    /// Early reservations that the load left.
    pub ranges: usize,
    /// Bytes that the late mem cache may cover.
    pub total: u64,
    /// Bytes that it may cover below 4 GiB.
    pub low: u64,
    /// RAM that the next kernel knows.
    pub ram: &'a RangeSet,
    /// Scratch and the destinations of the image.
    pub image: &'a [PhysRange],
}

/// The module's answer.
struct Answer {
    block: PhysRange,
    /// Nonce of the armed load.
    nonce: u64,
    /// Nonce for the next load.
    next: u64,
    state: String,
}

impl Answer {
    /// Reads the file; `None` if the module has no late block.
    fn read(root: &Root) -> Result<Option<Self>, Fail> {
        if !root.exists(&module::file(FILE)) {
            return Ok(None);
        }
        // The file cannot be read before the first late load.
        let Ok(text) = root.attribute(&module::file(FILE)) else {
            return Ok(None);
        };
        Self::parse(&text).map(Some).ok_or_else(|| {
            Fail::new(
                Status::Module,
                format!("/{} says `{text}`", module::file(FILE)),
            )
            .fix("use the command that came with the module")
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.strip_prefix(' '))
        };
        let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let (start, len) = value("block")?.split_once(' ')?;
        Some(Self {
            block: PhysRange::new(PhysAddr::new(number(start)?), number(len)?).ok()?,
            nonce: number(value("nonce")?)?,
            next: number(value("next-nonce")?)?,
            state: value("state")?.to_owned(),
        })
    }
}

impl LateBlock {
    /// Lets the module prepare its block, and asks drivers what they keep now. An older late load stays as it is.
    ///
    /// # Errors
    ///
    /// [`Status::Unsupported`] without the module or with an older one; [`Status::Module`] if the module refuses or a
    /// driver fails.
    pub fn prepare(root: &Root, out: Output) -> Result<Self, Fail> {
        if module::present(root) && !root.exists(&module::file(FILE)) {
            return Err(Fail::new(
                Status::Unsupported,
                "the loaded kho.ko is too old for --late",
            )
            .fix("load the module of this version, or leave --late out"));
        }
        module::write(root, FILE, "prepare")?;
        let answer = Answer::read(root)?
            .ok_or_else(|| Fail::new(Status::Module, "the module has no late block"))?;
        let entered = Entered::enter(root, true, 0, out)?;
        let kept = match &entered.part {
            Some(part) => part.kernel.kept().or_status(Status::Failed)?,
            None => RangeSet::new(),
        };
        Ok(Self {
            reference: LateReference {
                block: answer.block,
                nonce: answer.next,
            },
            kept,
        })
    }

    /// Returns the step that arms the load with these bounds.
    ///
    /// # Errors
    ///
    /// [`Status::TooManyRanges`] if the bounds have more ranges than the module takes.
    pub fn bounds(&self, bounds: &Bounds<'_>) -> Result<String, Fail> {
        let mut text = format!(
            "arm\nnonce {:#x}\nranges {:#x}\ntotal {:#x}\nlow {:#x}\n",
            self.reference.nonce, bounds.ranges, bounds.total, bounds.low
        );
        let ram = bounds.ram.iter().map(|range| ("ram", range));
        let image = bounds.image.iter().map(|range| ("image", *range));
        for (name, range) in ram.chain(image) {
            let (start, len) = (range.start().get(), range.len());
            writeln!(text, "{name} {start:#x} {len:#x}").or_status(Status::Failed)?;
        }
        if text.len() > LARGEST {
            return Err(Fail::new(
                Status::TooManyRanges,
                format!(
                    "the memory of this machine is in {} pieces, too many for a late load",
                    bounds.ram.len()
                ),
            )
            .fix("load without --late"));
        }
        Ok(text)
    }
}

/// Guard of an armed load: its drop disarms the load.
pub struct Armed<'r> {
    root: &'r Root,
    armed: bool,
}

impl<'r> Armed<'r> {
    /// Arms a load by the step that [`LateBlock::bounds`] made. Without a step nothing is armed.
    ///
    /// # Errors
    ///
    /// [`Status::Module`] if the module has no room for what drivers keep now.
    pub fn arm(root: &'r Root, step: Option<&str>) -> Result<Self, Fail> {
        if let Some(step) = step {
            module::write(root, FILE, step).map_err(|fail| Fail {
                what: "kho.ko cannot complete this load before the jump: what drivers and khofs keep has no room in it"
                    .to_owned(),
                ..fail
            })?;
        }
        Ok(Self {
            root,
            armed: step.is_some(),
        })
    }

    /// Keeps the load armed, because the image is loaded.
    pub fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        if self.armed {
            // The block is empty, so an image without a record hands over nothing of the drivers'.
            let _ = disarm(self.root);
        }
    }
}

/// Forgets an armed load, after its image was unloaded.
///
/// # Errors
///
/// If the module refuses.
pub fn disarm(root: &Root) -> Result<(), Fail> {
    match Answer::read(root)? {
        Some(answer) if answer.state != "idle" => module::write(root, FILE, "disarm"),
        _ => Ok(()),
    }
}

/// Refuses to start the image of the late load with this nonce if the module does not complete it.
///
/// # Errors
///
/// [`Status::Stale`] if the module has no such load.
pub fn require(root: &Root, nonce: u64) -> Result<(), Fail> {
    match Answer::read(root)? {
        Some(answer) if answer.state != "idle" && answer.nonce == nonce => Ok(()),
        _ => Err(Fail::new(
            Status::Stale,
            "kho.ko does not complete this load: it was disarmed since",
        )
        .fix("kho load again")),
    }
}

/// Guard of a late load that was published: its drop ends the active phase that the publication began.
pub struct Published<'r> {
    root: &'r Root,
    out: Output,
    began: bool,
}

impl<'r> Published<'r> {
    /// Freezes drivers and hands over what they keep.
    ///
    /// # Errors
    ///
    /// [`Status::Module`] if a producer fails or there is no room; then drivers are not frozen.
    pub fn publish(root: &'r Root, out: Output) -> Result<Self, Fail> {
        let began = !module::is_active(root)?;
        module::write(root, FILE, "publish")?;
        Ok(Self { root, out, began })
    }
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        if self.began
            && let Err(fail) = module::write(self.root, "active", "0")
        {
            self.out.warn(&format!(
                "drivers stay frozen until kho abort: {}",
                fail.what
            ));
        }
    }
}
