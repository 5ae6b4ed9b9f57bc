// SPDX-License-Identifier: GPL-2.0-only
/*
 * kho_test: exercises kho.ko for the tests; not for use.
 *
 * Keeps `pages` scattered single pages, a vmapped area, and one contiguous piece, each word of which is a
 * function of its place; in the next kernel it checks every byte. Parameters make it misbehave.
 */
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <linux/io.h>

#include <kho.h>

#define COMPATIBLE "kho-test-v1"
#define AREA (64 * PAGE_SIZE)
#define PIECE 32

static unsigned int pages = 2000;
module_param(pages, uint, 0400);
MODULE_PARM_DESC(pages, "scattered single pages to keep");

static int fail;
module_param(fail, int, 0600);
MODULE_PARM_DESC(fail, "errno of a producer that comes after the others; 0: it succeeds");

static char *misuse = "";
module_param(misuse, charp, 0600);
MODULE_PARM_DESC(misuse, "scratch, twice, notram, unaligned, reserved, node, ignore: a wrong call to make");

static int aborts;
module_param(aborts, int, 0400);
MODULE_PARM_DESC(aborts, "abort calls so far (read only)");

static ulong bad;
module_param(bad, ulong, 0600);
MODULE_PARM_DESC(bad, "address for misuse=scratch and misuse=notram");

static int verified = -1;
module_param(verified, int, 0400);
MODULE_PARM_DESC(verified, "-1: nothing arrived, else pages that arrived wrong (read only)");

static struct page **single;
static struct page *area_pages[AREA / PAGE_SIZE];
static void *area;
static struct page *piece;

static void pattern(void *p, u64 tag)
{
	u64 *word = p;
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / 8; i++)
		word[i] = (tag << 16 | i) * 0x9e3779b97f4a7c15ULL;
}

static bool right(const void *p, u64 tag)
{
	const u64 *word = p;
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / 8; i++)
		if (word[i] != (tag << 16 | i) * 0x9e3779b97f4a7c15ULL)
			return false;
	return true;
}

static int mem_of(struct kho_context *ctx, u64 addr, u64 len)
{
	struct kho_mem mem = { .addr = addr, .len = len };

	return kho_prop_mem(ctx, &mem, 1);
}

static int do_misuse(struct kho_context *ctx)
{
	struct kho_mem twice[2] = {
		{ page_to_phys(piece), PAGE_SIZE }, { page_to_phys(piece), PAGE_SIZE }
	};

	if (!strcmp(misuse, "twice"))
		return kho_prop_mem(ctx, twice, 2);
	if (!strcmp(misuse, "scratch") || !strcmp(misuse, "notram") || !strcmp(misuse, "reserved"))
		return mem_of(ctx, bad, PAGE_SIZE);
	if (!strcmp(misuse, "unaligned"))
		return mem_of(ctx, page_to_phys(piece) + 1, PAGE_SIZE);
	if (!strcmp(misuse, "node"))
		return kho_begin_node(ctx, "left-open");
	if (!strcmp(misuse, "ignore")) {
		kho_prop_u32(ctx, "bad name", 1);
		return 0;
	}
	return 0;
}

static int test_serialize(struct kho_context *ctx, void *data)
{
	struct kho_mem *mem;
	unsigned int i;
	int error;

	error = kho_prop_str(ctx, "compatible", COMPATIBLE);
	if (!error)
		error = kho_prop_u32(ctx, "pages", pages);
	if (!error && misuse[0])
		return do_misuse(ctx);
	if (error)
		return error;
	mem = kvmalloc_array(pages, sizeof(*mem), GFP_KERNEL);
	if (!mem)
		return -ENOMEM;
	for (i = 0; i < pages; i++)
		mem[i] = (struct kho_mem){ page_to_phys(single[i]), PAGE_SIZE };
	error = kho_prop_mem(ctx, mem, pages);
	kvfree(mem);
	if (!error)
		error = kho_begin_node(ctx, "area");
	if (!error)
		error = kho_prop_mem_vmalloc(ctx, area, AREA);
	if (!error)
		error = kho_end_node(ctx);
	if (!error)
		error = kho_begin_node(ctx, "piece");
	if (!error)
		error = mem_of(ctx, page_to_phys(piece), PIECE * PAGE_SIZE);
	if (!error)
		error = kho_end_node(ctx);
	return error;
}

static void count_abort(void *data)
{
	aborts++;
}

static struct kho_producer producer = { .name = "test", .serialize = test_serialize, .abort = count_abort };

