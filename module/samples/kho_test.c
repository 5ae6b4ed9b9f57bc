// SPDX-License-Identifier: GPL-2.0-only
/*
 * kho_test: exercises kho.ko for the tests; not for use.
 *
 * Keeps `pages` scattered single pages, a vmapped area, and one contiguous piece. Each word of them
 * is a function of its place, and in the next kernel the driver checks every byte. Parameters make
 * it misbehave.
 */
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#include <linux/io.h>

#include <kho.h>

#define BLOCK 512
#define AREA (64 * PAGE_SIZE)
#define PIECE 32

static unsigned int pages = 2000;
module_param(pages, uint, 0400);
MODULE_PARM_DESC(pages, "scattered single pages to keep");

static char *compatible = "kho-test-v1";
module_param(compatible, charp, 0400);
MODULE_PARM_DESC(compatible, "of the node to write and to look for");

static char *arrived = "test";
module_param(arrived, charp, 0400);
MODULE_PARM_DESC(arrived, "name of the node to look for");

static bool part;
module_param(part, bool, 0400);
MODULE_PARM_DESC(part, "claim the first page of the node that arrived and no other");

static int as_is;
module_param(as_is, int, 0400);
MODULE_PARM_DESC(as_is, "hand on the node that arrived as it is, without claiming it; 1: it is held, 2: it is not");
static bool take;
module_param(take, bool, 0400);
MODULE_PARM_DESC(take, "take over the node test-fail that arrived, which has no memory");

static int took = 1;
module_param(took, int, 0400);
MODULE_PARM_DESC(took, "what that gave, 1: nothing arrived (read only)");

static unsigned int blocks;
module_param(blocks, uint, 0400);
MODULE_PARM_DESC(blocks, "contiguous pieces of 2 MiB to keep, at most 256");

static unsigned int nodes;
module_param(nodes, uint, 0400);
MODULE_PARM_DESC(nodes, "so many of the single pages in nodes of their own");

static ulong around;
module_param(around, ulong, 0400);
MODULE_PARM_DESC(around, "also keep the nearest free page below and above this address");

static int fail;
module_param(fail, int, 0600);
MODULE_PARM_DESC(fail, "errno of a producer that comes after the first; 0: it succeeds");

static char *misuse = "";
module_param(misuse, charp, 0600);
MODULE_PARM_DESC(misuse, "scratch, twice, again, notram, unaligned, reserved, node, ignore, ignore-value, ignore-area: a wrong call to make");

static bool last;
module_param(last, bool, 0400);
MODULE_PARM_DESC(last, "a third producer, which is registered first and comes last");

static char calls[256];
module_param_string(calls, calls, sizeof(calls), 0600);
MODULE_PARM_DESC(calls, "producers in the order in which they were called; aborts with a minus sign");

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
static struct page *block[256];
static struct page *beside[2];

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
	if (!strcmp(misuse, "ignore"))
		kho_prop_u32(ctx, "bad name", 1);
	if (!strcmp(misuse, "ignore-value"))
		kho_prop_str(ctx, "text", NULL);
	if (!strcmp(misuse, "ignore-area"))
		kho_prop_mem_vmalloc(ctx, page_address(piece), PAGE_SIZE);
	return 0;
}

static int keep_blocks(struct kho_context *ctx)
{
	struct kho_mem *mem = kvmalloc_array(blocks, sizeof(*mem), GFP_KERNEL);
	unsigned int i;
	int error = kho_begin_node(ctx, "blocks");

	if (!mem)
		return -ENOMEM;
	for (i = 0; i < blocks; i++)
		mem[i] = (struct kho_mem){ page_to_phys(block[i]), BLOCK * PAGE_SIZE };
	if (!error)
		error = kho_prop_mem(ctx, mem, blocks);
	if (!error)
		error = kho_end_node(ctx);
	kvfree(mem);
	return error;
}

static int keep_beside(struct kho_context *ctx)
{
	struct kho_mem mem[2] = {
		{ page_to_phys(beside[0]), PAGE_SIZE }, { page_to_phys(beside[1]), PAGE_SIZE }
	};
	int error = kho_begin_node(ctx, "beside");

	if (!error)
		error = kho_prop_mem(ctx, mem, 2);
	if (!error)
		error = kho_end_node(ctx);
	return error;
}

/* Writes the `mem` of an arrived node into the open node. */
static int same_mem(struct kho_context *ctx, s64 node)
{
	struct kho_mem *mem = kvmalloc_array(pages, sizeof(*mem), GFP_KERNEL);
	size_t i = 0;
	int error;

	if (!mem)
		return -ENOMEM;
	while (i < pages && !kho_get_mem(node, i, &mem[i]))
		i++;
	error = kho_prop_mem(ctx, mem, i);
	kvfree(mem);
	return error;
}

static s64 arrived_node(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/%s", arrived);
	return kho_find(path);
}

static int hand_on(struct kho_context *ctx)
{
	static const char *const children[] = { "area", "piece" };
	s64 node = arrived_node();
	int i, error = same_mem(ctx, node);

	for (i = 0; !error && i < ARRAY_SIZE(children); i++) {
		error = kho_begin_node(ctx, children[i]);
		if (!error)
			error = same_mem(ctx, kho_find_child(node, children[i]));
		if (!error)
			error = kho_end_node(ctx);
	}
	return error;
}

