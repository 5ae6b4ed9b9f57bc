compared=0
compared_bytes=0
entries=0
files=0
models=0
T=/sys/kernel/tracing

# begin ENTRIES FILES: ENTRIES blobs and directories, and FILES files on khofs, arrived.
begin() {
	entries=$1
	files=$2
	[ "$KHO_HOP" = 0 ] || {
		kho-guest fill
		kho status --json >/tmp/status
	}
	report_memory MemTotal reserved
	begin_ring
	begin_trace
}

# report_memory TOTAL RESERVED: reports both amounts of memory under these names.
report_memory() {
	awk '/^MemTotal/ { print $2 }' /proc/meminfo | kho-guest report $1
	kho-guest kept | kho-guest report $2
}

# The sample driver's ring: two records per hop, kept in place.
begin_ring() {
	ring=/sys/kernel/kho_ring
	records=$((2 * KHO_HOP))
	[ "$(cat $ring/counter)" = $records ]
	number=0
	while read -r found text; do
		[ "$found $text" = "$number record of hop $((number / 2))" ]
		number=$((number + 1))
	done <$ring/ring
	[ $number = $records ]
	echo "record of hop $KHO_HOP" >$ring/add
	echo "record of hop $KHO_HOP" >$ring/add
}

# The trace and the beginning of the log of the previous kernel, as that kernel itself showed them.
begin_trace() {
	[ "$KHO_HOP" != 0 ] || {
		kho keep --trace --trace-size 1M >/dev/null
		return 0
	}
	before=$((KHO_HOP - 1))
	kho trace | sed 's/[[:space:]]*$//' >/tmp/trace
	grep -q "soak, hop $before, line 12" /tmp/trace
	kho-guest hash --same trace-$before </tmp/trace
	kho log | head -n 20 | kho-guest hash --same log-$before
	kho status | sed -n 's/^trace *hop \([0-9]*\), \([^,]*\),.*/\1 \2/p' >/tmp/hop
	[ "$(cut -d ' ' -f 1 /tmp/hop)" = $KHO_HOP ]
	cut -d ' ' -f 2 /tmp/hop | kho-guest same release-$before
	kho-guest report traced $(wc -l </tmp/trace)
}

record_trace() {
	echo 8 >$T/buffer_size_kb
	echo 1 >$T/events/sched/sched_switch/enable
	echo 1 >$T/tracing_on
	for line in $(seq 12); do
		cat /proc/uptime >/dev/null
		echo "soak, hop $KHO_HOP, line $line" >$T/trace_marker
	done
	echo 0 >$T/tracing_on
	echo 0 >$T/events/sched/sched_switch/enable
	sed '/^#/d; s/[[:space:]]*$//' $T/trace >/tmp/trace
	grep -q "soak, hop $KHO_HOP, line 12" /tmp/trace
	kho-guest hash --same trace-$KHO_HOP </tmp/trace
	dmesg | head -n 20 | kho-guest hash --same log-$KHO_HOP
	kho-guest same release-$KHO_HOP $KHO_RELEASE
}

# The arrived files on khofs; a mapping was written to up to the moment of the jump.
begin_khofs() {
	before=$(kho-guest boottime)
	mkdir /k
	mount -t khofs none /k -o name=soak,size=60%
	seconds $before mount-seconds
	if [ "$KHO_HOP" = 0 ]; then
		mkdir /k/files
	else
		kho-guest map check /k/map
	fi
	dd if=/dev/zero of=/k/map bs=64k count=16 conv=notrunc 2>/dev/null
}

# write_file NAME BYTES SEED: writes a new file, or overwrites an existing one.
write_file() {
	kho-guest bytes $2 --seed $3 >/tmp/new
	kho-guest hash --same $1.$3 </tmp/new
	dd if=/tmp/new of=/k/files/$1 bs=64k conv=notrunc 2>/dev/null
	[ "$(stat -c %s /k/files/$1)" = $2 ] || truncate -s $2 /k/files/$1
	rm /tmp/new
}

