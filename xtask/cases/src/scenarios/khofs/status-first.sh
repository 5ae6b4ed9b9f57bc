# Checks kho doctor, before the module is loaded and after.
doctor_says() {
	kho doctor >/tmp/doctor || true
	grep ' khofs ' /tmp/doctor
	grep -q "^ok *khofs .*$1" /tmp/doctor
}
doctor_says 'is loaded'
rmmod khofs
doctor_says 'not installed for this kernel'
kho status --json >/tmp/status
grep -q '"khofs": null' /tmp/status
modules=$(readlink -f /lib/modules)
mount -t tmpfs none /mnt
mkdir /mnt/$KHO_RELEASE
echo 'updates/khofs.ko: updates/kho.ko' >/mnt/$KHO_RELEASE/modules.dep
rm /lib/modules
ln -s /mnt /lib/modules
doctor_says 'installed and not in use'
rm /lib/modules
ln -s $modules /lib/modules
insmod /lib/modules/$KHO_RELEASE/updates/khofs.ko
doctor_says 'is loaded'

# No instance, then two.
[ "$(kho status --json | grep -c '"khofs": \[\]')" = 1 ]
mount_khofs /k name=vm,size=64m
mount_khofs /b name=other
kho-guest bytes 3000000 --seed 1 >/k/a
kho-guest bytes 5000 --seed 2 >/k/b
: >/k/empty
mkdir /k/dir
ln /k/a /k/dir/a
echo other >/b/file
[ "$(instance vm state)" = live ]
# The root, a directory and three files, one of them with two names.
[ "$(instance vm inodes)" = 5 ]
[ "$(instance vm bytes)" = $(((733 + 2) * 4096)) ]
[ "$(instance vm limit)" = $((64 << 20)) ]
[ "$(instance vm unclaimed)" = 0 ]
[ "$(instance vm ranges)" -ge 1 ]
[ "$(instance vm slack)" -gt 0 ]
[ "$(instance vm slack)" -lt $((16 << 20)) ]
[ "$(instance other inodes)" = 2 ]
[ "$(instance other bytes)" = 4096 ]
for key in inodes bytes ranges slack unclaimed limit; do
	[ "$(instance vm $key)" = "$(status_of vm $key)" ]
done
kho status | grep '^khofs *vm *5 inodes, 2.87 MiB of 64.0 MiB in .* of slack; umount keeps it, kho release /khofs/vm ends it'

# A release is refused for an instance that is mounted, frozen, part of a loaded image, or unknown.
refused 'umount it everywhere first' kho release /khofs/other
refused 'no node /khofs/none arrived' kho release /khofs/none
grep -q 'there is .*/khofs/other.*/khofs/vm\|there is .*/khofs/vm.*/khofs/other' /tmp/refused
kho release /khofs/none 2>/dev/null || [ $? = 34 ]
umount /b
kho activate
refused 'kho abort' kho release /khofs/other
kho abort
load
refused 'kho unload' kho release /khofs/other
kho abort
[ "$(instance other bytes)" = 4096 ]
kho release /khofs/other
[ -z "$(instance other state)" ]
mount_khofs /b name=other
[ -z "$(ls /b)" ]
umount /b
kho release /khofs/other

# For the next kernels: instances that only the last of them mounts, and one that is mounted and not read.
for name in left seen idle; do
	mount_khofs /$name name=$name
	kho-guest bytes 5000000 --seed 3 >/$name/large
	mkdir /$name/dir
	echo $name >/$name/dir/small
	kho-guest hash-tree /$name --same $name
	umount /$name
done

# The addresses of the pages, for the next kernels.
kho-guest map where /k/a /k/b >/tmp/where
tr '{' '\n' </tmp/where | sed -n 's/^"addr":\([0-9]*\),"len":\([0-9]*\)}.*/\1 \2/p' >/tmp/pages
cat /tmp/pages
[ "$(awk '{ pages += $2 / 4096 } END { print pages }' /tmp/pages)" = 735 ]
kho keep --name pages - </tmp/pages
umount /k
