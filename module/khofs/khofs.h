/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The boundary between the C glue of khofs.ko and its Rust half. khofs_c_*: kernel macros, inline functions and
 * version differences, given to Rust (src/boundary/ffi.rs declares the same). khofs_rs_*: what Rust gives to the
 * glue (src/boundary/entry.rs defines them).
 */
#ifndef KHOFS_H
#define KHOFS_H

#include <linux/fs.h>
#include <linux/pagemap.h>
#include <linux/percpu-rwsem.h>
#include <linux/sched/mm.h>
#include <linux/types.h>
#include <linux/version.h>
#include <linux/wait.h>

#include <kho.h>

#define KHOFS_MAGIC 0x6b686f66

/*
 * An inode. @file is the Rust half's; @lazy counts the pages that arrived and are not in the page cache yet; @write_end is
 * where the write(2) under way will end (by the inode's lock); @zeros says that zeros may be mapped in the place of holes, which
 * is set in the active phase only.
 */
struct khofs_inode {
	void *file;
	unsigned long lazy;
	loff_t write_end;
	bool zeros;
	struct inode vfs;
};

static inline struct khofs_inode *khofs_i(const struct inode *inode)
{
	return container_of(inode, struct khofs_inode, vfs);
}

/* Number of the instance that a superblock shows, never 0. */
static inline u32 khofs_id(const struct super_block *sb)
{
	return (u32)(unsigned long)sb->s_fs_info;
}

/* What stat(2) says of an inode, and what is written down of it. Times are seconds and nanoseconds. */
struct khofs_attr {
	u64 ino;
	u64 size;
	s64 atime;
	s64 mtime;
	s64 ctime;
	u32 atime_ns;
	u32 mtime_ns;
	u32 ctime_ns;
	u32 mode;
	u32 uid;
	u32 gid;
	u32 nlink;
	u32 rdev;
};

/* A run of pages in the page cache. */
struct khofs_run {
	u64 index;
	u64 pfn;
	u64 count;
};

/*
 * What a page is wanted for: @pages is what the file will have in all; pages @first to before @end are wanted besides it.
 */
struct khofs_want {
	u64 pages;
	u64 first;
	u64 end;
};

/*
 * The active phase. Whatever changes what is written down of the file system (names, sizes, which page is where)
 * happens between enter and exit. khofs_enter() fails with -EBUSY while frozen. Nothing in between may fault on
 * user memory.
 */
extern wait_queue_head_t khofs_thawed;
extern bool khofs_frozen;
int khofs_enter(void);
void khofs_exit(void);
/*
 * What is allocated between must not wait for a device: there may be a loop device or swap on khofs, whose writes wait behind
 * who wants to freeze, who waits for this one. An int.
 */
#define KHOFS_BETWEEN(call)                                  \
	({                                                   \
		unsigned int _scope = memalloc_noio_save();  \
		int _e = khofs_enter();                      \
		if (!_e) {                                   \
			_e = (call);                         \
			khofs_exit();                        \
		}                                            \
		memalloc_noio_restore(_scope);               \
		_e;                                          \
	})
int khofs_data_init(void);
void khofs_data_exit(void);

extern const struct address_space_operations khofs_aops;
extern const struct file_operations khofs_file_operations;
extern const struct inode_operations khofs_file_inode_operations;
extern const struct inode_operations khofs_dir_inode_operations;
extern const struct inode_operations khofs_special_inode_operations;
extern const struct inode_operations khofs_symlink_inode_operations;
extern const struct xattr_handler * const khofs_xattr_handlers[];
/*
 * A page of the page cache, with a reference, uptodate: NULL for a hole, or an ERR_PTR; -EIO when the memory failed, here or
 * in an earlier kernel. The caller keeps truncation away or copes with it.
 */
