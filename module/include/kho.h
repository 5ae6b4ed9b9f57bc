/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kho.ko for drivers written in C: hand state and memory to the kernel that comes after this one, and
 * take what the kernel before this one left.
 *
 * A driver registers a *producer*. When the system enters the active phase (a write of 1 to
 * /sys/kernel/kho/active, which `kho load` does), its serialize() is called once and describes its state:
 * nodes, typed properties, and `mem`, the pages that must stay where they are. From then until kexec or
 * abort what it wrote down must not change: the pages named stay allocated, though their content may.
 *
 * In the next kernel the driver asks kho_find() for its node, reads it, and claims the memory. What nobody
 * claims stays reserved until root releases it, and is handed over again at the next kexec. While that is active
 * a claim of it fails with -EBUSY.
 *
 * All calls may sleep and must come from process context. Integers are native endian. Errors are negative
 * errnos. Symbols are exported to GPL modules only.
 */
#ifndef KHO_H
#define KHO_H

#include <linux/types.h>
#include <linux/module.h>

/** struct kho_mem - a range of physical memory: page-aligned address and length, in bytes. */
struct kho_mem {
	__u64 addr;
	__u64 len;
};

struct kho_context;

/**
 * struct kho_producer - who puts a node into the state tree.
 * @name:      Name of its node below the root: 1 to 63 letters, digits or ",._+-". "blobs" and "kernel"
 *             are taken.
 * @priority:  Producers serialize in ascending order of priority, in order of registration among equals.
 * @serialize: Writes properties and child nodes of the producer's node, which is open when it is called.
 *             It must write "compatible" (with a version). A negative errno, also one that a kho_prop_*
 *             returned and that was ignored here, ends the activation: the write to active fails with it.
 *             @ctx is valid during the call only.
 * @abort:     Undoes what serialize() did, in reverse order. Called when a later producer failed and when
 *             the active phase is left without kexec. Not called on the producer that failed. May be NULL.
 * @data:      Given to both.
 *
 * Neither callback may register, unregister, hold a node, or touch /sys/kernel/kho. The structure belongs to the
 * driver and must not change while registered.
 *
 * Locks: both callbacks run under kho.ko's lock of the phase, which kho_register_producer(), kho_unregister_producer() and
 * kho_hold_node() take too. So a callback may take no lock that its driver, or the driver core, holds around one of these
 * three: when they are called in probe() or remove(), not device_lock() of that device, nor anything that waits for it
 * (bus_for_each_dev() with device_lock(), driver_register(), flushing work that takes it); when they are called in a module's
 * init or exit function, nothing that waits for modules to load or go. A lock of the driver's own that protects its state is
 * fine, if it is never held around these calls. The other functions take kho.ko's lock of the store for a moment, inside of
 * any lock of a driver; under it, and in the callbacks, allocations do not wait for devices (memalloc_noio_save()).
 */
struct kho_producer {
	const char *name;
	int priority;
	int (*serialize)(struct kho_context *ctx, void *data);
	void (*abort)(void *data);
	void *data;
	/* private: set by kho_register_producer() */
	struct module *owner;
};

/* -EBUSY in the active phase, -EEXIST for a name that is registered, -EINVAL for a bad name. */
int kho_register_producer_owned(struct kho_producer *producer, struct module *owner);
#define kho_register_producer(producer) kho_register_producer_owned(producer, THIS_MODULE)

/*
 * Takes the producer off the list. The active phase holds a reference on its module, so that a module's
 * exit function never runs in it; a call in the active phase aborts the activation first.
 */
void kho_unregister_producer(struct kho_producer *producer);

/* In serialize(): nodes and properties. Properties of a node come before its children. */
int kho_begin_node(struct kho_context *ctx, const char *name);
int kho_end_node(struct kho_context *ctx);
int kho_prop_u32(struct kho_context *ctx, const char *name, u32 value);
int kho_prop_u64(struct kho_context *ctx, const char *name, u64 value);
int kho_prop_str(struct kho_context *ctx, const char *name, const char *value);
int kho_prop_bytes(struct kho_context *ctx, const char *name, const void *value, size_t len);

/*
 * The `mem` property of the open node: ranges that stay in place, in this order. Any pages will do:
 * kho_alloc_pages(), alloc_pages(), vmalloc, claimed ones. Refused with
 *   -EINVAL   not page-aligned, empty, wraps around
 *   -ENXIO    not RAM
 *   -EADDRINUSE  already kept by this or another node
 *   -EADDRNOTAVAIL  in scratch, where the next kernel will be placed
 *   -EBUSY    reserved by somebody else. What arrived may be handed on unclaimed, as it is, by who holds it
 *   -EHWPOISON  the memory of a page failed (PageHWPoison): its content is lost, so leave it out and say so
 */
