// SPDX-License-Identifier: GPL-2.0-only
/*
 * C glue of khofs: folios of 2 MiB, made of existing pages.
 *
 * Arrived pages must not go through the page allocator, which would erase them. The kernel does not
 * export prep_compound_page(), the function that makes a compound page of given pages. So this file
 * does the same, for the kernels listed below; on any other kernel khofs uses single pages only.
 * When the module is loaded, it compares a folio made here with a folio made by the kernel
 * (khofs_c_check_folios()); if they differ, khofs uses single pages too.
 *
 * As long as khofs owns the memory, a folio has one reference of khofs besides those of the page
 * cache and its users. Therefore the kernel never splits a folio of khofs itself: mm/huge_memory.c
 * counts the references before it changes anything. It could not split one correctly, because it
 * expects the folio on an LRU list.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/poison.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/vmstat.h>

#include "khofs.h"

static bool large_folios = true;
module_param(large_folios, bool, 0444);
MODULE_PARM_DESC(large_folios, "Use folios of 2 MiB where the layout of this kernel's folios is known");

#ifdef KHO_FAULTS
/* Only in the build for tests: inverts this bit of the struct pages that are verified. */
static int wrong_bit = -1;
module_param(wrong_bit, int, 0400);
#endif

/* Whether khofs makes folios, and if not, the reason. */
static bool verified, failed;
static const char *reason = "not verified yet";

#if !defined(CONFIG_TRANSPARENT_HUGEPAGE) || !defined(CONFIG_MEMCG) || defined(CONFIG_MEM_ALLOC_PROFILING)
/*
 * No folios: without TRANSPARENT_HUGEPAGE the page cache has no entries of several pages, without
 * MEMCG the fields of the comparison below are missing, and with MEM_ALLOC_PROFILING every page has
 * a tag.
 */
#define LAYOUT 0
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0) && LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define LAYOUT 61
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0) && LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define LAYOUT 612
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(7, 3, 0) && LINUX_VERSION_CODE < KERNEL_VERSION(7, 4, 0)
#define LAYOUT 703
#else
#define LAYOUT 0
#endif

bool khofs_c_large(void)
{
	return verified;
}

#if LAYOUT

#define ORDER HPAGE_PMD_ORDER
#define PAGES HPAGE_PMD_NR

#if LAYOUT == 703
#define FLAGS(page) ((page)->flags.f)
#else
#define FLAGS(page) ((page)->flags)
#endif

/*
 * As prep_compound_page(), and the steps that follow it for file folios. The pages' reference
 * counts are 0.
 */
static void make(struct page *head)
{
	struct folio *folio = (struct folio *)head;
	int i;

	FLAGS(head) &= ~PAGE_FLAGS_CHECK_AT_PREP;
	__SetPageHead(head);
	for (i = 1; i < PAGES; i++) {
		struct page *tail = head + i;

		FLAGS(tail) &= ~PAGE_FLAGS_CHECK_AT_PREP;
		tail->mapping = TAIL_MAPPING;
		set_page_private(tail, 0);
#if LAYOUT == 703
		set_compound_head(tail, head, ORDER);
#else
		set_compound_head(tail, head);
#endif
	}
#if LAYOUT == 61
	/* prep_compound_head() of mm/page_alloc.c, prep_transhuge_page() */
	set_compound_order(head, ORDER);
	atomic_set(compound_mapcount_ptr(head), -1);
	atomic_set(compound_pincount_ptr(head), 0);
	INIT_LIST_HEAD(page_deferred_list(head));
	set_compound_page_dtor(head, TRANSHUGE_PAGE_DTOR);
	(void)folio;
#elif LAYOUT == 612
	/* prep_compound_head(), folio_set_order(), page_rmappable_folio() of mm/internal.h */
	folio->_flags_1 = (folio->_flags_1 & ~0xffUL) | ORDER;
	folio->_folio_nr_pages = PAGES;
	atomic_set(&folio->_large_mapcount, -1);
	atomic_set(&folio->_entire_mapcount, -1);
	atomic_set(&folio->_nr_pages_mapped, 0);
	atomic_set(&folio->_pincount, 0);
	INIT_LIST_HEAD(&folio->_deferred_list);
	folio_set_large_rmappable(folio);
#else
	folio->_flags_1 = (folio->_flags_1 & ~0xffUL) | ORDER;
#ifdef NR_PAGES_IN_LARGE_FOLIO
	folio->_nr_pages = PAGES;
#endif
	atomic_set(&folio->_large_mapcount, -1);
	atomic_set(&folio->_nr_pages_mapped, 0);
	folio->_mm_ids = 0;
	folio->_mm_id_mapcount[0] = -1;
	folio->_mm_id_mapcount[1] = -1;
	atomic_set(&folio->_pincount, 0);
	atomic_set(&folio->_entire_mapcount, -1);
	INIT_LIST_HEAD(&folio->_deferred_list);
	folio_set_large_rmappable(folio);
#endif
}