static void called(const char *how, const char *who)
{
	size_t used = strlen(calls);

	scnprintf(calls + used, sizeof(calls) - used, " %s%s", how, who);
}

static int test_serialize(struct kho_context *ctx, void *data)
{
	struct kho_mem *mem;
	unsigned int i;
	int error;

	called("", data);
	error = kho_prop_str(ctx, "compatible", compatible);
	if (!error)
		error = kho_prop_u32(ctx, "pages", pages);
	if (!error && misuse[0] && strcmp(misuse, "again"))
		return do_misuse(ctx);
	if (!error && as_is)
		return hand_on(ctx);
	if (error)
		return error;
	mem = kvmalloc_array(pages, sizeof(*mem), GFP_KERNEL);
	if (!mem)
		return -ENOMEM;
	for (i = 0; i < pages; i++)
		mem[i] = (struct kho_mem){ page_to_phys(single[i]), PAGE_SIZE };
	nodes = min(nodes, pages);
	error = kho_prop_mem(ctx, mem, pages - nodes);
	for (i = pages - nodes; !error && i < pages; i++) {
		char name[40];

		snprintf(name, sizeof(name), "a-node-with-a-long-name-%u", i);
		error = kho_begin_node(ctx, name);
		if (!error)
			error = kho_prop_mem(ctx, &mem[i], 1);
		if (!error)
			error = kho_end_node(ctx);
	}
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
	if (!error && blocks)
		error = keep_blocks(ctx);
	if (!error && beside[0])
		error = keep_beside(ctx);
	return error;
}

static void test_abort(void *data)
{
	called("-", data);
}

static struct kho_producer producer = {
	.name = "test", .serialize = test_serialize, .abort = test_abort, .data = "test"
};

static int maybe_fail(struct kho_context *ctx, void *data)
{
	int error = kho_prop_str(ctx, "compatible", "kho-test-fail-v1");

	called("", data);
	/* Pages of another producer. */
	if (!error && !strcmp(misuse, "again"))
		return mem_of(ctx, page_to_phys(piece), PAGE_SIZE);
	return error ? error : -fail;
}

static struct kho_producer failing = {
	.name = "test-fail", .priority = 10, .serialize = maybe_fail, .abort = test_abort, .data = "test-fail"
};

static int serialize_last(struct kho_context *ctx, void *data)
{
	called("", data);
	return kho_prop_str(ctx, "compatible", "kho-test-last-v1");
}

static struct kho_producer comes_last = {
	.name = "test-last", .priority = 20, .serialize = serialize_last, .abort = test_abort, .data = "test-last"
};

/* Checks the pages of @node against tags from @tag on, claims them, and frees them. */
static void check_node(s64 node, u64 tag)
{
	struct kho_mem mem;
	size_t i;
	u64 at;

	for (i = 0; !kho_get_mem(node, i, &mem); i++) {
		if (kho_claim(mem.addr, mem.len)) {
			verified++;
			tag += mem.len / PAGE_SIZE;
			continue;
		}
		/* A page can be claimed only once. */
		if (kho_claim(mem.addr, PAGE_SIZE) != -EBUSY || kho_release(mem.addr, PAGE_SIZE) != -EBUSY)
			verified++;
		for (at = mem.addr; at < mem.addr + mem.len; at += PAGE_SIZE) {
			if (!right(phys_to_virt(at), tag++))
				verified++;
			__free_page(pfn_to_page(PHYS_PFN(at)));
		}
	}
}

/*
 * Maps the area of @node again, checks it against tags from @tag on, and frees it. It can be mapped
 * only once.
 */
static void check_area(s64 node, u64 tag)
{
	size_t size = 0, at;
	void *area = kho_claim_vmalloc(node, &size);

	if (IS_ERR(area) || size != AREA || PTR_ERR(kho_claim_vmalloc(node, &at)) != -EBUSY ||
	    PTR_ERR(kho_claim_vmalloc(-1, &at)) != -ENOENT) {
		verified++;
		return;
	}
	for (at = 0; at < size; at += PAGE_SIZE)
		if (!right(area + at, tag++))
			verified++;
	vfree(area);
}

/*
 * Whether a walk over children and properties of @node meets each one once, and those that it must
 * have; else complains.
 */
