// SPDX-License-Identifier: GPL-2.0-only
/*
 * C glue of khofs: file data. Which page goes where is decided in Rust.
 *
 * Pages of files are in the page cache and nowhere else: not on the LRU lists and not charged to a memory
 * cgroup, as hugetlbfs does it (mm/hugetlb.c), because they stay when the process and its cgroup are gone. Besides
 * the page cache's reference each has one that khofs holds until the page goes back to the system.
 */
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/falloc.h>
#include <linux/splice.h>
#include <linux/uio.h>
#include <linux/vmstat.h>

#include "khofs.h"

DEFINE_STATIC_PERCPU_RWSEM(gate);
DECLARE_WAIT_QUEUE_HEAD(khofs_thawed);
bool khofs_frozen;

int khofs_enter(void)
{
	percpu_down_read(&gate);
	if (!khofs_frozen)
		return 0;
	percpu_up_read(&gate);
	return -EBUSY;
}

/*
 * The same with a folio or a mapping's invalidate lock held, which somebody else may wait for between enter and exit: does
 * not wait for a freeze that is waiting for them.
 */
static int enter_locked(void)
{
	if (!percpu_down_read_trylock(&gate))
		return -EBUSY;
	if (!khofs_frozen)
		return 0;
	percpu_up_read(&gate);
	return -EBUSY;
}

void khofs_exit(void)
{
	percpu_up_read(&gate);
}

/* Waits for everybody who is between enter and exit. */
void khofs_c_freeze(bool frozen)
{
	percpu_down_write(&gate);
	WRITE_ONCE(khofs_frozen, frozen);
	percpu_up_write(&gate);
	if (!frozen)
		wake_up_all(&khofs_thawed);
}

/*
 * Puts a folio that khofs owns into the page cache, which gets references of its own, one for each page
 * (__filemap_add_folio() of mm/filemap.c).
 */
int khofs_c_insert(struct inode *inode, u64 index, u64 pfn, bool locked)
{
	struct address_space *mapping = inode->i_mapping;
	struct folio *folio = page_folio(pfn_to_page(pfn));
	long pages = folio_nr_pages(folio);
	XA_STATE_ORDER(xas, &mapping->i_pages, index, folio_order(folio));

	__folio_set_locked(folio);
	if (!locked) {
		folio_mark_uptodate(folio);
		folio_set_dirty(folio);
	}
	folio_ref_add(folio, pages);
	folio->mapping = mapping;
	folio->index = index;
	do {
		xas_set_order(&xas, index, folio_order(folio));
		xas_lock_irq(&xas);
		if (xas_find_conflict(&xas))
			xas_set_err(&xas, -EEXIST);
		xas_store(&xas, folio);
		if (!xas_error(&xas)) {
			mapping->nrpages += pages;
			__mod_node_page_state(folio_pgdat(folio), NR_FILE_PAGES, pages);
			if (pages > 1)
				__mod_node_page_state(folio_pgdat(folio), NR_FILE_THPS, pages);
		}
		xas_unlock_irq(&xas);
	} while (xas_nomem(&xas, GFP_NOFS | __GFP_NOWARN));
	if (xas_error(&xas)) {
		folio->mapping = NULL;
		folio_clear_uptodate(folio);
		folio_clear_dirty(folio);
		folio_unlock(folio);
		folio_put_refs(folio, pages);
		return xas_error(&xas);
	}
	if (!locked)
		folio_unlock(folio);
	return 0;
}

static void free_folio(struct folio *folio)
{
	folio_clear_uptodate(folio);
	khofs_rs_page_freed(folio_pfn(folio), folio_nr_pages(folio));
}

bool khofs_c_next_run(struct inode *inode, u64 from, struct khofs_run *run)
{
	unsigned long index = from;
	struct folio *folio;
	bool found = false;

	rcu_read_lock();
	folio = xa_find(&inode->i_mapping->i_pages, &index, ULONG_MAX, XA_PRESENT);
	if (folio && !xa_is_value(folio)) {
		run->index = folio->index;
		run->pfn = folio_pfn(folio);
		run->count = folio_nr_pages(folio);
		found = true;
	}
	rcu_read_unlock();
	return found;
}

/*
 * A page of the page cache, with a reference, uptodate: NULL for a hole, or an ERR_PTR. The caller keeps
 * truncation away or copes with it.
 */
