/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The boundary between the C glue of khofs.ko and its Rust half. khofs_c_*: kernel macros, inline
 * functions and version differences that C provides to Rust (src/boundary/ffi.rs declares the
 * same). khofs_rs_*: functions that Rust provides to the glue (src/boundary/entry.rs defines them).
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

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
#define IDMAP struct mnt_idmap
#else
#define IDMAP struct user_namespace
#endif

/*
 * An inode. @file belongs to the Rust half. @lazy is the number of pages that arrived and are not
 * in the page cache yet. @write_end is the end of the write(2) under way; the inode's lock protects
 * it. @zeros is true if processes may have the page of zeros mapped in place of holes; it is set in
 * the active phase only.
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

/* Attributes of an inode, for stat(2) and for the tree. Times are seconds and nanoseconds. */
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
 * The purpose of a page: @pages is the future length of the file in pages; pages @first to before
 * @end are wanted too.
 */
struct khofs_want {
	u64 pages;
	u64 first;
	u64 end;
};

/*
 * The gate of the active phase. Every change of state that khofs serializes (names, sizes, places
 * of pages) happens between khofs_enter() and khofs_exit(). khofs_enter() fails with -EBUSY while
 * khofs is frozen. Code between the two must not fault on user memory.
 */
extern wait_queue_head_t khofs_thawed;
extern bool khofs_frozen;
int khofs_enter(void);
void khofs_exit(void);
/*
 * Makes a call between khofs_enter() and khofs_exit(); its result is an int. Allocations in the
 * call must not wait for a device. A loop device or swap may be on khofs: its writes would wait
 * behind a task that freezes khofs, and that task waits for this call.
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
 * An uptodate page of the page cache, with a reference; NULL for a hole; or an ERR_PTR, -EIO if the
 * memory failed in this or in an earlier kernel. The caller excludes truncation or handles it.
 */
struct page *khofs_get_page(struct inode *inode, pgoff_t index);
s64 khofs_grow(struct inode *inode, pgoff_t index, const struct khofs_want *want, bool *clean);
/* Zeros, unless it is @clean, and ready for use. */
void khofs_fill_folio(struct folio *folio, bool clean);
/* Called before a file grows to @size or is written from there on. The caller holds i_rwsem. */
int khofs_zero_tail(struct inode *inode, loff_t size);
long khofs_fallocate(struct file *file, int mode, loff_t offset, loff_t len);
loff_t khofs_llseek(struct file *file, loff_t offset, int whence);
int khofs_setattr_size(struct inode *inode, loff_t size);
void khofs_setup_inode(struct inode *inode, umode_t mode, dev_t dev);
/* False if another user holds the folio. */
bool khofs_split(struct inode *inode, pgoff_t index);
void khofs_note_failure(struct folio *folio);
void khofs_collapse(struct inode *inode, pgoff_t index);
ssize_t khofs_large_show(char *buf);
ssize_t khofs_listxattr(struct dentry *dentry, char *buf, size_t size);
/* Sets the time of the last change. */
void khofs_changed(struct inode *inode);

/*
 * ACLs. khofs_inherit_acl() gives a new inode the ACLs and the permissions that the default ACL of
 * @dir wants. khofs_chmod_acl() adapts the ACL to the permissions of @mode, before the inode gets
 * them. The caller of these two is between khofs_enter() and khofs_exit().
 */
int khofs_inherit_acl(struct inode *dir, struct inode *inode);
int khofs_chmod_acl(struct inode *inode, umode_t mode);
#ifdef CONFIG_FS_POSIX_ACL
struct posix_acl *khofs_get_acl(struct inode *inode, int type, bool rcu);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
int khofs_set_acl(IDMAP *idmap, struct dentry *dentry, struct posix_acl *acl, int type);
#define KHOFS_ACL_OPERATIONS .get_inode_acl = khofs_get_acl, .set_acl = khofs_set_acl
#else
int khofs_set_acl(IDMAP *idmap, struct inode *inode, struct posix_acl *acl, int type);
#define KHOFS_ACL_OPERATIONS .get_acl = khofs_get_acl, .set_acl = khofs_set_acl
#endif
#else
#define KHOFS_ACL_OPERATIONS .set_acl = NULL
#endif

