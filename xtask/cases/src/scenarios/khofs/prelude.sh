# Functions for the scripts of khofs tests.

# One word of the status of an instance: status_of NAME KEY.
status_of() {
	sed -n "s/^$1 \\(.* \\)*$2=\\([^ ]*\\).*/\\2/p" /sys/fs/khofs/status
}

# The same as kho status tells it: instance NAME KEY.
instance() {
	kho status --json | tr -d ' \n' | sed 's/.*"khofs"://' | tr '{' '\n' |
		sed -n "/\"name\":\"$1\"/s/.*\"$2\":\"*\([^,\"}]*\).*/\1/p"
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

# Whether at least so many KiB are free. What was removed is given back by a worker, so this takes a while.
are_free() {
	[ "$(free_kib)" -ge "$1" ]
}

# Whether anything was written to a file by kho-guest map write.
written() {
	[ "$(od -An -tu8 -N8 "$1")" -gt 0 ]
}

# Two trees are the same in every respect that hash-tree knows.
same_trees() {
	kho-guest hash-tree -v "$1" >/tmp/one
	kho-guest hash-tree -v "$2" >/tmp/other
	diff /tmp/one /tmp/other | head -20
	cmp -s /tmp/one /tmp/other
}

# Loads the next kernel; reports how long it took and how many early ranges it needs.
load_and_count() {
	before=$(kho-guest boottime)
	load | tee /tmp/load
	seconds $before load-seconds
	sed -n 's/.* \([0-9]*\) early ranges.*/\1/p' /tmp/load | kho-guest report early-ranges
	kho-guest loaded
}

# The limit of instance vm is so many hundredths of all memory, whoever has it: all but what the firmware keeps.
is_part_of_memory() {
	mib=$(($(status_of vm limit) >> 20))
	echo "$KHO_PERCENT % of $KHO_MACHINE MiB is $mib MiB"
	[ $mib -le $((KHO_MACHINE * KHO_PERCENT / 100)) ]
	[ $mib -ge $(((KHO_MACHINE - 8) * KHO_PERCENT / 100)) ]
}

# Writes behind the end of a file that ends in a huge page, through a mapping. The page where the file ends is always mapped; of those
# behind it newer kernels map none (mm/memory.c, "PMD across i_size"), so that it is SIGBUS: there is nothing to hide then.
behind() {
	status=0
	kho-guest map behind "$1" "$2" || status=$?
	[ $status = 0 ] || [ $status = 135 ]
}
