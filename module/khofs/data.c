// SPDX-License-Identifier: GPL-2.0-only
/*
 * C glue of khofs: file data. The Rust half decides the place of each page.
 *
 * A file's pages are in the page cache only: they are neither on LRU lists nor charged to a memory
 * cgroup, as in hugetlbfs (mm/hugetlb.c), because they outlive their process and cgroup. Besides
 * the page cache's reference each page has a reference that khofs holds until the page goes back to
 * the system.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/pipe_fs_i.h>
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
 * khofs_enter() for a caller that holds a folio's lock or a mapping's invalidate lock. A task
 * between enter and exit may wait for that lock, and a freeze waits for that task. So this function
 * does not wait for a freeze: it fails with -EBUSY also while the active phase begins.
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

/*
 * A page of zeros. In the active phase a process that reads a hole through a mapping gets this page
 * mapped. No code writes to it.
 */
static struct page *zeros;

int khofs_data_init(void)
{
	zeros = alloc_page(GFP_KERNEL | __GFP_ZERO);
	return zeros ? 0 : -ENOMEM;
}

void khofs_data_exit(void)
{
	__free_page(zeros);
}

/*
 * Waits for all tasks between enter and exit. At the end of the phase also waits for faults that
 * are mapping the page of zeros: a task that enters then finds all these mappings in page tables.
 */
void khofs_c_freeze(bool frozen)
{
	percpu_down_write(&gate);
	WRITE_ONCE(khofs_frozen, frozen);
	if (!frozen) {
		lock_page(zeros);
		unlock_page(zeros);
	}
	percpu_up_write(&gate);
	if (!frozen)
		wake_up_all(&khofs_thawed);
}

