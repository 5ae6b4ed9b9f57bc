# Functions for the scripts of khofs tests.

# One word of the status of an instance: status_of NAME KEY.
status_of() {
	sed -n "s/^$1 .*\\<$2=\\([^ ]*\\).*/\\1/p" /sys/fs/khofs/status
}

# mount_khofs PLACE [OPTIONS]
mount_khofs() {
	mkdir -p "$1"
	mount -t khofs none "$1" ${2:+-o "$2"}
}

# Free memory with what each processor keeps for itself, which MemFree leaves out.
free_kib() {
	awk '/^MemFree:/ { kib += $2 } $1 == "pagesets" { sets = 1 } sets && $1 == "count:" { kib += $2 * 4 } END { print kib }' \
		/proc/meminfo /proc/zoneinfo
}

# Two trees are the same in every respect that hash-tree knows.
same_trees() {
	kho-guest hash-tree -v "$1" >/tmp/one
	kho-guest hash-tree -v "$2" >/tmp/other
	diff /tmp/one /tmp/other | head -20
	cmp -s /tmp/one /tmp/other
}
