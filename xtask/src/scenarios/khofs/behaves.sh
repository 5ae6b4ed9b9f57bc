# The same operations in the same order on both file systems.
operations() (
	cd "$1"
	mkdir -p dir/sub
	echo one >dir/one
	ln dir/one dir/uno
	ln -s ../dir/one dir/sub/link
	mkfifo dir/pipe
	mknod dir/null c 1 3
	echo x >dir/null
	kho-guest bytes 3000001 --seed 5 >big
	cp big copy
	truncate -s 1500000 copy
	truncate -s 4000000 copy
	truncate -s 10000000 sparse
	echo end >>sparse
	dd if=big of=sparse bs=4096 seek=700 count=3 conv=notrunc 2>/dev/null
	fallocate -l 600000 solid
	chmod 4750 big
	chown 12:34 copy
	touch -d '2001-02-03 04:05:06' dir/one
	mv dir/sub/link dir/moved
	mv big dir/sub/big
	echo other >other
	mv other dir/one
	rm dir/uno
	mkdir gone
	rmdir gone
	exec 3>open
	rm open
	echo still there >&3
	[ "$(cat /proc/self/fd/3)" = "still there" ] || [ -z "$(cat /proc/self/fd/3)" ]
	exec 3>&-
	! rmdir dir 2>/dev/null
	! ln dir hard 2>/dev/null
	! mkdir dir 2>/dev/null
	! cat missing 2>/dev/null
)
describe() (
	cd "$1"
	# Sizes of directories differ between any two file systems.
	find . -type d -exec stat -c '%n %F %a %h %u %g' {} + | sort
	find . ! -type d -exec stat -c '%n %F %a %h %u %g %s %b %t %T' {} + | sort
	find . -type f -exec sha256sum {} + | sort -k 2
	find . -type l -exec readlink {} +
)
mount_khofs /k size=64m
mkdir -p /t
mount -t tmpfs none /t -o size=64m
for place in /k /t; do
	operations $place
	describe $place >/tmp/$(basename $place)
done
diff /tmp/t /tmp/k
cat /tmp/k
[ "$(stat -c %Y /k/dir/one)" = "$(stat -c %Y /k/dir/one)" ]

# Random operations.
mkdir /k/churn /t/churn
kho-guest churn /k/churn --last 4
kho-guest churn /t/churn --last 4
same_trees /k/churn /t/churn
rm -r /k/churn /t/churn

# A full disk, and one that is too small to become smaller.
for place in /k /t; do
	! dd if=/dev/zero of=$place/full bs=1M count=80 2>/dev/null
	! echo no >$place/more
	! mount -o remount,size=1m $place 2>/dev/null
	rm $place/full
	mount -o remount,size=32m $place
	! fallocate -l 40m $place/full
	rm -f $place/full $place/more
done
[ "$(df -k /k | tail -1 | awk '{print $2}')" = 32768 ]

# Instances, and that nothing but release ends one.
mount_khofs /a name=vm,mode=700,uid=5,gid=6
[ "$(stat -c '%a %u %g' /a)" = "700 5 6" ]
echo vm >/a/file
umount /a
mount_khofs /a name=vm
mount_khofs /b name=vm
[ "$(cat /b/file)" = vm ]
[ ! -e /k/file ]
refused busy sh -c 'echo vm >/sys/fs/khofs/release' || refused Busy sh -c 'echo vm >/sys/fs/khofs/release' || true
[ "$(status_of vm state)" = live ]
umount /a
umount /b
echo vm >/sys/fs/khofs/release
[ -z "$(status_of vm state)" ]
refused 'valid argument' mount -t khofs none /a -o size=much
refused 'valid argument' mount -t khofs none /a -o name=a/b
! rmmod khofs

# All memory comes back.
sync
before=$(free_kib)
kho-guest bytes $((24 << 20)) --seed 6 >/k/data
mkdir /k/many
for i in $(seq 300); do echo $i >/k/many/$i; done
[ $((before - $(free_kib))) -ge $((20 << 10)) ]
rm -r /k/data /k/many
umount /k
echo default >/sys/fs/khofs/release
sleep 5
cat /sys/fs/khofs/status
after=$(free_kib)
echo "free before $before KiB, after $after KiB"
[ $((before - after)) -le 4096 ]
rmmod khofs
insmod /lib/modules/$KHO_RELEASE/updates/khofs.ko
