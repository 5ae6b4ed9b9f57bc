// SPDX-License-Identifier: GPL-2.0-only
/*
 * C glue of khofs: names and attributes. Names live in the dentry cache, every dentry pinned, as in
 * ramfs (fs/ramfs/inode.c). The Rust half holds the extended attributes.
 */
#include <linux/mm.h>
#include <linux/namei.h>
#include <linux/posix_acl_xattr.h>
#include <linux/slab.h>
#include <linux/xattr.h>

#include "khofs.h"

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
static void touch(struct inode *inode)
{
	inode_set_mtime_to_ts(inode, inode_set_ctime_current(inode));
}

static void init_times(struct inode *inode)
{
	simple_inode_init_ts(inode);
}

static void get_times(struct inode *inode, struct khofs_attr *attr)
{
	attr->atime = inode_get_atime_sec(inode);
	attr->atime_ns = inode_get_atime_nsec(inode);
	attr->mtime = inode_get_mtime_sec(inode);
	attr->mtime_ns = inode_get_mtime_nsec(inode);
	attr->ctime = inode_get_ctime_sec(inode);
	attr->ctime_ns = inode_get_ctime_nsec(inode);
}

static void set_times(struct inode *inode, const struct khofs_attr *attr)
{
	inode_set_atime(inode, attr->atime, attr->atime_ns);
	inode_set_mtime(inode, attr->mtime, attr->mtime_ns);
	inode_set_ctime(inode, attr->ctime, attr->ctime_ns);
}
#else
static void touch(struct inode *inode)
{
	inode->i_mtime = inode->i_ctime = current_time(inode);
}

static void init_times(struct inode *inode)
{
	inode->i_atime = inode->i_mtime = inode->i_ctime = current_time(inode);
}

static void get_times(struct inode *inode, struct khofs_attr *attr)
{
	attr->atime = inode->i_atime.tv_sec;
	attr->atime_ns = inode->i_atime.tv_nsec;
	attr->mtime = inode->i_mtime.tv_sec;
	attr->mtime_ns = inode->i_mtime.tv_nsec;
	attr->ctime = inode->i_ctime.tv_sec;
	attr->ctime_ns = inode->i_ctime.tv_nsec;
}

static void set_times(struct inode *inode, const struct khofs_attr *attr)
{
	inode->i_atime = (struct timespec64){ attr->atime, attr->atime_ns };
	inode->i_mtime = (struct timespec64){ attr->mtime, attr->mtime_ns };
	inode->i_ctime = (struct timespec64){ attr->ctime, attr->ctime_ns };
}
#endif

void khofs_setup_inode(struct inode *inode, umode_t mode, dev_t dev)
{
	inode->i_mapping->a_ops = &khofs_aops;
	mapping_set_gfp_mask(inode->i_mapping, GFP_HIGHUSER);
	mapping_set_unevictable(inode->i_mapping);
	/*
	 * Set even if khofs makes no folios of 2 MiB, because it may verify their layout later. If
	 * a mapping without this flag had large folios, the kernel would count the large folios
	 * that leave it, and would empty such a file when a process opens it for writing
	 * (do_dentry_open() of fs/open.c, with CONFIG_READ_ONLY_THP_FOR_FS).
	 */
	if (S_ISREG(mode))
		mapping_set_large_folios(inode->i_mapping);
	/*
	 * The nodes of the page cache are not charged either to a task that happens to touch a
	 * file.
	 */
	inode->i_mapping->i_pages.xa_flags &= ~XA_FLAGS_ACCOUNT;
	switch (mode & S_IFMT) {
	case S_IFREG:
		inode->i_op = &khofs_file_inode_operations;
		inode->i_fop = &khofs_file_operations;
		break;
	case S_IFDIR:
		inode->i_op = &khofs_dir_inode_operations;
		inode->i_fop = &simple_dir_operations;
		break;
	case S_IFLNK:
		inode->i_op = &khofs_symlink_inode_operations;
		break;
	default:
		inode->i_op = &khofs_special_inode_operations;
		init_special_inode(inode, mode, dev);
	}
}

