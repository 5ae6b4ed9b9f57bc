// SPDX-License-Identifier: GPL-2.0-only
/*
 * C glue of kho.ko: wraps macros, inline functions and op tables. The Rust half (src/) makes the
 * decisions.
 */
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/io.h>
#include <linux/kobject.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/random.h>
#include <linux/reboot.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/utsname.h>
#include <linux/version.h>
#include <linux/vmalloc.h>

#include "glue.h"

/* Memory, locks, log */

#ifdef KHO_FAULTS
/*
 * Only in the build for tests: from the allocation with this number on, all allocations fail. At -1
 * none fails.
 */
static int fail_after = -1;
module_param(fail_after, int, 0600);
#endif

/*
 * Mutexes, taken in ascending order. 0: phase and producers. 1: memory that arrived, and arenas. 2:
 * the sealed tree. 3: unused.
 *
 * An allocation under a mutex must not wait for a file system or a device: the kernel may free
 * memory by writing to khofs (to a loop device or swap on it), and khofs then needs mutex 1. A task
 * takes mutex 0 before the gate of khofs (khofs/data.c), which serialize() closes.
 */
static struct mutex locks[4] = {
	__MUTEX_INITIALIZER(locks[0]),
	__MUTEX_INITIALIZER(locks[1]),
	__MUTEX_INITIALIZER(locks[2]),
	__MUTEX_INITIALIZER(locks[3]),
};

/*
 * For each mutex: the scope of allocations that its holder had before, and, for tests, the holder.
 */
static unsigned int scopes[4];
static struct task_struct *holders[4];

void kho_c_lock(u32 which)
{
	unsigned int scope = memalloc_noio_save();

	mutex_lock(&locks[which & 3]);
	scopes[which & 3] = scope;
	WRITE_ONCE(holders[which & 3], current);
}

void kho_c_unlock(u32 which)
{
	unsigned int scope = scopes[which & 3];

	WRITE_ONCE(holders[which & 3], NULL);
	mutex_unlock(&locks[which & 3]);
	memalloc_noio_restore(scope);
}

/*
 * Whether an allocation fails in a test. Also warns if the allocation may wait for a device while
 * its task holds a mutex.
 */
static bool fault(void)
{
#ifdef KHO_FAULTS
	int i;

	for (i = 0; i < ARRAY_SIZE(holders); i++)
		WARN_ON_ONCE(READ_ONCE(holders[i]) == current && !(current->flags & PF_MEMALLOC_NOIO));
	if (fail_after > 0)
		fail_after--;
	return fail_after == 0;
#else
	return false;
#endif
}

void *kho_c_alloc(size_t size)
{
	if (fault())
		return NULL;
	return kvmalloc(size, GFP_KERNEL | __GFP_NOWARN);
}

void kho_c_free(void *p)
{
	kvfree(p);
}

void kho_c_log(u32 level, const char *text, size_t len)
{
	if (level == 0)
		pr_err("kho: %.*s\n", (int)len, text);
	else if (level == 1)
		pr_warn("kho: %.*s\n", (int)len, text);
	else if (level == 3)
		pr_emerg("kho: %.*s\n", (int)len, text);
	else
		pr_info("kho: %.*s\n", (int)len, text);
}

void kho_c_bug(void)
{
	BUG();
}

u64 kho_c_random(void)
{
	return get_random_u64();
}

const char *kho_c_release(void)
{
	return init_utsname()->release;
}

void *kho_c_open(const char *path, int *error)
{
	struct file *file = filp_open(path, O_RDONLY, 0);

	*error = PTR_ERR_OR_ZERO(file);
	return IS_ERR(file) ? NULL : file;
}

ssize_t kho_c_read(void *file, void *buf, size_t size, u64 offset)
{
	loff_t pos = offset;

	return kernel_read(file, buf, size, &pos);
}

void kho_c_close(void *file)
{
	filp_close(file, NULL);
}

