/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The boundary between the C glue and the Rust half. kho_c_*: kernel macros, inline functions and
 * version differences that C provides to Rust (src/boundary/ffi.rs declares the same). kho_rs_*:
 * functions that Rust provides to the glue (src/boundary/entry.rs defines them).
 */
#ifndef KHO_GLUE_H
#define KHO_GLUE_H

#include "include/kho.h"

int kho_rs_init(void);
void kho_rs_exit(void);
void kho_rs_on_kexec(void);

ssize_t kho_rs_active_show(char *buf, size_t size);
ssize_t kho_rs_active_store(const char *buf, size_t size);
ssize_t kho_rs_generation_show(char *buf, size_t size);
ssize_t kho_rs_scratch_show(char *buf, size_t size);
ssize_t kho_rs_scratch_store(const char *buf, size_t size);
ssize_t kho_rs_late_show(char *buf, size_t size);
ssize_t kho_rs_late_store(const char *buf, size_t size);
ssize_t kho_rs_release_read(char *buf, u64 offset, size_t size);
ssize_t kho_rs_release_write(const char *buf, u64 offset, size_t size);
ssize_t kho_rs_status_show(char *buf, size_t size);
ssize_t kho_rs_dt_read(char *buf, u64 offset, size_t size);
ssize_t kho_rs_in_dt_read(char *buf, u64 offset, size_t size);
size_t kho_rs_in_dt_size(void);

int kho_rs_register(struct kho_producer *producer, const char *name, int priority);
void kho_rs_unregister(struct kho_producer *producer);
int kho_rs_begin_node(struct kho_context *ctx, const char *name);
int kho_rs_end_node(struct kho_context *ctx);
int kho_rs_prop_u32(struct kho_context *ctx, const char *name, u32 value);
int kho_rs_prop_u64(struct kho_context *ctx, const char *name, u64 value);
int kho_rs_prop_str(struct kho_context *ctx, const char *name, const char *value);
int kho_rs_prop_bytes(struct kho_context *ctx, const char *name, const void *value, size_t len);
int kho_rs_prop_mem(struct kho_context *ctx, const struct kho_mem *ranges, size_t count);
int kho_rs_may_keep(u64 addr, u64 len);
int kho_rs_prop_mem_vmalloc(struct kho_context *ctx, const void *area, size_t size);
s64 kho_rs_find(const char *path);
s64 kho_rs_find_compatible(const char *compatible, s64 after);
s64 kho_rs_find_child(s64 node, const char *name);
s64 kho_rs_next_child(s64 node, s64 after);
ssize_t kho_rs_count_children(s64 node);
ssize_t kho_rs_count_props(s64 node);
ssize_t kho_rs_get_name(s64 node, char *buf, size_t size);
ssize_t kho_rs_get_prop_name(s64 node, size_t index, char *buf, size_t size);
ssize_t kho_rs_get_size(s64 node, const char *name);
int kho_rs_get_u32(s64 node, const char *name, u32 *value);
int kho_rs_get_u64(s64 node, const char *name, u64 *value);
ssize_t kho_rs_get_str(s64 node, const char *name, char *buf, size_t size);
ssize_t kho_rs_get_bytes(s64 node, const char *name, void *buf, size_t size);
int kho_rs_get_mem(s64 node, size_t index, struct kho_mem *range);
int kho_rs_claim(u64 addr, u64 len);
int kho_rs_claim_with_failed(u64 addr, u64 len);
int kho_rs_claim_node(s64 node);
int kho_rs_hold_node(struct kho_producer *producer, s64 node);
int kho_rs_release_node(const char *producer, s64 node);
int kho_rs_release(u64 addr, u64 len);
/* Page frame number; 0 if there is no memory. */
u64 kho_rs_alloc_pages(size_t count);
u64 kho_rs_room(void);
u64 kho_rs_take_pages(size_t count);
void kho_rs_free_pages(u64 pfn, size_t count);

void *kho_c_alloc(size_t size);
void kho_c_free(void *p);
void kho_c_lock(u32 which);
void kho_c_unlock(u32 which);
void kho_c_log(u32 level, const char *text, size_t len);
void kho_c_bug(void) __noreturn;
u64 kho_c_random(void);
const char *kho_c_release(void);
void *kho_c_open(const char *path, int *error);
ssize_t kho_c_read(void *file, void *buf, size_t size, u64 offset);
void kho_c_close(void *file);

bool kho_c_pfn_valid(u64 pfn);
bool kho_c_page_reserved(u64 pfn);
bool kho_c_page_failed(u64 pfn);
int kho_c_page_count(u64 pfn);
unsigned long kho_c_page_private(u64 pfn);
void kho_c_set_page_private(u64 pfn, unsigned long value);
void kho_c_page_claim(u64 pfn);
void kho_c_reserved_free(u64 pfn, u32 order);
void kho_c_adjust_managed(u64 pfn, long count);
void *kho_c_virt(u64 phys);
u64 kho_c_vmalloc_pfn(const void *addr);
u64 kho_c_alloc_order(u32 order);
int kho_c_alloc_contig(u64 first, u64 end);
void kho_c_page_put(u64 pfn);
void kho_c_relax(void);

int kho_c_serialize(struct kho_producer *producer, struct kho_context *ctx);
void kho_c_abort(struct kho_producer *producer);
bool kho_c_hold(struct kho_producer *producer);
void kho_c_unhold(struct kho_producer *producer);
bool kho_c_hold_self(void);
void kho_c_unhold_self(void);
int kho_c_dt_publish(void);
void kho_c_dt_withdraw(void);

#endif
