before=$(cut -d ' ' -f 1 /proc/uptime)
mount_khofs /k name=vm,size=$KHO_PERCENT%
is_part_of_memory
echo "mounted from $before to $(cut -d ' ' -f 1 /proc/uptime)"
[ "$(status_of vm unclaimed)" = $((KHO_BIG << 20)) ]
if [ $KHO_HOP = 1 ]; then
	# A task with little memory reads all of it, before any other task does.
	mkdir -p /cg
	mount -t cgroup2 none /cg
	echo +memory >/cg/cgroup.subtree_control
	mkdir /cg/small
	echo $((16 << 20)) >/cg/small/memory.max
	sh -c 'echo $$ >/cg/small/cgroup.procs; exec kho-guest hash --same vm </k/vm'
	cat /cg/small/memory.events /cg/small/memory.current
	grep -q '^oom_kill 0$' /cg/small/memory.events
	grep -q '^max 0$' /cg/small/memory.events
	# Memory that one kernel had as folios of 2 MiB is in such folios in the next one again, mapped by huge pages.
	[ "$(status_of vm huge)" = $((KHO_BIG << 20)) ]
	[ "$(awk '/^FileHugePages/ { print $2 }' /proc/meminfo)" = $((KHO_BIG << 10)) ]
	[ "$(kho-guest map huge /k/vm)" = $((KHO_BIG << 10)) ]
	# A direct read into arrived pages: the kernel can pin them, the device can write them, and they stay in place.
	kho=$(which kho)
	kho-guest map direct $kho /k/vm
	size=$(stat -L -c %s $kho)
	head -c $size /k/vm | cmp - $kho
	kho-guest bytes $((KHO_BIG << 20)) --seed 9 | dd of=/k/vm bs=1M conv=notrunc 2>/dev/null
else
	# Untouched pages come into the page cache by themselves, a while after the mount.
	all_claimed() { [ "$(status_of vm unclaimed)" = 0 ]; }
	within_a_minute all_claimed
	kho-guest hash --same vm </k/vm
	[ "$(status_of vm huge)" = $((KHO_BIG << 20)) ]
	before=$(free_kib)
	rm /k/vm
	within_a_minute are_free $((before + (KHO_BIG << 10) * 98 / 100))
	# The freed memory can be used as huge pages too.
	huge=$((KHO_BIG / 4))
	echo $huge >/proc/sys/vm/nr_hugepages
	grep HugePages_Total /proc/meminfo
	[ "$(cat /proc/sys/vm/nr_hugepages)" -ge $((huge * 9 / 10)) ]
fi
