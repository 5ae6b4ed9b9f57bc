cat /sys/fs/khofs/status
[ "$(status_of vm state)" = arrived ]
[ "$(status_of cold state)" = arrived ]
if [ $KHO_HOP = 2 ]; then
	# No process mounts the instance in this kernel: it stays reserved and goes on.
	kho-guest fill
	exit 0
fi
mount_khofs /k name=vm
[ "$(stat -c %a /k)" = 750 ]
[ "$(status_of vm unclaimed)" = "$(status_of vm bytes)" ]
kho-guest fill
kho-guest hash-tree /k/tree --same tree
kho-guest hash --same big </k/big
[ $KHO_HOP != 1 ] || kho-guest map check /k/map
kho-guest map hash /k/big | kho-guest same big-mapped
# Folios hold all of it on every kernel, except the first 2 MiB, which were written before khofs knew that the file
# would be large.
cat /sys/fs/khofs/status
[ "$(status_of vm huge)" -ge $((22 << 20)) ]
# Repeats the random operations so far on another file system.
rounds=$(cat /k/rounds)
mkdir -p /mirror
mount -t tmpfs none /mirror -o size=80%
mkdir /mirror/churn
kho-guest churn /mirror/churn --last $rounds
same_trees /mirror/churn /k/churn
umount /mirror
rounds=$((rounds + 1))
kho-guest churn /k/churn --first $rounds --last $rounds
echo $rounds >/k/rounds
cat /sys/fs/khofs/status
if [ -z "$KHO_NEXT" ]; then
	mount_khofs /cold name=cold
	kho-guest hash-tree /cold --same cold
	[ "$(df -k /cold | tail -1 | awk '{print $2}')" = 8192 ]
	before=$(free_kib)
	rm -r /k/* /cold/file
	within_a_minute are_free $((before + (60 << 10)))
	cat /sys/fs/khofs/status
	[ "$(status_of vm bytes)" = 0 ]
	umount /k
	umount /cold
	echo vm >/sys/fs/khofs/release
	echo cold >/sys/fs/khofs/release
	rmmod khofs
	sed -n 's/^unclaimed: //p' /sys/kernel/kho/status
	[ "$(sed -n 's/^unclaimed: //p' /sys/kernel/kho/status)" = 0 ]
fi