/*
 * Makes an inode; @target is the length of a symbolic link's target. ERR_PTR(-ENOSPC) or
 * ERR_PTR(-ENOMEM).
 */
static struct inode *new(IDMAP *idmap, struct inode *dir, umode_t mode, dev_t dev, size_t target)
{
	u32 id = khofs_id(dir->i_sb);
	struct inode *inode;
	u64 ino;
	void *file = khofs_rs_file_new(id, target, &ino);
	int error;

	if (IS_ERR(file))
		return ERR_CAST(file);
	inode = new_inode(dir->i_sb);
	if (!inode) {
		khofs_rs_file_free(id, file);
		return ERR_PTR(-ENOMEM);
	}
	khofs_i(inode)->file = file;
	inode->i_ino = ino;
	inode_init_owner(idmap, inode, dir, mode);
	init_times(inode);
	khofs_setup_inode(inode, inode->i_mode, dev);
	error = khofs_inherit_acl(dir, inode);
	if (error) {
		iput(inode);
		return ERR_PTR(error);
	}
	if (S_ISDIR(inode->i_mode))
		inc_nlink(inode);
	return inode;
}

static void persist(struct dentry *dentry, struct inode *inode)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
	d_make_persistent(dentry, inode);
#else
	d_instantiate(dentry, inode);
	dget(dentry);
#endif
}

static int do_make(IDMAP *idmap, struct inode *dir, struct dentry *dentry, umode_t mode, dev_t dev,
		   const char *target)
{
	size_t len = target ? strlen(target) : 0;
	struct inode *inode;

	/* check.rs refuses longer targets in the next kernel. */
	if (len >= PATH_MAX)
		return -ENAMETOOLONG;
	inode = new(idmap, dir, mode, dev, len);
	if (IS_ERR(inode))
		return PTR_ERR(inode);
	if (target) {
		inode->i_link = kstrdup(target, GFP_KERNEL);
		inode->i_size = len;
		if (!inode->i_link) {
			iput(inode);
			return -ENOMEM;
		}
	}
	persist(dentry, inode);
	touch(dir);
	if (S_ISDIR(mode))
		inc_nlink(dir);
	return 0;
}

static int make(IDMAP *idmap, struct inode *dir, struct dentry *dentry, umode_t mode, dev_t dev,
		const char *target)
{
	return KHOFS_BETWEEN(do_make(idmap, dir, dentry, mode, dev, target));
}

static int mknod(IDMAP *idmap, struct inode *dir, struct dentry *dentry, umode_t mode, dev_t dev)
{
	return make(idmap, dir, dentry, mode, dev, NULL);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 3, 0)
