//! Checks of khofs and of every file against the model.

use super::instances::space;
use super::{File, Instance, Page, Story};
use crate::khofs::kernel::{folio_of, known, run};
use crate::khofs::module::{Khofs, khofs};
use crate::khofs::vfs::Inode;
use crate::machine::{MIB, range, set};
use crate::module::drivers::called;
use crate::module::machine::with;
use crate::sets::{minus, plus};
use crate::story::{Done, ensure};
use kho::{PAGE_SIZE, RangeSet};
use kho_decide::pages::{pfns, range_of};
use khofs_decide::bits::PAGES;
use khofs_decide::extents::Extent;
use khofs_decide::pack::S_IFDIR;
use khofs_decide::show;
use khofs_decide::state::Body;
use khofs_decide::system::Cache as _;
use std::collections::{BTreeMap, BTreeSet};

/// Returns the page frame of a page of a file, whether the page is in the page cache or not.
pub(super) fn frame(inode: &Inode, index: u64) -> Option<u64> {
    let lazy = inode.content.lazy.find(index, index + 1);
    let lazy = lazy.filter(|extent| !extent.is_lost());
    inode.cache.at(index).or(lazy.map(|extent| extent.pfn))
}

/// Returns all extents that arrived and are not in the page cache.
fn lazy(inode: &Inode) -> Vec<Extent> {
    let (mut all, mut from) = (Vec::new(), 0);
    while let Some(extent) = inode.content.lazy.find(from, u64::MAX) {
        from = extent.end();
        all.push(extent);
    }
    all
}

/// The pages of live instances.
#[derive(Default)]
struct Places {
    /// Instance of each page of a file, by page frame.
    files: BTreeMap<u64, u32>,
    /// Folios of each instance in page caches.
    folios: BTreeMap<u32, BTreeSet<u64>>,
}

impl Story {
    /// Returns the number of pages that an instance uses: for files and for long link targets.
    pub(super) fn used(&self, name: &str) -> u64 {
        khofs(|fs| {
            let found = fs.state.instances.iter().find(|i| i.name == name);
            let sb = found.and_then(|i| fs.supers.get(&i.id));
            let inodes = sb.iter().flat_map(|sb| sb.inodes.values());
            inodes
                .map(|inode| {
                    let there = inode.cache.pages().len() as u64 + inode.content.lazy.pages();
                    there + u64::from(inode.target.len() >= 128)
                })
                .sum()
        })
    }

    pub(super) fn check(&mut self) -> Done {
        if self.loaded && self.chance(8) {
            return self.check_all();
        }
        self.check_machine()
    }

    fn check_machine(&self) -> Done {
        with(|m| m.world.check())?;
        let broken = with(|m| m.broken.clone());
        ensure(broken.is_empty(), || broken.join(", "))?;
        let broken = called(|all| all.broken.clone());
        ensure(broken.is_empty(), || broken.join(", "))?;
        with(|m| {
            for (pfn, content) in &self.looked_at {
                let good = m.world.memory.first_difference(run(*pfn, 1), *content);
                ensure(good.is_none(), || {
                    format!("page {pfn:#x} was overwritten while it was mapped")
                })?;
            }
            Ok(())
        })
    }

    pub(super) fn check_all(&mut self) -> Done {
        self.check_machine()?;
        if !self.loaded {
            return Ok(());
        }
        let (compared, folios) = khofs(|fs| {
            ensure(fs.state.frozen == self.active.is_some(), || {
                "another phase".into()
            })?;
            let names: Vec<&String> = fs.state.instances.iter().map(|i| &i.name).collect();
            let wanted: BTreeSet<&String> = self.instances.keys().collect();
            ensure(
                names.iter().copied().collect::<BTreeSet<_>>() == wanted,
                || format!("there are {names:?}, not {wanted:?}"),
            )?;
            let (mut places, mut compared) = (Places::default(), 0);
            for (name, wanted) in &self.instances {
                compared += check_instance(fs, name, wanted, &mut places)
                    .map_err(|what| format!("{name}: {what}"))?;
            }
            let folios: usize = places.folios.values().map(BTreeSet::len).sum();
            check_places(fs, &places)?;
            check_status(fs, &places)?;
            Ok::<_, String>((compared, folios as u64))
        })?;
        self.tally.compared += compared;
        self.tally.folios += folios;
        Ok(())
    }
}