struct page *khofs_get_page(struct inode *inode, pgoff_t index);
s64 khofs_grow(struct inode *inode, pgoff_t index, const struct khofs_want *want, bool *clean);
/* Zeros, unless it is @clean, and ready for use. */
void khofs_fill_folio(struct folio *folio, bool clean);
/* Before a file grows to @size or is written from there on, with i_rwsem. */
int khofs_zero_tail(struct inode *inode, loff_t size);
long khofs_fallocate(struct file *file, int mode, loff_t offset, loff_t len);
loff_t khofs_llseek(struct file *file, loff_t offset, int whence);
int khofs_setattr_size(struct inode *inode, loff_t size);
void khofs_setup_inode(struct inode *inode, umode_t mode, dev_t dev);
/* False: somebody holds the folio. */
bool khofs_split(struct inode *inode, pgoff_t index);
void khofs_note_failure(struct folio *folio);
void khofs_collapse(struct inode *inode, pgoff_t index);
ssize_t khofs_large_show(char *buf);
ssize_t khofs_listxattr(struct dentry *dentry, char *buf, size_t size);

/* Only in the build for tests: waits at a step in the middle of something, see super.c. */
#ifdef KHO_FAULTS
void khofs_wait_here(const char *step);
#else
static inline void khofs_wait_here(const char *step)
{
}
#endif

/* Rust: module */
int khofs_rs_init(void);
void khofs_rs_exit(void);
int khofs_rs_serialize(struct kho_context *ctx);
void khofs_rs_thaw(void);
ssize_t khofs_rs_status_show(char *buf, size_t size);
ssize_t khofs_rs_release_store(const char *buf, size_t size);
/* Gives empty chunks back to the system. */
void khofs_rs_reap(void);

/* Rust: instances. Options: NULL when there is no memory. */
void *khofs_rs_options_new(void);
void khofs_rs_options_free(void *options);
/* -ENOPARAM: no such option; -EINVAL: a bad value. @value may be NULL. */
int khofs_rs_option(void *options, const char *key, const char *value);
/* The number of the instance that the options name, which is made unless it exists; negative errno. */
int khofs_rs_instance(void *options);
/* Fills a new superblock with the root alone, or with what arrived. */
int khofs_rs_fill(u32 id, struct super_block *sb, void *options);
/* For an instance that is there. When it fails, @why says why, and nothing changed. */
int khofs_rs_reconfigure(u32 id, void *options, char *why, size_t size);
/* Ends what khofs_rs_instance() began. */
void khofs_rs_instance_done(void);
/* The superblock of the next live instance after number @id, which is set, with an active reference. */
struct super_block *khofs_rs_hold_super(u32 *id);
/* Limit in pages, pages used, limit of inodes, inodes used. */
void khofs_rs_statfs(u32 id, u64 out[4]);
ssize_t khofs_rs_show_options(u32 id, char *buf, size_t size);

/* Rust: files. khofs_rs_file_new counts an inode, and what it links to: an ERR_PTR is -ENOSPC or -ENOMEM. */
void *khofs_rs_file_new(u32 id, size_t target, u64 *ino);
void khofs_rs_file_free(u32 id, void *file);
/* Pages that a symbolic link to so many bytes counts as. */
u64 khofs_rs_target_pages(u64 len);
/* Counts a further name of an inode: -ENOSPC. */
int khofs_rs_name_new(u32 id);
void khofs_rs_name_gone(u32 id);
/* Brings what arrived for page @index and its neighbours into the page cache: pages brought, or negative errno. */
int khofs_rs_bring(u32 id, void *file, struct inode *inode, u64 index);
/* The first page from @index on that is not in the page cache; U64_MAX for none. */
u64 khofs_rs_next_lazy(void *file, u64 index);
/*
 * Puts new memory into the page cache: the page's frame number, in a folio that is locked, not uptodate, and zero if
 * @clean is set; or negative errno. -EEXIST: somebody did.
 */