/*
 * Reverses make(), as free_pages_prepare() and __split_folio_to_order() do. All reference counts
 * are 0.
 */
static void unmake(struct page *head)
{
	int i;

#if LAYOUT == 703 && defined(NR_PAGES_IN_LARGE_FOLIO)
	((struct folio *)head)->_nr_pages = 0;
#endif
	for (i = PAGES - 1; i >= 1; i--) {
		struct page *tail = head + i;

		FLAGS(tail) &= ~PAGE_FLAGS_CHECK_AT_PREP;
		tail->mapping = NULL;
		set_page_private(tail, 0);
		/* All fields must be written before the page counts as a page of its own. */
		smp_wmb();
		clear_compound_head(tail);
	}
	ClearPageCompound(head);
}

/*
 * Freezes the reference counts of @count pages, if each equals @refs: then no other user holds a
 * reference, and none can get one.
 */
static bool freeze(struct page *page, int count, int refs)
{
	int i;

	for (i = 0; i < count; i++) {
		if (page_ref_freeze(page + i, refs))
			continue;
		while (i--)
			page_ref_unfreeze(page + i, refs);
		return false;
	}
	return true;
}

static void unfreeze(struct page *page, int count, int refs)
{
	while (count--)
		page_ref_unfreeze(page + count, refs);
}

static bool poisoned(struct page *page)
{
	int i;

	for (i = 0; i < PAGES; i++)
		if (PageHWPoison(page + i))
			return true;
	return false;
}

/*
 * Called before a folio is mapped: a folio with failed memory must not be mapped as a whole. The
 * kernel sets the flag itself only if it knows the use of the page.
 */
void khofs_note_failure(struct folio *folio)
{
	if (folio_test_large(folio) && !folio_test_has_hwpoisoned(folio) && poisoned(&folio->page))
		folio_set_has_hwpoisoned(folio);
}

/*
 * Makes a folio of pages that are in no page cache and have only khofs's reference. False if
 * another user holds a page.
 */
bool khofs_c_fold(u64 pfn)
{
	struct page *head = pfn_to_page(pfn);

	if (!verified || poisoned(head) || !freeze(head, PAGES, 1))
		return false;
	make(head);
	page_ref_unfreeze(head, 1);
	return true;
}

/*
 * Reverses khofs_c_fold(). False also if a part of the folio's memory failed: then khofs does not
 * use any of it again.
 */
bool khofs_c_unfold(u64 pfn)
{
	struct page *head = pfn_to_page(pfn);

	if (poisoned(head) || !page_ref_freeze(head, 1))
		return false;
	unmake(head);
	unfreeze(head, PAGES, 1);
	return true;
}

/*
 * Returns a folio that is in no page cache to the system. The page allocator checks only single
 * pages for failed memory.
 */
void khofs_c_put_folio(u64 pfn)
{
	struct page *head = pfn_to_page(pfn);
	int i;

	if (!poisoned(head)) {
		put_page(head);
		return;
	}
	/* If another user holds the folio, it stays with khofs while this kernel runs. */
	if (!page_ref_freeze(head, 1))
		return;
	unmake(head);
	unfreeze(head, PAGES, 1);
	for (i = 0; i < PAGES; i++)
		put_page(head + i);
}

static void count_folio(struct page *head, int pages)
{
	mod_node_page_state(page_pgdat(head), NR_FILE_THPS, pages);
}

/*
 * Splits a folio in the page cache into single pages, each in its place, so that some of them can
 * be removed. The caller holds the inode's lock and the mapping's invalidate lock. False if another
 * user holds the folio, which then stays whole.
 */
