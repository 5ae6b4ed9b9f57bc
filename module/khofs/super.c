// SPDX-License-Identifier: GPL-2.0-only
/*
 * C glue of khofs: the module, superblocks and mount options.
 *
 * An instance owns its superblock by an active reference that no umount drops, so its files stay
 * when it is not mounted. Every mount of an instance's name is one more mount of the same
 * superblock.
 */
#include <linux/delay.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/init.h>
#include <linux/io.h>
#include <linux/kobject.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/statfs.h>
#include <linux/sysfs.h>
#include <linux/workqueue.h>

#include "khofs.h"

/* Memory, locks, log */

/*
 * Mutex 0 protects the state. An allocation under it must not wait for a file system or a device: a
 * loop device or swap may be on khofs, and its writes need this mutex.
 */
static struct mutex locks[1] = { __MUTEX_INITIALIZER(locks[0]) };
static unsigned int scope;
/* For tests: the task that holds the mutex. */
static struct task_struct *holder;

void kho_c_lock(u32 which)
{
	unsigned int before = memalloc_noio_save();

	mutex_lock(&locks[0]);
	scope = before;
	WRITE_ONCE(holder, current);
}

void kho_c_unlock(u32 which)
{
	unsigned int before = scope;

	WRITE_ONCE(holder, NULL);
	mutex_unlock(&locks[0]);
	memalloc_noio_restore(before);
}

void *kho_c_alloc(size_t size)
{
#ifdef KHO_FAULTS
	WARN_ON_ONCE(READ_ONCE(holder) == current && !(current->flags & PF_MEMALLOC_NOIO));
#endif
	return kvmalloc(size, GFP_KERNEL | __GFP_NOWARN);
}

void kho_c_free(void *p)
{
	kvfree(p);
}

void kho_c_log(u32 level, const char *text, size_t len)
{
	if (level == 0)
		pr_err("khofs: %.*s\n", (int)len, text);
	else if (level == 1)
		pr_warn("khofs: %.*s\n", (int)len, text);
	else
		pr_info("khofs: %.*s\n", (int)len, text);
}

void kho_c_bug(void)
{
	BUG();
}

void kho_c_relax(void)
{
	cond_resched();
}

#ifdef KHO_FAULTS
/*
 * Only in the build for tests: a task that reaches the step in `wait_at` ("fill", "release",
 * "allocate") waits there until `wait_at` changes. `waits` is true while a task waits.
 */
static char wait_at[16];
module_param_string(wait_at, wait_at, sizeof(wait_at), 0600);
static bool waits;
module_param(waits, bool, 0400);

void khofs_wait_here(const char *step)
{
	while (sysfs_streq(wait_at, step)) {
		WRITE_ONCE(waits, true);
		msleep(10);
	}
	WRITE_ONCE(waits, false);
}
#endif

/* Pages */

/*
 * All pages of the machine, in use or not. totalram_pages() leaves out arrived pages that are not
 * claimed yet, so a percentage of it would be a different number on each hop.
 */
u64 khofs_c_ram_pages(void)
{
	return get_num_physpages();
}

void *kho_c_virt(u64 phys)
{
	return phys_to_virt(phys);
}

int khofs_c_page_count(u64 pfn)
{
	return page_count(pfn_to_page(pfn));
}

bool khofs_c_reserved(u64 pfn)
{
	return PageReserved(pfn_to_page(pfn));
}

void khofs_c_page_put(u64 pfn)
{
	put_page(pfn_to_page(pfn));
}

/* Number of good pages before the first page whose memory failed. */
u64 khofs_c_good_pages(u64 pfn, u64 count)
{
	u64 good;

	for (good = 0; good < count && !PageHWPoison(pfn_to_page(pfn + good)); good++)
		if (!(good % HPAGE_PMD_NR))
			cond_resched();
	return good;
}

u64 khofs_c_take_pages(size_t count)
{
	struct page *page = kho_take_pages(count);

	return page ? page_to_pfn(page) : 0;
}

u64 khofs_c_alloc_pages(size_t count)
{
	struct page *page = kho_alloc_pages(count);

	return page ? page_to_pfn(page) : 0;
}

void khofs_c_free_pages(u64 pfn, size_t count)
{
	kho_free_pages(pfn_to_page(pfn), count);
}

static struct workqueue_struct *workers;

static void reap(struct work_struct *work)
{
	khofs_rs_reap();
}

static DECLARE_DELAYED_WORK(reaper, reap);

void khofs_c_reap_later(void)
{
	queue_delayed_work(workers, &reaper, 2 * HZ);
}

