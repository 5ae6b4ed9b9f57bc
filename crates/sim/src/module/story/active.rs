//! Operations in the active phase, and the handover that must follow from them.

use super::{
    Active, Outgoing, Promise, Story, any_of, failed_pages, nodes, of, overlap, said, snapshot,
    within,
};
use crate::machine::set;
use crate::module::drivers::{Driver, Output, Written, called};
use crate::module::hop;
use crate::module::machine::with;
use crate::sets::{both, minus, plus};
use crate::story::{Done, ensure};
use kho::abi::kernel_part::KernelPart;
use kho::tree::Reader;
use kho::{PhysRange, RangeSet};
use kho_decide::errno::{EEXIST, EINVAL, ENOMEM};
use kho_decide::pages::pfns;
use std::collections::{BTreeMap, BTreeSet};

impl Story {
    /// Returns the nodes, by identity, that the module hands over again by itself, and their memory. `named` is the
    /// memory that drivers name.
    pub(super) fn carried(&self, named: &RangeSet) -> (Promise, RangeSet) {
        let nodes = &self.arrived.nodes;
        let children = |of: usize| {
            let (depth, end) = nodes.get(of).map_or((0, of), |n| (n.depth, n.end));
            (of + 1..end).filter(move |n| nodes.get(*n).is_some_and(|node| node.depth == depth + 1))
        };
        let is_whole = |number: usize| {
            let end = nodes.get(number).map_or(number, |node| node.end);
            let mem = self.below(number);
            within(&mem, &self.arrived.unclaimed)
                && !overlap(&mem, named)
                && !self
                    .arrived
                    .claimed
                    .iter()
                    .any(|n| (number..end).contains(n))
        };
        let (mut promise, mut all) = (Promise::new(), RangeSet::new());
        let mut promised = |numbers: std::ops::Range<usize>| {
            for number in numbers {
                let Some(node) = nodes.get(number) else {
                    continue;
                };
                let above = (0..number)
                    .rev()
                    .find(|n| nodes.get(*n).is_some_and(|a| a.end > number));
                let above = above.and_then(|n| nodes.get(n)).and_then(|node| node.id);
                let Some(id) = node.id else { continue };
                promise.insert(id, (above, node.mem.clone()));
                all = plus(&all, &of(&node.mem));
            }
        };
        for top in children(0) {
            let Some(node) = nodes.get(top) else { continue };
            let mem = self.below(top);
            if is_whole(top) {
                let described = self.producers.values().any(|p| p.name == node.name);
                if !mem.is_empty() || !described {
                    promised(top..node.end);
                }
                continue;
            }
            if !node.mem.is_empty() {
                continue;
            }
            let parts: Vec<usize> = children(top)
                .filter(|part| !self.below(*part).is_empty() && is_whole(*part))
                .collect();
            if !parts.is_empty() {
                promised(top..top + 1);
            }
            for part in parts {
                promised(part..nodes.get(part).map_or(part, |node| node.end));
            }
        }
        (promise, all)
    }

    /// Chooses the nodes that a driver writes. Returns them, and whether the module must accept all of them.
    pub(super) fn plan(&mut self, handle: u64) -> Option<(Written, bool)> {
        let fresh = || with(|m| m.world.fresh());
        let producer = self.producers.get(&handle)?;
        let mut good = true;
        let mut nodes: Vec<Vec<PhysRange>> =
            vec![Vec::new(); 1 + usize::from(self.rng.below(2) == 0) * 2];
        for piece in &producer.pieces {
            if self.why_not_kept(piece.range).is_some() {
                if self.rng.below(20) != 0 {
                    continue;
                }
                good = false;
            }
            let which = any_of(&mut self.rng, nodes.len())?;
            nodes.get_mut(which)?.push(piece.range);
            if self.rng.below(200) == 0 {
                good = false;
                nodes.get_mut(which)?.push(piece.range);
            }
        }
        for (node, holder) in &self.arrived.holds {
            if *holder == handle && self.rng.below(4) != 0 {
                let mem = both(&self.below(*node), &self.arrived.unclaimed);
                if overlap(&mem, &failed_pages()) {
                    if self.rng.below(2) == 0 {
                        continue;
                    }
                    good = false;
                }
                let foreign = both(&self.below(*node), &self.foreign);
                let whole = plus(&mem, &foreign);
                if mem != whole && self.rng.below(3) == 0 {
                    // The driver freed some of this memory, and names it by mistake.
                    good = false;
                    nodes.push(whole.iter().collect());
                } else {
                    nodes.push(mem.iter().collect());
                }
            }
        }
        // This memory belongs to another part of the kernel, or to no driver.
        let all = plus(&self.foreign, &minus(&self.arrived.unclaimed, &self.held()));
        if let Some(range) = all.iter().next()
            && self.rng.below(60) == 0
        {
            good = false;
            nodes.push(vec![range]);
        }
        let mut below: Vec<Written> = Vec::new();
        for mem in nodes.drain(1..) {
            let node = Written {
                id: fresh(),
                mem,
                below: Vec::new(),
            };
            match below.last_mut() {
                Some(last) if self.rng.below(3) == 0 => last.below.push(node),
                _ => below.push(node),
            }
        }
        let mem = nodes.pop().unwrap_or_default();
        Some((
            Written {
                id: fresh(),
                mem,
                below,
            },
            good,
        ))
    }

