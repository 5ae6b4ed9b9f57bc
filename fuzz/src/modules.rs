//! Bytes that the kernel modules read.

use crate::Cursor;
use kho::{PhysRange, RangeSet};
use kho_decide::errno::{EINVAL, Errno};
use kho_decide::{chain as setup_data, iomem};
use khofs_decide::check::check;
use khofs_decide::extents::Extent;
use khofs_decide::{options, pack, restore};

/// Physical address of the input's first byte.
const AT: u64 = 0x10_0000;

/// The input as memory, with the chain at its start, and also as text of `/proc/iomem`.
pub fn chain(data: &[u8]) {
    let mut boot_params = vec![0; 0x258];
    boot_params[0x250..].copy_from_slice(&AT.to_ne_bytes());
    let mut reads = 0;
    let read = |range: PhysRange| -> Result<Vec<u8>, Errno> {
        reads += 1;
        let from = range.start().get().checked_sub(AT).ok_or(EINVAL)?;
        let from = usize::try_from(from).map_err(|_| EINVAL)?;
        let len = usize::try_from(range.len()).map_err(|_| EINVAL)?;
        // The kernel maps whole pages; there is no memory behind the end of these.
        let end = from.checked_add(len).ok_or(EINVAL)?;
        Ok(data.get(from..end).ok_or(EINVAL)?.to_vec())
    };
    let walked = setup_data::walk(&boot_params, read);
    assert!(reads <= 2 * 513, "the walk does not end");
    if let Ok(chain) = walked {
        assert!(!chain.nodes.is_empty() && chain.nodes.len() <= 512);
        assert!(chain.reserved.len() <= chain.nodes.len());
    }
    let _ = setup_data::walk(data, |_| Err(EINVAL));

    let map = iomem::parse(data).expect("memory");
    let low = map.ram.iter().all(|range| range.start().get() >= 1 << 20);
    assert!(low, "memory that nothing is handed over in");
    assert!(map.ram.iter().all(PhysRange::is_page_aligned));
}

pub fn chains() -> Vec<Vec<u8>> {
    let mut seeds = crate::chain::chains();
    seeds.push(
        b"00000000-00000fff : Reserved\n00100000-bffdefff : System RAM\n  01000000-01ffffff : Kernel code\n\
          100000000-13fffffff : System RAM\n  130000000-137ffffff : Crash kernel\n"
            .to_vec(),
    );
    seeds
}

/// Two numbers, the first page and the number of pages of the `mem` property, and the bytes in these pages.
pub fn khofs(data: &[u8]) {
    let mut cursor = Cursor(data);
    let (first, count) = (cursor.u8(), cursor.u8());
    let mem = pack::range(Extent {
        index: 0,
        pfn: u64::from(first),
        count: u64::from(count),
    });
    let mem = RangeSet::from_ranges(mem).expect("memory");
    let bytes = cursor.0;
    let checked = check(bytes, &mem);
    if let Ok(summary) = &checked {
        let mut restored = Vec::new();
        let lost = restore(bytes, &mut restored).expect("what was checked can be made");
        assert_eq!(
            summary.pages,
            u64::from(count) + lost,
            "a page twice, or none's"
        );
        assert_eq!(restored.len(), summary.links.len());
        // No entry names the root; as in tmpfs, the root counts the `..` of its directories.
        assert!(summary.links.iter().skip(1).all(|links| *links > 0));
    } else {
        // A refused tree must not do harm either to a reader that believes it.
        let _ = restore(bytes, &mut Vec::new());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let mut options = options::Options::default();
        for part in text.split(',') {
            let (key, value) = part
                .split_once('=')
                .map_or((part, None), |(k, v)| (k, Some(v)));
            let _ = options.set(key, value, 1 << 18);
        }
        assert!(!options.name().is_empty());
    }
}

/// Reads a tree as khofs.ko does, but makes no files. Returns the number of lost pages.
fn restore(bytes: &[u8], kinds: &mut Vec<u32>) -> Result<u64, Errno> {
    let (mut reader, _) = pack::Reader::new(bytes)?;
    let mut lost = inode(&mut reader, kinds)?;
    while let Some(entry) = reader.entry()? {
        if entry.inode == kinds.len() as u64 {
            lost += inode(&mut reader, kinds)?;
        }
    }
    Ok(lost)
}

fn inode(reader: &mut pack::Reader<'_>, kinds: &mut Vec<u32>) -> Result<u64, Errno> {
    let made = restore::inode(reader, &mut restore::Used::default())?;
    kinds.push(made.attr.kind());
    let (mut from, mut lost) = (0, 0);
    while let Some(extent) = made.content.lazy.find(from, u64::MAX) {
        lost += u64::from(extent.is_lost());
        from = extent.end();
    }
    Ok(lost)
}

pub fn khofs_trees() -> Vec<Vec<u8>> {
    let write = |extents: &[(u64, u64, u64)]| -> Result<Vec<u8>, Errno> {
        let attr = |ino, mode, size| pack::Attr {
            ino,
            mode,
            size,
            mtime: 1_700_000_000,
            mtime_ns: 5,
            uid: 1000,
            ..pack::Attr::default()
        };
        let none = || std::iter::empty::<(&[u8], &[u8])>();
        let mut w = pack::Writer::new(9)?;
        w.inode(&attr(1, pack::S_IFDIR | 0o755, 0), b"", none())?;
        w.entry(0, b"file", 1)?;
        let named = [(&b"user.a"[..], &b"b"[..])];
        w.inode(
            &attr(2, pack::S_IFREG | 0o644, 9000),
            b"",
            named.into_iter(),
        )?;
        for &(index, pfn, count) in extents {
            w.extent(Extent { index, pfn, count })?;
        }
        w.extents_end()?;
        w.entry(0, b"again", 1)?;
        w.entry(0, b"dir", 2)?;
        w.inode(&attr(3, pack::S_IFDIR | 0o700, 0), b"", none())?;
        w.entry(2, b"link", 3)?;
        w.inode(&attr(4, pack::S_IFLNK | 0o777, 4), b"file", none())?;
        w.end()?;
        Ok(w.finish())
    };
    let write = |extents: &[(u64, u64, u64)]| write(extents).expect("memory");
    let seed = |first: u8, count: u8, bytes: &[u8]| {
        let mut out = vec![first, count];
        out.extend(bytes);
        out
    };
    vec![
        seed(100, 5, &write(&[(0, 100, 2), (2, 104, 1)])),
        // The page in the middle is lost.
        seed(100, 5, &write(&[(0, 100, 2), (2, 0, 1), (3, 102, 3)])),
        seed(0, 0, b"name=a,size=50%,nr_inodes=10k,mode=1777,uid=0,gid=1"),
    ]
}