static int create(IDMAP *idmap, struct inode *dir, struct dentry *dentry, umode_t mode)
#else
static int create(IDMAP *idmap, struct inode *dir, struct dentry *dentry, umode_t mode, bool excl)
#endif
{
	return make(idmap, dir, dentry, mode | S_IFREG, 0, NULL);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
static struct dentry *mkdir(IDMAP *idmap, struct inode *dir, struct dentry *dentry, umode_t mode)
{
	return ERR_PTR(make(idmap, dir, dentry, mode | S_IFDIR, 0, NULL));
}
#else
static int mkdir(IDMAP *idmap, struct inode *dir, struct dentry *dentry, umode_t mode)
{
	return make(idmap, dir, dentry, mode | S_IFDIR, 0, NULL);
}
#endif

static int symlink(IDMAP *idmap, struct inode *dir, struct dentry *dentry, const char *target)
{
	return make(idmap, dir, dentry, S_IFLNK | 0777, 0, target);
}

static int do_tmpfile(IDMAP *idmap, struct inode *dir, struct file *file, umode_t mode)
{
	struct inode *inode = new(idmap, dir, mode, 0, 0);

	if (IS_ERR(inode))
		return PTR_ERR(inode);
	d_tmpfile(file, inode);
	return 0;
}

static int tmpfile(IDMAP *idmap, struct inode *dir, struct file *file, umode_t mode)
{
	return finish_open_simple(file, KHOFS_BETWEEN(do_tmpfile(idmap, dir, file, mode)));
}

/*
 * Each name costs a dentry, which stays. The first name is counted with its inode, even if a file
 * that was made without a name (O_TMPFILE) gets it later.
 */
static int do_link(struct dentry *old, struct inode *dir, struct dentry *dentry)
{
	u32 id = khofs_id(dir->i_sb);
	bool further = d_inode(old)->i_nlink > 0;
	int error = further ? khofs_rs_name_new(id) : 0;

	if (error)
		return error;
	error = simple_link(old, dir, dentry);
	if (error && further)
		khofs_rs_name_gone(id);
	return error;
}

static int link(struct dentry *old, struct inode *dir, struct dentry *dentry)
{
	return KHOFS_BETWEEN(do_link(old, dir, dentry));
}

/*
 * Whether the inode stays after it loses this name: then the name was counted in addition to the
 * inode.
 */
static bool has_further_names(struct dentry *dentry)
{
	return d_really_is_positive(dentry) && !d_is_dir(dentry) && d_inode(dentry)->i_nlink > 1;
}

static int do_unlink(struct inode *dir, struct dentry *dentry)
{
	bool further = has_further_names(dentry);
	int error = simple_unlink(dir, dentry);

	if (!error && further)
		khofs_rs_name_gone(khofs_id(dir->i_sb));
	return error;
}

static int unlink(struct inode *dir, struct dentry *dentry)
{
	return KHOFS_BETWEEN(do_unlink(dir, dentry));
}

static int rmdir(struct inode *dir, struct dentry *dentry)
{
	return KHOFS_BETWEEN(simple_rmdir(dir, dentry));
}

/*
 * Makes the whiteout that an overlay leaves in the place of a renamed file, before the file is
 * renamed, as tmpfs does.
 */
static int whiteout(IDMAP *idmap, struct inode *dir, struct dentry *old)
{
	struct dentry *dentry = d_alloc(old->d_parent, &old->d_name);
	int error;

	if (!dentry)
		return -ENOMEM;
	error = do_make(idmap, dir, dentry, S_IFCHR | WHITEOUT_MODE, WHITEOUT_DEV, NULL);
	/* The dentry is pinned, or was not made. */
	dput(dentry);
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
	if (!error)
		d_rehash(dentry);
#endif
	return error;
}

static int do_rename(IDMAP *idmap, struct inode *old_dir, struct dentry *old, struct inode *new_dir,
		     struct dentry *new, unsigned int flags)
{
	bool further = !(flags & RENAME_EXCHANGE) && has_further_names(new);
	int error;

	if (flags & RENAME_WHITEOUT) {
		error = simple_empty(new) ? whiteout(idmap, old_dir, old) : -ENOTEMPTY;
		if (error)
			return error;
	}
	error = simple_rename(idmap, old_dir, old, new_dir, new, flags & ~RENAME_WHITEOUT);
	if (!error && further)
		khofs_rs_name_gone(khofs_id(new_dir->i_sb));
	return error;
}

static int rename(IDMAP *idmap, struct inode *old_dir, struct dentry *old, struct inode *new_dir,
		  struct dentry *new, unsigned int flags)
{
	return KHOFS_BETWEEN(do_rename(idmap, old_dir, old, new_dir, new, flags));
}

static int do_setattr(IDMAP *idmap, struct inode *inode, struct iattr *attr)
{
	if (attr->ia_valid & ATTR_MODE) {
		int error = khofs_chmod_acl(inode, attr->ia_mode);

		if (error)
			return error;
	}
	if ((attr->ia_valid & ATTR_SIZE) && attr->ia_size != i_size_read(inode)) {
		int error = khofs_setattr_size(inode, attr->ia_size);

		if (error)
			return error;
		touch(inode);
	}
	setattr_copy(idmap, inode, attr);
	return 0;
}

static int setattr(IDMAP *idmap, struct dentry *dentry, struct iattr *attr)
{
	int error = setattr_prepare(idmap, dentry, attr);

	return error ? error : KHOFS_BETWEEN(do_setattr(idmap, d_inode(dentry), attr));
}

static int getattr(IDMAP *idmap, const struct path *path, struct kstat *stat, u32 mask, unsigned int flags)
{
	struct inode *inode = d_inode(path->dentry);
	u64 pages;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	generic_fillattr(idmap, mask, inode, stat);
#else
	generic_fillattr(idmap, inode, stat);
#endif
	if (S_ISLNK(inode->i_mode))
		pages = khofs_rs_target_pages(inode->i_size);
	else
		pages = inode->i_mapping->nrpages + READ_ONCE(khofs_i(inode)->lazy);
	stat->blocks = pages << (PAGE_SHIFT - 9);
	return 0;
}

const struct inode_operations khofs_dir_inode_operations = {
	.create = create,
	.lookup = simple_lookup,
	.link = link,
	.unlink = unlink,
	.symlink = symlink,
	.mkdir = mkdir,
	.rmdir = rmdir,
	.mknod = mknod,
	.rename = rename,
	.tmpfile = tmpfile,
	.setattr = setattr,
	.getattr = getattr,
	.listxattr = khofs_listxattr,
	KHOFS_ACL_OPERATIONS,
};

const struct inode_operations khofs_file_inode_operations = {
	.setattr = setattr,
	.getattr = getattr,
	.listxattr = khofs_listxattr,
	KHOFS_ACL_OPERATIONS,
};

const struct inode_operations khofs_special_inode_operations = {
	.setattr = setattr,
	.getattr = getattr,
	.listxattr = khofs_listxattr,
	KHOFS_ACL_OPERATIONS,
};

const struct inode_operations khofs_symlink_inode_operations = {
	.get_link = simple_get_link,
	.setattr = setattr,
	.getattr = getattr,
	.listxattr = khofs_listxattr,
};

void khofs_changed(struct inode *inode)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	inode_set_ctime_current(inode);
#else
	inode->i_ctime = current_time(inode);
#endif
}