static int maybe_fail(struct kho_context *ctx, void *data)
{
	int error = kho_prop_str(ctx, "compatible", "kho-test-fail-v1");

	return error ? error : -fail;
}

static struct kho_producer failing = {
	.name = "test-fail", .priority = 10, .serialize = maybe_fail, .abort = count_abort
};

/* Checks node's pages against tags from @tag on, claims them, frees them. */
static void check_node(s64 node, u64 tag)
{
	struct kho_mem mem;
	size_t i;
	u64 at;

	for (i = 0; !kho_get_mem(node, i, &mem); i++) {
		if (kho_claim(mem.addr, mem.len)) {
			verified++;
			continue;
		}
		/* Each page once. */
		if (kho_claim(mem.addr, PAGE_SIZE) != -EBUSY || kho_release(mem.addr, PAGE_SIZE) != -EBUSY)
			verified++;
		for (at = mem.addr; at < mem.addr + mem.len; at += PAGE_SIZE) {
			if (!right(phys_to_virt(at), tag++))
				verified++;
			__free_page(pfn_to_page(PHYS_PFN(at)));
		}
	}
}

static void check_arrival(void)
{
	s64 node = kho_find("/test");

	if (node < 0 || kho_find_compatible(COMPATIBLE, -1) != node)
		return;
	verified = 0;
	check_node(node, 1ULL << 32);
	check_node(kho_find("/test/area"), 2ULL << 32);
	check_node(kho_find_child(node, "piece"), 3ULL << 32);
	pr_info("kho_test: arrived, %d pages wrong\n", verified);
}

static void give_back(void)
{
	unsigned int i;

	for (i = 0; single && i < pages; i++)
		if (single[i])
			__free_page(single[i]);
	kvfree(single);
	vunmap(area);
	for (i = 0; i < AREA / PAGE_SIZE; i++)
		if (area_pages[i])
			__free_page(area_pages[i]);
	kho_free_pages(piece, PIECE);
}

/* A page that may be kept; what may not is held until one was found, so that it does not come again. */
static struct page *alloc_outside(void)
{
	LIST_HEAD(refused);
	struct page *page, *next, *found = NULL;

	while (!found) {
		page = alloc_page(GFP_KERNEL);
		if (!page)
			break;
		if (kho_may_keep(page_to_phys(page), PAGE_SIZE))
			list_add(&page->lru, &refused);
		else
			found = page;
	}
	list_for_each_entry_safe(page, next, &refused, lru)
		__free_page(page);
	return found;
}

static int __init test_init(void)
{
	struct page **between;
	unsigned int i;
	int error = -ENOMEM;

	check_arrival();
	single = kvcalloc(pages, sizeof(*single), GFP_KERNEL);
	between = kvcalloc(pages, sizeof(*between), GFP_KERNEL);
	for (i = 0; i < AREA / PAGE_SIZE; i++) {
		area_pages[i] = alloc_outside();
		if (!area_pages[i])
			goto out;
	}
	area = vmap(area_pages, AREA / PAGE_SIZE, VM_MAP, PAGE_KERNEL);
	piece = kho_alloc_pages(PIECE);
	if (!single || !between || !area || !piece)
		goto out;
	for (i = 0; i < pages; i++) {
		single[i] = alloc_outside();
		between[i] = alloc_page(GFP_KERNEL);
		if (!single[i] || !between[i])
			goto out;
		pattern(page_address(single[i]), (1ULL << 32) + i);
	}
	for (i = 0; i < AREA / PAGE_SIZE; i++)
		pattern(area + i * PAGE_SIZE, (2ULL << 32) + i);
	for (i = 0; i < PIECE; i++)
		pattern(page_address(piece + i), (3ULL << 32) + i);
	error = kho_register_producer(&producer);
	if (error)
		goto out;
	error = kho_register_producer(&failing);
	if (error)
		kho_unregister_producer(&producer);
out:
	/* Every other page goes back, so that no two of ours are neighbours. */
	for (i = 0; between && i < pages; i++)
		if (between[i])
			__free_page(between[i]);
	kvfree(between);
	if (error)
		give_back();
	return error;
}

static void __exit test_exit(void)
{
	kho_unregister_producer(&failing);
	kho_unregister_producer(&producer);
	give_back();
}

module_init(test_init);
module_exit(test_exit);
MODULE_DESCRIPTION("Tests of kho.ko");
MODULE_LICENSE("GPL");