/*
 * Puts a folio that khofs owns into the page cache. The page cache gets its own references, one for
 * each page (__filemap_add_folio() of mm/filemap.c).
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

struct page *khofs_get_page(struct inode *inode, pgoff_t index)
{
	bool last = false;

	for (;;) {
		struct page *page;
		int brought;

		/*
		 * Another task may bring the page at any time. It puts the page into the page cache
		 * before it takes it off the list of lazy pages. So only a lookup after that list
		 * was seen empty proves a hole.
		 */
		if (!smp_load_acquire(&khofs_i(inode)->lazy))
			last = true;
		page = find_get_page(inode->i_mapping, index);
		if (page) {
			struct folio *folio = page_folio(page);

			/* The task that writes the page first holds the lock. */
			if (!folio_test_uptodate(folio)) {
				folio_lock(folio);
				folio_unlock(folio);
				if (folio->mapping != inode->i_mapping) {
					folio_put(folio);
					continue;
				}
			}
			if (PageHWPoison(page)) {
				put_page(page);
				return ERR_PTR(-EIO);
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

/* Zeroes the bytes from @from to before @to. */
static void zero(struct folio *folio, size_t from, size_t to)
{
	while (from < to) {
		size_t end = min(to, round_down(from, PAGE_SIZE) + PAGE_SIZE);

		folio_zero_segment(folio, from, end);
		from = end;
		cond_resched();
	}
}

void khofs_fill_folio(struct folio *folio, bool clean)
{
	if (!clean)
		zero(folio, 0, folio_size(folio));
	folio_mark_uptodate(folio);
}

/*
 * Number of bytes, of @len from @offset on, before the first page whose memory failed.
 * khofs_get_page() checks one page, but a folio of 2 MiB is read and written in larger parts.
 */
static size_t good_bytes(struct folio *folio, size_t offset, size_t len)
{
	u64 first = offset >> PAGE_SHIFT, end = DIV_ROUND_UP(offset + len, PAGE_SIZE);
	u64 good = khofs_c_good_pages(folio_pfn(folio) + first, end - first);

	return good ? min_t(size_t, len, ((first + good) << PAGE_SHIFT) - offset) : 0;
}

/*
 * Allocates new memory for a hole, between enter and exit: see khofs_rs_grow(). If processes have
 * the page of zeros mapped for holes of this file, from an active phase, removes these mappings, so
 * that the processes fault again.
 */
s64 khofs_grow(struct inode *inode, pgoff_t index, const struct khofs_want *want, bool *clean)
{
	struct khofs_inode *info = khofs_i(inode);
	unsigned int scope;
	s64 pfn;

	if (READ_ONCE(info->zeros)) {
		unmap_mapping_range(inode->i_mapping, 0, 0, 0);
		/*
		 * Cleared only now: another task that fills a hole meanwhile must not finish before
		 * the mappings are removed.
		 */
		WRITE_ONCE(info->zeros, false);
	}
	/* As in KHOFS_BETWEEN(). */
	scope = memalloc_noio_save();
	pfn = khofs_rs_grow(khofs_id(inode->i_sb), info->file, inode, index, want, clean);
	memalloc_noio_restore(scope);
	return pfn;
}

/*
 * The state of a write. INSIDE: it is between enter and exit. GROWN: its folio is new. STALE: the
 * new folio's pages are not zeroed.
 */
#define INSIDE 1UL
#define GROWN 2UL
#define STALE 4UL

/*
 * Returns the page at @index, locked, as khofs_get_page() does, but fills a hole: with zeros, or
 * for a write (@state is not NULL) with a folio that is not uptodate. The caller writes to that
 * folio and zeroes the rest before it leaves the gate. A write may wait for the gate, because it
 * holds only its inode's lock, and stays inside after it has entered.
 */
static struct page *lock_page_at(struct inode *inode, pgoff_t index, const struct khofs_want *want,
				 unsigned long *state)
{
	struct page *page;
	bool clean;
	s64 pfn;

	for (;;) {
		page = khofs_get_page(inode, index);
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
		if (!state || !(*state & INSIDE)) {
			int error = state ? khofs_enter() : enter_locked();

			if (error)
				return ERR_PTR(error);
		}
		if (state)
			*state |= INSIDE;
		pfn = khofs_grow(inode, index, want, &clean);
		if (pfn >= 0) {
			page = pfn_to_page(pfn);
			folio_set_dirty(page_folio(page));
			get_page(page);
			if (state) {
				*state |= GROWN | (clean ? 0 : STALE);
				return page;
			}
			khofs_fill_folio(page_folio(page), clean);
		}
		if (!state)
			khofs_exit();
		if (pfn == -EEXIST)
			continue;
		return pfn < 0 ? ERR_PTR(pfn) : page;
	}
}

/* Writing */

/*
 * *@fsdata is the state of the write. The code between begin and end does not fault on user memory.
 */
static int begin(struct inode *inode, loff_t pos, unsigned int len, struct page **pagep, void **fsdata)
{
	unsigned long state = 0;
	/* i_rwsem is held, so no other task changes the size. */
	loff_t size = i_size_read(inode), end = max_t(loff_t, pos + len, khofs_i(inode)->write_end);
	struct khofs_want want = {
		.pages = DIV_ROUND_UP(max(end, size), PAGE_SIZE),
		.first = pos >> PAGE_SHIFT,
		.end = DIV_ROUND_UP(end, PAGE_SIZE),
	};
	struct page *page;
	struct folio *folio;
	size_t offset, here;
	int error;

	/*
	 * A write that makes the file larger enters before it has a folio: it must not wait for the
	 * gate with a folio locked.
	 */
	if (pos + len > size) {
		error = khofs_enter();
		if (error)
			return error;
		state = INSIDE;
	}
	page = lock_page_at(inode, pos >> PAGE_SHIFT, &want, &state);
	error = PTR_ERR_OR_ZERO(page);
	if (error)
		goto leave;
	folio = page_folio(page);
	offset = offset_in_folio(folio, pos);
	/* The caller does not write past the end of the folio. A new folio has no failed memory. */
	here = min_t(size_t, len, folio_size(folio) - offset);
	if (!(state & GROWN) && good_bytes(folio, offset, here) < here) {
		folio_unlock(folio);
		folio_put(folio);
		error = -EIO;
		goto leave;
	}
	*pagep = page;
	*fsdata = (void *)state;
	return 0;
leave:
	if (state & INSIDE)
		khofs_exit();
	return error;
}

static int end(struct inode *inode, loff_t pos, unsigned int copied, struct folio *folio, void *fsdata)
{
	unsigned long state = (unsigned long)fsdata;
	loff_t last = pos + copied;

	if (state & STALE) {
		size_t offset = offset_in_folio(folio, pos);

		zero(folio, 0, offset);
		zero(folio, offset + copied, folio_size(folio));
	}
	if (state & GROWN)
		folio_mark_uptodate(folio);
	if (copied && last > inode->i_size)
		i_size_write(inode, last);
	if (state & INSIDE)
		khofs_exit();
	folio_mark_dirty(folio);
	folio_unlock(folio);
	folio_put(folio);
	return copied;
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
	int error = begin(mapping->host, pos, len, &page, fsdata);

	if (!error)
		*foliop = page_folio(page);
	return error;
}

static int write_end(WRITE_ARG arg, struct address_space *mapping, loff_t pos, unsigned int len,
		     unsigned int copied, struct folio *folio, void *fsdata)
{
	return end(mapping->host, pos, copied, folio, fsdata);
}
#else
static int write_begin(WRITE_ARG arg, struct address_space *mapping, loff_t pos, unsigned int len,
		       struct page **pagep, void **fsdata)
{
	return begin(mapping->host, pos, len, pagep, fsdata);
}

static int write_end(WRITE_ARG arg, struct address_space *mapping, loff_t pos, unsigned int len,
		     unsigned int copied, struct page *page, void *fsdata)
{
	return end(mapping->host, pos, copied, page_folio(page), fsdata);
}
#endif

/*
 * Memory that failed stays in its place, so that it does not become a hole: an access to it gets an
 * error.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
static int failed(struct address_space *mapping, struct folio *folio)
#else
static int failed(struct address_space *mapping, struct page *page)
#endif
{
	return 0;
}

const struct address_space_operations khofs_aops = {
	.write_begin = write_begin,
	.write_end = write_end,
	.dirty_folio = noop_dirty_folio,
	.free_folio = free_folio,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	.error_remove_folio = failed,
#else
	.error_remove_page = failed,
#endif
};

/*
 * A file that grew in small steps has its pages at the places that they would have in folios of 2
 * MiB. Makes such a folio wherever the writes from @start to @end completed one.
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
	/* A write that would make the file larger fails as a whole; a write in place continues. */
	if (READ_ONCE(khofs_frozen) && iocb->ki_pos + iov_iter_count(from) > i_size_read(inode)) {
		result = -EBUSY;
		goto out;
	}
	result = file_modified(iocb->ki_filp);
	if (!result && iocb->ki_pos > i_size_read(inode))
		result = khofs_zero_tail(inode, iocb->ki_pos);
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
		page = khofs_get_page(inode, iocb->ki_pos >> PAGE_SHIFT);
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
			want = good_bytes(page_folio(page), offset, want);
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

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
/*
 * Puts references to pages into the pipe, not copies, as shmem_file_splice_read() of mm/shmem.c
 * does. A reader of the pipe gets the content that the file has at the time of the read. In kernels
 * before 6.5 read_iter() does the same through copy_page_to_iter().
 */
static ssize_t splice_read(struct file *in, loff_t *ppos, struct pipe_inode_info *pipe, size_t len, unsigned int flags)
{
	struct inode *inode = file_inode(in);
	ssize_t done = 0;

	while (len && !pipe_full(pipe->head, pipe->tail, pipe->max_usage)) {
		size_t offset = offset_in_page(*ppos), part = min_t(size_t, len, PAGE_SIZE - offset);
		loff_t size = i_size_read(inode);
		struct page *page;

		if (*ppos >= size)
			break;
		part = min_t(loff_t, part, size - *ppos);
		page = khofs_get_page(inode, *ppos >> PAGE_SHIFT);
		if (IS_ERR(page))
			return done ? done : PTR_ERR(page);
		if (!page) {
			page = ZERO_PAGE(0);
			get_page(page);
		}
		*pipe_head_buf(pipe) = (struct pipe_buffer){
			.ops = &nosteal_pipe_buf_ops,
			.page = page,
			.offset = offset,
			.len = part,
		};
		pipe->head++;
		*ppos += part;
		done += part;
		len -= part;
		cond_resched();
	}
	file_accessed(in);
	return done;
}
#endif

/* Mappings */

/*
 * Returns the page of zeros, locked, for a hole in the active phase. -EBUSY if the page is no
 * longer a hole, or outside of the active phase. Not for a shared mapping that may write: khofs has
 * no page_mkwrite(), so a process could write to the page of zeros without a fault.
 */
static struct page *lock_zeros(struct inode *inode, pgoff_t index)
{
	struct page *page;

	WRITE_ONCE(khofs_i(inode)->zeros, true);
	lock_page(zeros);
	page = find_get_page(inode->i_mapping, index);
	if (!page && READ_ONCE(khofs_frozen)) {
		get_page(zeros);
		return zeros;
	}
	unlock_page(zeros);
	if (page)
		put_page(page);
	return ERR_PTR(-EBUSY);
}

/*
 * Waits for the end of the active phase without the lock of the address space, as
 * handle_userfault() of fs/userfaultfd.c does. Otherwise a task that changes a mapping of this
 * process would wait too, and so would tasks that read /proc files about it. If the process itself
 * touched the hole, the wait ends on any signal. If the kernel touched the hole for the process,
 * the wait ends after a short time, and the kernel tries the fault again.
 */
static vm_fault_t wait_for_thaw(struct vm_fault *vmf)
{
	const unsigned int user = FAULT_FLAG_USER | FAULT_FLAG_INTERRUPTIBLE;
	struct file *file;

	if (vmf->flags & FAULT_FLAG_RETRY_NOWAIT)
		return VM_FAULT_RETRY;
	file = get_file(vmf->vma->vm_file);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	release_fault_lock(vmf);
#else
	mmap_read_unlock(vmf->vma->vm_mm);
#endif
	/* If the active phase is just beginning, wait until it has begun. */
	if (!khofs_enter())
		khofs_exit();
	if ((vmf->flags & user) == user)
		(void)wait_event_interruptible(khofs_thawed, !READ_ONCE(khofs_frozen));
	else
		(void)wait_event_killable_timeout(khofs_thawed, !READ_ONCE(khofs_frozen), HZ / 10);
	fput(file);
	return VM_FAULT_RETRY;
}

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
			page = lock_page_at(inode, vmf->pgoff, &want, NULL);
		if (PTR_ERR(page) == -EBUSY && !(vmf->vma->vm_flags & VM_SHARED))
			page = lock_zeros(inode, vmf->pgoff);
		filemap_invalidate_unlock_shared(mapping);
		if (!IS_ERR(page)) {
			khofs_note_failure(page_folio(page));
			vmf->page = page;
			return VM_FAULT_LOCKED;
		}
		if (PTR_ERR(page) != -EBUSY)
			return VM_FAULT_SIGBUS;
		/* A hole in the active phase: a write into it would be lost, so it must wait. */
		if (vmf->flags & FAULT_FLAG_ALLOW_RETRY)
			return wait_for_thaw(vmf);
		/*
		 * Some callers of get_user_pages() cannot wait without the lock of the address
		 * space: they get an error after the phase has begun.
		 */
		if (READ_ONCE(khofs_frozen))
			return VM_FAULT_SIGBUS;
		cond_resched();
	}
}