/* Pages */

bool kho_c_pfn_valid(u64 pfn)
{
	return pfn_valid(pfn);
}

bool kho_c_page_reserved(u64 pfn)
{
	return PageReserved(pfn_to_page(pfn));
}

bool kho_c_page_failed(u64 pfn)
{
	return PageHWPoison(pfn_to_page(pfn));
}

int kho_c_page_count(u64 pfn)
{
	return page_count(pfn_to_page(pfn));
}

unsigned long kho_c_page_private(u64 pfn)
{
	return page_private(pfn_to_page(pfn));
}

void kho_c_set_page_private(u64 pfn, unsigned long value)
{
	set_page_private(pfn_to_page(pfn), value);
}

/*
 * Pages that did not come from the page allocator have no allocation tag
 * (CONFIG_MEM_ALLOC_PROFILING). That does no harm when they are freed (alloc_tag_sub() of
 * include/linux/alloc_tag.h, 6.12 and 7.3): only CONFIG_MEM_ALLOC_PROFILING_DEBUG warns once.
 * clear_page_tag_ref() would prevent the warning, but needs functions that are not exported
 * (page_ext_get()).
 */
void kho_c_page_claim(u64 pfn)
{
	struct page *page = pfn_to_page(pfn);

	ClearPageReserved(page);
	init_page_count(page);
}

/* Frees a block in the form in which memblock frees one: only the first page has a reference. */
void kho_c_reserved_free(u64 pfn, u32 order)
{
	struct page *page = pfn_to_page(pfn);
	unsigned long i;

	for (i = 0; i < 1UL << order; i++) {
		ClearPageReserved(page + i);
		set_page_count(page + i, 0);
	}
	init_page_count(page);
	__free_pages(page, order);
}

void kho_c_adjust_managed(u64 pfn, long count)
{
	adjust_managed_page_count(pfn_to_page(pfn), count);
}

void *kho_c_virt(u64 phys)
{
	return phys_to_virt(phys);
}

u64 kho_c_vmalloc_pfn(const void *addr)
{
	struct page *page = is_vmalloc_addr(addr) ? vmalloc_to_page(addr) : NULL;

	return page ? page_to_pfn(page) : 0;
}

u64 kho_c_alloc_order(u32 order)
{
	struct page *page = NULL;

	if (!fault())
		page = alloc_pages(GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN | __GFP_NORETRY, order);
	if (!page)
		return 0;
	split_page(page, order);
	return page_to_pfn(page);
}

int kho_c_alloc_contig(u64 first, u64 end)
{
	if (fault())
		return -ENOMEM;
#ifdef ACR_FLAGS_NONE /* since 6.16 */
	return alloc_contig_range(first, end, ACR_FLAGS_NONE, GFP_KERNEL | __GFP_NOWARN);
#else
	return alloc_contig_range(first, end, MIGRATE_MOVABLE, GFP_KERNEL | __GFP_NOWARN);
#endif
}

void kho_c_page_put(u64 pfn)
{
	__free_page(pfn_to_page(pfn));
}

void kho_c_relax(void)
{
	cond_resched();
}

/* Producers */

int kho_c_serialize(struct kho_producer *producer, struct kho_context *ctx)
{
	return producer->serialize(ctx, producer->data);
}

void kho_c_abort(struct kho_producer *producer)
{
	if (producer->abort)
		producer->abort(producer->data);
}

bool kho_c_hold(struct kho_producer *producer)
{
	return try_module_get(producer->owner);
}

void kho_c_unhold(struct kho_producer *producer)
{
	module_put(producer->owner);
}

/*
 * False if the module is being unloaded: until its sysfs files are removed, writers can still get
 * here.
 */
bool kho_c_hold_self(void)
{
	return try_module_get(THIS_MODULE);
}

void kho_c_unhold_self(void)
{
	module_put(THIS_MODULE);
}