    /// Begins the active phase. Returns whether the phase is active afterwards.
    pub(super) fn activate(&mut self) -> Result<bool, String> {
        let handles: Vec<u64> = self.producers.keys().copied().collect();
        let (mut good, mut promise, mut named) = (true, Promise::new(), RangeSet::new());
        let mut took_part = BTreeSet::new();
        let mut drivers = BTreeMap::new();
        for handle in handles {
            let Some((node, fine)) = self.plan(handle) else {
                continue;
            };
            let going = self.chance(15);
            let fails = self.chance(25).then_some(EINVAL);
            if !going {
                good &= fine && fails.is_none();
                took_part.insert(handle);
                promised(&node, None, &mut promise);
            }
            let output = Output::Node(node);
            let driver = Driver {
                going,
                fails,
                output,
            };
            drivers.insert(handle, driver);
        }
        for (_, mem) in promise.values() {
            named = plus(&named, &of(mem));
        }
        let no_file = self.chance(30).then_some(EEXIST);
        let (again, frozen) = self.carried(&named);
        good &= no_file.is_none() && !overlap(&frozen, &failed_pages());
        if self.active.is_none() {
            called(|all| (all.drivers, all.no_file) = (drivers, no_file));
        }
        let may = good && self.active.is_none();
        let before = snapshot();
        match self.phase.activate() {
            Ok(()) if may => {}
            Ok(()) => return Err("an activation was allowed".into()),
            Err(error) => {
                ensure(!may || error == ENOMEM, || {
                    format!("an activation failed: {error:?}")
                })?;
                ensure(before == snapshot(), || {
                    "a failed activation changed something".into()
                })?;
                self.tally.failed_activations += 1;
                return Ok(self.active.is_some());
            }
        }
        self.tally.activations += 1;
        self.tally.carried += again.len() as u64;
        promise.extend(again);
        let sealed = called(|all| all.sealed.clone());
        let tree = Reader::new(&sealed).map_err(|e| e.to_string())?;
        let part = KernelPart::parse(&tree).map_err(|e| e.to_string())?;
        let own = part.reference.mem;
        let why = self.why_not_kept(own);
        ensure(why.is_none(), || {
            format!("the tree is at {own}, which {why:?}")
        })?;
        ensure(!pfns(own).any(|pfn| self.owners.contains_key(&pfn)), || {
            format!("the tree is at {own}, which is a driver's")
        })?;
        let named = both(&plus(&named, &frozen), &self.arrived.unclaimed);
        let out = Outgoing {
            generation: part.reference.generation,
            promise,
        };
        let said = said(&nodes(&tree));
        ensure(said == out.promise, || {
            format!("the tree says {said:x?}, not {:x?}", out.promise)
        })?;
        ensure(Some(out.generation) == self.phase.generation(), || {
            "another generation".into()
        })?;
        self.active = Some(Active {
            out,
            own: set([own]),
            frozen,
            named,
            took_part: took_part.into_iter().collect(),
        });
        hop::name_sealed()?;
        Ok(true)
    }

    /// Resets the state of the active phase after its end.
    pub(super) fn phase_is_left(&mut self) {
        self.active = None;
        with(|m| m.world.part = None);
    }

    pub(super) fn abort(&mut self) -> Done {
        self.phase.abort();
        self.phase_is_left();
        Ok(())
    }
}

/// Adds a driver's node and the nodes below it to `promise`. `above` is the identity of the node above.
fn promised(node: &Written, above: Option<u64>, promise: &mut Promise) {
    promise.insert(node.id, (above, node.mem.clone()));
    for below in &node.below {
        promised(below, Some(node.id), promise);
    }
}
