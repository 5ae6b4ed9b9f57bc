/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kho.ko for drivers written in C: hand state and memory over to the next kernel, and take the
 * state and memory that the previous kernel handed over.
 *
 * A driver registers a *producer*. When the system enters the active phase (a write of 1 to
 * /sys/kernel/kho/active, which `kho load` does), kho.ko calls its serialize() once. serialize()
 * describes the driver's state: nodes, typed properties, and `mem`, the pages that must stay in
 * place. From then until kexec or abort the description must stay true: the named pages stay
 * allocated, although their content may change.
 *
 * In the next kernel the driver finds its node with kho_find(), reads it, and claims the memory.
 * Memory that no driver claims stays reserved until root releases it, and is handed over again at
 * the next kexec. While such memory is part of the active phase, a claim of it fails with -EAGAIN.
 *
 * All calls may sleep and must come from process context. Integers are native endian. Errors are
 * negative errnos. Symbols are exported to GPL modules only.
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
 * struct kho_producer - a driver that puts a node into the state tree.
 * @name:      Name of the producer's node below the root: 1 to 63 letters, digits or ",._+-". "blobs"
 *             and "kernel" are reserved.
 * @priority:  Producers serialize in ascending order of priority, equal ones in order of registration.
 * @serialize: Writes properties and child nodes of the producer's node, which is open at the call.
 *             It must write "compatible" (with a version). A negative errno ends the activation, and
 *             the write to active fails with that errno. The same holds for an error of a kho_prop_*
 *             call that serialize() ignores. @ctx is valid during the call only.
 * @abort:     Undoes serialize(). Called if a later producer fails, or if the active phase
 *             ends without kexec; producers abort in reverse order. Not called for the producer that
 *             failed. May be NULL.
 * @data:      Passed to both callbacks.
 *
 * Neither callback may register, unregister, hold a node, or touch /sys/kernel/kho. The structure
 * belongs to the driver and must not change while registered.
 *
 * Locks: kho.ko calls both callbacks with its lock of the phase held. kho_register_producer(),
 * kho_unregister_producer() and kho_hold_node() take the same lock. So a callback must not take a
 * lock that its driver, or the driver core, holds around one of these three calls. If the driver
 * makes these calls in probe() or remove(), a callback must not take device_lock() of that device,
 * and must not wait for it: no bus_for_each_dev() with device_lock(), no driver_register(), no
 * flush of work that takes it. If the driver makes these calls in its module's init or exit
 * function, a callback must not wait for the load or unload of a module. A callback may take the
 * driver's own lock of its state, if the driver never holds that lock around these calls.
 *
 * The other functions take kho.ko's lock of the store for a short time, inside any lock of a
 * driver. With that lock held, and in the callbacks, allocations do not wait for devices
 * (memalloc_noio_save()).
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

/*
 * Registers a producer. In the active phase this succeeds too, but the producer takes part from the
 * next active phase on; the log says so. -EEXIST if the name is registered already, -EINVAL if the
 * name is not valid.
 */
int kho_register_producer_owned(struct kho_producer *producer, struct module *owner);
#define kho_register_producer(producer) kho_register_producer_owned(producer, THIS_MODULE)

/*
 * Unregisters the producer. The active phase holds a reference on the producer's module, so the
 * exit function of that module never runs in the active phase. A call in the active phase aborts
 * the activation first.
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
 * Writes the `mem` property of the open node: ranges that stay in place, in this order. The pages may
 * come from kho_alloc_pages(), alloc_pages() or vmalloc, or may be claimed ones. Refuses a range with
 *   -EINVAL         if it is not page-aligned, is empty, or wraps around
 *   -ENXIO          if it is not RAM
 *   -EADDRINUSE     if this or another node keeps it already
 *   -EADDRNOTAVAIL  if it is in scratch, where the next kernel will be placed
 *   -EBUSY          if its pages are reserved. Exception: a producer that holds an arrived node (see
 *                   kho_hold_node()) may hand its pages on unclaimed and unchanged
 *   -EHWPOISON      if the memory of a page failed (PageHWPoison): the content is lost, so leave the
 *                   page out and report the loss
 */
int kho_prop_mem(struct kho_context *ctx, const struct kho_mem *ranges, size_t count);
/*
 * Checks that kho_prop_mem() would accept the range from a producer that may hold it: 0, or the
 * errno. kho.ko uses the facts at the time of the call; they may change before the active phase.
 */
int kho_may_keep(u64 addr, u64 len);
/*
 * As kho_prop_mem(), for the pages behind a vmalloc'ed or vmapped area, in the order of the area.
 * Neighbouring pages that are also neighbours in physical memory become one range.
 */
int kho_prop_mem_vmalloc(struct kho_context *ctx, const void *area, size_t size);

/*
 * Nodes that arrived from the previous kernel. A node is a number, 0 or above; -ENOENT if no such
 * node arrived. Numbers stay valid as long as kho.ko is loaded.
 */
s64 kho_find(const char *path);
/* The first node with this compatible after node @after; pass -1 for the first one. */
s64 kho_find_compatible(const char *compatible, s64 after);
s64 kho_find_child(s64 node, const char *name);

/*
 * The children of a node, in the order in which they were written: the first one for an @after of
 * -1, else the one behind the child @after. -ENOENT if there is none, -EINVAL if @after is no child
 * of the node. kho_next_child() costs the size of the child @after, so the loop costs the size of
 * the node.
 */
s64 kho_next_child(s64 node, s64 after);
#define kho_for_each_child(child, node) \
	for ((child) = kho_next_child(node, -1); (child) >= 0; (child) = kho_next_child(node, child))
/* Number of children; -ENOENT if there is no such node. */
ssize_t kho_count_children(s64 node);