static struct page *get_page_at(struct inode *inode, pgoff_t index)
{
	bool last = false;

	for (;;) {
		struct page *page;
		int brought;

		/*
		 * Somebody else may bring the page at any time: it is in the page cache before it is off the list of what
		 * is not, so only a look after that list was found not to have it says that there is a hole.
		 */
		if (!smp_load_acquire(&khofs_i(inode)->lazy))
			last = true;
		page = find_get_page(inode->i_mapping, index);
		if (page) {
			struct folio *folio = page_folio(page);

			/* Whoever writes it the first time holds the lock. */
			if (!folio_test_uptodate(folio)) {
				folio_lock(folio);
				folio_unlock(folio);
				if (folio->mapping != inode->i_mapping) {
					folio_put(folio);
					continue;
				}
			}
			return page;
		}
		if (last)
			return NULL;
		brought = khofs_rs_bring(khofs_id(inode->i_sb), khofs_i(inode)->file, inode, index);
		if (brought < 0)
			return ERR_PTR(brought);
		last = !brought;
	}
}

/* Zeros, unless they are there already, and ready for use. */
static void fill_folio(struct folio *folio, bool clean)
{
	long i;

	for (i = 0; !clean && i < folio_nr_pages(folio); i++) {
		clear_highpage(folio_page(folio, i));
		cond_resched();
	}
	folio_mark_uptodate(folio);
}

/*
 * The same, locked, and a hole is filled: with zeros, or, @whole, with a page that is not uptodate and that the
 * caller overwrites.
 */
static struct page *lock_page_at(struct inode *inode, pgoff_t index, const struct khofs_want *want, bool whole)
{
	struct page *page;
	bool clean;
	s64 pfn;

	for (;;) {
		page = get_page_at(inode, index);
		if (IS_ERR(page))
			return page;
		if (page) {
			lock_page(page);
			if (page_folio(page)->mapping == inode->i_mapping)
				return page;
			unlock_page(page);
			put_page(page);
			continue;
		}
		if (enter_locked())
			return ERR_PTR(-EBUSY);
		pfn = khofs_rs_grow(khofs_id(inode->i_sb), khofs_i(inode)->file, inode, index, want, &clean);
		if (pfn >= 0) {
			page = pfn_to_page(pfn);
			if (!whole || PageCompound(page))
				fill_folio(page_folio(page), clean);
			folio_set_dirty(page_folio(page));
			get_page(page);
		}
		khofs_exit();
		if (pfn == -EEXIST)
			continue;
		return pfn < 0 ? ERR_PTR(pfn) : page;
	}
}

/* Writing */

static int begin(struct inode *inode, loff_t pos, unsigned int len, struct page **pagep)
{
	bool whole = len >= PAGE_SIZE && !offset_in_page(pos);
	loff_t end = max_t(loff_t, pos + len, khofs_i(inode)->write_end);
	struct khofs_want want = {
		.pages = DIV_ROUND_UP(max(end, i_size_read(inode)), PAGE_SIZE),
		.first = pos >> PAGE_SHIFT,
		.end = DIV_ROUND_UP(end, PAGE_SIZE),
	};
	struct page *page = lock_page_at(inode, pos >> PAGE_SHIFT, &want, whole);

	if (IS_ERR(page))
		return PTR_ERR(page);
	*pagep = page;
	return 0;
}