int kho_prop_mem(struct kho_context *ctx, const struct kho_mem *ranges, size_t count);
/* Whether kho_prop_mem() would take the range, of a producer that may hold it, as far as that is known before: 0, or the errno. */
int kho_may_keep(u64 addr, u64 len);
/* kho_prop_mem() for the pages behind a vmalloc'ed or vmapped area, in the order of the area; neighbours merge. */
int kho_prop_mem_vmalloc(struct kho_context *ctx, const void *area, size_t size);

/*
 * What arrived. A node is a number, 0 or above; -ENOENT when there is none. Numbers stay valid as long as
 * kho.ko is loaded.
 */
s64 kho_find(const char *path);
/* The first node after node @after with this compatible; -1 to begin. */
s64 kho_find_compatible(const char *compatible, s64 after);
s64 kho_find_child(s64 node, const char *name);

/* -ENOENT no such property, -EBADMSG another type, -ENOSPC @buf too small. Sizes are returned. */
int kho_get_u32(s64 node, const char *name, u32 *value);
int kho_get_u64(s64 node, const char *name, u64 *value);
ssize_t kho_get_str(s64 node, const char *name, char *buf, size_t size);
ssize_t kho_get_bytes(s64 node, const char *name, void *buf, size_t size);
/* Range number @index of the node's `mem`; -ENOENT past the end. */
int kho_get_mem(s64 node, size_t index, struct kho_mem *range);

/*
 * Takes ownership of pages that arrived and belong to a `mem`. Afterwards they are ordinary pages with one
 * reference each, free them with __free_page() or keep them again. -EBUSY if any was claimed or released
 * before, -EINVAL for what did not arrive, -EHWPOISON if the memory of one failed since (PageHWPoison); then nothing is
 * claimed.
 */
int kho_claim(u64 addr, u64 len);
/*
 * The same for drivers that ask PageHWPoison() of each page before they touch it: pages whose memory failed are claimed
 * too. __free_page() never gives such a page to anybody.
 */
int kho_claim_with_failed(u64 addr, u64 len);
/*
 * All ranges of the node's `mem`, or none. This also says that the node is this driver's: what nobody takes is handed
 * to the kernel after this one again, so do it for a node without `mem` too, once its state was read.
 */
int kho_claim_node(s64 node);
/*
 * Says that a node, with all below it, is @producer's, although its pages stay reserved for now: then serialize() may hand
 * them on as they are, and nobody but the producer releases them. It claims from them what it wants to use. Ends with
 * kho_unregister_producer(). -EINVAL when @producer is not registered, -ENOENT for no such node; -EBUSY when some of the
 * memory was claimed or released, is held already, or is handed over in the active phase. May wait for an activation.
 */
int kho_hold_node(struct kho_producer *producer, s64 node);
/*
 * The unclaimed pages of a node that @producer holds, zeroed, back to the system: all of them, and the hold ends; or none.
 * -ENOENT when it does not hold that node, -EBUSY in the active phase when the node is handed over. Does not wait for an
 * activation.
 */
int kho_release_node(struct kho_producer *producer, s64 node);
/*
 * Unclaimed pages, zeroed, back to the system. Errors as kho_claim(); -EBUSY also for what a producer holds, and in the
 * active phase for what is handed over. Pages whose memory failed stay reserved.
 */
int kho_release(u64 addr, u64 len);

/*
 * Memory to keep: @count contiguous zeroed pages outside scratch, out of a few large arenas, so that many
 * small pieces are few ranges. NULL when there is no memory. kho_free_pages() takes exactly what was
 * allocated. A page that somebody else still has a reference on then (a user who has it mapped) is lent to nobody before
 * that reference is gone. Mappings without a reference, as remap_pfn_range() makes them, have to be gone before.
 */
struct page *kho_alloc_pages(size_t count);
void kho_free_pages(struct page *page, size_t count);

/*
 * For drivers that manage their own memory: @count contiguous zeroed pages outside scratch, each with one
 * reference that is the caller's, to be freed one by one with __free_page() in any order. Ask for 512 at a time
 * where you can.
 */
struct page *kho_take_pages(size_t count);

/*
 * The same by address, for drivers that cannot use the kernel's inline functions (see driver/, which wraps them for
 * Rust). kho_alloc_range() gives 0 when there is no memory; kho_free_range() takes exactly that back.
 * kho_put_range() frees claimed pages; kho_range_address() is where pages of the driver are mapped.
 */
u64 kho_alloc_range(size_t count);
void kho_free_range(u64 addr, size_t count);
void kho_put_range(u64 addr, size_t count);
void *kho_range_address(u64 addr);

#endif /* KHO_H */