int kho_register_producer_owned(struct kho_producer *producer, struct module *owner)
{
	if (!producer || !producer->name || !producer->serialize)
		return -EINVAL;
	producer->owner = owner;
	return kho_rs_register(producer, producer->name, producer->priority);
}
EXPORT_SYMBOL_GPL(kho_register_producer_owned);

void kho_unregister_producer(struct kho_producer *producer)
{
	kho_rs_unregister(producer);
}
EXPORT_SYMBOL_GPL(kho_unregister_producer);

int kho_begin_node(struct kho_context *ctx, const char *name)
{
	return kho_rs_begin_node(ctx, name);
}
EXPORT_SYMBOL_GPL(kho_begin_node);

int kho_end_node(struct kho_context *ctx)
{
	return kho_rs_end_node(ctx);
}
EXPORT_SYMBOL_GPL(kho_end_node);

int kho_prop_u32(struct kho_context *ctx, const char *name, u32 value)
{
	return kho_rs_prop_u32(ctx, name, value);
}
EXPORT_SYMBOL_GPL(kho_prop_u32);

int kho_prop_u64(struct kho_context *ctx, const char *name, u64 value)
{
	return kho_rs_prop_u64(ctx, name, value);
}
EXPORT_SYMBOL_GPL(kho_prop_u64);

int kho_prop_str(struct kho_context *ctx, const char *name, const char *value)
{
	return kho_rs_prop_str(ctx, name, value);
}
EXPORT_SYMBOL_GPL(kho_prop_str);

int kho_prop_bytes(struct kho_context *ctx, const char *name, const void *value, size_t len)
{
	return kho_rs_prop_bytes(ctx, name, value, len);
}
EXPORT_SYMBOL_GPL(kho_prop_bytes);

int kho_prop_mem(struct kho_context *ctx, const struct kho_mem *ranges, size_t count)
{
	return kho_rs_prop_mem(ctx, ranges, count);
}
EXPORT_SYMBOL_GPL(kho_prop_mem);

int kho_may_keep(u64 addr, u64 len)
{
	return kho_rs_may_keep(addr, len);
}
EXPORT_SYMBOL_GPL(kho_may_keep);

int kho_prop_mem_vmalloc(struct kho_context *ctx, const void *area, size_t size)
{
	return kho_rs_prop_mem_vmalloc(ctx, area, size);
}
EXPORT_SYMBOL_GPL(kho_prop_mem_vmalloc);

s64 kho_find(const char *path)
{
	return kho_rs_find(path);
}
EXPORT_SYMBOL_GPL(kho_find);

s64 kho_find_compatible(const char *compatible, s64 after)
{
	return kho_rs_find_compatible(compatible, after);
}
EXPORT_SYMBOL_GPL(kho_find_compatible);

s64 kho_find_child(s64 node, const char *name)
{
	return kho_rs_find_child(node, name);
}
EXPORT_SYMBOL_GPL(kho_find_child);

s64 kho_next_child(s64 node, s64 after)
{
	return kho_rs_next_child(node, after);
}
EXPORT_SYMBOL_GPL(kho_next_child);

ssize_t kho_count_children(s64 node)
{
	return kho_rs_count_children(node);
}
EXPORT_SYMBOL_GPL(kho_count_children);

ssize_t kho_count_props(s64 node)
{
	return kho_rs_count_props(node);
}
EXPORT_SYMBOL_GPL(kho_count_props);

ssize_t kho_get_name(s64 node, char *buf, size_t size)
{
	return kho_rs_get_name(node, buf, size);
}
EXPORT_SYMBOL_GPL(kho_get_name);

ssize_t kho_get_prop_name(s64 node, size_t index, char *buf, size_t size)
{
	return kho_rs_get_prop_name(node, index, buf, size);
}
EXPORT_SYMBOL_GPL(kho_get_prop_name);

ssize_t kho_get_size(s64 node, const char *name)
{
	return kho_rs_get_size(node, name);
}
EXPORT_SYMBOL_GPL(kho_get_size);