static int end(struct inode *inode, loff_t pos, unsigned int copied, struct page *page)
{
	struct folio *folio = page_folio(page);
	loff_t last = pos + copied;
	int result = copied;

	if (!folio_test_uptodate(folio)) {
		if (copied < PAGE_SIZE)
			zero_user_segment(page, copied, PAGE_SIZE);
		folio_mark_uptodate(folio);
	}
	/* i_rwsem is held, so nobody else changes the size. */
	if (copied && last > inode->i_size) {
		result = enter_locked();
		if (!result) {
			i_size_write(inode, last);
			khofs_exit();
			result = copied;
		}
	}
	folio_mark_dirty(folio);
	folio_unlock(folio);
	folio_put(folio);
	return result;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
#define WRITE_ARG const struct kiocb *
#else
#define WRITE_ARG struct file *
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
static int write_begin(WRITE_ARG arg, struct address_space *mapping, loff_t pos, unsigned int len,
		       struct folio **foliop, void **fsdata)
{
	struct page *page;
	int error = begin(mapping->host, pos, len, &page);

	if (!error)
		*foliop = page_folio(page);
	return error;
}

static int write_end(WRITE_ARG arg, struct address_space *mapping, loff_t pos, unsigned int len,
		     unsigned int copied, struct folio *folio, void *fsdata)
{
	return end(mapping->host, pos, copied, folio_page(folio, 0));
}
#else
static int write_begin(WRITE_ARG arg, struct address_space *mapping, loff_t pos, unsigned int len,
		       struct page **pagep, void **fsdata)
{
	return begin(mapping->host, pos, len, pagep);
}

static int write_end(WRITE_ARG arg, struct address_space *mapping, loff_t pos, unsigned int len,
		     unsigned int copied, struct page *page, void *fsdata)
{
	return end(mapping->host, pos, copied, page);
}
#endif

const struct address_space_operations khofs_aops = {
	.write_begin = write_begin,
	.write_end = write_end,
	.dirty_folio = noop_dirty_folio,
	.free_folio = free_folio,
};

/*
 * What a mapping wrote behind the end of the file must not become part of it. A folio of several pages may be mapped
 * as a whole where the file ends in it.
 */
static int zero_tail(struct inode *inode)
{
	loff_t size = i_size_read(inode);
	struct folio *folio;
	struct page *page;

	if (!(size & (PMD_SIZE - 1)))
		return 0;
	page = get_page_at(inode, size >> PAGE_SHIFT);
	if (IS_ERR_OR_NULL(page))
		return PTR_ERR_OR_ZERO(page);
	folio = page_folio(page);
	folio_lock(folio);
	if (folio->mapping == inode->i_mapping)
		folio_zero_segment(folio, offset_in_folio(folio, size), folio_size(folio));
	folio_unlock(folio);
	folio_put(folio);
	return 0;
}

/*
 * A file that grew in small steps has its pages where they would be in folios of 2 MiB: makes such a folio wherever one
 * was completed by writing from @start to @end.
 */
static void collapse(struct inode *inode, loff_t start, loff_t end)
{
	u64 window = start >> PMD_SHIFT;

	if (window >= end >> PMD_SHIFT || !khofs_rs_may_collapse(khofs_id(inode->i_sb)) || khofs_enter())
		return;
	filemap_invalidate_lock(inode->i_mapping);
	for (; window < end >> PMD_SHIFT; window++) {
		khofs_collapse(inode, window << (PMD_SHIFT - PAGE_SHIFT));
		cond_resched();
	}
	filemap_invalidate_unlock(inode->i_mapping);
	khofs_exit();
}

static ssize_t write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	ssize_t result;

	if (!inode_trylock(inode)) {
		if (iocb->ki_flags & IOCB_NOWAIT)
			return -EAGAIN;
		inode_lock(inode);
	}
	result = generic_write_checks(iocb, from);
	if (result <= 0)
		goto out;
	/* A write that would grow the file fails as a whole; one in place goes on. */
	if (READ_ONCE(khofs_frozen) && iocb->ki_pos + iov_iter_count(from) > i_size_read(inode)) {
		result = -EBUSY;
		goto out;
	}
	result = file_modified(iocb->ki_filp);
	if (!result && iocb->ki_pos > i_size_read(inode))
		result = zero_tail(inode);
	if (!result) {
		loff_t start = iocb->ki_pos;

		khofs_i(inode)->write_end = start + iov_iter_count(from);
		result = generic_perform_write(iocb, from);
		khofs_i(inode)->write_end = 0;
		if (result > 0)
			collapse(inode, start, start + result);
	}
out:
	inode_unlock(inode);
	return result;
}

/* Reading */

static ssize_t read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	ssize_t done = 0;
	int error = 0;

	while (iov_iter_count(to)) {
		size_t offset = offset_in_page(iocb->ki_pos), room = PAGE_SIZE, want, got;
		loff_t size = i_size_read(inode);
		struct page *page;

		if (iocb->ki_pos >= size)
			break;
		page = get_page_at(inode, iocb->ki_pos >> PAGE_SHIFT);
		if (IS_ERR(page)) {
			error = PTR_ERR(page);
			break;
		}
		if (page) {
			offset = offset_in_folio(page_folio(page), iocb->ki_pos);
			room = folio_size(page_folio(page));
		}
		want = min_t(loff_t, room - offset, size - iocb->ki_pos);
		want = min(want, iov_iter_count(to));
		if (page) {
			got = copy_page_to_iter(folio_page(page_folio(page), 0), offset, want, to);
			put_page(page);
		} else {
			got = iov_iter_zero(want, to);
		}
		iocb->ki_pos += got;
		done += got;
		if (got < want) {
			error = -EFAULT;
			break;
		}
		if (fatal_signal_pending(current)) {
			error = -EINTR;
			break;
		}
		cond_resched();
	}
	file_accessed(iocb->ki_filp);
	return done ? done : error;
}

