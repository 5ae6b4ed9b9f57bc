//! A kernel from its entry to a running system.

use crate::chain;
use crate::machine::{GIB, MIB, Template, range, set};
use crate::memory::{Content, Memory};
use crate::sets::{Rng, add, aligned, both, minus, outer, plus, take_top};
use kho::image::{ImageNeeds, ImagePlacement};
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A content whose bytes the simulation can read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Boot parameters, with the address of the chain.
    Params {
        /// `hdr.setup_data`.
        setup_data: PhysAddr,
    },
    /// Chain and tree.
    State(Vec<u8>),
}

/// All contents that the simulation can read back.
pub type Library = BTreeMap<u64, Rc<Stored>>;

/// A loaded image, as its entry code finds the image in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The image's needs.
    pub image: ImageNeeds,
    /// Places of the image's parts in memory.
    pub placement: ImagePlacement,
    /// Contents of kernel, initrd and boot parameters, in this order.
    pub ids: [u64; 3],
}

/// A running kernel's view of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Range of the kernel's image, which is pinned too.
    pub image: PhysRange,
    /// Memory that the kernel takes in early boot and never returns: image, page structs, tables from the firmware.
    pub pinned: RangeSet,
    /// Memory that is reserved for the previous kernel's handover and not yet released.
    pub reserved: RangeSet,
    /// Pages of this kernel's ordinary memory that a producer owns and keeps in place.
    pub held: RangeSet,
    /// Memory that is allocated for this kernel and its users. The memory is free after the kernel ends.
    pub busy: RangeSet,
    /// Number of bytes that the page allocator manages: `totalram_pages()`.
    pub managed: u64,
}

/// A handover, as the kernel found it in early boot.
#[derive(Debug)]
pub struct Arrival {
    /// The result of the walk along the chain.
    pub found: chain::Found,
    /// The tree's bytes.
    pub tree: Vec<u8>,
    /// Highest number of early reservations at any time.
    pub peak: usize,
}

impl Kernel {
    /// Returns the memory in the page allocator.
    pub fn free(&self, template: &Template) -> RangeSet {
        let ours = plus(&self.held, &self.busy);
        let taken = plus(&plus(&self.pinned, &self.reserved), &ours);
        aligned(&minus(&usable(template), &taken), PAGE_SIZE)
    }

    /// Returns pages to the page allocator.
    pub fn give_back(&mut self, what: &RangeSet) {
        self.managed += both(&self.reserved, what).total();
        self.reserved = minus(&self.reserved, what);
        self.held = minus(&self.held, what);
    }

    /// Fills all free memory with new garbage.
    pub fn churn(&self, template: &Template, memory: &mut Memory, id: u64) {
        for run in self.free(template).iter() {
            memory.write(run, Content::start(id));
        }
    }
}

/// Returns RAM above the first MiB.
fn usable(template: &Template) -> RangeSet {
    minus(&template.ram, &set([range(0, MIB)]))
}

/// Inputs of a boot.
pub struct Boot<'a> {
    /// The machine.
    pub template: &'a Template,
    /// Memory of the machine.
    pub memory: &'a mut Memory,
    /// Contents by id.
    pub library: &'a Library,
    /// Source of random numbers.
    pub rng: &'a mut Rng,
    /// Whether the kernel chooses its address at random.
    pub kaslr: bool,
    /// A fresh id for everything that this kernel writes.
    pub garbage: u64,
}

