// SPDX-License-Identifier: GPL-2.0-only
/*
 * The C part of kho_note, a sample driver in Rust (src/lib.rs): entry points and the file /sys/kernel/kho_note/text.
 */
#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sysfs.h>

int kho_note_rs_init(struct module *owner);
void kho_note_rs_exit(void);
ssize_t kho_note_rs_show(char *buf);
ssize_t kho_note_rs_store(const char *buf, size_t len);
void kho_note_c_lock(void);
void kho_note_c_unlock(void);
void kho_note_c_bug(void) __noreturn;

static DEFINE_MUTEX(lock);

void kho_note_c_lock(void)
{
	mutex_lock(&lock);
}

void kho_note_c_unlock(void)
{
	mutex_unlock(&lock);
}

void kho_note_c_bug(void)
{
	BUG();
}

static ssize_t text_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return kho_note_rs_show(buf);
}

static ssize_t text_store(struct kobject *kobj, struct kobj_attribute *attr, const char *buf, size_t len)
{
	return kho_note_rs_store(buf, len);
}

static struct kobj_attribute text_attr = __ATTR(text, 0600, text_show, text_store);
static struct kobject *kobj;

static int __init note_init(void)
{
	int error;

	kobj = kobject_create_and_add("kho_note", kernel_kobj);
	if (!kobj)
		return -ENOMEM;
	error = kho_note_rs_init(THIS_MODULE);
	if (error)
		goto put;
	error = sysfs_create_file(kobj, &text_attr.attr);
	if (!error)
		return 0;
	kho_note_rs_exit();
put:
	kobject_del(kobj);
	kobject_put(kobj);
	return error;
}

static void __exit note_exit(void)
{
	kobject_del(kobj);
	kobject_put(kobj);
	kho_note_rs_exit();
}

module_init(note_init);
module_exit(note_exit);
MODULE_DESCRIPTION("Sample: a driver in Rust whose text survives kexec");
MODULE_LICENSE("GPL");