/* Only in the build for tests: waits at the named step of an operation, see super.c. */
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
/* Returns empty chunks to the system. */
void khofs_rs_reap(void);

/* Rust: instances. Options: NULL if there is no memory. */
void *khofs_rs_options_new(void);
void khofs_rs_options_free(void *options);
/* -ENOPARAM if the option is unknown; -EINVAL if its value is bad. @value may be NULL. */
int khofs_rs_option(void *options, const char *key, const char *value);
/*
 * Number of the instance that the options name, which is made if it does not exist; negative errno.
 */
int khofs_rs_instance(void *options);
/* Fills a new superblock with only the root, or with the arrived files. */
int khofs_rs_fill(u32 id, struct super_block *sb, void *options);
/* Changes an existing instance. On an error, @why has the reason and nothing changes. */
int khofs_rs_reconfigure(u32 id, void *options, char *why, size_t size);
/* Ends the operation that khofs_rs_instance() began. */
void khofs_rs_instance_done(void);
/*
 * Superblock of the next live instance after number @id, with an active reference. Sets @id to its
 * number.
 */
struct super_block *khofs_rs_hold_super(u32 *id);
/* Limit in pages, pages used, limit of inodes, inodes used. */
void khofs_rs_statfs(u32 id, u64 out[4]);
ssize_t khofs_rs_show_options(u32 id, char *buf, size_t size);

/*
 * Rust: files. khofs_rs_file_new counts an inode and its link target: ERR_PTR(-ENOSPC) or
 * ERR_PTR(-ENOMEM).
 */
void *khofs_rs_file_new(u32 id, size_t target, u64 *ino);
void khofs_rs_file_free(u32 id, void *file);
/* Number of pages that count for a symbolic link with a target of @len bytes. */
u64 khofs_rs_target_pages(u64 len);
/* Counts a further name of an inode; -ENOSPC at the limit. */
int khofs_rs_name_new(u32 id);
void khofs_rs_name_gone(u32 id);
/*
 * Brings the arrived page @index and its neighbours into the page cache: number of pages brought,
 * or negative errno.
 */
int khofs_rs_bring(u32 id, void *file, struct inode *inode, u64 index);
/* The first page from @index on that is not in the page cache; U64_MAX if every page is. */
u64 khofs_rs_next_lazy(void *file, u64 index);
/*
 * Puts new memory into the page cache. Returns the page's frame number, in a folio that is locked,
 * not uptodate, and zero if @clean is set; or negative errno. -EEXIST if another task put memory
 * there.
 */
s64 khofs_rs_grow(u32 id, void *file, struct inode *inode, u64 index, const struct khofs_want *want, bool *clean);
/* Whether khofs may make folios of 2 MiB of pages. */
bool khofs_rs_may_collapse(u32 id);
/* Records that 512 pages in the page cache became one folio, or that a folio became pages. */
void khofs_rs_folded(u64 pfn, bool folded);
/* -ENOSPC unless @pages more may be used. */
int khofs_rs_room(u32 id, u64 pages);
/* Drops the arrived pages @first to @last. */
int khofs_rs_forget(u32 id, void *file, struct inode *inode, u64 first, u64 last);
/* The first page from @index on that holds data (or, with @hole, that holds none). */
u64 khofs_rs_seek(void *file, struct inode *inode, u64 index, bool hole);
void khofs_rs_page_freed(u64 pfn, u64 count);
ssize_t khofs_rs_xattr_get(void *file, const char *name, void *buf, size_t size);
/* @value NULL: remove. @flags: XATTR_CREATE, XATTR_REPLACE. */
int khofs_rs_xattr_set(u32 id, void *file, const char *name, const void *value, size_t size, int flags);
ssize_t khofs_rs_xattr_list(void *file, bool trusted, char *buf, size_t size);

/* C: src/boundary/ffi.rs states the requirements and guarantees. */
/*
 * The first functions have the same names as in kho.ko, because the modules share the Rust source
 * that calls them.
 */
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