void khofs_c_now(s64 *seconds, u32 *nanoseconds)
{
	struct timespec64 now;

	ktime_get_real_ts64(&now);
	*seconds = now.tv_sec;
	*nanoseconds = now.tv_nsec;
}

/*
 * Pages that arrived come into the page cache when a task touches them. A while after the mount,
 * this kernel thread brings the rest, so that the kernel counts the machine's memory correctly and
 * no task waits for its pages.
 */
/* A task that releases an instance does not wait until all of it has been brought. */
static bool bringer_waits;

static void bring_inode(struct inode *inode)
{
	u32 id = khofs_id(inode->i_sb);
	void *file = khofs_i(inode)->file;
	u64 index = 0;

	while (READ_ONCE(khofs_i(inode)->lazy) && !READ_ONCE(bringer_waits)) {
		index = khofs_rs_next_lazy(file, index);
		if (index == U64_MAX || khofs_rs_bring(id, file, inode, index) <= 0)
			return;
		cond_resched();
	}
}

static void bring_super(struct super_block *sb)
{
	struct inode *inode, *done = NULL;

	spin_lock(&sb->s_inode_list_lock);
	list_for_each_entry(inode, &sb->s_inodes, i_sb_list) {
		if (READ_ONCE(bringer_waits))
			break;
		if (!READ_ONCE(khofs_i(inode)->lazy) || !igrab(inode))
			continue;
		spin_unlock(&sb->s_inode_list_lock);
		/*
		 * The previous inode is dropped only now, because it held the position in the list.
		 */
		iput(done);
		bring_inode(inode);
		done = inode;
		spin_lock(&sb->s_inode_list_lock);
	}
	spin_unlock(&sb->s_inode_list_lock);
	iput(done);
}

static void bring_all(struct work_struct *work)
{
	struct super_block *sb;
	u32 id = 0;

	while (!READ_ONCE(bringer_waits) && (sb = khofs_rs_hold_super(&id))) {
		bring_super(sb);
		deactivate_super(sb);
	}
}

static DECLARE_DELAYED_WORK(bringer, bring_all);

void khofs_c_hold_super(struct super_block *sb)
{
	atomic_inc(&sb->s_active);
}

/* Superblocks */

static struct kmem_cache *inodes;

static struct inode *new_khofs_inode(struct super_block *sb)
{
	struct khofs_inode *info = alloc_inode_sb(sb, inodes, GFP_KERNEL);

	if (!info)
		return NULL;
	info->file = NULL;
	info->lazy = 0;
	info->write_end = 0;
	info->zeros = false;
	return &info->vfs;
}

static void free_khofs_inode(struct inode *inode)
{
	if (S_ISLNK(inode->i_mode))
		kfree(inode->i_link);
	kmem_cache_free(inodes, khofs_i(inode));
}

static void evict_inode(struct inode *inode)
{
	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
	if (khofs_i(inode)->file)
		khofs_rs_file_free(khofs_id(inode->i_sb), khofs_i(inode)->file);
}

static int statfs(struct dentry *dentry, struct kstatfs *buf)
{
	u64 id = huge_encode_dev(dentry->d_sb->s_dev), n[4];

	khofs_rs_statfs(khofs_id(dentry->d_sb), n);
	buf->f_type = KHOFS_MAGIC;
	buf->f_bsize = PAGE_SIZE;
	buf->f_namelen = NAME_MAX;
	buf->f_blocks = n[0];
	buf->f_bavail = buf->f_bfree = n[0] > n[1] ? n[0] - n[1] : 0;
	buf->f_files = n[2];
	buf->f_ffree = n[2] > n[3] ? n[2] - n[3] : 0;
	buf->f_fsid = u64_to_fsid(id);
	return 0;
}

static int show_options(struct seq_file *m, struct dentry *root)
{
	char text[160];

	if (khofs_rs_show_options(khofs_id(root->d_sb), text, sizeof(text)) > 0)
		seq_puts(m, text);
	return 0;
}

static const struct super_operations super_ops = {
	.alloc_inode = new_khofs_inode,
	.free_inode = free_khofs_inode,
	.evict_inode = evict_inode,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0)
	.drop_inode = inode_just_drop,
#else
	.drop_inode = generic_delete_inode,
#endif
	.statfs = statfs,
	.show_options = show_options,
};