int kho_get_u32(s64 node, const char *name, u32 *value)
{
	return kho_rs_get_u32(node, name, value);
}
EXPORT_SYMBOL_GPL(kho_get_u32);

int kho_get_u64(s64 node, const char *name, u64 *value)
{
	return kho_rs_get_u64(node, name, value);
}
EXPORT_SYMBOL_GPL(kho_get_u64);

ssize_t kho_get_str(s64 node, const char *name, char *buf, size_t size)
{
	return kho_rs_get_str(node, name, buf, size);
}
EXPORT_SYMBOL_GPL(kho_get_str);

ssize_t kho_get_bytes(s64 node, const char *name, void *buf, size_t size)
{
	return kho_rs_get_bytes(node, name, buf, size);
}
EXPORT_SYMBOL_GPL(kho_get_bytes);

int kho_get_mem(s64 node, size_t index, struct kho_mem *range)
{
	return kho_rs_get_mem(node, index, range);
}
EXPORT_SYMBOL_GPL(kho_get_mem);

int kho_claim(u64 addr, u64 len)
{
	return kho_rs_claim(addr, len);
}
EXPORT_SYMBOL_GPL(kho_claim);

int kho_claim_with_failed(u64 addr, u64 len)
{
	return kho_rs_claim_with_failed(addr, len);
}
EXPORT_SYMBOL_GPL(kho_claim_with_failed);

int kho_claim_node(s64 node)
{
	return kho_rs_claim_node(node);
}
EXPORT_SYMBOL_GPL(kho_claim_node);

/*
 * The pages of a node's `mem`, in its order; an array from kho_c_alloc(). -ENOENT if the node has
 * none.
 */
static struct page **pages_of(s64 node, unsigned int *count)
{
	struct page **pages;
	struct kho_mem mem;
	unsigned int at = 0;
	u64 pfn, total = 0;
	size_t i;
	int error;

	for (i = 0; !(error = kho_rs_get_mem(node, i, &mem)); i++)
		if (check_add_overflow(total, mem.len / PAGE_SIZE, &total))
			return ERR_PTR(-EINVAL);
	if (error != -ENOENT || !total)
		return ERR_PTR(error);
	if (total > UINT_MAX)
		return ERR_PTR(-ENOMEM);
	pages = kho_c_alloc(array_size(total, sizeof(*pages)));
	if (!pages)
		return ERR_PTR(-ENOMEM);
	for (i = 0; !kho_rs_get_mem(node, i, &mem); i++) {
		for (pfn = PHYS_PFN(mem.addr); mem.len >= PAGE_SIZE; mem.len -= PAGE_SIZE, pfn++) {
			if (!pfn_valid(pfn) || at == total) {
				kho_c_free(pages);
				return ERR_PTR(-EINVAL);
			}
			pages[at++] = pfn_to_page(pfn);
		}
		cond_resched();
	}
	*count = at;
	return pages;
}

/*
 * Maps before it claims: a claim cannot be undone without loss of the content. vfree() frees pages
 * and array of a mapping with VM_MAP_PUT_PAGES, and vunmap() neither of them (mm/vmalloc.c, 6.1,
 * 6.12 and 7.3).
 */
void *kho_claim_vmalloc(s64 node, size_t *size)
{
	unsigned int count;
	struct page **pages = pages_of(node, &count);
	void *area;
	int error;

	if (IS_ERR(pages))
		return pages;
	area = vmap(pages, count, VM_MAP | VM_MAP_PUT_PAGES, PAGE_KERNEL);
	error = area ? kho_rs_claim_node(node) : -ENOMEM;
	if (!error) {
		*size = (size_t)count * PAGE_SIZE;
		return area;
	}
	vunmap(area);
	kho_c_free(pages);
	return ERR_PTR(error);
}
EXPORT_SYMBOL_GPL(kho_claim_vmalloc);