/// Compares an instance with the model. Returns the number of pages that were compared.
fn check_instance(
    fs: &Khofs,
    name: &str,
    wanted: &Instance,
    places: &mut Places,
) -> Result<u64, String> {
    let found = fs.state.instances.iter().find(|i| i.name == name);
    let found = found.ok_or("is not there")?;
    if !wanted.live {
        let waits = matches!(found.body, Body::Arrived(_)) && !fs.supers.contains_key(&found.id);
        ensure(waits, || "is live".into())?;
        return Ok(0);
    }
    let sb = fs.supers.get(&found.id).ok_or("is not live")?;
    ensure(sb.inodes.keys().eq(wanted.files.keys()), || {
        format!(
            "inodes {:?}, not {:?}",
            sb.inodes.keys(),
            wanted.files.keys()
        )
    })?;
    ensure(
        (found.limit, found.inode_limit) == (wanted.limit, wanted.inode_limit),
        || {
            let limits = (wanted.limit, wanted.inode_limit);
            format!(
                "limits {} and {}, not {limits:?}",
                found.limit, found.inode_limit
            )
        },
    )?;
    let (mut used, mut compared) = (0, 0);
    for (ino, file) in &wanted.files {
        let inode = sb.inodes.get(ino).ok_or("no inode")?;
        let place = |what| format!("inode {ino}: {what}");
        check_attr(inode, file, wanted, *ino).map_err(place)?;
        check_extents(inode).map_err(place)?;
        used += inode.cache.pages().len() as u64 + inode.content.lazy.pages();
        used += u64::from(file.target.len() >= 128);
        compared += check_pages(inode, file, found.id, places).map_err(place)?;
    }
    let counts = (used, wanted.files.len() as u64, space(wanted));
    ensure((found.used, found.inodes, found.space) == counts, || {
        let counted = (found.used, found.inodes, found.space);
        format!("counts {counted:?}, not {counts:?} pages, inodes and bytes")
    })?;
    ensure(found.next_ino > wanted.last_ino, || {
        format!(
            "inode {} is next, and {} was",
            found.next_ino, wanted.last_ino
        )
    })?;
    Ok(compared)
}

/// Returns the number of links of a file.
fn links(instance: &Instance, ino: u64) -> u32 {
    let file = instance.files.get(&ino);
    let is_dir = |ino: &u64| {
        let file = instance.files.get(ino);
        file.is_some_and(|file| file.attr.kind() == S_IFDIR)
    };
    if is_dir(&ino) {
        let below = file.iter().flat_map(|file| file.entries.values());
        return below
            .filter(|ino| is_dir(ino))
            .fold(2, |links, _| links + 1);
    }
    let names = instance
        .files
        .values()
        .flat_map(|file| file.entries.values());
    names
        .filter(|name| **name == ino)
        .fold(0, |links, _| links + 1)
}

fn check_attr(inode: &Inode, file: &File, instance: &Instance, ino: u64) -> Done {
    let attr = khofs_decide::pack::Attr {
        nlink: links(instance, ino),
        ..file.attr
    };
    ensure(inode.attr == attr, || {
        format!("{:?}, not {attr:?}", inode.attr)
    })?;
    ensure(inode.target == file.target, || "another target".into())?;
    ensure(inode.entries == file.entries, || "other names".into())?;
    let attributes = inode.content.attributes.iter();
    let attributes = attributes.map(|a| (a.name().to_vec(), a.value().to_vec()));
    let attributes: Vec<_> = attributes.collect();
    let wanted: Vec<_> = file.attributes.clone().into_iter().collect();
    ensure(attributes == wanted, || "other attributes".into())
}