static int fill(struct super_block *sb, struct fs_context *fc)
{
	int error;

	/* Repeats the check if there was no memory for it when the module was loaded. */
	khofs_c_check_folios();
	sb->s_maxbytes = MAX_LFS_FILESIZE;
	sb->s_blocksize = PAGE_SIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_magic = KHOFS_MAGIC;
	sb->s_op = &super_ops;
	sb->s_time_gran = 1;
	/*
	 * Without this flag every write would look for an attribute with capabilities, which it
	 * would have to remove.
	 */
	sb->s_flags |= SB_NOSEC;
#ifdef CONFIG_FS_POSIX_ACL
	sb->s_flags |= SB_POSIXACL;
#endif
	sb->s_xattr = (void *)khofs_xattr_handlers;
	khofs_wait_here("fill");
	error = khofs_rs_fill(khofs_id(sb), sb, fc->fs_private);
	if (!error)
		mod_delayed_work(workers, &bringer, 5 * HZ);
	return error;
}

/*
 * Mounts make instances and releases remove them, one at a time. An activation waits for both,
 * because it must not serialize an instance that is being filled or released. The mutex is taken
 * before s_umount. hand_over() takes it with the lock of kho.ko's phase held, so code under the
 * mutex must not call a function that waits for that lock: of kho.h, neither of the two functions
 * that register nor kho_hold_node().
 */
static DEFINE_MUTEX(come_and_go);

/*
 * Drops the instance's reference; -EBUSY if the instance is mounted. Other references come from
 * get_tree(), which waits for come_and_go, from a mount, which has one already, and from
 * bring_all(), which stops and does not find this superblock again.
 */
int khofs_c_drop_super(struct super_block *sb)
{
	int error = 0;

	WRITE_ONCE(bringer_waits, true);
	cancel_delayed_work_sync(&bringer);
	WRITE_ONCE(bringer_waits, false);
	if (atomic_read(&sb->s_active) == 1) {
		khofs_wait_here("release");
		deactivate_super(sb);
	} else {
		error = -EBUSY;
	}
	/* For the instances that stay. */
	queue_delayed_work(workers, &bringer, 5 * HZ);
	return error;
}

/* Sets the limits of an existing instance. On an error nothing changes. */
static int change(struct fs_context *fc, u32 id)
{
	char why[200];
	int error = khofs_rs_reconfigure(id, fc->fs_private, why, sizeof(why));

	if (error)
		errorf(fc, "khofs: %s", why);
	return error;
}

/*
 * The flags of one mount must not apply to other mounts of the same superblock: each mount is
 * read-only by its own flag (MNT_READONLY), and the other flags have no meaning in memory.
 */
#define OF_ONE_MOUNT (SB_RDONLY | SB_SYNCHRONOUS | SB_DIRSYNC | SB_MANDLOCK | SB_LAZYTIME)

static int get_tree(struct fs_context *fc)
{
	struct super_block *sb;
	int id, error;

	mutex_lock(&come_and_go);
	id = khofs_rs_instance(fc->fs_private);
	error = id;
	if (id < 0)
		goto out;
	fc->sb_flags &= ~OF_ONE_MOUNT;
	error = get_tree_keyed(fc, fill, (void *)(unsigned long)id);
	/*
	 * A new superblock was filled with these options, and nothing may fail any more: it is not
	 * SB_BORN before this function returns, and a task that finds it would wait for that. An
	 * existing superblock is held and locked (s_umount), so after an error this function must
	 * release it.
	 */
	sb = error ? NULL : fc->root->d_sb;
	if (sb && (sb->s_flags & SB_BORN)) {
		error = change(fc, id);
		if (error) {
			dput(fc->root);
			fc->root = NULL;
			deactivate_locked_super(sb);
		}
	}
	khofs_rs_instance_done();
out:
	mutex_unlock(&come_and_go);
	return error;
}

static int reconfigure(struct fs_context *fc)
{
	fc->sb_flags &= ~OF_ONE_MOUNT;
	return change(fc, khofs_id(fc->root->d_sb));
}

static int parse_param(struct fs_context *fc, struct fs_parameter *param)
{
	const char *value = param->type == fs_value_is_string ? param->string : NULL;
	int error = vfs_parse_fs_param_source(fc, param);

	if (error != -ENOPARAM)
		return error;
	error = khofs_rs_option(fc->fs_private, param->key, value);
	if (error == -EINVAL)
		return invalf(fc, "khofs: bad value '%s' of option '%s'", value ? value : "", param->key);
	return error;
}

static void free_context(struct fs_context *fc)
{
	khofs_rs_options_free(fc->fs_private);
}

static const struct fs_context_operations context_ops = {
	.parse_param = parse_param,
	.get_tree = get_tree,
	.reconfigure = reconfigure,
	.free = free_context,
};