static bool walks(s64 node)
{
	char name[KHO_NAME_SIZE] = "";
	ssize_t i, size, children = 0, props = kho_count_props(node);
	bool area_met = false, pages_met = false;
	u32 value;
	s64 child;

	kho_for_each_child(child, node) {
		size = kho_get_name(child, name, sizeof(name));
		if (size != strlen(name) + 1 || kho_find_child(node, name) != child)
			goto wrong;
		area_met |= !strcmp(name, "area");
		children++;
	}
	for (i = 0; i < props; i++) {
		size = kho_get_prop_name(node, i, name, sizeof(name));
		if (size != strlen(name) + 1 || kho_get_size(node, name) < 0)
			goto wrong;
		pages_met |= !strcmp(name, "pages") && kho_get_size(node, name) == sizeof(value) &&
			     !kho_get_u32(node, name, &value);
	}
	if (area_met && pages_met && children == kho_count_children(node) &&
	    kho_get_prop_name(node, props, name, sizeof(name)) == -ENOENT &&
	    kho_get_prop_name(node, 0, name, 2) == -ENOSPC && kho_get_name(node, name, 1) == -ENOSPC &&
	    kho_next_child(node, node) == -EINVAL && kho_next_child(-1, -1) == -ENOENT &&
	    kho_count_children(S64_MAX) == -ENOENT)
		return true;
wrong:
	pr_err("kho_test: a walk over node %lld is wrong at %s\n", node, name);
	return false;
}

static void check_arrival(void)
{
	s64 node = kho_find_compatible(compatible, -1);
	struct kho_mem mem;

	if (take && kho_find("/test-fail") >= 0)
		took = kho_claim_node(kho_find("/test-fail"));
	if (node < 0 || arrived_node() != node || as_is)
		return;
	verified = 0;
	if (part) {
		if (!kho_get_mem(node, 0, &mem) && !kho_claim(mem.addr, PAGE_SIZE))
			__free_page(pfn_to_page(PHYS_PFN(mem.addr)));
		else
			verified++;
		return;
	}
	if (!walks(node))
		verified++;
	check_node(node, 1ULL << 32);
	check_area(kho_find_child(node, "area"), 2ULL << 32);
	check_node(kho_find_child(node, "piece"), 3ULL << 32);
	check_node(kho_find_child(node, "blocks"), 4ULL << 32);
	check_node(kho_find_child(node, "beside"), 5ULL << 32);
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
	if (piece)
		kho_free_pages(piece, PIECE);
	for (i = 0; i < blocks; i++)
		if (block[i])
			kho_free_pages(block[i], BLOCK);
	for (i = 0; i < 2; i++)
		if (beside[i])
			__free_page(beside[i]);
}

/* The nearest page from @pfn on, in steps of @step, that can be allocated and kept. */
static struct page *alloc_near(unsigned long pfn, long step)
{
	unsigned int tries;
	int error;

	for (tries = 0; tries < 65536; tries++) {
		pfn += step;
		if (!pfn_valid(pfn) || kho_may_keep(PFN_PHYS(pfn), PAGE_SIZE))
			continue;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
		error = alloc_contig_range(pfn, pfn + 1, ACR_FLAGS_NONE, GFP_KERNEL | __GFP_NOWARN);
#else
		error = alloc_contig_range(pfn, pfn + 1, MIGRATE_MOVABLE, GFP_KERNEL | __GFP_NOWARN);
#endif
		if (!error)
			return pfn_to_page(pfn);
	}
	return NULL;
}

/*
 * A page that may be kept. Other pages are held until one is found, so that the allocator does not
 * return them again.
 */
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

/* Whether kho.ko lends a freed page again while another user still has a reference on it. */
static bool lent_while_used(void)
{
	struct page *one = kho_alloc_pages(1), *other;

	if (!one)
		return false;
	get_page(one);
	kho_free_pages(one, 1);
	other = kho_alloc_pages(1);
	if (other)
		kho_free_pages(other, 1);
	put_page(one);
	return other == one;
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
	if (lent_while_used()) {
		pr_err("kho_test: a page that is in use was lent again\n");
		error = -EUCLEAN;
		goto out;
	}
	if (blocks > ARRAY_SIZE(block)) {
		error = -EINVAL;
		blocks = 0;
		goto out;
	}
	for (i = 0; i < blocks; i++) {
		u64 tag = (4ULL << 32) + (u64)i * BLOCK;
		unsigned int n;

		block[i] = kho_alloc_pages(BLOCK);
		if (!block[i])
			goto out;
		for (n = 0; n < BLOCK; n++)
			pattern(page_address(block[i] + n), tag + n);
	}
	for (i = 0; around && i < 2; i++) {
		beside[i] = alloc_near(PHYS_PFN(around), i ? 1 : -1);
		if (!beside[i])
			goto out;
		pattern(page_address(beside[i]), (5ULL << 32) + i);
		pr_info("kho_test: keeps the page at %#llx\n", (u64)page_to_phys(beside[i]));
	}
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
	error = last ? kho_register_producer(&comes_last) : 0;
	if (error)
		goto out;
	error = kho_register_producer(&producer);
	if (error)
		goto no_last;
	if (as_is == 1)
		error = kho_hold_node(&producer, arrived_node());
	if (!error)
		error = kho_register_producer(&failing);
	if (!error)
		goto out;
	kho_unregister_producer(&producer);
no_last:
	if (last)
		kho_unregister_producer(&comes_last);
out:
	/* Free every other page, so that no two kept pages are neighbours. */
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
	if (last)
		kho_unregister_producer(&comes_last);
	give_back();
}

module_init(test_init);
module_exit(test_exit);
MODULE_DESCRIPTION("Tests of kho.ko");
MODULE_LICENSE("GPL");