/// Checks that all sources for a file's pages agree: the page cache with the extents that arrived, the list of extents,
/// and the search for data and holes.
fn check_extents(inode: &Inode) -> Done {
    let (content, cache) = (&inode.content, &inode.cache);
    let mut there: BTreeSet<u64> = cache.pages().into_keys().collect();
    let lazy = lazy(inode);
    let count: u64 = lazy.iter().map(|extent| extent.count).sum();
    ensure(count == content.lazy.pages(), || {
        "lazy pages are not counted".into()
    })?;
    for extent in &lazy {
        for index in extent.index..extent.end() {
            ensure(there.insert(index), || {
                format!("page {index} is there twice")
            })?;
        }
    }
    let mut said = Vec::new();
    for extent in cache.extents(content) {
        said.extend(extent.index..extent.end());
    }
    ensure(said.iter().eq(&there), || {
        "extents are not the pages".into()
    })?;
    let mut at = 0;
    let mut runs = BTreeSet::new();
    loop {
        let data = cache.next_data(content, at);
        ensure(
            there.range(at..).next().copied().unwrap_or(u64::MAX) == data,
            || format!("data at {data:#x} behind {at:#x}"),
        )?;
        if data == u64::MAX {
            break;
        }
        at = cache.next_hole(content, data);
        ensure(!there.contains(&at) && at > data, || {
            format!("no hole at {at:#x}")
        })?;
        runs.extend(data..at);
    }
    ensure(runs == there, || "data and holes are not the pages".into())
}

fn check_pages(inode: &Inode, file: &File, id: u32, places: &mut Places) -> Result<u64, String> {
    let mut there = inode.cache.pages();
    let mut folios = BTreeSet::new();
    for (index, pfn) in &there {
        if let Some(base) = folio_of(*pfn) {
            let start = index
                .checked_sub(pfn - base)
                .filter(|start| start % PAGES == 0);
            ensure(start.is_some(), || format!("folio {base:#x} is at {index}"))?;
            folios.insert(base);
        }
    }
    places.folios.entry(id).or_default().extend(folios);
    for extent in lazy(inode) {
        for n in 0..extent.count {
            let pfn = if extent.is_lost() { 0 } else { extent.pfn + n };
            there.insert(extent.index + n, pfn);
        }
    }
    for (index, page) in &file.pages {
        let pfn = there
            .get(index)
            .ok_or_else(|| format!("page {index} is gone"))?;
        match page {
            Page::Lost => {
                let lost = *pfn == 0 || with(|m| m.failed.contains(pfn));
                ensure(lost, || format!("page {index} is there again"))?;
            }
            Page::Holds(content) => {
                ensure(*pfn != 0, || format!("page {index} is lost"))?;
                let other = with(|m| m.world.memory.first_difference(run(*pfn, 1), *content));
                ensure(other.is_none(), || {
                    let here = with(|m| m.world.memory.at(run(*pfn, 1).start()));
                    format!("page {index} at {pfn:#x} is {here:?}, not {content:?}")
                })?;
            }
        }
    }
    for (index, pfn) in &there {
        if *pfn == 0 {
            let lost = file.pages.get(index) == Some(&Page::Lost);
            ensure(lost, || format!("page {index} is lost"))?;
            continue;
        }
        let other = places.files.insert(*pfn, id);
        ensure(other.is_none(), || {
            format!("page {pfn:#x} is in two places")
        })?;
        let zero = file.pages.contains_key(index)
            || with(|m| m.failed.contains(pfn) || m.is_zero(run(*pfn, 1)));
        ensure(zero, || format!("page {index} at {pfn:#x} is not zero"))?;
    }
    Ok(file.pages.len() as u64)
}