s64 khofs_rs_grow(u32 id, void *file, struct inode *inode, u64 index, const struct khofs_want *want, bool *clean);
/* Whether pages may be made folios of 2 MiB. */
bool khofs_rs_may_collapse(u32 id);
/* 512 pages in the page cache became one folio, or a folio pages. */
void khofs_rs_folded(u64 pfn, bool folded);
/* -ENOSPC unless so many pages more may be used. */
int khofs_rs_room(u32 id, u64 pages);
/* What arrived for pages @first to @last is not wanted any more. */
int khofs_rs_forget(u32 id, void *file, struct inode *inode, u64 first, u64 last);
/* The first page from @index on that holds data (or, @hole, that does not). */
u64 khofs_rs_seek(void *file, struct inode *inode, u64 index, bool hole);
void khofs_rs_page_freed(u64 pfn, u64 count);
ssize_t khofs_rs_xattr_get(void *file, const char *name, void *buf, size_t size);
/* @value NULL: remove. @flags: XATTR_CREATE, XATTR_REPLACE. */
int khofs_rs_xattr_set(u32 id, void *file, const char *name, const void *value, size_t size, int flags);
ssize_t khofs_rs_xattr_list(void *file, bool trusted, char *buf, size_t size);

/* C: see src/boundary/ffi.rs for what is promised and asked. */
/* The first ones have the names that kho.ko gives them, whose Rust source is shared. */
void *kho_c_alloc(size_t size);
void kho_c_free(void *p);
void kho_c_lock(u32 which);
void kho_c_unlock(u32 which);
void kho_c_log(u32 level, const char *text, size_t len);
void kho_c_bug(void) __noreturn;
void kho_c_relax(void);
u64 khofs_c_ram_pages(void);
void *kho_c_virt(u64 phys);
void khofs_c_freeze(bool frozen);
void khofs_c_reap_later(void);
int khofs_c_page_count(u64 pfn);
void khofs_c_page_put(u64 pfn);
u64 khofs_c_good_pages(u64 pfn, u64 count);
bool khofs_c_large(void);
void khofs_c_check_folios(void);
bool khofs_c_fold(u64 pfn);
bool khofs_c_unfold(u64 pfn);
void khofs_c_put_folio(u64 pfn);
u64 khofs_c_take_pages(size_t count);
u64 khofs_c_alloc_pages(size_t count);
void khofs_c_free_pages(u64 pfn, size_t count);
int khofs_c_insert(struct inode *inode, u64 index, u64 pfn, bool locked);
bool khofs_c_next_run(struct inode *inode, u64 from, struct khofs_run *run);
void khofs_c_set_lazy(struct inode *inode, u64 pages);
struct inode *khofs_c_make_inode(struct super_block *sb, const struct khofs_attr *attr, void *file,
				 const char *target, size_t target_len);
void khofs_c_put_inode(struct inode *inode);
void khofs_c_hold_inode(struct inode *inode);
void khofs_c_set_links(struct inode *inode, u32 links);
void khofs_c_now(s64 *seconds, u32 *nanoseconds);
bool khofs_c_reserved(u64 pfn);
int khofs_c_set_root(struct super_block *sb, struct inode *inode);
struct dentry *khofs_c_root(struct super_block *sb);
struct dentry *khofs_c_attach(struct dentry *parent, const char *name, size_t len, struct inode *inode);
struct dentry *khofs_c_next_child(struct dentry *parent, struct dentry *after);
void khofs_c_put_dentry(struct dentry *dentry);
struct inode *khofs_c_dentry(struct dentry *dentry, const char **name, size_t *len);
void khofs_c_attr(struct inode *inode, struct khofs_attr *attr);
const char *khofs_c_target(struct inode *inode);
void *khofs_c_file(struct inode *inode);
int khofs_c_hold_node(s64 node);
int khofs_c_release_node(s64 node);
void khofs_c_hold_super(struct super_block *sb);
int khofs_c_drop_super(struct super_block *sb);

#endif