# check_file NAME BYTES SEED read|map
check_file() {
	[ "$(stat -c %s /k/files/$1)" = $2 ]
	if [ $4 = map ]; then
		kho-guest map hash /k/files/$1 | kho-guest same $1.$3
	else
		kho-guest hash --same $1.$3 </k/files/$1
	fi
	count $2
}

remove_file() {
	rm /k/files/$1
}

# churn SEED ROUND: random operations.
churn() {
	mkdir -p /k/churn
	kho-guest churn /k/churn --seed $1 --first $2 --last $2 --steps 80
	kho-guest hash-tree /k/churn --same churn-$1-$2
}

check_churn() {
	kho-guest hash-tree /k/churn --same churn-$1-$2
	count $(($(du -sk /k/churn | cut -f 1) << 10))
}

# Repeats all random operations on tmpfs and compares.
end_churn() {
	mkdir /tmp/churn
	kho-guest churn /tmp/churn --seed $1 --last $2 --steps 80
	kho-guest hash-tree -v /tmp/churn >/tmp/want
	kho-guest hash-tree -v /k/churn >/tmp/found
	diff /tmp/want /tmp/found
	models=$((models + 1))
	rm -r /tmp/churn /k/churn
}

add_blob() {
	kho-guest bytes $2 --seed $3 >/tmp/new
	kho-guest hash --same $1 </tmp/new
	kho keep --name $1 - </tmp/new >/dev/null
	rm /tmp/new
}

add_directory() {
	kho-guest make-tree /srv/$1 --bytes $2 --seed $3
	kho-guest hash-tree /srv/$1 --same $1
	kho keep /srv/$1 --name $1 >/dev/null
}

count() {
	compared=$((compared + 1))
	compared_bytes=$((compared_bytes + $1))
}

check_blob() {
	kho get $1 >/tmp/got
	[ $(wc -c </tmp/got) = $2 ]
	kho-guest hash --same $1 </tmp/got
	rm /tmp/got
	count $2
}

# Restores the directory to its place: the next load reads it from there again.
restore_directory() {
	kho restore $1 >/dev/null
	kho-guest hash-tree /srv/$1 --same $1
	count $2
}

# Restores the directory elsewhere: the next load carries the arrived content on, in place.
look_at_directory() {
	mkdir /tmp/look
	kho restore --into /tmp/look $1 >/dev/null
	kho-guest hash-tree /tmp/look/srv/$1 --same $1
	rm -rf /tmp/look
	count $2
}

remove() {
	kho keep --remove $1 >/dev/null
	rm -rf /srv/$1
}

# The host compares the arrived content in the memory of the machine.
outside() {
	kho-guest report entries $entries
	kho-guest report files $files
	[ "$KHO_HOP" != 0 ] || return 0
	json kho dump | kho-guest report tree
	json kho dump --file /sys/kernel/kho/in/dt | kho-guest report drivers
	kho-guest mark outside
}

json() {
	"$@" --json | tr -d '\n' | sed 's/  *//g'
}

# finish MIB: loads the next kernel while MIB of memory are in use.
finish() {
	kho-guest report compared $compared
	kho-guest report compared-bytes $compared_bytes
	kho-guest report models $models
	cat /sys/fs/khofs/status
	[ -n "$KHO_NEXT" ] || return 0
	head -c $(($1 << 20)) /dev/zero >/tmp/in-use
	before=$(kho-guest boottime)
	load
	seconds $before load-seconds
	kho-guest loaded
}

# The last steps, in the active phase. Content that is written from now on arrives too.
leave() {
	# shellcheck disable=SC2046
	(cd /k/files && kho-guest map where $(ls)) | kho-guest report where
	setsid kho-guest map write /k/map >/tmp/writing &
	while [ ! -s /tmp/writing ]; do sleep 0.1; done
	umount -l /k
}

# In the last kernel: releases everything that arrived, so that nothing may be left.
give_back() {
	rm -r /k/*
	umount /k
	kho release /khofs/soak
	kho release all
	sleep 1
	kho status
	report_memory MemTotal-left left
}