/* Bytes that hold every name of a node or property, with its NUL. */
#define KHO_NAME_SIZE 64
/*
 * The name of a node, with its NUL, and its size. The root's name is empty. -ENOENT if there is no
 * such node, -ENOSPC if @buf is too small.
 */
ssize_t kho_get_name(s64 node, char *buf, size_t size);
/* Number of properties, `mem` included; -ENOENT if there is no such node. */
ssize_t kho_count_props(s64 node);
/*
 * The name of property number @index, with its NUL, and its size; in the order in which the
 * properties were written. -ENOENT past the last one, -ENOSPC if @buf is too small.
 */
ssize_t kho_get_prop_name(s64 node, size_t index, char *buf, size_t size);
/* Bytes of the value of a property; -ENOENT if the node has no such property. */
ssize_t kho_get_size(s64 node, const char *name);

/*
 * Values of properties. -ENOENT if the node has no such property, -EBADMSG if it has another type,
 * -ENOSPC if @buf is too small. kho_get_str() and kho_get_bytes() return the size of the value.
 */
int kho_get_u32(s64 node, const char *name, u32 *value);
int kho_get_u64(s64 node, const char *name, u64 *value);
ssize_t kho_get_str(s64 node, const char *name, char *buf, size_t size);
ssize_t kho_get_bytes(s64 node, const char *name, void *buf, size_t size);
/* Range number @index of the node's `mem`; -ENOENT past the end. */
int kho_get_mem(s64 node, size_t index, struct kho_mem *range);

/*
 * Takes ownership of arrived pages that belong to a `mem`. Afterwards they are ordinary pages with
 * one reference each: free them with __free_page(), or keep them again. -EBUSY if any page was
 * claimed or released before, -EINVAL if any page did not arrive, -EHWPOISON if the memory of a
 * page has failed (PageHWPoison), -EAGAIN if the active phase hands the pages over again: they can be
 * claimed after it. After an error no page is claimed.
 */
int kho_claim(u64 addr, u64 len);
/*
 * As kho_claim(), but also claims pages whose memory failed. For drivers that check PageHWPoison()
 * of each page before they touch it. After __free_page() the kernel never allocates such a page
 * again.
 */
int kho_claim_with_failed(u64 addr, u64 len);
/*
 * Claims all ranges of the node's `mem`, or none. This also marks the node as taken over. kho.ko
 * hands a node that no driver takes over to the next kernel again, so call this for a node without
 * `mem` too, after reading its state.
 */
int kho_claim_node(s64 node);
/*
 * As kho_claim_node(), and maps the pages of the node's `mem` one behind the other, in its order:
 * the area that kho_prop_mem_vmalloc() kept is there again, at another address. @size gets its
 * bytes. vfree() frees area and pages. An ERR_PTR() with the errors of kho_claim_node(), -ENOENT
 * also if the node has no `mem`, -ENOMEM. After an error no page is claimed.
 */
void *kho_claim_vmalloc(s64 node, size_t *size);
/*
 * Makes @producer the holder of a node and of all nodes below it, while their pages stay reserved.
 * From then on serialize() may hand the pages on unchanged, and only the producer can release them.
 * The producer claims the pages that it wants to use. The hold ends with kho_unregister_producer().
 * -EINVAL if @producer is not registered, -ENOENT if the node does not exist, -EBUSY if some of the
 * memory was claimed or released, or has a holder already, -EAGAIN if the active phase hands it over
 * again. May wait for an activation.
 */
int kho_hold_node(struct kho_producer *producer, s64 node);
/*
 * Releases the unclaimed pages of a node that @producer holds, zeroed: all of them, and the hold
 * ends; or none. -ENOENT if @producer does not hold the node, -EBUSY in the active phase if the
 * node is handed over. Does not wait for an activation.
 */
int kho_release_node(struct kho_producer *producer, s64 node);
/*
 * Releases unclaimed pages, zeroed. Errors as kho_claim() without -EAGAIN; -EBUSY also if a producer holds a page,
 * and in the active phase if a page is handed over. Pages whose memory failed stay reserved.
 */
int kho_release(u64 addr, u64 len);

/*
 * Memory to keep: @count contiguous zeroed pages outside scratch, from a few large arenas, so that
 * many small pieces form few ranges. NULL if there is no memory. kho_free_pages() takes exactly one
 * whole allocation. If another user still has a reference on a freed page (a process that has it
 * mapped), kho.ko does not lend the page again before that reference is gone. Mappings without a
 * reference, such as those of remap_pfn_range(), must be removed before the call.
 */
struct page *kho_alloc_pages(size_t count);
void kho_free_pages(struct page *page, size_t count);

/*
 * For drivers that manage their own memory: @count contiguous zeroed pages outside scratch. The
 * caller owns one reference on each page, and frees the pages one by one with __free_page() in any
 * order. Ask for 512 pages at a time if you can.
 */
struct page *kho_take_pages(size_t count);

/*
 * Number of bytes that all producers together may keep beyond what they kept at their last
 * serialization, while a late load waits for its start (kho load --late); U64_MAX otherwise. A
 * driver that keeps more makes that start fail, and had better refuse the allocation with -ENOSPC.
 */
u64 kho_room(void);

/*
 * The same by physical address, for drivers that cannot use the kernel's inline functions (see
 * driver/, which wraps these calls for Rust). kho_alloc_range() returns 0 if there is no memory;
 * kho_free_range() takes exactly one whole allocation. kho_put_range() frees claimed pages.
 * kho_range_address() returns the virtual address of pages that the driver owns.
 */
u64 kho_alloc_range(size_t count);
void kho_free_range(u64 addr, size_t count);
void kho_put_range(u64 addr, size_t count);
void *kho_range_address(u64 addr);

#endif /* KHO_H */