/* Mappings */

static vm_fault_t fault(struct vm_fault *vmf)
{
	struct inode *inode = file_inode(vmf->vma->vm_file);
	struct address_space *mapping = inode->i_mapping;
	struct khofs_want want = {};
	struct page *page;

	for (;;) {
		filemap_invalidate_lock_shared(mapping);
		want.pages = DIV_ROUND_UP(i_size_read(inode), PAGE_SIZE);
		/* madvise(MADV_HUGEPAGE) */
		if (vmf->vma->vm_flags & VM_HUGEPAGE)
			want.end = want.pages;
		if (vmf->pgoff >= want.pages)
			page = ERR_PTR(-EFAULT);
		else
			page = lock_page_at(inode, vmf->pgoff, &want, false);
		filemap_invalidate_unlock_shared(mapping);
		if (!IS_ERR(page)) {
			vmf->page = page;
			return VM_FAULT_LOCKED;
		}
		/*
		 * A hole in the active phase: a write into it would be lost, so it does not take place. While the phase is
		 * entered this comes back here until it is.
		 */
		if (PTR_ERR(page) == -EBUSY)
			cond_resched();
		if (PTR_ERR(page) != -EBUSY || wait_event_killable(khofs_thawed, !READ_ONCE(khofs_frozen)))
			return VM_FAULT_SIGBUS;
	}
}

static const struct vm_operations_struct vm_ops = {
	.fault = fault,
	.map_pages = filemap_map_pages,
};

static int mmap(struct file *file, struct vm_area_struct *vma)
{
	file_accessed(file);
	vma->vm_ops = &vm_ops;
	return 0;
}

/* Size and space */

/* Pages at the two ends of a range that is going to be zeroed in part have to be in the page cache. */
static int bring_ends(struct inode *inode, loff_t start, loff_t end)
{
	loff_t at[2] = { start, end };
	int i;

	for (i = 0; i < 2; i++) {
		struct page *page;

		if (!offset_in_page(at[i]))
			continue;
		page = get_page_at(inode, at[i] >> PAGE_SHIFT);
		if (IS_ERR(page))
			return PTR_ERR(page);
		if (page)
			put_page(page);
	}
	return 0;
}

/* Before the page cache is truncated: a folio that is cut in two becomes pages, unless somebody holds it for long. */
static void split_at(struct inode *inode, loff_t at)
{
	int tries;

	for (tries = 0; tries < 8 && (at & (PMD_SIZE - 1)); tries++) {
		if (khofs_split(inode, at >> PAGE_SHIFT))
			return;
		schedule_timeout_uninterruptible(1);
	}
}

/* Before the page cache is truncated: what arrived must not get there behind its back. */
static int forget(struct inode *inode, u64 first, u64 last)
{
	if (!READ_ONCE(khofs_i(inode)->lazy) || first > last)
		return 0;
	return khofs_rs_forget(khofs_id(inode->i_sb), khofs_i(inode)->file, inode, first, last);
}

/* Between enter and exit, with i_rwsem. */
int khofs_setattr_size(struct inode *inode, loff_t size)
{
	loff_t old = i_size_read(inode);
	int error;

	if (size > old)
		error = zero_tail(inode);
	else
		error = bring_ends(inode, size, 0);
	if (error)
		return error;
	filemap_invalidate_lock(inode->i_mapping);
	if (size < old)
		error = forget(inode, DIV_ROUND_UP(size, PAGE_SIZE), U64_MAX);
	if (!error && size < old)
		split_at(inode, size);
	if (!error)
		truncate_setsize(inode, size);
	filemap_invalidate_unlock(inode->i_mapping);
	return error;
}

