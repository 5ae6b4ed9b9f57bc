// SPDX-License-Identifier: GPL-2.0-only
/*
 * kho_ring: a sample driver whose state survives kexec. It is short, to serve as an example.
 *
 * State: a counter, a ring of pages with text records, and the position in it. The pages stay in
 * place; the counter and the position are copied into the state tree. In the next kernel the driver
 * finds its node, claims the pages, and continues from the old counter.
 *
 *   echo text > /sys/kernel/kho_ring/add      counts, and appends a record "NUMBER text"
 *   cat /sys/kernel/kho_ring/counter          records since the ring was made, under any kernel
 *   cat /sys/kernel/kho_ring/origin           "new", or "inherited from RELEASE"
 *   cat /sys/kernel/kho_ring/ring             the records
 */
#include <linux/init.h>
#include <linux/io.h>
#include <linux/kobject.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/utsname.h>
#include <linux/version.h>

#include <kho.h>

/*
 * The version is part of the compatible. A driver that changes the layout of its state changes the
 * version, and leaves nodes of versions that it does not know alone.
 */
#define COMPATIBLE "kho-ring-v1"
#define PAGES 16
#define RECORD 64
#define RECORDS (PAGES * (PAGE_SIZE / RECORD))

static DEFINE_MUTEX(lock);
static struct page *pages[PAGES];
/*
 * False if pages[] came from kho_alloc_pages(); true if it was claimed and is freed page by page.
 */
static bool inherited;
static bool frozen;
/* Whether the ring exists: kho.ko may call the producer before that. */
static bool ready;
static u64 counter;
static char from[65];

static char *record(u64 number)
{
	u64 at = number % RECORDS;

	return (char *)page_address(pages[at / (PAGE_SIZE / RECORD)]) +
	       (at % (PAGE_SIZE / RECORD)) * RECORD;
}

/*
 * Called before kexec. The serialized state must not change until abort, so add() refuses from now
 * on.
 */
static int ring_serialize(struct kho_context *ctx, void *data)
{
	struct kho_mem mem[PAGES];
	int i, error;

	mutex_lock(&lock);
	for (i = 0; ready && i < PAGES; i++) {
		mem[i].addr = page_to_phys(pages[i]);
		mem[i].len = PAGE_SIZE;
	}
	error = ready ? kho_prop_str(ctx, "compatible", COMPATIBLE) : -EAGAIN;
	if (!error)
		error = kho_prop_u64(ctx, "counter", counter);
	if (!error)
		error = kho_prop_u32(ctx, "record-size", RECORD);
	if (!error)
		error = kho_prop_str(ctx, "release", init_utsname()->release);
	if (!error)
		error = kho_prop_mem(ctx, mem, PAGES);
	frozen = !error;
	mutex_unlock(&lock);
	return error;
}

/* Called if the handover does not take place. */
static void ring_abort(void *data)
{
	mutex_lock(&lock);
	frozen = false;
	mutex_unlock(&lock);
}

static struct kho_producer producer = {
	.name = "ring",
	.serialize = ring_serialize,
	.abort = ring_abort,
};

/*
 * After kexec: checks every value before it uses it, and claims last, when all values have been
 * checked. -ENOENT means that no node arrived.
 */
static int ring_inherit(void)
{
	s64 node = kho_find_compatible(COMPATIBLE, -1);
	struct kho_mem mem;
	u32 size;
	u64 count;
	int i, n = 0, error;

	if (node < 0)
		return node;
	error = kho_get_u64(node, "counter", &count);
	if (!error)
		error = kho_get_u32(node, "record-size", &size);
	if (error)
		return error;
	if (kho_get_str(node, "release", from, sizeof(from)) < 0 || size != RECORD)
		return -EINVAL;
	for (i = 0; !kho_get_mem(node, i, &mem); i++)
		for (; mem.len && n < PAGES; mem.addr += PAGE_SIZE, mem.len -= PAGE_SIZE)
			pages[n++] = pfn_to_page(PHYS_PFN(mem.addr));
	if (n != PAGES)
		return -EINVAL;
	error = kho_claim_node(node);
	if (error)
		return error;
	counter = count;
	inherited = true;
	return 0;
}

static int ring_create(void)
{
	struct page *first = kho_alloc_pages(PAGES);
	int i;

	if (!first)
		return -ENOMEM;
	for (i = 0; i < PAGES; i++)
		pages[i] = first + i;
	return 0;
}