impl Boot<'_> {
    fn garbage(&mut self, range: PhysRange) {
        self.memory.write(range, Content::start(self.garbage));
    }

    /// Boots through the firmware: nothing arrives.
    ///
    /// # Errors
    ///
    /// If memory runs out.
    pub fn cold(self, image: &ImageNeeds) -> Result<Kernel, String> {
        let hidden = self.template.hidden.iter().collect::<Vec<_>>();
        for (number, table) in (1u64..).zip(hidden) {
            self.memory
                .write(table, Content::start(firmware_id(number)));
        }
        let free = minus(&usable(self.template), &outer(&self.template.hidden));
        let text = self
            .rng
            .place(&free, reserve_len(image), image.kernel.align)
            .ok_or("no place for a kernel")?;
        self.run(image, text, &RangeSet::new())
    }

    /// Boots from another kernel: decompresses, reserves, allocates, and fills the rest with garbage.
    ///
    /// # Errors
    ///
    /// If a real machine would crash, hang or be damaged.
    pub fn warm(mut self, entry: &Entry) -> Result<(Kernel, Option<Arrival>), String> {
        let place = &entry.placement;
        // The decompressor uses all of its init_size before it looks at the chain.
        let decompressor = PhysRange::new(place.kernel.reserved.start(), reserve_len(&entry.image))
            .map_err(|e| e.to_string())?;
        self.intact(place.kernel.segment(), entry.ids[0], "kernel")?;
        let params = place.params.segment();
        self.intact(params, entry.ids[2], "boot parameters")?;
        let setup_data = match self.library.get(&entry.ids[2]).map(Rc::as_ref) {
            Some(Stored::Params { setup_data }) => *setup_data,
            other => return Err(format!("boot parameters are {other:?}")),
        };
        // KASLR walks the chain before anything else is written, as in the decompressor.
        let arrival = self.read_chain(setup_data)?;
        let ours = set(arrival.found.reserved.iter().copied());
        let text = if self.kaslr && !self.template.efi {
            let mut avoid = plus(&ours, &set([range(0, 16 * MIB), decompressor, params]));
            if let Some(initrd) = place.initrd {
                add(&mut avoid, initrd.reserved);
            }
            let candidates = minus(&self.template.ram, &avoid);
            self.rng
                .place(
                    &candidates,
                    reserve_len(&entry.image),
                    entry.image.kernel.align,
                )
                .unwrap_or(decompressor)
        } else {
            decompressor
        };
        self.garbage(decompressor);
        self.garbage(text);
        self.intact(params, entry.ids[2], "boot parameters, after decompression")?;
        if let Some(initrd) = place.initrd {
            self.intact(initrd.segment(), entry.ids[1], "initrd")?;
        }
        if arrival.peak > self.template.cap {
            return Err(format!(
                "{} early reservations, and this machine dies after {}",
                arrival.peak, self.template.cap
            ));
        }
        let kernel = self.run(&entry.image, text, &outer(&ours))?;
        Ok((kernel, Some(arrival)))
    }

    fn intact(&self, at: PhysRange, id: u64, what: &str) -> Result<(), String> {
        match self.memory.first_difference(at, Content::start(id)) {
            None => Ok(()),
            Some(addr) => Err(format!(
                "{what} at {at} overwritten at {addr} by {:?}",
                self.memory.at(addr)
            )),
        }
    }

    fn read_chain(&self, setup_data: PhysAddr) -> Result<Arrival, String> {
        let head = self.memory.at(setup_data);
        let bytes = match self.library.get(&head.id).map(Rc::as_ref) {
            Some(Stored::State(bytes)) if head.offset == 0 => bytes,
            other => {
                return Err(format!(
                    "the chain at {setup_data} was overwritten: {other:?}"
                ));
            }
        };
        let all = PhysRange::new(setup_data, bytes.len() as u64).map_err(|e| e.to_string())?;
        self.intact(all, head.id, "state segment")?;
        let found = chain::walk(bytes, setup_data, setup_data)?;
        // memblock joins ranges that touch, and so does a range set.
        let mut table = RangeSet::new();
        let mut peak = 0;
        for range in &found.reserved {
            add(&mut table, *range);
            peak = peak.max(table.len());
        }
        let tree = found.tree.ok_or("the chain names no tree")?;
        let skip = tree.start().offset_from(setup_data).unwrap_or(u64::MAX);
        let tree = usize::try_from(skip)
            .ok()
            .and_then(|skip| bytes.get(skip..skip + usize::try_from(tree.len()).ok()?))
            .ok_or("the tree is not in the state segment")?
            .to_vec();
        Ok(Arrival { found, tree, peak })
    }

    /// Runs the boot from the first allocation on.
    fn run(
        mut self,
        image: &ImageNeeds,
        text: PhysRange,
        reserved: &RangeSet,
    ) -> Result<Kernel, String> {
        let template = self.template;
        let hidden = outer(&template.hidden);
        let mut pinned = plus(&hidden, &set([range(0, MIB), text]));
        let pinned_with = |pinned: &RangeSet| plus(pinned, reserved);
        let mut free = minus(&usable(template), &pinned_with(&pinned));
        // These are transient, but exist at the same time: initrd, its files, and a small user space.
        let initrd = image.initrd.map_or(0, |i| i.len);
        let early = |free: &mut RangeSet, what: &str, bytes: u64| {
            take_top(free, bytes).ok_or_else(|| {
                format!(
                    "out of memory at boot: {what} needs {bytes:#x}, {:#x} free",
                    free.total()
                )
            })
        };
        let page_structs = early(&mut free, "struct page", template.ram.total() / 64)?;
        pinned = plus(&pinned, &page_structs);
        if template.ram.span().is_some_and(|s| s.end().get() > 4 * GIB) {
            let low = set([range(0, 4 * GIB)]);
            let mut free_low = both(&free, &low);
            let bounce = early(&mut free_low, "bounce buffer", 64 * MIB)?;
            early(&mut free_low, "32-bit devices", 16 * MIB)?;
            free = minus(&free, &bounce);
            pinned = plus(&pinned, &bounce);
        }
        let mut rest = free.clone();
        early(&mut rest, "initrd and user space", initrd * 4 + 64 * MIB)?;
        for _ in 0..8 + self.rng.below(24) {
            let len = (1 + self.rng.below(64)) * PAGE_SIZE;
            if let Some(piece) = self.rng.place(&free, len, PAGE_SIZE) {
                add(&mut pinned, piece);
                free = minus(&free, &set([piece]));
            }
        }
        for piece in minus(&minus(&pinned, &hidden), &set([range(0, MIB)])).iter() {
            self.garbage(piece);
        }
        let kernel = Kernel {
            image: text,
            managed: minus(&usable(template), &pinned_with(&pinned)).total(),
            pinned,
            reserved: reserved.clone(),
            held: RangeSet::new(),
            busy: RangeSet::new(),
        };
        kernel.churn(template, self.memory, self.garbage);
        Ok(kernel)
    }
}

/// Returns the identity of firmware table `number`. Nothing else has this identity.
pub const fn firmware_id(number: u64) -> u64 {
    u64::MAX - number
}

fn reserve_len(image: &ImageNeeds) -> u64 {
    image.kernel.reserve_len().unwrap_or(u64::MAX)
}
