// SPDX-License-Identifier: GPL-2.0-only
/*
 * C glue of khofs: the size of files, holes, and memory that is allocated before it is written.
 */
#include <linux/fs.h>
#include <linux/falloc.h>
#include <linux/highmem.h>
#include <linux/mm.h>

#include "khofs.h"

/*
 * Bytes that a mapping wrote behind the end of the file must not become part of it. If the file
 * ends in a folio of 2 MiB, the whole folio may be mapped and written. The folio may have become
 * single pages since: because a hole was cut into it, or because this kernel, or this mount, makes
 * no folio of arrived pages.
 */
int khofs_zero_tail(struct inode *inode, loff_t size)
{
	loff_t at = i_size_read(inode), end = min_t(loff_t, size, round_up(at, PMD_SIZE));

	while (at < end) {
		loff_t next = min_t(loff_t, end, round_down(at, PAGE_SIZE) + PAGE_SIZE);
		struct page *page = khofs_get_page(inode, at >> PAGE_SHIFT);
		struct folio *folio;

		if (!page) {
			u64 index = khofs_rs_seek(khofs_i(inode)->file, inode, at >> PAGE_SHIFT, false);

			if (index >= DIV_ROUND_UP_ULL(end, PAGE_SIZE))
				break;
			at = max_t(loff_t, at, index << PAGE_SHIFT);
			continue;
		}
		if (!IS_ERR(page)) {
			folio = page_folio(page);
			folio_lock(folio);
			if (folio->mapping == inode->i_mapping)
				folio_zero_segment(folio, offset_in_folio(folio, at), offset_in_folio(folio, at) + (next - at));
			folio_unlock(folio);
			put_page(page);
		} else if (PTR_ERR(page) != -EIO) {
			return PTR_ERR(page);
		} /* Memory that failed, here or in an earlier kernel, is an error to who reads it. */
		at = next;
		cond_resched();
	}
	return 0;
}

/*
 * Brings the pages at the two ends of a range, which will be zeroed in part, into the page cache.
 */
static int bring_ends(struct inode *inode, loff_t start, loff_t end)
{
	loff_t at[2] = { start, end };
	int i;

	for (i = 0; i < 2; i++) {
		struct page *page;

		if (!offset_in_page(at[i]))
			continue;
		page = khofs_get_page(inode, at[i] >> PAGE_SHIFT);
		if (IS_ERR(page))
			return PTR_ERR(page);
		if (page)
			put_page(page);
	}
	return 0;
}

/*
 * Called before the page cache is truncated: a folio across @at becomes pages, unless another user
 * holds it for long.
 */
static void split_at(struct inode *inode, loff_t at)
{
	int tries;

	for (tries = 0; tries < 8 && (at & (PMD_SIZE - 1)); tries++) {
		if (khofs_split(inode, at >> PAGE_SHIFT))
			return;
		schedule_timeout_uninterruptible(1);
	}
}

/*
 * Called before the page cache is truncated: arrived pages of the range must not come into it
 * later.
 */
static int forget(struct inode *inode, u64 first, u64 last)
{
	if (!READ_ONCE(khofs_i(inode)->lazy) || first > last)
		return 0;
	return khofs_rs_forget(khofs_id(inode->i_sb), khofs_i(inode)->file, inode, first, last);
}

/* Called between enter and exit, with i_rwsem held. */
int khofs_setattr_size(struct inode *inode, loff_t size)
{
	loff_t old = i_size_read(inode);
	int error;

	if (size > old)
		error = khofs_zero_tail(inode, size);
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

/* The number of holes among the pages @index to before @end. */
static u64 count_missing(struct inode *inode, u64 index, u64 end)
{
	void *file = khofs_i(inode)->file;
	u64 at, next, missing = 0;

	for (at = index; at < end; at = next) {
		at = khofs_rs_seek(file, inode, at, true);
		if (at >= end)
			break;
		next = min(end, khofs_rs_seek(file, inode, at, false));
		missing += next - at;
		cond_resched();
	}
	return missing;
}

/*
 * Moves *@at to the first hole from page *@at on, and fills the hole, between enter and exit.
 * Returns 1; 0 if there is no hole before the end of @want; or a negative errno.
 */
static int fill_hole(struct inode *inode, u64 *at, const struct khofs_want *want)
{
	struct folio *folio;
	bool clean;
	s64 pfn;

	*at = khofs_rs_seek(khofs_i(inode)->file, inode, *at, true);
	if (*at >= want->end)
		return 0;
	pfn = khofs_grow(inode, *at, want, &clean);
	if (pfn < 0)
		return pfn == -EEXIST ? 1 : pfn;
	folio = page_folio(pfn_to_page(pfn));
	khofs_fill_folio(folio, clean);
	folio_set_dirty(folio);
	folio_unlock(folio);
	return 1;
}

/*
 * Holds the gate for one folio at a time: a task that begins the active phase waits for the gate,
 * and all other tasks wait behind it. If the phase begins in between, the memory that was allocated
 * so far stays.
 */
static int allocate(struct inode *inode, loff_t offset, loff_t len)
{
	struct khofs_want want = {
		.first = offset >> PAGE_SHIFT,
		.end = DIV_ROUND_UP_ULL(offset + len, PAGE_SIZE),
	};
	int error = khofs_rs_room(khofs_id(inode->i_sb), count_missing(inode, want.first, want.end));
	u64 at = want.first;

	want.pages = want.end;
	while (!error) {
		int filled;

		if (fatal_signal_pending(current))
			return -EINTR;
		error = khofs_enter();
		if (error)
			return error;
		filled = fill_hole(inode, &at, &want);
		khofs_exit();
		if (filled <= 0)
			return filled;
		khofs_wait_here("allocate");
		cond_resched();
	}
	return error;
}

/* Allocates memory for a part of a file, and makes the file longer if @grows. */
static int reserve(struct inode *inode, loff_t offset, loff_t len, bool grows)
{
	int error = 0;

	if (grows)
		error = inode_newsize_ok(inode, offset + len);
	if (!error && READ_ONCE(khofs_frozen))
		error = -EBUSY;
	if (!error)
		error = allocate(inode, offset, len);
	if (!error && grows)
		error = khofs_zero_tail(inode, offset + len);
	if (error || !grows)
		return error;
	error = khofs_enter();
	if (error)
		return error;
	/* i_rwsem is held, so no other task changes the size. */
	i_size_write(inode, offset + len);
	khofs_exit();
	return 0;
}

long khofs_fallocate(struct file *file, int mode, loff_t offset, loff_t len)
{
	struct inode *inode = file_inode(file);
	int error;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE))
		return -EOPNOTSUPP;
	inode_lock(inode);
	if (!(mode & FALLOC_FL_PUNCH_HOLE)) {
		bool grows = !(mode & FALLOC_FL_KEEP_SIZE) && offset + len > i_size_read(inode);

		error = reserve(inode, offset, len, grows);
	} else {
		error = KHOFS_BETWEEN(punch(inode, offset, len));
	}
	if (!error)
		error = file_modified(file);
	inode_unlock(inode);
	return error;
}

loff_t khofs_llseek(struct file *file, loff_t offset, int whence)
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
