# Without a mount, every page is in its place, reserved, and not free memory.
pages_are_reserved() {
	while read -r addr len; do
		kho-guest reserved $addr $len || return 1
	done </tmp/pages
}
kho get pages >/tmp/pages
pages_are_reserved
kho-guest fill
pages_are_reserved
[ "$(instance vm state)" = arrived ]
[ "$(instance vm inodes)" = 5 ]
[ "$(instance vm bytes)" = $(((733 + 2) * 4096)) ]
[ "$(instance vm unclaimed)" = "$(instance vm bytes)" ]
[ "$(instance vm ranges)" -ge 1 ]
kho status | grep '^khofs *vm .*; arrived: mount -t khofs -o name=vm none /PLACE shows it'
kho doctor | grep '^ok *khofs .*is loaded'
mount_khofs /seen name=seen
# kho release does not free memory in which khofs has files, read or not: neither with all other nodes nor alone, by the
# command or by the module's file, inside and outside the active phase.
nothing_is_given_back() {
	reserved=$(sed -n 's/^unclaimed: //p' /sys/kernel/kho/status)
	[ "$reserved" -gt 10000000 ]
	for what in all /khofs /khofs/left /khofs/left/tree; do
		refused '[Bb]usy' sh -c "echo $what >/sys/kernel/kho/release"
	done
	refused "$1" kho release all
	kho release all 2>/dev/null || [ $? = 55 ]
	refused "$1" kho release /khofs
	[ "$(sed -n 's/^unclaimed: //p' /sys/kernel/kho/status)" = $reserved ]
	pages_are_reserved
}
if [ -n "$KHO_NEXT" ]; then
	nothing_is_given_back 'the producer khofs has /khofs/'
	kho activate
	nothing_is_given_back 'handed over\|the producer khofs has /khofs/'
	kho abort
	kho-guest fill
	kho-guest hash-tree /seen --same seen
	umount /seen
	kho activate
	nothing_is_given_back 'handed over\|the producer khofs has /khofs/'
	load
	kho-guest fill
else
	mount_khofs /left name=left
	kho-guest hash-tree /left --same left
	kho-guest hash-tree /seen --same seen
	# Untouched pages come into the page cache by themselves, also if another instance is released meanwhile.
	mount_khofs /idle name=idle
	umount /seen
	kho release /khofs/seen
	[ -z "$(instance seen state)" ]
	comes_by_itself() {
		[ "$(status_of idle unclaimed)" = 0 ]
	}
	within_a_minute comes_by_itself
	kho-guest hash-tree /idle --same idle
	# A release without a mount.
	total=$(awk '/^MemTotal/ { print $2 }' /proc/meminfo)
	kho release /khofs/vm
	after=$(awk '/^MemTotal/ { print $2 }' /proc/meminfo)
	echo "MemTotal $total KiB, after the release $after KiB"
	[ $((after - total)) -ge $((735 * 4)) ]
	fails pages_are_reserved
	[ -z "$(instance vm state)" ]
	mount_khofs /k name=vm
	[ -z "$(ls /k)" ]
fi