/// Checks that every page belongs to the right instance.
fn check_places(fs: &Khofs, places: &Places) -> Done {
    let chunks = &fs.state.chunks;
    let mut unclaimed = RangeSet::new();
    let (mut owned, mut free) = (0, 0);
    for instance in &fs.state.instances {
        let set = match &instance.body {
            Body::Arrived(arrived) => &arrived.data,
            _ => &instance.unclaimed,
        };
        ensure(minus(set, &plus(set, &unclaimed)).is_empty(), || {
            "instances share pages".into()
        })?;
        unclaimed = plus(&unclaimed, set);
        let totals = chunks.totals(instance.id);
        (owned, free) = (owned + totals.0, free + totals.1);
        let empty = BTreeSet::new();
        let folios = places.folios.get(&instance.id).unwrap_or(&empty);
        ensure(chunks.folios(instance.id) == folios.len() as u64, || {
            format!("{} folios, not {folios:x?}", chunks.folios(instance.id))
        })?;
    }
    for ended in &fs.ended {
        let totals = chunks.totals(*ended);
        ensure(totals.0 == totals.1, || {
            "a page of no instance is in use".into()
        })?;
        (owned, free) = (owned + totals.0, free + totals.1);
    }
    with(|m| {
        let kernel = &m.world.kernel;
        let left = minus(&unclaimed, &kernel.reserved);
        ensure(left.is_empty(), || {
            format!("{left:?} is not reserved any more")
        })?;
        let orphans = set(m.orphans.iter().filter_map(|pfn| range_of(*pfn, 1)));
        let noted = set(m.noted.iter().map(|noted| noted.pages));
        let others = plus(&plus(&m.blocks, &orphans), &noted);
        let ours = minus(&kernel.held, &others);
        let mut frees = 0;
        for pfn in ours.iter().flat_map(pfns) {
            ensure(chunks.owner(pfn).is_some(), || {
                format!("page {pfn:#x} is nobody's")
            })?;
            frees += u64::from(chunks.is_free(pfn));
        }
        ensure(ours.total() / PAGE_SIZE == owned, || {
            format!(
                "{} pages are allocated, and {owned} are known",
                ours.total() / PAGE_SIZE
            )
        })?;
        ensure(frees == free, || {
            format!("{frees} pages are free, not {free}")
        })?;
        let mut used = owned - free;
        for (pfn, id) in &places.files {
            if unclaimed.contains_range(run(*pfn, 1)) {
                continue;
            }
            let good = chunks.owner(*pfn) == Some(*id) && !chunks.is_free(*pfn);
            ensure(good, || {
                format!("page {pfn:#x} is in a file of {id}, and not its own")
            })?;
            used -= 1;
        }
        ensure(used == 0, || {
            format!("{used} pages are in use, and in no file")
        })?;
        let scratch = m.world.scratch;
        let wrong = set(scratch.into_iter().chain([range(0, MIB)]));
        let inside = ours.iter().find(|run| wrong.overlaps(*run));
        ensure(inside.is_none(), || {
            format!("{inside:?} is where no handover may be")
        })
    })?;
    // Every folio is in a file, or all of it is free.
    let all: Vec<u64> = known(|pages| pages.folios.iter().copied().collect());
    let in_files: BTreeSet<u64> = places.folios.values().flatten().copied().collect();
    for base in all.into_iter().filter(|base| !in_files.contains(base)) {
        let whole = (base..base + PAGES).all(|pfn| chunks.is_free(pfn));
        ensure(whole, || {
            format!("folio {base:#x} is in no file and in use")
        })?;
    }
    Ok(())
}

/// Checks `status` of sysfs.
fn check_status(fs: &Khofs, places: &Places) -> Done {
    let mut said = String::new();
    show::status(&fs.state, &mut said);
    let mut lines = said.lines();
    for instance in &fs.state.instances {
        let bytes = instance.used * PAGE_SIZE;
        let (state, unclaimed, ranges) = match &instance.body {
            Body::Arrived(a) => ("arrived", a.data.total(), a.data.len()),
            _ => {
                let own = places.files.iter().filter(|(_, id)| **id == instance.id);
                let own = set(own.filter_map(|(pfn, _)| range_of(*pfn, 1)));
                let claimed = minus(&own, &instance.unclaimed).len();
                let unclaimed = &instance.unclaimed;
                ("live", unclaimed.total(), claimed + unclaimed.len())
            }
        };
        let (_, free) = fs.state.chunks.totals(instance.id);
        let line = lines.next().unwrap_or_default();
        let wanted = [
            format!("{} state={state} ", instance.name),
            format!(" bytes={bytes} ranges={ranges} slack={} ", free * PAGE_SIZE),
            format!(
                " unclaimed={unclaimed} limit={} ",
                instance.limit * PAGE_SIZE
            ),
        ];
        ensure(wanted.iter().all(|wanted| line.contains(wanted)), || {
            format!("status is {line:?}, not {wanted:?}")
        })?;
    }
    ensure(lines.next().is_none(), || format!("status is {said:?}"))
}