static int init_context(struct fs_context *fc)
{
	fc->fs_private = khofs_rs_options_new();
	if (!fc->fs_private)
		return -ENOMEM;
	fc->ops = &context_ops;
	return 0;
}

static void kill_sb(struct super_block *sb)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
	kill_anon_super(sb);
#else
	kill_litter_super(sb);
#endif
}

static struct file_system_type khofs_type = {
	.owner = THIS_MODULE,
	.name = "khofs",
	.init_fs_context = init_context,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	/* Since the version in which tmpfs has it (mm/shmem.c). */
	.fs_flags = FS_ALLOW_IDMAP,
#endif
	.kill_sb = kill_sb,
};
MODULE_ALIAS_FS("khofs");

/* Handing over */

/* Whether the arrived nodes have been read. */
static bool ready;

static int hand_over(struct kho_context *ctx, void *data)
{
	int error = -EAGAIN;

	mutex_lock(&come_and_go);
	if (ready)
		error = khofs_rs_serialize(ctx);
	mutex_unlock(&come_and_go);
	return error;
}

static void thaw(void *data)
{
	khofs_rs_thaw();
}

static struct kho_producer producer = {
	.name = "khofs",
	/* After drivers, which may hold khofs files. */
	.priority = 100,
	.serialize = hand_over,
	.abort = thaw,
};

int khofs_c_hold_node(s64 node)
{
	return kho_hold_node(&producer, node);
}

int khofs_c_release_node(s64 node)
{
	return kho_release_node(&producer, node);
}

/* /sys/fs/khofs */

static ssize_t status_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return khofs_rs_status_show(buf, PAGE_SIZE);
}

static ssize_t release_store(struct kobject *kobj, struct kobj_attribute *attr, const char *buf, size_t count)
{
	ssize_t result;

	mutex_lock(&come_and_go);
	result = khofs_rs_release_store(buf, count);
	mutex_unlock(&come_and_go);
	return result;
}

static ssize_t large_folios_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return khofs_large_show(buf);
}

static struct kobj_attribute status_attr = __ATTR(status, 0400, status_show, NULL);
static struct kobj_attribute release_attr = __ATTR(release, 0200, NULL, release_store);
static struct kobj_attribute large_folios_attr = __ATTR_RO(large_folios);
static const struct attribute *attrs[] = { &status_attr.attr, &release_attr.attr, &large_folios_attr.attr, NULL };
static struct kobject *kobj;

static void init_once(void *p)
{
	inode_init_once(&((struct khofs_inode *)p)->vfs);
}

static int __init khofs_init(void)
{
	int error = -ENOMEM;

	inodes = kmem_cache_create("khofs_inode", sizeof(struct khofs_inode), 0,
				   SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT, init_once);
	if (!inodes)
		return error;
	error = khofs_data_init();
	if (error)
		goto no_data;
	error = -ENOMEM;
	workers = alloc_workqueue("khofs", WQ_UNBOUND, 0);
	if (!workers)
		goto no_workers;
	khofs_c_check_folios();
	/* This comes first, because arrived nodes need a producer that holds them. */
	error = kho_register_producer(&producer);
	if (error)
		goto no_producer;
	error = khofs_rs_init();
	if (error)
		goto no_kobj;
	error = -ENOMEM;
	kobj = kobject_create_and_add("khofs", fs_kobj);
	if (!kobj)
		goto no_kobj;
	error = sysfs_create_files(kobj, attrs);
	if (error)
		goto no_files;
	mutex_lock(&come_and_go);
	ready = true;
	mutex_unlock(&come_and_go);
	error = register_filesystem(&khofs_type);
	if (!error)
		return 0;
no_files:
	kobject_del(kobj);
	kobject_put(kobj);
no_kobj:
	khofs_rs_exit();
	kho_unregister_producer(&producer);
no_producer:
	destroy_workqueue(workers);
no_workers:
	khofs_data_exit();
no_data:
	kmem_cache_destroy(inodes);
	return error;
}

/* Runs only if no instance has files in memory, because each instance holds the module. */
static void __exit khofs_finish(void)
{
	unregister_filesystem(&khofs_type);
	kho_unregister_producer(&producer);
	kobject_del(kobj);
	kobject_put(kobj);
	cancel_delayed_work_sync(&bringer);
	cancel_delayed_work_sync(&reaper);
	khofs_rs_exit();
	destroy_workqueue(workers);
	khofs_data_exit();
	rcu_barrier();
	kmem_cache_destroy(inodes);
}

module_init(khofs_init);
module_exit(khofs_finish);
MODULE_DESCRIPTION("khofs: a RAM file system whose files survive kexec in place");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
