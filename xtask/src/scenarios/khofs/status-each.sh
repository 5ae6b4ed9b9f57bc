# Nobody mounts it: every page is where it was, reserved, and no free memory.
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
if [ -z "$KHO_NEXT" ]; then
	# Given back unseen.
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