static void ring_free(void)
{
	int i;

	if (!inherited) {
		kho_free_pages(pages[0], PAGES);
		return;
	}
	for (i = 0; i < PAGES; i++)
		__free_page(pages[i]);
}

static ssize_t counter_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%llu\n", counter);
}

static ssize_t origin_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	if (inherited)
		return sysfs_emit(buf, "inherited from %s\n", from);
	return sysfs_emit(buf, "new\n");
}

static ssize_t add_store(struct kobject *kobj, struct kobj_attribute *attr, const char *buf, size_t count)
{
	ssize_t result = count;

	mutex_lock(&lock);
	if (frozen) {
		result = -EBUSY;
	} else {
		char *to = record(counter);

		memset(to, 0, RECORD);
		snprintf(to, RECORD, "%llu %.*s", counter, (int)strcspn(buf, "\n"), buf);
		counter++;
	}
	mutex_unlock(&lock);
	return result;
}

static ssize_t ring_read(struct kobject *kobj, char *buf, loff_t offset, size_t count)
{
	u64 at;
	char *text = kvmalloc(RECORDS * (RECORD + 1), GFP_KERNEL);
	size_t len = 0;
	ssize_t result;

	if (!text)
		return -ENOMEM;
	mutex_lock(&lock);
	for (at = counter > RECORDS ? counter - RECORDS : 0; at < counter; at++)
		len += scnprintf(text + len, RECORD + 1, "%.*s\n", RECORD - 1, record(at));
	mutex_unlock(&lock);
	result = memory_read_from_buffer(buf, count, &offset, text, len);
	kvfree(text);
	return result;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
static ssize_t ring_bin_read(struct file *file, struct kobject *kobj, const struct bin_attribute *attr,
			     char *buf, loff_t offset, size_t count)
#else
static ssize_t ring_bin_read(struct file *file, struct kobject *kobj, struct bin_attribute *attr,
			     char *buf, loff_t offset, size_t count)
#endif
{
	return ring_read(kobj, buf, offset, count);
}

static struct kobj_attribute counter_attr = __ATTR(counter, 0400, counter_show, NULL);
static struct kobj_attribute origin_attr = __ATTR(origin, 0400, origin_show, NULL);
static struct kobj_attribute add_attr = __ATTR(add, 0200, NULL, add_store);
static const struct attribute *attrs[] = { &counter_attr.attr, &origin_attr.attr, &add_attr.attr, NULL };
static struct bin_attribute ring_attr = {
	.attr = { .name = "ring", .mode = 0400 },
	.read = ring_bin_read,
};
static struct kobject *kobj;

/*
 * Steps that can fail without harm come first, and the claim comes as late as possible: if the
 * driver must free claimed memory, the state is lost. Before the ring exists, serialize() returns
 * -EAGAIN.
 */
static int __init ring_init(void)
{
	int error;

	kobj = kobject_create_and_add("kho_ring", kernel_kobj);
	if (!kobj)
		return -ENOMEM;
	error = kho_register_producer(&producer);
	if (error)
		goto put;
	mutex_lock(&lock);
	error = ring_inherit();
	/*
	 * A node that the driver cannot read is left alone. After -ENOMEM a later load may still
	 * claim the old ring, so do not replace it. The same holds for -EAGAIN: the active phase
	 * hands the old ring over.
	 */
	if (error && error != -ENOMEM && error != -EAGAIN)
		error = ring_create();
	ready = !error;
	mutex_unlock(&lock);
	if (error)
		goto unregister;
	error = sysfs_create_files(kobj, attrs);
	if (!error)
		error = sysfs_create_bin_file(kobj, &ring_attr);
	if (!error)
		return 0;
	/*
	 * First make sure that kho.ko cannot ask for the pages, then free them; as in ring_exit().
	 */
	kho_unregister_producer(&producer);
	ring_free();
	goto put;
unregister:
	kho_unregister_producer(&producer);
put:
	kobject_del(kobj);
	kobject_put(kobj);
	return error;
}

static void __exit ring_exit(void)
{
	kobject_del(kobj);
	kobject_put(kobj);
	kho_unregister_producer(&producer);
	ring_free();
}

module_init(ring_init);
module_exit(ring_exit);
MODULE_DESCRIPTION("Sample: a ring of pages and a counter that survive kexec");
MODULE_LICENSE("GPL");