int kho_hold_node(struct kho_producer *producer, s64 node)
{
	return kho_rs_hold_node(producer, node);
}
EXPORT_SYMBOL_GPL(kho_hold_node);

int kho_release_node(struct kho_producer *producer, s64 node)
{
	if (!producer)
		return -EINVAL;
	return kho_rs_release_node(producer->name, node);
}
EXPORT_SYMBOL_GPL(kho_release_node);

int kho_release(u64 addr, u64 len)
{
	return kho_rs_release(addr, len);
}
EXPORT_SYMBOL_GPL(kho_release);

struct page *kho_alloc_pages(size_t count)
{
	u64 pfn = kho_rs_alloc_pages(count);

	return pfn ? pfn_to_page(pfn) : NULL;
}
EXPORT_SYMBOL_GPL(kho_alloc_pages);

struct page *kho_take_pages(size_t count)
{
	u64 pfn = kho_rs_take_pages(count);

	return pfn ? pfn_to_page(pfn) : NULL;
}
EXPORT_SYMBOL_GPL(kho_take_pages);

u64 kho_room(void)
{
	return kho_rs_room();
}
EXPORT_SYMBOL_GPL(kho_room);

void kho_free_pages(struct page *page, size_t count)
{
	if (page)
		kho_rs_free_pages(page_to_pfn(page), count);
}
EXPORT_SYMBOL_GPL(kho_free_pages);

u64 kho_alloc_range(size_t count)
{
	return PFN_PHYS(kho_rs_alloc_pages(count));
}
EXPORT_SYMBOL_GPL(kho_alloc_range);

void kho_free_range(u64 addr, size_t count)
{
	if (addr)
		kho_rs_free_pages(PHYS_PFN(addr), count);
}
EXPORT_SYMBOL_GPL(kho_free_range);

void kho_put_range(u64 addr, size_t count)
{
	for (; count; count--, addr += PAGE_SIZE) {
		__free_page(pfn_to_page(PHYS_PFN(addr)));
		cond_resched();
	}
}
EXPORT_SYMBOL_GPL(kho_put_range);

void *kho_range_address(u64 addr)
{
	return phys_to_virt(addr);
}
EXPORT_SYMBOL_GPL(kho_range_address);

/* sysfs */

#define SHOW(_name)                                                                            \
	static ssize_t _name##_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf) \
	{                                                                                      \
		return kho_rs_##_name##_show(buf, PAGE_SIZE);                                  \
	}
#define STORE(_name)                                                                 \
	static ssize_t _name##_store(struct kobject *kobj, struct kobj_attribute *attr, \
				     const char *buf, size_t count)                  \
	{                                                                            \
		return kho_rs_##_name##_store(buf, count);                           \
	}

SHOW(active)
STORE(active)
SHOW(generation)
SHOW(scratch)
STORE(scratch)
SHOW(status)
SHOW(late)
STORE(late)

static struct kobj_attribute active_attr = __ATTR(active, 0600, active_show, active_store);
static struct kobj_attribute generation_attr = __ATTR(generation, 0400, generation_show, NULL);
static struct kobj_attribute scratch_attr = __ATTR(scratch, 0600, scratch_show, scratch_store);
static struct kobj_attribute status_attr = __ATTR(status, 0400, status_show, NULL);

static struct kobj_attribute late_attr = __ATTR(late, 0600, late_show, late_store);

static const struct attribute *attrs[] = {
	&active_attr.attr, &generation_attr.attr, &scratch_attr.attr, &status_attr.attr,
	&late_attr.attr,   NULL,
};

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
#define BIN_CONST const
#else
#define BIN_CONST
#endif

static ssize_t dt_read(struct file *file, struct kobject *kobj, BIN_CONST struct bin_attribute *attr,
		       char *buf, loff_t offset, size_t count)
{
	return kho_rs_dt_read(buf, offset, count);
}