/* Extended attributes, under their full names */

static int xattr_get(const struct xattr_handler *handler, struct dentry *dentry, struct inode *inode,
		     const char *name, void *buf, size_t size)
{
	return khofs_rs_xattr_get(khofs_i(inode)->file, xattr_full_name(handler, name), buf, size);
}

static int xattr_set(const struct xattr_handler *handler, IDMAP *idmap, struct dentry *dentry,
		     struct inode *inode, const char *name, const void *value, size_t size, int flags)
{
	int error = KHOFS_BETWEEN(khofs_rs_xattr_set(khofs_id(inode->i_sb), khofs_i(inode)->file,
					       xattr_full_name(handler, name), value, size, flags));

	if (!error)
		khofs_changed(inode);
	return error;
}

ssize_t khofs_listxattr(struct dentry *dentry, char *buf, size_t size)
{
	return khofs_rs_xattr_list(khofs_i(d_inode(dentry))->file, capable(CAP_SYS_ADMIN), buf, size);
}

static const struct xattr_handler user_handler = {
	.prefix = XATTR_USER_PREFIX,
	.get = xattr_get,
	.set = xattr_set,
};

static const struct xattr_handler trusted_handler = {
	.prefix = XATTR_TRUSTED_PREFIX,
	.get = xattr_get,
	.set = xattr_set,
};

static const struct xattr_handler security_handler = {
	.prefix = XATTR_SECURITY_PREFIX,
	.get = xattr_get,
	.set = xattr_set,
};

const struct xattr_handler * const khofs_xattr_handlers[] = {
	&user_handler, &trusted_handler, &security_handler,
#if defined(CONFIG_FS_POSIX_ACL) && LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
	/* Later kernels call set_acl themselves. */
	&posix_acl_access_xattr_handler, &posix_acl_default_xattr_handler,
#endif
	NULL
};

/* For Rust: reading and making the tree */

void khofs_c_attr(struct inode *inode, struct khofs_attr *attr)
{
	attr->ino = inode->i_ino;
	attr->size = i_size_read(inode);
	attr->mode = inode->i_mode;
	attr->uid = from_kuid(&init_user_ns, inode->i_uid);
	attr->gid = from_kgid(&init_user_ns, inode->i_gid);
	attr->nlink = inode->i_nlink;
	attr->rdev = new_encode_dev(inode->i_rdev);
	get_times(inode, attr);
}