bool khofs_split(struct inode *inode, pgoff_t index)
{
	struct address_space *mapping = inode->i_mapping;
	struct page *head, *page = find_lock_page(mapping, index);
	struct folio *folio;
	bool done = true;
	int i;

	if (!page)
		return true;
	folio = page_folio(page);
	head = &folio->page;
	if (folio_test_large(folio)) {
		XA_STATE(xas, &mapping->i_pages, folio->index);

		unmap_mapping_pages(mapping, folio->index, PAGES, false);
		xas_split_alloc(&xas, folio, ORDER, GFP_KERNEL);
		done = !xas_error(&xas);
		if (!done)
			goto out;
		xas_lock_irq(&xas);
		xas_reset(&xas);
		/* The references of the page cache, of khofs and of this function. */
		if (xas_load(&xas) != folio || !folio_ref_freeze(folio, PAGES + 2)) {
			xas_unlock_irq(&xas);
			xas_nomem(&xas, GFP_KERNEL); /* frees what was not used */
			done = false;
			goto out;
		}
		xas_split(&xas, folio, ORDER);
		unmake(head);
		for (i = 1; i < PAGES; i++) {
			struct folio *one = (struct folio *)(head + i);

			one->mapping = mapping;
			one->index = folio->index + i;
			folio_mark_uptodate(one);
			folio_set_dirty(one);
			__xa_store(&mapping->i_pages, one->index, one, 0);
		}
		unfreeze(head + 1, PAGES - 1, 2);
		page_ref_unfreeze(head, 3);
		xas_unlock_irq(&xas);
		/*
		 * No page leaves the page cache meanwhile, because the caller holds the locks for
		 * that.
		 */
		khofs_rs_folded(folio_pfn(folio), false);
		count_folio(head, -PAGES);
	}
out:
	/*
	 * After a split this concerns the first page, which has this function's lock and reference.
	 */
	folio_unlock(folio);
	folio_put(folio);
	return done;
}

/*
 * Makes one folio of the file's pages from @index on, a multiple of 512, if they are 2 MiB in one
 * piece. The caller holds the inode's lock and the mapping's invalidate lock. Has no effect if
 * another user holds one of the pages.
 */
void khofs_collapse(struct inode *inode, pgoff_t index)
{
	struct address_space *mapping = inode->i_mapping;
	struct page *head, *page;
	int got = 0;
	XA_STATE_ORDER(xas, &mapping->i_pages, index, ORDER);

	if (!verified)
		return;
	head = find_get_page(mapping, index);
	if (!head)
		return;
	if (PageCompound(head) || !IS_ALIGNED(page_to_pfn(head), PAGES)) {
		put_page(head);
		return;
	}
	for (page = head;; page = find_get_page(mapping, index + got)) {
		if (page != head + got) {
			if (page)
				put_page(page);
			goto out;
		}
		if (!trylock_page(page)) {
			put_page(page);
			goto out;
		}
		got++;
		if (!PageUptodate(page) || !PageDirty(page) || PageHWPoison(page) ||
		    page_folio(page)->mapping != mapping)
			goto out;
		if (got == PAGES)
			break;
	}
	unmap_mapping_pages(mapping, index, PAGES, false);
	xas_lock_irq(&xas);
	/* The references of the page cache, of khofs and of this function. */
	if (!freeze(head, PAGES, 3)) {
		xas_unlock_irq(&xas);
		goto out;
	}
	xas_store(&xas, head);
	if (xas_error(&xas)) {
		unfreeze(head, PAGES, 3);
		xas_unlock_irq(&xas);
		goto out;
	}
	make(head);
	/*
	 * make() cleared the flags. No task waits for a page lock, because a waiting task would
	 * hold a reference.
	 */
	__folio_set_locked((struct folio *)head);
	folio_mark_uptodate((struct folio *)head);
	folio_set_dirty((struct folio *)head);
	page_ref_unfreeze(head, PAGES + 2);
	xas_unlock_irq(&xas);
	khofs_rs_folded(page_to_pfn(head), true);
	count_folio(head, PAGES);
	got = 1;
out:
	while (got--) {
		folio_unlock(page_folio(head + got));
		put_page(head + got);
	}
}

/* The comparison */

/*
 * Words of struct page number 1 and 2 that have a meaning in a folio, besides flags, head, and the
 * words that are compared for every page.
 */
static const unsigned long words[2][4] = {
#if LAYOUT == 61
	/* dtor and order, mapcount; pincount and number of pages. The deferred list. */
	{ 0xffffffff0000ffff, ~0UL, 0, 0 }, { 0, ~0UL, ~0UL, 0 },
#elif LAYOUT == 612
	/* Mapcounts; pages mapped and pincount; number of pages. The deferred list. */
	{ ~0UL, ~0UL, 0xffffffff, 0 }, { ~0UL, ~0UL, 0, 0 },
#else
	/*
	 * Mapcount and pages mapped; entire mapcount and pincount; mapcounts of two processes and
	 * their ids. The deferred list.
	 */
	{ ~0UL, ~0UL, ~0UL, ~0UL }, { ~0UL, ~0UL, 0, 0 },
#endif
};