static int punch(struct inode *inode, loff_t offset, loff_t len)
{
	loff_t first = round_up(offset, PAGE_SIZE), last = round_down(offset + len, PAGE_SIZE);
	int error = bring_ends(inode, offset, offset + len);

	if (error)
		return error;
	filemap_invalidate_lock(inode->i_mapping);
	if (last > first)
		error = forget(inode, first >> PAGE_SHIFT, (last >> PAGE_SHIFT) - 1);
	if (!error && last > first) {
		split_at(inode, first);
		split_at(inode, last);
	}
	if (!error)
		truncate_pagecache_range(inode, offset, offset + len - 1);
	filemap_invalidate_unlock(inode->i_mapping);
	return error;
}

static int allocate(struct inode *inode, loff_t offset, loff_t len)
{
	u64 index = offset >> PAGE_SHIFT, end = DIV_ROUND_UP_ULL(offset + len, PAGE_SIZE), at, next, missing = 0;
	const struct khofs_want want = { .pages = end, .first = index, .end = end };
	u32 id = khofs_id(inode->i_sb);
	void *file = khofs_i(inode)->file;
	int error;

	for (at = index; at < end; at = next) {
		at = khofs_rs_seek(file, inode, at, true);
		if (at >= end)
			break;
		next = min(end, khofs_rs_seek(file, inode, at, false));
		missing += next - at;
		cond_resched();
	}
	error = khofs_rs_room(id, missing);
	for (at = index; !error && at < end; at++) {
		struct folio *folio;
		bool clean;
		s64 pfn;

		at = khofs_rs_seek(file, inode, at, true);
		if (at >= end)
			break;
		if (fatal_signal_pending(current))
			return -EINTR;
		pfn = khofs_rs_grow(id, file, inode, at, &want, &clean);
		if (pfn == -EEXIST)
			continue;
		if (pfn < 0)
			return pfn;
		folio = page_folio(pfn_to_page(pfn));
		fill_folio(folio, clean);
		folio_set_dirty(folio);
		folio_unlock(folio);
		cond_resched();
	}
	return error;
}

static long fallocate(struct file *file, int mode, loff_t offset, loff_t len)
{
	struct inode *inode = file_inode(file);
	bool grows = !(mode & FALLOC_FL_KEEP_SIZE) && offset + len > i_size_read(inode);
	int error;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE))
		return -EOPNOTSUPP;
	inode_lock(inode);
	error = khofs_enter();
	if (error)
		goto unlock;
	if (mode & FALLOC_FL_PUNCH_HOLE) {
		error = punch(inode, offset, len);
	} else {
		if (grows)
			error = inode_newsize_ok(inode, offset + len);
		if (!error && grows)
			error = zero_tail(inode);
		if (!error)
			error = allocate(inode, offset, len);
		if (!error && grows && offset + len > inode->i_size)
			i_size_write(inode, offset + len);
	}
	khofs_exit();
	if (!error)
		error = file_modified(file);
unlock:
	inode_unlock(inode);
	return error;
}

static loff_t llseek(struct file *file, loff_t offset, int whence)
{
	struct inode *inode = file_inode(file);
	loff_t size, found;
	u64 page;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return generic_file_llseek(file, offset, whence);
	inode_lock(inode);
	size = i_size_read(inode);
	if (offset < 0 || offset >= size) {
		found = -ENXIO;
		goto out;
	}
	page = khofs_rs_seek(khofs_i(inode)->file, inode, offset >> PAGE_SHIFT, whence == SEEK_HOLE);
	if (page >= (u64)DIV_ROUND_UP(size, PAGE_SIZE))
		found = whence == SEEK_HOLE ? size : -ENXIO;
	else
		found = max_t(loff_t, offset, page << PAGE_SHIFT);
	if (found >= 0)
		found = vfs_setpos(file, found, inode->i_sb->s_maxbytes);
out:
	inode_unlock(inode);
	return found;
}

static int open(struct inode *inode, struct file *file)
{
	/* Accepted as tmpfs does since 6.6: the page cache is the medium. */
	file->f_mode |= FMODE_CAN_ODIRECT;
	return generic_file_open(inode, file);
}

const struct file_operations khofs_file_operations = {
	.open = open,
	.llseek = llseek,
	.read_iter = read_iter,
	.write_iter = write_iter,
	.mmap = mmap,
	.fsync = noop_fsync,
	.fallocate = fallocate,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	.splice_read = copy_splice_read,
#else
	.splice_read = generic_file_splice_read,
#endif
	.splice_write = iter_file_splice_write,
	.get_unmapped_area = thp_get_unmapped_area,
};