const char *khofs_c_target(struct inode *inode)
{
	return S_ISLNK(inode->i_mode) ? inode->i_link : NULL;
}

void *khofs_c_file(struct inode *inode)
{
	return khofs_i(inode)->file;
}

void khofs_c_set_lazy(struct inode *inode, u64 pages)
{
	/* Released after the pages are in the page cache, see khofs_get_page(). */
	smp_store_release(&khofs_i(inode)->lazy, pages);
}

struct inode *khofs_c_make_inode(struct super_block *sb, const struct khofs_attr *attr, void *file,
				 const char *target, size_t target_len)
{
	struct inode *inode = new_inode(sb);

	if (!inode)
		return NULL;
	if (S_ISLNK(attr->mode)) {
		char *copy = kmemdup_nul(target, target_len, GFP_KERNEL);

		if (!copy) {
			iput(inode);
			return NULL;
		}
		inode->i_mode = attr->mode;
		inode->i_link = copy;
	}
	/* From here on evict_inode frees @file. */
	khofs_i(inode)->file = file;
	inode->i_ino = attr->ino;
	inode->i_mode = attr->mode;
	i_uid_write(inode, attr->uid);
	i_gid_write(inode, attr->gid);
	i_size_write(inode, attr->size);
	khofs_setup_inode(inode, attr->mode, new_decode_dev(attr->rdev));
	set_times(inode, attr);
	set_nlink(inode, attr->nlink);
	return inode;
}

void khofs_c_put_inode(struct inode *inode)
{
	iput(inode);
}

void khofs_c_hold_inode(struct inode *inode)
{
	ihold(inode);
}

void khofs_c_set_links(struct inode *inode, u32 links)
{
	set_nlink(inode, links);
}

int khofs_c_set_root(struct super_block *sb, struct inode *inode)
{
	sb->s_root = d_make_root(inode);
	return sb->s_root ? 0 : -ENOMEM;
}

struct dentry *khofs_c_root(struct super_block *sb)
{
	return sb->s_root;
}

/*
 * Takes over the caller's reference on @inode. The dentry is pinned, and lives as long as the
 * superblock.
 */
struct dentry *khofs_c_attach(struct dentry *parent, const char *name, size_t len, struct inode *inode)
{
	struct qstr qstr = QSTR_INIT(name, len);
	struct dentry *dentry;

	qstr.hash = full_name_hash(parent, name, len);
	dentry = d_alloc(parent, &qstr);
	if (!dentry) {
		iput(inode);
		return NULL;
	}
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
	d_make_persistent(dentry, inode);
	dput(dentry);
#else
	d_add(dentry, inode);
#endif
	return dentry;
}

/*
 * The next child that has an inode, with a reference. Drops the reference on @after, which came
 * from this function.
 */
struct dentry *khofs_c_next_child(struct dentry *parent, struct dentry *after)
{
	struct dentry *at, *found = NULL;

	spin_lock(&parent->d_lock);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	at = after ? d_next_sibling(after) : d_first_child(parent);
	hlist_for_each_entry_from(at, d_sib) {
#else
	at = after ? after : list_entry(&parent->d_subdirs, struct dentry, d_child);
	list_for_each_entry_continue(at, &parent->d_subdirs, d_child) {
#endif
		if (!simple_positive(at))
			continue;
		spin_lock_nested(&at->d_lock, DENTRY_D_LOCK_NESTED);
		if (simple_positive(at))
			found = dget_dlock(at);
		spin_unlock(&at->d_lock);
		if (found)
			break;
	}
	spin_unlock(&parent->d_lock);
	dput(after);
	return found;
}

void khofs_c_put_dentry(struct dentry *dentry)
{
	dput(dentry);
}

/* The names do not change while khofs is frozen. */
struct inode *khofs_c_dentry(struct dentry *dentry, const char **name, size_t *len)
{
	*name = dentry->d_name.name;
	*len = dentry->d_name.len;
	return d_inode(dentry);
}