static ssize_t in_dt_read(struct file *file, struct kobject *kobj,
			  BIN_CONST struct bin_attribute *attr, char *buf, loff_t offset, size_t count)
{
	return kho_rs_in_dt_read(buf, offset, count);
}

static ssize_t release_read(struct file *file, struct kobject *kobj,
			    BIN_CONST struct bin_attribute *attr, char *buf, loff_t offset, size_t count)
{
	return kho_rs_release_read(buf, offset, count);
}

static ssize_t release_write(struct file *file, struct kobject *kobj,
			     BIN_CONST struct bin_attribute *attr, char *buf, loff_t offset, size_t count)
{
	return kho_rs_release_write(buf, offset, count);
}

static struct bin_attribute dt_attr = {
	.attr = { .name = "dt", .mode = 0400 },
	.read = dt_read,
};
static struct bin_attribute in_dt_attr = {
	.attr = { .name = "dt", .mode = 0400 },
	.read = in_dt_read,
};

/* A binary file, because its list of nodes may be longer than a page. */
static struct bin_attribute release_attr = {
	.attr = { .name = "release", .mode = 0600 },
	.read = release_read,
	.write = release_write,
};

static struct kobject *kho_kobj, *in_kobj;

int kho_c_dt_publish(void)
{
	return sysfs_create_bin_file(kho_kobj, &dt_attr);
}

void kho_c_dt_withdraw(void)
{
	sysfs_remove_bin_file(kho_kobj, &dt_attr);
}

/* Removes the files at once, even if another user still has a reference on @kobj. */
static void withdraw(struct kobject *kobj)
{
	kobject_del(kobj);
	kobject_put(kobj);
}

static int __init publish(void)
{
	int error = -ENOMEM;

	kho_kobj = kobject_create_and_add("kho", kernel_kobj);
	if (!kho_kobj)
		return error;
	in_kobj = kobject_create_and_add("in", kho_kobj);
	if (!in_kobj)
		goto put_kho;
	if (kho_rs_in_dt_size()) {
		in_dt_attr.size = kho_rs_in_dt_size();
		error = sysfs_create_bin_file(in_kobj, &in_dt_attr);
		if (error)
			goto put_in;
	}
	error = sysfs_create_bin_file(kho_kobj, &release_attr);
	if (error)
		goto put_in;
	error = sysfs_create_files(kho_kobj, attrs);
	if (!error)
		return 0;
put_in:
	withdraw(in_kobj);
put_kho:
	withdraw(kho_kobj);
	return error;
}

/*
 * Completes an armed load if nobody did before. kernel_kexec() passes "kexec reboot" to the notifiers
 * (kernel/kexec_core.c, 6.1 to 7.3) and ignores their result. The lowest priority is called last.
 */
static int on_reboot(struct notifier_block *block, unsigned long event, void *command)
{
	if (command && !strcmp(command, "kexec reboot"))
		kho_rs_on_kexec();
	return NOTIFY_DONE;
}

static struct notifier_block reboot_block = {
	.notifier_call = on_reboot,
	.priority = INT_MIN,
};

static int __init kho_init(void)
{
	int error = kho_rs_init();

	if (error)
		return error;
	error = register_reboot_notifier(&reboot_block);
	if (error)
		goto exit;
	error = publish();
	if (!error)
		return 0;
	unregister_reboot_notifier(&reboot_block);
exit:
	kho_rs_exit();
	return error;
}

/*
 * Never runs in the active phase, nor after the first late load: both hold a reference on the
 * module. Removing the files waits for running reads and writes.
 */
static void __exit kho_exit(void)
{
	withdraw(in_kobj);
	withdraw(kho_kobj);
	unregister_reboot_notifier(&reboot_block);
	kho_rs_exit();
}

module_init(kho_init);
module_exit(kho_exit);
MODULE_DESCRIPTION("Kexec HandOver: drivers' state and memory across kexec, on unmodified kernels");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