/* Maps pages of the page cache around a fault. */
static vm_fault_t map_pages(struct vm_fault *vmf, pgoff_t start, pgoff_t end)
{
	struct page *page = find_get_page(vmf->vma->vm_file->f_mapping, vmf->pgoff);

	if (page) {
		khofs_note_failure(page_folio(page));
		put_page(page);
	}
	return filemap_map_pages(vmf, start, end);
}

#ifdef CONFIG_NUMA
/*
 * mbind(2): khofs uses memory of any node, next to the file's other memory if possible. It refuses
 * any other policy rather than ignoring it, because the caller of mbind() relies on the policy.
 */
static int set_policy(struct vm_area_struct *vma, struct mempolicy *policy)
{
	if (!policy || policy->mode == MPOL_LOCAL || num_node_state(N_MEMORY) == 1)
		return 0;
	if ((policy->mode == MPOL_BIND || policy->mode == MPOL_PREFERRED_MANY) &&
	    nodes_subset(node_states[N_MEMORY], policy->nodes))
		return 0;
	pr_warn_ratelimited("khofs: mbind() of a file by %s is refused: files of khofs have no memory policy\n",
			    current->comm);
	return -EOPNOTSUPP;
}
#endif

static const struct vm_operations_struct vm_ops = {
	.fault = fault,
	.map_pages = map_pages,
#ifdef CONFIG_NUMA
	.set_policy = set_policy,
#endif
};

static int mmap(struct file *file, struct vm_area_struct *vma)
{
	file_accessed(file);
	vma->vm_ops = &vm_ops;
	return 0;
}

/* The file */

static int open(struct inode *inode, struct file *file)
{
	/* Accepted as tmpfs does since 6.6: the page cache is the medium. */
	file->f_mode |= FMODE_CAN_ODIRECT;
	return generic_file_open(inode, file);
}

const struct file_operations khofs_file_operations = {
	.open = open,
	.llseek = khofs_llseek,
	.read_iter = read_iter,
	.write_iter = write_iter,
	.mmap = mmap,
	.fsync = noop_fsync,
	.fallocate = khofs_fallocate,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	.splice_read = splice_read,
#else
	.splice_read = generic_file_splice_read,
#endif
	.splice_write = iter_file_splice_write,
	.get_unmapped_area = thp_get_unmapped_area,
};