/* Whether the values are equal, or point to the same place of their folios. */
static bool same(unsigned long a, unsigned long b, const struct page *first, const struct page *second)
{
	return a == b || a - (unsigned long)first == b - (unsigned long)second;
}

/*
 * The first difference between a folio of the kernel and a folio made here; NULL if there is none.
 */
static const char *difference(struct page *real, struct page *made)
{
	int i, word;

	BUILD_BUG_ON(sizeof(struct page) != 8 * sizeof(long));
	if (folio_order(page_folio(real)) != ORDER || folio_order(page_folio(made)) != ORDER)
		return "order";
	for (i = 0; i < PAGES; i++) {
		struct page *a = real + i, *b = made + i;
		const unsigned long *v = (unsigned long *)a, *w = (unsigned long *)b;

		if ((FLAGS(a) ^ FLAGS(b)) & PAGEFLAGS_MASK)
			return "flags";
		if (atomic_read(&a->_refcount) != atomic_read(&b->_refcount) ||
		    atomic_read(&a->_mapcount) != atomic_read(&b->_mapcount))
			return "counts";
		if (a->memcg_data != b->memcg_data)
			return "owner";
		if (page_folio(b) != (struct folio *)made || (i && !same(v[1], w[1], real, made)))
			return "head";
		if ((!i || i > 2) && (a->mapping != b->mapping || page_private(a) != page_private(b)))
			return "mapping";
		for (word = 0; (i == 1 || i == 2) && word < 4; word++)
			if (!same(v[2 + word] & words[i - 1][word], w[2 + word] & words[i - 1][word], real, made))
				return i == 1 ? "first tail page" : "second tail page";
	}
	return NULL;
}

/* Whether the pages are as the page allocator returns them. */
static bool single(struct page *page)
{
	int i;

	for (i = 0; i < PAGES; i++, page++)
		if (PageCompound(page) || page_count(page) != 1 || atomic_read(&page->_mapcount) != -1 ||
		    (FLAGS(page) & PAGEFLAGS_MASK) || page->mapping || page_private(page) || page->memcg_data)
			return false;
	return true;
}

static void spoil(struct page *block)
{
#ifdef KHO_FAULTS
	if (wrong_bit >= 0 && wrong_bit < PAGES * sizeof(struct page) * BITS_PER_BYTE)
		change_bit(wrong_bit, (unsigned long *)block);
#endif
}

void khofs_c_check_folios(void)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_NOWARN | __GFP_RETRY_MAYFAIL;
	struct folio *real;
	struct page *block;
	int i;

	if (verified || failed)
		return;
	if (!large_folios) {
		reason = "switched off by the module's parameter";
		return;
	}
	real = folio_alloc(gfp, ORDER);
	block = alloc_pages(gfp, ORDER);
	if (!real || !block) {
		reason = "no 2 MiB in one piece to verify the layout with";
		goto free;
	}
	split_page(block, ORDER);
	if (freeze(block, PAGES, 1)) {
		make(block);
		page_ref_unfreeze(block, 1);
		spoil(block);
		reason = difference(&real->page, block);
		spoil(block);
		if (!reason && !khofs_c_unfold(page_to_pfn(block)))
			reason = "counts";
		/* Pages with a wrong field do not go back to the system. */
		if (!reason && single(block)) {
			verified = true;
		} else {
			reason = reason ? reason : "single pages";
			pr_err("khofs: a folio made here differs from one of the kernel's (%s)\n", reason);
			failed = true;
			block = NULL;
		}
	} else {
		reason = "pages in use while the layout was verified";
	}
	if (block)
		for (i = 0; i < PAGES; i++)
			__free_page(block + i);
	block = NULL;
free:
	if (real)
		folio_put(real);
	if (block)
		__free_pages(block, ORDER);
}

#else /* no known layout */

bool khofs_c_fold(u64 pfn)
{
	return false;
}

void khofs_note_failure(struct folio *folio)
{
}

bool khofs_c_unfold(u64 pfn)
{
	return false;
}

void khofs_c_put_folio(u64 pfn)
{
}

bool khofs_split(struct inode *inode, pgoff_t index)
{
	return true;
}

void khofs_collapse(struct inode *inode, pgoff_t index)
{
}

void khofs_c_check_folios(void)
{
	reason = "the layout of this kernel's folios is not known";
}

#endif

/* "yes", or "no: " and why. */
ssize_t khofs_large_show(char *buf)
{
	if (verified)
		return sysfs_emit(buf, "yes\n");
	if (failed)
		return sysfs_emit(buf, "no: a folio made here differs from one of the kernel's (%s)\n", reason);
	return sysfs_emit(buf, "no: %s\n", reason);
}
