# Functions for the scripts of khofs tests.

# status_of NAME KEY: one value of the status of an instance.
status_of() {
	sed -n "s/^$1 \\(.* \\)*$2=\\([^ ]*\\).*/\\2/p" /sys/fs/khofs/status
}

# instance NAME KEY: the same value from kho status.
instance() {
	kho status --json | tr -d ' \n' | sed 's/.*"khofs"://' | tr '{' '\n' |
		sed -n "/\"name\":\"$1\"/s/.*\"$2\":\"*\([^,\"}]*\).*/\1/p"
}

# mount_khofs PLACE [OPTIONS]
mount_khofs() {
	mkdir -p "$1"
	mount -t khofs none "$1" ${2:+-o "$2"}
}

# Free memory, with the pages that each processor holds in its lists, which MemFree leaves out.
free_kib() {
	awk '/^MemFree:/ { kib += $2 } $1 == "pagesets" { sets = 1 } sets && $1 == "count:" { kib += $2 * 4 } END { print kib }' \
		/proc/meminfo /proc/zoneinfo
}

# are_free KIB: whether at least KIB are free. A worker frees removed files, so this takes a while.
are_free() {
	[ "$(free_kib)" -ge "$1" ]
}

# Whether kho-guest map write has written to a file.
written() {
	[ "$(od -An -tu8 -N8 "$1")" -gt 0 ]
}

# Whether two trees are the same in every respect that hash-tree covers.
same_trees() {
	kho-guest hash-tree -v "$1" >/tmp/one
	kho-guest hash-tree -v "$2" >/tmp/other
	diff /tmp/one /tmp/other | head -20
	cmp -s /tmp/one /tmp/other
}

# Loads the next kernel; reports the duration of the load and the number of early ranges.
load_and_count() {
	before=$(kho-guest boottime)
	load | tee /tmp/load
	seconds $before load-seconds
	sed -n 's/.* \([0-9]*\) early ranges.*/\1/p' /tmp/load | kho-guest report early-ranges
	kho-guest loaded
}

# The limit of instance vm is KHO_PERCENT of all memory, in use or not, except the firmware's.
is_part_of_memory() {
	mib=$(($(status_of vm limit) >> 20))
	echo "$KHO_PERCENT % of $KHO_MACHINE MiB is $mib MiB"
	[ $mib -le $((KHO_MACHINE * KHO_PERCENT / 100)) ]
	[ $mib -ge $(((KHO_MACHINE - 8) * KHO_PERCENT / 100)) ]
}

# behind FILE AT: writes through a mapping behind the end of FILE, which ends in a huge page. The kernel always maps the
# page in which the file ends. Newer kernels map no page behind it (mm/memory.c, "PMD across i_size"), so that the write
# gets SIGBUS: then nothing is left to hide.
behind() {
	status=0
	kho-guest map behind "$1" "$2" || status=$?
	[ $status = 0 ] || [ $status = 135 ]
}
