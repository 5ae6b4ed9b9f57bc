// SPDX-License-Identifier: GPL-2.0-only
/*
 * C glue of khofs: POSIX ACLs. An ACL is kept as an extended attribute under its name, in the format
 * of setxattr(2) (include/uapi/linux/posix_acl_xattr.h), so it is handed over and counted with the
 * other attributes.
 */
#include <linux/fs.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/slab.h>
#include <linux/xattr.h>

#include "khofs.h"

#ifdef CONFIG_FS_POSIX_ACL
static const char *name_of(int type)
{
	return type == ACL_TYPE_DEFAULT ? XATTR_NAME_POSIX_ACL_DEFAULT : XATTR_NAME_POSIX_ACL_ACCESS;
}

struct posix_acl *khofs_get_acl(struct inode *inode, int type, bool rcu)
{
	void *file = khofs_i(inode)->file;
	struct posix_acl *acl;
	ssize_t len;
	void *value;

	/* The state's lock sleeps. */
	if (rcu)
		return ERR_PTR(-ECHILD);
	do {
		len = khofs_rs_xattr_get(file, name_of(type), NULL, 0);
		if (len <= 0)
			return len == -ENODATA ? NULL : ERR_PTR(len ? len : -EINVAL);
		value = kvmalloc(len, GFP_KERNEL);
		if (!value)
			return ERR_PTR(-ENOMEM);
		len = khofs_rs_xattr_get(file, name_of(type), value, len);
		acl = len < 0 ? ERR_PTR(len) : posix_acl_from_xattr(&init_user_ns, value, len);
		kvfree(value);
		/* The ACL became longer meanwhile. */
	} while (len == -ERANGE);
	return len == -ENODATA ? NULL : acl;
}

/* An allocated copy of @acl in the format of setxattr(2). */
static void *pack(const struct posix_acl *acl, size_t *size)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
	void *value = posix_acl_to_xattr(&init_user_ns, acl, size, GFP_KERNEL);

	return value ? value : ERR_PTR(-ENOMEM);
#else
	void *value;
	int len;

	*size = posix_acl_xattr_size(acl->a_count);
	value = kmalloc(*size, GFP_KERNEL);
	if (!value)
		return ERR_PTR(-ENOMEM);
	len = posix_acl_to_xattr(&init_user_ns, acl, value, *size);
	if (len < 0) {
		kfree(value);
		return ERR_PTR(len);
	}
	return value;
#endif
}

/* @acl NULL: removes the ACL. The caller is between khofs_enter() and khofs_exit(). */
static int store(struct inode *inode, struct posix_acl *acl, int type)
{
	void *value = NULL;
	size_t size = 0;
	int error;

	if (acl) {
		value = pack(acl, &size);
		if (IS_ERR(value))
			return PTR_ERR(value);
	}
	error = khofs_rs_xattr_set(khofs_id(inode->i_sb), khofs_i(inode)->file, name_of(type), value, size, 0);
	kfree(value);
	if (!acl && error == -ENODATA)
		error = 0;
	if (!error)
		set_cached_acl(inode, type, acl);
	return error;
}

static int do_set(IDMAP *idmap, struct inode *inode, struct posix_acl *acl, int type)
{
	umode_t mode = inode->i_mode;
	int error = 0;

	if (type == ACL_TYPE_ACCESS)
		error = posix_acl_update_mode(idmap, inode, &mode, &acl);
	if (!error)
		error = store(inode, acl, type);
	if (error)
		return error;
	inode->i_mode = mode;
	khofs_changed(inode);
	return 0;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
int khofs_set_acl(IDMAP *idmap, struct dentry *dentry, struct posix_acl *acl, int type)
{
	struct inode *inode = d_inode(dentry);
#else
int khofs_set_acl(IDMAP *idmap, struct inode *inode, struct posix_acl *acl, int type)
{
#endif
	return KHOFS_BETWEEN(do_set(idmap, inode, acl, type));
}

int khofs_inherit_acl(struct inode *dir, struct inode *inode)
{
	struct posix_acl *of_dir, *of_inode;
	int error = posix_acl_create(dir, &inode->i_mode, &of_dir, &of_inode);

	if (error)
		return error;
	/* A new inode has no ACL: no task needs to ask the Rust half. */
	cache_no_acl(inode);
	if (of_dir)
		error = store(inode, of_dir, ACL_TYPE_DEFAULT);
	if (!error && of_inode)
		error = store(inode, of_inode, ACL_TYPE_ACCESS);
	posix_acl_release(of_dir);
	posix_acl_release(of_inode);
	return error;
}

int khofs_chmod_acl(struct inode *inode, umode_t mode)
{
	struct posix_acl *acl;
	int error;

	if (S_ISLNK(inode->i_mode))
		return 0;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	acl = get_inode_acl(inode, ACL_TYPE_ACCESS);
#else
	acl = get_acl(inode, ACL_TYPE_ACCESS);
#endif
	if (IS_ERR_OR_NULL(acl))
		return PTR_ERR_OR_ZERO(acl);
	/* Releases the ACL, and makes a new one unless it fails. */
	error = __posix_acl_chmod(&acl, GFP_KERNEL, mode);
	if (error)
		return error;
	error = store(inode, acl, ACL_TYPE_ACCESS);
	posix_acl_release(acl);
	return error;
}
#else
int khofs_inherit_acl(struct inode *dir, struct inode *inode)
{
	return 0;
}

int khofs_chmod_acl(struct inode *inode, umode_t mode)
{
	return 0;
}
#endif
